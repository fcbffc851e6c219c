"""Names that people chose (of categories, corpora, systems) are text in what is drawn and written, never markup."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LINE_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
IN_MARKDOWN = re.compile(r"[\\`*_\[\]<>~$&#]")
# What makes a list, a heading or a rule of a line that begins with it.
BEGINS_A_BLOCK = re.compile(r"^(\d*)([-+=.)])")
IN_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
IN_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ELLIPSIS = "…"


def figure_text(text: str) -> str:
    """``text`` as matplotlib shows it as it is: dollar signs begin no formula."""
    return text.replace("$", r"\$")


def markdown_text(text: str) -> str:
    """``text`` as GitHub and notebooks show it as it is, on one line; the bars are left to ``tables.markdown_lines``."""
    text = IN_MARKDOWN.sub(r"\\\g<0>", LINE_BREAKS.sub(" ", text))
    return BEGINS_A_BLOCK.sub(r"\1\\\2", text)


def latex_text(text: str) -> str:
    """``text`` as LaTeX prints it as it is, on one line."""
    return LINE_BREAKS.sub(" ", text).translate(str.maketrans(IN_LATEX))


def width(text: str) -> int:
    """Columns that a text takes: Chinese characters and others of full width take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def shortened(names: Sequence[str], most: int) -> list[str]:
    """The names in ``most`` columns each. Different names stay different.

    A long name loses its end; where that would make two names alike, its middle; where that would too, it ends in a number.
    """
    cuts = {name: [name] if width(name) <= most else [_cut(name, most, 0), _cut(name, most, (most - 1) // 2)] for name in names}
    short = {}
    for level in (0, 1):
        left = [name for name in cuts if name not in short]
        forms = {name: cuts[name][min(level, len(cuts[name]) - 1)] for name in left}
        counts = Counter([*forms.values(), *short.values()])
        short |= {name: form for name, form in forms.items() if counts[form] == 1}
    for name in cuts:
        number = 1
        while name not in short:
            number += 1
            ending = f"{ELLIPSIS}{number}"
            form = _fitting(name, most - width(ending)) + ending
            if form not in short.values():
                short[name] = form
    return [short[name] for name in names]


def _cut(name: str, most: int, end: int) -> str:
    """``name`` in ``most`` columns, at most ``end`` of them from its end."""
    tail = _fitting(name[::-1], end)[::-1]
    return _fitting(name, most - 1 - width(tail)) + ELLIPSIS + tail


def _fitting(text: str, most: int) -> str:
    """The beginning of ``text`` that fits in ``most`` columns."""
    while width(text) > most:
        text = text[:-1]
    return text
