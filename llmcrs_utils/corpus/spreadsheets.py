"""Tables that a spreadsheet program exported as CSV, with all that Excel does to them.

* Encoding: UTF-8 with or without a byte-order mark, UTF-16 with one, else GB18030. An English table whose bytes are not pairs, as those
  of Chinese are, is in Windows-1252.
* Columns are separated by commas, semicolons or tabs: by what finds the most of the wanted columns in the first line.
* Cells in double quotes may hold separators, line breaks and doubled quotes. Lines may end as on Windows, Unix or old Macs.
* Lines without any text are skipped. Columns without a name are left out.
* Cells are texts. The blanks around them are cut off, and nothing else is changed: ``1001``, ``01001`` and ``1001.0`` differ.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmcrs_utils.corpus.faults import CorpusError, shown
from llmcrs_utils.corpus.reading import BYTE_ORDER_MARKS, SURROGATE, UNSEEN_AROUND, decode
from llmcrs_utils.files.paths import located

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how files of Excel itself begin: .xlsx and .xls
SAVE_AS = 'save the table as "CSV UTF-8"'
UNPAIRED_BYTE = re.compile(rb"(?<![\x80-\xff])(?:[\x80-\xff]{2})*[\x80-\xff](?![\x80-\xff])")
CUT_NUMBER = re.compile(r"\d(?:[.,]\d+)?E\+\d+")  # what Excel makes of a long number: 6.92E+12
# A zone behind the time is left out.
CLOCK = r"(?P<hour>\d{1,2})[:：](?P<minute>\d{2})(?:[:：](?P<second>\d{2})(?:[.,](?P<part>\d{1,6})\d*)?)?\s*(?:Z|[+-]\d{2}:?\d{2})?"
TIME_FORMS = (
    re.compile(r"(?P<year>\d{4})[-/.年](?P<month>\d{1,2})[-/.月](?P<day>\d{1,2})(?:T|日\s*|\s+)" + CLOCK),
    re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4}),?\s+" + CLOCK),
)


@dataclass(frozen=True)
class Sheet:
    """A table as it was exported.

    Attributes:
        file: its path, for messages.
        written: its encoding and separator, for people.
        columns: the names in its first line.
        rows: one list of cells per row, as long as ``columns``.
        lines: the line of the file in which each row begins, from 1.
    """

    file: str
    written: str
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def cells(self, place: int | None) -> list[str]:
        """The cells of a column; blank ones if ``place`` is ``None``, for a column that the table does not have."""
        return [""] * len(self.rows) if place is None else [row[place] for row in self.rows]

    def wrong(self, rows: Sequence[int], place: int, message: str, remedy: str) -> CorpusError:
        """The error of the first of ``rows``: file, line, column, value, message, how many more there are, remedy."""
        value = shown(self.rows[rows[0]][place])
        more = f" (and {len(rows) - 1} more like it)" if len(rows) > 1 else ""
        return CorpusError(f"{self.file}: line {self.lines[rows[0]]}, column {self.columns[place]}: {value} {message}{more}; {remedy}")


def read_sheet(path: str | Path, wanted: dict[str, Sequence[str]], language: str) -> Sheet:
    """Read an exported table.

    Args:
        wanted: as for ``find_columns``; tells which separator the file has.
        language: of the table, ``zh`` or ``en``.

    Raises:
        CorpusError: for a file that cannot be read, is no text or in no known encoding, is empty or has only a first line, for a
            quote that is not closed, and for a row with more cells than columns. It names file, line and remedy.
    """
    path = located(path)
    text, encoding = sheet_text(path, language)
    marks, first = list(SEPARATORS), 1
    if text[:4].lower() == "sep=" and text[4:5] in SEPARATORS:  # Excel's own line, which names the separator
        marks, first = [text[4]], 2
        text = text[5:].lstrip("\r").removeprefix("\n")
    names = {form_of_name(name) for names in wanted.values() for name in names}
    headers = {mark: header_of(path, text, mark) for mark in marks}
    mark = max(marks, key=lambda mark: (len(names & set(map(form_of_name, headers[mark]))), len(headers[mark])))
    records = sheet_records(path, text, mark, first)
    columns = next(records)[1]
    named = [place for place, name in enumerate(columns) if name]
    rows, lines = [], []
    for line, cells in records:
        if any(cells[len(columns) :]):
            raise CorpusError(
                f"{path}: line {line} has {len(cells)} cells, the first line {len(columns)}; "
                f"put double quotes around a cell that holds a separator, or {SAVE_AS}"
            )
        cells += [""] * (len(columns) - len(cells))
        rows.append([cells[place] for place in named])
        lines.append(line)
    if not rows:
        raise CorpusError(f"{path}: has nothing below its first line; export it again")
    return Sheet(str(path), f"{encoding}, {SEPARATORS[mark]}", [columns[place] for place in named], rows, lines)


def sheet_text(path: Path, language: str) -> tuple[str, str]:
    """The text of a file, without a byte-order mark, and the name of its encoding."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); give the path of a CSV file") from None
    if data.startswith(WORKBOOKS):
        raise CorpusError(f"{path}: is a workbook, not a CSV file; {SAVE_AS}")
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    other = "windows-1252" if language == "en" and UNPAIRED_BYTE.search(data) else "gb18030"
    for encoding in [marked] if marked else ["utf-8", other]:
        text = decode(data, encoding)
        lost = SURROGATE.search(text)
        if not lost:
            break
    else:
        line = text.count("\n", 0, lost.start()) + 1
        raise CorpusError(f"{path}: line {line} holds bytes that are neither UTF-8 nor {encoding.upper()}; {SAVE_AS}")
    if "\0" in text:
        raise CorpusError(f"{path}: holds zero bytes, as no text does; {SAVE_AS}")
    if not text.strip():
        raise CorpusError(f"{path}: holds nothing; export it again")
    return text, encoding.upper()


