"""Loads checkpoints by folder or hub id. The same code loads small models of this project and published ones.

Code that comes with a checkpoint is never run, and the user is never asked to allow it.
"""

import logging
import os

import torch
from torch.nn.functional import linear
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

from llmcrs_utils.checkpoints.chatglm_tokenizer import ChatGLMTokenizer  # this import registers ChatGLM with the Auto classes
from llmcrs_utils.checkpoints.checks import (
    CheckpointError,
    architecture,
    check_checkpoint,
    check_model,
    checkpoint_file,
    positions,
    read_json,
    resolved,
)
from llmcrs_utils.checkpoints.cpt import CPTConfig, CPTForConditionalGeneration
from llmcrs_utils.checkpoints.llama_tokenizer import SentencePieceLlamaTokenizer

# The markers of UniMIND's segments (paper section 3.3) and of the assistant's answer (section 3.5).
SEGMENT_TOKENS = ["[user]", "[system]", "[understand]", "[elicit]", "[recommend]", "[LLM]"]

DTYPES = ("auto", "float32", "bfloat16")


def device() -> torch.device:
    """The device of this process: its own GPU if there are any (one per process of a machine), else the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(model_name_or_path: str, segments: bool = False) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer. With ``segments``, UniMIND's segment tokens are added.

    Its ``model_max_length`` is the model's number of positions, whatever the tokenizer's settings say. A tokenizer without pad
    token pads with its unknown token or its end token.

    Raises:
        CheckpointError: for a tokenizer that reads every text as special tokens alone.
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
        # Silences a warning: inputs are cut to length (text.fitting) after the tokenizer has counted them.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if tokenizer.pad_token is None:  # LLaMA has none; padding is masked, so its unknown token does no harm
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def tokenizer_as_published(model_name_or_path: str) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer as it is. Its files decide the class.

    Published settings are no help: they name a wrong class, code that comes with the checkpoint, or no class.
    """

    place = resolved(model_name_or_path)

    def has(name: str) -> bool:
        return checkpoint_file(place, name) is not None

    if has("ice_text.model"):
        return ChatGLMTokenizer.from_pretrained(place)
    # The architecture is "" for an adapter, which has no config.json. A published tokenizer.json says more than tokenizer.model.
    if has("tokenizer.model") and not has("tokenizer.json") and architecture(model_name_or_path) in ("llama", ""):
        return SentencePieceLlamaTokenizer.from_pretrained(place)
    if has("vocab.txt") and not has("tokenizer.json"):  # the Chinese BART and CPT
        settings = read_json(checkpoint_file(model_name_or_path, "tokenizer_config.json"))
        # Token types are left out: BART has none, and CPT sets them itself.
        names = ["input_ids", "attention_mask"]
        return BertTokenizer.from_pretrained(
            place, do_lower_case=settings.get("do_lower_case", False), model_input_names=names
        )
    return AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def load_whole(kind: type, model_name_or_path: str, **options) -> PreTrainedModel:
    """Load with ``kind.from_pretrained``, and refuse a checkpoint whose gaps it would fill with random numbers.

    Raises:
        CheckpointError: if the weight files lack a parameter that is not tied to one that they hold.
    """
    model, loading = kind.from_pretrained(resolved(model_name_or_path), output_loading_info=True, **options)
    missing = missing_weights(model, loading)
    if missing:
        lacking = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{model_name_or_path}: its weights lack {len(missing)} parameters of the model that config.json describes ({lacking}); "
            "take config.json and all files of weights from one checkpoint"
        )
    return model


def missing_weights(model: PreTrainedModel, loading: dict) -> list[str]:
    """Names of the model's parameters that its files did not hold, from what ``from_pretrained`` tells of the loading."""
    return sorted(set(loading["missing_keys"]) & {name for name, _ in model.named_parameters(remove_duplicate=False)})


def load_seq2seq(model_name_or_path: str, generation_token_type: int | None = None) -> PreTrainedModel:
    """An encoder-decoder with a language-model head (BART or CPT) in float32.

    ``generation_token_type`` is a setting of CPT (``CPTConfig``); ``None`` keeps the checkpoint's.
    """
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "crs")
    if architecture(model_name_or_path) == "bart":
        return load_whole(AutoModelForSeq2SeqLM, model_name_or_path, dtype=torch.float32)
    changes = {} if generation_token_type is None else {"generation_token_type": generation_token_type}
    published = CPTConfig.get_config_dict(resolved(model_name_or_path))[0]
    config = CPTConfig.from_dict({**published, **changes, "model_type": CPTConfig.model_type})
    return load_whole(CPTForConditionalGeneration, model_name_or_path, config=config, dtype=torch.float32)


