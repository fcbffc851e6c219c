"""What can be wrong with input data, and the report that collects it: everything at once, each kind counted."""

import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llmcrs_utils.corpus.reading import printable
from llmcrs_utils.files.atomic import write_atomically

BAD_RECORDS = ("stop", "set_aside")

# Errors make a record (or a whole file) unusable. Kind -> what to do about it.
ERRORS = {
    "missing_file": "add it, or correct the folder given",
    "file_twice": "keep one of them",
    "encoding": "name the file's encoding (encoding: gb18030, utf-16, ...) or convert it to UTF-8",
    "empty_file": "fetch or export it again",
    "header": "write the columns as the first line, separated by commas",
    "nothing_left": "mend what is reported of this file",
    "json": "the file may be cut short or edited by hand: fetch or export it again",
    "surrogate": "write both halves of the escaped character (\\ud83d\\ude00), or leave it out",
    "missing_field": "add the field",
    "misspelt_field": "correct the field's name",
    "repeated_field": "keep one of the values",
    "wrong_value": "write a value of the type, or one of the values, that the field takes",
    "empty_field": "fill the field in; from a list of names, leave the blank one out",
    "unknown_act": "use one of the six acts",
    "unknown_sender": "write 用户 or 客服",
    "sender_act": "acts of 用户 begin with 用户, those of 客服 with 系统: correct one of the two",
    "bad_time": "write YYYY-MM-DD HH:MM:SS, a date that exists, without a time zone",
    "time_falls": "put the utterances in the order in which they were said, or correct the time",
    "seq_no": "number the utterances of a dialogue upwards",
    "bad_span": "count characters from 0, the end exclusive and inside the text; write -1,-1 where there is no span or no value",
    "candidates_count": "give one list per item of rec_item_id, or none at all",
    "verdict_count": "give one verdict per item of rec_item_id, or none at all",
    "same_sid": "keep one record of this name",
    "two_splits": "keep it in one split, or a system is tested on what it was trained on",
    "field_count": "write all fields, separated by commas; one that holds a comma needs double quotes around it; no field can hold a line break",
    "no_user": "name the shopper, or leave the action out",
}
# Notes: the data are read, but a person should look at them. Kind -> what was done with the data, or what to do.
NOTES = {
    "no_records": "the file is in order, but there is nothing in it",
    "unknown_field": "not part of the format: ignored",
    "unknown_domain": "none of U-NEED's five: kept as a category of its own",
    "guest": "no userid: read, but without any behaviour",
    "empty_utterance": "read; it says nothing",
    "separator_key": "read, but a question whose only right answers are such attributes is not asked: nobody could answer it",
    "huge_utterance": "read; models see no more of it than their cutoff",
    "control_character": "read and kept; probably left over from another program",
    "span_text": "value kept; the span points at other words",
    "info_count": "read; rec_item_info is not used",
    "repeated_item": "counted once in its turn",
    "candidates_gold": "the item is added to its candidates",
    "repeated_candidate": "counted once",
    "item_elsewhere": "read as a recommendation, though the act is another",
    "no_item": "read; there is nothing to predict",
    "unknown_item": "read; nothing is known of it: add it to the product knowledge",
    "other_seller": "read; the product knowledge names another seller for it",
    "two_sellers": "the seller of the item's first row counts",
    "duplicate_row": "once in the product knowledge; counted as often as it occurs in the behaviour",
    "empty_value": "read as an attribute without a value",
    "no_match": "read, but nothing is joined by these names: write them alike in both places, or check that the files belong together",
    "near_match": "read, but not joined: write these names alike in both places",
    "open_quote": "the quote is read as part of the text; where a line break was meant to follow, it cannot",
}
REMEDIES = {**ERRORS, **NOTES}
EXAMPLES = 2  # examples of each kind in a summary; faults of whole files are all shown


class CorpusError(ValueError):
    """Bad input data; the message names file, record, field and remedy."""


class Fault(NamedTuple):
    """One error or note. An error with an empty ``record`` concerns the whole file."""

    kind: str  # a key of REMEDIES
    file: str
    record: str
    field: str
    message: str
    raw: Any = None  # the record as it was read; for errors only

    @property
    def severity(self) -> str:
        return "error" if self.kind in ERRORS else "note"

    def __str__(self) -> str:
        where = f"{self.record}, field {self.field}" if self.record and self.field else self.record or self.field
        return f"{self.file}: {where}: {self.message}" if where else f"{self.file}: {self.message}"


class Join(NamedTuple):
    """How many identifiers of one place occur in another.

    Attributes:
        names: the identifiers that are looked for, such as "users of the dialogues".
        among: the identifiers among which they are looked for.
        matched: how many were found.
        of: how many different ``names`` there are.
        near: how many more would be found if both places wrote them alike.
    """

    names: str
    among: str
    matched: int
    of: int
    near: int

    def __str__(self) -> str:
        return f"{self.matched} of {self.of} {self.names} are among the {self.among}"


