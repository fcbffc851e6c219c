"""Cuts inputs that are too long for a model: first the oldest utterances go, then the beginning of the current turn."""

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
    shortenable: list[int] | None = None,
    positions: list[int] | None = None,
) -> tuple[list[list[int]], pd.DataFrame]:
    """Token ids of every input within its limit, cut as little as possible.

    Args:
        render: ``render(i, k)`` is the text of input ``i`` without its ``k`` oldest utterances. ``render(i, k, s)`` also lacks
            the first ``s`` characters of the current turn.
        droppable: per input, how many of its utterances may be dropped.
        encode: texts -> token ids, special tokens included.
        limits: per input, how many tokens it may have.
        shortenable: per input, how many characters its current turn may lose after all droppable utterances are gone. Without
            it, current turns stay whole.
        positions: per input, how many tokens the model can read at all, where that is more than its limit. An input that exceeds
            its limit even without its current turn's text keeps as much of the turn as these allow: losing it would not help.

    Returns:
        ids, and a table with one row per input: ``tokens`` (after cutting), ``cut`` (utterances lost), ``shortened`` (characters
        that the current turn lost) and ``over`` (True if the part that must stay exceeds the limit by itself; it is kept whole).
    """
    ids = encode([render(i, 0) for i in range(len(droppable))])
    allowed = list(limits)

    def least(most: list[int], text: Callable[[int, int], str]) -> list[int]:
        """The smallest loss with which each input fits, at most ``most``: 0 if it fits whole, ``most`` if it never fits.

        Updates ``ids``.
        """
        lost = [0] * len(ids)
        # Bisect all long inputs together, so that the tokenizer still works in batches.
        search = {i: (1, most[i]) for i in range(len(ids)) if len(ids[i]) > allowed[i] and most[i]}
        while search:
            middles = {i: (low + high) // 2 for i, (low, high) in search.items()}
            encoded = encode([text(i, k) for i, k in middles.items()])
            for (i, k), tokens in zip(middles.items(), encoded, strict=True):
                low, high = search[i]
                search[i] = (low, k) if len(tokens) <= allowed[i] else (k + 1, high)
                low, high = search[i]
                if low >= high:
                    del search[i]
                    lost[i] = min(low, most[i])
                    ids[i] = tokens if k == lost[i] else encode([text(i, lost[i])])[0]
        return lost

    cut = least(droppable, render)
    long = [i for i in range(len(ids)) if positions and shortenable and len(ids[i]) > limits[i]]
    for i, tokens in zip(long, encode([render(i, cut[i], shortenable[i]) for i in long]) if long else [], strict=True):
        if len(tokens) > limits[i]:
            allowed[i] = max(limits[i], positions[i])
    shortened = least(shortenable, lambda i, s: render(i, cut[i], s)) if shortenable else [0] * len(ids)
    lengths = [len(tokens) for tokens in ids]
    over = [length > limit for length, limit in zip(lengths, limits, strict=True)]
    return ids, pd.DataFrame({"tokens": lengths, "cut": cut, "shortened": shortened, "over": over})


class Piece(NamedTuple):
    """A piece of the part of an input that must stay.

    Attributes:
        text: its text.
        order: 0 for a piece that stays whole. Other pieces lose their beginning in this order, 1 before 2.
    """

    text: str
    order: int = 0


def shorten(pieces: list[Piece], lost: int = 0) -> str:
    """The text of the pieces without the first ``lost`` characters of the pieces that may be shortened."""
    texts = [piece.text for piece in pieces]
    for place in sorted((i for i, piece in enumerate(pieces) if piece.order), key=lambda i: pieces[i].order):
        texts[place], lost = texts[place][lost:], max(0, lost - len(texts[place]))
    return "".join(texts)


def fit_pieces(
    texts: list[tuple[list[str], list[Piece]]],
    encode: Callable[[list[str]], list[list[int]]],
    limit: int,
    joint: str = "",
    positions: int | None = None,
) -> tuple[list[list[int]], pd.DataFrame]:
    """``fit`` for inputs that consist of earlier utterances and pieces.

    Args:
        texts: per input, its earlier utterances, oldest first, and the pieces of the part that must stay.
        encode: texts -> token ids, special tokens included.
        limit: how many tokens an input may have.
        joint: text after each earlier utterance.
        positions: how many tokens the model can read at all, where that is more than ``limit`` (see ``fit``).
    """

    def render(index: int, dropped: int, lost: int = 0) -> str:
        earlier, kept = texts[index]
        return "".join(utterance + joint for utterance in earlier[dropped:]) + shorten(kept, lost)

    shortenable = [sum(len(piece.text) for piece in kept if piece.order) for _, kept in texts]
    can_read = None if positions is None else [positions] * len(texts)
    return fit(render, [len(earlier) for earlier, _ in texts], encode, [limit] * len(texts), shortenable, can_read)


def warn_of_shortened(report: pd.DataFrame, limit: int) -> None:
    """Log one warning if inputs lost the beginning of their current turn, where no notebook shows ``summarise_fit``."""
    if (report["shortened"] > 0).any():
        count = int((report["shortened"] > 0).sum())
        logger.warning("%d of %d inputs lost the beginning of their current turn: by itself it is longer than %d tokens", count, len(report), limit)


def summarise_fit(report: pd.DataFrame, tasks: pd.Series) -> pd.DataFrame:
    """One row per task: inputs, mean and largest length in tokens, inputs that lost utterances, inputs over the limit.

    If any input lost the beginning of its current turn, the column ``inputs_shortened`` counts such inputs.
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
