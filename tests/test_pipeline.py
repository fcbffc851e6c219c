"""The whole path on a toy corpus, in a copy of the project: undisturbed, and with a kernel killed on the way."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from llmcrs_utils.predictions import read_predictions, read_table
from llmcrs_utils.systems import FLOORS, ORACLE, RANKING_FLOORS, SYSTEMS, TASKS

ROOT = Path(__file__).parents[1]
FOLDERS = ("llmcrs_utils", "notebooks", "params", "workflow")
TRAINED = [key for key in SYSTEMS if "mllm" not in key]
TABLES = [f"table{number}.{kind}" for number in (1, 2, 3, "3b", 4) for kind in ("md", "csv", "tex")] + ["metrics.csv"]
COMMAND = [sys.executable, "-m", "snakemake", "-s", "workflow/Snakefile", "--configfile", "params/smoke.yaml"]
COMMAND += ["--cores", "2", "--resources", "gpu=1", "--nolock", "--rerun-incomplete", "--quiet", "all"]


def test_slurm_profile_submits_the_whole_grid():
    """As far as this can be seen without a cluster: Snakemake takes the profile and plans every job with its resources."""
    command = [sys.executable, "-m", "snakemake", "-s", "workflow/Snakefile", "--configfile", "params/grid.yaml"]
    command += ["--profile", "workflow/profiles/slurm", "--dry-run", "--forceall"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", shown.stdout + shown.stderr, re.MULTILINE))
    assert counts == {
        "build_data": "1", "prepare_backbone": "6", "typical_systems": "1", "train_crs": "6", "tune_llm": "6", "collaborate": "8", "tables": "1",
        "all": "1", "total": "30",
    }  # fmt: skip
    jobs = (shown.stdout + shown.stderr).split("rule ")
    assert all("gpu=1" in job and "runtime=1440" in job for job in jobs if job.startswith("tune_llm"))
    assert all("gpu=0" in job for job in jobs if job.startswith("collaborate"))


def copy_of_project(folder: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def start(folder: Path, profile: str = "smoke") -> subprocess.Popen:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    command = [argument.replace("smoke", profile) for argument in COMMAND]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def kill_kernel_of(process: subprocess.Popen, notebook: str, folder: Path, training: str, seconds: float = 300) -> None:
    """SIGKILL the kernel that papermill runs for ``notebook``, once ``training`` in ``folder`` tells that it trains."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True) if list(folder.glob(training)) else []:
            try:
                if "papermill" in " ".join(child.cmdline()[:3]) and notebook in " ".join(child.cmdline()):
                    for kernel in child.children():
                        if "ipykernel_launcher" in " ".join(kernel.cmdline()):
                            return kernel.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError(f"no kernel of {notebook} seen: " + (process.stdout.read() if process.poll() is not None else ""))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, str]:
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    return folder, finish(start(folder))


def test_one_command_leads_from_dialogues_to_tables(undisturbed):
    folder, output = undisturbed
    figures = folder / "runs/smoke/figures"
    assert all((figures / name).stat().st_size for name in [*TABLES, "gains.png"])
    assert "runs/smoke/figures" in output.splitlines()[-1]
    assert all(f"# Table {number}:" in output for number in (1, 2, 3, "3b", 4))
    metrics = pd.read_csv(figures / "metrics.csv")
    assert len(TRAINED) == 22 and set(metrics["system"]) == {*FLOORS, ORACLE, *TRAINED}
    assert set(metrics["task"]) == {*TASKS, "catalogue"}
    ranking = set(metrics.loc[metrics["task"] == "catalogue", "system"])
    assert ranking == {*RANKING_FLOORS, *(key for key in TRAINED if SYSTEMS[key].ranks_catalogue)} and len(ranking) == 11
    assert metrics["value"].between(0, 1).all()


def test_every_system_answers_every_test_sample(undisturbed):
    folder, _ = undisturbed
    samples = read_table(folder / "runs/smoke/data/samples.parquet")
    predictions = read_predictions(folder / "runs/smoke/predictions")
    test = samples[samples["split"] == "test"]
    tasks = {key: SYSTEMS[key].tasks for key in TRAINED}
    tasks |= {"trivial": TASKS, ORACLE: TASKS, "dictionary": ("understand",), "popular": ("recommend",), "last_viewed": ("recommend",)}
    for system, answers in predictions[predictions["split"] == "test"].groupby("system"):
        assert set(answers["sample_id"]) == set(test.loc[test["task"].isin(tasks.pop(system)), "sample_id"]), system
    assert not tasks
    ranked = predictions.merge(samples[samples["task"] == "recommend"][["sample_id", "candidates"]], on="sample_id")
    assert len(ranked) and all(sorted(r) == sorted(c) for r, c in zip(ranked["ranking"], ranked["candidates"], strict=True))


def test_every_system_says_what_made_it(undisturbed):
    folder, _ = undisturbed
    for system in TRAINED:
        record = json.loads((folder / f"runs/smoke/systems/{system}/provenance.json").read_text())
        backbone = SYSTEMS[system].backbone and f"runs/smoke/backbones/{SYSTEMS[system].backbone}"
        assert record["settings"]["system"] == system and record["settings"]["model_name_or_path"] == backbone
        corpus_files = 5 if SYSTEMS[system].family == "typical" else 0
        assert record["packages"]["torch"] and len(record["inputs"]) == 2 + corpus_files + (SYSTEMS[system].assistant is not None)


@pytest.mark.parametrize(
    ("notebook", "system", "training"), [("03_train_crs", "ccrs", "stage_one"), ("04_tune_llm", "cllm", "checkpoint-*")]
)
def test_a_killed_kernel_costs_no_finished_work_and_changes_no_table(undisturbed, tmp_path, notebook, system, training):
    """All but one system are made; its training is killed, and goes on."""
    folder = tmp_path / "project"
    shutil.copytree(undisturbed[0], folder, symlinks=True)
    shutil.rmtree(folder / f"runs/smoke/systems/{system}")
    (folder / f"runs/smoke/predictions/{system}.parquet").unlink()
    shutil.rmtree(folder / "runs/smoke/figures")  # what nothing that is missing was made of is not missed
    process = start(folder)
    kill_kernel_of(process, f"{notebook}_{system}.ipynb", folder / f"runs/smoke/systems/{system}", training)
    output, _ = process.communicate(timeout=900)
    assert process.returncode != 0
    assert f"FAILED    runs/smoke/notebooks/{notebook}_{system}.ipynb" in output
    finish(start(folder))
    for made in ("backbones/cpt", "backbones/chatglm", "systems/bcrs", "systems/allm"):
        for name in ("model.safetensors", "adapter_model.safetensors"):
            before, after = (where / "runs/smoke" / made / name for where in (undisturbed[0], folder))
            assert before.exists() == after.exists() and (not before.exists() or before.stat().st_mtime_ns == after.stat().st_mtime_ns)
    for name in TABLES:
        assert (folder / "runs/smoke/figures" / name).read_bytes() == (undisturbed[0] / "runs/smoke/figures" / name).read_bytes(), name
