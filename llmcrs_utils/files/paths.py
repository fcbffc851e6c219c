"""Paths from users."""

from pathlib import Path


def located(path: str | Path) -> Path:
    """The path with a leading ``~`` replaced by the home folder. All code resolves paths here, so checks and uses agree."""
    return Path(path).expanduser()
