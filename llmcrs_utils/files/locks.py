"""A lock that one process holds at a time. The operating system releases it when that process ends in any way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class Busy(RuntimeError):
    """Another process holds the lock. The message says what that process does, and the remedy."""


@contextmanager
def held(path: str | Path, doing: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock on the file ``path`` while the block runs. The file remains afterwards, but the lock does not.

    Args:
        doing: the message's words for what the other process does.
        seconds: how long to wait for the other process.

    Raises:
        Busy: if another process still holds the lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(f"{doing} by another process; wait until it ends, or stop it") from None
    try:
        yield
    finally:
        lock.release()
