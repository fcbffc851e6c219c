"""How certain a mean is: over dialogues, whose samples depend on each other, and over training runs.

Every run of a study answers the same test dialogues, so dialogues and runs are crossed random effects. The variance of a mean has a part
of the dialogues and a part of the runs, both taken from mean squares; Student's t has the degrees of freedom that Satterthwaite's formula
gives their sum. This is how studies with several readers and several cases are analysed (Obuchowski and Rockette 1995; Hillis 2007).
"""

import gc
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from llmcrs_utils.systems.registry import SYSTEMS

FEW_DIALOGUES = 10  # with fewer dialogues nothing is tested
SIGNIFICANT = 0.05
PAIRED_BY = ["system", "task", "sid", "seed", "sample_id"]  # the columns of a score that ``paired`` reads beside the metric
Quantity = tuple  # (values, dialogues, seeds) of equal length; values of shape (n,) or (n, m) for m metrics


class Parts(NamedTuple):
    """A mean and what its variance is made of; arrays of shape (m,), one entry per metric.

    Attributes:
        mean: over all samples and seeds.
        dialogues: the dialogues' part of the variance of the mean.
        between_runs: variance of the runs' means, 0 for one run. Divided by ``runs`` it is the runs' part.
        interaction: the part of what differs between dialogues in one run and not in another, 0 for one run. It is in the runs' part, too.
        number_of_dialogues, runs: how many there are.
    """

    mean: np.ndarray
    dialogues: np.ndarray
    between_runs: np.ndarray
    interaction: np.ndarray
    number_of_dialogues: int
    runs: int


def variance_parts(values, dialogues, seeds=None) -> Parts:
    """Mean squares of dialogues x runs, of each sample's share in the deviation from the mean.

    A long dialogue counts as much as its samples do, as in the mean itself. So the cells hold sums of deviations, not means (the linear
    form of a quotient). What differs between dialogues in one run and not in another (the interaction) is in the mean square of the
    dialogues and in that of the runs. It is taken off the first, so that it counts once.

    Args:
        values: shape (n,), or (n, m) for m metrics of the same n samples.
        dialogues: shape (n,), the dialogue of each sample.
        seeds: shape (n,), the seed of each sample's run; every seed has the same samples. ``None`` for one run.

    Raises:
        ValueError: if there is no value, a value is NaN, the lengths differ, or seeds have different samples.
    """
    values, dialogues = np.asarray(values, dtype=float), np.asarray(dialogues)
    if len(values) == 0 or len(values) != len(dialogues):
        raise ValueError(f"{len(values)} values and {len(dialogues)} dialogues: give one dialogue for each value, and at least one value")
    if np.isnan(values).any():
        raise ValueError("values hold NaN: give only the samples of the task that the metric belongs to")
    columns = values.reshape(len(values), -1)
    mean = columns.mean(axis=0)
    names, dialogue = np.unique(dialogues, return_inverse=True)
    run = np.zeros(len(values), dtype=int) if seeds is None else np.unique(np.asarray(seeds), return_inverse=True)[1]
    shape = (len(names), run.max() + 1)
    cell = dialogue * shape[1] + run
    samples = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    if (samples != samples[:, :1]).any():
        sizes = ", ".join(str(count) for count in samples.sum(axis=0))
        raise ValueError(f"the seeds have {sizes} values, or the values of different dialogues: give the same samples for each seed")
    sums = [np.bincount(cell, weights=column, minlength=samples.size).reshape(shape) for column in (columns - mean).T]
    deviations = np.stack(sums, axis=-1) * (len(names) / samples[:, 0].sum())
    (n, runs), of_dialogue, of_run = shape, deviations.mean(axis=1), deviations.mean(axis=0)
    if n == 1:  # one dialogue does not show how dialogues differ
        return Parts(mean, np.full_like(mean, np.nan), np.zeros_like(mean), np.zeros_like(mean), n, runs)
    square, between_runs, interaction = runs * (of_dialogue**2).sum(axis=0) / (n - 1), np.zeros_like(mean), np.zeros_like(mean)
    if runs > 1:
        between_runs = (of_run**2).sum(axis=0) / (runs - 1)
        interaction = ((deviations - of_dialogue[:, None] - of_run) ** 2).sum(axis=(0, 1)) / ((n - 1) * (runs - 1))
    return Parts(mean, np.maximum(square - interaction, 0) / (n * runs), between_runs, interaction / (n * runs), n, runs)


