"""One test question followed through the study: what was said, what each system reads, the helper's answer in its place, all answers."""

import html
import re
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.complementarity import JUDGED_BY, RIGHT_FROM, by_task, judged
from llmcrs_utils.evaluation.metrics import usable_text
from llmcrs_utils.evaluation.tables import rows_of
from llmcrs_utils.systems.registry import ORACLE, System, system_of
from llmcrs_utils.tasks.collaboration import merge_assistant
from llmcrs_utils.text.instructions import instruction_row, render_input
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.segments import crs_segments
from llmcrs_utils.text.shielding import Special

SPEAKERS = ("[user]", "[system]")
_BLOCK = '<div style="flex:1 1 320px;min-width:0"><b>{title}</b><pre style="white-space:pre-wrap;background:#f6f7f9;padding:8px;border-radius:6px">{text}</pre></div>'


class ShownTurn(NamedTuple):
    """One turn as a reader sees it: who speaks (``user`` or ``desk``), the words, and what was noted of it or done in it."""

    by: str
    said: str
    notes: list[str]


def turns_of(sample: pd.Series, english: dict[str, str]) -> list[ShownTurn]:
    """The turns up to a question, the current one last.

    Args:
        sample: with ``context`` (turns of segments such as ``[user]words`` or ``[elicit]attributes``) and ``current``.
        english: word -> its English name (``world.english.glossary``), which is put beside it in the notes.
    """
    turns = []
    for segments in [*sample["context"], sample["current"]]:
        spoken = [segment for segment in segments if segment.startswith(SPEAKERS)]
        notes = [glossed(segment, english) for segment in segments if segment not in spoken]
        said = " ".join(segment.partition("]")[2].strip() for segment in spoken)
        turns.append(ShownTurn("user" if spoken and spoken[0].startswith("[user]") else "desk", said, notes))
    return turns


def bubbles(sample: pd.Series, english: dict[str, str]) -> str:
    """``turns_of`` a question as HTML: the desk on the left, the shopper on the right."""
    lines = []
    for by, said, noted in turns_of(sample, english):
        side, colour = ("flex-end", "#dcf5d0") if by == "user" else ("flex-start", "#fff")
        notes = "".join(f'<div style="font-size:12px;color:#666">{html.escape(note)}</div>' for note in noted)
        bubble = f'<span style="background:{colour};border:1px solid #e0e0e0;border-radius:10px;padding:4px 10px">{html.escape(said)}</span>'
        lines.append(f'<div style="display:flex;flex-direction:column;align-items:{side};margin:6px 0">{bubble}{notes}</div>')
    return f'<div style="max-width:640px;background:#f7f7f8;border:1px solid #ddd;border-radius:8px;padding:8px 14px">{"".join(lines)}</div>'


def glossed(text: str, english: dict[str, str]) -> str:
    """A list of attributes, of attributes with values, or of a product's facts, each word with its English name.

    For example ``功效 (effect)：不用修护 (not repairing)`` and ``类目是面霜 (product type: cream)``.
    """
    return re.sub(r"[^\[\]；：，]+", lambda part: part[0] + (f" ({name})" if (name := name_of(part[0], english)) and name != part[0] else ""), text)


def name_of(word: str, english: dict[str, str]) -> str:
    """The English name of a word, or of a fact such as ``功能需求是轻便、透气``; empty if it is not known."""
    relation, _, values = word.partition("是")
    names = [english.get(value, "") for value in re.split("[、,]", values)]
    return f"{english[relation]}: {', '.join(names)}" if relation in english and all(names) else english.get(word, "")


def displayed(text: str, task: str, english: dict[str, str], facts: dict[str, str] | None = None) -> str:
    """An answer as a reader sees it: sets with English names, an item by its ``facts`` if they are given, all else as it is."""
    if task == "recommend":
        return glossed((facts or {}).get(text) or text, english)
    return glossed(text, english) if task in ("understand", "elicit") else text


def turns_of_help(scores: pd.DataFrame, pair: System) -> pd.DataFrame:
    """What help does to each question that a collaboration, its base and its assistant answered.

    Args:
        scores: what ``metrics.score`` gives, of one seed.

    Returns:
        Per ``sample_id`` its ``task`` and ``outcome``: ``help corrects``, ``help spoils``, ``right both ways``, ``wrong both ways``, or
        ``nobody is right`` if no system but the ceiling is.

    Raises:
        ValueError: if there are several seeds.
    """
    if scores["seed"].nunique() > 1:
        raise ValueError("scores of several seeds; give those of one")
    parts = []
    for task, found in by_task(scores, JUDGED_BY):
        values = next(judged(values, RIGHT_FROM[task]) for system, values in found if system == pair).set_index("sample_id")
        others = scores[(scores["task"] == task) & (scores["system"] != ORACLE)]
        anybody = others.groupby("sample_id")[JUDGED_BY[task]].max().reindex(values.index) >= RIGHT_FROM[task]
        base, helped = values["base"], values["pair"]
        cases = {"help corrects": helped & ~base, "help spoils": base & ~helped, "right both ways": base & helped, "nobody is right": ~anybody}
        parts.append(pd.DataFrame({"task": task, "outcome": np.select(list(cases.values()), list(cases), "wrong both ways")}, index=values.index))
    return pd.concat(parts)


