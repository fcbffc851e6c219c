"""Small backbones for corpora without pretrained weights: BART by text infilling, LLaMA by next token.

They see the text of training dialogues and the verbalised product knowledge, nothing of validation or test, and are
saved as ordinary checkpoint folders that the rest of the project loads like a published model.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from llmcrs_utils.corpus.schema import Dialogue
from llmcrs_utils.tasks.prompts import Prompts
from llmcrs_utils.tasks.samples import merge_turns
from llmcrs_utils.training import pad, train

ARCHITECTURES = ("bart", "llama")
PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


def train_tokenizer(texts: list[str], architecture: str, vocab_size: int) -> PreTrainedTokenizerFast:
    """A fast BPE tokeniser: one token per Chinese character, digit or sign, subwords elsewhere; blanks survive.

    BART's closes a text with ``[CLS] … [SEP]``; LLaMA's opens it with ``[CLS]`` and leaves the end open.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\u3400-\u9fff\d]|[^\w\s]|\n"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    specials = [PAD, UNKNOWN, START, END, MASK]
    # Letters name candidates and may occur in no training text.
    alphabet = [chr(code) for code in range(ord("A"), ord("Z") + 1)] + [chr(code) for code in range(ord("0"), ord("9") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    template = f"{START} $A {END}" if architecture == "bart" else f"{START} $A"
    ids = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, mask_token=MASK,
        cls_token=START, sep_token=END, bos_token=START, eos_token=END,
    )  # fmt: skip


def new_backbone(
    architecture: str, tokenizer: PreTrainedTokenizerFast, *, hidden_size: int, layers: int, heads: int, max_positions: int, seed: int
) -> PreTrainedModel:
    """A BART (``layers`` in encoder and in decoder) or a LLaMA with random weights."""
    set_seed(seed)
    start = hidden_size**-0.5  # the published 0.02 suits widths near 1,000; at 128 attention would take ages to leave uniform
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if architecture == "bart":
        return BartForConditionalGeneration(
            BartConfig(
                vocab_size=len(tokenizer), d_model=hidden_size, max_position_embeddings=max_positions,
                encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads, decoder_attention_heads=heads,
                encoder_ffn_dim=4 * hidden_size, decoder_ffn_dim=4 * hidden_size, dropout=0.0, attention_dropout=0.0, init_std=start,
                decoder_start_token_id=tokenizer.eos_token_id, forced_eos_token_id=None, **ids,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=3 * hidden_size, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=max_positions, tie_word_embeddings=False,
            initializer_range=start, **ids,
        )
    )  # fmt: skip


def pretrain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    *,
    block_size: int,
    seed: int,
    **options,
) -> pd.DataFrame:
    """Train a new backbone in place on ``texts`` packed into blocks; one block in twenty is held out for the loss shown.

    ``options`` go to ``training.train``. Returns its history.
    """
    ids = [token for text in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in [*text, tokenizer.eos_token_id]]
    blocks = [ids[start : start + block_size] for start in range(0, len(ids), block_size)]
    examples = [{"input_ids": block} for block in blocks if len(block) > 1]
    np.random.default_rng(seed).shuffle(examples)
    held_out = max(1, len(examples) // 20)
    is_bart = isinstance(model, BartForConditionalGeneration)
    collate = make_infilling_collator(tokenizer) if is_bart else next_token_collate
    return train(
        model, examples[held_out:], examples[:held_out], collate, seed=seed, label_names=["labels"], group_by_length=False, **options
    )


def next_token_collate(examples: list[dict]) -> dict:
    input_ids = pad([example["input_ids"] for example in examples], 0)
    labels = pad([example["input_ids"] for example in examples], -100)
    return {"input_ids": input_ids, "attention_mask": (labels >= 0).long(), "labels": labels}


def make_infilling_collator(tokenizer: PreTrainedTokenizerFast, share: float = 0.3, mean_span: float = 3.0):
    """BART's text infilling (Lewis et al. 2020): spans of Poisson length become one mask each; the decoder writes the text."""

    def corrupt(block: list[int]) -> list[int]:
        kept, position, budget = [], 0, share * len(block)
        while position < len(block):
            if budget > 0 and torch.rand(()) < share / mean_span / (1 - share + share / mean_span):
                span = int(torch.poisson(torch.tensor(mean_span)))
                kept.append(tokenizer.mask_token_id)  # a span of length 0 inserts a mask
                position += span
                budget -= span
            else:
                kept.append(block[position])
                position += 1
        return kept

    def collate(examples: list[dict]) -> dict:
        start, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        inputs = [start + corrupt(example["input_ids"]) + end for example in examples]
        input_ids = pad(inputs, tokenizer.pad_token_id)
        lengths = torch.tensor([len(row) for row in inputs])
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        return {"input_ids": input_ids, "attention_mask": mask, "labels": pad([start + e["input_ids"] + end for e in examples], -100)}

    return collate


def pretraining_texts(dialogues: list[Dialogue], facts: list[str], prompts: Prompts) -> list[str]:
    """Training dialogues with their annotation, and what is known of each item, as running text."""
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
    """The fixed words models will read, so that the tokeniser knows them."""
    groups = (prompts.crs, prompts.instruction, prompts.hint, prompts.help)
    single = (prompts.user, prompts.system, prompts.dialogue, prompts.candidates, prompts.needs, prompts.ask, prompts.satisfying)
    return [*(text for group in groups for text in group.values()), *single, prompts.satisfied, "[Round 0]"]


def save_backbone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
