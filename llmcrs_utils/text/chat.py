"""Messages in a checkpoint's own chat template, rendered alike on every day and on every machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The fixed date for templates that ask for today's date. It is the default date of Llama 3's template.
DAY = {
    "%A": "Friday", "%a": "Fri", "%B": "July", "%b": "Jul", "%h": "Jul", "%d": "26", "%e": "26", "%-d": "26", "%m": "07", "%-m": "7",
    "%Y": "2024", "%y": "24", "%j": "208", "%u": "5", "%w": "5", "%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24",
    "%H": "12", "%-H": "12", "%I": "12", "%-I": "12", "%M": "00", "%-M": "0", "%S": "00", "%-S": "0", "%f": "000000", "%p": "PM",
    "%T": "12:00:00", "%X": "12:00:00", "%R": "12:00", "%c": "Fri Jul 26 12:00:00 2024", "%s": "1721995200", "%Z": "UTC", "%z": "+0000",
    "%V": "30", "%U": "29", "%W": "30", "%G": "2024", "%C": "20", "%g": "24", "%n": "\n", "%t": "\t",
}  # fmt: skip
# A Jinja macro put before the template. It depends on no clock, time zone or locale.
FIXED_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f' | replace("{directive}", {value!r})' for directive, value in DAY.items())
    + ' | replace("%%", "%") }}{% endmacro %}\n'
)
RANDOMNESS = re.compile(r"""\|\s*random\b|\(\s*["']random["']|\blipsum\b""")


def chat_texts(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Each text as one message of the user in the chat template, up to the place where the answer begins.

    The template writes all control tokens, so such a text is tokenised without further special tokens.

    A template that asks for the date always gets 26 July 2024, noon, UTC, with English names.

    Raises:
        ValueError: for a tokenizer without a chat template, and for a template that uses random numbers.
    """
    if not tokenizer.chat_template:
        raise ValueError(f"template chat: the tokenizer of {tokenizer.name_or_path} has no chat template; give template: plain")
    template = tokenizer.get_chat_template()
    if RANDOMNESS.search(template):
        raise ValueError(
            f"template chat: the chat template of {tokenizer.name_or_path} makes part of its text at random; give template: plain"
        )
    if "strftime_now" in template:
        template = FIXED_DAY + template
    chats = [[{"role": "user", "content": text}] for text in texts]
    # Thinking is off, because models are tuned to answer at once. A template without thinking ignores the option.
    return tokenizer.apply_chat_template(
        chats, chat_template=template, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
