"""Task samples -> instruction data for LLMs (paper section 3.2, Tables 5-8), and instruction data <-> plain Alpaca JSON."""

import json
from pathlib import Path

import pandas as pd

from llmcrs_utils.corpus.schema import CorpusError
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.text.prompts import LETTERS, Prompts

ALPACA_KEYS = ["instruction", "input", "output"]
SAMPLE_ID = "sample_id"  # joins the answers of other software to the samples (study.score); tuners ignore unknown keys


def build_instructions(
    samples: pd.DataFrame, facts: dict[str, str], prompts: Prompts, helped: pd.DataFrame | None = None, ranking: str = "letter"
) -> pd.DataFrame:
    """Instruction data, one row per sample, in the order of ``samples``.

    Args:
        samples: as ``build_samples`` makes them.
        facts: item id -> the description that an LLM may read.
        prompts: the language's prompt set.
        helped: a CRS's usable help by ``sample_id`` (``collaboration.merge_assistant``); ``None`` without help.
        ranking: one of ``prompts.RANKINGS``. With ``candidates`` the input describes every candidate, and a CRS's help stands beside
            each description too. With ``likelihood`` the input describes none, and the output is the right candidate's description. A
            CRS's help is its rank in each description.

    Returns:
        Columns ``sample_id, task, ranking, instruction, lines, keep, tail, in_tail, described, output``. ``ranking`` is empty except
        for recommend. ``lines`` are the dialogue's utterances, of which the last ``keep`` may not be cut. ``tail`` is the text after
        them. ``render_input`` joins both to the input. The current turn is the lines that may not be cut, or else the first
        ``in_tail`` characters of the tail. ``described`` are the candidates' descriptions. With ``candidates`` the tail ends with
        them, with ``likelihood`` they are possible outputs, with ``letter`` the list is empty.
    """
    help_of = {} if helped is None else dict(zip(helped["sample_id"], helped.to_dict("records"), strict=True))
    rows = [instruction_row(sample, facts, prompts, help_of.get(sample["sample_id"]), ranking) for sample in samples.to_dict("records")]
    return pd.DataFrame(rows)


def instruction_row(sample: dict, facts: dict[str, str], prompts: Prompts, help: dict | None, ranking: str) -> dict:
    task = sample["task"]
    spoken = [line for turn in sample["context"] for line in spoken_lines(turn, prompts)]
    current = spoken_lines(sample["current"], prompts)
    usable = help is not None and help["usable"]
    ranking = ranking if task == "recommend" else ""
    instruction, output, described = prompts.instruction[task], sample["label"], []
    if ranking:
        gold, heading = sample["candidates"].index(sample["label"]), "" if ranking == "likelihood" else prompts.candidate
        if ranking != "letter":
            described = whole_descriptions(sample["candidates"], facts, prompts, heading, help["ranking"] if usable else [])
        instruction, output = (prompts.description, described[gold]) if ranking == "likelihood" else (instruction, LETTERS[gold])
    tail = {
        "understand": lambda: prompts.current + current[-1],
        "elicit": lambda: "",
        "recommend": lambda: "" if ranking == "likelihood" else recommend_tail(sample, facts, prompts, described, help if usable else None),
        "respond": lambda: respond_tail(sample, facts, prompts),
    }[task]()
    if usable and task != "recommend":
        tail = (tail + "\n" if tail else "") + prompts.help[task] + help["text"]
    return {
        "sample_id": sample["sample_id"],
        "task": task,
        "ranking": ranking,
        "instruction": instruction.format(d=sample.get("told_domain", sample["domain"]), hint=prompts.hint[task] if usable else ""),
        "lines": spoken if task == "understand" else spoken + current,
        "keep": 0 if task == "understand" else len(current),
        "tail": tail,
        "in_tail": len(prompts.current + current[-1]) if task == "understand" else 0,
        "described": described,
        "output": output,
    }


def recommend_tail(sample: dict, facts: dict[str, str], prompts: Prompts, described: list[str], help: dict | None) -> str:
    tail = prompts.candidates + (prompts.items.join(described) or candidate_facts(sample["candidates"], facts, prompts, prompts.candidate))
    if help is None:
        return tail
    letters = [LETTERS[sample["candidates"].index(item)] for item in help["ranking"]]
    return prompts.help["recommend"] + prompts.values.join(letters) + "\n" + tail


