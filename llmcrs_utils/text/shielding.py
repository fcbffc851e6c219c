"""Text of the data that cannot pass for a special token: a shopper may type ``[SEP]``, ``[user]`` or ``<sop>``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WIDE_BRACKETS = str.maketrans("[]<>", "［］＜＞")


def special_of(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    """What no text may pass for: the tokeniser's special tokens, those that only its chat template uses included."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, dict.fromkeys([*tokenizer.all_special_tokens, *added]))))


def shield(segment: str, special: re.Pattern) -> str:
    """A segment of a CRS's input, its marker kept and its text plain."""
    marker, bracket, text = segment.partition("]")
    return marker + bracket + plain(text, special)


def plain(text: str, special: re.Pattern) -> str:
    """The text with the brackets of whatever looks like a special token full-width, and otherwise as it is."""
    return special.sub(lambda match: match.group().translate(WIDE_BRACKETS), text)
