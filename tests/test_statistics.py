"""Bootstrap intervals: known cases, coverage, pairing."""

import numpy as np
import pandas as pd
import pytest

from llmcrs_utils.evaluation.statistics import bootstrap_interval, paired_gain


def test_interval_of_equal_groups_is_a_point():
    mean, low, high = bootstrap_interval([0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"])
    assert (mean, low, high) == (0.5, 0.5, 0.5)


def test_interval_of_two_groups_is_known():
    # A draw holds a twice (1/4), b twice (1/4) or both (1/2); a has three samples, so both give 3/4.
    mean, low, high = bootstrap_interval([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert (mean, low, high) == (0.75, 0.0, 1.0)
    assert bootstrap_interval([1, 1, 1, 0], ["a", "a", "a", "b"], level=0.4)[1:] == (0.75, 0.75)


def test_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    groups = rng.integers(40, size=300)
    values = rng.random(300) + groups / 40
    drawn = [np.concatenate([values[groups == g] for g in rng.integers(40, size=40)]).mean() for _ in range(4000)]
    mean, low, high = bootstrap_interval(values, groups, draws=4000)
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert (low, high) == tuple(pytest.approx(bound, rel=0.02) for bound in np.quantile(drawn, [0.025, 0.975]))


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(60), 3)
    covered = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=60), 3) + rng.normal(size=180)
        _, low, high = bootstrap_interval(values, groups, draws=400, seed=trial)
        covered += low <= 0 <= high
    assert 180 <= covered <= 198  # of 200; 190 expected, and single samples instead of groups would give about 160


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
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.0, 0.0, 0.0)


def test_constant_gain_has_no_width():
    values = np.arange(20) / 64
    scores = pd.concat([scores_of("bcrs", values), scores_of("allm-bcrs", values + 0.25).sample(frac=1, random_state=0)])
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.25, 0.25, 0.25)
    assert paired_gain(scores, "bcrs", "allm-bcrs", "F1") == (-0.25, -0.25, -0.25)


def test_gain_pairs_seed_with_seed():
    better = np.arange(20) / 64
    scores = pd.concat(
        [scores_of("bcrs", better, 1), scores_of("bcrs", better + 0.5, 2)]
        + [scores_of("allm-bcrs", better + 0.125, 1), scores_of("allm-bcrs", better + 0.625, 2)]
    )
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.125, 0.125, 0.125)


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
    assert paired_gain(scores, "allm-bcrs", "bcrs", "F1") == (0.0, 0.0, 0.0)
