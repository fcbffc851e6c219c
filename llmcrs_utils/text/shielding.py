"""Rewrites text that a tokenizer would read as a control token: a shopper may type ``[SEP]``, ``[user]``, ``<sop>``, ``<think>``.

Tokenizers mark control tokens in several ways: as special tokens, as added tokens that are not called special, or as pieces of
their own type in a sentencepiece file. They also read them from text in several ways: as typed, in another case, or after
full-width signs became half-width. So this module searches for look-alikes generously, and then asks the tokenizer which of them
it would read as a control token.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WIDE_BRACKETS = str.maketrans("[]<>", "［］＜＞")
# For tokenizers that make full-width brackets half-width: brackets that no normalisation changes.
OTHER_BRACKETS = str.maketrans("[]<>{}|［］＜＞｛｝｜", "〔〕〈〉❴❵¦〔〕〈〉❴❵¦")
# The form of control tokens that are not called special but mean something to a chat template. An added word has no brackets.
MARK = re.compile(r"[<\[{|＜［｛｜【].+[>\]}|＞］｝｜】]", re.DOTALL)
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Special:
    """The control tokens of one tokenizer, and a search for their look-alikes in text.

    Args:
        special: special tokens. Text that equals one of them is always shielded.
        marks: further control tokens.
        read: text -> the control tokens that the tokenizer finds in it. A look-alike that differs from the special tokens in
            case or width, or resembles one of ``marks``, is shielded only if ``read`` finds a token in it.
    """

    def __init__(self, special: Iterable[str], marks: Iterable[str] = (), read: Callable[[str], set[str]] = lambda text: set()):
        special, marks = ([token for token in dict.fromkeys(tokens) if token.strip()] for tokens in (special, marks))
        self.special = any_of(special)
        self.lookalike = any_of(filter(None, map(folded, [*special, *marks])))
        self.read = read

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of each part that has to be shielded, from left to right."""
        if not self.lookalike.search(folded(text)) and not self.special.search(text):
            return  # a fast exit for nearly every text
        letters = [(letter, place) for place, character in enumerate(text) for letter in folded(character)]
        spans = [match.span() for match in self.special.finditer(text)]
        for match in self.lookalike.finditer("".join(letter for letter, _ in letters)):
            start, end = letters[match.start()][1], letters[match.end() - 1][1] + 1
            if self.read(text[start:end]):
                spans.append((start, end))
        reached = 0
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            if start >= reached:
                yield start, end
                reached = end


def special_of(tokenizer: PreTrainedTokenizerBase, split_special_tokens: bool = False) -> Special:
    """The control tokens of a tokenizer: its special tokens, and other control tokens in whatever way it holds them.

    Set ``split_special_tokens`` if the texts will be tokenized with this option. Then only text that becomes a control token in
    spite of it is shielded.
    """
    added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
    called_special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = [*tokenizer.all_special_tokens, *called_special]
    marks = {index: token for index, token in added.items() if token in special or MARK.fullmatch(token)}
    marks |= control_pieces(tokenizer)

    def read(text: str) -> set[str]:
        options = {"split_special_tokens": True} if split_special_tokens else {}
        ids = set(tokenizer([text], add_special_tokens=False, **options)["input_ids"][0])
        # A byte token of an unknown character was not typed as such; nor was an unknown token.
        return {
            token
            for index, token in marks.items()
            if index in ids and token != unknown and (not BYTE.fullmatch(token) or folded(token) in folded(text))
        }

    unknown = str(getattr(tokenizer, "unk_token", None))
    return Special([] if split_special_tokens else special, marks.values(), read)


def control_pieces(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Id -> token, for the control tokens in a sentencepiece file and the tokens that represent a byte."""
    file = getattr(tokenizer, "sp", None) or getattr(tokenizer, "sp_model", None)
    if file is None:
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        return {index: token for token, index in vocabulary.items() if BYTE.fullmatch(token)}
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    pieces = ModelProto.FromString(file.serialized_model_proto()).pieces
    controls, defined = (ModelProto.SentencePiece.CONTROL, ModelProto.SentencePiece.BYTE), ModelProto.SentencePiece.USER_DEFINED
    return {
        index: piece.piece
        for index, piece in enumerate(pieces)
        if piece.type in controls or piece.type == defined and MARK.fullmatch(piece.piece)
    }


def any_of(tokens: Iterable[str]) -> re.Pattern:
    """A pattern that matches any of these texts, the longest first. Without texts it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(set(tokens), key=len, reverse=True))) or r"(?!)")


def folded(text: str) -> str:
    """The text as the most tolerant tokenizer reads it: lower case, half-width, without accents and invisible characters."""
    if text.isascii() and text.isprintable():
        return text.lower()
    text = unicodedata.normalize("NFKD", text).casefold()
    return text if vanishing().isdisjoint(text) else "".join(character for character in text if character not in vanishing())


@cache
def vanishing() -> frozenset[str]:
    """Characters that normalisation may drop: accents, control characters (not blanks, tabs and line breaks), invisible ones."""
    kinds = ("Mn", "Cc", "Cf")
    return frozenset(c for c in map(chr, range(0x110000)) if unicodedata.category(c) in kinds and not c.isspace())


def shield(segment: str, special: Special) -> str:
    """A segment of a CRS's input: the marker stays, the text is made ``plain``."""
    marker, bracket, text = segment.partition("]")
    return marker + bracket + plain(text, special)


def plain(text: str, special: Special, same_length: bool = False) -> str:
    """The text without anything that the tokenizer would read as a control token. The rest of the text does not change.

    Brackets become full-width. If the tokenizer undoes that, they become other brackets. If that changes nothing (a token
    without brackets), a blank separates the first character from the rest. With ``same_length`` no character is added.
    """
    for _ in range(4):  # a rewritten part and the text beside it may look like another control token
        parts, done = [], 0
        for start, end in special.found(text):
            parts += [text[done:start], rewritten(text[start:end], special, same_length)]
            done = end
        if not done:
            return text
        shielded = "".join(parts) + text[done:]
        if shielded == text:
            return text
        text = shielded
    return text


def rewritten(found: str, special: Special, same_length: bool) -> str:
    """A look-alike, rewritten so that the tokenizer reads no control token in it."""
    ways = [found.translate(WIDE_BRACKETS), found.translate(OTHER_BRACKETS)]
    ways += ["·" * len(found)] if same_length else [f"{found[0]} {found[1:]}", " ".join(found), "·" * len(found)]
    return next((way for way in ways if not special.read(way)), ways[-1])
