"""Joins between files by an identifier: how many names of one file the other has, and how many more it would if written alike."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from llmcrs_utils.corpus.faults import Join, Report, shown
from llmcrs_utils.corpus.reading import UNSEEN_AROUND

WHOLE_NUMBER = re.compile(r"0*(\d+?)(?:\.0*)?")
IN_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.0*)?")
IN_POWERS_OF_TEN = re.compile(r"\d+(?:\.\d+)?e\+?\d{1,2}")
QUOTES = "'\"`‘’“”"


@dataclass(frozen=True)
class Side:
    """The identifiers of one kind in one place, such as the users of the dialogues."""

    name: str  # in the plural, with the place: "users of the dialogues"
    names: frozenset[str]

    @cached_property
    def by_form(self) -> dict[str, str]:
        """``written_alike(identifier)`` -> identifier. Where several share a form, the first in alphabetical order."""
        forms: dict[str, str] = {}
        for name in self.names:
            form = written_alike(name)
            forms[form] = min(name, forms.get(form, name))
        return forms


def side(name: str, names: Iterable[str]) -> Side:
    return Side(name, frozenset(names))


def written_alike(name: str) -> str:
    """The identifier in the form that is compared where the two sides may write it differently.

    Blanks and quotes around it, upper and lower case, and full and half width make no difference. Neither does the way a
    number is written: ``12``, ``0012`` and ``12.0`` are equal, and so are ``1,200``, ``1.2E+3`` and ``1200``.
    """
    if name.isascii() and name.isdigit():  # a fast path: most are, and a corpus has a hundred thousand of them
        return name.lstrip("0") or "0"
    text = name if name.isascii() else unicodedata.normalize("NFKC", name)
    text = UNSEEN_AROUND.sub("", UNSEEN_AROUND.sub("", text).strip(QUOTES)).casefold()
    if not text[:1].isdecimal():
        return text
    if IN_THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif IN_POWERS_OF_TEN.fullmatch(text):
        number = Decimal(text)
        text = str(int(number)) if number == int(number) else text
    whole = WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def count_join(report: Report, file: str | Path, left: Side, right: Side) -> None:
    """Count in ``report`` how many identifiers of ``left`` are also in ``right``.

    A note is added if both sides have identifiers and none matches, or if more would match when written alike.

    Args:
        file: the file to correct, which the note names.
    """
    missing = left.names - right.names
    matched = len(left.names) - len(missing)
    near = [name for name in missing if written_alike(name) in right.by_form] if missing and right.names else []
    report.joins.append(Join(left.name, right.name, matched, len(left.names), len(near)))
    if not right.names or not missing:
        return
    alike = ""
    if near:
        first = min(near)
        example = f"{shown(first)} and {shown(right.by_form[written_alike(first)])}"
        alike = f"{len(near)} would match if both were written alike, for example {example}"
    if not matched:
        message = f"none of the {len(left.names)} {left.name} is among the {right.name}"
        report.add("no_match", file, message=message + (f"; {alike}" if alike else ""))
    elif near:
        report.add("near_match", file, message=f"of {len(missing)} {left.name} that are not among the {right.name}, {alike}")
