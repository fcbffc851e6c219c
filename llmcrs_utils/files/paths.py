"""Paths that a user names."""

from pathlib import Path


def located(path: str | Path) -> Path:
    """The path with a leading ``~`` as the user's home folder: whoever checks a path and whoever uses it mean the same."""
    return Path(path).expanduser()
