"""Checkpoints by folder or hub id; the same code loads a small model of this project and a published one.

Nothing that a checkpoint brings along as code is run, and nobody is asked whether it may.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import load_peft_weights
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

from llmcrs_utils.backbones.chatglm_tokenizer import ChatGLMTokenizer  # its import makes ChatGLM known to the Auto classes
from llmcrs_utils.backbones.checkpoints import (
    CheckpointError,
    architecture,
    check_checkpoint,
    check_model,
    check_tokenizer,
    checkpoint_file,
    read_json,
)
from llmcrs_utils.backbones.cpt import CPTConfig, CPTForConditionalGeneration
from llmcrs_utils.backbones.llama_tokenizer import SentencePieceLlamaTokenizer

# UniMIND's information segments (paper section 3.3) and the assistant's (section 3.5).
SEGMENT_TOKENS = ["[user]", "[system]", "[understand]", "[elicit]", "[recommend]", "[LLM]"]
MERGED_FROM = "merged_from.json"


def device() -> torch.device:
    """Of several processes on one machine each has a GPU of its own."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(model_name_or_path: str, segments: bool = False) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, with UniMIND's segment tokens added where asked."""
    tokenizer = tokenizer_as_published(model_name_or_path)
    if set(tokenizer("需求 need")["input_ids"]) <= set(tokenizer.all_special_ids):
        raise CheckpointError(
            f"{model_name_or_path}: its {type(tokenizer).__name__} reads no text at all; name the right class as tokenizer_class in "
            "tokenizer_config.json"
        )
    if segments:
        tokenizer.add_special_tokens({"additional_special_tokens": SEGMENT_TOKENS})
    if tokenizer.pad_token is None:  # LLaMA has none; its unknown token never occurs where it would be read
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def tokenizer_as_published(model_name_or_path: str) -> PreTrainedTokenizerBase:
    """The files there decide: published settings name the class wrongly, or code of their own, or nothing."""

    def has(name: str) -> bool:
        return checkpoint_file(model_name_or_path, name) is not None

    if has("ice_text.model"):
        return ChatGLMTokenizer.from_pretrained(model_name_or_path)
    # "": an adapter has no config.json. A publisher's own tokenizer.json says more than the file it was made of.
    if has("tokenizer.model") and not has("tokenizer.json") and architecture(model_name_or_path) in ("llama", ""):
        return SentencePieceLlamaTokenizer.from_pretrained(model_name_or_path)
    if has("vocab.txt") and not has("tokenizer.json"):  # the Chinese BART and CPT
        said = read_json(checkpoint_file(model_name_or_path, "tokenizer_config.json"))
        # Token types are left out: BART has none, and CPT sets its own.
        names = ["input_ids", "attention_mask"]
        return BertTokenizer.from_pretrained(
            model_name_or_path, do_lower_case=said.get("do_lower_case", False), model_input_names=names
        )
    return AutoTokenizer.from_pretrained(model_name_or_path, trust_remote_code=False)


