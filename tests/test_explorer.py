"""The page of all test questions: what it holds, and in a browser what it shows."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from llmcrs_utils.evaluation.explorer import explorer
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.world.english import ATTRIBUTES

ROOT = Path(__file__).parents[1]
STUDY, PAGE = ROOT / "results" / "study-cpu", ROOT / "figures" / "explorer.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is here")


@pytest.fixture(scope="module")
def study():
    samples, predictions = read_parquet(STUDY / "samples.parquet"), read_predictions(STUDY / "predictions").query("seed == 1")
    return read_parquet(STUDY / "dialogues.parquet"), predictions, score(samples, predictions, "zh")


def held(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def opened(choice: str) -> str:
    """The page's HTML after a browser has run it with this choice in its address; a script that fails leaves a message."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", f"{PAGE.as_uri()}#{choice}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr[-2000:]
    return done.stdout.partition('<script id="data"')[0]


def test_every_question_and_every_answer_is_there(study):
    dialogues, predictions, scores = study
    given = held(PAGE.read_text("utf-8"))
    assert {one["id"] for one in given["samples"]} == set(dialogues["sample_id"])
    answers = predictions[predictions["split"] == "test"]
    assert sum(len(one["answers"]) for one in given["samples"]) == len(answers)
    f1 = scores[scores["system"] == "bcrs-allm"].set_index("sample_id")["F1"]
    assert all(one["answers"]["bcrs-allm"][1] == round(f1[one["id"]], 3) for one in given["samples"] if one["task"] == "elicit")
    assert PAGE.stat().st_size < 5e6 and "http" not in PAGE.read_text("utf-8").partition('<script id="data"')[0]  # nothing is fetched


def test_what_was_said_ends_no_script_and_two_seeds_are_refused(study):
    dialogues, predictions, scores = (table[table["sample_id"] == study[0]["sample_id"][0]] for table in study)
    said = "</script><b>&"
    page = explorer(dialogues.assign(label=said), predictions, scores, {}, {}, said)
    assert held(page)["note"] == held(page)["samples"][0]["gold"] == said
    with pytest.raises(ValueError, match="two answers of one system"):
        explorer(dialogues, pd.concat([predictions, predictions.assign(seed=2)]), scores, {}, {}, "")


@in_a_browser
@pytest.mark.parametrize(("outcome", "better"), [("help", True), ("harm", False)])
def test_the_browser_shows_the_questions_where_help_changes_the_answer(study, outcome, better):
    _, _, scores = study
    right = scores[scores["task"] == "elicit"].pivot(index="sample_id", columns="system", values="F1") >= 0.5
    wanted = right.index[(right["bcrs-allm"] == better) & (right["allm"] != better)]
    shown = opened(f"task=elicit&category=all&pair=bcrs-allm&outcome={outcome}")
    assert f">{len(wanted)} questions<" in shown and len(wanted) > 3
    assert set(re.findall(r'data-id="([^"]+)"', shown)) == set(wanted)


@in_a_browser
def test_attributes_are_shown_with_their_english_names(study):
    dialogues, predictions, _ = study
    sample_id = dialogues.loc[(dialogues["task"] == "elicit") & (dialogues["label"] == "肤质"), "sample_id"].iloc[0]
    shown = opened(f"task=elicit&id={sample_id}")
    assert "<td>肤质 (skin type)</td>" in shown and re.search(r"\[understand\]品类 \(product type\)：", shown)


def test_every_attribute_of_the_study_has_an_english_name(study):
    named = {part.partition("：")[0] for label in study[0].query("task in ('understand', 'elicit')")["label"] for part in label.split("；")}
    assert named <= set(ATTRIBUTES) and len(named) > 20


@in_a_browser
def test_a_link_opens_its_question_with_all_answers(study):
    dialogues, predictions, _ = study
    sample_id = dialogues.loc[dialogues["task"] == "recommend", "sample_id"].iloc[7]
    shown = opened(f"task=recommend&id={sample_id}")
    answers = predictions[predictions["sample_id"] == sample_id]
    assert set(re.findall(r'data-system="([^"]+)"', shown)) == set(answers["system"])
    assert all(text in shown for text in answers["text"]) and dialogues.set_index("sample_id").loc[sample_id, "label"] in shown
