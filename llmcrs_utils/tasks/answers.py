"""Turn the output of a model, text or scores, into a row of the predictions table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmcrs_utils.systems.predictions import IN_CATALOGUE
from llmcrs_utils.text.prompts import Prompts, parse_needs

if TYPE_CHECKING:
    from torch import Tensor  # only scores need torch

# A tokenizer with NFKC (ChatGLM's) writes these full-width signs half-width. Chinese text has the full-width signs, except
# between two ASCII letters or digits (1,000 or 3:1), in addresses (https://) and in the service desk's emoji codes (/:065).
WIDE = str.maketrans(":;,!?()", "：；，！？（）")
NARROW_SIGN = re.compile(r"(?!://)(?:(?<![A-Za-z0-9/])[:;,!?()]|(?<!/)[:;,!?()](?![A-Za-z0-9]))")
FIRST_COLON = re.compile(r"^([^:]*):(?!//)")


def restore_width(task: str, raw: str, prompts: Prompts) -> str:
    """The text of a model whose tokenizer narrows signs, with full-width signs again in a language that uses them.

    In a set every semicolon separates members, and the first colon of a member separates attribute and value. Some narrowed signs
    cannot be distinguished from half-width ones and stay half-width: dots (``……`` was read as six), ``％``, and brackets between
    letters or digits.
    """
    if prompts.space:
        return raw
    if task in ("understand", "elicit"):
        raw = "；".join(FIRST_COLON.sub(r"\1：", member) if "：" not in member else member for member in re.split("[;；]", raw))
    return NARROW_SIGN.sub(lambda match: match.group().translate(WIDE), raw)


def loses_width(tokenizer) -> bool:
    """Whether the tokenizer writes full-width signs half-width."""
    return "：" not in tokenizer.decode(tokenizer("颜色：黑", add_special_tokens=False)["input_ids"])


def text_answer(task: str, raw: str, prompts: Prompts, narrowed: bool = False, confidence: float | None = None) -> dict:
    """A generated text as an answer. It is valid if it names an attribute (understand, elicit) or is not empty (respond).

    ``narrowed`` means that the model's tokenizer ``loses_width``; ``raw`` stays as the model wrote it. ``confidence``: the mean
    log-probability of the tokens written, if it is known.
    """
    text = restore_width(task, raw, prompts) if narrowed else raw
    text = "".join(text.split()) if not prompts.space else " ".join(text.split())
    valid = bool(text) if task == "respond" else bool(parse_needs(text, prompts))
    return {"text": text, "ranking": [], "scores": [], "raw": raw, "valid": valid, "confidence": confidence, "catalogue": []}


def ranked_answer(candidates: list[str], order: list[int], scores: list[float], raw: str, catalogue: list[str] | None = None) -> dict:
    """A ranking of the candidates: ``order`` holds their positions, best first, ``scores`` belong to it.

    ``catalogue``: the best items of the whole catalogue, from a system that scores all of it.
    """
    ranking = [candidates[position] for position in order]
    return {"text": ranking[0], "ranking": ranking, "scores": scores, "raw": raw, "valid": True, "confidence": None, "catalogue": catalogue or []}


def ranked(scores: Tensor, rows: list[dict], items: dict[str, int]) -> list[dict]:
    """The ranked candidates of every row, and the best ``IN_CATALOGUE`` of all items, both by the same scores.

    Args:
        scores: [batch, n_items], one row per sample.
        rows: the samples; their ``candidates`` are read.
        items: item id -> column of ``scores``, in the order of the columns.
    """
    import torch  # here, so that reading answers does not need torch

    names = list(items)
    candidates = torch.tensor([[items[item] for item in row["candidates"]] for row in rows], device=scores.device)
    best = scores.gather(1, candidates).sort(dim=1, descending=True, stable=True)
    return [
        ranked_answer(row["candidates"], order, values, "", [names[column] for column in columns])
        for row, order, values, columns in zip(
            rows, best.indices.tolist(), best.values.tolist(), best_columns(scores, IN_CATALOGUE).tolist(), strict=True
        )
    ]


def best_columns(scores: Tensor, count: int) -> Tensor:
    """[batch, count]: the columns that a stable sort of each row would put first, found without sorting; all columns if there are fewer."""
    count = min(count, scores.shape[1])
    best = scores.topk(count, dim=1)
    columns = best.indices.sort(dim=1).values
    columns = columns.gather(1, scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices)
    # Where columns tie for the last place, topk takes any of them.
    last = best.values[:, -1:]
    split = (scores == last).sum(dim=1) > (best.values == last).sum(dim=1)
    if split.any():
        columns[split] = scores[split].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return columns
