"""Inputs too long for a model lose their oldest utterances first."""

from collections.abc import Callable

import pandas as pd


def fit(
    render: Callable[[int, int], str], droppable: list[int], encode: Callable[[list[str]], list[list[int]]], limits: list[int]
) -> tuple[list[list[int]], pd.DataFrame]:
    """Token ids of every input within its limit, cut as little as needed.

    Args:
        render: ``render(i, k)`` is the text of input ``i`` without its ``k`` oldest utterances.
        droppable: how many utterances input ``i`` may lose; what must stay is never among them.
        encode: texts -> token ids, special tokens included.
        limits: tokens input ``i`` may have.

    Returns:
        ids, and a table with one row per input: ``tokens`` (in the end), ``cut`` (utterances lost) and ``over`` (True
        where even the part that must stay is longer than ``limit``; it is kept whole).
    """
    ids = encode([render(i, 0) for i in range(len(droppable))])
    cut = [0] * len(ids)
    # Bisect the smallest cut of all long inputs together, so that the tokeniser still works in batches.
    search = {i: (1, droppable[i]) for i in range(len(ids)) if len(ids[i]) > limits[i] and droppable[i]}
    while search:
        middles = {i: (low + high) // 2 for i, (low, high) in search.items()}
        encoded = encode([render(i, k) for i, k in middles.items()])
        for (i, k), tokens in zip(middles.items(), encoded, strict=True):
            low, high = search[i]
            fits = len(tokens) <= limits[i]
            search[i] = (low, k) if fits else (k + 1, high)
            low, high = search[i]
            if low >= high:
                del search[i]
                cut[i] = min(low, droppable[i])
                ids[i] = tokens if k == cut[i] else encode([render(i, cut[i])])[0]
    lengths = [len(tokens) for tokens in ids]
    report = pd.DataFrame({"tokens": lengths, "cut": cut, "over": [length > limit for length, limit in zip(lengths, limits, strict=True)]})
    return ids, report


def summarise_fit(report: pd.DataFrame, tasks: pd.Series) -> pd.DataFrame:
    """Per task: inputs, mean and largest length in tokens, inputs that lost utterances, inputs over the limit."""
    table = report.assign(task=list(tasks)).groupby("task", sort=False)
    return table.agg(
        inputs=("tokens", "size"),
        mean_tokens=("tokens", "mean"),
        max_tokens=("tokens", "max"),
        inputs_cut=("cut", lambda cut: int((cut > 0).sum())),
        inputs_over_limit=("over", "sum"),
    ).round({"mean_tokens": 1})
