"""How certain a mean is: a bootstrap over dialogues, since the samples of a dialogue depend on each other, and over seeds."""

import gc
from functools import lru_cache

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

DRAWS = 2000
PAIRED_BY = ["system", "task", "sid", "seed", "sample_id"]  # the columns of a score that ``paired`` reads beside the metric


def seed_spread(quantities: list[tuple]) -> tuple[np.ndarray, int]:
    """The standard deviation of means from seed to seed, pooled over quantities of one kind.

    Three seeds of one quantity say little, so quantities of one kind are assumed to vary alike. Where they do not, the intervals of
    the steadier ones become too wide and those of the others too narrow. So only systems that are trained in the same way belong
    together.

    Args:
        quantities: (values, seeds) of each, values of shape (n,) or (n, m), as for ``bootstrap``.

    Returns:
        Pooled standard deviation of each metric, shape (m,), and its degrees of freedom, 0 where no quantity has a second seed.
    """
    squares, freedom = 0.0, 0
    for values, seeds in quantities:
        values = np.asarray(values, dtype=float)
        runs, sums = _by_group(values.reshape(len(values), -1), np.asarray(seeds))
        means = sums / runs[:, None]
        squares = squares + ((means - means.mean(axis=0)) ** 2).sum(axis=0)
        freedom += len(runs) - 1
    return np.sqrt(squares / max(freedom, 1)), freedom


def bootstrap(values, groups, seeds=None, draws: int = DRAWS, seed: int = 1, spread=None) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each metric, and draws of what it might have been with other dialogues and other seeds.

    Whole dialogues are drawn with replacement. A draw's mean is over all values of the drawn dialogues, so that a long dialogue
    counts as much as its samples do, as in the mean itself.

    With few dialogues a plain bootstrap is too certain: its draws lie too close together and their tails are too thin. The draws are
    therefore spread by the factor that turns a normal distribution into Student's t. From 50 dialogues on it hardly matters.

    Two or three seeds are too few to draw from. Each draw gets a further term for other seeds: Student's t times the standard error
    of the mean over seeds. With one seed nothing is known of other seeds, and the draws cover dialogues only.

    Args:
        values: shape (n,), or (n, m) for m metrics of the same n samples, which then share the draws.
        groups: shape (n,), the dialogue of each sample.
        seeds: shape (n,), the seed of each sample's run, each with the same samples; ``None`` for one seed.
        draws: number of resamples; memory is draws x number of dialogues x 8 bytes.
        spread: what ``seed_spread`` returns for this quantity and others of its kind; ``None``: computed from this one alone.

    Returns:
        Means, shape (m,), and draws, shape (draws, m); m = 1 for values of shape (n,). The draws are NaN for a single dialogue,
        since one dialogue does not show how dialogues differ.

    Raises:
        ValueError: if there is no value, a value is NaN, the lengths differ, or seeds have different numbers of samples.
    """
    values = np.asarray(values, dtype=float)
    groups = np.asarray(groups)
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"{len(values)} values and {len(groups)} groups: give one group for each value, and at least one value")
    if np.isnan(values).any():
        raise ValueError("values hold NaN: give only the samples of the task that the metric belongs to")
    columns = values.reshape(len(values), -1)
    mean = columns.mean(axis=0)
    counts, sums = _by_group(columns, groups)
    if len(counts) == 1:
        return mean, np.full((draws, len(mean)), np.nan)
    times = _times_drawn(len(counts), draws, seed)
    means = (times @ sums) / (times @ counts)[:, None]
    freedom, noise = len(counts) - 1, np.random.default_rng([seed, 1])
    means = mean + (means - mean) * np.sqrt(len(counts) / noise.chisquare(freedom, size=draws))[:, None]
    if seeds is not None:
        runs, sums = _by_group(columns, np.asarray(seeds))
        if len(set(runs)) > 1:
            raise ValueError(f"the seeds have {', '.join(f'{n:.0f}' for n in runs)} values: give the same samples for each seed")
        if len(runs) > 1:
            deviation, freedom = seed_spread([(columns, seeds)]) if spread is None else spread
            means = means + noise.standard_t(freedom, size=draws)[:, None] * deviation / np.sqrt(len(runs))
    return mean, means


def bootstrap_interval(values, groups, seeds=None, draws: int = DRAWS, seed: int = 1, level: float = 0.95, spread=None):
    """The mean and its percentile interval from the draws of ``bootstrap``; the arguments are the same.

    Returns:
        ``(mean, low, high)``, floats for values of shape (n,), else arrays of shape (m,).
    """
    mean, means = bootstrap(values, groups, seeds, draws, seed, spread)
    low, high = interval(means, level)
    if np.ndim(values) == 1:
        return float(mean[0]), float(low[0]), float(high[0])
    return mean, low, high


def interval(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Bounds that enclose the middle ``level`` of the draws, along the first axis."""
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def p_value(draws: np.ndarray) -> float:
    """Two-sided bootstrap p-value of a difference: twice the smaller share of draws on one side of zero, zero itself included.

    It is never 0: with n draws the smallest value is 2 / (n + 1). It is NaN where the draws are NaN.
    """
    if np.isnan(draws).any():
        return float("nan")
    fewer = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (fewer + 1) / (len(draws) + 1)))


