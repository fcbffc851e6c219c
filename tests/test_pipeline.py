"""The whole path on a toy corpus, in a copy of the project: what is planned, an undisturbed run, and one with a kernel killed on the way."""

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
from conftest import slow

from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.study.plan import Job, Plan
from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import FLOORS, ORACLE, RANKING_FLOORS, SYSTEMS, TASKS, register

ROOT = Path(__file__).parents[1]
FOLDERS = ("llmcrs_utils", "notebooks", "params", "workflow")
# The smoke profile, smaller still, without typical systems and with an LLM that no line of Python knows.
TOY = {
    "profile": "toy",
    "extends": "smoke",
    "systems": ["bcrs", "qwen", "qwen-bcrs"],
    "models": {"qwen": {"name": "Qwen", "family": "llm", "backbone": "llama", "max_new_tokens": 8}},
    "01_build_data": {"train_dialogues": 8, "valid_dialogues": 2, "test_dialogues": 4, "knob_dialogues": 0},
}
TRAINED = TOY["systems"]
TABLES = [f"table{number}.{kind}" for number in (1, 2, 3, "3b", 4) for kind in ("md", "csv", "tex")] + ["metrics.csv"]
SMALL = {
    "profile": "small",
    "systems": ["bcrs", "allm", "allm-bcrs", "bcrs-allm"],
    "01_build_data": {"corpus": "generated"},
    "02_prepare_backbones": {"hidden_size": 32},
}


# --- what is planned


def test_slurm_profile_submits_the_whole_grid():
    """As far as this can be seen without a cluster: Snakemake takes the profile and plans every job with its resources."""
    command = [sys.executable, "-m", "llmcrs_utils.study.launch", "params/grid.yaml", "profile=test-of-slurm"]
    command += ["--", "--profile", "workflow/profiles/slurm", "--dry-run", "--forceall"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    shutil.rmtree(ROOT / "runs" / "test-of-slurm", ignore_errors=True)
    assert shown.returncode == 0, shown.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", shown.stdout + shown.stderr, re.MULTILINE))
    assert counts == {
        "build_data": "1", "prepare_backbone": "6", "typical_systems": "1", "train_crs": "6", "tune_llm": "6", "collaborate": "8", "tables": "1",
        "overview": "1", "complementarity": "1", "categories": "1", "controls": "1", "all": "1", "total": "34",
    }  # fmt: skip
    jobs = (shown.stdout + shown.stderr).split("rule ")
    assert all("gpu=1" in job and "runtime=1440" in job for job in jobs if job.startswith("tune_llm"))
    assert all("gpu=0" in job for job in jobs if job.startswith("collaborate"))


def planned(folder: Path, profile: dict, **given) -> dict[str, Job]:
    """The jobs of a profile by the name of their executed notebook."""
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL | profile))
    jobs = Plan(load_profile(folder / "small.yaml", given)).jobs()
    named = {job.log.removeprefix("runs/small/").removesuffix(".ipynb"): job for job in jobs}
    assert len(named) == len(jobs), "two jobs write one log"
    return named


def counts_of(jobs: dict[str, Job]) -> dict[str, int]:
    return pd.Series([job.rule for job in jobs.values()]).value_counts().to_dict()


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """Two seeds and two folds."""
    return planned(tmp_path_factory.mktemp("profile"), {"seeds": [1, 2], "cross_fit_folds": 2})


def test_every_seed_and_every_fold_is_a_run(repeated):
    # Of each family and seed: base, collaboration, collaboration with cross-fitted help, and two folds of the base.
    counts = counts_of(repeated)
    assert counts["train_crs"] == counts["tune_llm"] == 2 * 5 and counts["collaborate"] == 2 * 2 * 2
    assert counts["tables"] == counts["overview"] == counts["complementarity"] == counts["categories"] == counts["controls"] == counts["cross_fitting"] == 1
    crs = {name.partition("notebooks/03_train_crs_")[::2] for name in repeated if "03_train_crs" in name}
    assert crs == {
        ("", "bcrs"), ("", "bcrs_seed2"), ("", "allm-bcrs"), ("", "allm-bcrs_seed2"), ("cross_fitted/", "allm-bcrs"), ("cross_fitted/", "allm-bcrs_seed2"),
        ("folds/", "bcrs_fold1"), ("folds/", "bcrs_fold2"), ("folds/", "bcrs_seed2_fold1"), ("folds/", "bcrs_seed2_fold2"),
    }  # fmt: skip


