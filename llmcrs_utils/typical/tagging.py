"""Understanding as sequence labelling: Bert, Bert+CRF and Bert+BiLSTM+CRF (paper appendix B).

These systems read only the current utterance. Each token gets one of the tags O, B-x and I-x of an attribute x. Bert decides for
each token separately (Devlin et al. 2019, section 5.3, where only the first piece of each word is tagged; Chinese has no word
boundaries, so here every token is tagged). Bert+CRF decides for all tokens together. Bert+BiLSTM+CRF has a BiLSTM below the CRF
(Huang et al. 2015). A tagger can only mark words of the utterance; ``unexpressed`` counts the labels that it cannot express.
"""

from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.checkpoints.loading import device, load_tokenizer
from llmcrs_utils.corpus.schema import LINK_ONLY, SPLITS, Corpus, Dialogue
from llmcrs_utils.tasks.answers import text_answer
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.samples import merge_turns
from llmcrs_utils.text.fitting import warn_of_shortened
from llmcrs_utils.text.prompts import Prompts, parse_needs
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import causal_collator
from llmcrs_utils.training.decoding import answer_in_batches
from llmcrs_utils.training.trainer import train
from llmcrs_utils.typical.crf import LinearChainCRF
from llmcrs_utils.typical.models import TypicalModel, load_model, new_model

TAGGER_LAYERS = {
    "bert": {"lstm": False, "crf": False},
    "bert_crf": {"lstm": False, "crf": True},
    "bert_bilstm_crf": {"lstm": True, "crf": True},
}

# --- from annotation to spans


class Span(NamedTuple):
    """One annotated (attribute, value) and its place in the text of its turn; -1, -1 if it has none."""

    attribute: str
    value: str
    start: int
    end: int


def turn_spans(dialogue: Dialogue) -> dict[int, list[Span]]:
    """``seq_no`` -> annotation, for each turn of ``merge_turns``. Places count within turns; in the corpus, within utterances."""
    spans = {}
    utterances = iter(dialogue.dialogue)
    for turn in merge_turns(dialogue):
        turn_annotation: list[Span] = []
        offset = 0
        for text, utterance in zip(turn.texts, islice(utterances, len(turn.texts)), strict=True):

            def place(position: int) -> int:
                before = utterance.send_content[:position]
                return offset + len(before if turn.by_user else before.replace(LINK_ONLY, ""))

            for one in utterance.attributes:
                ends = (-1, -1) if one.start < 0 else (place(one.start), place(one.exclusive_end))
                turn_annotation.append(Span(one.key, one.value, *ends))
            offset += len(text) + 1  # a space joins the texts
        spans[turn.seq_no] = turn_annotation
    return spans


def annotated(samples: pd.DataFrame, dialogues: list[Dialogue]) -> list[tuple[str, list[Span]]]:
    """The utterance of each understand sample, and its annotation."""
    spans = {(dialogue.sid, seq_no): found for dialogue in dialogues for seq_no, found in turn_spans(dialogue).items()}
    return [(utterance_of(row), spans[row["sid"], row["seq_no"]]) for row in samples.to_dict("records")]


def utterance_of(sample: dict) -> str:
    """The current utterance without its marker."""
    return sample["current"][-1].partition("]")[2]


def plain_value(value: str, prompts: Prompts) -> str:
    """A value in the form of an answer: blanks as in ``text_answer``, and a comma for the separator of sets."""
    return prompts.space.join(value.replace(prompts.items.strip(), prompts.facts.strip()).split())


def is_at_span(span: Span, text: str, prompts: Prompts) -> bool:
    """Whether the text has the value at its span, in upper or lower case."""
    at_span = plain_value(text[max(span.start, 0) : max(span.end, 0)], prompts)
    return bool(at_span) and at_span.casefold() == plain_value(span.value, prompts).casefold()


def flat(spans: list[Span]) -> list[Span]:
    """The spans that one tag per token can express together, in the order of the text.

    Of spans that share characters, the longest is kept, as flat corpora keep the outermost. It is the complete need: in 不用美白,
    the part 美白 alone would mean the opposite. Of equally long spans, the first annotated is kept.
    """
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start - span.end):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def taggable(spans: list[Span], text: str, attributes: list[str], prompts: Prompts) -> list[Span]:
    return flat([span for span in spans if span.attribute in attributes and is_at_span(span, text, prompts)])


