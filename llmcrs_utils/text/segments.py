"""A task sample as UniMIND's segments: what a CRS reads (paper section 3.3), and some of the typical systems with it."""

import re

from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.shielding import plain, shield


def crs_segments(sample: dict, prompts: Prompts, help: dict | None, special: re.Pattern) -> tuple[list[str], str]:
    """(earlier turns as text, oldest first; what must stay: the current turn, the assistant's answer, the prompt)."""
    droppable = ["".join(shield(segment, special) for segment in turn) for turn in sample["context"]]
    current = "".join(shield(segment, special) for segment in sample["current"])
    if help is not None and help["usable"] and sample["task"] != "recommend":
        current += "[LLM]" + plain(help["text"], special)
    return droppable, current + prompts.crs[sample["task"]]