def test_every_run_is_told_its_seed_and_keeps_its_files_apart(repeated):
    jobs = {name: job.parameters for name, job in repeated.items() if re.search("03_train|04_tune|05_coll", name)}
    assert len(jobs) == 28
    for name, told in jobs.items():
        assert told["seed"] == (2 if "_seed2" in name else 1) and told["system"] == re.search(r"0\d_\w+?_([a-z]+(?:-[a-z]+)?)(_seed|_fold|$)", name)[1]
    for output in ("output_dir", "output_file"):
        written = [told[output] for told in jobs.values() if output in told]
        assert len(set(written)) == len(written) >= 8
    trained = [told["predictions_file"] for name, told in jobs.items() if "05_collaborate" not in name]
    assert len(set(trained)) == 20


def test_every_file_that_a_job_reads_is_made_by_another_job_or_there_already(repeated):
    made = {path for job in repeated.values() for path in job.outputs}
    for name, job in repeated.items():
        assert set(job.inputs) <= made | {f"notebooks/{job.notebook}.ipynb"}, name
        assert len(set(job.outputs)) == len(job.outputs)
    assert len(made) == sum(len(job.outputs) for job in repeated.values()), "two jobs write one file"


def test_a_job_s_inputs_are_those_of_its_run(repeated):
    crs = repeated["notebooks/03_train_crs_allm-bcrs"]
    corpus = ["train_dialogue.json", "valid_dialogue.json", "test_dialogue.json", "item_kg.txt", "user_action.txt"]
    expected = ["data/samples.parquet", "data/items.parquet", *(f"data/corpus/{name}" for name in corpus), "assistance/allm-bcrs.parquet"]
    expected += ["backbones/bart/provenance.json"]
    assert sorted(crs.inputs) == sorted(f"runs/small/{name}" for name in expected)


def test_folds_leave_their_part_out_and_answer_it_only(repeated):
    told = repeated["folds/notebooks/04_tune_llm_allm_seed2_fold2"].parameters
    assert (told["folds"], told["held_out_fold"], told["predict_splits"], told["assistance_file"]) == (2, 2, ["held_out"], "")
    whole = repeated["notebooks/04_tune_llm_allm_seed2"].parameters
    assert "held_out_fold" not in whole and whole["predict_splits"] == ["train", "valid", "test"]


def test_cross_fitted_help_is_of_the_seeds_own_folds(repeated):
    crossed, usual = (repeated[f"{kind}notebooks/05_collaborate_allm-bcrs_seed2"].parameters for kind in ("cross_fitted/", ""))
    assert usual["predictions_file"] == crossed["predictions_file"] == "runs/small/predictions/allm_seed2.parquet"
    assert crossed["fold_files"] == [f"runs/small/folds/predictions/allm_seed2_fold{fold}.parquet" for fold in (1, 2)] and usual["fold_files"] == []
    for kind in ("cross_fitted/", ""):
        trained = repeated[f"{kind}notebooks/03_train_crs_allm-bcrs_seed2"].parameters
        assert trained["assistance_file"] == repeated[f"{kind}notebooks/05_collaborate_allm-bcrs_seed2"].parameters["output_file"]


def test_without_seeds_and_folds_each_system_is_trained_once_and_a_seed_of_sections_is_said(tmp_path):
    jobs = planned(tmp_path, {"03_train_crs": {"seed": 3}, "04_tune_llm": {"seed": 3}, "05_collaborate": {"seed": 3}})
    counts = counts_of(jobs)
    assert counts["train_crs"] == counts["tune_llm"] == counts["collaborate"] == 2 and "cross_fitting" not in counts
    assert all(name.endswith("_seed3") for name in jobs if re.search("03_|04_|05_", name))
    assert [job.parameters["seed"] for name, job in jobs.items() if re.search("03_|04_|05_", name)] == [3] * 6


