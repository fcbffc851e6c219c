"""Decoding in batches: every sample is answered once."""

from collections.abc import Callable

import pandas as pd
from tqdm import tqdm

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
            for start, end in tqdm(batches, desc=task, leave=False, disable=not order):
                chosen = order[start:end]
                answers.update(zip(chosen, answer(task, chosen), strict=True))
        return [answers[i] for i in positions]

    answers = share_out(list(range(len(samples))), work)
    return pd.concat([samples[["split", "sample_id"]].reset_index(drop=True), pd.DataFrame(answers)], axis=1)


def continue_greedily(model, tokenizer, prompts_ids, max_new_tokens: int) -> list[str]:
    """Greedy continuations of the prompts, as text without the prompts. Penalties in a checkpoint's settings are off."""
    batch = {name: tensor.to(model.device) for name, tensor in left_padded(prompts_ids, tokenizer.pad_token_id).items()}
    written = model.generate(
        **batch, max_new_tokens=max_new_tokens, num_beams=1, do_sample=False, use_cache=True, temperature=None, top_p=None, top_k=None,
        repetition_penalty=1.0, no_repeat_ngram_size=0, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
