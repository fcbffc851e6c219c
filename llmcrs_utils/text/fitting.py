"""Inputs too long for a model lose their oldest utterances first, and then the beginning of the current turn."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

logger = logging.getLogger(__name__)


def fit(
    render: Callable[..., str],
    droppable: list[int],
    encode: Callable[[list[str]], list[list[int]]],
    limits: list[int],
    letters: list[int] | None = None,
) -> tuple[list[list[int]], pd.DataFrame]:
    """Token ids of every input within its limit, cut as little as needed.

    Args:
        render: ``render(i, k)`` is the text of input ``i`` without its ``k`` oldest utterances; ``render(i, k, s)`` is that without
            the first ``s`` characters of the current turn either.
        droppable: how many utterances input ``i`` may lose; what must stay is never among them.
        encode: texts -> token ids, special tokens included.
        limits: tokens input ``i`` may have.
        letters: characters of the current turn of input ``i``, which it may lose once it has no utterance left to lose; without
            them ``render`` is asked for nothing of that sort.

    Returns:
        ids, and a table with one row per input: ``tokens`` (in the end), ``cut`` (utterances lost), ``shortened`` (characters that
        the current turn lost) and ``over`` (True where even the part that must stay is longer than ``limit``; it is kept whole).
    """
    ids = encode([render(i, 0) for i in range(len(droppable))])

    def least(most: list[int], text: Callable[[int, int], str]) -> list[int]:
        """How much each input that is too long loses so that it fits (all of ``most`` where it never does); ``ids`` follow."""
        lost = [0] * len(ids)
        # Bisect all long inputs together, so that the tokenizer still works in batches.
        search = {i: (1, most[i]) for i in range(len(ids)) if len(ids[i]) > limits[i] and most[i]}
        while search:
            middles = {i: (low + high) // 2 for i, (low, high) in search.items()}
            encoded = encode([text(i, k) for i, k in middles.items()])
            for (i, k), tokens in zip(middles.items(), encoded, strict=True):
                low, high = search[i]
                search[i] = (low, k) if len(tokens) <= limits[i] else (k + 1, high)
                low, high = search[i]
                if low >= high:
                    del search[i]
                    lost[i] = min(low, most[i])
                    ids[i] = tokens if k == lost[i] else encode([text(i, lost[i])])[0]
        return lost

    cut = least(droppable, render)
    shortened = least(letters, lambda i, s: render(i, cut[i], s)) if letters else [0] * len(ids)
    lengths = [len(tokens) for tokens in ids]
    over = [length > limit for length, limit in zip(lengths, limits, strict=True)]
    return ids, pd.DataFrame({"tokens": lengths, "cut": cut, "shortened": shortened, "over": over})


class Piece(NamedTuple):
    """A piece of what must stay of an input.

    Attributes:
        text: what it says.
        goes: 0 where it stays whole; else its turn to lose its beginning, 1 before 2.
    """

    text: str
    goes: int = 0


def shorten(pieces: list[Piece], lost: int = 0) -> str:
    """The pieces' text without the first ``lost`` characters of those that may lose any."""
    texts = [piece.text for piece in pieces]
    for place in sorted((i for i, piece in enumerate(pieces) if piece.goes), key=lambda i: pieces[i].goes):
        texts[place], lost = texts[place][lost:], max(0, lost - len(texts[place]))
    return "".join(texts)


def fit_pieces(
    texts: list[tuple[list[str], list[Piece]]], encode: Callable[[list[str]], list[list[int]]], limit: int, joint: str = ""
) -> tuple[list[list[int]], pd.DataFrame]:
    """``fit`` for inputs of earlier utterances, oldest first, and the pieces of what must stay; ``joint`` stands behind each utterance."""

    def render(index: int, dropped: int, lost: int = 0) -> str:
        earlier, kept = texts[index]
        return "".join(utterance + joint for utterance in earlier[dropped:]) + shorten(kept, lost)

    letters = [sum(len(piece.text) for piece in kept if piece.goes) for _, kept in texts]
    return fit(render, [len(earlier) for earlier, _ in texts], encode, [limit] * len(texts), letters)


def tell_shortened(report: pd.DataFrame, limit: int) -> None:
    """One warning where inputs lost the beginning of their current turn, for systems whose notebook shows no ``summarise_fit``."""
    if (report["shortened"] > 0).any():
        count = int((report["shortened"] > 0).sum())
        logger.warning("%d of %d inputs lost the beginning of their current turn: by itself it is longer than %d tokens", count, len(report), limit)


def summarise_fit(report: pd.DataFrame, tasks: pd.Series) -> pd.DataFrame:
    """Per task: inputs, mean and largest length in tokens, inputs that lost utterances, inputs over the limit.

    Where any lost the beginning of their current turn, a further column counts these.
    """
    table = report.assign(task=list(tasks)).groupby("task", sort=False)
    summary = table.agg(
        inputs=("tokens", "size"),
        mean_tokens=("tokens", "mean"),
        max_tokens=("tokens", "max"),
        inputs_cut=("cut", lambda cut: int((cut > 0).sum())),
        inputs_shortened=("shortened", lambda shortened: int((shortened > 0).sum())),
        inputs_over_limit=("over", "sum"),
    ).round({"mean_tokens": 1})
    return summary if summary["inputs_shortened"].any() else summary.drop(columns="inputs_shortened")