def holm(p_values) -> np.ndarray:
    """p-values corrected for their number (Holm 1979). Among all that end below 0.05, the chance of even one false finding is below 0.05.

    The smallest of n is multiplied by n, the next by n - 1 and so on. None ends below the one before it or above 1. NaN stays NaN
    and does not count.
    """
    adjusted = np.array(p_values, dtype=float)
    tested = ~np.isnan(adjusted)
    if tested.any():
        gc.freeze()  # multipletests collects garbage at each call, which takes 0.1 s if there are many objects to look through
        try:
            adjusted[tested] = multipletests(adjusted[tested], method="holm")[1]
        finally:
            gc.unfreeze()
    return adjusted


def paired(scores: pd.DataFrame, system: str, base: str, metric: str) -> pd.DataFrame:
    """Both systems' scores on the same samples with the same seeds: ``seed, sample_id, sid`` and ``metric`` as ``ours, theirs``.

    Args:
        scores: what ``metrics.score`` returns, of one task or (where the metric belongs to one task) of all.

    Raises:
        ValueError: if either has no scores, or the two were not scored on the same samples with the same seeds, or the
            metric belongs to several tasks in ``scores``.
    """
    key = ["seed", "sample_id"]
    rows = scores.loc[scores["system"].isin([system, base]), [*PAIRED_BY, metric]].dropna(subset=metric)
    if rows["task"].nunique() > 1:
        raise ValueError(f"{metric} is a metric of {', '.join(sorted(rows['task'].unique()))}: choose one task's scores")
    ours = rows.loc[rows["system"] == system, [*key, "sid", metric]].rename(columns={metric: "ours"})
    theirs = rows.loc[rows["system"] == base, [*key, metric]].rename(columns={metric: "theirs"})
    pairs = ours.merge(theirs, on=key, validate="one_to_one")
    if not len(pairs) or not len(pairs) == len(ours) == len(theirs):
        raise ValueError(
            f"{system} and {base} share {len(pairs)} scores of {metric}, of {len(ours)} and {len(theirs)}: "
            "a gain needs the same samples and seeds for both"
        )
    return pairs


def paired_gains(
    scores: pd.DataFrame,
    pairs: list[tuple[str, str]],
    metric: str,
    kinds: list | None = None,
    draws: int = DRAWS,
    seed: int = 1,
    level: float = 0.95,
) -> list[tuple[float, float, float, float]]:
    """Gains of several systems over their bases, ``pairs``, on the same samples and seeds.

    The differences are resampled, so that both systems always meet the same dialogues.

    Args:
        pairs: (system, base) of each; ``kinds``: as for ``mean_intervals``; the rest: as for ``paired``, which also raises.

    Returns:
        As ``mean_intervals``, the gains in units of the metric.
    """
    tables = [paired(scores, system, base, metric) for system, base in pairs]
    quantities = [(table["ours"] - table["theirs"], table["sid"], table["seed"]) for table in tables]
    return mean_intervals(quantities, kinds, draws, seed, level)


def mean_intervals(
    quantities: list[tuple],
    kinds: list | None = None,
    draws: int = DRAWS,
    seed: int = 1,
    level: float = 0.95,
) -> list[tuple[float, float, float, float]]:
    """Means of several quantities. Their spread from seed to seed is pooled over all quantities of the same kind.

    Args:
        quantities: (values, dialogues, seeds) of each, shape (n,), as for ``bootstrap``.
        kinds: the kind of each, for example the family of its system; ``None``: all are of one kind.

    Returns:
        ``(mean, low, high, p)`` of each: its interval, and the p-value of the hypothesis that it is zero, not corrected (see ``holm``).
    """
    kinds = kinds or [None] * len(quantities)
    alike = {kind: [(values, seeds) for (values, _, seeds), of in zip(quantities, kinds) if of == kind] for kind in set(kinds)}
    spread = {kind: seed_spread(members) for kind, members in alike.items()}
    found = []
    for (values, groups, seeds), kind in zip(quantities, kinds):
        mean, means = bootstrap(values, groups, seeds, draws, seed, spread[kind])
        low, high = interval(means[:, 0], level)
        found.append((float(mean[0]), float(low), float(high), p_value(means[:, 0])))
    return found


def influence(values: pd.Series, chosen: pd.Series) -> pd.Series:
    """Values of all samples whose mean, and its interval, are those of the chosen samples; the other samples add nothing.

    A bootstrap of a quotient of two sums has unreliable tails. This is the linear form of the quotient (the delta method).
    """
    mean = values[chosen].mean()
    return mean + (values - mean) * chosen / chosen.mean()


def _by_group(columns: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of rows of each group, shape (g,), and their sums, shape (g, m)."""
    _, member = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(member, weights=column) for column in columns.T], axis=1)
    return np.bincount(member).astype(float), sums


@lru_cache(maxsize=32)
def _times_drawn(groups: int, draws: int, seed: int) -> np.ndarray:
    """How often each group is in each draw, shape (draws, groups). The array is shared: do not write to it."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(float)
