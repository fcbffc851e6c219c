"""Checkpoints by folder or hub id; the same code loads a small model of this project and a published one.

Nothing that a checkpoint brings along as code is run, and nobody is asked whether it may.
"""

import logging
import os

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertModel,
    BertTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmcrs_utils.checkpoints.chatglm_tokenizer import ChatGLMTokenizer  # its import makes ChatGLM known to the Auto classes
from llmcrs_utils.checkpoints.checks import (
    CheckpointError,
    architecture,
    check_checkpoint,
    check_model,
    checkpoint_file,
    named,
    positions,
    read_json,
)
from llmcrs_utils.checkpoints.cpt import CPTConfig, CPTForConditionalGeneration
from llmcrs_utils.checkpoints.llama_tokenizer import SentencePieceLlamaTokenizer

# UniMIND's information segments (paper section 3.3) and the assistant's (section 3.5).
SEGMENT_TOKENS = ["[user]", "[system]", "[understand]", "[elicit]", "[recommend]", "[LLM]"]

DTYPES = ("auto", "float32", "bfloat16")


def device() -> torch.device:
    """Of several processes on one machine each has a GPU of its own."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(model_name_or_path: str, segments: bool = False) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, with UniMIND's segment tokens added where asked.

    Its ``model_max_length`` is the number of the model's positions, whatever the tokenizer's own settings say of it.
    """
    tokenizer = tokenizer_as_published(model_name_or_path)
    if set(tokenizer("需求 need")["input_ids"]) <= set(tokenizer.all_special_ids):
        raise CheckpointError(
            f"{model_name_or_path}: its {type(tokenizer).__name__} reads no text at all; name the right class as tokenizer_class in "
            "tokenizer_config.json"
        )
    if segments:
        tokenizer.add_special_tokens({"additional_special_tokens": SEGMENT_TOKENS})
    length = positions(model_name_or_path)
    if length is not None:
        tokenizer.model_max_length = length
        # Inputs are made to fit later (text.fitting), when the tokenizer has counted them.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if tokenizer.pad_token is None:  # LLaMA has none; its unknown token never occurs where it would be read
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def tokenizer_as_published(model_name_or_path: str) -> PreTrainedTokenizerBase:
    """The files there decide: published settings name the class wrongly, or code of their own, or nothing."""

    place = named(model_name_or_path)

    def has(name: str) -> bool:
        return checkpoint_file(place, name) is not None

    if has("ice_text.model"):
        return ChatGLMTokenizer.from_pretrained(place)
    # "": an adapter has no config.json. A publisher's own tokenizer.json says more than the file it was made of.
    if has("tokenizer.model") and not has("tokenizer.json") and architecture(model_name_or_path) in ("llama", ""):
        return SentencePieceLlamaTokenizer.from_pretrained(place)
    if has("vocab.txt") and not has("tokenizer.json"):  # the Chinese BART and CPT
        said = read_json(checkpoint_file(model_name_or_path, "tokenizer_config.json"))
        # Token types are left out: BART has none, and CPT sets its own.
        names = ["input_ids", "attention_mask"]
        return BertTokenizer.from_pretrained(
            place, do_lower_case=said.get("do_lower_case", False), model_input_names=names
        )
    return AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def load_whole(kind: type, model_name_or_path: str, **options) -> PreTrainedModel:
    """``kind.from_pretrained``, which would fill up with random numbers what the weight files lack.

    Raises:
        CheckpointError: where they lack a parameter that is not tied to one that they hold.
    """
    model, found = kind.from_pretrained(named(model_name_or_path), output_loading_info=True, **options)
    missing = sorted(found["missing_keys"] & {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if missing:
        lacking = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{model_name_or_path}: its weights lack {len(missing)} parameters of the model that config.json describes ({lacking}); "
            "take config.json and all files of weights from one checkpoint"
        )
    return model


def load_seq2seq(model_name_or_path: str, generation_token_type: int | None = None) -> PreTrainedModel:
    """An encoder-decoder with a language-model head (BART or CPT) in float32.

    ``generation_token_type`` is CPT's (``CPTConfig``); ``None`` leaves what the checkpoint says.
    """
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "crs")
    if architecture(model_name_or_path) == "bart":
        return load_whole(AutoModelForSeq2SeqLM, model_name_or_path, dtype=torch.float32)
    said = {} if generation_token_type is None else {"generation_token_type": generation_token_type}
    found = CPTConfig.get_config_dict(named(model_name_or_path))[0]
    config = CPTConfig.from_dict({**found, **said, "model_type": CPTConfig.model_type})
    return load_whole(CPTForConditionalGeneration, model_name_or_path, config=config, dtype=torch.float32)


class Encoder(BertModel):
    """A BERT that leaves the heads of its pretraining, which published checkpoints hold, where they are without a word."""

    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler"]


def load_encoder(model_name_or_path: str) -> PreTrainedModel:
    """A BERT without heads in float32."""
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "encoder")
    return load_whole(Encoder, model_name_or_path, dtype=torch.float32, add_pooling_layer=False)


def compute_dtype(dtype: str = "auto") -> torch.dtype:
    """What a model whose weights stand still is held and computed in: ``auto`` is bfloat16 on a GPU that computes in it, else float32.

    Raises:
        ValueError: for a name that is none of ``DTYPES``.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; known: {', '.join(DTYPES)}")
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": torch.bfloat16 if on_gpu else torch.float32}[dtype]


def load_causal(
    model_name_or_path: str, quantization_bit: int = 0, for_training: bool = False, dtype: str = "auto"
) -> PreTrainedModel:
    """A causal LM (LLaMA, ChatGLM).

    Args:
        quantization_bit: 4 or 8 has bitsandbytes hold its linear layers, on CPU too, in NF4 or int8; 0 leaves them as they are.
        for_training: all its weights are to be trained: ``auto`` is then float32 (the Trainer computes in bfloat16). A base that
            stands still, as LoRA's does, is not trained.
        dtype: what weights are held in, one of ``DTYPES``; ``auto`` as ``compute_dtype`` says.

    Raises:
        ValueError: for other numbers of bits, and other dtypes.
    """
    if quantization_bit not in (0, 4, 8):
        raise ValueError(f"quantization_bit={quantization_bit}: give 4 or 8, or 0 for the model as it is")
    held = torch.float32 if for_training and dtype == "auto" and not quantization_bit else compute_dtype(dtype)
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "llm")
    if not quantization_bit:
        return load_whole(AutoModelForCausalLM, model_name_or_path, dtype=held, trust_remote_code=False)
    if quantization_bit == 4:
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=held)
    else:
        quantization = BitsAndBytesConfig(load_in_8bit=True)
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it reports its cast at every product
    model = load_whole(
        AutoModelForCausalLM, model_name_or_path, dtype=held, quantization_config=quantization, device_map={"": device()},
        trust_remote_code=False,
    )  # fmt: skip
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On some CPUs evaluation repacks the weights, and training after it reads their scales in a wrong order.
            module.support_avx512bf16_for_cpu = False
    return model


def load_unrounded(model_name_or_path: str) -> PreTrainedModel:
    """A causal LM on the CPU, its weights in the dtype of their files, as merging needs it."""
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "llm")
    return load_whole(AutoModelForCausalLM, model_name_or_path, dtype="auto", trust_remote_code=False)


