"""The internal corpus format: U-NEED's release format, validated when it is read.

A corpus is a folder with ``{train,valid,test}_dialogue.json``, ``item_kg.txt`` and ``user_action.txt``. Every other source is
converted to this format.
"""

import difflib
import gc
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, NaiveDatetime, ValidationError
from pydantic_core import PydanticCustomError

from llmcrs_utils.corpus.faults import ERRORS, CorpusError, Report, collecting, shown
from llmcrs_utils.corpus.reading import (
    LINE_BREAK,
    SURROGATE,
    RepeatedField,
    decode,
    holds_control,
    holds_surrogate,
    is_blank,
    parse_json,
    quote,
    split_fields,
    split_lines,
)
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.systems.registry import CATEGORIES

SPLITS = ("train", "valid", "test")
WRONG = 19  # wrong candidates of a recommendation (paper section 3.2)
LINK_ONLY = "仅发送商品链接"  # what U-NEED writes for a message that is only a product link
KNOWLEDGE_COLUMNS = ["item_id_encrypt", "seller_id_encrypt", "relation_name", "value"]
BEHAVIOUR_COLUMNS = ["seller_id_encrypt", "user_id_encrypt", "item_id_encrypt", "actime", "action_id"]
TOP_CATEGORY = "一级类目"
TITLE_RELATIONS = {"en": "Title", "zh": "标题"}  # of a product's title: words in a row, not values
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
TIME_TYPE = "datetime64[us]"  # type of the column actime, also in an empty table
WRITTEN_TIME = re.compile(r"\d{4}-\d{1,2}-\d{1,2}[ T]\d")  # how a time begins; a bare number or a day alone is not a time
ACTION_TIME = r"\d{4}-\d{1,2}-\d{1,2} \d{1,2}:\d{2}:[0-5]\d(\.\d{1,6})?"
ODD_ESCAPES = ("\\u00", "\\b", "\\f", "\\ud", "\\uD")  # how JSON may write control characters and halves of characters
HUGE = 10_000  # characters; a longer utterance gets a note
NAMES_NOTHING = "holds nothing that can be seen"
# The beginning of an attribute that disappears when an answer is split at the separators of sets, in Chinese or in English.
ONLY_SEPARATORS = re.compile(r"[\s;；]*(?:[:：]|$)")
UNKNOWN_ITEM = "{} is not in the product knowledge"
# Times of U-NEED's messages differ by microseconds from full seconds.
CLOCK_TOLERANCE = timedelta(seconds=1)

Act = Literal["用户需求", "系统提问", "用户回答", "系统推荐", "系统解释", "用户反馈"]


def same_turn(previous: str, act: str) -> bool:
    """Whether an utterance with the act tag ``act`` continues the turn of one with ``previous``: an explanation belongs to its recommendation."""
    return act == previous or (previous, act) == ("系统推荐", "系统解释")


def as_written(time: Any) -> Any:
    if not isinstance(time, datetime) and not WRITTEN_TIME.match(str(time)):
        raise ValueError("not a time of the form YYYY-MM-DD HH:MM:SS")
    return time


Time = Annotated[NaiveDatetime, BeforeValidator(as_written)]


def visible_name(name: str) -> str:
    if is_blank(name):
        raise PydanticCustomError("blank_name", NAMES_NOTHING)
    return name


Name = Annotated[str, AfterValidator(visible_name)]  # name of a dialogue, item, seller, category or attribute


