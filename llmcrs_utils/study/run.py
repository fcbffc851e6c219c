"""The run, the unit of the study: what a notebook makes, with which parameters and from which files.

A notebook's parameters determine its ``Run`` (``run_of``). The ``Run`` alone determines its name, its key, whether it can resume,
its provenance and the workflow's inputs.

    key = parameters that matter + SHA-256 of every input file + recipe number of the model

A folder with another key is set aside, never deleted. ``make clean-runs`` removes folders that were set aside.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict

from llmcrs_utils.checkpoints.checks import checkpoint_files, hub_revision
from llmcrs_utils.corpus.sources import source_files
from llmcrs_utils.files.atomic import file_hash, first_process, read_json_or_none, write_json
from llmcrs_utils.files.locks import held
from llmcrs_utils.study.parameters import with_defaults
from llmcrs_utils.study.provenance import git_state, write_provenance
from llmcrs_utils.systems import recipes
from llmcrs_utils.systems.predictions import label_run, write_predictions
from llmcrs_utils.systems.registry import system_of
from llmcrs_utils.tasks.dataset import ITEMS, SAMPLES
from llmcrs_utils.training.folders import HISTORY, STAGES

# Files in a run's folder: its key, the record of its finished model, and the record for people.
KEY_FILE, FINISHED, PROVENANCE = "key.json", "finished.json", "provenance.json"
ANSWERED = ["valid", "test"]  # splits that a system answers if it assists no other
SET_ASIDE = "set_aside"
WAIT_SECONDS = 30  # a process whose parent was killed may take a moment to end
CORPUS = [f"corpus/{name}" for name in ("train_dialogue.json", "valid_dialogue.json", "test_dialogue.json", "item_kg.txt", "user_action.txt")]
# The seed that names of runs leave out.
USUAL_SEED = 1
# Parameters that are paths. They are not in the key: files that are read count by content, files that are written do not matter.
PLACES = {"data_dir", "dataset_dir", "output_dir", "predictions_dir", "predictions_file", "output_file", "assistance_file", "fold_files"}
# Parameters that name checkpoints. The key holds the name and commit of a hub id, but not the path of a folder.
CHECKPOINTS = {"model_name_or_path", "adapter_name_or_path"}
# Parameters of answering. A trained model does not depend on them.
OF_ANSWERING = {"predict_splits", "eval_batch_size", "num_beams", "merge_adapter", "candidate_orders", "served", "served_requests", "report_to", "models"}
# Parameters that change the speed, and no more of the numbers than another device would.
OF_SPEED = {"compile_layers"}
# The parameters on which an LLM behind an address depends: it is not tuned, so the others do not matter.
OF_SERVED = {"served_model", "shots", "seed", "max_new_tokens", "language", "folds", "held_out_fold"}
TYPICAL_NOTEBOOK = "06_typical_systems"
SEEDED = ("03_train_crs", "04_tune_llm", "05_collaborate")  # a profile may run these with several seeds
SHARED_BY_TYPICAL = ("dataset_dir", "language", "seed", "warmup_steps", "weight_decay", "report_to", "eval_batch_size")


class Run(BaseModel):
    """One product of a notebook.

    Attributes:
        notebook: the notebook that makes it.
        system: key of the system; for a small backbone its architecture; otherwise the notebook's name.
        seed: seed of weights, order and dropout.
        fold: number of the part of the training dialogues that is left out, from 1; 0 for none.
        parameters: the values of all parameters of the notebook.
        inputs: role -> path, for every file that is read.
        output_dir: the folder of the product.
        predictions_file: the file for its answers; empty if there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    notebook: str
    system: str
    seed: int = USUAL_SEED
    fold: int = 0
    parameters: dict[str, Any]
    inputs: dict[str, str]
    output_dir: str
    predictions_file: str = ""

    @property
    def name(self) -> str:
        """The name of the run's files: ``bcrs``, ``bcrs_seed2``, ``bcrs_seed2_fold1``; data, backbones and typical systems have one seed."""
        return run_name(self.system, self.seed, self.fold) if self.notebook in SEEDED else self.system

    @property
    def recipe(self) -> int:
        """Version number of the code that makes this (``systems.recipes``); 0 where it has none."""
        return RECIPES[self.notebook](self.system) if self.notebook in RECIPES else 0

    def key(self) -> dict:
        """Everything on which the result depends. This reads every input file.

        Raises:
            FileNotFoundError: if an input is missing; names it.
        """
        missing = next((path for path in self.inputs.values() if not Path(path).is_file()), None)
        if missing:
            raise FileNotFoundError(f"{missing}: no such file; run the notebooks before {self.notebook} first (`make demo` runs them all)")
        # A typical system keeps its beams in the trained model.
        left_out = PLACES | CHECKPOINTS | OF_SPEED | (OF_ANSWERING - {"num_beams"} if self.notebook == TYPICAL_NOTEBOOK else OF_ANSWERING)
        if self.parameters.get("served"):
            left_out = self.parameters.keys() - OF_SERVED
        matter = {name: value for name, value in self.parameters.items() if name not in left_out}
        for name in CHECKPOINTS & self.parameters.keys():
            matter[name] = [hub_revision(model) for model in as_list(self.parameters[name])]
        inputs = {what: file_hash(path) for what, path in sorted(self.inputs.items())}
        key = {"notebook": self.notebook, "system": self.system, "fold": self.fold, "recipe": self.recipe}
        return json.loads(json.dumps({**key, "parameters": dict(sorted(matter.items())), "inputs": inputs}))


