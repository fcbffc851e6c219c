"""Scores and answers that tests make up: no model, no corpus."""

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.metrics import METRICS
from llmcrs_utils.systems.registry import TASKS

EVERY_METRIC = [metric for task in TASKS for metric in METRICS[task]]


def scores_of(values: dict, task: str = "elicit", dialogues=None, domains=None) -> pd.DataFrame:
    """What ``metrics.score`` returns: every metric of ``task`` has the value that ``values`` gives.

    Args:
        values: system -> a score per sample, or for several seeds (1, 2, ..) a list of such lists.
        dialogues: the dialogue of each sample; by default each has its own.
        domains: the category of each sample.
    """
    parts = []
    for system, by_seed in values.items():
        for seed, row in enumerate(np.atleast_2d(np.asarray(by_seed, dtype=float)), start=1):
            names = [f"{task}-{place:03d}" for place in range(len(row))]
            sids = [f"d{place:03d}" for place in range(len(row))] if dialogues is None else dialogues
            about = {"system": system, "seed": seed, "task": task, "sample_id": names, "sid": sids, "valid": True}
            about["domain"] = "Fridges" if domains is None else domains
            parts.append(pd.DataFrame(about | dict.fromkeys(EVERY_METRIC, np.nan) | dict.fromkeys(METRICS[task], row)))
    return pd.concat(parts, ignore_index=True)


def in_two_runs(values: dict) -> dict:
    """Two runs with the same scores: what differs between runs adds nothing, and the gain can be tested."""
    return {system: [row, row] for system, row in values.items()}


def random_scores(systems, task="elicit", seeds=2, samples=30, start=0) -> pd.DataFrame:
    """Scores from 0 to 1 in steps of 0.1, two samples a dialogue."""
    rng = np.random.default_rng(start)
    values = {system: rng.integers(0, 11, size=(seeds, samples)) / 10 for system in systems}
    return scores_of(values, task, dialogues=[f"d{place // 2:03d}" for place in range(samples)])


def answers_of(system: str, texts: dict, seed: int = 1, split: str = "test", unusable=()) -> pd.DataFrame:
    """Predictions: sample id -> a text, or for ``recommend`` a ranking."""
    rows = [
        {"system": system, "seed": seed, "split": split, "sample_id": name, "valid": name not in unusable, "scores": [], "raw": ""}
        | ({"text": said, "ranking": []} if isinstance(said, str) else {"text": said[0], "ranking": said})
        for name, said in texts.items()
    ]
    return pd.DataFrame(rows)