def independent_freedom(parts: list[Parts], depends_on: list[frozenset]) -> int:
    """Degrees of freedom of a variance between runs that is pooled over quantities: only quantities that share no run count.

    Two collaborations of one base share its runs, and two with one assistant share that one's. What such gains say about the spread from
    run to run is in part the same. Of two bases and two assistants, all crossed, two of the four gains share nothing. If all vary alike, their
    degrees of freedom are a lower bound of what all four are worth, whatever part of the spread is the base's, the assistant's or the pair's own.
    """
    freedom, used = 0, set()
    for part, runs in zip(parts, depends_on):
        if part.runs > 1 and not runs & used:
            freedom += part.runs - 1
            used |= runs
    return freedom


def mean_intervals(
    quantities: list[Quantity],
    kinds: list | None = None,
    depends_on: list | None = None,
    level: float = 0.95,
    carried_by: list[int] | None = None,
) -> list[tuple]:
    """Means of several quantities with intervals over dialogues and runs, and tests of the hypothesis that a mean is zero.

    Three runs of one quantity say little about how runs vary. So quantities of one kind are assumed to vary alike, and their variance
    between runs is pooled. Only systems that are trained in the same way belong together.

    With one run nothing is known of other runs: the interval is over dialogues only and there is no test.

    Args:
        quantities: (values, dialogues, seeds) of each, as for ``variance_parts``.
        kinds: the kind of each, for example the family of its system; ``None``: all are of one kind.
        depends_on: names of the systems whose runs each quantity depends on (``runs_of``); see ``independent_freedom``. ``None``: not
            known, so that quantities of one kind are taken to share their runs.
        carried_by: number of dialogues that say something about each quantity, where that is not all (see ``influence``).

    Returns:
        ``(mean, low, high, p)`` of each: floats for values of shape (n,), else arrays of shape (m,). Interval and p are NaN for a single
        dialogue. p, not corrected (see ``holm``), is NaN for one run and for fewer than ``FEW_DIALOGUES`` dialogues.
    """
    parts = [variance_parts(*quantity) for quantity in quantities]
    if carried_by is not None:
        parts = [_carried(part, count) for part, count in zip(parts, carried_by)]
    kinds = kinds or [None] * len(parts)
    depends_on = [frozenset(runs) for runs in depends_on] if depends_on else [frozenset({"shared"})] * len(parts)
    pooled = {}
    for kind in set(kinds):
        members = [(part, runs) for part, runs, of in zip(parts, depends_on, kinds) if of == kind]
        weights = [part.runs - 1 for part, _ in members]
        if any(weights):
            variance = sum(weight * part.between_runs for weight, (part, _) in zip(weights, members)) / sum(weights)
            pooled[kind] = variance, independent_freedom(*map(list, zip(*members)))
    found = []
    for part, kind, (values, *_) in zip(parts, kinds, quantities):
        mean, low, high, p = _interval(part, *pooled.get(kind, (None, 0)), level)
        several = np.ndim(values) > 1
        found.append((mean, low, high, p) if several else tuple(float(bound[0]) for bound in (mean, low, high, p)))
    return found


def _carried(part: Parts, dialogues: int) -> Parts:
    """``part`` with the number of dialogues that carry it, and variances that count only those."""
    if dialogues < 2:
        return part._replace(dialogues=np.full_like(part.mean, np.nan), number_of_dialogues=dialogues)
    n = part.number_of_dialogues
    scale = (n - 1) / n * dialogues / (dialogues - 1)
    return part._replace(dialogues=part.dialogues * scale, interaction=part.interaction * scale, number_of_dialogues=dialogues)


def mean_interval(values, dialogues, seeds=None, level: float = 0.95) -> tuple:
    """``(mean, low, high)`` of one quantity; see ``mean_intervals``."""
    return mean_intervals([(values, dialogues, seeds)], level=level)[0][:3]


def _interval(part: Parts, between_runs: np.ndarray | None, freedom: int, level: float) -> tuple[np.ndarray, ...]:
    """Mean, bounds and p-value; ``between_runs`` and its ``freedom`` are the pooled ones.

    The means of two or three runs may lie close together by chance. They cannot be expected to differ by less than the interaction says,
    so the runs' part is at least that. Without this floor most findings from two seeds would be false (docs/statistics.md).
    """
    of_runs = np.maximum(between_runs / part.runs, part.interaction) if part.runs > 1 else np.zeros_like(part.mean)
    variance = part.dialogues + of_runs
    squares = part.dialogues**2 / max(part.number_of_dialogues - 1, 1) + of_runs**2 / max(freedom, 1)
    satterthwaite = np.divide(variance**2, squares, out=np.ones_like(variance), where=squares > 0)
    error = np.sqrt(variance)
    half = stats.t.ppf((1 + level) / 2, satterthwaite) * error
    if part.runs == 1 or part.number_of_dialogues < FEW_DIALOGUES:
        p = np.full_like(part.mean, np.nan)
    else:
        ratio = np.divide(part.mean, error, out=np.where(part.mean == 0, 0.0, np.inf), where=error > 0)
        p = 2 * stats.t.sf(np.abs(ratio), satterthwaite)
    return part.mean, part.mean - half, part.mean + half, p


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


