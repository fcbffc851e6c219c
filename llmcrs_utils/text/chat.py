"""A message put as a checkpoint's own chat template puts it, the same on every day and on every machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The day that a template which asks for today's date is told: the one that Llama 3's template names where nobody tells it a date.
DAY = {
    "%A": "Friday", "%a": "Fri", "%B": "July", "%b": "Jul", "%h": "Jul", "%d": "26", "%e": "26", "%-d": "26", "%m": "07", "%-m": "7",
    "%Y": "2024", "%y": "24", "%j": "208", "%u": "5", "%w": "5", "%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24",
    "%H": "12", "%-H": "12", "%I": "12", "%-I": "12", "%M": "00", "%-M": "0", "%S": "00", "%-S": "0", "%f": "000000", "%p": "PM",
    "%T": "12:00:00", "%X": "12:00:00", "%R": "12:00", "%c": "Fri Jul 26 12:00:00 2024", "%s": "1721995200", "%Z": "UTC", "%z": "+0000",
    "%V": "30", "%U": "29", "%W": "30", "%G": "2024", "%C": "20", "%g": "24", "%n": "\n", "%t": "\t",
}  # fmt: skip
# Jinja's own words, so that no setting of the clock, of a time zone or of a language comes in; it stands before the template.
FIXED_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f' | replace("{directive}", {value!r})' for directive, value in DAY.items())
    + ' | replace("%%", "%") }}{% endmacro %}\n'
)
CHANCE = re.compile(r"""\|\s*random\b|\(\s*["']random["']|\blipsum\b""")


def chat_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text as one message of the user, up to where the answer begins.

    A template that asks for the date is told 26 July 2024, noon, UTC, with English names.

    Raises:
        ValueError: for a tokenizer without a chat template, and for a template that draws lots.
    """
    if not tokenizer.chat_template:
        raise ValueError(f"template chat: the tokenizer of {tokenizer.name_or_path} has no chat template; give template: plain")
    template = tokenizer.get_chat_template()
    if CHANCE.search(template):
        raise ValueError(
            f"template chat: the chat template of {tokenizer.name_or_path} makes part of its text at random; give template: plain"
        )
    if "strftime_now" in template:
        template = FIXED_DAY + template
    chats = [[{"role": "user", "content": text}] for text in texts]
    # A template that knows no thinking ignores the switch; one that does must answer at once, as it is tuned to.
    return tokenizer.apply_chat_template(
        chats, chat_template=template, add_generation_prompt=True, return_dict=False, enable_thinking=False
    )