def load_whole(kind: type, model_name_or_path: str, **options) -> PreTrainedModel:
    """``kind.from_pretrained``, which would fill up with random numbers what the weight files lack.

    Raises:
        CheckpointError: where they lack a parameter that is not tied to one that they hold.
    """
    model, found = kind.from_pretrained(model_name_or_path, output_loading_info=True, **options)
    missing = sorted(found["missing_keys"] & {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if missing:
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{model_name_or_path}: its weights lack {len(missing)} parameters of the model that config.json describes ({named}); "
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
    found = CPTConfig.get_config_dict(model_name_or_path)[0]
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


def load_causal(model_name_or_path: str, quantization_bit: int = 0, for_training: bool = False) -> PreTrainedModel:
    """A causal LM (LLaMA, ChatGLM), in bfloat16 on a GPU, to be trained in float32 (the Trainer computes in bfloat16).

    With ``quantization_bit`` its linear layers are held by bitsandbytes, on CPU too: 4 in NF4, 8 in int8.
    """
    if quantization_bit not in (0, 4, 8):
        raise ValueError(f"quantization_bit={quantization_bit}: give 4 or 8, or 0 for the model as it is")
    check_checkpoint(model_name_or_path)
    check_model(model_name_or_path, "llm")
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if not quantization_bit:
        dtype = torch.float32 if for_training else dtype
        return load_whole(AutoModelForCausalLM, model_name_or_path, dtype=dtype, trust_remote_code=False)
    if quantization_bit == 4:
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    else:
        quantization = BitsAndBytesConfig(load_in_8bit=True)
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it reports its cast at every product
    model = load_whole(
        AutoModelForCausalLM, model_name_or_path, dtype=dtype, quantization_config=quantization, device_map={"": device()},
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


def merge_adapters(base: str, adapters: list[str], output_dir: str | Path) -> None:
    """Fold published LoRA adapters into their base, one after the other, and save one plain checkpoint with tokeniser.

    Chinese-Alpaca-Plus is made so of LLaMA, the Chinese-LLaMA-Plus LoRA and the Chinese-Alpaca-Plus LoRA (Cui et al. 2023),
    each of which brings a larger vocabulary and its own embeddings. The tokeniser saved is the last that was brought. The
    weights keep the base's dtype. A folder that was made of the same files is left as it is, also one that another job made
    meanwhile.

    Raises:
        CheckpointError: for a base that is no causal LM, an adapter that is none or brings new tokens without their
            embeddings, and an ``output_dir`` that holds something else.
    """
    check_checkpoint(base)
    check_model(base, "llm")
    output_dir = Path(output_dir)
    sources = json.dumps({"base": files_of(base), "adapters": [files_of(adapter) for adapter in adapters]}, indent=1) + "\n"
    record = output_dir / MERGED_FROM

    def made() -> bool:
        return record.exists() and record.read_text(encoding="utf-8") == sources

    if made():
        return
    if output_dir.exists() and not record.exists() and any(output_dir.iterdir()):
        raise CheckpointError(f"{output_dir}: this folder holds something that was not merged here; give another output_dir")
    model = load_unrounded(base)
    tokenizer = tokenizer_as_published(base)
    for adapter in adapters:
        if checkpoint_file(adapter, "adapter_config.json") is None:
            raise CheckpointError(f"{adapter}: this is no adapter: adapter_config.json is not there")
        if any(checkpoint_file(adapter, name) for name in ("tokenizer.json", "tokenizer.model")):
            tokenizer = tokenizer_as_published(adapter)
        brought = load_peft_weights(adapter, device="cpu")
        heads = [weights for name, weights in brought.items() if name.endswith((".embed_tokens.weight", ".lm_head.weight"))]
        rows = max([model.get_input_embeddings().num_embeddings, *map(len, heads)])
        if len(tokenizer) > rows or 0 < len(heads) < 2:
            raise CheckpointError(f"{adapter}: its tokeniser knows {len(tokenizer)} tokens, and embeddings for all of them are not here")
        model.resize_token_embeddings(rows, mean_resizing=False)  # the adapter's own rows replace them all
        config = PeftConfig.from_pretrained(adapter)
        model = PeftModel.from_pretrained(model, adapter, config=config).merge_and_unload(safe_merge=True)
    with half_made(output_dir, unless=made) as folder:
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        check_tokenizer(folder)
        (folder / MERGED_FROM).write_text(sources, encoding="utf-8")


def with_adapters(model_name_or_path: str, adapters: list[str], folder: str | Path) -> str:
    """The checkpoint to go on from: the model itself or, with adapters, all merged in a folder of its own under ``folder``.

    Its name tells what it was made of, so that other adapters, or newer files of theirs, never take its place.
    """
    if not adapters:
        return model_name_or_path
    sources = json.dumps([files_of(name) for name in (model_name_or_path, *adapters)])
    output_dir = Path(folder) / f"merged-{hashlib.sha256(sources.encode()).hexdigest()[:12]}"
    with PartialState().main_process_first():
        merge_adapters(model_name_or_path, adapters, output_dir)
    return str(output_dir)


@contextmanager
def half_made(output_dir: str | Path, unless: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A folder to write in, which takes the name ``output_dir`` when all is there.

    What stands there by then is replaced, or kept if ``unless`` says so.
    """
    output_dir = Path(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{output_dir.name}.", dir=output_dir.parent))
    try:
        yield folder
        try:
            folder.rename(output_dir)  # one step, so that of several jobs one comes first
        except OSError:  # something is there
            if not unless():
                shutil.rmtree(output_dir, ignore_errors=True)
                folder.rename(output_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_of(model_name_or_path: str) -> list:
    """What tells whether a checkpoint has changed: names, sizes and times of a folder's files, or the hub id."""
    folder = Path(model_name_or_path).expanduser()
    if not folder.is_dir():
        return [model_name_or_path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.iterdir()) if file.is_file()]
