"""Whether a run answers at all. A score does not show that all its answers are the same; counting them does."""

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.metrics import reply_tokens
from llmcrs_utils.evaluation.statistics import holm
from llmcrs_utils.systems.predictions import CATALOGUE
from llmcrs_utils.systems.registry import FLOORS, ORACLE, SYSTEMS, TASKS, System
from llmcrs_utils.text.prompts import prompts_of

MOST = 0.5  # a run whose most frequent answer has this share is collapsed, ...
TIMES = 3  # ... if that is so many times the share of the most frequent right answer
FEWEST = 0.15  # a run with fewer different answers than this share of the different right ones is collapsed
ENOUGH = 20  # different right answers without which nothing is said
DAGGER = "†"  # stands beside every value of a system in a task in which one of its runs has collapsed
GAIN_NOTE = f"{DAGGER} The system, the one it is compared with or its assistant has collapsed in this task, so the gain is not tested nor counted in Holm's correction."


def answer_health(samples: pd.DataFrame, predictions: pd.DataFrame, language: str, split: str = "test") -> pd.DataFrame:
    """How varied the answers of every run are, by task, beside the right answers. Of a ranking the first item is the answer.

    Args:
        samples: at least ``sample_id, split, task, label``.
        predictions: columns of ``predictions.SCHEMA``.
        language: ``zh`` or ``en``; says what a token of an answer is.

    Returns:
        One row per (system, seed, task): ``answers``, ``distinct``, ``most_frequent`` (share of the most frequent answer),
        ``right_distinct`` and ``right_most_frequent`` (the same of the right answers), ``mean_length`` (tokens), ``unusable``
        (share), ``dist_2`` (different pairs of neighbouring tokens in all answers together / all such pairs) and ``collapsed``.
        Length and pairs are NaN for recommend.

        A run is collapsed if its most frequent answer makes up ``MOST`` of all and ``TIMES`` the share of the most frequent right
        one, or if it gives fewer different answers than ``FEWEST`` of the different right ones. Floors and the ceiling never
        are: the same answer is what some of them are for. Nor is a task with fewer than ``ENOUGH`` different right answers.
    """
    prompts = prompts_of(language)
    asked = samples.loc[samples["split"] == split, ["sample_id", "task", "label"]]
    answered = predictions[predictions["split"] == split].merge(asked, on="sample_id")
    first = [items[0] if pd.api.types.is_list_like(items) and len(items) else "" for items in answered["ranking"]]
    ranked = answered["task"] == "recommend"
    answered["answer"] = answered["text"].fillna("").mask(ranked, pd.Series(first, index=answered.index))
    rows = []
    for (system, seed, task), part in answered.groupby(["system", "seed", "task"], sort=False):
        counts, right = part["answer"].value_counts(), part["label"].value_counts()
        row = {
            "system": system, "seed": seed, "task": task, "answers": len(part), "distinct": len(counts), "most_frequent": counts.iloc[0] / len(part),
            "right_distinct": len(right), "right_most_frequent": right.iloc[0] / len(part), "unusable": 1 - part["valid"].mean(),
        }  # fmt: skip
        if task != "recommend":
            tokens = [reply_tokens(text, prompts) for text in part["answer"].to_list()]
            pairs = [pair for found in tokens for pair in zip(found, found[1:])]
            row |= {"mean_length": sum(map(len, tokens)) / len(tokens), "dist_2": len(set(pairs)) / len(pairs) if pairs else 0.0}
        repeats = row["most_frequent"] >= max(MOST, TIMES * row["right_most_frequent"])
        few = row["distinct"] < FEWEST * row["right_distinct"]
        rows.append(row | {"collapsed": (repeats or few) and row["right_distinct"] >= ENOUGH and system not in (*FLOORS, ORACLE)})
    columns = ["system", "seed", "task", "answers", "distinct", "most_frequent", "right_distinct", "right_most_frequent", "mean_length", "unusable"]
    return pd.DataFrame(rows, columns=[*columns, "dist_2", "collapsed"])


def health_by_split(samples: pd.DataFrame, predictions: pd.DataFrame, language: str) -> pd.DataFrame:
    """What ``answer_health`` returns for each split that is answered, in a further column ``split``; ``train`` only if there is no other."""
    answered = [split for split in ("train", "valid", "test") if (predictions["split"] == split).any()]
    shown = answered if answered == ["train"] else [split for split in answered if split != "train"]
    health = pd.concat([answer_health(samples, predictions, language, split).assign(split=split) for split in shown], ignore_index=True)
    about = ["system", "seed", "task", "split"]
    return health[[*about, *health.columns.drop(about)]]