def run_name(system: str, seed: int, fold: int = 0) -> str:
    """See ``Run.name``."""
    return system + (f"_seed{seed}" if seed != USUAL_SEED else "") + (f"_fold{fold}" if fold else "")


def run_of(notebook: str, values: dict[str, Any]) -> Run:
    """The run of a notebook with these parameters. The others have the notebook's defaults.

    Raises:
        ParameterError: for an unknown or mistyped parameter.
    """
    own = with_defaults(notebook, values)
    of_data = dataset_inputs(own)
    if notebook == "01_build_data":
        inputs = {} if own["corpus"] == "generated" else named_files("source", source_files(own["corpus"], own["data_dir"], own["language"]))
        return Run(notebook=notebook, system=notebook, seed=own["seed"], parameters=own, inputs=inputs, output_dir=own["output_dir"])
    if notebook == "02_prepare_backbones":
        inputs = of_data | corpus_inputs(own)
        return Run(notebook=notebook, system=own["architecture"], seed=own["seed"], parameters=own, inputs=inputs, output_dir=own["output_dir"])
    if notebook == "05_collaborate":
        inputs = of_data | {"the assistant's answers": own["predictions_file"]}
        inputs |= {f"answers of fold {number}": path for number, path in enumerate(own["fold_files"], start=1)}
        folder = str(Path(own["output_file"]).parent)
        return Run(notebook=notebook, system=own["system"], seed=own["seed"], parameters=own, inputs=inputs, output_dir=folder)
    inputs = of_data | (corpus_inputs(own) if notebook == "03_train_crs" else {})
    inputs |= {"help": own["assistance_file"]} if own["assistance_file"] else {}
    for role, models in (("base", own["model_name_or_path"]), ("adapter", own.get("adapter_name_or_path", []))):
        for number, model in enumerate(as_list(models), start=1):
            inputs |= named_files(role if number == 1 else f"{role} {number}", checkpoint_files(model))
    return Run(
        notebook=notebook, system=own["system"], seed=own["seed"], fold=own["held_out_fold"], parameters=own, inputs=inputs,
        output_dir=own["output_dir"], predictions_file=own["predictions_file"],
    )  # fmt: skip


def typical_run(values: dict[str, Any], system: str) -> Run:
    """The run of one typical system, from the parameters of the notebook that all typical systems share."""
    shared = with_defaults(TYPICAL_NOTEBOOK, values)
    backbone = system_of(system).backbone
    model = shared[f"{backbone}_model_name_or_path"] if backbone else None
    own = {"system": system, "model_name_or_path": model, **shared[system], **{name: shared[name] for name in SHARED_BY_TYPICAL}}
    inputs = dataset_inputs(own) | corpus_inputs(own) | (named_files("base", checkpoint_files(model)) if model else {})
    folder, file = Path(shared["output_dir"]) / system, Path(shared["predictions_dir"]) / f"{system}.parquet"
    return Run(
        notebook=TYPICAL_NOTEBOOK, system=system, seed=own["seed"], parameters=own, inputs=inputs, output_dir=str(folder),
        predictions_file=str(file),
    )  # fmt: skip


def dataset_inputs(parameters: dict) -> dict[str, str]:
    return {f"data/{name}": str(Path(parameters["dataset_dir"]) / name) for name in (SAMPLES, ITEMS)} if "dataset_dir" in parameters else {}


def corpus_inputs(parameters: dict) -> dict[str, str]:
    return {f"data/{name}": str(Path(parameters["dataset_dir"]) / name) for name in CORPUS}


def named_files(role: str, paths: list[Path]) -> dict[str, str]:
    return {f"{role}/{path.name}": str(path) for path in paths}


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


# --- what is trained, and by whom

RECIPES = {
    "01_build_data": lambda system: recipes.OF_DATA,
    "02_prepare_backbones": lambda system: recipes.OF_BACKBONES[system],
    "03_train_crs": lambda system: recipes.OF_CRS,
    "04_tune_llm": lambda system: recipes.OF_LLM,
    TYPICAL_NOTEBOOK: lambda system: recipes.OF_TYPICAL[system],
}


class Outcome(NamedTuple):
    """The result of a run: the training history, and the answers (``None`` for a backbone)."""

    history: pd.DataFrame
    predictions: pd.DataFrame | None


