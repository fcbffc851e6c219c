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
import yaml

from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import FLOORS, ORACLE, RANKING_FLOORS, SYSTEMS, TASKS

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
        "complementarity": "1", "categories": "1", "all": "1", "total": "32",
    }  # fmt: skip
    jobs = (shown.stdout + shown.stderr).split("rule ")
    assert all("gpu=1" in job and "runtime=1440" in job for job in jobs if job.startswith("tune_llm"))
    assert all("gpu=0" in job for job in jobs if job.startswith("collaborate"))


SMALL = {
    "profile": "small",
    "systems": ["bcrs", "allm", "allm-bcrs", "bcrs-allm"],
    "01_build_data": {"corpus": "generated"},
    "02_prepare_backbones": {"hidden_size": 32},
}


def planned(folder: Path, profile: dict, *given: str) -> tuple[dict[str, int], dict[str, dict]]:
    """Of a dry run: how many jobs of each rule, and what each notebook that would be written is told."""
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL | profile))
    command = [sys.executable, "-m", "snakemake", "-s", "workflow/Snakefile", "--configfile", str(folder / "small.yaml"), "--cores", "1"]
    command += ["--nolock", "--dry-run", "--forceall", "--printshellcmds", *(["--config", *given] if given else [])]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert shown.returncode == 0, shown.stderr
    said = shown.stdout + shown.stderr
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}
    told = re.findall(r"^papermill \S+ runs/small/(\S+)\.ipynb .* -y '(.*?)' >", said, re.MULTILINE)
    return counts, {name: json.loads(parameters) for name, parameters in told}


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """Two seeds and two folds."""
    return planned(tmp_path_factory.mktemp("profile"), {"seeds": [1, 2], "cross_fit_folds": 2})


def test_every_seed_and_every_fold_is_a_run(repeated):
    # Of each family and seed: base, collaboration, collaboration with cross-fitted help, and two folds of the base.
    counts, jobs = repeated
    assert counts["train_crs"] == counts["tune_llm"] == 2 * 5 and counts["collaborate"] == 2 * 2 * 2
    assert counts["tables"] == counts["complementarity"] == counts["categories"] == counts["cross_fitting"] == 1
    crs = {name.partition("notebooks/03_train_crs_")[::2] for name in jobs if "03_train_crs" in name}
    assert crs == {
        ("", "bcrs"), ("", "bcrs_seed2"), ("", "allm-bcrs"), ("", "allm-bcrs_seed2"), ("cross_fitted/", "allm-bcrs"), ("cross_fitted/", "allm-bcrs_seed2"),
        ("folds/", "bcrs_fold1"), ("folds/", "bcrs_fold2"), ("folds/", "bcrs_seed2_fold1"), ("folds/", "bcrs_seed2_fold2"),
    }  # fmt: skip


def test_every_run_is_told_its_seed_and_keeps_its_files_apart(repeated):
    jobs = {name: told for name, told in repeated[1].items() if re.search("03_train|04_tune|05_coll", name)}
    assert len(jobs) == 28
    for name, told in jobs.items():
        assert told["seed"] == (2 if "_seed2" in name else 1) and told["system"] == re.search(r"0\d_\w+?_([a-z]+(?:-[a-z]+)?)(_seed|_fold|$)", name)[1]
    for output in ("output_dir", "output_file"):
        written = [told[output] for told in jobs.values() if output in told]
        assert len(set(written)) == len(written) >= 8
    trained = [told["predictions_file"] for name, told in jobs.items() if "05_collaborate" not in name]
    assert len(set(trained)) == 20


def test_folds_leave_their_part_out_and_answer_it_only(repeated):
    told = repeated[1]["folds/notebooks/04_tune_llm_allm_seed2_fold2"]
    assert (told["folds"], told["held_out_fold"], told["predict_splits"], told["assistance_file"]) == (2, 2, ["held_out"], "")
    whole = repeated[1]["notebooks/04_tune_llm_allm_seed2"]
    assert "held_out_fold" not in whole and whole["predict_splits"] == ["train", "valid", "test"]


def test_cross_fitted_help_is_of_the_seeds_own_folds(repeated):
    _, jobs = repeated
    crossed, usual = (jobs[f"{kind}notebooks/05_collaborate_allm-bcrs_seed2"] for kind in ("cross_fitted/", ""))
    assert usual["predictions_file"] == crossed["predictions_file"] == "runs/small/predictions/allm_seed2.parquet"
    assert crossed["fold_files"] == [f"runs/small/folds/predictions/allm_seed2_fold{fold}.parquet" for fold in (1, 2)] and usual["fold_files"] == []
    for kind in ("cross_fitted/", ""):
        trained = jobs[f"{kind}notebooks/03_train_crs_allm-bcrs_seed2"]
        assert trained["assistance_file"] == jobs[f"{kind}notebooks/05_collaborate_allm-bcrs_seed2"]["output_file"]


def test_without_seeds_and_folds_each_system_is_trained_once(tmp_path):
    counts, jobs = planned(tmp_path, {"03_train_crs": {"seed": 3}, "04_tune_llm": {"seed": 3}, "05_collaborate": {"seed": 3}})
    assert counts["train_crs"] == counts["tune_llm"] == counts["collaborate"] == 2 and "cross_fitting" not in counts
    assert not [name for name in jobs if re.search("seed|fold|cross", name)]
    assert [told["seed"] for name, told in jobs.items() if re.search("03_|04_|05_", name)] == [3] * 6


def test_settings_from_the_command_line_reach_the_data(tmp_path):
    _, jobs = planned(tmp_path, {"01_build_data": {"corpus": "generated", "implicit_weight": 0.75}}, "implicit_weight=0.0", "test_dialogues=5")
    told = jobs["notebooks/01_build_data"]
    assert (told["implicit_weight"], told["test_dialogues"], told["corpus"]) == (0.0, 5, "generated")
    assert not any("implicit_weight" in other for name, other in jobs.items() if "01_build_data" not in name)


def test_seeds_and_folds_from_the_command_line_plan_as_those_of_a_profile(tmp_path, repeated):
    counts, jobs = planned(tmp_path, {}, "seeds=[1,2]", "cross_fit_folds=2")
    assert (counts, jobs) == repeated


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
    samples = read_parquet(folder / "runs/smoke/data/samples.parquet")
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