def wide_scores(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The scores of every system on the same sample in one row: index ``seed, sample_id, sid``, a column per system, NaN where there is none.

    Args:
        scores: what ``metrics.score`` returns, of one task or (where the metric belongs to one task) of all.

    Raises:
        ValueError: if the metric belongs to several tasks in ``scores``, or a system has two scores for a sample and a seed.
    """
    rows = scores[[*PAIRED_BY, metric]].dropna(subset=metric)
    if rows["task"].nunique() > 1:
        raise ValueError(f"{metric} is a metric of {', '.join(sorted(rows['task'].unique()))}: choose one task's scores")
    wide = rows.pivot(index=["seed", "sample_id", "sid"], columns="system", values=metric)
    return wide.rename_axis(columns=metric)


def on_same_samples(wide: pd.DataFrame, **systems: str) -> pd.DataFrame:
    """Some systems' scores with the seeds and samples that they share: ``seed, sample_id, sid`` and a column for each name.

    Args:
        wide: what ``wide_scores`` returns.
        systems: name of a column -> key of its system.

    Raises:
        ValueError: if one has no scores, or they were not scored on the same samples with the same seeds.
    """
    chosen = wide.reindex(columns=list(systems.values())).set_axis(list(systems), axis=1).dropna(how="all")
    numbers = chosen.notna().sum()
    shared = chosen.dropna()
    if not len(shared) or len(shared) != len(chosen):
        raise ValueError(
            f"{_in_words(systems.values())} share {len(shared)} scores of {wide.columns.name}, of {_in_words(numbers)}: "
            "a gain needs the same samples and seeds for all"
        )
    return shared.reset_index().rename_axis(columns=None)


def _in_words(parts) -> str:
    *before, last = map(str, parts)
    return f"{', '.join(before)} and {last}" if before else last


def paired(scores: pd.DataFrame, system: str, base: str, metric: str) -> pd.DataFrame:
    """Both systems' scores on the same samples with the same seeds: ``seed, sample_id, sid`` and ``metric`` as ``ours, theirs``.

    Raises:
        ValueError: as ``wide_scores`` and ``on_same_samples``.
    """
    return on_same_samples(wide_scores(scores[scores["system"].isin([system, base])], metric), ours=system, theirs=base)


def paired_gains(
    scores: pd.DataFrame, pairs: list[tuple[str, str]], metric: str, kinds: list | None = None, level: float = 0.95
) -> list[tuple[float, float, float, float]]:
    """Gains of several systems over their bases, ``pairs``, on the same samples and seeds.

    Args:
        pairs: (system, base) of each; ``kinds``: as for ``mean_intervals``; the rest: as for ``paired``, which also raises.

    Returns:
        As ``mean_intervals``, the gains in units of the metric.
    """
    if not pairs:
        return []
    wide = wide_scores(scores[scores["system"].isin({key for pair in pairs for key in pair})], metric)
    tables = [on_same_samples(wide, ours=system, theirs=base) for system, base in pairs]
    quantities = [(table["ours"] - table["theirs"], table["sid"], table["seed"]) for table in tables]
    return mean_intervals(quantities, kinds, [runs_of(system) | runs_of(base) for system, base in pairs], level)


def runs_of(key: str) -> frozenset[str]:
    """The systems whose runs a system's answers depend on: itself, its base and its assistant, or those that a control combines.

    What follows a blank is not the key's.
    """
    if ":" in key:
        return frozenset({key}).union(*map(runs_of, key.partition(":")[2].split("+")))
    system = SYSTEMS.get(key.partition(" ")[0])
    return frozenset({key, *(other for other in (system.base, system.assistant) if other)} if system else {key})


def influence(values: pd.Series, chosen: pd.Series) -> pd.Series:
    """Values of all samples whose mean, and its interval, are those of the chosen samples; the other samples add nothing.

    The mean of the chosen is a quotient of two sums. This is its linear form (the delta method). ``mean_intervals`` has to be told how many
    dialogues have a chosen sample (``carried_by``).
    """
    mean = values[chosen].mean()
    return mean + (values - mean) * chosen / chosen.mean()
