"""Instruction data -> the inputs of a causal LM."""

from bisect import bisect_right
from collections.abc import Callable
from os.path import commonprefix

import pandas as pd
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmcrs_utils.text.chat import chat_texts
from llmcrs_utils.text.fitting import fit
from llmcrs_utils.text.instructions import render_input, without_label
from llmcrs_utils.text.prompts import LETTERS, TEMPLATES, Prompts
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import DESCRIPTION

LETTER_TOKENS = 4  # tokens reserved for a letter as answer: a blank, the letter, the end token, and one to spare


def encode_instructions(
    instructions: pd.DataFrame,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Prompts,
    template: str,
    cutoff_len: int,
    max_new_tokens: int,
) -> tuple[list[dict], pd.DataFrame]:
    """One example per row, in order, and the report of ``fitting.fit``.

    An example holds ``prompt`` and ``answer`` as token ids; the answer ends with the end token. Special tokens that people typed
    are plain text in both. Of a ranking by scores of candidates the answer is empty, ``candidates`` holds the place in the prompt
    of the last token of each description, and ``gold`` the right candidate's number. Of a ranking by likelihood the answer is the
    right candidate's description, ``kind`` is ``DESCRIPTION``, ``descriptions`` holds those of all candidates, as answers, and ``background`` is the prompt
    without the dialogue.

    Args:
        template: one of ``TEMPLATES``.
        cutoff_len: most tokens of prompt and answer together. A prompt may have ``cutoff_len - max_new_tokens``, or
            ``cutoff_len - LETTER_TOKENS`` if the answer is a letter, or ``cutoff_len`` less the longest of all descriptions, which
            are cut to half of it. It is lowered to the model's number of positions, which ``load_tokenizer`` stores in the tokenizer.
        max_new_tokens: most tokens of an answer that is not a description.

    Raises:
        ValueError: for an unknown template, for a tokenizer without end token, with ``chat`` for one without chat template, for
            candidates that cannot be found in a chat template's text, and for a prompt that exceeds the model's positions even
            without the current turn's text.
    """
    if template not in TEMPLATES:
        raise ValueError(f"template {template!r} is unknown; known: {', '.join(TEMPLATES)}")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no end token to close an answer with; name its eos_token")
    special = special_of(tokenizer)
    rows = [
        {
            **row,
            **{name: plain(row[name], special) for name in ("instruction", "output")},
            "lines": [plain(line, special) for line in row["lines"]],
            "described": [plain(description, special) for description in row["described"]],
            "ends": [plain(part, special) for part in (row["tail"][: row["in_tail"]], row["tail"][row["in_tail"] :])],
        }
        for row in instructions.to_dict("records")
    ]
    turns = [
        [without_label(line, prompts) for line in (*row["lines"][len(row["lines"]) - row["keep"] :], row["ends"][0])] for row in rows
    ]

    def render(index: int, dropped: int, lost: int = 0) -> str:
        row = rows[index]
        kept = []
        for label, spoken in turns[index]:
            kept.append(label + spoken[lost:])
            lost = max(0, lost - len(spoken))
        lines = [*row["lines"][dropped : len(row["lines"]) - row["keep"]], *kept[:-1]]
        text = render_input(lines, kept[-1] + row["ends"][1], prompts)
        return TEMPLATES[template].format(instruction=row["instruction"], input=text)

    def tokens_of(texts: list[str]) -> list[list[int]]:
        if template == "chat":
            return tokenizer(texts, add_special_tokens=False)["input_ids"]
        ids = tokenizer(texts)["input_ids"]
        # Some tokenizers add the end token to every text, but a prompt must stay open.
        return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in ids]

    def encode(texts: list[str]) -> list[list[int]]:
        return tokens_of(chat_texts(texts, tokenizer) if template == "chat" else texts)

    cutoff_len = min(cutoff_len, tokenizer.model_max_length)
    described = descriptions_of(rows, tokenizer, cutoff_len // 2)
    # A letter as answer needs far fewer tokens than a text. What is left for the dialogue does not depend on the sample's candidates.
    reserve_of = {"letter": LETTER_TOKENS, "candidates": 0, "likelihood": max(map(len, described.values()), default=0), "": max_new_tokens}
    reserves = [reserve_of[row["ranking"]] for row in rows]
    droppable = [len(row["lines"]) - row["keep"] for row in rows]
    shortenable = [sum(len(spoken) for _, spoken in turn) for turn in turns]
    limits, positions = ([most - reserve for reserve in reserves] for most in (cutoff_len, tokenizer.model_max_length))
    prompt_ids, report = fit(render, droppable, encode, limits, shortenable, positions)
    too_long = [tokens > most for tokens, most in zip(report["tokens"], positions, strict=True)]
    if any(too_long):
        place = too_long.index(True)
        raise ValueError(
            f"sample {rows[place]['sample_id']}: {report['tokens'][place]} tokens are left of its prompt without any of the current turn's "
            f"text, and {reserves[place]} are for the answer, but the model has {tokenizer.model_max_length} positions; take a model with "
            "more positions, or describe the products in fewer words"
        )
    answers = tokenizer([row["output"] for row in rows], add_special_tokens=False)["input_ids"]
    answers = [answer[: max_new_tokens - 1] + [tokenizer.eos_token_id] for answer in answers]
    examples = [{"prompt": p, "answer": a} for p, a in zip(prompt_ids, answers, strict=True)]
    likely = [place for place, row in enumerate(rows) if row["ranking"] == "likelihood"]
    asked = list({rows[place]["instruction"]: None for place in likely})
    unsaid = encode([TEMPLATES[template].format(instruction=text, input=render_input([], "", prompts)) for text in asked]) if asked else []
    background = dict(zip(asked, unsaid, strict=True))
    for place in likely:
        row = rows[place]
        descriptions = [described[text] for text in row["described"]]
        examples[place] |= {"answer": described[row["output"]], "kind": DESCRIPTION, "descriptions": descriptions, "background": background[row["instruction"]]}
    scored = [place for place, row in enumerate(rows) if row["ranking"] == "candidates"]
    texts = [render(place, report["cut"][place], report["shortened"][place]) for place in scored]
    texts = chat_texts(texts, tokenizer) if template == "chat" and texts else texts
    ends = [ends_of(text, rows[place]["ends"][1], rows[place]["described"], prompts.items) for place, text in zip(scored, texts, strict=True)]
    found = last_tokens(texts, ends, [prompt_ids[place] for place in scored], tokens_of, tokenizer, template != "chat")
    for place, candidates in zip(scored, found, strict=True):
        examples[place] |= {"answer": [], "candidates": candidates, "gold": LETTERS.index(rows[place]["output"])}
    return examples, report


def descriptions_of(rows: list[dict], tokenizer: PreTrainedTokenizerBase, most: int) -> dict[str, list[int]]:
    """Description -> its tokens as an answer, at most so many, for the rows that are ranked by likelihood."""
    texts = list({text: None for row in rows if row["ranking"] == "likelihood" for text in row["described"]})
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return {text: [*tokens[: most - 1], tokenizer.eos_token_id] for text, tokens in zip(texts, ids, strict=True)}


def last_tokens(
    texts: list[str],
    ends: list[list[int]],
    ids: list[list[int]],
    tokens_of: Callable[[list[str]], list[list[int]]],
    tokenizer: PreTrainedTokenizerBase,
    special_tokens: bool,
) -> list[list[int]]:
    """For each text and each of its ``ends`` (in characters), the place of the last token before the end.

    Args:
        ids: the tokens of each text.
        tokens_of: the tokens of further texts; used if the tokenizer does not tell which characters a token stands for (ChatGLM's).
        special_tokens: whether the tokenizer adds special tokens to a text.
    """
    if not texts:
        return []
    if not tokenizer.is_fast:
        beginnings = [tokens_of([text[:end] for end in wanted]) for text, wanted in zip(texts, ends, strict=True)]
        return [[len(commonprefix([start, whole])) - 1 for start in starts] for starts, whole in zip(beginnings, ids, strict=True)]
    spans = tokenizer(texts, add_special_tokens=special_tokens, return_offsets_mapping=True)["offset_mapping"]
    found = []
    for of_text, wanted in zip(spans, ends, strict=True):
        places, stops = zip(*((place, stop) for place, (start, stop) in enumerate(of_text) if start < stop), strict=True)  # no special tokens
        found.append([places[bisect_right(stops, end) - 1] for end in wanted])
    return found


def ends_of(text: str, tail: str, described: list[str], separator: str) -> list[int]:
    """The number of characters of ``text`` up to the end of each description. The descriptions, joined, end the ``tail`` in it.

    Raises:
        ValueError: if the tail is not in the text.
    """
    end = text.rfind(tail) + len(tail)
    if end < len(tail):
        raise ValueError("ranking candidates: the chat template changes the text of messages; give template: plain, or ranking: letter")
    ends = []
    for description in reversed(described):
        ends.append(end)
        end -= len(description) + len(separator)
    return ends[::-1]


