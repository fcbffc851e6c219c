"""How sure a mean is: percentile bootstrap over dialogues, whose samples are not independent of each other."""

import numpy as np
import pandas as pd


def bootstrap_interval(values, groups, draws: int = 2000, seed: int = 1, level: float = 0.95):
    """Mean and percentile bootstrap interval, resampling whole groups with replacement.

    A draw's mean is over all values of the drawn groups, so that a long dialogue weighs as much as its samples, as it does in
    the mean itself. Several seeds of one system are several values in the same group: the interval speaks of other dialogues,
    not of other seeds.

    Args:
        values: shape (n,), or (n, m) for m metrics of the same n samples, which then share the drawn groups.
        groups: shape (n,), the dialogue of each sample.
        draws: number of resamples; memory is draws x number of groups x 8 bytes.
        level: coverage, between 0 and 1.

    Returns:
        ``(mean, low, high)``, floats or arrays of shape (m,). The bounds are NaN for a single group, which says nothing about
        how groups differ.

    Raises:
        ValueError: if there is no value, a value is NaN, or the lengths differ.
    """
    values = np.asarray(values, dtype=float)
    groups = np.asarray(groups)
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"{len(values)} values of {len(groups)} groups: need as many of the one as of the other, at least one")
    if np.isnan(values).any():
        raise ValueError("values hold NaN: choose the samples of the task that the metric belongs to")
    _, member = np.unique(groups, return_inverse=True)
    counts = np.bincount(member).astype(float)
    columns = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(member, weights=column) for column in columns.T], axis=1)
    mean = columns.mean(axis=0)
    if len(counts) == 1:
        low = high = np.full_like(mean, np.nan)
    else:
        equal = np.full(len(counts), 1 / len(counts))
        times = np.random.default_rng(seed).multinomial(len(counts), equal, size=draws).astype(float)
        means = (times @ sums) / (times @ counts)[:, None]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if values.ndim == 1:
        return float(mean[0]), float(low[0]), float(high[0])
    return mean, low, high


def paired_gain(
    scores: pd.DataFrame, system: str, base: str, metric: str, draws: int = 2000, seed: int = 1, level: float = 0.95
) -> tuple[float, float, float]:
    """Gain of ``system`` over ``base`` on the same samples and seeds, with its interval.

    The differences are resampled, so that both systems always meet the same dialogues.

    Args:
        scores: what ``metrics.score`` returns, of one task or (where the metric belongs to one task) of all.

    Returns:
        ``(gain, low, high)`` in units of the metric, as ``bootstrap_interval`` gives them.

    Raises:
        ValueError: if either has no scores, or the two were not scored on the same samples with the same seeds, or the
            metric belongs to several tasks in ``scores``.
    """
    rows = scores[scores[metric].notna() & scores["system"].isin([system, base])]
    if rows["task"].nunique() > 1:
        raise ValueError(f"{metric} is a metric of {', '.join(sorted(rows['task'].unique()))}: choose one task's scores")
    key = ["seed", "sample_id"]
    ours, theirs = (rows.loc[rows["system"] == name, [*key, "sid", metric]] for name in (system, base))
    pairs = ours.merge(theirs.drop(columns="sid"), on=key, suffixes=("", "_base"), validate="one_to_one")
    if not len(pairs) or not len(pairs) == len(ours) == len(theirs):
        raise ValueError(
            f"{system} and {base} share {len(pairs)} scores of {metric}, of {len(ours)} and {len(theirs)}: "
            "a gain needs the same samples and seeds for both"
        )
    return bootstrap_interval(pairs[metric] - pairs[f"{metric}_base"], pairs["sid"], draws, seed, level)