# --- from spans to tags and back: tag 0 is O, 2k + 1 is B and 2k + 2 is I of attribute number k


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Token ids with [CLS] and [SEP], and the place in the text (start, end) of each token between them.

    A text that is too long for the tokenizer's ``model_max_length`` loses its beginning. Text that looks like a control token is
    read as ordinary text.
    """
    special, most = special_of(tokenizer, split_special_tokens=True), tokenizer.model_max_length - 2
    # The length stays the same, so that places in the shielded text are places in the text.
    shielded = [plain(text, special, same_length=True) for text in texts]
    read = tokenizer(shielded, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    lost = [len(row) - most if len(row) > most else 0 for row in read["input_ids"]]
    warn_of_shortened(pd.DataFrame({"shortened": lost}), most + 2)
    ids = [[tokenizer.cls_token_id, *row[n:], tokenizer.sep_token_id] for row, n in zip(read["input_ids"], lost, strict=True)]
    return ids, [row[n:] for row, n in zip(read["offset_mapping"], lost, strict=True)]


def tags_of(spans: list[Span], text: str, offsets: list[tuple[int, int]], attributes: list[str]) -> list[int]:
    """One tag per token. A token belongs to the first span with which it shares characters, without blanks at the span's ends."""
    tags = [0] * len(offsets)
    for span in spans:
        words = text[span.start : span.end]
        start, end = span.end - len(words.lstrip()), span.start + len(words.rstrip())
        inside = [i for i, (first, last) in enumerate(offsets) if first < end and last > start and not tags[i]]
        begins = 2 * attributes.index(span.attribute) + 1
        for i in inside:
            tags[i] = begins if i == inside[0] else begins + 1
    return tags


def chunks(tags: list[int]) -> list[tuple[int, int, int]]:
    """(number of the attribute, first token, token after the last) of each chunk, as conlleval reads tags.

    An I-x that does not continue a chunk of x begins a new one.
    """
    result: list[tuple[int, int, int]] = []
    for position, tag in enumerate(tags):
        if not tag:
            continue
        attribute, inside = (tag - 1) // 2, tag % 2 == 0
        if inside and result and result[-1][0] == attribute and result[-1][2] == position:
            result[-1] = (attribute, result[-1][1], position + 1)
        else:
            result.append((attribute, position, position + 1))
    return result


def tagged_answer(text: str, offsets: list[tuple[int, int]], tags: list[int], attributes: list[str], prompts: Prompts) -> dict:
    """The answer that tags express: attributes and values in order of appearance, each pair once."""
    pairs = []
    for attribute, first, end in chunks(tags):
        value = plain_value(text[offsets[first][0] : offsets[end - 1][1]], prompts)
        if value:
            pairs.append(plain_value(attributes[attribute], prompts) + prompts.pair + value)
    return text_answer("understand", prompts.items.join(dict.fromkeys(pairs)), prompts)


# --- the model


