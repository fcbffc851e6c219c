"""What a trained UniMIND answers."""

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from llmcrs_utils.systems import TASKS
from llmcrs_utils.tasks.answers import ranked_answer, text_answer
from llmcrs_utils.tasks.prompts import Prompts
from llmcrs_utils.crs.batches import make_collator
from llmcrs_utils.crs.unimind import UniMind


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
    """Predictions (columns of ``predictions.SCHEMA`` but system and seed), in the order of ``samples``."""
    model.eval()
    device = model.item_bias.device
    collate = make_collator(tokenizer.pad_token_id, model.config.n_items)
    rows = samples.to_dict("records")
    answers: list[dict] = [{}] * len(rows)
    for task in TASKS:
        answer = rank if task == "recommend" else generate
        # Rows of one task and of like length share a batch: answers end together, little is padded, and the longest
        # come first, so that memory trouble shows at once.
        order = sorted((i for i, row in enumerate(rows) if row["task"] == task), key=lambda i: -len(examples[i]["input_ids"]))
        for start in tqdm(range(0, len(order), batch_size), desc=task, leave=False):
            chosen = order[start : start + batch_size]
            batch = collate([examples[i] for i in chosen])
            batch = {name: tensor.to(device) for part in batch.values() for name, tensor in part.items()}
            found = answer(model, tokenizer, [rows[i] for i in chosen], batch, items, prompts, num_beams, max_target_len)
            for i, one in zip(chosen, found, strict=True):
                answers[i] = one
    return pd.concat([samples[["split", "sample_id"]].reset_index(drop=True), pd.DataFrame(answers)], axis=1)


def generate(model, tokenizer, rows, batch, items, prompts, num_beams, max_target_len) -> list[dict]:
    written = model.backbone.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
        num_beams=num_beams, do_sample=False, use_cache=True, max_new_tokens=max_target_len, early_stopping=num_beams > 1,
    )  # fmt: skip
    raws = tokenizer.batch_decode(written, skip_special_tokens=True)
    return [text_answer(row["task"], raw, prompts) for row, raw in zip(rows, raws, strict=True)]


def rank(model, tokenizer, rows, batch, items, prompts, num_beams, max_target_len) -> list[dict]:
    states = model.backbone_states(batch["input_ids"], batch["attention_mask"])
    scores = model.item_scores(states, batch["history"], batch["history_length"], batch["helped"])
    candidates = torch.tensor([[items[item] for item in row["candidates"]] for row in rows], device=scores.device)
    best = scores.gather(1, candidates).sort(dim=1, descending=True, stable=True)
    return [
        ranked_answer(row["candidates"], order, values, "")
        for row, order, values in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
