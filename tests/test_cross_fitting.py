"""Help on dialogues that the assistant was trained on against help on new ones: from made-up scores and answers, by hand."""

import numpy as np
import pandas as pd
import pytest
from made_up import answers_of, random_scores, scores_of

from llmcrs_utils.evaluation import claims
from llmcrs_utils.evaluation.analysis_figures import reliance_figure
from llmcrs_utils.evaluation.cross_fitting import both_gains, by_direction, fallback_effect, help_quality, reliance, trust
from llmcrs_utils.evaluation.statistics import holm, paired_gains

STUDY = ("bcrs", "allm", "allm-bcrs", "bcrs-allm")


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


# --- gains with either kind of help


def test_gains_and_their_change_by_hand():
    base = np.arange(20) / 32
    in_sample = scores_of({"bcrs": base, "allm": base, "allm-bcrs": base - 0.25})
    row = both_gains(in_sample, scores_of({"allm-bcrs": base + 0.125})).loc[0]
    assert tuple(row[["system", "direction", "over", "task", "metric"]]) == ("ALLM-BCRS", "LLM assisting CRS", "UniMIND(BART)", "elicit", "F1")
    assert row["seeds"] == 1
    for columns, expected in (("in-sample gain, in-sample low, in-sample high", -0.25), ("change, change low, change high", 0.375)):
        assert tuple(row[columns.split(", ")]) == (expected,) * 3
    assert tuple(row[["cross-fitted gain", "cross-fitted low", "cross-fitted high"]]) == (0.125,) * 3
    assert np.isnan([row[f"{kind} p (Holm)"] for kind in ("in-sample", "cross-fitted", "change")]).all()  # one seed


def test_change_is_the_cross_fitted_less_the_in_sample_gain():
    in_sample, cross_fitted = random_scores(STUDY), random_scores(("allm-bcrs", "bcrs-allm"), start=1)
    table = both_gains(in_sample, cross_fitted)
    assert list(table["system"]) == ["ALLM-BCRS", "BCRS-ALLM"] and set(table["seeds"]) == {2}
    assert list(table["change"]) == exactly(list(table["cross-fitted gain"] - table["in-sample gain"]))
    pairs = [("allm-bcrs", "bcrs"), ("bcrs-allm", "allm")]
    helped = pd.concat([in_sample[in_sample["system"].isin(["bcrs", "allm"])], cross_fitted])
    for kind, scores in (("in-sample", in_sample), ("cross-fitted", helped)):
        expected = [paired_gains(scores, [pair], "F1")[0] for pair in pairs]  # one of each direction
        np.testing.assert_allclose(table[[f"{kind} {name}" for name in ("gain", "low", "high", "p")]], expected, rtol=1e-9)
    assert (table["change low"] < table["change"]).all() and (table["change"] < table["change high"]).all()
    for kind in ("in-sample", "cross-fitted", "change"):
        assert list(table[f"{kind} p (Holm)"]) == exactly(list(holm(table[f"{kind} p"])))


def test_only_seeds_with_either_kind_of_help_are_compared():
    in_sample, cross_fitted = random_scores(STUDY, seeds=3), random_scores(("allm-bcrs",), seeds=2, start=1)
    table = both_gains(in_sample, cross_fitted)
    pd.testing.assert_frame_equal(table, both_gains(in_sample[in_sample["seed"] < 3], cross_fitted))
    assert list(table["seeds"]) == [2] and list(table["system"]) == ["ALLM-BCRS"]


def test_a_direction_counts_losers_and_winners_alike():
    base = np.arange(20) / 32
    in_sample = scores_of({"bcrs": base, "ccrs": base, "allm": base, "allm-bcrs": base - 0.25, "allm-ccrs": base + 0.125})
    rows = by_direction(in_sample, scores_of({"allm-bcrs": base, "allm-ccrs": base}))
    (row,) = rows.to_dict("records")
    assert (row["direction"], row["task"]) == ("LLM assisting CRS", "elicit")
    assert [row[name] for name in ("in-sample", "cross-fitted", "change", "low", "high")] == exactly([-0.0625, 0, 0.0625, 0.0625, 0.0625])
    assert row["removed"] == exactly(1) and np.isnan(row["p (Holm)"])


def test_nothing_is_removed_where_no_loss_is_sure():
    rng = np.random.default_rng(0)
    base = rng.random(40)
    noisy = scores_of({"bcrs": base, "allm": base, "allm-bcrs": base + rng.normal(size=40)})
    assert np.isnan(by_direction(noisy, scores_of({"allm-bcrs": base})).loc[0, "removed"])


def test_trust_is_agreement_with_the_assistant():
    samples = pd.DataFrame({"sample_id": ["e1", "e2"], "split": "test", "task": "elicit", "sid": ["d1", "d2"], "domain": "Fridges", "label": "价格"})
    said = {"bcrs": {"e1": "颜色", "e2": "颜色"}, "allm": {"e1": "尺码", "e2": "品牌"}, "allm-bcrs": {"e1": "尺码", "e2": "品牌"}}
    in_sample = pd.concat([answers_of(key, texts) for key, texts in said.items()])
    cross_fitted = answers_of("allm-bcrs", {"e1": "颜色", "e2": "品牌"})
    for other in (set(), {("allm", "respond")}, {("ccrs", "elicit")}):  # a collapse elsewhere leaves nothing out
        assert tuple(trust(samples, in_sample, cross_fitted, "zh", other).loc[("LLM assisting CRS", "elicit")]) == (1, 0.5)
    assert trust(samples, in_sample, cross_fitted, "zh", {("allm", "elicit")}).empty, "a pair in which somebody has collapsed is left out"


# --- how good the help is

