"""What a model wrote or scored, as a row of the predictions table."""

import re

from llmcrs_utils.tasks.prompts import Prompts, parse_needs

# Full-width signs that a tokeniser with NFKC (ChatGLM's) writes half-width. Chinese text means the full-width ones, save
# between two ASCII letters or digits (1,000 or 3:1) and in the service desk's emoji codes (/:065).
WIDE = str.maketrans(":;,!?()", "：；，！？（）")
NARROW_SIGN = re.compile(r"(?<![A-Za-z0-9/])[:;,!?()]|(?<!/)[:;,!?()](?![A-Za-z0-9])")


def restore_width(task: str, raw: str, prompts: Prompts) -> str:
    """What a model with such a tokeniser wrote, its signs full-width again in a language that writes them so.

    In a set every semicolon parts members, and the first colon of a member its attribute from its value.
    """
    if prompts.space:
        return raw
    if task in ("understand", "elicit"):
        raw = "；".join(member.replace(":", "：", 1) if "：" not in member else member for member in re.split("[;；]", raw))
    return NARROW_SIGN.sub(lambda match: match.group().translate(WIDE), raw)


def loses_width(tokenizer) -> bool:
    """Whether the tokeniser writes full-width signs half-width."""
    return "：" not in tokenizer.decode(tokenizer("颜色：黑", add_special_tokens=False)["input_ids"])


def text_answer(task: str, raw: str, prompts: Prompts, narrowed: bool = False) -> dict:
    """A generated text: usable where it names something (understand, elicit) or says something (respond).

    ``narrowed`` says that the model's tokeniser ``loses_width``; ``raw`` stays as the model wrote it.
    """
    text = restore_width(task, raw, prompts) if narrowed else raw
    text = "".join(text.split()) if not prompts.space else " ".join(text.split())
    valid = bool(text) if task == "respond" else bool(parse_needs(text, prompts))
    return {"text": text, "ranking": [], "scores": [], "raw": raw, "valid": valid}


def ranked_answer(candidates: list[str], order: list[int], scores: list[float], raw: str) -> dict:
    """A ranking of the candidates: ``order`` holds their positions, best first, ``scores`` belong to it."""
    ranking = [candidates[position] for position in order]
    return {"text": ranking[0], "ranking": ranking, "scores": scores, "raw": raw, "valid": True}
