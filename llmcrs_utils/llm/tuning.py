"""LoRA tuning of a causal LM through PEFT (paper section 3.2): one adapter for all four tasks."""

from pathlib import Path

import pandas as pd
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedTokenizerBase, set_seed

from llmcrs_utils.checkpoints.loading import device, load_causal, load_tokenizer, load_unrounded
from llmcrs_utils.checkpoints.merging import half_made
from llmcrs_utils.files.atomic import first_process
from llmcrs_utils.training.collators import causal_collator, with_labels
from llmcrs_utils.training.trainer import train


def new_lora(
    model_name_or_path: str,
    *,
    quantization_bit: int,
    lora_rank: int,
    lora_alpha: int,
    lora_dropout: float,
    lora_target: list[str],
    modules_to_save: list[str],
    gradient_checkpointing: bool,
    seed: int,
) -> PeftModel:
    """A causal LM with trainable LoRA layers on ``lora_target`` and full copies of ``modules_to_save``.

    ``["all-linear"]`` stands for every linear layer but the head, whatever an architecture calls them.
    """
    model = load_causal(model_name_or_path, quantization_bit, for_training=True)
    if quantization_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=gradient_checkpointing)
    elif gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    set_seed(seed)  # LoRA's first matrix starts random
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules="all-linear" if lora_target == ["all-linear"] else lora_target,
            modules_to_save=modules_to_save or None,
        ),
    )


def tune(model: PeftModel, examples: list[dict], valid_examples: list[dict], tokenizer: PreTrainedTokenizerBase, **options) -> pd.DataFrame:
    """Tune in place with ``training.train``, to which ``options`` go; ``examples`` as ``encode_instructions`` makes them.

    Returns its history.
    """
    collate = causal_collator(tokenizer.pad_token_id)
    return train(
        model, with_labels(examples), with_labels(valid_examples), collate, label_names=["labels"], tokenizer=tokenizer, **options
    )


def load_tuned(adapter: str | Path, quantization_bit: int = 0) -> PeftModel:
    """A saved adapter on its base model."""
    return PeftModel.from_pretrained(load_causal(base_of(adapter), quantization_bit), str(adapter)).to(device())


def merge(adapter: str | Path, output_dir: str | Path) -> None:
    """Fold an adapter into its base model and save a plain checkpoint with tokenizer; of several processes the first does.

    The base is taken as it is, and its dtype kept: one that was quantised for tuning gives, unquantised, other logits by what rounding to 4 or 8
    bits did to them, so that the merged model's answers can differ from those the adapter gave on the quantised base.
    """
    if not first_process():
        return
    with half_made(output_dir) as folder:
        tuned = PeftModel.from_pretrained(load_unrounded(base_of(adapter)), str(adapter))
        tuned.merge_and_unload().save_pretrained(str(folder))
        load_tokenizer(str(adapter)).save_pretrained(str(folder))


def base_of(adapter: str | Path) -> str:
    """The base model an adapter was tuned on."""
    return LoraConfig.from_pretrained(str(adapter)).base_model_name_or_path
