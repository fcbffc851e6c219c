"""Whether a run answers at all. A score does not show that all its answers are the same; counting them does."""

import pandas as pd

from llmcrs_utils.evaluation.metrics import reply_tokens
from llmcrs_utils.systems.registry import FLOORS, ORACLE, SYSTEMS
from llmcrs_utils.text.prompts import prompts_of

MOST = 0.5  # a run whose most frequent answer has this share is collapsed, ...
TIMES = 3  # ... if that is so many times the share of the most frequent right answer
FEWEST = 0.15  # a run with fewer different answers than this share of the different right ones is collapsed
ENOUGH = 20  # different right answers without which nothing is said


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
            tokens = [reply_tokens(text, prompts) for text in part["answer"]]
            pairs = [pair for found in tokens for pair in zip(found, found[1:])]
            row |= {"mean_length": sum(map(len, tokens)) / len(tokens), "dist_2": len(set(pairs)) / len(pairs) if pairs else 0.0}
        repeats = row["most_frequent"] >= max(MOST, TIMES * row["right_most_frequent"])
        few = row["distinct"] < FEWEST * row["right_distinct"]
        rows.append(row | {"collapsed": (repeats or few) and row["right_distinct"] >= ENOUGH and system not in (*FLOORS, ORACLE)})
    columns = ["system", "seed", "task", "answers", "distinct", "most_frequent", "right_distinct", "right_most_frequent", "mean_length", "unusable"]
    return pd.DataFrame(rows, columns=[*columns, "dist_2", "collapsed"])


def collapsed_note(health: pd.DataFrame) -> str:
    """One line of Markdown for each system that has collapsed runs: which seeds, in which task, and what they answer."""
    lines = []
    for (system, task), part in health[health["collapsed"]].groupby(["system", "task"], sort=False):
        seeds, runs = ", ".join(map(str, part["seed"])), health[(health["system"] == system) & (health["task"] == task)]
        fewest, most = part["distinct"].min(), part["distinct"].max()
        lines.append(
            f"* {SYSTEMS[system].name if system in SYSTEMS else system}, {task}, {'seed' if len(part) == 1 else 'seeds'} {seeds} of {len(runs)}: "
            f"{fewest if fewest == most else f'{fewest} to {most}'} different answers to {part['answers'].iloc[0]} samples "
            f"(right: {part['right_distinct'].iloc[0]}), the most frequent up to {part['most_frequent'].max():.0%}"
        )
    return "\n".join(lines) or "No run has collapsed."
