"""The typical systems one like the other: what a run leaves, what it does again, and what the notebook shows."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny

from llmcrs_utils.corpus.schema import write_corpus
from llmcrs_utils.evaluation.figures import learning_curve
from llmcrs_utils.evaluation.floors import floor_predictions
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.parameters import notebook_parameters
from llmcrs_utils.study.typical import OWN_STAGES, beside_the_floors, loss_histories, open_study, train_and_answer, worked_example
from llmcrs_utils.systems.predictions import catalogue_file, write_predictions
from llmcrs_utils.systems.registry import TYPICAL
from llmcrs_utils.tasks.dataset import write_dataset
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.typical.systems import STEPS

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_typical_systems.ipynb"


@pytest.fixture
def settings(tmp_path) -> dict:
    """The notebook's parameters, for a toy corpus and two quick systems of different kinds."""
    write_dataset(tiny.dataset(), tmp_path / "data")
    write_corpus(tiny.corpus(), tmp_path / "data" / "corpus")
    for key, answers in floor_predictions(tiny.dataset().samples, tiny.dataset().items, tiny.corpus(), CHINESE).items():
        write_predictions(answers, tmp_path / "predictions" / f"{key}.parquet")
    defaults = {name: default for name, (_, default) in notebook_parameters(NOTEBOOK).items()}
    quick = {key: {**defaults[key], "num_train_epochs": 1.0} for key in ("bert", "sasrec")}
    folders = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "systems"), "predictions_dir": str(tmp_path / "predictions")}
    return {**defaults, **quick, **folders, "systems": ["bert", "sasrec"], "bert_model_name_or_path": tiny.backbone("bert")}


def test_every_registered_system_has_its_parts_and_its_settings():
    parameters = notebook_parameters(NOTEBOOK)
    assert list(STEPS) == [system.key for system in TYPICAL] == parameters["systems"][1]
    wanted = {"num_train_epochs", "learning_rate", "per_device_train_batch_size", "cutoff_len"}
    assert all(wanted <= parameters[key][1].keys() for key in STEPS)


@pytest.mark.parametrize("key", ["bert", "sasrec"])
def test_a_run_leaves_answers_provenance_and_a_model_that_is_not_made_twice(settings, key, capsys):
    study = open_study(settings)
    history = train_and_answer(study, key)
    assert list(history["epoch"]) == [1.0] and "test samples" in capsys.readouterr().out
    answers = read_parquet(study.runs[key].predictions_file)
    samples = study.data.dataset.samples
    wanted = samples[samples["task"].isin({"bert": ["understand"], "sasrec": ["recommend"]}[key]) & (samples["split"] != "train")]
    assert set(answers["sample_id"]) == set(wanted["sample_id"]) and len(answers) == len(wanted)
    assert catalogue_file(study.runs[key].predictions_file).exists() == (key == "sasrec")
    record = json.loads(Path(study.runs[key].output_dir, "provenance.json").read_text("utf-8"))
    assert record["settings"]["system"] == key and record["settings"]["seed"] == 1
    made = Path(study.runs[key].output_dir, "model.safetensors").stat().st_mtime_ns
    pd.testing.assert_frame_equal(train_and_answer(study, key), history, check_dtype=False)
    assert Path(study.runs[key].output_dir, "model.safetensors").stat().st_mtime_ns == made
    pd.testing.assert_frame_equal(read_parquet(study.runs[key].predictions_file), answers)
    other = open_study({**settings, key: {**settings[key], "learning_rate": 0.01}})
    train_and_answer(other, key)
    assert Path(study.runs[key].output_dir, "model.safetensors").stat().st_mtime_ns != made


def test_a_system_that_is_not_asked_for_is_left_alone(settings, capsys):
    study = open_study(settings)
    assert train_and_answer(study, "kbrd") is None
    assert "kbrd is not among this run's systems" in capsys.readouterr().out == worked_example(study, "kbrd") + "\n"
    assert not Path(settings["output_dir"], "kbrd").exists()


def test_an_example_shows_input_answer_and_label_and_floors_stand_above(settings):
    study = open_study(settings)
    for key in settings["systems"]:
        train_and_answer(study, key)
    tagger, ranker = (worked_example(study, key) for key in settings["systems"])
    assert tagger.startswith("SEES\n[CLS]") and "\n\nANSWERS\n" in tagger and "\n\nRIGHT\n" in tagger
    assert "oldest first" in ranker and "\n1. " in ranker and "of 20)" in ranker
    table = beside_the_floors(study)
    assert list(table.loc[table["task"] == "understand", "system"]) == ["Most frequent / random", "Dictionary of the catalogue", "Bert"]
    assert list(table.loc[table["task"] == "recommend", "system"])[-1] == "SASRec" and table["value"].between(0, 1).all()


def test_stages_of_a_training_fill_rows_of_three_panels():
    history = pd.DataFrame({"epoch": [1.0, 2.0] * 4, "train_loss": 1.0, "valid_loss": 1.0, "stage": [s for s in "abcd" for _ in (1, 2)]})
    figure = learning_curve(history, "title")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "d", "", ""]
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


def test_the_losses_of_all_systems_fill_one_figure():
    """Of a system that is trained in stages the one on its own task is drawn, first or last; one that is not trained has no panel."""
    whole = pd.DataFrame({"epoch": [1.0, 2.0], "train_loss": [3.0, 2.0], "valid_loss": [4.0, 3.0]})
    other = whole.assign(train_loss=9.0)
    orders = {"dia_multiclass": ("all categories", "Shoes"), "tg_crs": ("behaviour", "all"), "kbrd": ("recommender", "reply")}
    staged = {key: pd.concat([(whole if stage in OWN_STAGES else other).assign(stage=stage) for stage in stages]) for key, stages in orders.items()}
    figure = learning_curve(loss_histories({"bert": whole, **staged, "gpt2": None}), "title", columns=5)
    assert [axes.get_title() for axes in figure.axes] == ["bert", *orders]
    assert [list(axes.lines[0].get_ydata()) for axes in figure.axes] == [[3.0, 2.0]] * 4
    assert loss_histories({"gpt2": None}).empty
