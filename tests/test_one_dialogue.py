"""One question followed through the study: what is counted, what is read, and what is highlighted."""

from pathlib import Path

import pytest

from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.one_dialogue import answers_to, bubbles, glossed, marked, turns, two_readings
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import system_of
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world.english import ATTRIBUTES

STUDY = Path(__file__).parents[1] / "results" / "study-cpu"


@pytest.fixture(scope="module")
def study():
    predictions = read_predictions(STUDY / "predictions").query("seed == 1 and split == 'test'")
    return read_parquet(STUDY / "dialogues.parquet").set_index("sample_id", drop=False), predictions, score(read_parquet(STUDY / "samples.parquet"), predictions, "zh")


@pytest.mark.parametrize("key", ["bcrs-allm", "allm-bcrs"])
def test_turns_are_counted_as_help_and_harm_are(study, key):
    pair, (_, _, scores) = system_of(key), study
    found = turns(scores, pair)
    item = scores[scores["task"] == "recommend"].pivot(index="sample_id", columns="system", values="Acc")
    assert (found[found["task"] == "recommend"]["outcome"] == "help corrects").sum() == ((item[key] == 1) & (item[pair.base] == 0)).sum() > 0
    assert (found[found["task"] == "recommend"]["outcome"] == "help spoils").sum() == ((item[key] == 0) & (item[pair.base] == 1)).sum() > 0
    nobody = item.index[item.drop(columns="oracle").max(axis=1) == 0]
    assert set(found.index[(found["task"] == "recommend") & (found["outcome"] == "nobody is right")]) == set(nobody) and len(found) == 1012


@pytest.mark.parametrize("key", ["bcrs-allm", "allm-bcrs"])
@pytest.mark.parametrize("task", ["understand", "elicit", "respond"])
def test_the_helper_s_answer_is_what_is_highlighted(study, key, task):
    pair, (dialogues, predictions, _) = system_of(key), study
    answers = predictions[predictions["system"] == pair.assistant]
    sample = dialogues[dialogues["task"] == task].iloc[5]
    said = answers.set_index("sample_id").loc[sample["sample_id"], "text"]
    shown = two_readings(sample.to_dict(), {}, CHINESE, pair, answers)
    alone, _, helped = shown.partition("helped by")
    assert "<mark" not in alone and "<mark" in helped
    highlighted = "".join(part.partition("</mark>")[0].partition(">")[2] for part in helped.split("<mark")[1:])
    assert len(said) > 1 and said[-2:] in highlighted
    assert sample["current"][0].partition("]")[2] in alone.replace("&amp;", "&") and "</pre>" in alone


def test_only_what_is_new_is_marked_and_text_is_no_markup():
    assert marked("a<b", "a<b>c") == 'a&lt;b<mark style="background:#ffe08a">&gt;c</mark>'


def test_attributes_have_english_names_and_values_stay(study):
    assert glossed("[understand]品类：面霜；功效：不用修护", ATTRIBUTES) == "[understand]品类 (product type)：面霜；功效 (effect)：不用修护"
    assert glossed("肤质", ATTRIBUTES) == "肤质 (skin type)" and glossed("随便", ATTRIBUTES) == "随便"
    dialogues, predictions, scores = study
    sample = dialogues[dialogues["task"] == "elicit"].iloc[0]
    assert "product type" in bubbles(sample, ATTRIBUTES)
    table = answers_to(sample["sample_id"], predictions, scores, ATTRIBUTES)
    assert table.loc["UniMIND(BART)", "F1"] == round(scores.set_index(["system", "sample_id"])["F1"]["bcrs", sample["sample_id"]], 3)
    assert len(table) == (predictions["sample_id"] == sample["sample_id"]).sum()
