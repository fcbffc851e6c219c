"""Answers of a tuned LLM: greedy text, and for recommend a ranking of the candidates."""

from functools import partial

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmcrs_utils.llm.ranking import (
    letter_tokens,
    rank_by_candidates,
    rank_by_letters,
    rank_by_likelihood,
)
from llmcrs_utils.tasks.answers import loses_width, ranked_answer, text_answer
from llmcrs_utils.text.prompts import LETTERS, Prompts
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
    tokens_per_batch: int = 0,
    reversed_examples: list[dict] | None = None,
) -> pd.DataFrame:
    """Predictions (columns of ``predictions.SCHEMA`` without system and seed), in the order of ``samples``.

    A frozen base in bfloat16 also computes in it (autocast).

    Args:
        examples: as ``encode_instructions`` returns them. Examples with ``candidates`` are ranked by the scores of these, those with
            ``descriptions`` by their likelihood, others by letters.
        batch_size: samples answered together.
        tokens_per_batch: most tokens of the prompts in a batch, padding included; 0: no limit.
        reversed_examples: the same samples with the candidates in reverse order. The probabilities of both orders are averaged.
    """
    model.eval()
    rows = samples.to_dict("records")
    narrowed = loses_width(tokenizer)

    ranking = [example for row, example in zip(rows, examples, strict=True) if row["task"] == "recommend"]
    if all("candidates" in example for example in ranking):
        rank = rank_by_candidates
    elif all("descriptions" in example for example in ranking):
        rank = partial(rank_by_likelihood, unsaid={})
    else:
        rank = partial(rank_by_letters, letters=letter_tokens(tokenizer))

    def ranked(given: list[dict], chosen: list[int]) -> torch.Tensor:
        return rank(model, tokenizer, [given[i] for i in chosen])

    def best_of(example: dict, place: int) -> str:
        return tokenizer.decode(example["descriptions"][place], skip_special_tokens=True) if "descriptions" in example else LETTERS[place]

    def answer(task: str, chosen: list[int]) -> list[dict]:
        if task != "recommend":
            prompts_ids = [examples[i]["prompt"] for i in chosen]
            written = continue_greedily(model, tokenizer, prompts_ids, max_new_tokens)
            return [text_answer(task, raw, prompts, narrowed, confidence) for raw, confidence in written]
        scores = ranked(examples, chosen)
        if reversed_examples:
            scores = torch.stack([scores, ranked(reversed_examples, chosen).flip(1)]).logsumexp(dim=0) - torch.tensor(2.0).log()
        best = scores.sort(dim=1, descending=True, stable=True)
        return [
            ranked_answer(rows[i]["candidates"], order, values, best_of(examples[i], order[0]))
            for i, order, values in zip(chosen, best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    in_bfloat16 = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=in_bfloat16):
        return answer_in_batches(samples, [read_of(example) for example in examples], batch_size, answer, tokens_per_batch)


def read_of(example: dict) -> int:
    """How many tokens a model reads of an example to answer it."""
    return len(example["prompt"]) + sum(map(len, example.get("descriptions", ())))