def test_settings_from_the_command_line_reach_the_data(tmp_path):
    jobs = planned(tmp_path, {"01_build_data": {"corpus": "generated", "implicit_weight": 0.75}}, implicit_weight=0.0, test_dialogues=5)
    told = jobs["notebooks/01_build_data"].parameters
    assert (told["implicit_weight"], told["test_dialogues"], told["corpus"]) == (0.0, 5, "generated")
    assert not any("implicit_weight" in job.parameters for name, job in jobs.items() if "01_build_data" not in name)


def test_seeds_and_folds_from_the_command_line_plan_as_those_of_a_profile(tmp_path, repeated):
    assert planned(tmp_path, {}, seeds=[1, 2], cross_fit_folds=2) == repeated


def test_a_source_that_is_replaced_by_an_older_file_changes_its_job(tmp_path):
    """Snakemake compares times with those of the outputs: a copy that keeps its old time would pass for unchanged."""
    source = tmp_path / "source" / "conversation_en.json"
    source.parent.mkdir()
    profile = {"01_build_data": {"corpus": "pscon", "data_dir": str(source.parent), "language": "en"}}

    def job(content: str, time: int) -> Job:
        source.write_text(content)
        os.utime(source, (time, time))
        return planned(tmp_path, profile)["notebooks/01_build_data"]

    first, older, again = job("[]", 2_000_000_000), job("{}", 1_000_000_000), job("[]", 2_000_000_000)
    assert list(first.given) == [str(source)] and first == again != older


def test_tables_call_the_corpus_what_it_is(tmp_path):
    def note(profile: dict, **given) -> str:
        return planned(tmp_path, profile, **given)["notebooks/07_tables"].parameters["corpus_note"]

    assert note({}) == "Synthetic corpus of 310 dialogues" and note({}, test_dialogues=5) == "Synthetic corpus of 235 dialogues"
    about_help = {"07_tables": {"corpus_note": "{corpus}, half of it"}}
    assert note(about_help) == "Synthetic corpus of 310 dialogues, half of it"
    assert note({"07_tables": {"corpus_note": "My shop"}}) == "My shop"
    modern = Plan(load_profile(ROOT / "params" / "modern.yaml", {"corpus": "generated", "bcrs_model": "x", "mllm_model": "y"}))
    assert {job.parameters["corpus_note"] for job in modern.jobs() if job.rule == "tables"} == {"Synthetic corpus of 310 dialogues"}


# --- what is run


def copy_of_project(folder: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "params" / "toy.yaml").write_text(yaml.safe_dump(TOY, sort_keys=False), "utf-8")
    return folder


@pytest.fixture
def with_qwen(registered):
    register({"qwen": {"name": "Qwen", "family": "llm", "backbone": "llama"}})


def start(folder: Path, *of_snakemake: str) -> subprocess.Popen:
    """The toy profile's run in a copy of the project, as ``make`` starts it."""
    command = [sys.executable, "-m", "llmcrs_utils.study.launch", "params/toy.yaml", "--cores", "2", *of_snakemake]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
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
                if "llmcrs_utils.study.job" in child.cmdline() and notebook in child.cmdline()[-2]:
                    for kernel in child.children():
                        if "ipykernel_launcher" in " ".join(kernel.cmdline()):
                            return kernel.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError(f"no kernel of {notebook} seen: " + (process.stdout.read() if process.poll() is not None else ""))


