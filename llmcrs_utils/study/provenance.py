"""The record of a run as JSON: parameters, versions, commit, files, device, time and memory."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcrs_utils.files.atomic import file_hash, read_json_or_none, write_json

if TYPE_CHECKING:
    from llmcrs_utils.study.run import Run

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "pandas", "gensim", "papermill")
STARTED = time.monotonic()  # close to the start of the notebook, which imports this module early


def write_provenance(run: Run, path: str | Path, key: dict | None = None) -> dict[str, Any]:
    """Write the record of a run to ``path`` and return it. ``key`` is the run's key, if it was already computed."""
    path = Path(path)
    hashes = key["inputs"] if key else {what: file_hash(file) for what, file in run.inputs.items()}
    record = {
        "run": run.name,
        "settings": run.parameters,
        "recipe": run.recipe,
        "inputs": {file: hashes[what] for what, file in run.inputs.items()},
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "device": device_name(),
        "wall_seconds": round(time.monotonic() - STARTED, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)),
    }
    finished = read_json_or_none(path.parent / "finished.json")
    if finished:  # the model may be older than this call, which then only used it
        record["model_made_at"] = finished["git"]
    write_json(path, record)
    return record


def version_of(package: str) -> str | None:
    """``None`` for a package that is not installed; not every machine needs all of them."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state() -> dict[str, Any]:
    """The commit, and whether the working tree differs from it. Both are ``None`` outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(status.strip())}


def device_name() -> str:
    """The GPU's name, else the processor's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()
