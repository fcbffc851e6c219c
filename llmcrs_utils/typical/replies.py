"""GPT-2 as a dialogue model: it writes the reply after the dialogue (Radford et al. 2019; paper appendix B).

It reads only the utterances. It reads neither the annotation of earlier turns nor the attributes to ask about and the items to
recommend, which the task's definition would allow. The same holds for the GPT-2 that U-NEED (Liu et al. 2023) takes from CRSLab.

Differences from that code: the loss is on the whole reply and the end token, not on the last positions of a padded window. The
oldest utterances are cut. Decoding is greedy, not a beam search with 4 beams.
"""

import json
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.checkpoints.loading import device, load_causal, load_tokenizer
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.tasks.answers import loses_width, text_answer
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.text.fitting import Piece, fit_pieces, warn_of_shortened
from llmcrs_utils.text.instructions import spoken_lines, without_label
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import causal_collator, with_labels
from llmcrs_utils.training.decoding import answer_in_batches, continue_greedily
from llmcrs_utils.training.trainer import train

TASK = "respond"
RECORD = "replies.json"
LEAST_DIALOGUE = 16  # tokens; about one utterance


def train_replies(
    system: str,
    dataset: Dataset,
    corpus: Corpus,
    prompts: Prompts,
    *,
    model_name_or_path: str | None,
    output_dir: str | Path,
    seed: int,
    num_train_epochs: float,
    learning_rate: float,
    per_device_train_batch_size: int,
    cutoff_len: int,
    max_new_tokens: int = 64,
    **training_options,
) -> pd.DataFrame:
    """Fine-tune all weights of a causal LM on ``dialogue -> reply``. The loss is on the reply and its end token.

    ``output_dir`` then holds an ordinary checkpoint and ``replies.json``.

    Args:
        cutoff_len: most tokens of dialogue and reply together; lowered to the model's number of positions.
        max_new_tokens: most tokens of the reply.
        training_options: passed to ``trainer.train``.

    Returns:
        The history of ``trainer.train``.

    Raises:
        ValueError: if training or validation has no reply, or if replies leave no room for the dialogue.
    """
    tokenizer = reply_tokenizer(model_name_or_path)
    model = load_causal(model_name_or_path, for_training=True)
    model.loss_type = "ForCausalLM"  # transformers does not derive it from the name of GPT-2's class
    cutoff_len = min(cutoff_len, model.config.max_position_embeddings)
    if cutoff_len - max_new_tokens < LEAST_DIALOGUE:
        raise ValueError(
            f"cutoff_len={cutoff_len} (the model has no more positions) less max_new_tokens={max_new_tokens} leaves a dialogue "
            f"fewer than {LEAST_DIALOGUE} tokens; give a longer cutoff_len or a smaller max_new_tokens"
        )
    examples = {}
    for name in ("train", "valid"):
        samples = dataset.split(name).query("task == @TASK").reset_index(drop=True)
        if samples.empty:
            raise ValueError(f"no respond sample in the {name} split; {system} needs replies of the service desk in both")
        dialogues = encode(samples, tokenizer, prompts, cutoff_len - max_new_tokens)
        replies = [with_end(reply, tokenizer, max_new_tokens) for reply in reply_ids(samples["label"], tokenizer, prompts)]
        examples[name] = with_labels([{"prompt": d, "answer": r} for d, r in zip(dialogues, replies, strict=True)])
    history = train(
        model, examples["train"], examples["valid"], causal_collator(tokenizer.pad_token_id), output_dir=output_dir,
        seed=seed, tokenizer=tokenizer, num_train_epochs=num_train_epochs,
        learning_rate=learning_rate, per_device_train_batch_size=per_device_train_batch_size, label_names=["labels"],
        **training_options,
    )  # fmt: skip
    record = {"cutoff_len": cutoff_len, "max_new_tokens": max_new_tokens}
    write_atomically(Path(output_dir) / RECORD, json.dumps(record, indent=1) + "\n")
    return history


