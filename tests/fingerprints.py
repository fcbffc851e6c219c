"""What two steps of training make of each tiny model, stored in fingerprints.json and compared by test_recipes.py.

    python tests/fingerprints.py    # write fingerprints.json anew, after a recipe's number was raised
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import tiny
from safetensors.numpy import load_file

from llmcrs_utils.corpus.schema import write_corpus
from llmcrs_utils.files.atomic import write_json
from llmcrs_utils.study.parameters import start_notebook
from llmcrs_utils.study.run import RECIPES, Run, family_of, run_of, typical_run
from llmcrs_utils.systems import recipes
from llmcrs_utils.tasks.dataset import write_dataset

STORED = Path(__file__).with_name("fingerprints.json")
# One update an epoch: every batch holds all samples.
SHORT = {"per_device_train_batch_size": 1000, "warmup_steps": 0.0, "report_to": "none"}
SIZES = {"hidden_size": 32, "layers": 1, "heads": 2, "block_size": 32, "num_train_epochs": 3.0, "per_device_train_batch_size": 1000}


def runs(folder: Path) -> dict[str, Run]:
    """A run of two updates for every model that has a recipe, and for both backbones of a family."""
    write_dataset(tiny.dataset(), folder / "data")
    write_corpus(tiny.corpus(), folder / "data" / "corpus")
    data = {"dataset_dir": str(folder / "data")}
    found = {}
    for architecture in recipes.OF_BACKBONES:
        given = {"architecture": architecture, "output_dir": str(folder / "backbones" / architecture), "vocab_size": 500, **SIZES, **data}
        found[f"small {architecture}"] = run_of("02_prepare_backbones", given)
    stages = {f"stage_{stage}_epochs": 2.0 for stage in ("one", "two")} | {"item_dim": 16}
    for notebook, system, backbone, own in (
        ("03_train_crs", "bcrs", "bart", stages), ("03_train_crs", "ccrs", "cpt", stages),
        ("04_tune_llm", "allm", "llama", {"num_train_epochs": 2.0, "max_samples": 4}),
        ("04_tune_llm", "cllm", "chatglm", {"num_train_epochs": 2.0, "max_samples": 4, "lora_target": ["query_key_value"], "modules_to_save": [], "template": "bare"}),
    ):  # fmt: skip
        files = {"output_dir": str(folder / system), "predictions_file": str(folder / f"{system}.parquet")}
        base = {"system": system, "model_name_or_path": tiny.backbone(backbone)}
        found[system] = run_of(notebook, {**data, **files, **base, **own, **SHORT})
    bases = {f"{name}_model_name_or_path": tiny.backbone(name) for name in ("bert", "gpt2")}
    folders = {"output_dir": str(folder / "typical"), "predictions_dir": str(folder)}
    for key in recipes.OF_TYPICAL:
        own = {"num_train_epochs": 2.0, "per_device_train_batch_size": 1000}
        own |= {"tg_crs": {"behaviour_epochs": 2.0}, "kbrd": {"recommender_epochs": 2.0, "recommender_batch_size": 1000, "hidden_size": 32}}.get(key, {})
        found[key] = typical_run({**data, **folders, **bases, "systems": [key], "warmup_steps": 0.0, key: own}, key)
    return found


def fingerprint(run: Run) -> list[float]:
    """Losses of the training, and the size of all weights that it ended with: what another processor changes by its rounding only."""
    family = family_of(run)
    history = family.train(family.prepare(run.parameters), run.output_dir)
    losses = history[["train_loss", "valid_loss"]].to_numpy(dtype=float).ravel()
    files = sorted(path for path in Path(run.output_dir).rglob("*.safetensors") if "stages" not in path.parts)
    tensors = [tensor for path in files for tensor in load_file(path).values() if np.issubdtype(tensor.dtype, np.floating)]
    squares = sum(float(np.square(tensor.astype(np.float64)).sum()) for tensor in tensors)
    return [round(float(value), 8) for value in [*losses[~np.isnan(losses)], np.sqrt(squares)]]


def data_digest() -> str:
    """SHA-256 of the samples and the catalogue of the tiny corpus."""
    tables = tiny.dataset().samples.assign(time=tiny.dataset().samples["time"].astype(str)), tiny.dataset().items
    return hashlib.sha256("".join(table.to_json(orient="values") for table in tables).encode()).hexdigest()


def recipe_of(run: Run) -> int:
    return RECIPES[run.notebook](run.system)


if __name__ == "__main__":
    import tempfile

    start_notebook()
    with tempfile.TemporaryDirectory() as folder:
        stored = {"data": {"recipe": recipes.OF_DATA, "digest": data_digest()}}
        stored |= {name: {"recipe": recipe_of(run), "fingerprint": fingerprint(run)} for name, run in runs(Path(folder)).items()}
    write_json(STORED, stored)
    json.dump(stored, sys.stdout, indent=1)
