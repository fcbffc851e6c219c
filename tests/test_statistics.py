"""Bootstrap intervals: known cases, coverage, pairing; p-values and their correction."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llmcrs_utils.evaluation.statistics import (
    DRAWS,
    bootstrap,
    bootstrap_interval,
    holm,
    influence,
    interval,
    mean_intervals,
    p_value,
    paired,
    paired_gains,
    seed_spread,
)


def paired_gain(scores, system, base, metric):
    return paired_gains(scores, [(system, base)], metric)[0]


SURE = 2 / (DRAWS + 1)  # the least p-value there is


def test_interval_of_equal_groups_is_a_point():
    mean, low, high = bootstrap_interval([0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"])
    assert (mean, low, high) == (0.5, 0.5, 0.5)


def test_a_long_dialogue_weighs_as_much_as_its_samples():
    # A draw holds a twice (1/4), b twice (1/4) or both (1/2); a has three samples, so both give 3/4, and so does the middle of all draws.
    assert bootstrap_interval([1, 1, 1, 0], ["a", "a", "a", "b"], level=0.4) == (0.75, 0.75, 0.75)


@pytest.mark.parametrize("dialogues", [5, 12, 40])
def test_few_dialogues_are_as_unsure_as_students_t_says(dialogues):
    values = np.random.default_rng(dialogues).normal(size=dialogues)
    mean, low, high = bootstrap_interval(values, np.arange(dialogues), draws=20_000)
    half = stats.t.ppf(0.975, dialogues - 1) * values.std(ddof=1) / np.sqrt(dialogues)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_few_dialogues_seldom_make_a_finding():
    """Of 160 comparisons on five dialogues each, where nothing is to be found, Holm's correction leaves one in 20 families at most."""
    rng = np.random.default_rng(8)
    found = [holm([p_value(bootstrap(rng.normal(size=5), np.arange(5))[1][:, 0]) for _ in range(40)]).min() < 0.05 for _ in range(40)]
    assert sum(found) <= 5  # without Student's t nearly all


def test_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    groups = rng.integers(40, size=300)
    values = rng.random(300) + groups / 40
    drawn = [np.concatenate([values[groups == g] for g in rng.integers(40, size=40)]).mean() for _ in range(4000)]
    mean, low, high = bootstrap_interval(values, groups, draws=4000)
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    wider = stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975) * np.sqrt(40 / 39)
    plain = [values.mean() + wider * (bound - values.mean()) for bound in np.quantile(drawn, [0.025, 0.975])]
    assert (low, high) == tuple(pytest.approx(bound, rel=0.02) for bound in plain)


def test_influence_has_the_mean_of_the_chosen_and_its_interval():
    rng = np.random.default_rng(9)
    values, chosen = pd.Series(rng.random(400)), pd.Series(rng.random(400) < 0.3)
    mean, low, high = bootstrap_interval(influence(values, chosen), np.arange(400))
    alone = bootstrap_interval(values[chosen], np.flatnonzero(chosen))
    assert mean == pytest.approx(values[chosen].mean()) and high - low == pytest.approx(alone[2] - alone[1], rel=0.1)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = []
    for trial in range(1500):
        groups = np.repeat(np.arange(80), rng.integers(2, 5, size=80))
        values = rng.normal(size=80)[groups] + rng.normal(size=len(groups))
        _, low, high = bootstrap_interval(values, groups, draws=400, seed=trial)
        covered.append(low <= 0 <= high)
    assert 0.93 <= np.mean(covered) <= 0.97  # single samples instead of dialogues would give about 0.8


def runs(rng, spread):
    """Three runs on 80 dialogues, each better or worse as a whole by ``spread``: scores, dialogues and seeds. The truth is 0."""
    groups = np.repeat(np.arange(80), rng.integers(2, 5, size=80))
    dialogue = rng.normal(size=80)[groups]
    values = [dialogue + rng.normal(scale=spread) + rng.normal(size=len(groups)) for _ in range(3)]
    return np.concatenate(values), np.tile(groups, 3), np.repeat([1, 2, 3], len(groups))


def test_interval_covers_as_often_as_it_says_over_seeds():
    rng = np.random.default_rng(6)
    bounds = [bootstrap_interval(*runs(rng, 0.4), draws=400, seed=trial)[1:] for trial in range(1500)]
    assert 0.93 <= np.mean([low <= 0 <= high for low, high in bounds]) <= 0.97  # without the seeds 0.61


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.4])
def test_intervals_of_a_study_cover_as_often_as_they_say(spread):
    """Eight gains, whose spread over seeds is taken from all of them."""
    rng = np.random.default_rng(7)
    studies = [mean_intervals([runs(rng, spread) for _ in range(8)], draws=400, seed=trial) for trial in range(200)]
    assert 0.93 <= np.mean([low <= 0 <= high for study in studies for _, low, high, _ in study]) <= 0.97


