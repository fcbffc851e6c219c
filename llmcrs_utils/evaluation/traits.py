"""Traits of each sample that may go with a gain; all are known before any system answers it."""

import pandas as pd

from llmcrs_utils.text.prompts import Prompts, parse_needs

TRAITS = {
    "vocabulary": "different values that shoppers of its category named in training",
    "turns": "turns before it",
    "needs": "needs named so far",
    "behaviour": "actions of the shopper before it",
    "popularity": "times its item was recommended in training",
    "cold": "its item was never recommended in training",
}

OF_CATEGORIES = ("vocabulary",)  # the same for all samples of a category


def sample_traits(samples: pd.DataFrame, prompts: Prompts) -> pd.DataFrame:
    """``sample_id, split, task`` and the ``TRAITS`` of every sample; NaN where a trait belongs to another task.

    Args:
        samples: rows of ``build_samples``, all splits.
    """
    training = samples[samples["split"] == "train"]
    said = training[training["task"] == "understand"]
    named = {}
    for domain, label in zip(said["domain"], said["label"]):
        named.setdefault(domain, set()).update(parse_needs(label, prompts))
    recommended = training.loc[training["task"] == "recommend", "label"].value_counts()
    traits = samples[["sample_id", "split", "task"]].copy()
    traits["vocabulary"] = samples["domain"].map({domain: len(values) for domain, values in named.items()}).fillna(0.0)
    traits["turns"] = samples["context"].map(len).astype(float)
    traits["needs"] = [float(sum(_needs(segments, prompts) for segments in context)) for context in samples["context"]]
    choosing = samples["task"] == "recommend"
    traits["behaviour"] = samples["history"].map(len).astype(float).where(choosing)
    traits["popularity"] = samples["label"].map(recommended).fillna(0.0).where(choosing)
    traits["cold"] = (traits["popularity"] == 0).astype(float).where(choosing)
    return traits


def _needs(segments: list[str], prompts: Prompts) -> int:
    """How many different values a turn's annotation names."""
    said = [segment.removeprefix("[understand]") for segment in segments if segment.startswith("[understand]")]
    return sum(bool(value) for text in said for _, value in set(parse_needs(text, prompts)))