def respond_tail(sample: dict, facts: dict[str, str], prompts: Prompts) -> str:
    values: dict[str, list[str]] = {}
    for attribute, value in sample["needs"]:
        values.setdefault(attribute, []).extend([value] if value else [])
    tail = prompts.needs + prompts.items.join(f"{a}{prompts.pair}{prompts.values.join(v)}" for a, v in values.items())
    if sample["asked"]:
        tail += "\n" + prompts.ask + prompts.items.join(sample["asked"])
    if sample["items"]:
        tail += "\n" + prompts.satisfying + candidate_facts(sample["items"], facts, prompts, prompts.satisfied)
    return tail


def candidate_facts(items: list[str], facts: dict[str, str], prompts: Prompts, heading: str) -> str:
    """Descriptions of items, such as ``A的价格区间是高；B的…``. Items without facts are left out."""
    described = [
        heading.format(letter=letter) + facts[item] for letter, item in zip(LETTERS, items, strict=False) if facts.get(item)
    ]
    return prompts.items.join(described)


def whole_descriptions(items: list[str], facts: dict[str, str], prompts: Prompts, heading: str, ranked: list[str]) -> list[str]:
    """A description of every item, also of one without facts, with its rank in ``ranked`` (empty without a CRS's help).

    ``heading`` (``{letter}``) begins each.
    """
    descriptions = []
    for letter, item in zip(LETTERS, items, strict=False):
        known = [facts.get(item) or prompts.unknown, *([prompts.ranked.format(rank=ranked.index(item) + 1)] if item in ranked else [])]
        descriptions.append(heading.format(letter=letter) + prompts.facts.join(known))
    return descriptions


def spoken_lines(segments: list[str], prompts: Prompts) -> list[str]:
    speakers = {"[user]": prompts.user, "[system]": prompts.system}
    return [
        speaker + segment.removeprefix(marker)
        for segment in segments
        for marker, speaker in speakers.items()
        if segment.startswith(marker)
    ]


def render_input(lines: list[str], tail: str, prompts: Prompts) -> str:
    """The ``input`` text: the dialogue in rounds of two lines each, then the tail."""
    rounds = [f"[Round {k // 2}]\n" + "".join(line + "\n" for line in lines[k : k + 2]) for k in range(0, len(lines), 2)]
    return prompts.dialogue + "".join(rounds) + tail


def without_label(line: str, prompts: Prompts) -> tuple[str, str]:
    """The label before an utterance (such as ``当前输入：用户：``), and the utterance itself."""
    labels = (opening + speaker for opening in (prompts.current, "") for speaker in (prompts.user, prompts.system))
    label = next((label for label in labels if line.startswith(label)), "")
    return label, line.removeprefix(label)


def to_alpaca(instructions: pd.DataFrame, prompts: Prompts) -> list[dict]:
    """Plain Alpaca records (``instruction``, ``input``, ``output``) with the ``sample_id``. Nothing is cut."""
    return [
        {
            "instruction": row["instruction"],
            "input": render_input(row["lines"], row["tail"], prompts),
            "output": row["output"],
            SAMPLE_ID: row["sample_id"],
        }
        for row in instructions.to_dict("records")
    ]


def write_alpaca(records: list[dict], path: Path) -> None:
    write_atomically(path, json.dumps(records, ensure_ascii=False, indent=1) + "\n")


def read_alpaca(path: Path) -> list[dict]:
    """Read Alpaca records from any source: ``instruction, input, output`` and, if a record has one, ``sample_id``.

    Raises:
        CorpusError: for a file or record of another form; names file, record and field.
    """
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}: not valid JSON at line {error.lineno} ({error.msg}); export it again") from None
    if not isinstance(records, list):
        raise CorpusError(f"{path}: holds no list of records; write [{{...}}, {{...}}]")
    for number, record in enumerate(records):
        for key in ALPACA_KEYS:
            if not isinstance(record, dict) or not isinstance(record.get(key), str):
                raise CorpusError(f"{path}: record {number}, field {key}: missing or no text; give instruction, input and output")
        if not isinstance(record.get(SAMPLE_ID, ""), str):
            raise CorpusError(f"{path}: record {number}, field {SAMPLE_ID}: no text; write it as a string or leave it out")
    return [{key: record[key] for key in (*ALPACA_KEYS, SAMPLE_ID) if key in record} for record in records]
