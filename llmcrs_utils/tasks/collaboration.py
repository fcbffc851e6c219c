"""One system's predictions as help for another system (paper sections 3.4 and 3.5)."""

import numpy as np
import pandas as pd

FALLBACKS = ("nothing", "gold")


def cross_fitted(predictions: pd.DataFrame, by_fold: list[pd.DataFrame]) -> pd.DataFrame:
    """An assistant's predictions, where those on training dialogues come from models that were not trained on these dialogues.

    A model answers its own training dialogues better than new ones. A system that is trained with such answers learns to trust them
    too much. With k folds, k models each leave out one part of the training dialogues and answer it (cross-fitting; stacked
    generalisation, Wolpert 1992). The predictions on validation and test dialogues stay those of the whole model.

    Args:
        predictions: of one run of the assistant, all splits.
        by_fold: of each fold's model, on the dialogues it left out.

    Raises:
        ValueError: unless the folds are of the same system and seed, and together answer each of the training samples exactly once.
    """
    trained_on = predictions[predictions["split"] == "train"]
    held_out = pd.concat(by_fold, ignore_index=True)
    runs = pd.concat([predictions, held_out])[["system", "seed"]].drop_duplicates()
    if len(runs) > 1:
        raise ValueError(f"predictions of {', '.join(f'{key} (seed {seed})' for key, seed in runs.to_numpy())}; give those of one run and its folds")
    expected, given = set(trained_on["sample_id"]), set(held_out["sample_id"])
    if held_out["sample_id"].duplicated().any():
        double = held_out.loc[held_out["sample_id"].duplicated(), "sample_id"].iloc[0]
        raise ValueError(f"{double}: answered by two folds; give the predictions of one run's folds, each once")
    if expected != given:
        raise ValueError(
            f"{min(expected ^ given)}: answered by {'no fold' if expected - given else 'a fold, but not by the whole model'}; "
            "give the predictions of all folds of one run, made from the same samples"
        )
    return pd.concat([held_out, predictions[predictions["split"] != "train"]], ignore_index=True)


def withhold(predictions: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """``predictions`` with a random ``share`` of the answers made unusable, for an experiment on the effect of missing help."""
    lost = np.random.default_rng(seed).random(len(predictions)) < share
    return predictions.assign(valid=predictions["valid"] & ~lost)


def merge_assistant(samples: pd.DataFrame, predictions: pd.DataFrame, fallback: str = "nothing") -> pd.DataFrame:
    """The assistant's help for every sample, in the order of ``samples``.

    Args:
        fallback: what a sample without a usable answer gets: ``nothing``, or ``gold`` as in the published code, which replaces
            such a recommendation by the gold item. That gives the answer away; the option is here to measure by how much.

    Returns:
        Columns ``sample_id, split, task, usable, text, ranking``.

    Raises:
        ValueError: if a sample is predicted twice, if predictions belong to other samples, or if ``fallback`` is unknown.
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback {fallback!r} is unknown; known: {', '.join(FALLBACKS)}")
    if predictions["sample_id"].duplicated().any():
        double = predictions.loc[predictions["sample_id"].duplicated(), "sample_id"].iloc[0]
        raise ValueError(f"the assistant predicted {double} twice; give the predictions of one system and one seed")
    if not predictions["sample_id"].isin(set(samples["sample_id"])).all():
        stray = predictions.loc[~predictions["sample_id"].isin(set(samples["sample_id"])), "sample_id"].iloc[0]
        raise ValueError(f"the assistant predicted {stray}, which is none of the samples; rebuild samples and predictions together")
    merged = samples[["sample_id", "split", "task", "label"]].merge(
        predictions[["sample_id", "text", "ranking", "valid"]], on="sample_id", how="left", validate="one_to_one"
    )
    merged["usable"] = merged["valid"].eq(True)
    merged["text"] = merged["text"].where(merged["usable"], "")
    merged["ranking"] = [ranking if ok else [] for ranking, ok in zip(merged["ranking"], merged["usable"], strict=True)]
    if fallback == "gold":
        replaced = ~merged["usable"] & (merged["task"] == "recommend")
        merged["ranking"] = [[label] if gold else own for label, own, gold in zip(merged["label"], merged["ranking"], replaced)]
        merged["text"] = merged["text"].mask(replaced, merged["label"])
        merged["usable"] |= replaced
    return merged[["sample_id", "split", "task", "usable", "text", "ranking"]]


def coverage(helped: pd.DataFrame) -> pd.DataFrame:
    """For each task and split: the number of samples, how many of them have usable help, and the share."""
    table = helped.groupby(["task", "split"], sort=False)["usable"].agg(samples="size", usable="sum").reset_index()
    table["share"] = table["usable"] / table["samples"]
    return table
