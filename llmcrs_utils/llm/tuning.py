"""LoRA tuning of a causal LM through PEFT (paper section 3.2): one adapter for all four tasks."""

from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from peft.utils.save_and_load import load_peft_weights
from transformers import PreTrainedTokenizerBase, set_seed

from llmcrs_utils.checkpoints.checks import resolved
from llmcrs_utils.checkpoints.loading import device, load_causal, load_tokenizer, load_unrounded
from llmcrs_utils.checkpoints.merging import writing_folder
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
    dtype: str = "auto",
) -> PeftModel:
    """A causal LM with trainable LoRA layers on ``lora_target`` and full copies of ``modules_to_save``.

    ``lora_target=["all-linear"]`` means every linear layer except the head, in any architecture. The frozen base has ``dtype``
    (see ``load_causal``); all trained weights are float32.
    """
    model = load_causal(model_name_or_path, quantization_bit, dtype=dtype)
    if quantization_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=gradient_checkpointing)
    elif gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    set_seed(seed)  # LoRA's first matrix is initialised at random
    model = get_peft_model(
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
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    join_dtypes(model)
    return model


def join_dtypes(model: PeftModel) -> None:
    """Let float32 copies of ``modules_to_save`` work inside a base of another dtype: their inputs and outputs are converted.

    The head's output stays float32, because it is the logits.
    """
    head = model.get_output_embeddings()
    for module in model.modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        base = next(module.original_module.parameters()).dtype
        if base == torch.float32:
            continue
        for copy in module.modules_to_save.values():
            copy.register_forward_pre_hook(lambda _, inputs: tuple(float_states(one, torch.float32) for one in inputs))
            if module is not head:
                copy.register_forward_hook(lambda _, inputs, output, base=base: float_states(output, base))


def float_states(value, dtype: torch.dtype):
    """A tensor of floats converted to this dtype. Anything else (ids, masks) is returned unchanged."""
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def tune(model: PeftModel, examples: list[dict], valid_examples: list[dict], tokenizer: PreTrainedTokenizerBase, **options) -> pd.DataFrame:
    """Tune in place with ``trainer.train`` and return its history.

    Args:
        examples, valid_examples: as ``encode_instructions`` returns them.
        options: passed to ``trainer.train``.
    """
    collate = causal_collator(tokenizer.pad_token_id)
    return train(
        model, with_labels(examples), with_labels(valid_examples), collate, label_names=["labels"], tokenizer=tokenizer, **options
    )


def load_tuned(adapter: str | Path, quantization_bit: int = 0, base: str | None = None, dtype: str = "auto") -> PeftModel:
    """Load a saved adapter with its base model, in the dtypes that it was tuned in.

    Args:
        base: where the base model is now; without it, where it was when the adapter was tuned.
        dtype: of the base (see ``load_causal``).
    """
    folder = resolved(adapter)
    model = PeftModel.from_pretrained(load_causal(base or base_of(adapter), quantization_bit, dtype=dtype), folder)
    copies = [copy for module in model.modules() if isinstance(module, ModulesToSaveWrapper) for copy in module.modules_to_save.values()]
    if any(parameter.dtype != torch.float32 for copy in copies for parameter in copy.parameters()):
        for copy in copies:
            copy.float()
        set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))  # again, and now without rounding
        join_dtypes(model)
    return model.to(device())


def merge(adapter: str | Path, output_dir: str | Path, base: str | None = None) -> None:
    """Merge an adapter into its base model and save a plain checkpoint with tokenizer. Only the first process does so.

    ``base`` says where the base model is now; without it, where it was when the adapter was tuned.

    The base is loaded unquantised and keeps its dtype. If it was quantised to 4 or 8 bits for tuning, its logits differ from
    those during tuning, so the merged model's answers can differ from those of the adapter on the quantised base.
    """
    if not first_process():
        return
    with writing_folder(output_dir) as folder:
        tuned = PeftModel.from_pretrained(load_unrounded(base or base_of(adapter)), resolved(adapter))
        tuned.merge_and_unload().save_pretrained(str(folder))
        load_tokenizer(str(adapter)).save_pretrained(str(folder))


def base_of(adapter: str | Path) -> str:
    """The base model an adapter was tuned on."""
    return LoraConfig.from_pretrained(resolved(adapter)).base_model_name_or_path
