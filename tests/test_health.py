"""A run that gives one answer to everything is seen, whatever its score."""

import pandas as pd
import pytest

from llmcrs_utils.evaluation.health import (
    FEWEST,
    answer_health,
    collapse_warning,
    collapsed_note,
    collapsed_runs,
    distinct_answers,
    health_by_split,
)

RIGHT = [f"颜色：{number}" for number in range(40)]


def samples(task="understand", labels=RIGHT):
    return pd.DataFrame({"sample_id": [str(i) for i in range(len(labels))], "split": "test", "task": task, "label": labels})


def predictions(answers, system="bcrs", seed=1, valid=True, rankings=None):
    names = [str(i) for i in range(len(answers))]
    return pd.DataFrame(
        {"system": system, "seed": seed, "split": "test", "sample_id": names, "text": answers, "ranking": rankings or [None] * len(answers), "valid": valid}
    )


def collapsed(answers, **options):
    return answer_health(samples(), predictions(answers, **options), "zh")["collapsed"].tolist()


def test_a_constant_answer_is_a_collapse_and_a_copy_of_the_right_ones_is_none():
    assert collapsed(["颜色：1"] * 40) == [True]
    assert collapsed(RIGHT) == [False]


def test_half_of_all_answers_alike_is_a_collapse_and_less_is_none():
    assert collapsed(["颜色：1"] * 20 + RIGHT[20:]) == [True]
    assert collapsed(["颜色：1"] * 19 + RIGHT[19:]) == [False]


def test_few_different_answers_are_a_collapse_even_if_none_is_frequent():
    few = int(FEWEST * 40)
    assert collapsed((RIGHT[: few - 1] * 40)[:40]) == [True]
    assert collapsed((RIGHT[:few] * 40)[:40]) == [False]


def test_where_right_answers_are_alike_too_nothing_has_collapsed():
    labels = ["颜色：1"] * 25 + RIGHT[2:22]
    health = answer_health(samples(labels=labels), predictions(["颜色：1"] * 30 + RIGHT[2:17]), "zh")
    assert health["right_most_frequent"].item() == pytest.approx(25 / 45) and not health["collapsed"].item()


def test_a_floor_may_repeat_itself():
    assert collapsed(["颜色：1"] * 40, system="trivial") == [False]


def test_of_a_ranking_the_first_item_is_the_answer():
    labels = [f"item{number}" for number in range(40)]
    same, other = ([["item7", "x"]] * 40), [[label, "item7"] for label in labels]
    for rankings, distinct, fallen in ((same, 1, True), (other, 40, False)):
        health = answer_health(samples("recommend", labels), predictions(["A"] * 40, rankings=rankings), "zh").iloc[0]
        assert (health["distinct"], health["collapsed"]) == (distinct, fallen)
        assert pd.isna(health["mean_length"]) and pd.isna(health["dist_2"])


def test_length_and_pairs_are_of_all_answers_together():
    health = answer_health(samples(labels=["ab", "ab"]), predictions(["abc", "abc"], valid=[True, False]), "zh").iloc[0]
    assert (health["mean_length"], health["dist_2"], health["unusable"]) == (3, 0.5, 0.5)
    words = answer_health(samples(labels=["a b", "a"]), predictions(["red shoe", "red"]), "en").iloc[0]
    assert (words["mean_length"], words["dist_2"]) == (1.5, 1.0)


def test_the_note_names_system_task_and_seeds():
    both = pd.concat([predictions(["颜色：1"] * 40, seed=1), predictions(RIGHT, seed=2)])
    health = answer_health(samples(), both, "zh")
    assert collapsed_note(health) == (
        "* UniMIND(BART), understand, seed 1 of 2: 1 different answers to 40 samples (right: 40), the most frequent up to 100%"
    )
    assert collapsed_note(health[health["seed"] == 2]) == "No run has collapsed."


def test_a_copy_of_the_training_sets_most_frequent_answer_is_a_collapse_by_whatever_system():
    training = pd.Series(["颜色：3"] * 3 + RIGHT)
    mode = training.mode()[0]
    assert collapsed([mode] * 40) == [True]
    assert collapsed([mode] * 40, system="mine") == [True]  # somebody else's answers


def two_splits():
    """Answers to training, validation and test samples: a constant in validation, the right ones elsewhere."""
    asked = pd.concat([samples().assign(split=split, sample_id=[f"{split}{i}" for i in range(40)]) for split in ("train", "valid", "test")])
    answers = pd.concat(
        [predictions(["颜色：1"] * 40 if split == "valid" else RIGHT).assign(split=split, sample_id=[f"{split}{i}" for i in range(40)])
         for split in ("train", "valid", "test")]
    )  # fmt: skip
    return asked, answers


def test_a_notebook_shows_validation_and_test_and_ends_with_a_warning():
    health = health_by_split(*two_splits(), "zh")
    assert health[["split", "collapsed"]].to_numpy().tolist() == [["valid", True], ["test", False]]
    first, *lines = collapse_warning(health).splitlines()
    assert first.startswith("WARNING: collapsed")
    assert lines == ["* UniMIND(BART), understand, valid, seed 1 of 1: 1 different answers to 40 samples (right: 40), the most frequent up to 100%"]
    assert collapse_warning(health[health["split"] == "test"]) == "No run has collapsed."


def test_a_fold_that_answers_training_samples_only_has_its_health_too():
    asked, answers = two_splits()
    assert health_by_split(asked, answers[answers["split"] == "train"], "zh")["split"].tolist() == ["train"]


def test_the_mark_is_of_a_task_and_of_any_seed():
    both = pd.concat([predictions(["颜色：1"] * 40, seed=1), predictions(RIGHT, seed=2), predictions(RIGHT, system="allm")])
    health = answer_health(samples(), both, "zh")
    assert collapsed_runs(health) == {("bcrs", "understand")} and collapsed_runs(health[health["seed"] == 2]) == collapsed_runs(None) == set()
    shown = distinct_answers(health)
    assert shown["understand"].to_dict() == {"right answers": "40", "UniMIND(BART)": "1–40†", "Chinese-Alpaca": "40"}
