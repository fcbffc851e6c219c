"""Answers of a trained UniMIND."""

import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast

from llmcrs_utils.crs.unimind import UniMind
from llmcrs_utils.tasks.answers import ranked, text_answer
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.training.collators import unimind_collator
from llmcrs_utils.training.decoding import answer_in_batches


@torch.no_grad()
def predict(
    model: UniMind,
    tokenizer: PreTrainedTokenizerFast,
    samples: pd.DataFrame,
    examples: list[dict],
    items: dict[str, int],
    prompts: Prompts,
    *,
    num_beams: int,
    max_target_len: int,
    batch_size: int,
) -> pd.DataFrame:
    """Predictions in the order of ``samples``: columns of ``predictions.SCHEMA`` without system and seed, and ``catalogue``.

    For recommend, ``catalogue`` holds the 50 best item ids of the whole catalogue, best first.
    """
    model.eval()
    device = model.item_bias.device
    collate = unimind_collator(tokenizer.pad_token_id, model.config.n_items)
    rows = samples.to_dict("records")

    def answer(task: str, chosen: list[int]) -> list[dict]:
        batch = collate([examples[i] for i in chosen])
        batch = {name: tensor.to(device) for part in batch.values() for name, tensor in part.items()}
        if task == "recommend":
            return rank(model, [rows[i] for i in chosen], batch, items)
        return [text_answer(task, raw, prompts) for raw in write_texts(model, tokenizer, batch, num_beams, max_target_len)]

    return answer_in_batches(samples, [len(example["input_ids"]) for example in examples], batch_size, answer)


def write_texts(model: UniMind, tokenizer, batch: dict, num_beams: int, max_target_len: int) -> list[str]:
    """Generated texts. Other generation settings of the backbone (``no_repeat_ngram_size``) apply, as in the published code."""
    max_target_len = min(max_target_len, model.backbone.config.max_position_embeddings)
    written = model.backbone.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
        num_beams=num_beams, do_sample=False, use_cache=True, max_new_tokens=max_target_len, early_stopping=num_beams > 1,
    )  # fmt: skip
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def rank(model: UniMind, rows: list[dict], batch: dict, items: dict[str, int]) -> list[dict]:
    states = model.backbone_states(batch["input_ids"], batch["attention_mask"])
    scores = model.item_scores(states, batch["history"], batch["history_length"], batch["helped"])
    return ranked(scores, rows, items)
