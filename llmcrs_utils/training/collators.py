"""Collators: they make a batch from examples. One per kind of model; each batch is padded to its longest row."""

from collections.abc import Callable, Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase, PreTrainedTokenizerFast

NO_CHOICE = -100  # label of a place without a prediction
ANSWER, DESCRIPTION, ANY_DESCRIPTION = range(3)  # what an LLM learns to write: a text, the right product's description, any candidate's without a dialogue
Collator = Callable[[list[dict]], dict]


def pad(sequences: list[list[int]], value: int, side: str = "right", length: int = 0) -> torch.Tensor:
    """[batch, longest] int64, padded with ``value`` on the ``side``, to ``length`` if that is longer."""
    rows = [torch.tensor(row, dtype=torch.long) for row in sequences]
    padded = pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)
    missing = max(0, length - padded.shape[1])
    return torch.nn.functional.pad(padded, (missing, 0) if side == "left" else (0, missing), value=value)


def padded(rows: list[list[int]], pad_token_id: int, side: str, length: int = 0) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, [batch, longest] (or ``length``, if that is longer)."""
    return {"input_ids": pad(rows, pad_token_id, side, length), "attention_mask": pad([[1] * len(row) for row in rows], 0, side, length)}


def right_padded(rows: list[list[int]], pad_token_id: int, length: int = 0) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, [batch, longest] (or ``length``, if that is longer)."""
    return padded(rows, pad_token_id, "right", length)


