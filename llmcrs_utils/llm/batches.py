"""Instruction data -> what a causal LM reads."""

import pandas as pd
from transformers import PreTrainedTokenizerFast

from llmcrs_utils.text.fitting import fit
from llmcrs_utils.text.instructions import render_input
from llmcrs_utils.text.prompts import TEMPLATES, Prompts
from llmcrs_utils.text.shielding import plain, special_of

LETTER_TOKENS = 4  # a blank, a letter, the end token, and one to spare


def encode_instructions(
    instructions: pd.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Prompts,
    template: str,
    cutoff_len: int,
    max_new_tokens: int,
) -> tuple[list[dict], pd.DataFrame]:
    """One example per row, in order, and the report of ``fitting.fit``.

    An example holds ``prompt`` and ``answer`` (token ids, the answer closed by the end token). ``cutoff_len`` counts
    both: a prompt may take ``cutoff_len - max_new_tokens``, before a letter ``cutoff_len - LETTER_TOKENS``. Typed special
    tokens are plain text, in prompt and answer.
    """
    if template not in TEMPLATES:
        raise ValueError(f"template {template!r} is unknown; known: {', '.join(TEMPLATES)}")
    if template == "chat" and not tokenizer.chat_template:
        raise ValueError(f"template chat: the tokeniser of {tokenizer.name_or_path} has no chat template; give template: plain")
    special = special_of(tokenizer)
    rows = [
        {
            **row,
            **{name: plain(row[name], special) for name in ("instruction", "tail", "output")},
            "lines": [plain(line, special) for line in row["lines"]],
        }
        for row in instructions.to_dict("records")
    ]

    def render(index: int, dropped: int) -> str:
        row = rows[index]
        text = render_input(row["lines"][dropped:], row["tail"], prompts)
        return TEMPLATES[template].format(instruction=row["instruction"], input=text)

    def encode(texts: list[str]) -> list[list[int]]:
        if template == "chat":
            chats = [[{"role": "user", "content": text}] for text in texts]
            # A template that knows no thinking ignores the switch; one that does must answer at once, as it is tuned to.
            return tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False, enable_thinking=False)
        ids = tokenizer(texts)["input_ids"]
        # Some tokenisers close every text with the end token; a prompt must stay open.
        return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in ids]

    # A letter needs next to nothing of the room that a text answer may take.
    reserves = [LETTER_TOKENS if row["task"] == "recommend" else max_new_tokens for row in rows]
    droppable = [len(row["lines"]) - row["keep"] for row in rows]
    prompt_ids, report = fit(render, droppable, encode, [cutoff_len - reserve for reserve in reserves])
    answers = tokenizer([row["output"] for row in rows], add_special_tokens=False)["input_ids"]
    answers = [answer[: max_new_tokens - 1] + [tokenizer.eos_token_id] for answer in answers]
    return [{"prompt": p, "answer": a} for p, a in zip(prompt_ids, answers, strict=True)], report


