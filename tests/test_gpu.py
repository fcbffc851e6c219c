"""workflow/gpu.py: jobs side by side within a time limit, and what comes back."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from conftest import slow
from safetensors.torch import load_file, save_file

from llmcrs_utils.study.plan import Job, Plan
from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.tasks.dataset import write_dataset

ROOT = Path(__file__).parents[1]
specification = importlib.util.spec_from_file_location("gpu", ROOT / "workflow/gpu.py")
gpu = importlib.util.module_from_spec(specification)
specification.loader.exec_module(gpu)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty project folder, in which a job is a program that its parameter ``program`` holds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "PERIOD", 0.02)
    monkeypatch.setattr(gpu, "estimate", lambda job: job.parameters["estimated"])
    monkeypatch.setattr(
        gpu, "start", lambda job, cores: subprocess.Popen([sys.executable, "-c", job.parameters["program"]], start_new_session=True)
    )
    return tmp_path


def job(name: str, inputs: tuple[str, ...] = (), program: str = "", estimated: float = 0.1) -> Job:
    """A job that writes the file ``name``."""
    program = program or f"open({name!r}, 'x').close()"
    return Job("tune_llm", name, "04_tune_llm", {"program": program, "estimated": estimated}, list(inputs), [name], name)


def test_a_job_starts_when_its_files_are_there_and_no_earlier(folder, capsys):
    last = "assert open('first') and open('second'); open('last', 'x').close()"
    found = gpu.run([job("last", ("first", "second"), last), job("second", ("first",)), job("first")], seconds=60, at_once=2)
    assert set(found) == {"first", "second", "last"} and all(what.endswith(" s") for what in found.values())
    assert (folder / "last").is_file()
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in told if line.startswith("plan:")] == ["last", "second", "first"]


def test_at_most_so_many_jobs_run_side_by_side(folder):
    busy = "import time, pathlib; pathlib.Path('{0}.busy').touch(); time.sleep(0.3); n = len(list(pathlib.Path().glob('*.busy'))); "
    busy += "pathlib.Path('{0}.busy').unlink(); pathlib.Path('{0}').write_text(str(n))"
    gpu.run([job(name, program=busy.format(name)) for name in "abcd"], seconds=60, at_once=2)
    assert max(int((folder / name).read_text()) for name in "abcd") <= 2


def test_a_failed_job_is_said_to_have_failed_and_what_needs_it_is_dropped(folder):
    found = gpu.run([job("broken", program="raise SystemExit(1)"), job("after", ("broken",)), job("other")], seconds=60, at_once=1)
    assert found == {"broken": "failed", "after": "dropped", "other": found["other"]} and (folder / "other").is_file()


def test_what_does_not_fit_is_dropped_and_what_runs_at_the_end_is_ended(folder):
    slow_one = "import time; time.sleep(60)"
    found = gpu.run([job("long", program=slow_one), job("too long", estimated=99), job("after", ("long",))], seconds=1, at_once=2)
    assert found == {"long": "ended", "too long": "dropped", "after": "dropped"}


def test_what_is_there_is_not_planned_again_and_analyses_never_are():
    plan = Plan(load_profile(ROOT / "params/gpu-rehearsal.yaml", {"profile": "nothing-made-yet"}))
    assert [job.rule for job in gpu.planned(plan)] == [
        "build_data", "prepare_backbone", "prepare_backbone", "train_crs", "tune_llm", "collaborate", "train_crs"
    ]  # fmt: skip


def test_the_archive_holds_answers_and_whole_systems_with_rounded_adapters(tmp_path, monkeypatch):
    plan = Plan(load_profile(ROOT / "params/gpu-rehearsal.yaml", {}))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path
    system = Path(plan.folder) / "systems/allm"
    system.mkdir(parents=True)
    weights = {"a": torch.tensor([1.0009765625, -3.0])}
    save_file(weights, system / "adapter_model.safetensors")
    (system / "checkpoint-7").mkdir()
    (system / "checkpoint-7" / "optimizer.pt").write_bytes(b"large")
    for name in ("adapter_config.json", "learning_curve.json", "tokenizer.json"):
        (system / name).write_text("{}")
    (Path(plan.folder) / "predictions").mkdir()
    (Path(plan.folder) / "predictions/allm.parquet").write_bytes(b"answers")
    archive = gpu.pack(plan, {"runs/gpu-rehearsal/notebooks/04_tune_llm_allm.ipynb": "123 s"}, folder)
    system_before = load_file(system / "adapter_model.safetensors")
    (folder / "elsewhere").mkdir()
    shutil.unpack_archive(archive, folder / "elsewhere")
    names = {str(path.relative_to(folder / "elsewhere" / plan.folder)) for path in (folder / "elsewhere").rglob("*") if path.is_file()}
    assert names == {
        "outcome.json", "predictions/allm.parquet", "systems/allm/adapter_model.safetensors", "systems/allm/adapter_config.json",
        "systems/allm/learning_curve.json", "systems/allm/tokenizer.json",
    }  # fmt: skip
    brought = load_file(folder / "elsewhere" / system / "adapter_model.safetensors")["a"]
    assert brought.dtype == torch.bfloat16 and brought.tolist() == [1.0, -3.0]
    assert system_before["a"].dtype == torch.float32, "the run's own adapter is not rounded"
    assert json.loads((folder / "elsewhere" / plan.folder / "outcome.json").read_text()) == {
        "runs/gpu-rehearsal/notebooks/04_tune_llm_allm.ipynb": "123 s"
    }


def test_estimates_grow_with_what_is_learned_and_answered(tmp_path):
    write_dataset(tiny.dataset(), tmp_path)

    def seconds(rule: str, notebook: str, **given) -> float:
        return gpu.estimate(Job(rule, "x", notebook, {"dataset_dir": str(tmp_path), **given}, [], [], "x"))

    once = seconds("tune_llm", "04_tune_llm", num_train_epochs=1.0, predict_splits=["test"])
    assert gpu.START_SECONDS < once < seconds("tune_llm", "04_tune_llm", num_train_epochs=2.0, predict_splits=["test"])
    assert once < seconds("tune_llm", "04_tune_llm", num_train_epochs=1.0, predict_splits=["train", "test"])
    assert once > seconds("tune_llm", "04_tune_llm", num_train_epochs=1.0, predict_splits=["test"], max_samples=1)
    assert once + gpu.CURVE_SECONDS == pytest.approx(seconds("tune_llm", "04_tune_llm", num_train_epochs=1.0, predict_splits=["test"], curve_samples=[0]))
    assert gpu.START_SECONDS < seconds("train_crs", "03_train_crs") < seconds("train_crs", "03_train_crs", stage_two_epochs=50.0)
    assert seconds("collaborate", "05_collaborate") == gpu.START_SECONDS


def test_the_script_lists_its_steps():
    shown = subprocess.run(["bash", "workflow/gpu.sh"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 2
    for step in ("pack", "setup", "join", "speed", "study", "unpack", "--rehearse"):
        assert f"workflow/gpu.sh {step}" in shown.stdout


@slow
def test_the_rehearsal_runs_on_a_cpu(tmp_path):
    done = subprocess.run(["bash", "workflow/gpu.sh", "--rehearse", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {"speed.jsonl", "gpu-rehearsal.tar.gz.00"} <= {path.name for path in tmp_path.iterdir()}
    points = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert {"matrix rate", "training", "decoding"} == {point["point"] for point in points}