def test_spread_over_seeds_is_pooled_by_hand():
    # The means of the first are 0, 1 and 2 (variance 1, two degrees of freedom), of the second 0 and 4 (8, one); the third has one seed.
    first = (np.repeat([0.0, 1.0, 2.0], 2) + np.tile([-1, 1], 3), np.repeat([1, 2, 3], 2))
    second, third = (np.array([0.0, 4.0]), np.array([1, 2])), (np.array([7.0, 9.0]), np.array([1, 1]))
    for quantities, variance, freedom in (([first], 1, 2), ([first, second, third], (2 * 1 + 8) / 3, 3), ([third], 0, 0)):
        deviation, found = seed_spread(quantities)
        assert deviation[0] == pytest.approx(variance**0.5) and found == freedom
    np.testing.assert_allclose(seed_spread([(np.stack([first[0], 2 * first[0]], axis=1), first[1])])[0], [1, 2])


def test_a_gain_is_as_sure_as_its_likes_are_steady():
    values, groups, seeds = np.repeat([0.0, 1.0, 2.0], 5), np.tile(np.arange(5), 3), np.repeat([1, 2, 3], 5)
    steady = (np.ones(15), groups, seeds)
    alone, together = mean_intervals([(values, groups, seeds)])[0], mean_intervals([(values, groups, seeds), *[steady] * 7])
    assert alone[:3] == pytest.approx(bootstrap_interval(values, groups, seeds)) and alone[3] > 0.1
    assert together[0][2] - together[0][1] < 0.5 * (alone[2] - alone[1])
    assert together[1][0] == 1 and together[1][2] - together[1][1] == pytest.approx(together[0][2] - together[0][1])


def test_seeds_widen_the_interval_by_students_t():
    # No dialogue differs from another; the runs' means 0, 1 and 2 have the standard error 1 / sqrt(3), and t with two degrees of
    # freedom is below 1.886 in 90 of 100 cases.
    values, seeds = np.repeat([0.0, 1.0, 2.0], 5), np.repeat([1, 2, 3], 5)
    mean, low, high = bootstrap_interval(values, np.tile(np.arange(5), 3), seeds, draws=40_000, level=0.8)
    assert mean == 1 and (low + high) / 2 == pytest.approx(1, rel=0.02)
    assert high - low == pytest.approx(2 * 1.8856 / np.sqrt(3), rel=0.03)


def test_one_seed_says_nothing_of_others():
    values, groups = np.random.default_rng(0).random(50), np.arange(50) // 3
    assert bootstrap_interval(values, groups, np.ones(50)) == bootstrap_interval(values, groups)


def test_seeds_with_the_same_scores_add_nothing():
    values, groups = np.random.default_rng(0).random(50), np.arange(50) // 3
    twice = bootstrap_interval(np.tile(values, 2), np.tile(groups, 2), np.repeat([1, 2], 50))
    assert twice == pytest.approx(bootstrap_interval(values, groups), rel=1e-12)


def test_seeds_without_the_same_samples_raise():
    with pytest.raises(ValueError, match="the seeds have 2, 1 values"):
        bootstrap_interval([1.0, 0.0, 1.0], ["a", "b", "a"], [1, 1, 2])


def test_seeds_are_told_apart_by_name_not_by_place():
    rng = np.random.default_rng(2)
    values, groups, seeds = rng.random(60), np.tile(np.arange(20), 3), np.repeat([1, 2, 3], 20)
    order = rng.permutation(60)
    assert bootstrap_interval(values[order], groups[order], seeds[order]) == pytest.approx(bootstrap_interval(values, groups, seeds), rel=1e-9)


def test_interval_holds_the_middle_of_the_draws():
    assert list(interval(np.arange(101.0))) == pytest.approx([2.5, 97.5])
    assert list(interval(np.arange(101.0), level=0.5)) == pytest.approx([25, 75])


# --- p-values


def test_p_value_counts_the_draws_on_the_rarer_side_of_zero():
    draws = np.array([-1, 0, 0, 2, 3, 4, 5, 6, 7, 8.0])  # three at or below zero, nine at or above
    assert p_value(draws) == pytest.approx(2 * (3 + 1) / 11)
    assert p_value(-draws) == p_value(draws)


def test_p_value_is_never_0_nor_above_1_and_nan_where_nothing_is_known():
    assert p_value(np.ones(99)) == p_value(-np.ones(99)) == pytest.approx(0.02)
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.array([-1.0, 1.0])) == 1
    assert np.isnan(p_value(bootstrap([0.0, 1.0], ["a", "a"])[1]))


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


def test_interval_is_deterministic_and_depends_on_the_seed():
    values, groups = np.random.default_rng(0).random(50), np.arange(50)
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, groups)
    assert bootstrap_interval(values, groups) != bootstrap_interval(values, groups, seed=2)


