"""Intervals and tests over dialogues and runs, p-values corrected for their number, and gains on the same samples."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, not a package

import gains

from llmcrs_utils.evaluation.statistics import (
    FEW_DIALOGUES,
    holm,
    influence,
    mean_interval,
    mean_intervals,
    paired_gains,
    runs_of,
    variance_parts,
)


def paired_gain(scores, system, base, metric):
    return paired_gains(scores, [(system, base)], metric)[0]


# --- what the variance is made of


def test_interval_of_equal_dialogues_is_a_point():
    assert mean_interval([0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("dialogues", [5, 12, 40])
def test_one_run_of_dialogues_with_one_sample_is_students_t(dialogues):
    values = np.random.default_rng(dialogues).normal(size=dialogues)
    known = stats.t.interval(0.95, dialogues - 1, values.mean(), stats.sem(values))
    assert mean_interval(values, np.arange(dialogues)) == pytest.approx((values.mean(), *known))


def test_a_long_dialogue_counts_as_much_as_its_samples():
    # The sums of deviations from 3/4 are 3/4 and -3/4, of shares 1/2: the variance of the mean is 2 * (3/8)^2 * 2 / 2 / 2 = (3/8)^2 * 2 / 2.
    mean, low, high = mean_interval([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert mean == 0.75 and (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * 3 / 8)


def test_variance_is_that_of_a_bootstrap_of_dialogues():
    rng = np.random.default_rng(3)
    groups = rng.integers(40, size=300)
    values = rng.random(300) + groups / 40
    drawn = [np.concatenate([values[groups == g] for g in rng.integers(40, size=40)]).mean() for _ in range(4000)]
    mean, low, high = mean_interval(values, groups)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 / stats.t.ppf(0.975, 39) == pytest.approx(np.std(drawn), rel=0.05)


@pytest.mark.parametrize("apart, between_dialogues", [(1, 0), (3, (3 * 9 * 2 / 1 - 6) / 6)])
def test_mean_squares_of_dialogues_and_runs_by_hand(apart, between_dialogues):
    # Three runs on two dialogues of one sample: effects of the runs -3, 0 and 3, of the dialogues -apart and apart, of both -1, 2, -1 and 1, -2, 1.
    values = 7 + np.array([[-3, 0, 3]] * 2) + apart * np.array([[-1], [1]]) + np.array([[-1, 2, -1], [1, -2, 1]])
    part = variance_parts(values.ravel(), [0, 0, 0, 1, 1, 1], [1, 2, 3, 1, 2, 3])
    assert part.mean[0] == 7 and part.between_runs[0] == (9 + 0 + 9) / 2
    assert part.dialogues[0] == between_dialogues and part.interaction[0] == 1  # the square of both together is 2 * (1 + 4 + 1) / 2 = 6


def test_what_differs_between_dialogues_in_one_run_only_counts_once():
    """Noise of single samples is in the means of dialogues and in those of runs. Counted twice, the variance would be twice as large."""
    rng = np.random.default_rng(2)
    parts = [variance_parts(rng.normal(size=300), np.tile(np.arange(60), 5), np.repeat(np.arange(5), 60)) for _ in range(400)]
    estimated = np.mean([part.dialogues[0] + part.between_runs[0] / 5 for part in parts])
    assert estimated == pytest.approx(np.var([part.mean[0] for part in parts]), rel=0.25)


def test_runs_widen_the_interval_by_students_t():
    # No dialogue differs from another; the runs' means 0, 1 and 2 have the standard error 1 / sqrt(3) with two degrees of freedom.
    values, seeds = np.repeat([0.0, 1.0, 2.0], 12), np.repeat([1, 2, 3], 12)
    mean, low, high = mean_interval(values, np.tile(np.arange(12), 3), seeds, level=0.8)
    assert mean == 1 and (high - low) / 2 == pytest.approx(1.8856 / np.sqrt(3), rel=1e-4)
    assert mean_intervals([(values, np.tile(np.arange(12), 3), seeds)])[0][3] == pytest.approx(stats.ttest_1samp([0, 1, 2], 0).pvalue)


def test_runs_that_agree_by_chance_are_not_sure():
    """Two runs whose single samples differ much, but whose means do not: one more run would differ as much as its samples say."""
    noise = np.random.default_rng(0).normal(size=50)
    runs = np.concatenate([0.1 + noise, 0.1 - noise + 2 * noise.mean()])
    mean, low, high, p = mean_intervals([(runs, np.tile(np.arange(50), 2), np.repeat([1, 2], 50))])[0]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 1) * noise.std(ddof=1) / np.sqrt(50)) and p > 0.1


def test_influence_has_the_mean_of_the_chosen_and_its_interval():
    rng = np.random.default_rng(9)
    values, chosen = pd.Series(rng.random(400)), pd.Series(rng.random(400) < 0.3)
    mean, low, high = mean_interval(influence(values, chosen), np.arange(400))
    alone = mean_interval(values[chosen], np.flatnonzero(chosen))
    assert mean == pytest.approx(values[chosen].mean()) and high - low == pytest.approx(alone[2] - alone[1], rel=0.1)


def test_one_run_says_nothing_of_others():
    values, groups = np.random.default_rng(0).random(50) + 1, np.arange(50) // 3
    assert mean_interval(values, groups, np.ones(50)) == mean_interval(values, groups)
    assert np.isnan(mean_intervals([(values, groups, np.ones(50))])[0][3])


def test_runs_with_the_same_scores_add_nothing():
    values, groups = np.random.default_rng(0).random(50), np.arange(50) // 3
    twice = mean_interval(np.tile(values, 2), np.tile(groups, 2), np.repeat([1, 2], 50))
    assert twice == pytest.approx(mean_interval(values, groups))


@pytest.mark.parametrize("dialogues, tested", [(FEW_DIALOGUES - 1, False), (FEW_DIALOGUES, True)])
def test_few_dialogues_are_not_tested(dialogues, tested):
    rng = np.random.default_rng(0)
    quantity = rng.normal(size=2 * dialogues), np.tile(np.arange(dialogues), 2), np.repeat([1, 2], dialogues)
    assert (0 < mean_intervals([quantity])[0][3] < 1) == tested


def test_seeds_without_the_same_samples_raise():
    with pytest.raises(ValueError, match="the seeds have 2, 1 values"):
        mean_interval([1.0, 0.0, 1.0], ["a", "b", "a"], [1, 1, 2])
    with pytest.raises(ValueError, match="of different dialogues"):
        mean_interval([1.0, 0.0, 1.0, 0.0], ["a", "b", "a", "c"], [1, 1, 2, 2])


def test_seeds_are_told_apart_by_name_not_by_place():
    rng = np.random.default_rng(2)
    values, groups, seeds = rng.random(60), np.tile(np.arange(20), 3), np.repeat([1, 2, 3], 20)
    order = rng.permutation(60)
    assert mean_interval(values[order], groups[order], seeds[order]) == pytest.approx(mean_interval(values, groups, seeds))


def test_several_metrics_at_once_are_those_of_each():
    values, groups = np.random.default_rng(0).random((50, 2)), np.arange(50) // 3
    together = np.array(mean_interval(values, groups))
    apart = np.array([mean_interval(column, groups) for column in values.T]).T
    np.testing.assert_allclose(together, apart, rtol=1e-12)


def test_one_dialogue_has_no_interval():
    mean, low, high = mean_interval([0.25, 0.75], ["a", "a"])
    assert mean == 0.5 and np.isnan([low, high]).all()


@pytest.mark.parametrize("values, groups", [([], []), ([1.0], ["a", "b"]), ([1.0, np.nan], ["a", "b"])])
def test_unusable_values_raise(values, groups):
    with pytest.raises(ValueError):
        mean_interval(values, groups)


# --- many gains at once


def run_means(*means):
    """A quantity of runs with these means and dialogues that do not differ."""
    return np.repeat(np.array(means, dtype=float), 12), np.tile(np.arange(12), len(means)), np.repeat(np.arange(len(means)), 12)


def half_width(found):
    return (found[2] - found[1]) / 2


def test_spread_between_runs_is_pooled_and_gains_that_share_a_run_count_once():
    # Variances 1 and 9 of three runs each. Of independent gains the pooled variance 5 has four degrees of freedom, of those of one base two.
    gains_of_two = [run_means(-1, 0, 1), run_means(-3, 0, 3)]
    for depends_on, freedom in (([{"a"}, {"b"}], 4), ([{"a", "base"}, {"b", "base"}], 2), (None, 2)):
        for found in mean_intervals(gains_of_two, None, depends_on):
            assert half_width(found) == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(5 / 3))
    apart = mean_intervals(gains_of_two, ["crs", "llm"], [{"a"}, {"b"}])
    assert [half_width(found) for found in apart] == pytest.approx([stats.t.ppf(0.975, 2) * np.sqrt(v / 3) for v in (1, 9)])


def test_of_crossed_bases_and_assistants_two_gains_share_nothing():
    pairs = [("cllm-bcrs", "bcrs"), ("cllm-ccrs", "ccrs"), ("allm-bcrs", "bcrs"), ("allm-ccrs", "ccrs")]
    assert runs_of("cllm-bcrs") == {"cllm-bcrs", "bcrs", "cllm"} and runs_of("cllm-bcrs (cross-fitted)") >= {"bcrs", "cllm"}
    rows = []
    for shift, (pair, base) in enumerate(pairs):
        rows += [scores_of(base, np.zeros(12), seed).assign(sid=lambda part: part["sample_id"]) for seed in (1, 2, 3)] if shift < 2 else []
        rows += [scores_of(pair, np.full(12, seed - 2.0), seed).assign(sid=lambda part: part["sample_id"]) for seed in (1, 2, 3)]
    for found in paired_gains(pd.concat(rows), pairs, "F1"):
        assert half_width(found) == pytest.approx(stats.t.ppf(0.975, 2 + 2) / np.sqrt(3))


def test_a_run_whose_likes_have_several_has_its_own_interval():
    values, groups = np.random.default_rng(0).random(50), np.arange(50) // 3
    alone = mean_intervals([(values, groups, np.ones(50))])[0]
    np.testing.assert_equal(mean_intervals([(values, groups, np.ones(50)), run_means(0, 5, 9)])[0], alone)


def test_a_study_s_intervals_cover_and_false_findings_are_rare():
    """Small versions of the rows of docs/statistics.md."""
    found = []
    for spread in ("as in the committed study", "only bases vary", "runs do not vary"):
        rng = np.random.default_rng(1)
        found.append(gains.rates([gains.study(rng, gains.SPREADS[spread], 80, 3) for _ in range(25)]))
    assert all(0.93 <= rates["coverage"] <= 0.995 for rates in found) and np.mean([rates["false"] for rates in found]) <= 0.06


def test_few_runs_of_one_gain_seldom_make_a_finding():
    """Two seeds and one collaboration of each kind: nothing else tells how runs vary."""
    rng, spread = np.random.default_rng(1), gains.SPREADS["as in the committed study"]
    found = []
    for _ in range(40):
        alone = [gains.four_gains(rng, spread, 80, 2)[0][0] for _ in range(8)]
        found.append(holm([mean_intervals([quantity])[0][3] for quantity in alone]).min() < 0.05)
    assert np.mean(found) <= 0.1


def test_whoever_ignores_shared_runs_is_too_sure():
    """Only bases vary and dialogues hardly matter: of two gains of one base the second says nothing new about the spread."""
    spread = gains.Spread(0.2, 0.0, 0.0, dialogue=0.0, sample=0.05)
    rng = [np.random.default_rng(1) for _ in range(2)]
    honest, careless = ([gains.study(rng[shared], spread, 12, 3, shared=shared) for _ in range(60)] for shared in (True, False))
    assert gains.rates(honest)["coverage"] > 0.94 > gains.rates(careless)["coverage"]


def test_a_planted_gain_is_found_with_runs_enough():
    rng = np.random.default_rng(1)
    studies = [gains.study(rng, gains.SPREADS["as in the committed study"], 300, 5, 0.1) for _ in range(8)]
    assert gains.rates(studies)["found"] > 0.6


# --- Holm's correction


def plain_holm(p_values):
    """Holm's steps, one by one."""
    left = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    adjusted, largest = [float("nan")] * len(p_values), 0.0
    for step, (p, place) in enumerate(left):
        largest = max(largest, (len(left) - step) * p)
        adjusted[place] = min(1.0, largest)
    return adjusted


