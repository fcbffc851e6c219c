"""One job of the workflow: executes a notebook with parameters, and ends when the process that started it has ended.

    python -m llmcrs_utils.study.job NOTEBOOK LOG '{"parameters": {...}, "recipe": 1}'

Parameters are JSON, and the notebook gets them with unchanged types. Of several processes that train together only the first
writes a log.
"""

import json
import os
import random
import sys
import threading
import time
from pathlib import Path

import nbformat
import papermill

from llmcrs_utils.files.atomic import first_process
from llmcrs_utils.study.parameters import notebook_path

SECONDS_BETWEEN_LOOKS = 0.5
STARTS = 3
DIED_AT_START = "Kernel died before replying"
RESULT_BELOW = "*This copy was executed in a run of its own; its results are below. The notebook in the repository begins with the committed results instead.*"


def execute(notebook: str, log: str, parameters: dict) -> None:
    """Run the notebook in the current folder and save the executed notebook as ``log``, also after an error.

    The copy does not hold what the notebook says of the committed results. Kernels choose free ports, and two that start at the same moment can choose the same. The one that dies of it is started again.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    source, written = (log, log) if first_process() else (str(notebook_path(notebook)), os.devnull)
    for start in range(STARTS):
        try:
            if source == log:
                nbformat.write(without_committed_results(nbformat.read(notebook_path(notebook), as_version=4)), log)
            papermill.execute_notebook(source, written, parameters, kernel_name="python3", progress_bar=False, cwd=".")
            return
        except RuntimeError as error:
            if DIED_AT_START not in str(error) or start == STARTS - 1:
                raise
            print(f"{notebook}: {error}; starting it again", file=sys.stderr)
            time.sleep(random.random())


def without_committed_results(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without its opening paragraph and its written takeaway, which tell the committed results and not those of this run."""
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            paragraphs = cell.source.split("\n\n")
            if place == 0 and len(paragraphs) > 1 and paragraphs[1].startswith("**"):
                paragraphs[1] = RESULT_BELOW
            cell.source = "\n\n".join(text for text in paragraphs if not text.startswith("**Takeaway.**"))
    return notebook


def end_with(*processes: int) -> None:
    """End this process, and with it the kernel, as soon as its parent or one of ``processes`` has ended.

    The results would no longer be needed.
    """

    def watch() -> None:
        parent = os.getppid()
        while os.getppid() == parent and all(alive(process) for process in processes):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def alive(process: int) -> bool:
    """Whether a process with this number exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to another user
        return True
    return True


if __name__ == "__main__":
    name, log, job = sys.argv[1:]
    started_by = os.environ.get("STARTED_BY")
    end_with(*([int(started_by)] if started_by else []))
    parameters = json.loads(job)["parameters"]
    if not parameters.get("compile_layers"):
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing else compiles a model, and bitsandbytes would load the compiler: two seconds a kernel
    execute(name, log, parameters)