def conduct(run: Run, material: Any = None) -> Outcome:
    """Train the model, answer the samples, and write predictions and provenance.

    A finished model is not trained again. A call after a kill resumes the training.

    Args:
        material: the result of the family's ``prepare`` for the run's parameters, if the caller already has it.

    Raises:
        Busy: if another process works on the same folder.
        FileNotFoundError: if an input is missing.
    """
    family = family_of(run)
    material = family.prepare(run.parameters) if material is None else material
    with opened(run) as key:
        history = finished_history(run, key)
        if history is None:
            history = family.train(material, run.output_dir)
            mark_finished(run, key, history)
        predictions = None
        if run.predictions_file:
            answers = family.answer(material, run.output_dir, run.parameters.get("predict_splits", ANSWERED))
            predictions = label_run(answers, run.system, run.seed)
            write_predictions(predictions, run.predictions_file)
        write_provenance(run, Path(run.output_dir) / PROVENANCE, key)
    return Outcome(history, predictions)


def family_of(run: Run) -> ModuleType:
    """The module of the run's family, with ``prepare``, ``train`` and ``answer``. Imported here, because each loads torch."""
    if run.notebook == "02_prepare_backbones":
        from llmcrs_utils.small import system
    elif run.notebook == "03_train_crs":
        from llmcrs_utils.crs import system
    elif run.notebook == "04_tune_llm" and run.parameters["served"]:
        from llmcrs_utils.llm import served as system
    elif run.notebook == "04_tune_llm":
        from llmcrs_utils.llm import system
    else:
        from llmcrs_utils.typical import systems as system
    return system


# --- the run's folder


@contextmanager
def opened(run: Run) -> Iterator[dict]:
    """Lock the run's folder for this process, set aside what another run left in it, and yield the run's key."""
    folder, key = Path(run.output_dir), run.key()
    if not first_process():
        await_the_first()
        yield key
        return
    with held(folder.parent / f".{folder.name}.lock", f"{folder} is being worked on", WAIT_SECONDS):
        claim(folder, key)
        await_the_first()
        yield key


def await_the_first() -> None:
    """Wait until all processes of this training have reached this point."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState  # loads torch

        PartialState().wait_for_everyone()


def claim(folder: Path, key: dict) -> None:
    """Prepare ``folder`` for this key. A folder with another key is set aside, and a folder with this key is brought back."""
    found = read_json_or_none(folder / KEY_FILE)
    if found == key:
        return
    if folder.is_dir() and any(folder.iterdir()):
        reason = "nothing there says what made it" if found is None else differences(found, key)
        aside = set_aside(folder, "unknown" if found is None else digest(found))
        print(f"{folder}: made by another run ({reason}); set aside as {aside}")
    earlier = folder.parent / SET_ASIDE / f"{folder.name}-{digest(key)}"
    if earlier.is_dir():
        if folder.is_dir():
            folder.rmdir()
        earlier.rename(folder)
        print(f"{folder}: taken back from {earlier}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / KEY_FILE, key)


def set_aside(folder: Path, name: str) -> Path:
    """Move a folder to ``SET_ASIDE`` and return the new path. A number is added if the name is taken."""
    aside = folder.parent / SET_ASIDE / f"{folder.name}-{name}"
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{folder.name}-{name}.{number}")
    aside.parent.mkdir(exist_ok=True)
    folder.rename(aside)
    return aside


def digest(key: dict) -> str:
    """Twelve hexadecimal digits that identify a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def differences(found: dict, wanted: dict) -> str:
    """The differences between two keys on one line: parameters, files, recipe."""
    told = []
    for what in ("notebook", "system", "fold", "recipe"):
        if found.get(what) != wanted[what]:
            told.append(f"{what} was {found.get(what)}, is {wanted[what]}")
    before, now = found.get("parameters", {}), wanted["parameters"]
    told += [f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in sorted(before | now) if before.get(name) != now.get(name)]
    before, now = found.get("inputs", {}), wanted["inputs"]
    for name in sorted(before | now):
        if before.get(name) != now.get(name):
            told.append(f"{name} " + ("is new" if name not in before else "is gone" if name not in now else "has other content"))
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


def finished_history(run: Run, key: dict) -> pd.DataFrame | None:
    """The training history if the folder holds the complete finished model of this key, else ``None``."""
    folder = Path(run.output_dir)
    record = read_json_or_none(folder / FINISHED)
    if not record or record["key"] != key:
        return None
    if any(not (folder / name).is_file() for name in record["files"]):
        if first_process():
            for path in [*folder.rglob(HISTORY), folder / FINISHED]:  # without them its stages would pass for finished ones
                path.unlink(missing_ok=True)
        await_the_first()
        return None
    return pd.DataFrame(record["history"])


def mark_finished(run: Run, key: dict, history: pd.DataFrame) -> None:
    """Write the record of a finished model, after all its files, and then remove the files that only training needed."""
    folder = Path(run.output_dir)
    if not first_process():
        return
    scratch = folder / STAGES
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and scratch not in path.parents]
    files = sorted(str(path) for path in paths if not path.parts[0].startswith(("checkpoint-", "runs")))  # nor logs of TensorBoard
    write_json(folder / FINISHED, {"key": key, "git": git_state(), "files": files, "history": history.to_dict("records")})
    shutil.rmtree(scratch, ignore_errors=True)