def test_holm_by_hand():
    assert list(holm([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(holm([0.5, 0.6])) == [1, 1]
    assert list(holm([0.02])) == [0.02] and len(holm([])) == 0


def test_holm_does_not_count_what_is_unknown():
    nan = float("nan")
    np.testing.assert_allclose(holm([0.01, nan, 0.04, 0.03, nan, 0.005]), [0.03, nan, 0.06, 0.06, nan, 0.02])
    assert np.isnan(holm([nan, nan])).all()


def test_holm_is_that_of_its_definition():
    rng = np.random.default_rng(4)
    for size in range(1, 40):
        p_values = np.where(rng.random(size) < 0.1, np.nan, rng.random(size) ** 3)
        adjusted = holm(p_values)
        np.testing.assert_allclose(adjusted, plain_holm(p_values), rtol=1e-12)
        known = ~np.isnan(p_values)
        assert (adjusted[known] >= p_values[known]).all() and (adjusted[known] <= 1).all()
        assert (np.diff(adjusted[known][np.argsort(p_values[known])]) >= 0).all()


def scores_of(system, f1, seed=1, task="elicit"):
    rows = {"system": system, "seed": seed, "task": task, "sample_id": [f"s{i}" for i in range(len(f1))]}
    return pd.DataFrame(rows | {"sid": [f"d{i // 2}" for i in range(len(f1))], "F1": f1})


def twice(system, f1, more=0.0):
    """Scores of two runs, the second higher by ``more``."""
    return pd.concat([scores_of(system, np.asarray(f1), 1), scores_of(system, np.asarray(f1) + more, 2)])


def test_gain_of_a_system_over_its_equal_is_zero():
    values = np.random.default_rng(0).random(20)
    assert paired_gain(pd.concat([twice("bcrs", values), twice("allm-bcrs", values)]), "allm-bcrs", "bcrs", "F1") == (0.0, 0.0, 0.0, 1.0)


def test_constant_gain_has_no_width():
    values = np.arange(20) / 64
    scores = pd.concat([twice("bcrs", values), twice("allm-bcrs", values + 0.25).sample(frac=1, random_state=0)])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.25, 0.25, 0.25, 0.0)
    assert paired_gain(scores, "bcrs", "allm-bcrs", "F1") == (-0.25, -0.25, -0.25, 0.0)


def test_gain_pairs_seed_with_seed():
    better = np.arange(20) / 64
    scores = pd.concat([twice("bcrs", better, 0.5), twice("allm-bcrs", better + 0.125, 0.5)])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.125, 0.125, 0.125, 0.0)


def test_gain_needs_the_same_samples_and_seeds():
    base, better = scores_of("bcrs", np.zeros(4)), scores_of("allm-bcrs", np.ones(4))
    for scores in (pd.concat([base, better.iloc[1:]]), pd.concat([base, better.assign(seed=2)]), base):
        with pytest.raises(ValueError, match="same samples and seeds"):
            paired_gain(scores, "allm-bcrs", "bcrs", "F1")


def test_gain_over_two_tasks_at_once_raises():
    runs = [(system, task) for system in ("bcrs", "allm") for task in ("elicit", "understand")]
    scores = pd.concat([scores_of(system, np.ones(4), task=task) for system, task in runs])
    with pytest.raises(ValueError, match="elicit, understand"):
        paired_gain(scores, "allm", "bcrs", "F1")


def test_samples_of_a_dialogue_are_taken_together():
    # Each dialogue holds one sample that wins and one that loses as much, so no dialogue differs from another.
    scores = pd.concat([twice("bcrs", np.full(20, 0.5)), twice("allm-bcrs", np.tile([0.25, 0.75], 10))])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.0, 0.0, 0.0, 1.0)


