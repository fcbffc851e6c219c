"""The run: what its key holds, what goes on after a kill, what is set aside, and who has to wait."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import tiny
import torch
from conftest import slow
from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from safetensors.torch import load_file

from llmcrs_utils.corpus.schema import write_corpus
from llmcrs_utils.crs.unimind import UniMind
from llmcrs_utils.files.locks import Busy, held
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study import job
from llmcrs_utils.study import run as study_run
from llmcrs_utils.study.run import (
    FINISHED,
    KEY_FILE,
    SET_ASIDE,
    Outcome,
    Run,
    claim,
    conduct,
    digest,
    mark_finished,
    opened,
    run_name,
    run_of,
    typical_run,
)
from llmcrs_utils.tasks.dataset import write_dataset
from llmcrs_utils.training.trainer import QuietTrainer

ROOT = Path(__file__).parents[1]
QUICK = {"stage_one_epochs": 1.0, "stage_two_epochs": 1.0, "item_dim": 16, "max_target_len": 8, "predict_splits": ["test"]}
TWO_STAGED = ("bcrs", "kbrd", "tg_crs")


@pytest.fixture
def folder(tmp_path):
    write_dataset(tiny.dataset(), tmp_path / "data")
    write_corpus(tiny.corpus(), tmp_path / "data" / "corpus")
    return tmp_path


def crs_run(folder: Path, **given) -> Run:
    base = given.pop("base", tiny.backbone("bart"))
    places = {"dataset_dir": f"{folder}/data", "output_dir": f"{folder}/systems/bcrs", "predictions_file": f"{folder}/predictions/bcrs.parquet"}
    return run_of("03_train_crs", {**places, "model_name_or_path": base, **QUICK, **given})


def kbrd_run(folder: Path) -> Run:
    own = {"num_train_epochs": 1.0, "recommender_epochs": 1.0, "hidden_size": 32, "max_target_len": 8}
    return typical(folder, "kbrd", kbrd=own)


def typical(folder: Path, key: str, **given) -> Run:
    places = {"dataset_dir": f"{folder}/data", "output_dir": f"{folder}/systems", "predictions_dir": f"{folder}/predictions"}
    return typical_run({**places, "bert_model_name_or_path": tiny.backbone("bert"), "systems": [key], **given}, key)


def two_staged(folder: Path, system: str) -> Run:
    if system == "bcrs":
        return crs_run(folder)
    if system == "kbrd":
        return kbrd_run(folder)
    return typical(folder, "tg_crs", tg_crs={"num_train_epochs": 1.0, "behaviour_epochs": 1.0})


# --- the key


def test_a_run_s_key_holds_parameters_that_matter_every_input_and_the_recipe(folder):
    key = crs_run(folder).key()
    assert key["parameters"]["cutoff_len"] == 512 and key["recipe"] == 1 and key["system"] == "bcrs"
    assert not {"output_dir", "predictions_file", "dataset_dir", "eval_batch_size", "num_beams", "predict_splits"} & key["parameters"].keys()
    files = {"train_dialogue.json", "valid_dialogue.json", "test_dialogue.json", "item_kg.txt", "user_action.txt"}
    data = {"data/samples.parquet", "data/items.parquet", *(f"data/corpus/{name}" for name in files)}
    base = {f"base/{name}" for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")}
    assert key["inputs"].keys() == data | base


def test_the_key_does_not_depend_on_where_things_are(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "evaluation"
    shutil.copytree(folder, moved)
    shutil.copytree(tiny.backbone("bart"), moved / "bart")
    assert crs_run(moved, base=str(moved / "bart")).key() == crs_run(folder).key()


@pytest.mark.parametrize("name", ["samples.parquet", "items.parquet", "corpus/user_action.txt", "corpus/item_kg.txt", "corpus/test_dialogue.json"])
def test_any_input_with_other_content_gives_another_key(folder, name):
    """Item vectors come from ``user_action.txt``: with equal samples and other behaviour it is another model."""
    before = crs_run(folder).key()
    with open(folder / "data" / name, "ab") as file:
        file.write(b"\n")
    after = crs_run(folder).key()
    assert after != before and study_run.differences(before, after) == f"data/{name} has other content"


def test_a_file_of_the_base_with_other_content_gives_another_key(folder):
    shutil.copytree(tiny.backbone("bart"), folder / "bart")
    before = crs_run(folder, base=str(folder / "bart")).key()
    config = folder / "bart" / "tokenizer_config.json"
    stamp = config.stat()
    config.write_text(config.read_text() + " ")
    assert crs_run(folder, base=str(folder / "bart")).key() != before
    config.write_text(config.read_text()[:-1])
    assert crs_run(folder, base=str(folder / "bart")).key() == before and config.stat().st_mtime_ns != stamp.st_mtime_ns


def test_what_lies_beside_a_checkpoint_is_no_part_of_it(folder):
    shutil.copytree(tiny.backbone("bart"), folder / "bart")
    before = crs_run(folder, base=str(folder / "bart")).key()
    for name in ("README.md", "LICENSE.txt", "eval_results.json", "._model.safetensors", "training_args.bin", "pytorch_model.bin"):
        (folder / "bart" / name).write_text("{}")
    assert crs_run(folder, base=str(folder / "bart")).key() == before


@pytest.mark.parametrize(("changed", "other"), [({"learning": 1}, True), ({"eval_batch_size": 7}, False), ({"num_beams": 3}, False)])
def test_parameters_of_training_matter_and_those_of_answering_do_not(folder, changed, other):
    changed = {"stage_two_learning_rate": 0.5} if "learning" in changed else changed
    assert (crs_run(folder, **changed).key() != crs_run(folder).key()) == other


def test_how_fast_an_llm_is_tuned_gives_no_other_key(folder):
    def key(**changed):
        places = {"dataset_dir": f"{folder}/data", "output_dir": f"{folder}/systems/allm", "predictions_file": f"{folder}/predictions/allm.parquet"}
        return run_of("04_tune_llm", {**places, "model_name_or_path": tiny.backbone("llama"), **changed}).key()

    assert key(compile_layers=True) == key() != key(max_samples=1)


def test_beams_that_a_typical_system_keeps_in_its_model_matter(folder):
    few, many = (typical(folder, "dia_seq", dia_seq={"num_beams": beams}).key() for beams in (1, 5))
    assert study_run.differences(few, many) == "num_beams was 1, is 5"


def test_another_recipe_number_gives_another_key(folder, monkeypatch):
    before = crs_run(folder).key()
    monkeypatch.setattr("llmcrs_utils.systems.recipes.OF_CRS", 2)
    assert study_run.differences(before, crs_run(folder).key()) == "recipe was 1, is 2"


def test_neither_comments_in_the_code_nor_the_name_of_the_checkout_count(folder, tmp_path):
    """In a checkout below a folder called evaluation, with a comment more in the code, a run goes on where it was."""
    project = tmp_path / "evaluation" / "project"
    for name in ("llmcrs_utils", "notebooks", "params"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for module in ("corpus/pscon.py", "crs/tuning.py"):
        path = project / "llmcrs_utils" / module
        path.write_text(path.read_text("utf-8") + "\n# a comment\n", "utf-8")
    program = textwrap.dedent(f"""
        import json, os
        os.chdir({str(project)!r})
        from llmcrs_utils.study.run import run_of
        places = {{"dataset_dir": {f"{folder}/data"!r}, "output_dir": "x", "predictions_file": "y", "model_name_or_path": {tiny.backbone("bart")!r}}}
        print(json.dumps(run_of("03_train_crs", places | json.loads({json.dumps(QUICK)!r})).key()))
    """)
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(project)}, check=True)
    assert json.loads(shown.stdout) == crs_run(folder).key()


def test_names_say_system_seed_and_fold():
    assert [run_name("bcrs", 1), run_name("bcrs", 2), run_name("allm-bcrs", 1, 3), run_name("bcrs", 2, 1)] == [
        "bcrs", "bcrs_seed2", "allm-bcrs_fold3", "bcrs_seed2_fold1",
    ]  # fmt: skip


def test_an_input_that_is_missing_is_named(folder):
    (folder / "data" / "corpus" / "user_action.txt").unlink()
    with pytest.raises(FileNotFoundError, match="user_action.txt: no such file; run the notebooks before 03_train_crs first"):
        crs_run(folder).key()


# --- setting aside and taking back


def test_what_another_run_made_is_set_aside_with_a_reason_and_taken_back_when_wanted_again(folder, capsys):
    first, other = crs_run(folder).key(), crs_run(folder, stage_one_epochs=2.0).key()
    place = folder / "systems" / "bcrs"
    claim(place, first)
    (place / "checkpoint-7").mkdir()
    claim(place, other)
    aside = place.parent / SET_ASIDE / f"bcrs-{digest(first)}"
    said = capsys.readouterr().out.strip()
    assert said == f"{place}: made by another run (stage_one_epochs was 1.0, is 2.0); set aside as {aside}"
    assert (aside / "checkpoint-7").is_dir() and not (place / "checkpoint-7").exists()
    claim(place, first)
    assert (place / "checkpoint-7").is_dir() and "taken back" in capsys.readouterr().out
    assert (place.parent / SET_ASIDE / f"bcrs-{digest(other)}").is_dir()


def test_a_folder_that_says_nothing_of_what_made_it_is_set_aside_whole(folder, capsys):
    place = folder / "systems" / "bcrs"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"precious")
    claim(place, crs_run(folder).key())
    (kept,) = (place.parent / SET_ASIDE).glob("bcrs-*/model.safetensors")
    assert kept.read_bytes() == b"precious" and "nothing there says what made it" in capsys.readouterr().out


def test_a_finished_model_is_known_and_one_that_lacks_a_file_is_not(folder):
    run = crs_run(folder)
    place = Path(run.output_dir)
    with opened(run) as key:
        (place / "model.safetensors").write_bytes(b"weights")
        history = pd.DataFrame({"epoch": [1.0], "valid_loss": [0.5]})
        mark_finished(run, key, history)
        pd.testing.assert_frame_equal(study_run.finished_history(run, key), history)
        (place / FINISHED).write_text((place / FINISHED).read_text()[:-20])
        assert study_run.finished_history(run, key) is None
        mark_finished(run, key, history)
        (place / "model.safetensors").unlink()
        assert study_run.finished_history(run, key) is None


def test_a_folder_is_worked_on_by_one_process_at_a_time(folder, monkeypatch):
    run = crs_run(folder)
    monkeypatch.setattr(study_run, "WAIT_SECONDS", 0.2)
    program = f"from llmcrs_utils.files.locks import held\nimport sys, time\nwith held({f'{folder}/systems/.bcrs.lock'!r}, 'x'):\n    print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Busy, match="bcrs is being worked on by another process; wait until it ends, or stop it"), opened(run):
        pass
    holder.kill()
    holder.wait()
    with opened(run) as key:  # the lock of a killed process does not block the next
        assert (Path(run.output_dir) / KEY_FILE).exists() and key == run.key()


# --- conducting


class Killed(BaseException):
    pass


def trainings(monkeypatch, kill_in: str = "") -> list[str]:
    """Names of the folders in which training begins from now on; ``kill_in`` ends one of them at once."""
    begun, original = [], QuietTrainer.train

    def train(trainer, *args, **options):
        begun.append(Path(trainer.args.output_dir).name)
        if begun[-1] == kill_in:
            raise Killed
        return original(trainer, *args, **options)

    monkeypatch.setattr(QuietTrainer, "train", train)
    return begun


@pytest.mark.parametrize("system", [pytest.param(system, marks=slow) if system in ("kbrd", "tg_crs") else system for system in TWO_STAGED])
def test_a_kill_in_the_second_stage_does_not_repeat_the_first_and_changes_nothing(folder, tmp_path_factory, monkeypatch, system):
    run = two_staged(folder, system)
    with monkeypatch.context() as patch:
        stages = trainings(patch)
        whole = conduct(run)
    assert len(stages) == 2 and not (Path(run.output_dir) / "stages").exists()
    weights = load_file(f"{run.output_dir}/model.safetensors")

    again = two_staged(folder, system).model_copy(update={"output_dir": str(folder / "killed" / system)})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        trainings(patch, kill_in=system)
        conduct(again)
    with monkeypatch.context() as patch:
        stages = trainings(patch)
        outcome = conduct(again)
    assert stages == [system]
    resumed = load_file(f"{again.output_dir}/model.safetensors")
    assert weights.keys() == resumed.keys() and all(torch.equal(weights[name], resumed[name]) for name in weights)
    pd.testing.assert_frame_equal(outcome.history, whole.history, check_exact=True)
    pd.testing.assert_frame_equal(outcome.predictions, whole.predictions)


def test_a_finished_run_answers_without_training_and_says_what_made_it(folder, monkeypatch):
    run = crs_run(folder)
    first: Outcome = conduct(run)
    with monkeypatch.context() as patch:
        stages = trainings(patch)
        second = conduct(run)
    assert stages == []
    pd.testing.assert_frame_equal(first.predictions, second.predictions)
    pd.testing.assert_frame_equal(first.predictions[["sample_id", "text"]], read_parquet(run.predictions_file)[["sample_id", "text"]])
    record = json.loads((Path(run.output_dir) / "provenance.json").read_text("utf-8"))
    assert record["run"] == "bcrs" and record["settings"] == run.parameters and record["recipe"] == 1
    assert record["inputs"].keys() == set(run.inputs.values()) and record["model_made_at"].keys() == {"commit", "dirty"}


def test_a_model_that_lost_a_file_is_trained_again(folder, monkeypatch):
    run = crs_run(folder)
    conduct(run)
    weights = load_file(f"{run.output_dir}/model.safetensors")
    Path(run.output_dir, "model.safetensors").unlink()
    with monkeypatch.context() as patch:
        stages = trainings(patch)
        conduct(run)
    again = load_file(f"{run.output_dir}/model.safetensors")
    assert stages == ["one", "bcrs"] and all(torch.equal(weights[name], again[name]) for name in weights)


def test_other_behaviour_makes_another_crs_of_equal_samples(folder, capsys):
    """Actions of shoppers who never talk change no sample, only item vectors."""
    run = crs_run(folder)
    conduct(run)
    model = UniMind.from_pretrained(run.output_dir)
    actions = folder / "data" / "corpus" / "user_action.txt"
    lines = actions.read_text("utf-8").splitlines()
    talking = {dialogue.userid for part in tiny.corpus().dialogues.values() for dialogue in part}
    kept = [line for line in lines if line.split(",")[1] in talking or line == lines[0]]
    assert 1 < len(kept) < len(lines)
    actions.write_text("\n".join(kept) + "\n", "utf-8")
    capsys.readouterr()
    conduct(crs_run(folder))
    assert "data/corpus/user_action.txt has other content" in capsys.readouterr().out
    assert not torch.equal(UniMind.from_pretrained(run.output_dir).item_embedding.weight, model.item_embedding.weight)


def test_notebooks_show_runs_and_conduct_none_of_their_own():
    """What decides what is trained stands in the package, where recipe numbers watch over it."""
    for name in ("02_prepare_backbones", "03_train_crs", "04_tune_llm", "06_typical_systems"):
        cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert "conduct(run" in code or "train_and_answer(study" in code
        assert not [word for word in ("item2vec(", "train_two_stages", "tune(", ".train(", "write_predictions", "mark_finished", "barred") if word in code]


def test_a_lock_file_left_behind_means_nothing(tmp_path):
    (tmp_path / ".lock").write_text("")
    with held(tmp_path / ".lock", "x"):
        pass


def dying_kernels(monkeypatch, number: int) -> list[int]:
    """The next ``number`` kernels end at once, as one does whose port was taken; the list grows with each start."""
    starts, command = [], KernelManager.format_kernel_cmd

    def started(manager, extra_arguments=None):
        starts.append(1)
        return [sys.executable, "-c", ""] if len(starts) <= number else command(manager, extra_arguments)

    monkeypatch.setattr(KernelManager, "format_kernel_cmd", started)
    return starts


def test_a_kernel_that_dies_at_its_start_is_started_again(monkeypatch, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)"), nbformat.v4.new_code_cell("import os; os.abort()")])
    nbformat.write(notebook, tmp_path / "question.ipynb")
    monkeypatch.setattr(job, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
    starts = dying_kernels(monkeypatch, job.STARTS)
    with pytest.raises(RuntimeError, match="Kernel died before replying"):
        job.execute("question", str(tmp_path / "log.ipynb"), {})
    assert len(starts) == job.STARTS, "it does not try for ever"
    starts = dying_kernels(monkeypatch, 1)
    with pytest.raises(DeadKernelError):
        job.execute("question", str(tmp_path / "log.ipynb"), {})
    assert len(starts) == 2, "a kernel that dies at work is not started again: its cells would run twice"
    assert "42" in nbformat.read(tmp_path / "log.ipynb", 4).cells[0].outputs[0].text


NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("name", ["00_overview", "01_build_data", "02_prepare_backbones", "03_train_crs", "06_typical_systems", "14_controls"])
def test_a_run_s_copy_does_not_open_with_the_committed_results(name):
    """Somebody who reads the pages of an own run must not take our results for the run's."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    title, result, *others = notebook.cells[0].source.split("\n\n")
    assert result.startswith("**"), "every notebook begins with its result"
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    copy = job.without_committed_results(notebook)
    assert copy.cells[0].source.split("\n\n") == [title, job.RESULT_BELOW, *others]
    assert [cell.source for cell in copy.cells if cell.cell_type == "code"] == code
    assert not any("**Takeaway.**" in cell.source for cell in copy.cells if cell.cell_type == "markdown")


def test_an_executed_notebook_is_such_a_copy(tmp_path, monkeypatch):
    cells = [nbformat.v4.new_markdown_cell("# A question\n\n**Ours is 42.** So.\n\nHow."), nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("x + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}), tmp_path / "asked.ipynb")
    monkeypatch.setattr(job, "notebook_path", lambda name: tmp_path / f"{name}.ipynb")
    job.execute("asked", str(tmp_path / "runs" / "log.ipynb"), {"x": 5})
    made = nbformat.read(tmp_path / "runs" / "log.ipynb", as_version=4)
    assert made.cells[0].source == f"# A question\n\n{job.RESULT_BELOW}\n\nHow." and made.cells[-1].outputs[0]["data"]["text/plain"] == "6"
    assert "42" in (tmp_path / "asked.ipynb").read_text(), "the repository's notebook stays as it is"