def collapsed_seeds(health: pd.DataFrame | None) -> pd.Series:
    """Number of collapsed runs of each (system, task); none at all of ``None``, where answers are not at hand.

    A ranking of the whole catalogue is made like the one of the candidates, so it counts as collapsed where that one is.
    """
    if health is None:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_tuples([], names=["system", "task"]))
    in_catalogue = health[health["task"] == "recommend"].assign(task=CATALOGUE)
    return pd.concat([health, in_catalogue]).groupby(["system", "task"], sort=False)["collapsed"].sum()


def collapsed_runs(health: pd.DataFrame | None) -> set[tuple[str, str]]:
    """(system, task) of which at least one run has collapsed. No finding may rest on them."""
    counted = collapsed_seeds(health)
    return set(counted.index[counted > 0])


def collapsed_among(systems: Iterable[str], task: str, collapsed: Collection[tuple[str, str]]) -> str:
    """Names of those systems, given by their keys, that have collapsed in a task; ``""`` if none has.

    Args:
        collapsed: what ``collapsed_runs`` returns.
    """
    return ", ".join(_name(key) for key in dict.fromkeys(systems) if (key, task) in collapsed)


def kinds_of(systems: Iterable[System], task: str, collapsed: Collection[tuple[str, str]]) -> list[str]:
    """The family of each system, for ``statistics.mean_intervals``. Where one of pair, base and assistant has collapsed, it is a kind of its own.

    A constant answer scores alike in every run, so it would make the spread of the others look smaller than it is.
    """
    return [kind_of(system, collapsed_behind(system, task, collapsed)) for system in systems]


def kind_of(system: System, fallen: str) -> str:
    """One kind of ``kinds_of``; ``fallen`` names who has collapsed."""
    return f"{system.family}, collapsed" if fallen else system.family


def collapsed_behind(system: System, task: str, collapsed: Collection[tuple[str, str]]) -> str:
    """``collapsed_among`` a system, its base and its assistant."""
    return collapsed_among(filter(None, (system.key, system.base, system.assistant)), task, collapsed)


def holm_of_healthy(p_values: pd.Series, fallen: pd.Series) -> np.ndarray:
    """Holm's correction for the rows in which nobody has collapsed (``fallen`` is empty); NaN in the others."""
    return holm(p_values.where(fallen == ""))


def collapsed_note(health: pd.DataFrame) -> str:
    """One line of Markdown for each system that has collapsed runs: which seeds, in which task (and split), and what they answer."""
    lines, about = [], [name for name in ("system", "task", "split") if name in health]
    runs = health.groupby(about).size()
    for key, part in health[health["collapsed"].astype(bool)].groupby(about, sort=False):
        seeds, (system, *where) = ", ".join(map(str, part["seed"])), key
        fewest, most = part["distinct"].min(), part["distinct"].max()
        lines.append(
            f"* {_name(system)}, {', '.join(where)}, {'seed' if len(part) == 1 else 'seeds'} {seeds} of {runs[key]}: "
            f"{fewest if fewest == most else f'{fewest} to {most}'} different answers to {part['answers'].iloc[0]} samples "
            f"(right: {part['right_distinct'].iloc[0]}), the most frequent up to {part['most_frequent'].max():.0%}"
        )
    return "\n".join(lines) or "No run has collapsed."


def collapse_warning(health: pd.DataFrame) -> str:
    """The last line of a notebook that has trained: a warning with ``collapsed_note`` if a run has collapsed, else that none has."""
    if not health["collapsed"].any():
        return collapsed_note(health)
    return f"WARNING: collapsed, so no finding may rest on these answers\n{collapsed_note(health)}"


def distinct_answers(health: pd.DataFrame) -> pd.DataFrame:
    """A row per system and a column per task, as text: how many different answers its runs give, ``DAGGER`` where one has collapsed.

    The first row counts the different right answers. Systems stand in the order of the tables; the ceiling is left out.
    """
    cells = {"right answers": health.groupby("task")["right_distinct"].max().astype(str).to_dict()}
    keys = list(dict.fromkeys([*FLOORS, *SYSTEMS, *health["system"]]))
    for key in sorted(set(health["system"]) - {ORACLE}, key=keys.index):
        for task, part in health[health["system"] == key].groupby("task"):
            fewest, most = part["distinct"].min(), part["distinct"].max()
            counted = f"{fewest if fewest == most else f'{fewest}–{most}'}{DAGGER if part['collapsed'].any() else ''}"
            cells.setdefault(key, {})[task] = counted
    table = pd.DataFrame.from_dict(cells, orient="index").reindex(columns=[task for task in TASKS if task in set(health["task"])])
    return table.rename(index=_name).fillna("")


def _name(system: str) -> str:
    return SYSTEMS[system].name if system in SYSTEMS else FLOORS.get(system, system)
