"""How hard candidates are, against numbers worked out by hand."""

import pandas as pd
import pytest

from llmcrs_utils.evaluation.hardness import candidate_examples, candidate_hardness, cold_shares

ROWS = [
    ("a1", "train", "x", ["x", "y"], []),
    ("a2", "train", "x", ["x", "z"], []),
    ("a3", "train", "y", ["z", "y"], []),
    ("b1", "test", "z", ["z", "x", "y", "w"], ["y"]),
    ("b2", "test", "x", ["x", "y"], []),
]


@pytest.fixture
def samples():
    about = {"task": "recommend", "context": [["[user]第一句"], ["[system]好"]], "current": ["[user]第二句", "[understand]"]}
    return pd.DataFrame(
        [{**about, "sample_id": name, "split": split, "label": gold, "candidates": items, "disliked": bad} for name, split, gold, items, bad in ROWS]
    )


def test_rules_are_scored_on_the_test_recommendations(samples):
    answers = pd.DataFrame({"sample_id": ["b2", "b1"], "ranking": [["x", "y"], ["w", "z", "x", "y"]]})
    table = candidate_hardness(samples, {"rule": answers}, {})
    assert table["Acc"].drop("what is most like the other candidates").to_dict() == {
        "chance": 0.375, "rule": 0.5, "what is right least often in training": 0.25,  # z or w; then y
    }  # fmt: skip
    assert set(table["samples"]) == {2}


@pytest.mark.parametrize(("middle", "accuracy"), [("z", 1.0), ("w", 0.5)])
def test_what_is_most_like_the_others_is_found(samples, middle, accuracy):
    """Of two candidates each is as much like the other; the first counts."""
    facts = {"x": "红色", "y": "钢笔", "z": "蓝布", "w": "蓝布"} | {middle: "红色钢笔"}
    assert candidate_hardness(samples, {}, facts)["Acc"]["what is most like the other candidates"] == accuracy


def test_cold_shares_count_what_training_never_recommended(samples):
    table = cold_shares(samples)
    assert table.loc["test"].to_dict() == {
        "recommendations": 2, "different items": 2, "right answers never in training": 0.5, "wrong candidates never in training": 0.25,
    }  # fmt: skip
    assert table.loc["train", "different items"] == 2 and table.loc["train", "right answers never in training"] == 0


def test_examples_mark_right_and_disliked_candidates(samples):
    table = candidate_examples(samples, {"z": "钢笔"}, count=5)
    assert len(table.columns) == 2
    assert table["b1: 第一句 / 第二句"].tolist() == ["✓ 钢笔", "x", "✗ y", "w"]
    assert candidate_examples(samples[samples["split"] == "train"], {}).empty
