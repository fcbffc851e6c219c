"""Tiny GGUF files, written with the gguf package as llama.cpp's converter writes them, each with its safetensors twin."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

ARCHITECTURES = {
    "llama": (LlamaConfig, LlamaForCausalLM, gguf.MODEL_ARCH.LLAMA),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, gguf.MODEL_ARCH.QWEN2),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, gguf.MODEL_ARCH.GEMMA3),
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADS, LAYERS, POSITIONS = 4, 2, 2048


@dataclass
class Vocabulary:
    """A tokenizer as a GGUF file holds it, and its text -> ids by the library that trained it."""

    kind: str
    tokens: list[str]
    types: list[int]
    ids: dict[str, int]
    encode: Callable[[str], list[int]]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def byte_level(texts: list[str]) -> Vocabulary:
    """A byte-level BPE, as GPT-2's and Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    types = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    return Vocabulary("gpt2", tokens, types, {"bos": 0, "eos": 2, "pad": 0}, lambda text: tokenizer.encode(text).ids, merges)


def pieces(texts: list[str]) -> Vocabulary:
    """A BPE by sentencepiece, as Gemma's; texts begin with <bos>."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, model_type="bpe", vocab_size=1600, character_coverage=0.98, byte_fallback=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity", pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", control_symbols=["<mask>"], minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    numbers = range(model.get_piece_size())
    kinds = ((model.is_unknown, gguf.TokenType.UNKNOWN), (model.is_control, gguf.TokenType.CONTROL), (model.is_byte, gguf.TokenType.BYTE))
    types = [next((kind for holds, kind in kinds if holds(number)), gguf.TokenType.NORMAL) for number in numbers]
    tokens, scores = [model.id_to_piece(number) for number in numbers], [model.get_score(number) for number in numbers]
    ids = {"bos": 2, "eos": 1, "pad": 0, "unk": 3}
    return Vocabulary("llama", tokens, types, ids, lambda text: [2, *model.encode(text)], scores=scores)


def write(folder: Path, architecture: str, texts: list[str]) -> tuple[Path, Path, Vocabulary]:
    """A GGUF file in float32, the folder of the same model, and the vocabulary of both."""
    config_of, model_of, arch = ARCHITECTURES[architecture]
    vocabulary = (pieces if architecture == "gemma3" else byte_level)(texts)
    size = len(vocabulary.tokens)
    sizes = {"vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": POSITIONS, "tie_word_embeddings": True, "rope_theta": 10_000.0}
    sizes |= {f"{name}_token_id": vocabulary.ids[name] for name in ("bos", "eos", "pad")} | {"rms_norm_eps": 1e-6}
    sizes |= {"sliding_window": 512} if architecture == "gemma3" else {}
    torch.manual_seed(1)
    model = model_of(config_of(**sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.2 if "norm" in name else 0.5)
    twin = folder / f"{architecture}-twin"
    model.save_pretrained(twin)

    file = folder / f"{architecture}.gguf"
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_block_count(LAYERS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(sizes["hidden_size"])
    writer.add_feed_forward_length(sizes["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(sizes["num_key_value_heads"])
    writer.add_key_length(sizes["head_dim"])
    writer.add_value_length(sizes["head_dim"])
    writer.add_layer_norm_rms_eps(sizes["rms_norm_eps"])
    writer.add_rope_freq_base(sizes["rope_theta"])
    writer.add_vocab_size(size)
    if architecture == "llama":
        writer.add_rope_dimension_count(sizes["head_dim"])
    if architecture == "gemma3":
        writer.add_sliding_window(sizes["sliding_window"])
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.kind == "gpt2":
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(False)
    for name, number in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.kind == "llama")
    writer.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(arch, LAYERS)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(written, as_llama_cpp(architecture, name, tensor.float().numpy(), sizes))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file, twin, vocabulary


def as_llama_cpp(architecture: str, name: str, weight: np.ndarray, sizes: dict) -> np.ndarray:
    """llama.cpp has another order of the rows of LLaMA's queries and keys, and Gemma's norms as factors."""
    if architecture == "gemma3" and "norm" in name:
        return weight + 1
    if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = HEADS if "q_proj" in name else sizes["num_key_value_heads"]
        return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape).copy()
    return weight
