"""Two processes under accelerate train what one trains, share the answers, and write each file once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import slow
from safetensors.torch import load_file

from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.training.processes import share_out

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5  # relative, of losses: the same sums in another order


def launch(kind: str, folder: Path, processes: int) -> Path:
    """``together.py`` in that many processes; together they see 8 examples an update."""
    folder.mkdir()
    command = [str(Path(sys.executable).parent / "accelerate"), "launch", "--main_process_port", "0"]
    if processes > 1:
        command += ["--config_file", str(ROOT / "workflow/accelerate/ddp.yaml")]
    else:
        command += ["--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--cpu"]
    command += [str(ROOT / "tests/together.py"), kind, str(folder), str(8 // processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=slow) for kind in ("candidates", "likelihood", "llm", "crs")])
def runs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return request.param, launch(request.param, folder / "one", 1), launch(request.param, folder / "two", 2)


def test_two_processes_give_the_losses_of_one(runs):
    _, one, two = runs
    alone, together = (json.loads((folder / "history.json").read_text()) for folder in (one, two))
    assert alone["epoch"] == together["epoch"] == [1, 2, 3]
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(together[name], alone[name], rtol=TOLERANCE)
    assert alone["valid_loss"][-1] < 0.95 * alone["valid_loss"][0]
    if (one / "curve.json").exists():
        assert json.loads((one / "curve.json").read_text()) == json.loads((two / "curve.json").read_text()) == [[0, True], [12, True], [30, True]]


def test_two_processes_save_one_model_and_no_pickle(runs):
    _, one, two = runs
    files = {path.name for path in (two / "model").iterdir()}
    assert files == {path.name for path in (one / "model").iterdir()} and "training_args.bin" not in files
    (weights,) = (name for name in files if name.endswith(".safetensors"))
    alone, together = (load_file(folder / "model" / weights) for folder in (one, two))
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        if "k_proj.bias" in name:  # attention does not depend on it: its gradient is rounding noise, which Adam blows up
            continue
        assert (together[name] - tensor).norm() < 0.02 * tensor.norm().clamp(min=1e-3), name
    assert not list((two / "model").glob("checkpoint-*"))


def test_answers_are_shared_and_complete(runs):
    kind, one, two = runs
    if kind == "crs":
        pytest.skip("the same code answers")
    alone, together = (read_parquet(folder / "answers.parquet") for folder in (one, two))
    samples = tiny.some_samples(3 if kind == "llm" else 6)
    assert together["sample_id"].tolist() == alone["sample_id"].tolist() == samples["sample_id"].tolist()
    assert together["raw"].notna().all() and (together["raw"] == alone["raw"]).mean() >= 0.75


def test_one_process_does_all_and_keeps_the_order():
    assert share_out([3, 1, 2], lambda positions: [f"answer {i}" for i in positions]) == ["answer 3", "answer 1", "answer 2"]
