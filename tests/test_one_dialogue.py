"""One question followed through the study: what is counted, what is read, and what is highlighted."""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from llmcrs_utils.evaluation.complementarity import help_and_harm
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.one_dialogue import (
    answers_to,
    bubbles,
    glossed,
    marked,
    places,
    turns_of,
    turns_of_help,
    two_readings,
)
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import system_of
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world.english import glossary

STUDY = Path(__file__).parents[1] / "results" / "study-cpu"


@pytest.fixture(scope="module")
def study():
    predictions = read_predictions(STUDY / "predictions").query("seed == 1 and split == 'test'")
    return read_parquet(STUDY / "dialogues.parquet").set_index("sample_id", drop=False), predictions, score(read_parquet(STUDY / "samples.parquet"), predictions, "zh")


@pytest.mark.parametrize("key", ["bcrs-allm", "allm-bcrs"])
def test_what_turns_is_what_notebook_8_calls_help_and_harm(study, key):
    pair, (_, _, scores) = system_of(key), study
    found = turns_of_help(scores, pair).value_counts(["task", "outcome"], normalize=False)
    known = help_and_harm(scores).query("system == @pair.name").set_index("task")
    sizes = scores.drop_duplicates("sample_id")["task"].value_counts()
    for task in sizes.index:
        assert found.get((task, "help corrects"), 0) == pytest.approx(known["help"][task] * sizes[task])
        assert found.get((task, "help spoils"), 0) == pytest.approx(known["harm"][task] * sizes[task])
    item = scores[scores["task"] == "recommend"].pivot(index="sample_id", columns="system", values="Acc").drop(columns="oracle")
    assert found["recommend", "nobody is right"] == (item.max(axis=1) == 0).sum() and found.sum() == 1012
    with pytest.raises(ValueError, match="several seeds"):
        turns_of_help(pd.concat([scores, scores.assign(seed=2)]), pair)


@pytest.mark.parametrize("key", ["bcrs-allm", "allm-bcrs"])
@pytest.mark.parametrize("task", ["understand", "elicit", "respond"])
def test_the_helper_s_answer_is_what_is_highlighted(study, key, task):
    pair, (dialogues, predictions, _) = system_of(key), study
    answers = predictions[predictions["system"] == pair.assistant]
    said_of = answers.set_index("sample_id")["text"]
    for _, sample in dialogues[dialogues["task"] == task].head(20).iterrows():
        said = html.escape(said_of[sample["sample_id"]])
        alone, _, helped = two_readings(sample.to_dict(), {}, CHINESE, pair, answers).partition("helped by")
        plain = re.sub("</?mark[^>]*>", "", helped)
        assert "<mark" not in alone and plain.count(said) > alone.count(said)
        unmarked = re.sub("<mark[^>]*>.*?</mark>", "", helped, flags=re.DOTALL)
        assert unmarked.partition("<pre")[2].partition("</pre>")[0] == alone.partition("<pre")[2].partition("</pre>")[0]


def test_a_crs_s_ranking_is_highlighted_and_the_first_item_of_an_llm_is_no_text(study):
    dialogues, predictions, _ = study
    sample = dialogues[dialogues["task"] == "recommend"].iloc[0].to_dict()
    for key, marks in (("bcrs-allm", True), ("allm-bcrs", False)):
        pair = system_of(key)
        assert ("<mark" in two_readings(sample, {}, CHINESE, pair, predictions[predictions["system"] == pair.assistant])) == marks


def test_speech_is_told_from_acts_and_notes():
    sample = {"context": [["[recommend]123", "[system] 好的亲", "[understand]"], ["[elicit]性别", "[system]男款吗", "[understand]性别：男款"]], "current": ["[user]要", "[understand]"]}
    assert [tuple(turn) for turn in turns_of(sample, glossary())] == [
        ("desk", "好的亲", ["[recommend]123", "[understand]"]),
        ("desk", "男款吗", ["[elicit]性别 (men or women)", "[understand]性别 (men or women)：男款 (men)"]),
        ("user", "要", ["[understand]"]),
    ]


def test_only_what_is_new_is_marked_and_text_is_no_markup():
    assert marked("a<b", "a<b>c") == 'a&lt;b<mark style="background:#ffe08a">&gt;c</mark>'