class Report:
    """Collects the faults of a corpus while it is read, and counts how its files fit together.

    Args:
        bad_records: with ``"stop"``, any error ends the reading with one ``CorpusError``. With ``"set_aside"``, records with
            errors are left out and written to ``set_aside_file``; only a file that cannot be used at all ends the reading.
        set_aside_file: JSON lines, one per record: ``file, record, field, kind, message``, ``also`` (its further errors) and
            ``raw``. ``None`` writes nothing, as for a check before a run.
    """

    def __init__(self, bad_records: str = "stop", set_aside_file: str | Path | None = None):
        if bad_records not in BAD_RECORDS:
            raise ValueError(f"bad_records {bad_records!r} is unknown; known: {', '.join(BAD_RECORDS)}")
        self.bad_records = bad_records
        self.set_aside_file = set_aside_file
        self.faults: list[Fault] = []
        self.records: dict[str, int] = {}  # file -> number of records, good and bad
        self.joins: list[Join] = []

    def add(self, kind: str, file: str | Path, record: str = "", field: str = "", message: str = "", raw: Any = None) -> None:
        message = message if len(message) < 500 else f"{message[:400]} ..."
        self.faults.append(Fault(kind, str(file), *map(printable, (record, field, message)), raw if kind in ERRORS else None))

    def of_severity(self, severity: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.severity == severity]

    def bad(self) -> dict[tuple[str, str], list[Fault]]:
        """(file, record) -> errors, for each record that has any."""
        bad: dict[tuple[str, str], list[Fault]] = {}
        for fault in self.of_severity("error"):
            if fault.record:
                bad.setdefault((fault.file, fault.record), []).append(fault)
        return bad

    def is_whole(self, file: str | Path) -> bool:
        """Whether the file could be used at all."""
        return not any(fault.file == str(file) and not fault.record for fault in self.of_severity("error"))

    def finish(self) -> None:
        """End the reading: write the records that are set aside, and raise if there are errors. Call it after all reading.

        Raises:
            CorpusError: for any error; if bad records are set aside, only for a file that cannot be used or has no good record.
        """
        bad = self.bad()
        lost = Counter(file for file, _ in bad)
        if self.bad_records == "set_aside":
            for file in [file for file, count in self.records.items() if count and lost[file] >= count]:
                self.add("nothing_left", file, message=f"none of its {self.records[file]} records can be used")
        errors = self.of_severity("error")
        if self.bad_records == "set_aside" and self.set_aside_file is not None:
            lines = []
            for first, *others in bad.values():
                also = [f"{fault.field}: {fault.message}" for fault in others]
                fields = {name: getattr(first, name) for name in ("file", "record", "field", "kind", "message")}
                lines.append(printable(json.dumps({**fields, "also": also, "raw": first.raw}, ensure_ascii=False)) + "\n")
            Path(self.set_aside_file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(self.set_aside_file), "".join(lines))
        if errors and (self.bad_records == "stop" or not all(fault.record for fault in errors)):
            raise CorpusError(f"{errors[0]}; {ERRORS[errors[0].kind]}" if len(errors) == 1 else self.summary_of_faults())

    def counts(self) -> dict[str, int]:
        """Kind -> number of faults, in the order of ``ERRORS`` and then ``NOTES``."""
        counts = Counter(fault.kind for fault in self.faults)
        return {kind: counts[kind] for kind in REMEDIES if counts[kind]}

    def summary(self) -> str:
        """Text for people: a line per join that has names, then the count, remedy and first examples of each kind of fault."""
        return "\n".join([*(str(join) for join in self.joins if join.of), self.summary_of_faults()])

    def summary_of_faults(self) -> str:
        """``summary`` without the joins."""
        if not self.faults:
            return "no errors, no notes"
        counts = self.counts()
        errors, bad = len(self.of_severity("error")), len(self.bad())
        aside = ""
        if bad and self.bad_records == "stop":
            aside = f"; bad records: {bad}; mend them, or leave them out by bad_records: set_aside"
        elif bad:
            aside = f"; bad records: {bad}, set aside" + (f" in {self.set_aside_file}" if self.set_aside_file else "")
        lines = [f"{errors} errors, {len(self.faults) - errors} notes{aside}"]
        examples: dict[str, list[Fault]] = {kind: [] for kind in counts}
        for fault in self.faults:
            if len(examples[fault.kind]) < EXAMPLES or not fault.record:
                examples[fault.kind].append(fault)
        for kind, count in counts.items():
            lines.append(f"{examples[kind][0].severity} {kind}: {count} ({REMEDIES[kind]})")
            lines += [f"    {fault}" for fault in examples[kind]]
            lines += [f"    and {count - len(examples[kind])} more"] * (count > len(examples[kind]))
        return "\n".join(lines)

    def to_json(self) -> dict:
        """The report for programs: counts by severity and kind, and every fault."""
        counts = self.counts()
        return {
            "errors": sum(count for kind, count in counts.items() if kind in ERRORS),
            "notes": sum(count for kind, count in counts.items() if kind in NOTES),
            "kinds": {
                kind: {"severity": "error" if kind in ERRORS else "note", "count": count, "remedy": REMEDIES[kind]}
                for kind, count in counts.items()
            },
            "records": self.records,
            "joins": [join._asdict() for join in self.joins],
            "unusable_records": len(self.bad()),
            "faults": [
                {
                    "severity": fault.severity,
                    **{name: getattr(fault, name) for name in ("kind", "file", "record", "field", "message")},
                }
                for fault in self.faults
            ],
        }


@contextmanager
def collecting(report: Report | None):
    """Yield ``report``, which the caller finishes. Without one, yield a new report and finish it when the block ends."""
    used = Report() if report is None else report
    yield used
    if report is None:
        used.finish()


def shown(value: Any, most: int = 60) -> str:
    """A value as text for a message, cut after ``most`` characters."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[:most]}..."
