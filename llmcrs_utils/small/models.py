"""Small backbones for use without published weights, each pretrained on its architecture's own task.

BART fills in text (Lewis et al. 2020), and CPT does so with both of its decoders (Shao et al. 2021). LLaMA and GPT-2 predict the
next token. ChatGLM continues a text after ``[gMASK]`` (Du et al. 2022). BERT predicts masked tokens (Devlin et al. 2019).

They read the text of training dialogues and the product knowledge in words, and nothing of validation or test. They are saved as
ordinary checkpoint folders, which the rest of the project loads like published models.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from llmcrs_utils.checkpoints.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from llmcrs_utils.checkpoints.chatglm_tokenizer import config_ids, train_chatglm_tokenizer
from llmcrs_utils.checkpoints.cpt import CPTConfig, CPTForConditionalGeneration
from llmcrs_utils.corpus.schema import Dialogue
from llmcrs_utils.tasks.samples import merge_turns
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import pretraining_collator
from llmcrs_utils.training.trainer import train

ARCHITECTURES = ("bart", "cpt", "llama", "chatglm", "bert", "gpt2")
# Architectures whose tokenizer adds an end token to a text, not only a start token.
ENCODERS = ("bart", "cpt", "bert")
PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


def train_tokenizer(texts: list[str], architecture: str, vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer of at most ``vocab_size`` tokens, of the kind that the architecture needs.

    ChatGLM has its own sentencepiece tokenizer. The others have a fast BPE: one token per Chinese character, digit or sign, and
    subwords elsewhere; blanks are kept. For BART, CPT and BERT a text becomes ``[CLS] text [SEP]``, for LLaMA and GPT-2
    ``[CLS] text``.
    """
    if architecture == "chatglm":
        return train_chatglm_tokenizer(texts, vocab_size)
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\u3400-\u9fff\d]|[^\w\s]|\n"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    specials = [PAD, UNKNOWN, START, END, MASK]
    # Letters name candidates, but training texts may lack some of them.
    alphabet = [chr(code) for code in range(ord("A"), ord("Z") + 1)] + [chr(code) for code in range(ord("0"), ord("9") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    template = f"{START} $A {END}" if architecture in ENCODERS else f"{START} $A"
    ids = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, mask_token=MASK,
        cls_token=START, sep_token=END, bos_token=START, eos_token=END,
    )  # fmt: skip


def new_backbone(
    architecture: str, tokenizer: PreTrainedTokenizerBase, *, hidden_size: int, layers: int, heads: int, max_positions: int, seed: int
) -> PreTrainedModel:
    """A model with random weights: a causal model or encoder of ``layers`` layers, or an encoder and a decoder of as many each.

    CPT has ``layers`` layers in each of its three parts: shared encoder, understanding decoder and generation decoder.
    """
    set_seed(seed)
    start = hidden_size**-0.5  # the published 0.02 suits widths near 1,000; at 128, attention would stay uniform for very long
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if architecture in ("bart", "cpt"):
        sizes = {
            "vocab_size": len(tokenizer), "d_model": hidden_size, "max_position_embeddings": max_positions, "decoder_layers": layers,
            "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * hidden_size,
            "decoder_ffn_dim": 4 * hidden_size, "dropout": 0.0, "attention_dropout": 0.0, "init_std": start,
            "decoder_start_token_id": tokenizer.eos_token_id, "forced_eos_token_id": None, **ids,
        }  # fmt: skip
        if architecture == "bart":
            return BartForConditionalGeneration(BartConfig(encoder_layers=layers, **sizes))
        # There is no published model to agree with, so generation encodes the text as training does.
        model = CPTForConditionalGeneration(CPTConfig(encoder_layers=2 * layers, generation_token_type=1, **sizes))
        # Every position has the same token type. Its vector would get the gradients of all positions, outgrow words and positions within
        # 15 updates, and leave all states of the encoder equal, so that the decoder learned not to read it.
        nn.init.zeros_(model.model.encoder.embeddings.token_type_embeddings.weight).requires_grad_(False)
        return model
    if architecture == "chatglm":
        return ChatGLMForConditionalGeneration(
            ChatGLMConfig(
                hidden_size=hidden_size, inner_hidden_size=4 * hidden_size, num_layers=layers, num_attention_heads=heads,
                max_sequence_length=max_positions, initializer_range=start, **config_ids(tokenizer),
            )
        )  # fmt: skip
    if architecture == "bert":
        return BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=4 * hidden_size, num_hidden_layers=layers,
                num_attention_heads=heads, max_position_embeddings=max_positions, hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0, initializer_range=start, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
    if architecture == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_embd=hidden_size, n_layer=layers, n_head=heads, n_positions=max_positions,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=start, **ids,
            )
        )  # fmt: skip
        model.loss_type = "ForCausalLM"  # transformers does not derive it from the name of this class
        return model
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=3 * hidden_size, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=max_positions, tie_word_embeddings=False,
            initializer_range=start, **ids,
        )
    )  # fmt: skip


def pretrain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    *,
    block_size: int,
    seed: int,
    **options,
) -> pd.DataFrame:
    """Train a new backbone in place on ``texts``, packed into blocks. One block in twenty is held out for the validation loss.

    ``options`` go to ``trainer.train``. Returns its history.
    """
    examples, held_out = text_blocks(tokenizer, texts, block_size, seed)
    collate = pretraining_collator(model.config.model_type, tokenizer)
    return train(model, examples, held_out, collate, seed=seed, label_names=["labels"], group_by_length=False, **options)


def text_blocks(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], block_size: int, seed: int
) -> tuple[list[dict], list[dict]]:
    """The texts, each with an end token, cut into blocks (``input_ids``): training blocks, and one in twenty held out."""
    special = special_of(tokenizer)
    texts = [plain(text, special) for text in texts]
    ids = [token for text in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in [*text, tokenizer.eos_token_id]]
    blocks = [ids[start : start + block_size] for start in range(0, len(ids), block_size)]
    examples = [{"input_ids": block} for block in blocks if len(block) > 1]
    np.random.default_rng(seed).shuffle(examples)
    held_out = max(1, len(examples) // 20)
    return examples[held_out:], examples[:held_out]


def pretraining_texts(dialogues: list[Dialogue], facts: list[str], prompts: Prompts) -> list[str]:
    """Training dialogues with their annotation, and the facts of each item, as running text."""
    texts = []
    for dialogue in dialogues:
        lines = []
        for turn in merge_turns(dialogue):
            lines.append((prompts.user if turn.by_user else prompts.system) + turn.text)
            if turn.needs:
                lines.append(prompts.current + turn.needs_text(prompts))
        texts.append("\n".join(lines))
    return texts + [fact for fact in facts if fact]


def prompt_texts(prompts: Prompts) -> list[str]:
    """The fixed texts that models will read, so that the tokenizer learns their words."""
    groups = (prompts.crs, prompts.instruction, prompts.hint, prompts.help)
    single = (prompts.user, prompts.system, prompts.dialogue, prompts.candidates, prompts.needs, prompts.ask, prompts.satisfying)
    return [*(text for group in groups for text in group.values()), *single, prompts.satisfied, "[Round 0]"]


def save_backbone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