class Tagger(TypicalModel):
    """An encoder, optionally a BiLSTM, a layer that scores each token and tag, and optionally a CRF."""

    def build(self, attributes: list[str], lstm: bool, crf: bool) -> None:
        width, half = self.config.encoder["hidden_size"], self.config.encoder["hidden_size"] // 2
        n_tags = 2 * len(attributes) + 1
        self.dropout = nn.Dropout(self.config.encoder["hidden_dropout_prob"])
        self.lstm = nn.LSTM(width, half, batch_first=True, bidirectional=True) if lstm else None
        self.head = nn.Linear(2 * half if lstm else width, n_tags)
        self.crf = LinearChainCRF(n_tags) if crf else None

    def emissions(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [batch, length - 2, n_tags] of the tokens between [CLS] and [SEP], and a mask that is true for real tokens."""
        states = self.states(input_ids, attention_mask)[:, 1:-1]
        mask = attention_mask[:, 2:].bool()
        if self.lstm is not None and mask.shape[1]:
            lengths = mask.sum(dim=1).clamp(min=1).cpu()
            # Packed, so that the backward direction starts at the end of each row, not in its padding.
            packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
        return self.head(self.dropout(states)), mask

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss: the mean over utterances of -log p(all tags of the utterance).

        ``labels``: [batch, length - 2], -100 after the end.
        """
        emissions, mask = self.emissions(input_ids, attention_mask)
        if self.crf is not None:
            return {"loss": -self.crf.log_likelihood(emissions, labels, mask).mean()}
        return {"loss": F.cross_entropy(emissions.transpose(1, 2).float(), labels, reduction="sum") / len(labels)}

    def best_tags(self, input_ids: Tensor, attention_mask: Tensor) -> list[list[int]]:
        """The tags of each row's tokens: the most likely tag of each token or, with a CRF, the most likely sequence."""
        emissions, mask = self.emissions(input_ids, attention_mask)
        best = emissions.argmax(dim=2) if self.crf is None else self.crf.best_tags(emissions, mask)
        return [row[:length] for row, length in zip(best.tolist(), mask.sum(dim=1).tolist(), strict=True)]


# --- what the notebook calls


def train_tagger(
    system: str,
    dataset: Dataset,
    corpus: Corpus,
    prompts: Prompts,
    *,
    model_name_or_path: str,
    output_dir: str | Path,
    seed: int,
    num_train_epochs: float,
    learning_rate: float,
    per_device_train_batch_size: int,
    cutoff_len: int,
    **training_options,
) -> pd.DataFrame:
    """Train ``bert``, ``bert_crf`` or ``bert_bilstm_crf`` on the corpus's spans and save it in ``output_dir``.

    The attributes are those with a span in training; tokens of any other attribute are O. An utterance with more than
    ``cutoff_len`` tokens, [CLS] and [SEP] included, loses its beginning. ``training_options`` are passed to ``trainer.train``.

    Returns:
        The history of ``trainer.train``.

    Raises:
        ValueError: if training or validation has nothing to understand.
    """
    tokenizer = load_tokenizer(model_name_or_path)
    spoken = {split: annotated(understand(dataset, split), corpus.dialogues[split]) for split in ("train", "valid")}
    attributes = sorted({span.attribute for text, spans in spoken["train"] for span in spans if is_at_span(span, text, prompts)})
    model = new_model(Tagger, model_name_or_path, seed, tokenizer, attributes=attributes, **TAGGER_LAYERS[system])
    tokenizer.model_max_length = min(cutoff_len, model.encoder.config.max_position_embeddings)  # saved with it
    examples = {split: tagged_examples(part, tokenizer, attributes, prompts) for split, part in spoken.items() if part}
    if not all(examples.get(split) for split in spoken):
        raise ValueError("nothing to understand in training or validation; both splits need annotated utterances")
    return train(
        model, examples["train"], examples["valid"], causal_collator(tokenizer.pad_token_id), output_dir=output_dir,
        num_train_epochs=num_train_epochs, learning_rate=learning_rate, per_device_train_batch_size=per_device_train_batch_size,
        seed=seed, label_names=["labels"], tokenizer=tokenizer, **training_options,
    )  # fmt: skip


def answer_tagger(
    system: str, dataset: Dataset, samples: pd.DataFrame, prompts: Prompts, *, output_dir: str | Path, batch_size: int
) -> pd.DataFrame:
    """Predictions (columns of ``predictions.SCHEMA`` without system and seed) for understand samples, in their order."""
    model = load_model(Tagger, output_dir).to(device())
    tokenizer = load_tokenizer(str(output_dir))
    collate = causal_collator(tokenizer.pad_token_id)
    texts = [utterance_of(row) for row in samples[["current"]].to_dict("records")]
    ids, offsets = encode(texts, tokenizer)

    @torch.no_grad()
    def answer(task: str, chosen: list[int]) -> list[dict]:
        batch = collate([{"input_ids": ids[i], "labels": []} for i in chosen])
        tags = model.best_tags(batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device))
        attributes = model.config.shape["attributes"]
        return [tagged_answer(texts[i], offsets[i], row, attributes, prompts) for i, row in zip(chosen, tags, strict=True)]

    return answer_in_batches(samples, [len(row) for row in ids], batch_size, answer)


def seen_tagger(system: str, dataset: Dataset, sample: dict, prompts: Prompts, *, output_dir: str | Path) -> str:
    """The tokens of the current utterance, which are such a system's whole input for a sample."""
    tokenizer = load_tokenizer(str(output_dir))
    return " ".join(tokenizer.convert_ids_to_tokens(encode([utterance_of(sample)], tokenizer)[0][0]))


def understand(dataset: Dataset, split: str) -> pd.DataFrame:
    samples = dataset.split(split)
    return samples[samples["task"] == "understand"]