def read_by(sample: dict, facts: dict[str, str], prompts: Prompts, family: str, help: dict | None) -> str:
    """The text that a CRS or an LLM reads for one question (paper sections 3.2 and 3.3), with ``help`` also the helper's answer.

    Nothing is cut to a model's length. A CRS's help in ``recommend`` is no text: the first item's vector is added.
    """
    if family == "llm":
        row = instruction_row(sample, facts, prompts, help, "letter")
        return f"{row['instruction']}\n{render_input(row['lines'], row['tail'], prompts)}"
    earlier, kept = crs_segments(sample, prompts, help, Special(["[SEP]"]))
    return "".join([*earlier, kept])


def marked(alone: str, helped: str) -> str:
    """``helped`` as HTML, with what ``alone`` does not have highlighted."""
    found = SequenceMatcher(None, alone, helped, autojunk=False).get_opcodes()
    parts = [(html.escape(helped[start:end]), kind == "equal") for kind, _, _, start, end in found if end > start]
    return "".join(text if same else f'<mark style="background:#ffe08a">{text}</mark>' for text, same in parts)


def two_readings(sample: dict, facts: dict[str, str], prompts: Prompts, pair: System, answers: pd.DataFrame) -> str:
    """What the base of ``pair`` reads alone and with help, side by side as HTML.

    Args:
        answers: of the assistant, columns of ``predictions.SCHEMA``, one seed.
    """
    about = pd.DataFrame([{name: sample[name] for name in ("sample_id", "split", "task", "label")}])
    (help,) = merge_assistant(about, answers[answers["sample_id"] == sample["sample_id"]]).to_dict("records")
    alone, helped = (read_by(sample, facts, prompts, pair.family, given) for given in (None, help))
    base, assistant = system_of(pair.base).name, system_of(pair.assistant).name
    blocks = [(f"{base}, alone, reads", html.escape(alone)), (f"helped by {assistant} it reads", marked(alone, helped))]
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(_BLOCK.format(title=html.escape(title), text=text) for title, text in blocks)}</div>'


def answers_to(sample_id: str, predictions: pd.DataFrame, scores: pd.DataFrame, facts: dict[str, str], english: dict[str, str]) -> pd.DataFrame:
    """All answers to one question, of one seed, in the tables' order: ``answer``, its score by the task's metric, ``confidence``.

    A recommended item is shown by its ``facts`` (item -> what the catalogue says of it).
    """
    own, said = scores[scores["sample_id"] == sample_id], predictions[predictions["sample_id"] == sample_id]
    task, about = own["task"].iloc[0], said.assign(text=usable_text(said)).set_index("system")
    value = own.set_index("system")[JUDGED_BY[task]]
    rows = []
    for key, _, name in rows_of(own):
        answer = displayed(about["text"][key], task, english, facts)
        rows.append({"system": name, "answer": answer or "(no usable answer)", JUDGED_BY[task]: value[key], "confidence": about["confidence"][key]})
    return pd.DataFrame(rows).round(3).dropna(axis=1, how="all").set_index("system")


def places(sample: dict, predictions: pd.DataFrame, systems: list[str], facts: dict[str, str], english: dict[str, str]) -> pd.DataFrame:
    """Where each system ranks each candidate of a recommendation, from 1; a row per candidate, ordered by the last system.

    Args:
        sample: with ``sample_id, candidates, label``.
        predictions: answers of one seed; ``ranking`` holds items, the best first.
        systems: keys; each has ranked the candidates.
        facts: item -> what the catalogue says of it.

    Returns:
        Indexed by the product's facts; a column per system, and ``right``, which marks the product that the desk recommended.
    """
    ranked = predictions[predictions["sample_id"] == sample["sample_id"]].set_index("system")["ranking"]
    table = pd.DataFrame({system_of(key).name: pd.Series(range(1, len(ranked[key]) + 1), index=list(ranked[key])) for key in systems})
    table = table.loc[list(sample["candidates"])].sort_values(table.columns[-1])
    table["right"] = ["✓" if item == sample["label"] else "" for item in table.index]
    return table.set_axis([glossed(facts.get(item) or item, english) for item in table.index]).rename_axis("product")
