"""UniMIND's two training stages (paper section 3.3): recommend alone, then all tasks with the sum of losses."""

from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.crs.unimind import UniMind
from llmcrs_utils.training.collators import unimind_collator
from llmcrs_utils.training.folders import STAGES
from llmcrs_utils.training.trainer import train


def train_two_stages(
    model: UniMind,
    examples: list[dict],
    valid_examples: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    *,
    output_dir: str | Path,
    stage_one_epochs: float,
    stage_one_learning_rate: float,
    stage_two_epochs: float,
    stage_two_learning_rate: float,
    **options,
) -> pd.DataFrame:
    """Train in place and save in ``output_dir``. ``options`` go to ``trainer.train``.

    Returns:
        The history of ``trainer.train`` with a column ``stage``.

    Raises:
        ValueError: if training or validation has no recommend sample.
    """
    collate = unimind_collator(tokenizer.pad_token_id, model.config.n_items)
    output_dir = Path(output_dir)
    recommend = [example for example in examples if "gold" in example]
    valid_recommend = [example for example in valid_examples if "gold" in example]
    if not recommend or not valid_recommend:
        raise ValueError("no recommend sample in training or validation; UniMIND needs recommendations in both splits")
    if not model.config.recommend_loss_reaches_backbone:
        # The backbone is frozen in stage one, so its states are computed once instead of once per epoch.
        batch = options["per_device_train_batch_size"]
        recommend = with_states(model, recommend, collate, batch)
        valid_recommend = with_states(model, valid_recommend, collate, batch)
    model.backbone.requires_grad_(model.config.recommend_loss_reaches_backbone)
    first = train(
        model, recommend, valid_recommend, collate, output_dir=output_dir / STAGES / "one",
        num_train_epochs=stage_one_epochs, learning_rate=stage_one_learning_rate, label_names=[],
        group_by_length="states" not in recommend[0], **options,
    )  # fmt: skip
    model.backbone.requires_grad_(True)
    second = train(
        model, examples, valid_examples, collate, output_dir=output_dir,
        num_train_epochs=stage_two_epochs, learning_rate=stage_two_learning_rate, label_names=[],
        tokenizer=tokenizer, **options,
    )  # fmt: skip
    return pd.concat([first.assign(stage="recommend"), second.assign(stage="all tasks")], ignore_index=True)


@torch.no_grad()
def with_states(model: UniMind, examples: list[dict], collate, batch_size: int) -> list[dict]:
    """The examples with the backbone's state in place of ``input_ids``, computed in batches of similar length."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    cached: list[dict] = [{}] * len(examples)
    for start in tqdm(range(0, len(order), batch_size), desc="backbone states", leave=False):
        rows = order[start : start + batch_size]
        batch = collate([examples[i] for i in rows])["recommendation"]
        device = model.item_bias.device
        states = model.backbone_states(batch["input_ids"].to(device), batch["attention_mask"].to(device)).cpu()
        for i, state in zip(rows, states, strict=True):
            cached[i] = {**{k: v for k, v in examples[i].items() if k != "input_ids"}, "states": state}
    return cached