def talk_in(folder: Path, system: str, *said: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """A scripted talk with a system of the toy run."""
    command = [sys.executable, "-m", "llmcrs_utils.study.chat", "runs/toy", system, *options]
    return subprocess.run(command, cwd=folder, input="\n".join([*said, "", ""]), capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("system", TRAINED)
def test_every_trained_system_talks(undisturbed, system):
    folder, _ = undisturbed
    done = talk_in(folder, system, "有没有登山鞋", "女款", "三百左右", "还有吗")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"The desk is {'QWEN-BCRS' if system == 'qwen-bcrs' else 'Qwen' if system == 'qwen' else 'UniMIND(BART)'}, in ")
    assert "A model this small" in lines[0]
    assert sum(line.startswith("desk> ") for line in lines) == sum(line.startswith("  understood: ") for line in lines) == 4
    assert sum(line.startswith(("  asks for: ", "  recommends: ")) for line in lines) == 4
    recommended = [line.split()[1] for line in lines if line.startswith("  recommends: ")]
    catalogue = set(read_parquet(folder / "runs/toy/data/items.parquet")["item_id"])
    assert len(recommended) >= 2 and len(set(recommended)) == len(recommended) and set(recommended) <= catalogue
    helped = [line for line in lines if line.startswith("  help to ")]
    assert bool(helped) == ("-" in system) and all("by Qwen" in line for line in helped)
    assert talk_in(folder, system, "有没有登山鞋").stdout.split("[")[0] == done.stdout.split("[")[0], "the same words get the same reply"


def test_a_talk_that_cannot_be_is_refused(undisturbed):
    folder, _ = undisturbed
    for system, options, message in (
        ("allm", (), "allm: no CRS, LLM or collaboration of runs/toy; it has bcrs, qwen, qwen-bcrs"),
        ("bcrs", ("--seed", "7"), "runs/toy: no bcrs_seed7; its runs: "),
        ("bcrs", ("--shopper", "1000"), "shopper 1000: runs/toy has 4 shoppers, counted from 0"),
    ):
        done = talk_in(folder, system, "你好", options=options)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def further_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "llmcrs_utils.study.further", *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=300)


