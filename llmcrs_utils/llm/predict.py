"""What a tuned LLM answers: greedy text, and for recommend a ranking by the logits of the 20 letters."""

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmcrs_utils.systems import TASKS
from llmcrs_utils.tasks.answers import ranked_answer, text_answer
from llmcrs_utils.tasks.prompts import LETTERS, Prompts
from llmcrs_utils.llm.batches import left_padded


@torch.no_grad()
def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    samples: pd.DataFrame,
    examples: list[dict],
    prompts: Prompts,
    *,
    max_new_tokens: int,
    batch_size: int,
) -> pd.DataFrame:
    """Predictions (columns of ``predictions.SCHEMA`` but system and seed), in the order of ``samples``."""
    model.eval()
    rows = samples.to_dict("records")
    answers: list[dict] = [{}] * len(rows)
    opening, letters = letter_tokens(tokenizer)
    for task in TASKS:
        # Prompts of one task and of like length share a batch: answers end together, little is padded, and the longest
        # come first, so that memory trouble shows at once.
        order = sorted((i for i, row in enumerate(rows) if row["task"] == task), key=lambda i: -len(examples[i]["prompt"]))
        for start in tqdm(range(0, len(order), batch_size), desc=task, leave=False):
            chosen = order[start : start + batch_size]
            part = [rows[i] for i in chosen]
            encoded = [examples[i]["prompt"] for i in chosen]
            if task == "recommend":
                found = rank(model, tokenizer, part, [prompt + opening for prompt in encoded], letters)
            else:
                found = generate(model, tokenizer, part, encoded, prompts, max_new_tokens)
            for i, answer in zip(chosen, found, strict=True):
                answers[i] = answer
    return pd.concat([samples[["split", "sample_id"]].reset_index(drop=True), pd.DataFrame(answers)], axis=1)


def letter_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """(tokens every letter's answer starts with, the token that tells each letter from the others).

    A letter is one token, or a blank and the letter, as the tokeniser has it; answers were trained the same way.
    """
    sequences = tokenizer(list(LETTERS), add_special_tokens=False)["input_ids"]
    opening = sequences[0][:-1]
    last = [sequence[-1] for sequence in sequences]
    if any(sequence[:-1] != opening for sequence in sequences) or len(set(last)) != len(LETTERS):
        raise ValueError("this tokeniser does not tell the letters A-T apart by one token; use one that knows capital letters")
    return opening, last


def rank(model, tokenizer, rows, prompts_ids, letters) -> list[dict]:
    batch = {name: tensor.to(model.device) for name, tensor in left_padded(prompts_ids, tokenizer.pad_token_id).items()}
    logits = model(**batch, logits_to_keep=1).logits[:, -1, letters].float()
    best = logits.log_softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return [
        ranked_answer(row["candidates"], order, scores, LETTERS[order[0]])
        for row, order, scores in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def generate(model, tokenizer, rows, prompts_ids, prompts: Prompts, max_new_tokens: int) -> list[dict]:
    batch = {name: tensor.to(model.device) for name, tensor in left_padded(prompts_ids, tokenizer.pad_token_id).items()}
    written = model.generate(
        **batch, max_new_tokens=max_new_tokens, num_beams=1, do_sample=False, use_cache=True, temperature=None, top_p=None, top_k=None,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    raws = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text_answer(row["task"], raw, prompts) for row, raw in zip(rows, raws, strict=True)]
