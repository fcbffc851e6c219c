"""Decoding in batches: every sample is answered once."""

from collections.abc import Callable

import pandas as pd
import torch
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.training.collators import left_padded
from llmcrs_utils.training.processes import share_out
from llmcrs_utils.training.token_batches import grouped


def answer_in_batches(
    samples: pd.DataFrame, lengths: list[int], batch_size: int, answer: Callable[[str, list[int]], list[dict]], tokens_per_batch: int = 0
) -> pd.DataFrame:
    """Predictions (columns of ``predictions.SCHEMA`` without system and seed), in the order of ``samples``.

    Args:
        samples: as ``build_samples`` makes them, numbered from 0.
        lengths: length of each sample's input in tokens.
        batch_size: number of samples answered together.
        tokens_per_batch: most tokens of inputs in a batch, padding included; 0: no limit.
        answer: ``answer(task, positions)`` returns one answer (``tasks.answers``) for each of these samples.
    """
    tasks = samples["task"].tolist()

    def work(positions: list[int]) -> list[dict]:
        answers = {}
        for task in TASKS:
            # Samples of one task and similar length share a batch: their answers end at about the same time, and there is little
            # padding. The longest come first, so that a lack of memory shows at once.
            order = sorted((i for i in positions if tasks[i] == task), key=lambda i: -lengths[i])
            batches = grouped([lengths[i] for i in order], batch_size, tokens_per_batch)
            for start, end in tqdm(batches, desc=task, leave=False, disable=len(batches) < 2):
                chosen = order[start:end]
                answers.update(zip(chosen, answer(task, chosen), strict=True))
        return [answers[i] for i in positions]

    answers = share_out(list(range(len(samples))), work)
    return pd.concat([samples[["split", "sample_id"]].reset_index(drop=True), pd.DataFrame(answers)], axis=1)


def continue_greedily(model, tokenizer, prompts_ids, max_new_tokens: int) -> list[tuple[str, float]]:
    """Greedy continuations of the prompts, as text without the prompts, each with the mean log-probability of its tokens.

    Penalties in a checkpoint's settings are off.
    """
    batch = {name: tensor.to(model.device) for name, tensor in left_padded(prompts_ids, tokenizer.pad_token_id).items()}
    best = BestTokens()
    written = model.generate(
        **batch, max_new_tokens=max_new_tokens, num_beams=1, do_sample=False, use_cache=True, temperature=None, top_p=None, top_k=None,
        repetition_penalty=1.0, no_repeat_ngram_size=0, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        logits_processor=LogitsProcessorList([best]),
    )  # fmt: skip
    answers = written[:, batch["input_ids"].shape[1] :]
    confidences = mean_up_to_end(torch.stack(best.log_probabilities, dim=1), answers, tokenizer.eos_token_id)
    return list(zip(tokenizer.batch_decode(answers, skip_special_tokens=True), confidences, strict=True))


class BestTokens(LogitsProcessor):
    """Notes the log-probability of each step's likeliest token, the one that greedy decoding writes, and changes nothing.

    ``generate`` itself can return the scores of all steps, but with vocabularies of 150,000 tokens these need gigabytes.
    """

    def __init__(self):
        self.log_probabilities: list[torch.Tensor] = []  # of each step, [batch]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.log_probabilities.append(scores.max(dim=1).values - scores.logsumexp(dim=1))
        return scores


def mean_up_to_end(log_probabilities: torch.Tensor, tokens: torch.Tensor, end: int | list[int] | None) -> list[float]:
    """The mean of each row up to its first end token, that one included; both [batch, length].

    What follows the end is padding, for which ``generate`` takes the pad token or, with beams, the end token.
    """
    ends = torch.isin(tokens, torch.tensor([] if end is None else end, device=tokens.device)).int()
    counted = ends.cumsum(dim=1) - ends == 0
    return ((log_probabilities * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)).tolist()
