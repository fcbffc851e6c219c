"""A folder of data: where it is, and which of its files are data."""

from pathlib import Path

from llmcrs_utils.corpus.faults import CorpusError
from llmcrs_utils.files.paths import located

# What file managers, archivers, editors and downloads leave beside the data, such as ._user_action.txt of a Mac.
LEFT_BEHIND_BEGINNINGS = (".", "~$")
LEFT_BEHIND_ENDS = (".part", ".crdownload", ".tmp", ".swp", "~")
LEFT_BEHIND_FOLDERS = ("__MACOSX",)


def data_folder(folder: str | Path) -> Path:
    """The folder that a user names.

    Raises:
        CorpusError: where it begins with the home folder of a user that there is not.
    """
    try:
        return located(folder)
    except RuntimeError:
        raise CorpusError(f"{folder}: there is no such user; write ./{folder} for a folder of this name") from None


def data_files(folder: Path, *patterns: str, deep: bool = False) -> list[Path]:
    """What ``folder`` holds by one of the ``patterns``, with ``deep`` at any depth, less what a program left behind; sorted."""
    found = {path for pattern in patterns for path in (folder.rglob(pattern) if deep else folder.glob(pattern))}
    return sorted(path for path in found if not is_left_behind(path.relative_to(folder)))


def is_left_behind(path: Path) -> bool:
    """Whether a path inside a data folder is hidden or a program's own."""
    return any(
        name.startswith(LEFT_BEHIND_BEGINNINGS) or name.endswith(LEFT_BEHIND_ENDS) or name in LEFT_BEHIND_FOLDERS
        for name in path.parts
    )