def test_gain_and_loss_are_equally_sure():
    rng = np.random.default_rng(1)
    base = rng.random(40)
    scores = pd.concat([twice("bcrs", base), twice("allm-bcrs", base + rng.normal(0.1, 0.3, size=40))])
    gain, low, high, p = paired_gain(scores, "allm-bcrs", "bcrs", "F1")
    assert paired_gain(scores, "bcrs", "allm-bcrs", "F1") == pytest.approx((-gain, -high, -low, p)) and 0.001 < p < 0.5


def test_gain_of_runs_that_disagree_is_not_sure():
    scores = pd.concat([twice("bcrs", np.zeros(30)), twice("allm-bcrs", np.full(30, 0.5), -0.4)])
    gain, low, high, p = paired_gain(scores, "allm-bcrs", "bcrs", "F1")
    assert gain == pytest.approx(0.3) and low < 0 < high and p > 0.2


def test_gains_of_one_seed_each_have_intervals_of_their_own():
    rng = np.random.default_rng(1)
    scores = pd.concat([scores_of(system, rng.random(40)) for system in ("bcrs", "allm", "allm-bcrs", "bcrs-allm")])
    pairs = [("bcrs-allm", "allm"), ("allm-bcrs", "bcrs")]
    np.testing.assert_equal(paired_gains(scores, pairs, "F1"), [paired_gain(scores, *pair, "F1") for pair in pairs])
