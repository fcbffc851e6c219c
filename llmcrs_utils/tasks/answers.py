"""What a model wrote or scored, as a row of the predictions table."""

from llmcrs_utils.tasks.prompts import Prompts, parse_needs


def text_answer(task: str, raw: str, prompts: Prompts) -> dict:
    """A generated text: usable where it names something (understand, elicit) or says something (respond)."""
    text = "".join(raw.split()) if not prompts.space else " ".join(raw.split())
    valid = bool(text) if task == "respond" else bool(parse_needs(text, prompts))
    return {"text": text, "ranking": [], "scores": [], "raw": raw, "valid": valid}


def ranked_answer(candidates: list[str], order: list[int], scores: list[float], raw: str) -> dict:
    """A ranking of the candidates: ``order`` holds their positions, best first, ``scores`` belong to it."""
    ranking = [candidates[position] for position in order]
    return {"text": ranking[0], "ranking": ranking, "scores": scores, "raw": raw, "valid": True}
