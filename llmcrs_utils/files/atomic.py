"""Writes files and folders atomically: under a temporary name, which is then replaced. Of several processes only the first writes."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def first_process() -> bool:
    """Whether this process writes files. Of the processes that ``accelerate launch`` starts together, only the first does."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file to write. It replaces ``path`` when the block ends without an error.

    Each call has its own temporary name, so two processes can write one file; the last one to finish wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~current_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(output_dir: str | Path, unless: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Yield a new folder to write in, and rename it to ``output_dir`` when the block ends without an error.

    If ``output_dir`` exists by then, it is replaced, unless ``unless()`` is true: then it is kept.
    """
    output_dir = Path(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{output_dir.name}.", dir=output_dir.parent))
    folder.chmod(0o777 & ~current_umask())  # mkdtemp makes folders that only their owner can read
    try:
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~current_umask())  # some libraries write files that only their owner can read
        try:
            folder.rename(output_dir)  # atomic, so that only one of several jobs succeeds
        except OSError:  # the folder exists and is not empty
            if not unless():
                shutil.rmtree(output_dir, ignore_errors=True)
                folder.rename(output_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def current_umask() -> int:
    """The permission bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file that no reader ever sees incomplete. Of several processes only the first writes."""
    if first_process():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON as ``write_atomically`` does."""
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json_or_none(path: str | Path) -> Any:
    """The content of a JSON file; ``None`` if the file is missing or incomplete."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
