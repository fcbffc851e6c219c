"""Text of the data that cannot pass for a control token: a shopper may type ``[SEP]``, ``[user]``, ``<sop>`` or ``<think>``.

Tokenizers mark control tokens in several ways (special, added without being called special, pieces of a sentencepiece file that
are not ordinary ones) and read them from text in several ways (as typed, in another case, after full-width signs became
half-width). So look-alikes are found generously, and the tokenizer itself says which of them it would take for a token.
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
# Brackets that no normalisation makes half-width, for tokenizers that do so with the wide ones.
OTHER_BRACKETS = str.maketrans("[]<>{}|［］＜＞｛｝｜", "〔〕〈〉❴❵¦〔〕〈〉❴❵¦")
# How tokens look that mean something to a model's template and are not called special; a word that was added is a word.
MARK = re.compile(r"[<\[{|＜［｛｜【].+[>\]}|＞］｝｜】]", re.DOTALL)
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Special:
    """What no text may pass for, for one tokenizer.

    Args:
        special: tokens that are called special; whatever reads as they do is shielded in any case.
        marks: further control tokens, shielded where ``read`` says that the tokenizer takes the text for one.
        read: text -> the control tokens that the tokenizer finds in it.
    """

    def __init__(self, special: Iterable[str], marks: Iterable[str] = (), read: Callable[[str], set[str]] = lambda text: set()):
        special, marks = ([token for token in dict.fromkeys(tokens) if token.strip()] for tokens in (special, marks))
        self.special = any_of(special)
        self.lookalike = any_of(filter(None, map(folded, [*special, *marks])))
        self.read = read

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of what has to be shielded, from left to right."""
        if not self.lookalike.search(folded(text)) and not self.special.search(text):
            return  # nearly every text
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
    """What no text may pass for: special tokens, and other control tokens however the tokenizer holds them.

    With ``split_special_tokens`` texts are to be read so, and only what passes for a control token even then is shielded.
    """
    added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
    called_special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = [*tokenizer.all_special_tokens, *called_special]
    marks = {index: token for index, token in added.items() if token in special or MARK.fullmatch(token)}
    marks |= control_pieces(tokenizer)

    def read(text: str) -> set[str]:
        options = {"split_special_tokens": True} if split_special_tokens else {}
        ids = set(tokenizer([text], add_special_tokens=False, **options)["input_ids"][0])
        # A byte of an unknown character is none of what was typed, nor is an unknown token.
        return {
            token
            for index, token in marks.items()
            if index in ids and token != unknown and (not BYTE.fullmatch(token) or folded(token) in folded(text))
        }

    unknown = str(getattr(tokenizer, "unk_token", None))
    return Special([] if split_special_tokens else special, marks.values(), read)


def control_pieces(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Control tokens among the pieces of a sentencepiece file, and tokens that stand for a byte, by id."""
    file = getattr(tokenizer, "sp", None) or getattr(tokenizer, "sp_model", None)
    if file is None:
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        return {index: token for token, index in vocabulary.items() if BYTE.fullmatch(token)}
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    pieces = ModelProto.FromString(file.serialized_model_proto()).pieces
    controls, own = (ModelProto.SentencePiece.CONTROL, ModelProto.SentencePiece.BYTE), ModelProto.SentencePiece.USER_DEFINED
    return {
        index: piece.piece
        for index, piece in enumerate(pieces)
        if piece.type in controls or piece.type == own and MARK.fullmatch(piece.piece)
    }


def any_of(tokens: Iterable[str]) -> re.Pattern:
    """A pattern of these texts, of which a longer one comes before those that begin it; of none, one that is never found."""
    return re.compile("|".join(map(re.escape, sorted(set(tokens), key=len, reverse=True))) or r"(?!)")


def folded(text: str) -> str:
    """The text as the most forgiving tokenizer sees it: in lower case, half-width, without accents and invisible characters."""
    if text.isascii() and text.isprintable():
        return text.lower()
    text = unicodedata.normalize("NFKD", text).casefold()
    return text if vanishing().isdisjoint(text) else "".join(character for character in text if character not in vanishing())


@cache
def vanishing() -> frozenset[str]:
    """What normalisation may drop: accents, control characters (blanks, tabs and line breaks stay), invisible ones."""
    kinds = ("Mn", "Cc", "Cf")
    return frozenset(c for c in map(chr, range(0x110000)) if unicodedata.category(c) in kinds and not c.isspace())


def shield(segment: str, special: Special) -> str:
    """A segment of a CRS's input, its marker kept and its text plain."""
    marker, bracket, text = segment.partition("]")
    return marker + bracket + plain(text, special)


def plain(text: str, special: Special, same_length: bool = False) -> str:
    """The text with whatever would pass for a control token rewritten so that it does not, and otherwise as it is.

    The brackets become full-width; where the tokenizer undoes that, other brackets; where that changes nothing (a token without
    brackets), the first character is parted from the rest by a blank. With ``same_length`` no character is added.
    """
    for _ in range(4):  # what was rewritten may, with what stands beside it, look like another one
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
    """A look-alike as text that the tokenizer takes for no control token."""
    ways = [found.translate(WIDE_BRACKETS), found.translate(OTHER_BRACKETS)]
    ways += ["·" * len(found)] if same_length else [f"{found[0]} {found[1:]}", " ".join(found), "·" * len(found)]
    return next((way for way in ways if not special.read(way)), ways[-1])
