"""Answers of a tuned LLM: greedy text, and for recommend a ranking by the logits of the 20 letters."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import permutations

import pandas as pd
import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmcrs_utils.tasks.answers import loses_width, ranked_answer, text_answer
from llmcrs_utils.text.prompts import LETTERS, Prompts
from llmcrs_utils.training.collators import left_padded
from llmcrs_utils.training.decoding import answer_in_batches, continue_greedily


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
    """Predictions (columns of ``predictions.SCHEMA`` without system and seed), in the order of ``samples``."""
    model.eval()
    rows = samples.to_dict("records")
    letters = letter_tokens(tokenizer)
    narrowed = loses_width(tokenizer)

    def answer(task: str, chosen: list[int]) -> list[dict]:
        encoded = [examples[i]["prompt"] for i in chosen]
        if task == "recommend":
            return rank(model, tokenizer, [rows[i] for i in chosen], encoded, letters)
        return [text_answer(task, raw, prompts, narrowed) for raw in continue_greedily(model, tokenizer, encoded, max_new_tokens)]

    return answer_in_batches(samples, [len(example["prompt"]) for example in examples], batch_size, answer)


def letter_tokens(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The tokens of each letter A-T, as in an answer in training: one token, or several (a blank, then the letter).

    Raises:
        ValueError: if two letters have the same tokens, or the tokens of one begin those of another.
    """
    letters = tokenizer(list(LETTERS), add_special_tokens=False)["input_ids"]
    if any(one == other[: len(one)] for one, other in permutations(letters, 2)):
        raise ValueError("this tokenizer does not tell the letters A-T apart; use one that knows capital letters")
    return letters


def rank(model, tokenizer, rows, prompts_ids, letters) -> list[dict]:
    """Rank the candidates by the probability of their letter (of all its tokens together) among the 20.

    One forward pass is needed for each common beginning after which letters differ. If every letter is one token, that is
    after the prompt. If every letter is a blank and one token, it is after prompt and blank. If some are one token and some two,
    it is after both.
    """
    starts = {tuple(letter[:n]) for letter in letters for n in range(len(letter))}
    scores = torch.zeros(len(rows), len(letters), device=model.device)
    for start in sorted(starts):
        following = [(place, letter[len(start)]) for place, letter in enumerate(letters) if tuple(letter[: len(start)]) == start]
        shared = len(following) == len(letters) and len({token for _, token in following}) == 1
        if not shared:  # a token that all letters share does not change their order
            batch = left_padded([[*prompt, *start] for prompt in prompts_ids], tokenizer.pad_token_id)
            batch = {name: tensor.to(model.device) for name, tensor in with_positions(model, batch).items()}
            with exact_head(model):
                logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float().log_softmax(dim=1)
            places, tokens = zip(*following, strict=True)
            scores[:, list(places)] += logits[:, list(tokens)]
    best = scores.log_softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return [
        ranked_answer(row["candidates"], order, values, LETTERS[order[0]])
        for row, order, values in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def with_positions(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The left-padded batch with ``position_ids``, each token's place in its own row, if the model takes them.

    Without them GPT-2 would count the padding too, so a row's answer would depend on the other rows. (``generate`` passes
    positions itself.) ChatGLM computes positions from the ids.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if "position_ids" not in signature(inner.forward).parameters:
        return batch
    return {**batch, "position_ids": (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)}


@contextmanager
def exact_head(model: PreTrainedModel) -> Iterator[None]:
    """Compute logits in float32 within the block, because bfloat16 may round the logits of two letters to one number.

    If the head is not a plain linear layer (for example, with LoRA on it), logits do not change.
    """
    head = model.get_output_embeddings()
    if isinstance(head, ModulesToSaveWrapper):
        head = head.modules_to_save[head.active_adapters[0]]
    if type(head) is not nn.Linear or head.weight.dtype == torch.float32:
        yield
        return

    def in_float32(layer, inputs, _):
        return linear(inputs[0].float(), layer.weight.float(), None if layer.bias is None else layer.bias.float())

    hook = head.register_forward_hook(in_float32)
    try:
        yield
    finally:
        hook.remove()