def left_padded(prompts: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, [batch, longest]. Every prompt ends in the last column, where decoding starts."""
    return padded(prompts, pad_token_id, "left")


def with_labels(examples: list[dict]) -> list[dict]:
    """Training examples (``input_ids``, ``labels``) from prompts and answers. The loss is on the answers only.

    ``candidates``, ``gold`` and ``kind`` are kept.
    """
    return [
        {"input_ids": e["prompt"] + e["answer"], "labels": [-100] * len(e["prompt"]) + e["answer"]}
        | {name: e[name] for name in ("candidates", "gold", "kind") if name in e}
        for e in examples
    ]


# --- the systems


def causal_collator(pad_token_id: int, rounded_to: int = 1) -> Collator:
    """Examples -> right-padded ``input_ids``, ``attention_mask`` and ``labels``.

    With ``rounded_to`` their common length is a multiple of it. If there are descriptions among the answers, also the ``kind`` of each.

    If examples have candidates to be scored, then also, for each of these examples: ``candidate_rows`` (its row), ``candidates``
    (places of its candidates) and ``gold`` (the right candidate's number).
    """

    def collate(examples: list[dict]) -> dict:
        length = -(-max(len(e["input_ids"]) for e in examples) // rounded_to) * rounded_to if rounded_to > 1 else 0
        batch = right_padded([e["input_ids"] for e in examples], pad_token_id, length)
        batch["labels"] = pad([e["labels"] for e in examples], -100, length=length)
        if any("kind" in e for e in examples):
            batch["kind"] = torch.tensor([e.get("kind", ANSWER) for e in examples])
        scored = [row for row, e in enumerate(examples) if "candidates" in e]
        if scored:
            batch["candidate_rows"] = torch.tensor(scored)
            batch["candidates"] = torch.tensor([examples[row]["candidates"] for row in scored])
            batch["gold"] = torch.tensor([examples[row]["gold"] for row in scored])
        return batch

    return collate


def unimind_collator(pad_token_id: int, none: int) -> Collator:
    """Examples -> the parts ``generation`` and ``recommendation``, each padded to its own longest row.

    A part without examples is missing. ``none`` is the index that pads histories.
    """

    def collate(examples: list[dict]) -> dict:
        text = [example for example in examples if "labels" in example]
        recommend = [example for example in examples if "gold" in example]
        batch = {}
        if text:
            batch["generation"] = {**inputs_of(text), "labels": pad([example["labels"] for example in text], -100)}
        if recommend:
            batch["recommendation"] = {
                **(states_of(recommend) if "states" in recommend[0] else inputs_of(recommend)),
                "gold": torch.tensor([example["gold"] for example in recommend]),
                "history": pad([example["history"] for example in recommend], none),
                "history_length": torch.tensor([len(example["history"]) for example in recommend]),
                "helped": torch.tensor([example["helped"] for example in recommend]),
            }
        return batch

    def inputs_of(part: list[dict]) -> dict:
        return right_padded([example["input_ids"] for example in part], pad_token_id)

    def states_of(part: list[dict]) -> dict:
        return {"states": torch.stack([example["states"] for example in part])}

    return collate


def attributes_collator(pad_token_id: int, one_score_each: bool) -> Collator:
    """Examples -> ``input_ids``, ``attention_mask`` and, if examples have them, ``labels``.

    With ``one_score_each``, labels are one float per attribute, equally many in all examples. Otherwise they are sequences of
    symbols.
    """

    def collate(examples: list[dict]) -> dict:
        batch = right_padded([example["input_ids"] for example in examples], pad_token_id)
        if "labels" not in examples[0]:
            return batch
        labels = [example["labels"] for example in examples]
        return {**batch, "labels": torch.tensor(labels) if one_score_each else pad(labels, -100)}

    return collate


def recommender_collator(pad_token_id: int, none: int) -> Collator:
    """Examples -> a batch, each part padded to its own longest row. ``none`` is the index that pads histories."""

    def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
        batch = {}
        if "input_ids" in examples[0]:
            batch |= right_padded([example["input_ids"] for example in examples], pad_token_id)
        if "history" in examples[0]:
            batch["history"] = pad([example["history"] for example in examples], none)
            batch["history_length"] = torch.tensor([len(example["history"]) for example in examples])
        if "gold" in examples[0]:
            gold = [example["gold"] for example in examples]
            batch["gold"] = pad(gold, NO_CHOICE) if isinstance(gold[0], list) else torch.tensor(gold)
        return batch

    return collate


def kbrd_collator(pad_token_id: int) -> Collator:
    """Examples of the recommender (with ``gold``) or of the reply model (with ``user``, and optionally ``labels``) -> a batch."""

    def collate(examples: list[dict]) -> dict:
        if "gold" in examples[0]:
            entities = pad([example["entities"] for example in examples], -1)
            return {"entities": entities, "gold": torch.tensor([example["gold"] for example in examples])}
        batch = right_padded([example["input_ids"] for example in examples], pad_token_id)
        batch["user"] = torch.stack([example["user"] for example in examples])
        if "labels" in examples[0]:
            batch["labels"] = pad([example["labels"] for example in examples], -100)
        return batch

    return collate


# --- pretraining of small models


def pretraining_collator(architecture: str, tokenizer: PreTrainedTokenizerBase) -> Collator:
    """Blocks of tokens -> a batch of the architecture's pretraining task. A causal LM's examples may have ``labels``."""
    if architecture in ("llama", "gpt2"):
        return next_token_collator
    if architecture == "chatglm":
        return blank_filling_collator(tokenizer)
    if architecture == "bert":
        return masking_collator(tokenizer)
    return infilling_collator(tokenizer, token_for_token=architecture == "cpt")


def next_token_collator(examples: list[dict]) -> dict:
    labels = [example.get("labels", example["input_ids"]) for example in examples]
    return {**right_padded([example["input_ids"] for example in examples], 0), "labels": pad(labels, -100)}


def blank_filling_collator(tokenizer: PreTrainedTokenizerBase):
    """GLM's document-level blank filling (Du et al. 2022, section 2.1): the second part of a text is written after ``[gMASK]``.

    The length of that part is drawn each time, uniformly between half of the block and all of it. ``<eop>`` marks the end of a
    text, as the end token of the other architectures does. The end of a block has no mark.
    """
    opening = tokenizer.build_inputs_with_special_tokens([])

    def collate(examples: list[dict]) -> dict:
        inputs, labels = [], []
        for example in examples:
            block = example["input_ids"]
            if "labels" in example:
                inputs.append(block)
                labels.append(example["labels"])
                continue
            split = int(torch.randint(len(block) // 2 + 1, ()))
            inputs.append(block[:split] + opening + block[split:])
            labels.append([-100] * (split + len(opening)) + block[split:])
        return {**right_padded(inputs, tokenizer.pad_token_id), "labels": pad(labels, -100)}

    return collate


def masking_collator(tokenizer: PreTrainedTokenizerBase):
    """BERT's masked language modelling (Devlin et al. 2019, section 3.1) by transformers, on texts between [CLS] and [SEP]."""
    mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    return lambda examples: dict(
        mask([{"input_ids": [tokenizer.cls_token_id, *example["input_ids"], tokenizer.sep_token_id]} for example in examples])
    )


def infilling_collator(
    tokenizer: PreTrainedTokenizerFast, token_for_token: bool = False, share: float = 0.3, mean_span: float = 3.0
):
    """BART's text infilling (Lewis et al. 2020): spans of Poisson length become one mask each, and the decoder writes the text.

    With ``token_for_token`` every hidden token gets its own mask, as CPT needs. CPT's understanding decoder predicts the token
    behind each mask (masked language modelling), and its generation decoder writes the text (denoising). Shao et al. (2021,
    section 3.2) corrupt the text separately for each task. Here both tasks share one input, so that the encoder runs once.

    Args:
        share: share of the tokens that is hidden.
        mean_span: mean length of a span.
    """

    def spans(length: int) -> Iterator[tuple[int, int]]:
        """(start, end) of each hidden span, in order. A mask that hides nothing has start = end."""
        position, budget = 0, share * length
        while position < length:
            if budget > 0 and torch.rand(()) < share / mean_span / (1 - share + share / mean_span):
                span = int(torch.poisson(torch.tensor(mean_span)))
                yield position, min(position + span, length)
                position += span
                budget -= span
            else:
                position += 1

    def corrupt(block: list[int]) -> list[int]:
        kept, done = [], 0
        for start, end in spans(len(block)):
            masks = end - start if token_for_token else 1
            kept += block[done:start] + [tokenizer.mask_token_id] * masks
            done = end
        return kept + block[done:]

    def collate(examples: list[dict]) -> dict:
        start, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        texts = [start + example["input_ids"] + end for example in examples]
        inputs = [start + corrupt(example["input_ids"]) + end for example in examples]
        batch = {**right_padded(inputs, tokenizer.pad_token_id), "labels": pad(texts, -100)}
        if token_for_token:
            batch["understanding_labels"] = batch["labels"].where(batch["input_ids"] == tokenizer.mask_token_id, -100)
        return batch

    return collate
