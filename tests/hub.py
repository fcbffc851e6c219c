"""Tiny checkpoints in folders laid out, file by file, like the published ones on the hub."""

import io
import json
from pathlib import Path

import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from llmcrs_utils.checkpoints.chatglm_tokenizer import config_ids, train_chatglm_tokenizer
from llmcrs_utils.checkpoints.cpt import CPTConfig, CPTForConditionalGeneration
from llmcrs_utils.corpus.schema import Corpus, write_corpus
from llmcrs_utils.corpus.u_need import DIALOGUE_NAMES, KNOWLEDGE_NAMES

ASCII = [chr(code) for code in range(33, 127)]
LETTERS = "ABCDEFGHIJKLMNOPQRST"
FORBIDDEN = 'raise RuntimeError("code of the checkpoint was run")\n'


def save_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def save_shards(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    """``pytorch_model-0000x-of-0000N.bin`` and their index."""
    names = list(weights)
    weight_map = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = names[number::shards]
        torch.save({name: weights[name].clone() for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    save_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


def new(architecture: type[PreTrainedModel], config, seed: int = 1) -> PreTrainedModel:
    set_seed(seed)
    return architecture(config)


def chinese_vocabulary(texts: list[str]) -> list[str]:
    """BERT's Chinese layout with the ids of the published file: 100 [UNK], 101 [CLS], 102 [SEP], 103 [MASK], 104 [EOS]."""
    fixed = ["[PAD]", *(f"[unused{number}]" for number in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EOS]"]
    characters = sorted({character for text in texts for character in text if not character.isspace()} - set(ASCII))
    return [*fixed, *ASCII, *(f"##{character}" for character in ASCII if character.isalnum()), *characters]


def chinese_bart_config(vocab_size: int, **sizes) -> dict:
    return {
        "activation_function": "gelu", "architectures": ["BartForConditionalGeneration"], "model_type": "bart",
        "tokenizer_class": "BertTokenizer", "is_encoder_decoder": True, "vocab_size": vocab_size,
        "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "init_std": 0.02, "max_position_embeddings": 1024,
        "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102, "decoder_start_token_id": 102, "forced_eos_token_id": 102,
        "num_beams": 4, "no_repeat_ngram_size": 3, "early_stopping": True, "scale_embedding": False, "use_cache": True,
        "transformers_version": "4.4.1", **sizes,
    }  # fmt: skip


def bart_base_chinese(folder: Path, texts: list[str]) -> str:
    """config.json, vocab.txt, pytorch_model.bin."""
    folder.mkdir(parents=True)
    vocabulary = chinese_vocabulary(texts)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = chinese_bart_config(len(vocabulary), encoder_layers=2, decoder_layers=2)
    save_json(folder / "config.json", config)
    torch.save(new(BartForConditionalGeneration, BartConfig.from_dict(config)).state_dict(), folder / "pytorch_model.bin")
    return str(folder)


def cpt_base(folder: Path, texts: list[str]) -> str:
    """As BART's, which its config says it is; the weights tell. With the tokenizer's small files."""
    folder.mkdir(parents=True)
    vocabulary = chinese_vocabulary(texts)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = chinese_bart_config(len(vocabulary), encoder_layers=3, decoder_layers=1)
    save_json(folder / "config.json", config)
    save_json(folder / "tokenizer_config.json", {"do_lower_case": False, "tokenize_chinese_chars": True})
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask", "eos")}
    save_json(folder / "special_tokens_map.json", named)
    weights = new(CPTForConditionalGeneration, CPTConfig.from_dict({**config, "model_type": "cpt"})).state_dict()
    positions = torch.arange(config["max_position_embeddings"])[None]  # a buffer that older libraries saved
    torch.save({**weights, "model.encoder.embeddings.position_ids": positions}, folder / "pytorch_model.bin")
    return str(folder)


def chatglm_6b(folder: Path, texts: list[str]) -> str:
    """Config and tokenizer settings that name code of the folder's own, ice_text.model, float16 shards with float32 norms."""
    folder.mkdir(parents=True)
    tokenizer = train_chatglm_tokenizer(texts, 1000)
    tokenizer.save_vocabulary(str(folder))
    sizes = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "inner_hidden_size": 64, "max_sequence_length": 2048}
    ids = config_ids(tokenizer) | {"vocab_size": len(tokenizer) + 24}  # the published matrix has spare rows, too
    automatic = ("AutoModel", "AutoModelForSeq2SeqLM")
    save_json(folder / "config.json", {
        "architectures": ["ChatGLMModel"], "model_type": "chatglm", "layernorm_epsilon": 1e-5, "position_encoding_2d": True,
        "torch_dtype": "float16", "transformers_version": "4.23.1", "use_cache": True, **sizes, **ids,
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            **dict.fromkeys(automatic, "modeling_chatglm.ChatGLMForConditionalGeneration"),
        },
    })  # fmt: skip
    save_json(folder / "tokenizer_config.json", {
        "name_or_path": "THUDM/chatglm-6b", "bos_token": "<sop>", "eos_token": "<eop>", "end_token": "</s>", "gmask_token": "[gMASK]",
        "mask_token": "[MASK]", "pad_token": "<pad>", "unk_token": "<unk>", "remove_space": False, "do_lower_case": False,
        "tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0,
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
    })  # fmt: skip
    for name in ("configuration", "modeling", "tokenization"):
        (folder / f"{name}_chatglm.py").write_text(FORBIDDEN)
    model = new(ChatGLMForConditionalGeneration, ChatGLMConfig(**sizes, **ids))
    weights = {n: t if "layernorm" in n else t.half() for n, t in model.state_dict().items()}
    for layer in range(sizes["num_layers"]):
        weights[f"transformer.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(4).half()  # to be ignored
    save_shards(folder, weights, 3)
    return str(folder)


def sentencepiece_bpe(texts: list[str], vocab_size: int, **options) -> sentencepiece_model_pb2.ModelProto:
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=content, model_type="bpe", vocab_size=vocab_size, hard_vocab_limit=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return sentencepiece_model_pb2.ModelProto.FromString(content.getvalue())


def llama_tokenizer() -> sentencepiece_model_pb2.ModelProto:
    """LLaMA's layout: <unk> <s> </s>, bytes, then English pieces; Chinese by bytes."""
    english = [*LETTERS, "running shoes for iPhone 13 128G", "0 1 2 3 4 5 6 7 8 9 ; , . : [ ] ( )"] * 20
    return sentencepiece_bpe(english, 360, byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True)


def with_chinese(base: sentencepiece_model_pb2.ModelProto, texts: list[str]) -> sentencepiece_model_pb2.ModelProto:
    """As Chinese-LLaMA made its own: the pieces of a Chinese tokenizer appended, all with the score 0."""
    enlarged = sentencepiece_model_pb2.ModelProto.FromString(base.SerializeToString())
    known = {piece.piece for piece in base.pieces}
    lines = [line for text in texts for line in text.split("\n")]
    for piece in sentencepiece_bpe(lines, 1500).pieces:
        if piece.type == piece.NORMAL and piece.piece not in known:
            enlarged.pieces.add(piece=piece.piece, score=0)
    return enlarged


def llama_config(vocab_size: int) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048, "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.28.1", "use_cache": True,
    }  # fmt: skip


def llama(folder: Path, tokenizer: sentencepiece_model_pb2.ModelProto, seed: int = 1) -> str:
    """config.json, tokenizer.model and float16 shards: LLaMA, or a merged Chinese-Alpaca-Plus if the tokenizer is one's."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(tokenizer.SerializeToString())
    config = llama_config(len(tokenizer.pieces))
    save_json(folder / "config.json", config)
    model = new(LlamaForCausalLM, LlamaConfig.from_dict(config), seed)
    save_shards(folder, {name: tensor.half() for name, tensor in model.state_dict().items()}, 2)
    return str(folder)


def chinese_alpaca_plus_7b(folder: Path, texts: list[str]) -> str:
    """The merged model, with a tokenizer whose settings are as empty as LLaMA's first conversions had them."""
    name = llama(folder, with_chinese(llama_tokenizer(), texts))
    save_json(folder / "tokenizer_config.json", {
        "bos_token": "", "eos_token": "", "unk_token": "", "model_max_length": 10**30, "tokenizer_class": "LLaMATokenizer",
    })  # fmt: skip
    return name


def lora(folder: Path, tokenizer: sentencepiece_model_pb2.ModelProto, pad: bool, seed: int, rank: int = 4) -> str:
    """A LoRA in the files of PEFT 0.3 for ``llama``'s sizes, with its own embeddings; ``pad`` adds [PAD] as Alpaca's has it."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(tokenizer.SerializeToString())
    rows = len(tokenizer.pieces) + pad
    if pad:
        save_json(folder / "added_tokens.json", {"[PAD]": rows - 1})
        named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]"}
        save_json(folder / "special_tokens_map.json", named)
    projections = ["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "down_proj", "up_proj"]
    save_json(folder / "adapter_config.json", {
        "base_model_name_or_path": "somewhere/else", "bias": "none", "enable_lora": None, "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": 4 * rank, "lora_dropout": 0.05, "merge_weights": False,
        "modules_to_save": ["embed_tokens", "lm_head"], "peft_type": "LORA", "r": rank, "target_modules": projections,
        "task_type": "CAUSAL_LM",
    })  # fmt: skip
    set_seed(seed)
    model = LlamaForCausalLM(LlamaConfig.from_dict(llama_config(rows)))
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.split(".")[-2] in projections:
            stem = "base_model.model." + name.removesuffix(".weight")
            weights[f"{stem}.lora_A.weight"] = torch.randn(rank, tensor.shape[1]).half() / 8
            weights[f"{stem}.lora_B.weight"] = torch.randn(tensor.shape[0], rank).half() / 8
        elif name.split(".")[-2] in ("embed_tokens", "lm_head"):
            weights[f"base_model.model.{name}"] = tensor.half()
    torch.save(weights, folder / "adapter_model.bin")
    return str(folder)


def bert_base_chinese(folder: Path, texts: list[str]) -> str:
    """google-bert/bert-base-chinese: vocab.txt, tokenizer settings, safetensors with the heads of its pretraining."""
    folder.mkdir(parents=True)
    vocabulary = chinese_vocabulary(texts)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    save_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 512}
    model = new(BertForPreTraining, BertConfig(vocab_size=len(vocabulary), architectures=["BertForMaskedLM"], pad_token_id=0, **sizes))
    model.save_pretrained(folder)
    return str(folder)


def gpt2_chinese(folder: Path, texts: list[str]) -> str:
    """uer/gpt2-chinese-cluecorpussmall: a GPT-2 with BERT's vocabulary, config.json, vocab.txt, pytorch_model.bin."""
    folder.mkdir(parents=True)
    vocabulary = chinese_vocabulary(texts)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    save_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 1024})
    config = GPT2Config(vocab_size=len(vocabulary), n_embd=32, n_layer=2, n_head=2, n_positions=1024, architectures=["GPT2LMHeadModel"])
    save_json(folder / "config.json", {**config.to_dict(), "tokenizer_class": "BertTokenizer"})
    torch.save(new(GPT2LMHeadModel, config).state_dict(), folder / "pytorch_model.bin")
    return str(folder)


def qwen(folder: Path, texts: list[str]) -> str:
    """A causal LM of today: byte-level tokenizer.json, control tokens, a chat template, safetensors."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=controls, show_progress=False)
    tokenizer.train_from_iterator([*texts, *LETTERS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_tokens(["<think>", "</think>"])  # control tokens that are not marked as special
    fast.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    )
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    ids = {"bos_token_id": None, "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    new(Qwen2ForCausalLM, Qwen2Config(vocab_size=len(fast), max_position_embeddings=4096, **sizes, **ids)).save_pretrained(folder)
    return str(folder)


def u_need(folder: Path, corpus: Corpus) -> str:
    """A corpus under the names of U-NEED's own files."""
    write_corpus(corpus, folder)
    for internal, own in [*DIALOGUE_NAMES.values(), KNOWLEDGE_NAMES]:
        (folder / internal).rename(folder / own)
    return str(folder)
