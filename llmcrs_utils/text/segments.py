"""Task samples as UniMIND's segments, which a CRS reads (paper section 3.3), as do some of the typical systems."""

from llmcrs_utils.text.fitting import Piece, shorten
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.shielding import Special, plain, shield

# Segments that lose their beginning if a turn is too long for a model: first the text of the turn, then its annotations.
SHORTENING_ORDER = {"[user]": 1, "[system]": 1, "[understand]": 2}


def crs_segments(sample: dict, prompts: Prompts, help: dict | None, special: Special) -> tuple[list[str], str]:
    """The earlier turns as text, oldest first, and the part that must stay: current turn, assistant's answer and prompt."""
    droppable, kept = crs_pieces(sample, prompts, help, special)
    return droppable, shorten(kept)


def crs_pieces(sample: dict, prompts: Prompts, help: dict | None, special: Special) -> tuple[list[str], list[Piece]]:
    """As ``crs_segments``, with the part that must stay in pieces."""
    droppable = ["".join(shield(segment, special) for segment in turn) for turn in sample["context"]]
    kept = [piece for segment in sample["current"] for piece in segment_pieces(segment, special)]
    if help is not None and help["usable"] and sample["task"] != "recommend":
        kept.append(Piece("[LLM]" + plain(help["text"], special)))
    return droppable, [*kept, Piece(prompts.crs[sample["task"]])]


def segment_pieces(segment: str, special: Special) -> list[Piece]:
    """A segment of the current turn as two pieces: its marker and its text."""
    marker, bracket, text = shield(segment, special).partition("]")
    return [Piece(marker + bracket), Piece(text, SHORTENING_ORDER.get(marker + bracket, 0))]
