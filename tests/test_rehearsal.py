"""`make paper` and `make modern` from data to tables, on tiny folders laid out like the hub's checkpoints and U-NEED's files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hub
import pandas as pd
import pytest
import tiny
from conftest import slow

from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.world import generate

ROOT = Path(__file__).parents[1]
FOLDERS = ("llmcrs_utils", "notebooks", "params", "workflow")
LETTER = {"bcrs": "bart_base_chinese", "ccrs": "cpt_base", "cllm": "chatglm_6b", "allm": "chinese_alpaca_plus_7b", "bert": "bert_base_chinese", "gpt2": "gpt2_chinese"}
# What `make paper` would make of these are 22 systems; these take each checkpoint, each family and each direction.
PAPER = ["bert_crf", "sasrec", "gpt2", "bcrs", "ccrs", "cllm", "allm", "allm-ccrs", "bcrs-cllm"]


pytestmark = slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the project, U-NEED's files under an odd name, and the hub's folders beside it."""
    folder = tmp_path_factory.mktemp("rehearsal")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    corpus = generate({"train": 6, "valid": 2, "test": 4}, sellers_per_category=1, items_per_seller=25)[0]
    hub.u_need(folder / "U-NEED (2023) #1 & more 数据", corpus)
    for name in [*LETTER.values(), "qwen"]:
        getattr(hub, name)(folder / "hub" / name, tiny.texts())
    return folder


def make(place: Path, *arguments: str) -> str:
    """`make` in the copy, with this environment's Python instead of one of its own; no hub can be reached."""
    command = ["make", *arguments, f"VENV_PYTHON={sys.executable}", "INSTALLED=", "DATA=U-NEED (2023) #1 & more 数据"]
    environment = {**os.environ, "PYTHONPATH": str(place), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def check_results(run: Path, systems: list[str], note: str) -> None:
    metrics = pd.read_csv(run / "figures" / "metrics.csv")
    assert set(systems) <= set(metrics["system"]) and metrics["value"].dropna().between(0, 1).all()
    assert note in (run / "figures" / "table1.md").read_text("utf-8").splitlines()[2]
    answers = read_predictions(run / "predictions")
    assert set(answers.loc[answers["split"] == "test", "system"]) >= set(systems)


def test_make_paper_reaches_its_tables_with_the_published_settings(place):
    models = [f"{key.upper()}=hub/{name}" for key, name in LETTER.items()]
    output = make(place, "paper", *models, f"SET='profile=zz my study (2) 纸' systems=[{','.join(PAPER)}]")
    run = place / "runs" / "zz my study (2) 纸"
    check_results(run, PAPER, "U-NEED.")
    assert "# Table 4:" in output
    told = json.loads((run / "systems" / "cllm" / "provenance.json").read_text("utf-8"))["settings"]
    profile = load_profile(ROOT / "params" / "paper.yaml", {"data_dir": "x"})
    assert told["learning_rate"] == profile["cllm"]["learning_rate"] == 0.00005 and told["lora_rank"] == 8
    assert told["model_name_or_path"] == "hub/chatglm_6b"


def test_modern_takes_a_causal_model_of_today(place):
    make(place, "run", "PROFILE=modern", "BCRS=hub/bart_base_chinese", "MLLM=hub/qwen")
    run = place / "runs" / "modern"
    check_results(run, ["bcrs", "mllm", "mllm-bcrs", "bcrs-mllm"], "U-NEED.")
    told = json.loads((run / "systems" / "bcrs-mllm" / "provenance.json").read_text("utf-8"))["settings"]
    assert (told["template"], told["lora_target"], told["learning_rate"]) == ("chat", ["all-linear"], 0.0001)
    assert "Modern LLM" in (run / "figures" / "table1.md").read_text("utf-8")
