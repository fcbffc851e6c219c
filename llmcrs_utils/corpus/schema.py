"""The internal corpus format: U-NEED's release format, validated on the way in.

A corpus is a folder with ``{train,valid,test}_dialogue.json``, ``item_kg.txt`` and
``user_action.txt``; every other source is converted to it once and then read from it.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

SPLITS = ("train", "valid", "test")
LINK_ONLY = "仅发送商品链接"  # what U-NEED writes for a message that is only a product link
KNOWLEDGE_COLUMNS = ["item_id_encrypt", "seller_id_encrypt", "relation_name", "value"]
BEHAVIOUR_COLUMNS = ["seller_id_encrypt", "user_id_encrypt", "item_id_encrypt", "actime", "action_id"]
TOP_CATEGORY = "一级类目"

Act = Literal["用户需求", "系统提问", "用户回答", "系统推荐", "系统解释", "用户反馈"]


class CorpusError(ValueError):
    """Bad input data; the message names file, record, field and remedy."""


class Record(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class Attribute(Record):
    """One annotated (attribute, value); an attribute asked without a value has ``""`` and span -1,-1."""

    key: str = Field(min_length=1)
    value: str
    start: int = Field(ge=-1)
    exclusive_end: int = Field(ge=-1)


class Utterance(Record):
    """One message; ``rec_item_candidates`` is empty or holds one list per recommended item."""

    seq_no: int
    time: datetime
    sender_type: Literal["用户", "客服"]
    send_content: str
    act_tag: Act
    attributes: list[Attribute] = []
    rec_item_id: list[str] = []
    rec_item_info: list[str] = []
    rec_item_candidates: list[list[str]] = []

    @model_validator(mode="after")
    def candidates_match_items(self):
        if self.rec_item_candidates and len(self.rec_item_candidates) != len(self.rec_item_id):
            raise ValueError(
                f"rec_item_candidates has {len(self.rec_item_candidates)} lists for {len(self.rec_item_id)} rec_item_id; "
                "give one list per item, or none at all"
            )
        return self


class Dialogue(Record):
    """One pre-sales dialogue between a user and a seller's service desk."""

    domain: str = Field(min_length=1)
    sid: str = Field(min_length=1)
    sellerid: str
    userid: str
    ds: str
    dialogue: list[Utterance] = Field(min_length=1)


@dataclass(frozen=True)
class Corpus:
    """Dialogues by split, product knowledge (one row per item, relation, value) and behaviour (one row per action)."""

    dialogues: dict[str, list[Dialogue]]
    knowledge: pd.DataFrame
    behaviour: pd.DataFrame


def read_dialogues(path: Path) -> list[Dialogue]:
    """Dialogues of one file: a JSON list, or one JSON object per line.

    Raises:
        CorpusError: naming file, dialogue, field and remedy of the first fault.
    """
    text = read_text(path)
    try:
        records = json.loads(text)
    except json.JSONDecodeError as whole:
        try:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise CorpusError(
                f"{path}: not valid JSON at line {whole.lineno}, column {whole.colno} ({whole.msg}); "
                "the file may be cut short: fetch or export it again"
            ) from None
    if isinstance(records, dict):
        records = [records]
    try:
        dialogues = TypeAdapter(list[Dialogue]).validate_python(records)
    except ValidationError as error:
        fault = error.errors()[0]
        index, *field = fault["loc"] or ("?",)
        record = records[index] if isinstance(index, int) else {}
        sid = record.get("sid", "?") if isinstance(record, dict) else "?"
        more = f" (and {error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
        raise CorpusError(
            f"{path}: dialogue {index} (sid {sid}), field {'.'.join(map(str, field)) or '(whole record)'}: "
            f"{fault['msg']}{more}; mend this record or remove it"
        ) from None
    sids = pd.Series([d.sid for d in dialogues])
    if sids.duplicated().any():
        raise CorpusError(f"{path}: sid {sids[sids.duplicated()].iloc[0]} occurs twice; keep one dialogue per sid")
    return dialogues


def read_knowledge(path: Path) -> pd.DataFrame:
    """Product knowledge, columns ``KNOWLEDGE_COLUMNS``; a value may itself hold a comma.

    Raises:
        CorpusError: on a wrong header or a row with fewer than four fields.
    """
    lines = read_text(path).splitlines()
    check_header(path, lines[0] if lines else "", KNOWLEDGE_COLUMNS)
    rows = [line.split(",", 3) for line in lines[1:] if line.strip()]
    for number, row in enumerate(rows, start=2):
        if len(row) != 4:
            raise CorpusError(f"{path}: row {number} has {len(row)} fields instead of 4; write {','.join(KNOWLEDGE_COLUMNS)}")
    return pd.DataFrame(rows, columns=KNOWLEDGE_COLUMNS, dtype=str).drop_duplicates(ignore_index=True)


def read_behaviour(path: Path) -> pd.DataFrame:
    """Shoppers' actions sorted by time, columns ``BEHAVIOUR_COLUMNS`` with ``actime`` a timestamp.

    Raises:
        CorpusError: on a wrong header or an unreadable time.
    """
    with open(path, encoding="utf-8-sig") as file:
        check_header(path, file.readline().strip(), BEHAVIOUR_COLUMNS)
    actions = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    times = pd.to_datetime(actions["actime"], errors="coerce", format="ISO8601")
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        raise CorpusError(
            f"{path}: row {row + 2}, field actime: {actions['actime'].iloc[row]!r} is no time; write YYYY-MM-DD HH:MM:SS"
        )
    actions["actime"] = times
    return actions.sort_values("actime", kind="stable", ignore_index=True)


def read_text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; check the folder given in the parameters") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None


def check_header(path: Path, header: str, columns: list[str]) -> None:
    if header.split(",") != columns:
        raise CorpusError(f"{path}: first line is {header!r}; write {','.join(columns)}")


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write ``corpus`` as a folder that ``read_corpus`` of ``u_need`` takes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        records = [dialogue_to_json(d) for d in corpus.dialogues[split]]
        write_atomically(folder / f"{split}_dialogue.json", json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    rows = corpus.knowledge[KNOWLEDGE_COLUMNS].agg(",".join, axis=1)
    write_atomically(folder / "item_kg.txt", "\n".join([",".join(KNOWLEDGE_COLUMNS), *rows]) + "\n")
    write_atomically(folder / "user_action.txt", corpus.behaviour[BEHAVIOUR_COLUMNS].to_csv(index=False))


def dialogue_to_json(dialogue: Dialogue) -> dict:
    record = dialogue.model_dump()
    for utterance in record["dialogue"]:
        utterance["time"] = str(utterance["time"])
    return record


def write_atomically(path: Path, text: str) -> None:
    """Write to a temporary name, then rename, so that a reader never sees half a file."""
    temporary = Path(f"{path}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