def answered_in(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Run -> how many questions it was asked now."""
    assert done.returncode == 0, done.stderr
    return {Path(line.split()[0]).name: int(line.split()[-1]) for line in done.stdout.splitlines()[1:]}


def test_trained_systems_answer_further_test_dialogues_as_their_own_run_would_have(undisturbed, tmp_path):
    """Of a copy of the run one test dialogue is taken away, and asked again from a larger data set."""
    folder = tmp_path / "project"
    shutil.copytree(undisturbed[0], folder)
    run, larger = folder / "runs/toy", folder / "runs/larger"
    shutil.copytree(run / "data", larger / "data")
    samples = read_parquet(run / "data/samples.parquet")
    last = samples[samples["sid"] == samples.loc[samples["split"] == "test", "sid"].iloc[-1]]
    gone, shopper = last["sample_id"], last["user_id"].iloc[0]
    write_parquet(samples[~samples["sample_id"].isin(gone)], run / "data/samples.parquet")
    expected = {}
    for file in [*run.glob("predictions/*.parquet"), *run.glob("predictions/catalogue/*.parquet")]:
        answers = read_parquet(file)
        expected[file.relative_to(run)] = answers
        write_parquet(answers[~answers["sample_id"].isin(gone)], file)
    refused = further_in(folder, "runs/toy", "runs/larger")
    assert refused.returncode == 2 and f"runs/toy/data/corpus: holds clicks of {shopper}, the shopper of dialogue {last['sid'].iloc[0]}" in refused.stderr
    clicks = run / "data/corpus/user_action.txt"
    clicks.write_text("".join(line for line in clicks.read_text("utf-8").splitlines(keepends=True) if shopper not in line), "utf-8")
    assert answered_in(further_in(folder, "runs/toy", "runs/larger")) == dict.fromkeys(TRAINED, len(gone))
    compared = [path for path in expected if path.stem in TRAINED]
    assert len(compared) == len(TRAINED) + 2, "of two the rankings of the catalogue, too"
    for path in compared:
        columns = [name for name in ("sample_id", "split", "seed", "text", "ranking", "raw", "valid", "confidence") if name in expected[path]]
        was, now = (table.sort_values("sample_id", ignore_index=True) for table in (expected[path], read_parquet(larger / path)))
        pd.testing.assert_frame_equal(was[columns], now[columns], obj=str(path), rtol=1e-4)
        for one, other in zip(was.get("scores", []), now.get("scores", []), strict=True):
            assert list(other) == pytest.approx(list(one), rel=1e-4)
    assert set(answered_in(further_in(folder, "runs/toy", "runs/larger")).values()) == {0}, "nothing is asked twice"

    (larger / "further/made/predictions/qwen.json").unlink()  # as if it had been killed there
    assert answered_in(further_in(folder, "runs/toy", "runs/larger")) == {"bcrs": 0, "qwen": len(gone), "qwen-bcrs": 0}
    helper = larger / "predictions/qwen.parquet"
    answers = read_parquet(helper)
    write_parquet(answers.assign(text=answers["text"].where(~answers["sample_id"].isin(gone), "价位")), helper)
    key = run / "systems/bcrs/key.json"
    key.write_text(json.dumps(json.loads(key.read_text()) | {"recipe": 99}))
    shutil.copytree(larger, folder / "runs/toy-more")
    published = "import sys; sys.path.insert(0, 'workflow'); import publish; from pathlib import Path; print(publish.larger(Path('runs/toy')))"
    told = subprocess.run([sys.executable, "-c", published], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True)
    assert told.returncode == 1 and "runs/toy-more: lacks further answers, or has outdated ones, in predictions/bcrs.parquet, predictions/qwen-bcrs.parquet" in told.stderr
    asked_again = {"bcrs": len(gone), "qwen": 0, "qwen-bcrs": len(gone)}
    assert answered_in(further_in(folder, "runs/toy", "runs/larger")) == asked_again, "a new model answers again, and so does one whose helper says something else"

    write_parquet(read_parquet(larger / "data/items.parquet").iloc[1:], larger / "data/items.parquet")
    refused = further_in(folder, "runs/toy", "runs/larger")
    assert refused.returncode == 2 and "runs/larger/data/items.parquet: differs from runs/toy/data/items.parquet" in refused.stderr
    refused = further_in(folder, "runs/toy", "runs/toy")
    assert refused.returncode == 2 and "no test question that runs/toy/data/samples.parquet has not" in refused.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, str]:
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    return folder, finish(start(folder))


def test_one_command_leads_from_dialogues_to_tables(undisturbed, with_qwen):
    folder, output = undisturbed
    figures = folder / "runs/toy/figures"
    assert all((figures / name).stat().st_size for name in [*TABLES, "gains.png", "pull.png"])
    assert "runs/toy/figures" in output.splitlines()[-1]
    assert all(f"# Table {number}:" in output for number in (1, 2, 3, "3b", 4))
    metrics = pd.read_csv(figures / "metrics.csv")
    assert "Synthetic corpus of 14 dialogues" in (figures / "table1.md").read_text("utf-8")
    assert set(metrics["system"]) == {*FLOORS, ORACLE, *TRAINED}
    assert set(metrics["task"]) == {*TASKS, "catalogue"}
    ranking = set(metrics.loc[metrics["task"] == "catalogue", "system"])
    assert ranking == {*RANKING_FLOORS, *(key for key in TRAINED if SYSTEMS[key].ranks_catalogue)} and len(ranking) == 4
    assert metrics["value"].dropna().between(0, 1).all()
    assert "| Qwen |" in (figures / "table2.md").read_text("utf-8") and "| QWEN-BCRS |" in (figures / "table3.md").read_text("utf-8")


def test_every_system_answers_every_test_sample(undisturbed, with_qwen):
    folder, _ = undisturbed
    samples = read_parquet(folder / "runs/toy/data/samples.parquet")
    predictions = read_predictions(folder / "runs/toy/predictions")
    test = samples[samples["split"] == "test"]
    tasks = {key: SYSTEMS[key].tasks for key in TRAINED}
    tasks |= {"trivial": TASKS, ORACLE: TASKS, "dictionary": ("understand",), "popular": ("recommend",), "last_viewed": ("recommend",), "matcher": ("recommend",)}
    for system, answers in predictions[predictions["split"] == "test"].groupby("system"):
        assert set(answers["sample_id"]) == set(test.loc[test["task"].isin(tasks.pop(system)), "sample_id"]), system
    assert not tasks
    ranked = predictions.merge(samples[samples["task"] == "recommend"][["sample_id", "candidates"]], on="sample_id")
    assert len(ranked) and all(sorted(r) == sorted(c) for r, c in zip(ranked["ranking"], ranked["candidates"], strict=True))


def test_every_system_says_what_made_it(undisturbed, with_qwen):
    folder, _ = undisturbed
    for system in TRAINED:
        record = json.loads((folder / f"runs/toy/systems/{system}/provenance.json").read_text())
        backbone = SYSTEMS[system].backbone and f"runs/toy/backbones/{SYSTEMS[system].backbone}"
        assert record["settings"]["system"] == system and record["settings"]["model_name_or_path"] == backbone and record["run"] == system
        corpus_files = 0 if SYSTEMS[system].family == "llm" else 5
        read = [path for path in record["inputs"] if "/backbones/" not in path]
        assert record["packages"]["torch"] and len(read) == 2 + corpus_files + (SYSTEMS[system].assistant is not None)
        assert backbone is None or f"{backbone}/config.json" in record["inputs"]


def test_a_second_run_of_a_profile_says_that_the_first_is_at_work(undisturbed):
    folder, _ = undisturbed
    program = "import time\nfrom llmcrs_utils.files.locks import held\nwith held('runs/toy/.lock', 'x'):\n    print('held', flush=True); time.sleep(300)"
    first = subprocess.Popen([sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(folder)})
    try:
        assert first.stdout.readline() == "held\n"
        second = start(folder)
        output, _ = second.communicate(timeout=120)
        assert second.returncode == 2
        assert output.endswith("error: runs/toy: this profile is being run by another process; wait until it ends, or stop it\n")
    finally:
        first.kill()


@slow
def test_a_part_of_a_run_ends_well_without_tables(tmp_path):
    folder = copy_of_project(tmp_path)
    assert finish(start(folder, "--", "--", "runs/toy/data/samples.parquet")).endswith("executed notebooks are in runs/toy/notebooks/\n")


@pytest.fixture(scope="module")
def both_directions(undisturbed, tmp_path_factory) -> Path:
    """The undisturbed run, and an LLM that a CRS helps."""
    folder = tmp_path_factory.mktemp("both") / "project"
    shutil.copytree(undisturbed[0], folder, symlinks=True)
    (folder / "params" / "toy.yaml").write_text(yaml.safe_dump(TOY | {"systems": [*TRAINED, "bcrs-qwen"]}, sort_keys=False), "utf-8")
    finish(start(folder))
    return folder


@slow
@pytest.mark.parametrize(("notebook", "system", "training"), [("03_train_crs", "qwen-bcrs", "stages"), ("04_tune_llm", "bcrs-qwen", "checkpoint-*")])
def test_a_killed_kernel_costs_no_finished_work_and_changes_no_table(both_directions, tmp_path, notebook, system, training):
    """All but one system are made; its training is killed, and goes on."""
    folder = tmp_path / "project"
    shutil.copytree(both_directions, folder, symlinks=True)
    shutil.rmtree(folder / f"runs/toy/systems/{system}")
    (folder / f"runs/toy/predictions/{system}.parquet").unlink()
    shutil.rmtree(folder / "runs/toy/figures")  # what nothing that is missing was made of is not missed
    process = start(folder)
    kill_kernel_of(process, f"{notebook}_{system}.ipynb", folder / f"runs/toy/systems/{system}", training)
    output, _ = process.communicate(timeout=900)
    assert process.returncode != 0
    assert f"FAILED   runs/toy/notebooks/{notebook}_{system}.ipynb" in output
    finish(start(folder))
    for made in ("backbones/bart", "backbones/llama", "systems/bcrs", "systems/qwen"):
        for name in ("model.safetensors", "adapter_model.safetensors"):
            before, after = (where / "runs/toy" / made / name for where in (both_directions, folder))
            assert before.exists() == after.exists() and (not before.exists() or before.stat().st_mtime_ns == after.stat().st_mtime_ns)
    for name in TABLES:
        assert (folder / "runs/toy/figures" / name).read_bytes() == (both_directions / "runs/toy/figures" / name).read_bytes(), name