class Encoder(BertModel):
    """A BERT that ignores, without a warning, the pretraining heads in published checkpoints."""

    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler"]


def load_encoder(model_name_or_path: str) -> PreTrainedModel:
    """A BERT without heads in float32."""
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "encoder")
    return load_whole(Encoder, model_name_or_path, dtype=torch.float32, add_pooling_layer=False)


def compute_dtype(dtype: str = "auto") -> torch.dtype:
    """The dtype of a model whose weights are not trained. ``auto`` is bfloat16 on a device that computes in it, else float32.

    Such devices are GPUs since NVIDIA's Ampere, and CPUs with AMX or AVX512-BF16. Other CPUs would only emulate it.

    Raises:
        ValueError: for a name that is not one of ``DTYPES``.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; known: {', '.join(DTYPES)}")
    if torch.cuda.is_available():
        computes = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        of_cpu = torch.cpu.get_capabilities()
        computes = bool(of_cpu.get("amx_bf16") or of_cpu.get("avx512_bf16"))
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": torch.bfloat16 if computes else torch.float32}[dtype]


def load_causal(
    model_name_or_path: str, quantization_bit: int = 0, for_training: bool = False, dtype: str = "float32"
) -> PreTrainedModel:
    """Load a causal LM (LLaMA, ChatGLM).

    Args:
        quantization_bit: with 4 or 8, bitsandbytes holds the linear layers in NF4 or int8, on CPU too. 0 does not quantise.
        for_training: set it if all weights will be trained; ``auto`` is then float32 (the Trainer computes in bfloat16). It is
            not meant for a frozen base, such as LoRA's.
        dtype: dtype of the weights, one of ``DTYPES``; for ``auto`` see ``compute_dtype``.

    Raises:
        ValueError: for another number of bits or another dtype.
    """
    if quantization_bit not in (0, 4, 8):
        raise ValueError(f"quantization_bit={quantization_bit}: give 4 or 8, or 0 for the model as it is")
    held = torch.float32 if for_training and dtype == "auto" and not quantization_bit else compute_dtype(dtype)
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "llm")
    if not quantization_bit:
        return flat_head(load_whole(AutoModelForCausalLM, model_name_or_path, dtype=held, trust_remote_code=False))
    if quantization_bit == 4:
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=held)
    else:
        quantization = BitsAndBytesConfig(load_in_8bit=True)
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it reports a cast at every product
    model = load_whole(
        AutoModelForCausalLM, model_name_or_path, dtype=held, quantization_config=quantization, device_map={"": device()},
        trust_remote_code=False,
    )  # fmt: skip
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On some CPUs evaluation repacks the weights, and later training reads their scales in a wrong order.
            module.support_avx512bf16_for_cpu = False
    return flat_head(model)


def flat_linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``linear`` as a product of two matrices, whatever the dimensions of the states.

    ``generate`` hands a slice of states to the head, [rows, 1, size]. For such a slice torch multiplies each row with a copy of the weights of its own
    if these are frozen, as LoRA's base is: with a vocabulary of 262,144 and 16 rows in bfloat16 that takes 14 s on two cores instead of 0.03 s.
    """
    return linear(states.reshape(-1, states.shape[-1]), weight, bias).unflatten(0, states.shape[:-1])


class FlatLinear(torch.nn.Linear):
    """A linear layer that computes ``flat_linear``."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return flat_linear(states, self.weight, self.bias)


def flat_head(model: PreTrainedModel) -> PreTrainedModel:
    """The same model; its head is a ``FlatLinear`` if it was a plain linear layer."""
    head = model.get_output_embeddings()
    if type(head) is torch.nn.Linear:
        head.__class__ = FlatLinear
    return model


def load_unrounded(model_name_or_path: str) -> PreTrainedModel:
    """Load a causal LM on the CPU with the dtype of its weight files, as merging needs it."""
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "llm")
    return load_whole(AutoModelForCausalLM, model_name_or_path, dtype="auto", trust_remote_code=False)