@pytest.mark.parametrize(("text", "shown"), [
    ("[understand]品类：面霜；功效：不用修护", "[understand]品类 (product type)：面霜 (cream)；功效 (effect)：不用修护 (not repairing)"),
    ("品类：耳麦", "品类 (product type)：耳麦 (Bluetooth earphones)"),
    ("肌肤问题：出油", "肌肤问题 (skin problem)：出油 (oiliness)"), ("材质：绒面", "材质 (material)：绒面 (suede / velvet)"), ("人群：长辈", "人群 (for whom)：长辈 (mother / the elderly)"),
    ("类目是电视，价格区间是低", "类目是电视 (product type: TV)，价格区间是低 (price: low)"),
    ("功能需求是轻便、透气", "功能需求是轻便、透气 (feature: light, breathable)"), ("功能需求是轻便、随便", "功能需求是轻便、随便"), ("肤质", "肤质 (skin type)"),
    ("网络：5G", "网络 (network)：5G"), ("[recommend]123", "[recommend]123"), ("随便", "随便"),
])  # fmt: skip
def test_words_of_the_world_have_english_names_and_others_stay(text, shown):
    assert glossed(text, glossary()) == shown


def test_a_question_and_its_answers_are_shown_in_english_too(study):
    dialogues, predictions, scores = study
    sample = dialogues[dialogues["task"] == "elicit"].iloc[0]
    assert "product type" in bubbles(sample, glossary())
    table = answers_to(sample["sample_id"], predictions, scores, {}, glossary())
    assert table.loc["UniMIND(BART)", "F1"] == round(scores.set_index(["system", "sample_id"])["F1"]["bcrs", sample["sample_id"]], 3)
    assert len(table) == (predictions["sample_id"] == sample["sample_id"]).sum()


def test_a_recommendation_is_shown_by_its_facts_and_by_the_places_of_its_candidates(study):
    dialogues, predictions, scores = study
    sample = dialogues[dialogues["task"] == "recommend"].iloc[0]
    facts = {item: f"类目是面霜，{place}" for place, item in enumerate(sample["candidates"])}
    table = answers_to(sample["sample_id"], predictions, scores, facts, glossary())
    assert table["answer"].str.startswith("类目是面霜 (product type: cream)，").all()
    found = places(sample, predictions, ["bcrs", "bcrs-allm"], facts, glossary())
    assert sorted(found["UniMIND(BART)"]) == list(found["BCRS-ALLM"]) == list(range(1, 21))
    ranking = predictions.set_index(["system", "sample_id"])["ranking"]["bcrs", sample["sample_id"]]
    assert found.loc[glossed(facts[ranking[0]], glossary()), "UniMIND(BART)"] == 1
    assert list(found.index[found["right"] != ""]) == [glossed(facts[sample["label"]], glossary())]


def test_what_notebook_10_says_of_its_questions_is_so():
    root = STUDY.parents[1]
    cells = json.loads((root / "notebooks" / "10_one_dialogue.ipynb").read_text("utf-8"))["cells"]
    turned = pd.read_csv(root / "figures" / "readers-1000" / "turns.csv").drop(columns="task").sum()
    assert f"{turned['help corrects']} of Gemma's {turned.sum():,} answers become right and {turned['help spoils']} become wrong" in "".join(cells[0]["source"])
    chosen = dict(re.findall(r'^(\w+): str = "([^"]+:[^"]+)"', "".join(cells[1]["source"]), re.MULTILINE))
    samples, predictions = read_parquet(root / "results/readers-1000/samples.parquet"), read_predictions(root / "results/readers-1000/predictions").query("seed == 1")
    scores = score(samples, predictions, "zh").set_index(["system", "sample_id"])
    f1 = {(key, name): scores["F1"][key, chosen[name]] for key in ("bcrs", "gemma", "bcrs-gemma", "oracle") for name in ("corrected", "spoiled", "missed")}
    assert [f1[key, "corrected"] for key in ("bcrs", "gemma", "bcrs-gemma")] == [1, 0, 1] and [f1[key, "spoiled"] for key in ("bcrs", "gemma", "bcrs-gemma")] == [0, 1, 0]
    assert [f1[key, "missed"] for key in ("bcrs", "gemma", "bcrs-gemma", "oracle")] == [0, 0, 0, 1]
    right = samples.set_index("sample_id")["label"][chosen["together"]]
    ranked = predictions.set_index(["system", "sample_id"])["ranking"]
    assert [list(ranked[key, chosen["together"]]).index(right) + 1 for key in ("bcrs", "gemma", "bcrs-gemma")] == [6, 2, 1]
    assert all(scores["Acc"][key, chosen["together"]] == 0 for key in ("trivial", "popular", "last_viewed", "matcher"))
