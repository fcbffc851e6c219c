"""A page without a server on which every test question and every system's answer can be looked up."""

import json
from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.complementarity import JUDGED_BY, RIGHT_FROM
from llmcrs_utils.evaluation.metrics import usable_text
from llmcrs_utils.evaluation.one_dialogue import displayed, glossed, turns_of
from llmcrs_utils.evaluation.tables import rows_of
from llmcrs_utils.systems.registry import CATEGORIES, SYSTEMS, TASKS

PAGE = Path(__file__).with_suffix(".html")


def explorer(dialogues: pd.DataFrame, predictions: pd.DataFrame, scores: pd.DataFrame, items: dict[str, str], english: dict[str, str], note: str) -> str:
    """The page as HTML, with all that it shows in it.

    Args:
        dialogues: the questions, with ``sample_id, task, domain, context, current, label`` (``tasks.samples``).
        predictions: answers of one seed to these questions, columns of ``predictions.SCHEMA``.
        scores: what ``metrics.score`` gives for these answers.
        items: item -> what the catalogue says of it, for items that are answers.
        english: word -> its English name (``world.english.glossary``), shown beside it.
        note: said at the top: which corpus, which seed.

    Raises:
        ValueError: if two answers of one system to one question are given, or if a question has no answer.
    """
    if predictions.duplicated(["system", "sample_id"]).any():
        raise ValueError("two answers of one system to one question; give one seed")
    valued = pd.concat(part.assign(score=part[JUDGED_BY[task]])[["system", "sample_id", "score"]] for task, part in scores.groupby("task"))
    answered = predictions.assign(text=usable_text(predictions))[["system", "sample_id", "text"]].merge(valued, on=["system", "sample_id"])
    task_of = dialogues.set_index("sample_id")["task"]
    answers: dict[str, dict] = {sample_id: {} for sample_id in task_of.index}
    for system, sample_id, text, value in answered.itertuples(index=False, name=None):
        answers[sample_id][system] = [displayed(text, task_of[sample_id], english), round(value, 3)]
    lacking = next((sample_id for sample_id, own in answers.items() if not own), None)
    if lacking:
        raise ValueError(f"{lacking}: no answer; give the predictions and scores of the same questions")
    samples = [
        {
            "id": one["sample_id"], "task": one["task"], "category": one["domain"], "gold": displayed(one["label"], one["task"], english),
            "turns": [turn._asdict() for turn in turns_of(one, english)], "answers": answers[one["sample_id"]],
        }
        for one in dialogues.to_dict("records")
    ]  # fmt: skip
    given = {
        "note": note, "tasks": TASKS, "categories": {name: CATEGORIES.get(name, name) for name in dict.fromkeys(dialogues["domain"])},
        "metrics": JUDGED_BY, "right_from": RIGHT_FROM, "systems": [about_system(*row) for row in rows_of(scores)],
        "items": {item: glossed(facts, english) for item, facts in items.items()}, "samples": samples,
    }  # fmt: skip
    # "<" ends no script element in this form.
    data = json.dumps(given, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return PAGE.read_text(encoding="utf-8").replace("DATA", data, 1)


def about_system(key: str, group: str, name: str) -> dict[str, str | None]:
    """What the page says of one row of the tables."""
    system = SYSTEMS.get(key)
    pair = {"family": system.family, "base": system.base, "assistant": system.assistant} if system and system.base else {"base": None}
    return {"key": key, "name": name, "group": group} | pair
