"""A lock that one process holds at a time. The system frees it when that process ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class Busy(RuntimeError):
    """Another process holds the lock; the message says what it is doing and what to do."""


@contextmanager
def held(path: str | Path, doing: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of the block. The file stays and means nothing by itself.

    Args:
        doing: what the message says that another process is doing.
        seconds: how long to wait for it to end.

    Raises:
        Busy: where another process still holds the lock.
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
