"""A page without a server on which every test question and every system's answer can be looked up."""

import json
from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.complementarity import JUDGED_BY, RIGHT_FROM
from llmcrs_utils.evaluation.tables import rows_of
from llmcrs_utils.systems.registry import CATEGORIES, SYSTEMS, TASKS

PAGE = Path(__file__).with_suffix(".html")


def explorer(dialogues: pd.DataFrame, predictions: pd.DataFrame, scores: pd.DataFrame, items: dict[str, str], english: dict[str, str], note: str) -> str:
    """The page as HTML, with all that it shows in it.

    Args:
        dialogues: of each question ``sample_id, context`` (turns of lines), ``current`` (lines) and ``label``.
        predictions: answers of one seed to these questions, columns of ``predictions.SCHEMA``.
        scores: what ``metrics.score`` gives for these answers.
        items: item -> what the catalogue says of it, for items that are answers.
        english: attribute -> its English name, shown beside it.
        note: said at the top: which corpus, which seed.

    Raises:
        ValueError: if two answers of one system to one question are given.
    """
    if predictions.duplicated(["system", "sample_id"]).any():
        raise ValueError("two answers of one system to one question; give one seed")
    shown = pd.concat([scores.loc[scores["task"] == task, ["system", "sample_id", metric]].set_axis(["system", "sample_id", "score"], axis=1) for task, metric in JUDGED_BY.items()])
    answered = predictions[["system", "sample_id", "text"]].merge(shown, on=["system", "sample_id"])
    answers: dict[str, dict] = {}
    for system, sample_id, text, score in answered.itertuples(index=False, name=None):
        answers.setdefault(sample_id, {})[system] = [text or "", round(score, 3)]
    about = scores.drop_duplicates("sample_id").set_index("sample_id")[["task", "domain"]]
    samples = [
        {
            "id": one.sample_id, "task": about["task"][one.sample_id], "category": about["domain"][one.sample_id], "gold": one.label,
            "turns": [[str(line) for line in turn] for turn in (*one.context, one.current)], "answers": answers[one.sample_id],
        }
        for one in dialogues.itertuples()
    ]  # fmt: skip
    given = {
        "note": note, "tasks": TASKS, "categories": {name: CATEGORIES.get(name, name) for name in dict.fromkeys(about["domain"])},
        "metrics": JUDGED_BY, "right_from": RIGHT_FROM, "systems": [about_system(*row) for row in rows_of(scores)],
        "items": items, "english": english, "samples": samples,
    }  # fmt: skip
    # "<" ends no script element in this form.
    return PAGE.read_text(encoding="utf-8").replace("DATA", json.dumps(given, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"), 1)


def about_system(key: str, group: str, name: str) -> dict[str, str | None]:
    """What the page says of one row of the tables."""
    system = SYSTEMS.get(key)
    pair = {"family": system.family, "base": system.base, "assistant": system.assistant} if system and system.base else {"base": None}
    return {"key": key, "name": name, "group": group} | pair