def reply_tokenizer(model_name_or_path: str) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer. Without an end token, as in Chinese GPT-2s with a BERT vocabulary, ``[SEP]`` is the end token.

    Raises:
        ValueError: for a tokenizer with neither.
    """
    tokenizer = load_tokenizer(model_name_or_path)
    if tokenizer.eos_token is None:
        if tokenizer.sep_token is None:
            raise ValueError(f"{model_name_or_path}: its tokenizer has neither an end token nor [SEP] to end a reply with")
        tokenizer.eos_token = tokenizer.sep_token
    return tokenizer


def encode(samples: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, limit: int) -> list[list[int]]:
    """Per sample the token ids of the dialogue, one utterance per line, ending with the label of the service desk.

    A dialogue that is longer than ``limit`` tokens loses its oldest utterances. If the current turn alone is too long, it loses
    its beginning but keeps its speaker.
    """
    special = special_of(tokenizer)
    dialogues = []
    for sample in samples.to_dict("records"):
        earlier = [plain(line, special) for turn in sample["context"] for line in spoken_lines(turn, prompts)]
        kept = []
        for line in spoken_lines(sample["current"], prompts):
            label, spoken = without_label(plain(line, special), prompts)
            kept += [Piece(label), Piece(spoken, 1), Piece("\n")]
        dialogues.append((earlier, [*kept, Piece(prompts.system.rstrip())]))
    ids, report = fit_pieces(dialogues, lambda texts: open_ids(texts, tokenizer), limit, joint="\n")
    warn_of_shortened(report, limit)
    opening = open_ids([""], tokenizer)[0]
    return [row if len(row) <= limit else opening + row[len(row) - limit + len(opening) :] for row in ids]


def open_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of texts without an end token, which a BERT tokenizer adds to every text."""
    ids = tokenizer(texts)["input_ids"]
    return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in ids]


def reply_ids(replies: pd.Series, tokenizer: PreTrainedTokenizerBase, prompts: Prompts) -> list[list[int]]:
    special = special_of(tokenizer)
    texts = [prompts.space + plain(reply.strip(), special) for reply in replies]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def with_end(reply: list[int], tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> list[int]:
    return [*reply[: max_new_tokens - 1], tokenizer.eos_token_id]


@torch.no_grad()
def answer_replies(
    system: str, dataset: Dataset, samples: pd.DataFrame, prompts: Prompts, *, output_dir: str | Path, batch_size: int
) -> pd.DataFrame:
    """Greedy replies (columns of ``predictions.SCHEMA`` without system and seed), in the order of ``samples``."""
    record, tokenizer = made_in(output_dir)
    model = load_causal(str(output_dir)).to(device()).eval()
    dialogues = encode(samples, tokenizer, prompts, record["cutoff_len"] - record["max_new_tokens"])
    narrowed = loses_width(tokenizer)

    def answer(task: str, chosen: list[int]) -> list[dict]:
        written = continue_greedily(model, tokenizer, [dialogues[i] for i in chosen], record["max_new_tokens"])
        return [text_answer(task, raw, prompts, narrowed, confidence) for raw, confidence in written]

    return answer_in_batches(samples, [len(dialogue) for dialogue in dialogues], batch_size, answer)


def seen_replies(system: str, dataset: Dataset, sample: dict, prompts: Prompts, *, output_dir: str | Path) -> str:
    """The model's input for one sample, token for token, up to the place where it begins to write."""
    record, tokenizer = made_in(output_dir)
    limit = record["cutoff_len"] - record["max_new_tokens"]
    return tokenizer.decode(encode(pd.DataFrame([sample]), tokenizer, prompts, limit)[0])


def made_in(output_dir: str | Path) -> tuple[dict, PreTrainedTokenizerBase]:
    """The record of ``train_replies`` in ``output_dir``, and its tokenizer."""
    return json.loads((Path(output_dir) / RECORD).read_text(encoding="utf-8")), reply_tokenizer(str(output_dir))
