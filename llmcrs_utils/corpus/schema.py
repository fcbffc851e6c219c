"""The internal corpus format: U-NEED's release format, validated on the way in.

A corpus is a folder with ``{train,valid,test}_dialogue.json``, ``item_kg.txt`` and
``user_action.txt``; every other source is converted to it once and then read from it.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime, TypeAdapter, ValidationError, model_validator

SPLITS = ("train", "valid", "test")
LINK_ONLY = "仅发送商品链接"  # what U-NEED writes for a message that is only a product link
KNOWLEDGE_COLUMNS = ["item_id_encrypt", "seller_id_encrypt", "relation_name", "value"]
BEHAVIOUR_COLUMNS = ["seller_id_encrypt", "user_id_encrypt", "item_id_encrypt", "actime", "action_id"]
TOP_CATEGORY = "一级类目"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIME_TYPE = "datetime64[us]"  # of actime, whether or not there is any action

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
    time: NaiveDatetime
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
    return read_records(path, Dialogue, "sid")


def read_records(path: Path, kind: type[BaseModel], identifier: str) -> list:
    """Records of one file, validated as ``kind``; the field ``identifier`` names a record and occurs once.

    Raises:
        CorpusError: naming file, record, field and remedy of the first fault.
    """
    records = parse_json(path)
    try:
        parsed = TypeAdapter(list[kind]).validate_python(records)
    except ValidationError as error:
        fault = error.errors()[0]
        index, *field = fault["loc"] or ("?",)
        record = records[index] if isinstance(index, int) else {}
        name = record.get(identifier, "?") if isinstance(record, dict) else "?"
        more = f" (and {error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
        raise CorpusError(
            f"{path}: {kind.__name__.lower()} {index} ({identifier} {name}), "
            f"field {'.'.join(map(str, field)) or '(whole record)'}: {fault['msg']}{more}; mend this record or remove it"
        ) from None
    names = pd.Series([getattr(record, identifier) for record in parsed])
    if names.duplicated().any():
        twice = names[names.duplicated()].iloc[0]
        raise CorpusError(f"{path}: {identifier} {twice} occurs twice; keep one {kind.__name__.lower()} per {identifier}")
    return parsed


def parse_json(path: Path) -> list:
    text = read_text(path)
    line_number = 0
    try:
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            one_object_per_line = error.msg == "Extra data" and text.lstrip().startswith("{")
            if not one_object_per_line:
                raise
            records = []
            for line in text.split("\n"):
                if line.strip():
                    records.append(json.loads(line))
                line_number += 1
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{path}: not valid JSON at line {line_number + error.lineno}, column {error.colno} ({error.msg}); "
            "the file may be cut short: fetch or export it again"
        ) from None
    return [records] if isinstance(records, dict) else records


def read_knowledge(path: Path) -> pd.DataFrame:
    """Product knowledge, columns ``KNOWLEDGE_COLUMNS``; a value may itself hold a comma.

    Raises:
        CorpusError: on a wrong header or a row with fewer than four fields.
    """
    return read_table(path, KNOWLEDGE_COLUMNS, maxsplit=3).drop_duplicates(ignore_index=True)


def read_behaviour(path: Path) -> pd.DataFrame:
    """Shoppers' actions sorted by time, columns ``BEHAVIOUR_COLUMNS`` with ``actime`` a timestamp.

    Raises:
        CorpusError: on a wrong header, a row without exactly five fields or an unreadable time.
    """
    actions = read_table(path, BEHAVIOUR_COLUMNS)
    times = pd.to_datetime(actions["actime"], errors="coerce", format=TIME_FORMAT)
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        raise CorpusError(
            f"{path}: row {row + 2}, field actime: {actions['actime'].iloc[row]!r} is no time; write YYYY-MM-DD HH:MM:SS"
        )
    actions["actime"] = times.astype(TIME_TYPE)
    return actions.sort_values("actime", kind="stable", ignore_index=True)


def read_table(path: Path, columns: list[str], maxsplit: int = -1) -> pd.DataFrame:
    # split at line feeds only: splitlines would also cut at rarer characters, which a product's title may hold
    header, *lines = read_text(path).rstrip("\n").split("\n")
    if header.strip().split(",") != columns:
        raise CorpusError(f"{path}: first line is {header!r}; write {','.join(columns)}")
    rows = [line.split(",", maxsplit) for line in lines]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise CorpusError(f"{path}: row {number} has {len(row)} fields instead of {len(columns)}; write {','.join(columns)}")
    return pd.DataFrame(rows, columns=columns, dtype=str)


def read_text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; check the folder given in the parameters") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write ``corpus`` as a folder that ``read_corpus`` of ``u_need`` takes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        records = [dialogue_to_json(d) for d in corpus.dialogues[split]]
        write_atomically(folder / f"{split}_dialogue.json", json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    rows = map(",".join, corpus.knowledge[KNOWLEDGE_COLUMNS].itertuples(index=False, name=None))
    write_atomically(folder / "item_kg.txt", "\n".join([",".join(KNOWLEDGE_COLUMNS), *rows]) + "\n")
    actions = corpus.behaviour[BEHAVIOUR_COLUMNS].to_csv(index=False, date_format=TIME_FORMAT)
    write_atomically(folder / "user_action.txt", actions)


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
