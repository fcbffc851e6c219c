"""Checkpoints by folder or hub id; the same code loads a small model of this project and a published one."""

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from llmcrs_utils.backbones import cpt  # noqa: F401  registers CPT with the Auto classes
from llmcrs_utils.backbones.checkpoints import CheckpointError, check_checkpoint

# UniMIND's information segments (paper section 3.3) and the assistant's (section 3.5).
SEGMENT_TOKENS = ["[user]", "[system]", "[understand]", "[elicit]", "[recommend]", "[LLM]"]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(model_name_or_path: str, segments: bool = False) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer, with UniMIND's segment tokens added where asked."""
    tokenizer = AutoTokenizer.from_pretrained(model_name_or_path)
    if set(tokenizer("需求 need")["input_ids"]) <= set(tokenizer.all_special_ids):
        raise CheckpointError(
            f"{model_name_or_path}: its {type(tokenizer).__name__} reads no text at all; name the right class as tokenizer_class in "
            "tokenizer_config.json (BertTokenizer for a Chinese BART with vocab.txt)"
        )
    if segments:
        tokenizer.add_special_tokens({"additional_special_tokens": SEGMENT_TOKENS})
    if tokenizer.pad_token is None:  # LLaMA has none; its unknown token never occurs where it would be read
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_seq2seq(model_name_or_path: str) -> PreTrainedModel:
    """An encoder-decoder with a language-model head (BART) in float32."""
    check_checkpoint(model_name_or_path)
    return AutoModelForSeq2SeqLM.from_pretrained(model_name_or_path, dtype=torch.float32)


def load_causal(model_name_or_path: str, quantization_bit: int = 0, for_training: bool = False) -> PreTrainedModel:
    """A causal LM, in bfloat16 on a GPU, to be trained in float32 (the Trainer computes in bfloat16); with ``quantization_bit=4`` its linear layers are held in NF4 by bitsandbytes, on CPU too."""
    check_checkpoint(model_name_or_path)
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    if quantization_bit not in (0, 4):
        raise ValueError(f"quantization_bit={quantization_bit}: give 4, or 0 for the model as it is")
    if not quantization_bit:
        return AutoModelForCausalLM.from_pretrained(model_name_or_path, dtype=torch.float32 if for_training else dtype)
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(
        model_name_or_path, dtype=dtype, quantization_config=quantization, device_map={"": device()}
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On some CPUs evaluation repacks the weights, and training after it reads their scales in a wrong order.
            module.support_avx512bf16_for_cpu = False
    return model