def sheet_records(path: Path, text: str, separator: str, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """(line in which it begins, cells) of each record that is not blank. ``first`` is the number of the first line of ``text``."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = first
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                f"{path}: line {line}: the quotes of this row do not fit together ({error}); double each quote inside a quoted cell "
                f"and close the cell with one, or {SAVE_AS}"
            ) from None
        if cells is None:
            return
        cells = [trimmed(cell) for cell in cells]
        if any(cells):
            yield line, cells
        line = reader.line_num + first


def trimmed(cell: str) -> str:
    """The cell without the blanks around it, its line breaks as ``\\n``."""
    return UNSEEN_AROUND.sub("", cell).replace("\r\n", "\n").replace("\r", "\n")


def header_of(path: Path, text: str, separator: str) -> list[str]:
    """The first record, as this separator cuts it; empty if it does not cut it properly."""
    try:
        return next(sheet_records(path, text, separator))[1]
    except (CorpusError, StopIteration):
        return []


# --- columns


def form_of_name(name: str) -> str:
    """The form in which names of columns are compared: upper and lower case, blanks, ``_`` and ``-`` make no difference."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def find_columns(sheet: Sheet, wanted: dict[str, Sequence[str]], required: Sequence[str]) -> dict[str, int | None]:
    """The place of each wanted column in ``sheet``; ``None`` for one that is not there.

    Args:
        wanted: key -> the names that the column may have; the first of them that the table has is taken.
        required: keys of the columns that have to be there.

    Raises:
        CorpusError: for a required column that is missing, and for a name that two columns have.
    """
    forms = [form_of_name(name) for name in sheet.columns]
    twice = next((name for name, form in zip(sheet.columns, forms, strict=True) if forms.count(form) > 1), None)
    if twice is not None:
        raise CorpusError(f"{sheet.file}: two columns are called {twice}; rename or remove one of them")
    found = {}
    for key, names in wanted.items():
        found[key] = next((forms.index(form) for form in map(form_of_name, names) if form in forms), None)
        if found[key] is None and key in required:
            raise CorpusError(
                f"{sheet.file}: column {key} is missing; its columns are {', '.join(sheet.columns)}; "
                f"rename the right one to one of: {', '.join(names)}"
            )
    return found


def check_cells_filled(sheet: Sheet, place: int) -> None:
    """Raise a ``CorpusError`` if a cell of the column is blank."""
    blank = [row for row, cell in enumerate(sheet.cells(place)) if not cell]
    if blank:
        raise sheet.wrong(blank, place, "is blank", "fill it in, or remove the row")


def check_uncut(sheet: Sheet, place: int) -> None:
    """Raise a ``CorpusError`` if a cell of the column holds a number that Excel cut, such as ``6.92E+12``."""
    cut = [row for row, cell in enumerate(sheet.cells(place)) if CUT_NUMBER.search(cell)]
    if cut:
        raise sheet.wrong(cut, place, "is a number that Excel cut", "format the column as text in the original table, and export it again")


def times_of_column(sheet: Sheet, place: int) -> list[datetime]:
    """The times of a column, without their zones.

    ``2024-05-01 13:05:00`` (ISO, also with ``T``, parts of a second and a zone), ``2024/5/1 13:05``, ``2024.5.1 13:05``,
    ``2024年5月1日 13:05`` and ``01.05.2024 13:05`` are read. The order of day and month in ``01/05/2024`` is not guessed.

    Raises:
        CorpusError: for the first cell that is no time.
    """
    times = [time_of(cell) for cell in sheet.cells(place)]
    bad = [row for row, time in enumerate(times) if time is None]
    if bad:
        raise sheet.wrong(bad, place, "is no time", "write 2024-05-01 13:05:00 (or 2024/5/1 13:05, 01.05.2024 13:05): a date that exists, and a time")
    return times


def time_of(text: str) -> datetime | None:
    for form in TIME_FORMS:
        match = form.fullmatch(text)
        if match:
            part = match.groupdict()
            whole = [int(part[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")]
            try:
                return datetime(*whole, int((part["part"] or "").ljust(6, "0")))
            except ValueError:
                return None
    return None
