"""Categories of PSCon's products, which PSCon does not name: ten groups by a fixed table of words, and the rest.

A text belongs to the group of the longest word of the table that it holds; of equally long ones the first counts. Latin words
count as whole words, also in the plural, and in upper or lower case; Chinese words count anywhere in the text.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

REST = {"zh": "其他", "en": "Other"}


def category_of(texts: Iterable[str], language: str) -> str:
    """The group of the first text that has one, by its name in ``language`` (``zh`` or ``en``); ``其他`` or ``Other`` if none has."""
    groups, pattern = category_words()
    for text in texts:
        found = [match.group(1) for match in pattern.finditer(text.casefold())]
        if found:
            return groups[max(found, key=len)][language]
    return REST[language]


@cache
def category_words() -> tuple[dict[str, dict], re.Pattern]:
    """Word -> its group (with a name in each language), and the pattern that finds the words, the longest at each place."""
    table = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    groups = {word: group for group in table for word in group["words"]}
    words = sorted(groups, key=len, reverse=True)
    latin = "|".join(re.escape(word) for word in words if word.isascii())
    other = "|".join(re.escape(word) for word in words if not word.isascii())
    # A lookahead, so that a word that begins inside another is found as well.
    return groups, re.compile(f"(?=((?<![a-z0-9])(?:{latin})(?=(?:s|es)?(?![a-z0-9]))|{other}))")
