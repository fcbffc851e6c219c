"""Data folders: where a folder is, and which of its files are data."""

from pathlib import Path

from llmcrs_utils.corpus.faults import CorpusError
from llmcrs_utils.files.paths import located

# Files that file managers, archivers, editors and downloads leave beside the data. A Mac leaves ._user_action.txt, for example.
LEFT_BEHIND_BEGINNINGS = (".", "~$")
LEFT_BEHIND_ENDS = (".part", ".crdownload", ".tmp", ".swp", "~")
LEFT_BEHIND_FOLDERS = ("__MACOSX",)


def data_folder(folder: str | Path) -> Path:
    """The path of the folder that a user names, with a leading ``~`` resolved.

    Raises:
        CorpusError: if it begins with the home folder of a user who does not exist.
    """
    try:
        return located(folder)
    except RuntimeError:
        raise CorpusError(f"{folder}: there is no such user; write ./{folder} for a folder of this name") from None


def data_files(folder: Path, *patterns: str, deep: bool = False) -> list[Path]:
    """The files in ``folder`` that match one of the ``patterns``, sorted. With ``deep``, subfolders are searched too.

    Files that a program left behind are skipped.
    """
    matches = {path for pattern in patterns for path in (folder.rglob(pattern) if deep else folder.glob(pattern))}
    return sorted(path for path in matches if not is_left_behind(path.relative_to(folder)))


def is_left_behind(path: Path) -> bool:
    """Whether a path inside a data folder is hidden, or was left there by a program."""
    return any(
        name.startswith(LEFT_BEHIND_BEGINNINGS) or name.endswith(LEFT_BEHIND_ENDS) or name in LEFT_BEHIND_FOLDERS
        for name in path.parts
    )
