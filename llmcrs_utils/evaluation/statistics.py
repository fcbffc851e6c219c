"""How sure a mean is: bootstrap over dialogues, whose samples are not independent of each other, and over seeds."""

from functools import lru_cache

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

DRAWS = 2000
PAIRED_BY = ["system", "task", "sid", "seed", "sample_id"]  # what of a score's row ``paired`` reads beside the metric


def seed_spread(quantities: list[tuple]) -> tuple[np.ndarray, int]:
    """How far means lie apart from seed to seed, taken to be alike for quantities of one kind: three seeds of one of them say little.

    Where they are not alike, the intervals of the steadier ones are too wide and those of the others too narrow, so only what is
    trained alike belongs together.

    Args:
        quantities: (values, seeds) of each, values of shape (n,) or (n, m), as for ``bootstrap``.

    Returns:
        Pooled standard deviation of each metric, shape (m,), and its degrees of freedom, 0 where nobody has a second seed.
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
    """Mean of each metric, and what it might have been with other dialogues and other seeds.

    Dialogues are drawn with replacement, whole; a draw's mean is over all values of the drawn dialogues, so that a long
    dialogue weighs as much as its samples, as it does in the mean itself. Of few dialogues a plain bootstrap is too sure: its draws
    lie too close together and have too thin tails. They are spread by what makes Student's t of a normal distribution, which hardly
    matters from 50 dialogues on. Two or three seeds are too few to draw from: what other seeds might have given is Student's t times the
    standard error of the mean over seeds, added to each draw. With one seed nothing is known of others, and the draws
    speak of dialogues only.

    Args:
        values: shape (n,), or (n, m) for m metrics of the same n samples, which then share the draws.
        groups: shape (n,), the dialogue of each sample.
        seeds: shape (n,), the seed of each sample's run, each with the same samples; ``None`` for one seed.
        draws: number of resamples; memory is draws x number of dialogues x 8 bytes.
        spread: what ``seed_spread`` says of this and other quantities alike; ``None``: of this one alone.

    Returns:
        Means, shape (m,), and draws, shape (draws, m); m = 1 for values of shape (n,). The draws are NaN for a single dialogue,
        which says nothing about how dialogues differ.

    Raises:
        ValueError: if there is no value, a value is NaN, the lengths differ, or seeds have different numbers of samples.
    """
    values = np.asarray(values, dtype=float)
    groups = np.asarray(groups)
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"{len(values)} values of {len(groups)} groups: need as many of the one as of the other, at least one")
    if np.isnan(values).any():
        raise ValueError("values hold NaN: choose the samples of the task that the metric belongs to")
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
            raise ValueError(f"the seeds have {', '.join(f'{n:.0f}' for n in runs)} values: need the same samples for each")
        if len(runs) > 1:
            deviation, freedom = seed_spread([(columns, seeds)]) if spread is None else spread
            means = means + noise.standard_t(freedom, size=draws)[:, None] * deviation / np.sqrt(len(runs))
    return mean, means


def bootstrap_interval(values, groups, seeds=None, draws: int = DRAWS, seed: int = 1, level: float = 0.95, spread=None):
    """Mean and the percentile interval of ``bootstrap``, which see.

    Returns:
        ``(mean, low, high)``, floats for values of shape (n,), else arrays of shape (m,).
    """
    mean, means = bootstrap(values, groups, seeds, draws, seed, spread)
    low, high = interval(means, level)
    if np.ndim(values) == 1:
        return float(mean[0]), float(low[0]), float(high[0])
    return mean, low, high


def interval(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Bounds that hold the middle ``level`` of the draws, along the first axis."""
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def p_value(draws: np.ndarray) -> float:
    """Two-sided bootstrap p-value of a difference: twice the smaller share of draws on one side of zero, zero itself included.

    Never 0: of n draws it cannot say less than 2 / (n + 1). NaN where the draws are.
    """
    if np.isnan(draws).any():
        return float("nan")
    fewer = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (fewer + 1) / (len(draws) + 1)))


def holm(p_values) -> np.ndarray:
    """p-values corrected for their number (Holm 1979): below 0.05, the chance of even one false finding among all is below 0.05.

    The smallest of n is multiplied by n, the next by n - 1 and so on, none ending below one before it nor above 1. NaN stays
    and does not count.
    """
    adjusted = np.array(p_values, dtype=float)
    tested = ~np.isnan(adjusted)
    if tested.any():
        adjusted[tested] = multipletests(adjusted[tested], method="holm")[1]
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
    """Means of several quantities, whose spread from seed to seed is taken from all of the same kind together.

    Args:
        quantities: (values, dialogues, seeds) of each, shape (n,), as for ``bootstrap``.
        kinds: the kind of each, say the family of the system it speaks of; ``None``: all are of one kind.

    Returns:
        ``(mean, low, high, p)`` of each: its interval, and the p-value of its being zero, alone (``holm`` corrects several).
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
    """Values of all samples whose mean, and its interval, are those of the chosen ones: the others count for nothing, whoever is drawn.

    A quotient of two drawn sums has no good tails; this is its linear form (the delta method).
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
    """How often each group is in each draw, shape (draws, groups); not to be written to."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(float)