class Record(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class Attribute(Record):
    """One annotated (attribute, value). An attribute without a value, as in a question, has value ``""`` and span -1,-1."""

    key: Name
    value: str
    start: int
    exclusive_end: int


class Utterance(Record):
    """One message. ``rec_item_candidates`` is empty or holds one list per recommended item.

    ``rec_item_verdict`` is empty where the corpus has no verdicts. Else it says for each recommended item whether its shopper
    ``liked`` or ``disliked`` it in the end; ``""`` is no verdict.
    """

    seq_no: int = Field(ge=0, lt=2**31)
    time: Time
    sender_type: Literal["用户", "客服"]
    send_content: str
    act_tag: Act
    attributes: list[Attribute] = []
    rec_item_id: list[Name] = []
    rec_item_info: list[str] = []
    rec_item_candidates: list[list[Name]] = []
    rec_item_verdict: list[Literal["liked", "disliked", ""]] = []


class Dialogue(Record):
    """One pre-sales dialogue between a user and a seller's service desk.

    ``told_domain`` is what models read as its domain where the domain follows from what is said in it; ``""``: the domain.
    """

    domain: Name
    sid: Name
    sellerid: Name
    userid: str
    ds: str
    dialogue: list[Utterance] = Field(min_length=1)
    told_domain: str = ""


@dataclass(frozen=True)
class Corpus:
    """Dialogues by split, product knowledge (one row per item, relation and value) and behaviour (one row per action)."""

    dialogues: dict[str, list[Dialogue]]
    knowledge: pd.DataFrame
    behaviour: pd.DataFrame


@contextmanager
def making_many_objects():
    """Pause cyclic garbage collection while the block runs.

    Where millions of objects are made and kept, the collector searches them all again and again. At U-NEED's size it takes a
    quarter of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# --- dialogues

# One fault of a record that could be read as JSON: (kind, field, message).
Finding = tuple[str, str, str]


def read_dialogues(
    path: Path,
    encoding: str = "utf-8",
    report: Report | None = None,
    sellers: dict[str, str] | None = None,
    elsewhere: dict[str, str] | None = None,
) -> list[Dialogue]:
    """Read the dialogues of one file: a JSON list, or one JSON object after another, such as one per line.

    Args:
        report: takes all faults; the caller finishes it. Without one, any error raises.
        sellers: item -> seller of the product knowledge. ``None`` skips the checks of items and their sellers.
        elsewhere: sid -> file, for the dialogues of other splits. They may not occur here.

    Raises:
        CorpusError: without a ``report``; names file, dialogue, field and remedy of each error.
    """
    return read_records(path, Dialogue, "sid", encoding, report, lambda dialogue: dialogue_findings(dialogue, sellers), elsewhere)


def read_records(
    path: Path,
    kind: type[BaseModel],
    identifier: str,
    encoding: str = "utf-8",
    report: Report | None = None,
    check: Callable[[Any], Iterator[Finding]] | None = None,
    elsewhere: dict[str, str] | None = None,
) -> list:
    """Read the records of one file, validated as ``kind`` and by ``check``.

    The field ``identifier`` names a record; each value may occur once. Unknown fields are reported only if there is a
    ``check``, because a source that is converted leaves many fields out.

    Raises:
        CorpusError: without a ``report``; names file, record, field and remedy of each error.
    """
    with collecting(report) as report:
        text = read_text(path, encoding, report)
        if not text:
            return []
        raws, broken = parse_json(text, identifier)
        undecodable = holds_surrogate(text)
        odd = undecodable or holds_control(text) or any(escape in text for escape in ODD_ESCAPES)
        report.records[str(path)] = len(raws) + len(broken)
        if not raws and not broken:
            report.add("no_records", path, message="holds no records")
        for stretch in broken:
            hint = f"; some bytes of the file are not {encoding}: name its encoding" if undecodable else ""
            place = f"line {stretch.line}, column {stretch.column}"
            report.add("json", path, place, "", stretch.message + hint, stretch.text)
        kept, names = [], set()
        for index, raw in enumerate(raws):
            record, findings = read_record(raw, kind, check)
            if odd:
                findings += odd_characters(raw, "encoding" if undecodable else "surrogate")
            name = getattr(record, identifier, None)
            if name in names:
                findings.append(("same_sid", identifier, f"{shown(name)} occurs a second time"))
            if elsewhere and name in elsewhere:
                findings.append(("two_splits", identifier, f"{shown(name)} is also in {elsewhere[name]}"))
            errors = [finding for finding in findings if finding[0] in ERRORS]
            if findings:
                raw_name = raw.get(identifier, "?") if isinstance(raw, dict) else "?"
                label = f"{kind.__name__.lower()} {index} ({identifier} {str(raw_name)[:60]})"
                for fault, field, message in errors or findings:
                    report.add(fault, path, label, field, message, raw)
            if not errors:
                kept.append(record)
                names.add(name)
        return kept


def read_record(raw: Any, kind: type[BaseModel], check: Callable | None) -> tuple[BaseModel | None, list[Finding]]:
    """The record (``None`` if it is invalid), and all findings about it."""
    findings = field_findings(raw, kind, "") if check else []
    try:
        record = kind.model_validate(raw)
    except ValidationError as error:
        return None, findings + [finding_of(fault) for fault in error.errors(include_url=False, include_context=False)]
    except ValueError as error:  # a number too long for Python to write down
        return None, [*findings, ("wrong_value", "", str(error))]
    return record, findings + (list(check(record)) if check else [])


def finding_of(fault: dict) -> Finding:
    """A fault that pydantic reports, as one of the kinds of ``ERRORS``."""
    *_, last = fault["loc"] or ("",)
    if fault["type"] == "missing":
        kind = "missing_field"
    elif last in ("act_tag", "sender_type"):
        kind = {"act_tag": "unknown_act", "sender_type": "unknown_sender"}[last]
    elif last == "time":
        kind = "bad_time"
    elif fault["type"] in ("blank_name", "too_short"):
        kind = "empty_field"
    else:
        kind = "wrong_value"
    given = "" if fault["type"] == "missing" or isinstance(fault["input"], (dict, list)) else f" (given: {shown(fault['input'])})"
    return kind, ".".join(map(str, fault["loc"])), fault["msg"] + given


# For each kind of record: its fields, its whole numbers, and the field that holds other records, with their kind.
FIELDS = {kind: frozenset(kind.model_fields) for kind in (Dialogue, Utterance, Attribute)}
NUMBERS = {Dialogue: (), Utterance: ("seq_no",), Attribute: ("start", "exclusive_end")}
NESTED_FIELDS = {Dialogue: ("dialogue", Utterance), Utterance: ("attributes", Attribute), Attribute: ("", None)}


def field_findings(raw: Any, kind: type[BaseModel], prefix: str) -> list[Finding]:
    """Unknown, misspelt or repeated fields, and true or false in place of a number."""
    if not isinstance(raw, dict):
        return []
    findings: list[Finding] = []
    fields = FIELDS[kind]
    for name in raw.keys() - fields:
        near = difflib.get_close_matches(name[:60].lower(), [field for field in fields if field not in raw], 1, 0.8)
        message = f"{shown(name)} is no field; " + (
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(kind.model_fields)}"
        )
        findings.append(("misspelt_field" if near else "unknown_field", prefix + name[:60], message))
    findings.sort()
    if type(raw) is RepeatedField:
        findings.append(("repeated_field", prefix.rstrip("."), "one of its fields is there twice"))
    for name in NUMBERS[kind]:
        if type(raw.get(name)) is bool:
            findings.append(("wrong_value", prefix + name, f"{raw[name]} is no number"))
    part, its_kind = NESTED_FIELDS[kind]
    children = raw.get(part)
    if isinstance(children, list):
        for place, child in enumerate(children):
            findings += field_findings(child, its_kind, f"{prefix}{part}.{place}.")
    return findings


def dialogue_findings(dialogue: Dialogue, sellers: dict[str, str] | None) -> Iterator[Finding]:
    """Contradictions within a valid dialogue, and whatever else a person should look at."""
    if dialogue.domain not in CATEGORIES:
        yield "unknown_domain", "domain", shown(dialogue.domain)
    if is_blank(dialogue.userid):
        yield "guest", "userid", shown(dialogue.userid) if dialogue.userid else "empty"
    before = None
    for place, utterance in enumerate(dialogue.dialogue):
        here = f"dialogue.{place}"
        if before is not None:
            if utterance.seq_no <= before.seq_no:
                yield "seq_no", f"{here}.seq_no", f"{utterance.seq_no} follows {before.seq_no}"
            if utterance.time <= before.time - CLOCK_TOLERANCE:
                yield "time_falls", f"{here}.time", f"{utterance.time} follows {before.time}"
        before = utterance
        if utterance.act_tag.startswith("用户") != (utterance.sender_type == "用户"):
            yield "sender_act", f"{here}.act_tag", f"{utterance.act_tag} is said by {utterance.sender_type}"
        if is_blank(utterance.send_content):
            yield "empty_utterance", f"{here}.send_content", shown(utterance.send_content)
        elif len(utterance.send_content) > HUGE:
            yield "huge_utterance", f"{here}.send_content", f"{len(utterance.send_content)} characters"
        for number, attribute in enumerate(utterance.attributes):
            if ONLY_SEPARATORS.match(attribute.key):
                yield "separator_key", f"{here}.attributes.{number}.key", shown(attribute.key)
            yield from span_findings(f"{here}.attributes.{number}", attribute, utterance.send_content)
        if utterance.rec_item_id or utterance.rec_item_candidates or utterance.rec_item_verdict:
            yield from item_findings(here, utterance, dialogue.sellerid, sellers)
        elif utterance.act_tag == "系统推荐":
            yield "no_item", f"{here}.rec_item_id", "a recommendation without an item"


def span_findings(here: str, attribute: Attribute, text: str) -> Iterator[Finding]:
    start, end, value = attribute.start, attribute.exclusive_end, attribute.value
    if start == end == -1:
        return
    if not value:
        yield "bad_span", f"{here}.start", f"{start},{end} for an attribute without a value"
    elif not 0 <= start < end <= len(text):
        yield "bad_span", f"{here}.start", f"{start},{end} in a text of {len(text)} characters"
    elif text[start:end] != value and text[start:end].casefold() != value.casefold():
        yield "span_text", f"{here}.start", f"{start},{end} is {shown(text[start:end])}, the value {shown(value)}"


def item_findings(here: str, utterance: Utterance, seller: str, sellers: dict[str, str] | None) -> Iterator[Finding]:
    items, lists = utterance.rec_item_id, utterance.rec_item_candidates
    if lists and len(lists) != len(items):
        yield "candidates_count", f"{here}.rec_item_candidates", f"{len(lists)} lists for {len(items)} rec_item_id"
    verdicts = utterance.rec_item_verdict
    if verdicts and len(verdicts) != len(items):
        yield "verdict_count", f"{here}.rec_item_verdict", f"{len(verdicts)} verdicts for {len(items)} rec_item_id"
    if len(set(items)) < len(items) and (not lists or len(lists) == len(items)):
        yield "repeated_item", f"{here}.rec_item_id", f"{len(items) - len(set(items))} of {len(items)} items repeat another"
    if items and utterance.act_tag != "系统推荐":
        yield "item_elsewhere", f"{here}.rec_item_id", f"{len(items)} items at {utterance.act_tag}"
    if utterance.rec_item_info and len(utterance.rec_item_info) != len(items):
        yield "info_count", f"{here}.rec_item_info", f"{len(utterance.rec_item_info)} entries for {len(items)} rec_item_id"
    for number, (item, candidates) in enumerate(zip(items, lists, strict=False)):
        field = f"{here}.rec_item_candidates.{number}"
        if item not in candidates:
            yield "candidates_gold", field, f"{shown(item)} is not among its {len(candidates)} candidates"
        if len(set(candidates)) < len(candidates):
            yield "repeated_candidate", field, f"{len(candidates) - len(set(candidates))} of {len(candidates)} repeat another"
    if sellers is None:
        return
    for field, names in [("rec_item_id", items), *((f"rec_item_candidates.{n}", names) for n, names in enumerate(lists))]:
        for number, item in enumerate(names):
            if item not in sellers:
                yield "unknown_item", f"{here}.{field}.{number}", UNKNOWN_ITEM.format(shown(item))
            elif sellers[item] != seller and field == "rec_item_id":
                yield "other_seller", f"{here}.{field}.{number}", f"{shown(item)} is of {shown(sellers[item])}, not of {shown(seller)}"


def odd_characters(raw: Any, surrogate: str) -> list[Finding]:
    """Findings by field: lone surrogates, under the kind ``surrogate``, and control characters."""
    findings = []
    for path, text in texts_of(raw, ""):
        if SURROGATE.search(text):
            findings.append((surrogate, path, shown(text)))
        elif holds_control(text):
            findings.append(("control_character", path, shown(text)))
    return findings


def texts_of(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, text) of all texts in a JSON value, names of fields included."""
    stack = [(path, value)]  # no recursion: a hostile value may be nested deeper than Python's stack
    while stack:
        path, value = stack.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            for name, child in reversed(value.items()):
                stack += [(f"{path}.{name[:60]}".lstrip("."), child), (path, name)]
        elif isinstance(value, list):
            stack += [(f"{path}.{number}".lstrip("."), child) for number, child in reversed(list(enumerate(value)))]


# --- tables


def read_knowledge(path: Path, encoding: str = "utf-8", report: Report | None = None) -> pd.DataFrame:
    """Read product knowledge, columns ``KNOWLEDGE_COLUMNS``, each row once. A value may hold commas.

    Raises:
        CorpusError: without a ``report``; names file, row, field and remedy of each error.
    """
    with collecting(report) as report:
        table = Table(path, KNOWLEDGE_COLUMNS, encoding, report, free_text_last=True)
        table.check_filled("item_id_encrypt", "seller_id_encrypt", "relation_name")
        table.drop_bad()
        table.note("empty_value", table.blank("value"), "value", empty_or_blank)
        repeated = table.note_repeated()
        items = table.rows[["item_id_encrypt", "seller_id_encrypt"]].drop_duplicates()
        second = table.rows.index.isin(items.index[items["item_id_encrypt"].duplicated()])
        table.note("two_sellers", second, "seller_id_encrypt", lambda seller: f"{shown(seller)} is not its first seller")
        return table.rows[~repeated].reset_index(drop=True)


def read_behaviour(
    path: Path, encoding: str = "utf-8", report: Report | None = None, sellers: dict[str, str] | None = None
) -> pd.DataFrame:
    """Read shoppers' actions, sorted by time, columns ``BEHAVIOUR_COLUMNS``; ``actime`` is a timestamp.

    Args:
        sellers: item -> seller of the product knowledge. ``None`` skips the checks of items and their sellers.

    Raises:
        CorpusError: without a ``report``; names file, row, field and remedy of each error.
    """
    with collecting(report) as report:
        table = Table(path, BEHAVIOUR_COLUMNS, encoding, report)
        table.check_filled("user_id_encrypt", kind="no_user")
        table.check_filled("seller_id_encrypt", "item_id_encrypt")
        times = times_of(table.rows["actime"])
        table.error("bad_time", times.isna(), "actime", lambda time: f"{shown(time)} is no time")
        table.drop_bad()
        table.note_repeated()
        if sellers is not None:
            known = table.rows["item_id_encrypt"].map(sellers)
            table.note("unknown_item", known.isna(), "item_id_encrypt", lambda item: UNKNOWN_ITEM.format(shown(item)))
            other = known.notna() & (known != table.rows["seller_id_encrypt"])
            table.note("other_seller", other, "seller_id_encrypt", lambda seller: f"{shown(seller)} does not sell this item")
        actions = table.rows.assign(actime=times[table.rows.index])
        return actions.sort_values("actime", kind="stable", ignore_index=True)


def times_of(written: pd.Series) -> pd.Series:
    """The texts as times; NaT for a text that is not a time."""
    # The pattern comes first: pandas accepts "now" as a time, and reads the 60th second as the next minute.
    plain = written.where(written.str.fullmatch(ACTION_TIME))
    times = pd.to_datetime(plain, errors="coerce", format=TIME_FORMAT)
    fractions = plain[times.isna()].dropna()
    times = times.astype(TIME_TYPE)
    times.loc[fractions.index] = pd.to_datetime(fractions, errors="coerce", format=f"{TIME_FORMAT}.%f").astype(TIME_TYPE)
    return times.where(times >= np.datetime64("0001-01-01"))


class Table:
    """The rows of a CSV file while they are checked. ``rows`` is indexed by line number, which starts at 2."""

    def __init__(self, path: Path, columns: list[str], encoding: str, report: Report, free_text_last: bool = False):
        self.file, self.report = str(path), report
        self.bad: set[int] = set()
        self.rows = pd.DataFrame([], columns=columns, dtype=str)
        text = read_text(path, encoding, report)
        if not text:
            return
        self.lines = split_lines(text)
        undecodable = holds_surrogate(text)
        header, _ = split_fields(self.lines[0].strip(), len(columns), False)
        if header != columns:
            hint = f"; some bytes of the file are not {encoding}: name its encoding" if undecodable else ""
            report.add("header", path, "", "", f"the first line is {shown(self.lines[0])}; write {','.join(columns)}{hint}")
            return
        commas = len(columns) - 1
        numbered = [(number, line) for number, line in enumerate(self.lines[1:], start=2) if line]
        # Most lines are plain and are split all at once. The others are split one by one.
        plain = [] if undecodable else [(n, line) for n, line in numbered if line.count(",") == commas and '"' not in line]
        cells = ",".join([line for _, line in plain]).split(",") if plain else []
        values = {column: cells[place :: commas + 1] for place, column in enumerate(columns)}
        numbers = [number for number, _ in plain]
        if len(plain) < len(numbered):
            done = set(numbers)
            others = [(number, line) for number, line in numbered if number not in done]
            for number, row in self.split_others(others, columns, encoding, free_text_last):
                numbers.append(number)
                for column, field in zip(columns, row, strict=True):
                    values[column].append(field)
        report.records[self.file] = len(numbered)
        if not numbered:
            report.add("no_records", path, message="holds no records")
        self.rows = pd.DataFrame(values, index=numbers, dtype=str).sort_index()
        if holds_control(text):
            for column in columns:
                odd = np.array([holds_control(field) for field in self.rows[column].to_numpy(object)], dtype=bool)
                self.note("control_character", odd, column, shown)

    def split_others(self, lines: list[tuple[int, str]], columns: list[str], encoding: str, free_text_last: bool):
        """(line number, fields) of each line that has all fields. The other lines are reported."""
        for number, line in lines:
            fields, unclosed = split_fields(line, len(columns), free_text_last)
            if SURROGATE.search(line):
                self.add("encoding", number, "", f"{shown(line)} holds bytes that are not {encoding}")
            elif len(fields) != len(columns):
                self.add("field_count", number, "", f"{len(fields)} fields instead of {len(columns)}: {','.join(columns)}")
            else:
                yield number, fields
                if unclosed:
                    self.add("open_quote", number, "", shown(line))

    def add(self, kind: str, number: int, field: str, message: str) -> None:
        self.report.add(kind, self.file, f"row {number}", field, message, self.lines[number - 1])

    def note(self, kind: str, where, field: str, message: Callable[[str], str]) -> None:
        """Report the rows where ``where`` is true. ``message`` turns the value of ``field`` into the message."""
        numbers = self.rows.index[where]
        for number, value in self.rows.loc[numbers, field].items() if len(numbers) else ():
            self.add(kind, number, field, message(value))

    def error(self, kind: str, where, field: str, message: Callable[[str], str]) -> None:
        self.note(kind, where, field, message)
        self.bad.update(self.rows.index[where])

    def check_filled(self, *columns: str, kind: str = "empty_field") -> None:
        for column in columns:
            self.error(kind, self.blank(column), column, empty_or_blank)

    def blank(self, column: str) -> pd.Series:
        """True for each row in which the column holds nothing visible."""
        return self.rows[column].isin([value for value in self.rows[column].unique() if is_blank(value)])

    def drop_bad(self) -> None:
        self.rows = self.rows[~self.rows.index.isin(list(self.bad))]

    def note_repeated(self) -> pd.Series:
        repeated = self.rows.duplicated()
        for number in self.rows.index[repeated]:
            self.add("duplicate_row", number, "", "the same as an earlier row")
        return repeated


def empty_or_blank(value: str) -> str:
    return f"{NAMES_NOTHING} (given: {shown(value)})" if value else "empty"


def read_text(path: Path, encoding: str, report: Report) -> str:
    """The text of a file. An unreadable or empty file is reported and gives ``""``."""
    try:
        text = decode(Path(path).read_bytes(), encoding)
    except OSError as error:
        report.add("missing_file", path, message=f"cannot be read ({error.strerror})")
        return ""
    if not text.strip():
        report.add("empty_file", path, message="holds nothing")
        return ""
    return text


# --- writing


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write ``corpus`` to a folder from which ``read_corpus`` of ``u_need`` reads the same corpus.

    Raises:
        CorpusError: if a field of a table holds a line break.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        records = [dialogue_to_json(d) for d in corpus.dialogues[split]]
        write_atomically(folder / f"{split}_dialogue.json", json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    write_csv(corpus.knowledge[KNOWLEDGE_COLUMNS], folder / "item_kg.txt", free_text_last=True)
    actions = corpus.behaviour[BEHAVIOUR_COLUMNS]
    times = actions["actime"].to_numpy(TIME_TYPE)
    unit = "s" if (times == times.astype("datetime64[s]")).all() else "us"
    written = [time.replace("T", " ") for time in np.datetime_as_string(times, unit).tolist()]
    write_csv(actions.assign(actime=written), folder / "user_action.txt")


def write_csv(table: pd.DataFrame, path: Path, free_text_last: bool = False) -> None:
    columns = []
    for number, name in enumerate(table.columns, start=1):
        fields = table[name].tolist()
        text = "".join(fields)
        if LINE_BREAK.search(text):
            row = next(row for row, field in enumerate(fields) if LINE_BREAK.search(field))
            raise CorpusError(
                f"{path}: row {row + 2}, field {name}: {shown(fields[row])} holds a line break; write a blank instead"
            )
        if '"' in text or "," in text:
            fields = [quote(field, free_text_last and number == len(table.columns)) for field in fields]
        columns.append(fields)
    lines = [",".join(table.columns), *map(",".join, zip(*columns, strict=True))]
    write_atomically(path, "\n".join(lines) + "\n")


def dialogue_to_json(dialogue: Dialogue) -> dict:
    record = dialogue.model_dump(exclude=set() if dialogue.told_domain else {"told_domain"})
    for utterance in record["dialogue"]:
        utterance["time"] = str(utterance["time"])
        if not utterance["rec_item_verdict"]:
            del utterance["rec_item_verdict"]  # U-NEED's release does not have this field
    return record
