"""One JSON per run that says what was run: parameters, versions, commit, data, device, time and memory."""

import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from llmcrs_utils.files.atomic import file_hash, write_atomically

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "pandas", "gensim", "papermill")
FINISHED = "finished.json"  # beside a model: what made it
STARTED = time.monotonic()  # a notebook imports this module first thing


def write_provenance(path: str | Path, settings: dict[str, Any], inputs: list[str | Path]) -> dict[str, Any]:
    """Write the record of this run to ``path`` and return it; ``inputs`` are the files it depends on."""
    record = {
        "settings": settings,
        "inputs": {str(name): file_hash(name) for name in inputs},
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": device_name(),
        "wall_seconds": round(time.monotonic() - STARTED, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)),
    }
    made = Path(path).parent / FINISHED
    if made.exists():  # the model may be older than this run, which then only used it
        record["model_made_at"] = json.loads(made.read_text(encoding="utf-8"))["git"]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    return record


def git_state() -> dict[str, Any]:
    """Commit and whether the working tree differs from it; ``None`` outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(status.strip())}


def device_name() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()