def test_columns_are_resampled_alike():
    values, groups = np.random.default_rng(0).random((50, 2)), np.arange(50) // 3
    together = np.array(bootstrap_interval(values, groups))
    apart = np.array([bootstrap_interval(column, groups) for column in values.T]).T
    np.testing.assert_allclose(together, apart, rtol=1e-12)


def test_one_group_has_no_interval():
    mean, low, high = bootstrap_interval([0.25, 0.75], ["a", "a"])
    assert mean == 0.5
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("values, groups", [([], []), ([1.0], ["a", "b"]), ([1.0, np.nan], ["a", "b"])])
def test_unusable_values_raise(values, groups):
    with pytest.raises(ValueError):
        bootstrap_interval(values, groups)


def scores_of(system, f1, seed=1, task="elicit"):
    rows = {"system": system, "seed": seed, "task": task, "sample_id": [f"s{i}" for i in range(len(f1))]}
    return pd.DataFrame(rows | {"sid": [f"d{i // 2}" for i in range(len(f1))], "F1": f1})


def test_gain_of_a_system_over_its_equal_is_zero():
    values = np.random.default_rng(0).random(20)
    scores = pd.concat([scores_of("bcrs", values), scores_of("allm-bcrs", values)])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.0, 0.0, 0.0, 1.0)


def test_constant_gain_has_no_width():
    values = np.arange(20) / 64
    scores = pd.concat([scores_of("bcrs", values), scores_of("allm-bcrs", values + 0.25).sample(frac=1, random_state=0)])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.25, 0.25, 0.25, SURE)
    assert paired_gain(scores, "bcrs", "allm-bcrs", "F1") == (-0.25, -0.25, -0.25, SURE)


def test_gain_pairs_seed_with_seed():
    better = np.arange(20) / 64
    scores = pd.concat(
        [scores_of("bcrs", better, 1), scores_of("bcrs", better + 0.5, 2)]
        + [scores_of("allm-bcrs", better + 0.125, 1), scores_of("allm-bcrs", better + 0.625, 2)]
    )
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.125, 0.125, 0.125, SURE)


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


def test_gain_is_resampled_by_dialogue():
    # Each dialogue holds one sample that wins and one that loses as much: whichever are drawn, the gain is 0.
    scores = pd.concat([scores_of("bcrs", np.full(20, 0.5)), scores_of("allm-bcrs", np.tile([0.25, 0.75], 10))])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.0, 0.0, 0.0, 1.0)


def test_gain_has_the_p_value_of_its_draws():
    rng = np.random.default_rng(1)
    base = rng.random(40)
    scores = pd.concat([scores_of("bcrs", base), scores_of("allm-bcrs", base + rng.normal(0.1, 0.3, size=40))])
    pairs = paired(scores, "allm-bcrs", "bcrs", "F1")
    mean, draws = bootstrap(pairs["ours"] - pairs["theirs"], pairs["sid"])
    gain, low, high, p = paired_gain(scores, "allm-bcrs", "bcrs", "F1")
    assert gain == pytest.approx(mean[0]) and p == p_value(draws[:, 0]) and SURE < p < 1
    assert paired_gain(scores, "bcrs", "allm-bcrs", "F1")[3] == pytest.approx(p, abs=SURE / 2)


def test_gain_of_seeds_that_disagree_is_less_sure_than_of_one():
    base = np.zeros(30)
    scores = [pd.concat([scores_of("bcrs", base, seed), scores_of("allm-bcrs", base + gain, seed)]) for seed, gain in ((1, 0.5), (2, 0.1))]
    assert paired_gain(scores[0], "allm-bcrs", "bcrs", "F1")[3] == SURE
    gain, low, high, p = paired_gain(pd.concat(scores), "allm-bcrs", "bcrs", "F1")
    assert gain == pytest.approx(0.3) and low < 0 < high and p > 0.2


def test_spread_over_seeds_is_that_of_its_own_kind():
    groups, seeds = np.tile(np.arange(5), 3), np.repeat([1, 2, 3], 5)
    wild, steady = (np.repeat([0.0, 1.0, 2.0], 5), groups, seeds), (np.ones(15), groups, seeds)
    apart = mean_intervals([wild, steady], ["crs", "llm"])
    assert apart[0] == mean_intervals([wild])[0] and apart[1][:3] == (1, 1, 1)
    together = mean_intervals([wild, steady])
    assert together[1][2] > 1.5 and together[0][2] < apart[0][2]


def test_several_gains_at_once_are_those_of_one_seed_alone():
    rng = np.random.default_rng(1)
    scores = pd.concat([scores_of(system, rng.random(40)) for system in ("bcrs", "allm", "allm-bcrs", "bcrs-allm")])
    pairs = [("bcrs-allm", "allm"), ("allm-bcrs", "bcrs")]
    assert paired_gains(scores, pairs, "F1") == [paired_gain(scores, *pair, "F1") for pair in pairs]