def tagged_examples(
    spoken: list[tuple[str, list[Span]]], tokenizer: PreTrainedTokenizerBase, attributes: list[str], prompts: Prompts
) -> list[dict]:
    """``input_ids`` and ``labels`` (one tag per token of the text) of each utterance that has tokens."""
    texts = [text for text, _ in spoken]
    return [
        {"input_ids": ids, "labels": tags_of(taggable(spans, text, attributes, prompts), text, offsets, attributes)}
        for (text, spans), ids, offsets in zip(spoken, *encode(texts, tokenizer), strict=True)
        if offsets
    ]


# --- what tags cannot say

# The reasons why tags cannot express a label, in the order in which they are checked.
NO_VALUE, NO_SPAN, NOT_THERE = "no value", "no span", "value not at its span"
UNKNOWN, SAME_SPAN, OVERLAP = "attribute without a span in training", "same span under two attributes", "nested or overlapping"
CUT, OTHERWISE, TOKENS = "beyond cutoff_len", "written otherwise", "not whole tokens"
REASONS = (NO_VALUE, NO_SPAN, NOT_THERE, UNKNOWN, SAME_SPAN, OVERLAP, CUT, OTHERWISE, TOKENS)


def unexpressed(dataset: Dataset, corpus: Corpus, prompts: Prompts, *, output_dir: str | Path) -> pd.DataFrame:
    """How many labels perfect tags would miss, with the attributes and tokens of a trained system.

    Returns:
        One row per split: ``samples``; ``labels``, the sum over samples of the distinct pairs in a label; ``expressed``, how many
        of these perfect tags express; a column per reason in ``REASONS`` that counts the others (for a pair that is annotated
        several times, the last of its reasons); and ``recall`` and ``f1`` of perfect tags, means over samples as in
        ``metrics.score``.
    """
    tokenizer = load_tokenizer(str(output_dir))
    attributes = Tagger.config_class.from_pretrained(str(output_dir)).shape["attributes"]
    table = {}
    for split in SPLITS:
        samples = understand(dataset, split)
        if samples.empty:
            continue
        spoken = annotated(samples, corpus.dialogues[split])
        places = encode([text for text, _ in spoken], tokenizer)[1]
        lost: Counter = Counter()
        expressed, recalls, f1s = 0, [], []
        for (text, spans), offsets, label in zip(spoken, places, samples["label"], strict=True):
            kept = taggable(spans, text, attributes, prompts)
            tags = tags_of(kept, text, offsets, attributes)
            predicted = set(parse_needs(tagged_answer(text, offsets, tags, attributes, prompts)["text"], prompts))
            gold = set(parse_needs(label, prompts))
            hits = len(gold & predicted)
            expressed += hits
            recalls.append(hits / max(len(gold), 1))
            f1s.append(2 * hits / max(len(gold) + len(predicted), 1))
            reasons = defaultdict(set)
            for span in spans:
                reason = why_lost(span, text, kept, offsets, attributes, prompts)
                for pair in parse_needs(span.attribute + prompts.pair + span.value, prompts):
                    reasons[pair].add(reason)
            lost.update(max(reasons[pair], key=REASONS.index) for pair in gold - predicted)
        table[split] = {
            "samples": len(samples), "labels": expressed + lost.total(), "expressed": expressed,
            **{reason: lost[reason] for reason in REASONS}, "recall": sum(recalls) / len(recalls), "f1": sum(f1s) / len(f1s),
        }  # fmt: skip
    return pd.DataFrame.from_dict(table, orient="index")


def why_lost(
    span: Span, text: str, kept: list[Span], offsets: list[tuple[int, int]], attributes: list[str], prompts: Prompts
) -> str:
    """The first of ``REASONS`` that holds for an annotation that perfect tags do not express."""
    at_span = text[span.start : span.end]
    reasons = {
        NO_VALUE: not span.value.strip(),
        NO_SPAN: span.start < 0,
        NOT_THERE: not is_at_span(span, text, prompts),
        UNKNOWN: span.attribute not in attributes,
        SAME_SPAN: span not in kept and any((span.start, span.end) == (other.start, other.end) for other in kept),
        OVERLAP: span not in kept,
        CUT: not offsets or span.end - len(at_span.lstrip()) < offsets[0][0],
        OTHERWISE: prompts.items.strip() in span.attribute + span.value
        or plain_value(at_span, prompts) != plain_value(span.value, prompts),
        TOKENS: True,
    }
    return next(reason for reason, holds in reasons.items() if holds)
