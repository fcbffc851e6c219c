"""Bytes on disk <-> text, JSON records and CSV fields. Broken parts are returned with their place, never dropped."""

import codecs
import json
import math
import re
from dataclasses import dataclass
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")  # not a character: an undecodable byte (see decode), or half of an escape in JSON
# UTF-32 comes before UTF-16, because its mark begins with UTF-16's.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BETWEEN_RECORDS = re.compile(r"[\s,]*")
QUOTED = re.compile(r'"((?:[^"]|"")*)"')
FIELD = re.compile(r'"(?:[^"]|"")*"(?=,|$)|[^,]*')
LINE_BREAK = re.compile("[\r\n]")
CONTROL_BYTES = bytes({*range(32), 127} - set(b"\t\n\r"))
# Invisible characters: blanks of every width, control characters, and characters that a font may ignore by Unicode's rules,
# such as zero-width blanks and byte-order marks; also the blank letters of Hangul and Braille.
UNSEEN = (
    r"\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
BLANK = re.compile(f"[{UNSEEN}]*")
UNSEEN_AROUND = re.compile(f"^[{UNSEEN}]+|[{UNSEEN}]+$")


# --- text


def decode(data: bytes, encoding: str) -> str:
    """Decode ``data`` from ``encoding``. A byte-order mark takes precedence over ``encoding``.

    A byte that the encoding does not have becomes the character U+DC00 plus that byte.

    Raises:
        LookupError: if there is no such text encoding.
    """
    encoding = next((marked for mark, marked in BYTE_ORDER_MARKS.items() if data.startswith(mark)), encoding)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        codecs.register_error("keep_bytes", keep_bytes)
        is_utf_8 = codecs.lookup(encoding).name == "utf-8"
        text = data.decode(encoding, "surrogateescape" if is_utf_8 else "keep_bytes")  # the same result for UTF-8, but fast
    except (LookupError, ValueError):  # ValueError comes from codecs that are not file encodings, such as idna
        raise LookupError(f"encoding {encoding!r} is unknown; known are utf-8, gb18030, big5, utf-16 and others") from None
    return text.removeprefix("\ufeff")


def keep_bytes(error: UnicodeDecodeError) -> tuple[str, int]:
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


def holds_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def holds_control(text: str) -> bool:
    """Whether ``text`` holds a control character other than tab and line breaks. Fast on long texts too."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data.translate(None, CONTROL_BYTES)) < len(data)


def is_blank(text: str) -> bool:
    """Whether nothing in ``text`` is visible: it is empty, or holds only blanks and invisible characters."""
    return BLANK.fullmatch(text) is not None


def printable(text: str) -> str:
    """``text`` with lone surrogates replaced by their JSON escapes, so that it can be written in UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# --- JSON


class RepeatedField(dict):
    """A JSON object that has one field twice. It holds the last value."""


@dataclass(frozen=True)
class Broken:
    """A part of a file that is not valid JSON.

    Attributes:
        line, column: where it begins.
        message: where and why reading failed.
        text: the part itself.
    """

    line: int
    column: int
    message: str
    text: str


def parse_json(text: str, identifier: str) -> tuple[list[Any], list[Broken]]:
    """The records of a JSON list, or of one object after another (JSON lines), and the broken parts between them.

    After a broken part, reading goes on at the next object that has the field ``identifier``. Control characters inside
    strings are accepted. NaN and Infinity become ``None``.
    """
    try:
        whole = DECODER.decode(text)
        return (whole if isinstance(whole, list) else [whole]), []
    except (ValueError, RecursionError):
        pass
    records, broken = [], []
    place = BETWEEN_RECORDS.match(text).end()
    in_list = text.startswith("[", place)
    place += in_list
    line, counted = 1, 0  # ``line`` is the line of position ``counted``
    while True:
        place = BETWEEN_RECORDS.match(text, place).end()
        if in_list and text.startswith("]", place):
            in_list = False
            place += 1
            continue
        if place == len(text) and not in_list:
            return records, broken
        try:
            record, place = DECODER.raw_decode(text, place)
            records.append(record)
        except (ValueError, RecursionError) as error:
            end = next_record(text, place, identifier)
            line, counted = line + text.count("\n", counted, place), place
            column = place - text.rfind("\n", 0, place)
            broken.append(Broken(line, column, place_of(error), text[place:end]))
            in_list &= end < len(text)
            place = end


def next_record(text: str, place: int, identifier: str) -> int:
    """Position of the next object after ``place`` that has ``identifier`` among its first plain fields, else the text's end."""
    opening = re.compile(r'\{(?=[^{}\[\]]*"%s"\s*:)' % re.escape(identifier)).search(text, place + 1)
    return opening.start() if opening else len(text)


def place_of(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
    return f"not valid JSON ({error})"


def object_of(pairs: list[tuple[str, Any]]) -> dict:
    record = dict(pairs)
    return record if len(record) == len(pairs) else RepeatedField(record)


def finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


DECODER = json.JSONDecoder(strict=False, object_pairs_hook=object_of, parse_float=finite, parse_constant=lambda name: None)


# --- CSV


def split_lines(text: str) -> list[str]:
    """The lines of a text with any kind of line break. ``str.splitlines`` would also cut at rarer characters."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def split_fields(line: str, columns: int, free_text_last: bool) -> tuple[list[str], bool]:
    """The fields of a line, and whether one begins with a quote that is never closed.

    Quotes around a field are removed if it begins and ends with ``"`` and every quote inside is doubled, as CSV writers do.
    Any other quote is an ordinary character. With ``free_text_last`` the last of the ``columns`` fields takes the rest of
    the line, commas included.
    """
    if '"' not in line:
        return line.split(",", columns - 1 if free_text_last else -1), False
    fields, place = [], 0
    while True:
        if free_text_last and len(fields) == columns - 1:
            field = line[place:]
        else:
            field = FIELD.match(line, place).group()
        place += len(field) + 1
        fields.append(field)
        if place > len(line):
            break
    quoted = [QUOTED.fullmatch(field) for field in fields]
    unclosed = any(field.startswith('"') and not match for field, match in zip(fields, quoted, strict=True))
    return [match[1].replace('""', '"') if match else field for field, match in zip(fields, quoted, strict=True)], unclosed


def quote(field: str, free_text: bool = False) -> str:
    """``field``, quoted if ``split_fields`` needs it. Set ``free_text`` for the last field of a line, which may hold commas."""
    if field.startswith('"') or ("," in field and not free_text):
        return '"' + field.replace('"', '""') + '"'
    return field