SAMPLES = pd.DataFrame(
    {"sample_id": ["t1", "t2", "r1", "e1", "e2"], "split": ["train"] * 3 + ["test"] * 2, "task": ["elicit"] * 2 + ["recommend"] + ["elicit"] * 2}
).assign(sid=["d1", "d1", "d1", "d2", "d2"], domain="Fridges", label=["颜色", "尺码", "i1", "价格", "品牌"])


def test_quality_of_help_by_hand():
    whole = {"t1": "颜色", "t2": "尺码", "r1": ["i1", "i2"]}
    in_sample = pd.concat([answers_of("allm", whole, split="train"), answers_of("allm", {"e1": "价格", "e2": "产地"})])
    in_sample = pd.concat([in_sample, answers_of("bcrs", whole, split="train")])  # without folds of its own
    held_out = answers_of("allm", {"t1": "颜色；尺码", "t2": "尺码", "r1": ["i2", "i1"]}, split="train", unusable=["t2"])
    table = help_quality(SAMPLES, in_sample, "zh", held_out).set_index("task")
    assert set(table["system"]) == {"Chinese-Alpaca"} and table["metric"].to_dict() == {"elicit": "F1", "recommend": "Acc"}
    assert tuple(table.loc["elicit", ["trained on", "held out", "test"]]) == exactly((1, 1 / 3, 1 / 2))
    assert tuple(table.loc["recommend", ["trained on", "held out"]]) == (1, 0) and np.isnan(table.loc["recommend", "test"])
    both = help_quality(SAMPLES, in_sample, "zh").set_index(["system", "task"])  # without folds: every system
    assert list(both) == ["metric", "trained on", "test"] and both.loc[("Chinese-Alpaca", "elicit"), ["trained on", "test"]].tolist() == exactly([1, 1 / 2])
    assert both.loc[("UniMIND(BART)", "elicit"), "trained on"] == 1


def test_reliance_is_beside_what_the_helper_knew_in_training():
    """The helper is right in all of its training answers and in one of two test answers, the base in none; with help the base says what the helper says."""
    said = {"allm": {"e1": "价格", "e2": "产地"}, "bcrs": {"e1": "颜色", "e2": "尺码"}, "allm-bcrs": {"e1": "价格", "e2": "产地"}}
    predictions = pd.concat([answers_of(key, texts) for key, texts in said.items()])
    training = answers_of("allm", {"t1": "颜色", "t2": "尺码"}, split="train")
    health = pd.DataFrame({"system": ["bcrs"], "seed": 1, "task": "elicit", "collapsed": [False]})
    (row,) = reliance(SAMPLES, predictions, training, "zh", health).to_dict("records")
    assert reliance(SAMPLES, predictions, training, "zh", health.assign(collapsed=True)).empty, "a case in which somebody has collapsed is left out"
    assert {name: row[name] for name in ("system", "task", "metric")} == {"system": "ALLM-BCRS", "task": "elicit", "metric": "F1"}
    assert [row[name] for name in ("help in training", "help in test", "own", "lead", "before", "after", "moved")] == exactly([1, 1 / 2, 0, 1, 0, 1, 1])
    held_out = answers_of("allm", {"t1": "颜色", "t2": "产地"}, split="train")
    (row,) = reliance(SAMPLES, predictions, training, "zh", health, held_out).to_dict("records")
    assert (row["help in training"], row["lead"]) == exactly((1 / 2, 1 / 2)), "cross-fitted help is as good as the folds' answers"
    one, other = (pd.DataFrame([row | {"task": "elicit", "lead": lead, "moved": moved}]) for lead, moved in ((0.5, 0.4), (0.1, 0.2)))
    figure = reliance_figure({"$one": one, "two": other}, "a corpus")
    assert figure.get_suptitle() == "The further the help in training is ahead, the more an LLM follows it: rank correlation 1.00 (2 cases, not tested)\na corpus"
    three = pd.concat([one, other, one.assign(lead=10, moved=0.3)])  # Pearson's would be nearly 0
    assert "the more an LLM follows it: rank correlation 0.50 (3 cases" in claims.following_the_training(three)
    assert "the less an LLM follows it: rank correlation -1.00" in claims.following_the_training(pd.concat([one, other.assign(moved=0.9)]))
    assert claims.following_the_training(one).startswith("Too few cases")
    with pytest.raises(ValueError, match="5 studies: at most 4"):
        reliance_figure(dict.fromkeys("abcde", one), "a corpus")
    points = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_label() in ("\\$one", "two")]
    assert points == [[[0.5, 0.4]], [[0.1, 0.2]]] and [text.get_text() for text in figure.axes[0].texts] == ["elicit"] * 2


# --- the published fallback


def test_what_the_gold_item_gives_away_by_hand():
    usual = scores_of({"bcrs": [0] * 6, "allm-bcrs": [[0, 1, 0, 0, 1, 0], [1] * 6]}, "recommend")
    published = scores_of({"bcrs": [1] * 6, "allm-bcrs": [1, 1, 1, 0, 0, 0]}, "recommend")
    table = fallback_effect(usual, published, {"recommend-000", "recommend-001", "recommend-002"}, "allm-bcrs")
    assert table["samples"].str.contains("gold").tolist() == [True, False, False] and list(table["n"]) == [3, 3, 6]
    assert list(table["nothing"]) == exactly([1 / 3, 1 / 3, 1 / 3]) and list(table["published"]) == exactly([1, 0, 1 / 2])
    assert list(table["difference"]) == exactly([2 / 3, -1 / 3, 1 / 6])
    assert (table["low"] <= table["difference"]).all() and (table["difference"] <= table["high"]).all()
    assert table.loc[2, "low"] < 0 < table.loc[2, "high"]
