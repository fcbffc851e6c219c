"""One system's predictions as another's help (paper sections 3.4 and 3.5)."""

import pandas as pd


def merge_assistant(samples: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """The assistant's help for every sample, in the order of ``samples``.

    Returns:
        Columns ``sample_id, split, task, usable, text, ranking``. A sample without a usable answer gets no help:
        never the gold answer, never a random one.

    Raises:
        ValueError: where predictions are doubled, or belong to other samples.
    """
    if predictions["sample_id"].duplicated().any():
        double = predictions.loc[predictions["sample_id"].duplicated(), "sample_id"].iloc[0]
        raise ValueError(f"the assistant predicted {double} twice; give the predictions of one system and one seed")
    if not predictions["sample_id"].isin(set(samples["sample_id"])).all():
        stray = predictions.loc[~predictions["sample_id"].isin(set(samples["sample_id"])), "sample_id"].iloc[0]
        raise ValueError(f"the assistant predicted {stray}, which is none of the samples; rebuild samples and predictions together")
    merged = samples[["sample_id", "split", "task"]].merge(
        predictions[["sample_id", "text", "ranking", "valid"]], on="sample_id", how="left", validate="one_to_one"
    )
    merged["usable"] = merged["valid"].eq(True)
    merged["text"] = merged["text"].where(merged["usable"], "")
    merged["ranking"] = [ranking if ok else [] for ranking, ok in zip(merged["ranking"], merged["usable"], strict=True)]
    return merged[["sample_id", "split", "task", "usable", "text", "ranking"]]


def coverage(helped: pd.DataFrame) -> pd.DataFrame:
    """Per task and split: samples, how many of them got usable help, and the share."""
    table = helped.groupby(["task", "split"], sort=False)["usable"].agg(samples="size", usable="sum").reset_index()
    table["share"] = table["usable"] / table["samples"]
    return table
