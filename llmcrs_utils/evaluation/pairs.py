"""Gains between any two systems, also where they were run with different seeds."""

from collections.abc import Iterable

import pandas as pd

from llmcrs_utils.evaluation.statistics import mean_intervals, paired, runs_of
from llmcrs_utils.systems.registry import FLOORS, ORACLE

Pair = tuple[pd.DataFrame, pd.DataFrame]


def with_same_seeds(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Scores of two systems as ``paired`` needs them, with the same seeds, and a note on what was done to get there.

    A seed is only the name of a run, so different seeds are paired in their order. A single run of one system meets every run of
    the other: the interval then speaks of the other's seeds, and of one's own nothing is known (``testable``).

    Args:
        ours: scores of one system, as ``metrics.score`` returns them; ``theirs``: of the other.

    Returns:
        Both with equal seeds, and the note, empty where the seeds were equal.
    """
    mine, others = sorted(ours["seed"].unique()), sorted(theirs["seed"].unique())
    if mine == others:
        return ours, theirs, ""
    if len(mine) == 1 or len(others) == 1:
        runs = max(len(mine), len(others))
        note = f"a single run is compared with each of the other's {runs} runs" if runs > 1 else ""
        return (
            (_repeated(ours, others) if len(mine) == 1 else ours),
            (theirs if len(mine) == 1 else _repeated(theirs, mine)),
            note,
        )
    count = min(len(mine), len(others))
    note = f"seeds {_named(mine[:count])} are paired with seeds {_named(others[:count])}"
    ours, theirs = _in_order(ours, mine[:count]), _in_order(theirs, others[:count])
    return ours, theirs, note


def with_floors_in_every_run(table: pd.DataFrame, seeds: Iterable[int]) -> pd.DataFrame:
    """Rows of several systems, a floor's repeated for each of these seeds: it trains nothing, so each run is compared with the same answers."""
    floors = table["system"].isin(FLOORS)
    return pd.concat([table[~floors], *(table[floors].assign(seed=seed) for seed in seeds)], ignore_index=True)


def testable(ours: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    """Whether both have several runs, floors and ceiling excepted, which would score the same in every run. One run says nothing of others."""
    return all(part["seed"].nunique() > 1 or part["system"].iloc[0] in (*FLOORS, ORACLE) for part in (ours, theirs))


def gains_of_pairs(pairs: list[Pair], metric: str, kinds: list | None = None) -> list[tuple[float, float, float, float]]:
    """Mean gain of the first over the second of each pair, as ``statistics.paired_gains``: ``(gain, low, high, p)``.

    Args:
        pairs: scores of two systems each, of one task, with the same samples and seeds (``with_same_seeds``).
        kinds: as for ``statistics.mean_intervals``.
    """
    named = [pd.concat([ours.assign(system="ours"), theirs.assign(system="theirs")], ignore_index=True) for ours, theirs in pairs]
    tables = [paired(scores, "ours", "theirs", metric) for scores in named]
    quantities = [(table["ours"] - table["theirs"], table["sid"], table["seed"]) for table in tables]
    return mean_intervals(quantities, kinds, [runs_of(ours["system"].iloc[0]) | runs_of(theirs["system"].iloc[0]) for ours, theirs in pairs])


def _in_order(scores: pd.DataFrame, seeds: list) -> pd.DataFrame:
    """The runs with these seeds, which are counted from 0 instead."""
    chosen = scores[scores["seed"].isin(seeds)]
    return chosen.assign(seed=chosen["seed"].map(seeds.index))


def _repeated(scores: pd.DataFrame, seeds: list) -> pd.DataFrame:
    return pd.concat([scores.assign(seed=seed) for seed in seeds], ignore_index=True)


def _named(seeds: list) -> str:
    return ", ".join(map(str, seeds))
