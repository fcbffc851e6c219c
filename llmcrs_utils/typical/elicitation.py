"""DiaMultiClass and DiaSeq: they predict which attributes to ask about next, as a set or as a sequence.

The heads are those of Li, Kiseleva and de Rijke (2020, "Rethinking Supervised Learning and Reinforcement Learning in
Task-Oriented Dialogue Systems"), on top of BERT as in U-NEED (Liu et al. 2023, task 2 of its published code). The input is the
dialogue, ``[SEP]`` and the attributes mentioned so far. Each system is first trained on all categories, and then continues in
each category separately.

Differences from that code:

* Attributes are written as words, not as numbers. Speakers are marked. The oldest turns are cut, not the newest.
* Only attributes of the training split are known.
* Heads read BERT's state at ``[CLS]``, not its pooled output.
* A category's model starts with all weights of the model of all categories. In the code the last layer (DiaMultiClass) or the
  decoder (DiaSeq) starts at random.
* DiaSeq outputs attributes in order of mention, not of their numbers, at most 7 instead of 5, and none twice. Its beam search
  does not extend ended sequences.
* The best epoch is the one with the smallest validation loss. BERT and head have the same learning rate.
"""

import json
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.checkpoints.loading import device, load_tokenizer
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.files.atomic import first_process, write_atomically
from llmcrs_utils.tasks.answers import text_answer
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.text.fitting import Piece, shorten
from llmcrs_utils.text.prompts import Prompts, parse_attributes
from llmcrs_utils.text.segments import segment_pieces
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import attributes_collator
from llmcrs_utils.training.decoding import answer_in_batches
from llmcrs_utils.training.trainer import train
from llmcrs_utils.typical.models import TypicalModel, load_model, new_model, text_ids

TASK = "elicit"
ALL, TOKENIZER = "all", "tokenizer"  # folders: of the model of all categories, and of the tokenizer that all models use
RECORD = "elicitation.json"


class DiaMultiClass(TypicalModel):
    """Predicts a probability for each attribute. Attributes with a probability above one half are asked about.

    As there are many attributes and few to ask about, a positive label has the weight ``positive_weight`` in the loss. It is 3 in
    U-NEED's code, which explains why its recall is higher than its precision.
    """

    def build(self, attributes: int, hidden: int, positive_weight: float) -> None:
        self.positive_weight = positive_weight
        self.head = nn.Sequential(
            nn.Linear(self.encoder.config.hidden_size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, attributes),
        )  # fmt: skip

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """``labels`` are [batch, attributes], 0 or 1. The ``logits`` have the same shape."""
        logits = self.head(self.states(input_ids, attention_mask)[:, 0])
        if labels is None:
            return {"logits": logits}
        weight = torch.full_like(logits[0], self.positive_weight)
        return {"loss": F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weight), "logits": logits}

    def choose(self, input_ids: Tensor, attention_mask: Tensor) -> list[list[int]]:
        """Per input the attributes with a probability above one half, in the vocabulary's order; possibly none."""
        likely = self(input_ids, attention_mask)["logits"] > 0
        return [[place for place, is_likely in enumerate(row) if is_likely] for row in likely.tolist()]


class DiaSeq(TypicalModel):
    """A recurrent decoder outputs one attribute after the other, and then an end symbol.

    An MLP on BERT's first state computes a start vector. It is the decoder's initial state, and at every step a part of its
    input, together with the previous symbol. Symbols are the attributes and ``self.boundary``, which starts a sequence as input
    and ends it as output.
    """

    def build(self, attributes: int, hidden: int, embedding: int, max_attributes: int, num_beams: int) -> None:
        self.boundary, self.max_attributes, self.num_beams = attributes, max_attributes, num_beams
        width = hidden // 2
        self.start = nn.Sequential(nn.Linear(self.encoder.config.hidden_size, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.symbols = nn.Embedding(attributes + 1, embedding)
        self.decoder = nn.GRU(embedding + width, width, batch_first=True)
        self.output = nn.Linear(width, attributes + 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Teacher forcing. ``labels`` are [batch, steps]; each row ends with ``self.boundary`` and is padded with -100.

        The loss is the mean over a sequence's symbols, then over sequences. So short sequences count as much as long ones.
        """
        start = self.start(self.states(input_ids, attention_mask)[:, 0])
        before = torch.cat([torch.full_like(labels[:, :1], self.boundary), labels[:, :-1].clamp(min=0)], dim=1)
        logits = self.step(before, start, start[None])[0]
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return {"loss": (losses.sum(dim=1) / (labels != -100).sum(dim=1)).mean(), "logits": logits}

    def step(self, before: Tensor, start: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next symbols.

        Args:
            before: [rows, steps], the previous symbols.
            start: [rows, width], the start vectors of the texts.
            state: [1, rows, width], the state of the decoder.

        Returns:
            logits [rows, steps, symbols] and the decoder's next state.
        """
        starts = start[:, None].expand(-1, before.shape[1], -1)
        outputs, state = self.decoder(torch.cat([self.symbols(before), starts], dim=-1), state.contiguous())
        return self.output(outputs), state

    def choose(self, input_ids: Tensor, attention_mask: Tensor) -> list[list[int]]:
        """Per input the best sequence that a beam search finds, without the end symbol."""
        start = self.start(self.states(input_ids, attention_mask)[:, 0])
        return beam_search(self, start, self.num_beams)[0]


def beam_search(model: DiaSeq, start: Tensor, num_beams: int) -> tuple[list[list[int]], Tensor]:
    """The most probable sequences of at most ``model.max_attributes`` different attributes, each followed by the end symbol.

    All rows and beams advance together, one step at a time. Sequences are compared by log-probability, including that of the end
    symbol and without length normalisation. An ended sequence stays in the beam until better ones replace it. The search is
    exhaustive if the beam is as wide as the number of possible sequences.

    Args:
        start: [batch, width], as for ``DiaSeq.step``.

    Returns:
        Per row the attributes of the best sequence, and its log-probability [batch].
    """
    batch, width = start.shape
    rows = torch.arange(batch, device=start.device)[:, None]
    boundary, symbols = model.boundary, model.boundary + 1
    start = start[:, None].expand(-1, num_beams, -1).reshape(-1, width)
    state = start[None]
    scores = start.new_full((batch, num_beams), -torch.inf)
    scores[:, 0] = 0.0  # one empty sequence to start from
    last = torch.full((batch, num_beams), boundary, device=start.device)
    used = torch.zeros(batch, num_beams, symbols, dtype=torch.bool, device=start.device)
    ended = torch.zeros(batch, num_beams, dtype=torch.bool, device=start.device)
    written = torch.empty(batch, num_beams, 0, dtype=torch.long, device=start.device)
    attribute = torch.arange(symbols, device=start.device) != boundary
    for length in range(model.max_attributes + 1):
        logits, state = model.step(last.reshape(-1, 1), start, state)
        steps = logits.float().log_softmax(dim=-1).view(batch, num_beams, symbols)
        full = length == model.max_attributes
        steps = steps.masked_fill(used | (ended[..., None] | full) & attribute, -torch.inf)
        steps[..., boundary] = steps[..., boundary].masked_fill(ended, 0.0)  # an ended sequence keeps its probability
        scores, best = (scores[..., None] + steps).flatten(1).topk(num_beams)
        origin, last = best // symbols, best % symbols
        written = torch.cat([written[rows, origin], last[..., None]], dim=-1)
        ended = last == boundary
        used = used[rows, origin] | F.one_hot(last, symbols).bool() & attribute
        state = state[:, (rows * num_beams + origin).flatten()]
        if ended.all():
            break
    best = [[symbol for symbol in row if symbol != boundary] for row in written[:, 0].tolist()]
    return best, scores[:, 0]


KINDS = {"dia_multiclass": DiaMultiClass, "dia_seq": DiaSeq}


def train_elicitation(
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
    hidden: int = 384,
    positive_weight: float = 3.0,
    embedding: int = 50,
    max_attributes: int = 7,
    num_beams: int = 5,
    **training_options,
) -> pd.DataFrame:
    """Train ``dia_multiclass`` or ``dia_seq``: a model of all categories, then one per category with samples in both splits.

    ``output_dir`` then holds a folder per model and ``elicitation.json``: the attributes, and the folder of each category. A
    call after a kill does not train finished models again. The defaults are U-NEED's.

    Args:
        hidden: units of the MLP.
        positive_weight: of DiaMultiClass, the weight of a positive label in the loss.
        embedding: of DiaSeq, the size of a symbol's embedding.
        max_attributes: of DiaSeq, the most attributes in a sequence.
        num_beams: of DiaSeq, the width of the beam.
        training_options: passed to ``trainer.train``.

    Returns:
        The history of ``trainer.train`` with a column ``stage``: ``all categories``, then the categories' names.

    Raises:
        ValueError: if training or validation has no elicit sample.
    """
    output_dir = Path(output_dir)
    tokenizer = load_tokenizer(model_name_or_path, segments=True)
    splits = {name: dataset.split(name).query("task == @TASK").reset_index(drop=True) for name in ("train", "valid")}
    for name, part in splits.items():
        if part.empty:
            raise ValueError(f"no elicit sample in the {name} split; {system} needs questions of the service desk in both")
    attributes = list(dict.fromkeys(a for label in splits["train"]["label"] for a in parse_attributes(label, prompts)))
    kind = KINDS[system]
    shape = {"attributes": len(attributes), "hidden": hidden}
    if kind is DiaMultiClass:
        shape |= {"positive_weight": positive_weight}
    else:
        shape |= {"embedding": embedding, "max_attributes": max_attributes, "num_beams": num_beams}
    model = new_model(kind, model_name_or_path, seed, tokenizer, **shape)
    cutoff_len = min(cutoff_len, model.encoder.config.max_position_embeddings)
    examples = {
        name: labelled_questions(kind, encode(part, tokenizer, prompts, cutoff_len), part["label"], attributes, max_attributes, prompts)
        for name, part in splits.items()
    }
    collate = attributes_collator(tokenizer.pad_token_id, kind is DiaMultiClass)

    def stage(name: str, folder: str, chosen: dict[str, list[dict]]) -> pd.DataFrame:
        history = train(
            model if folder == ALL else load_model(kind, output_dir / ALL), chosen["train"], chosen["valid"], collate,
            output_dir=output_dir / folder, seed=seed, num_train_epochs=num_train_epochs, learning_rate=learning_rate,
            label_names=["labels"], per_device_train_batch_size=per_device_train_batch_size, **training_options,
        )  # fmt: skip
        return history.assign(stage=name)

    histories = [stage("all categories", ALL, examples)]
    folders = {}
    for domain in dict.fromkeys(told_domains(splits["train"])):
        of_category = {
            name: [example for example, home in zip(examples[name], told_domains(part), strict=True) if home == domain]
            for name, part in splits.items()
        }
        if of_category["valid"]:
            folders[domain] = f"category_{len(folders) + 1}"  # a category's name may not be a valid file name
            histories.append(stage(domain, folders[domain], of_category))
    if first_process():
        tokenizer.save_pretrained(str(output_dir / TOKENIZER))
    record = {"attributes": attributes, "folders": folders, "cutoff_len": cutoff_len}
    write_atomically(output_dir / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    return pd.concat(histories, ignore_index=True)


def spoken_attributes(sample: dict, prompts: Prompts) -> list[str]:
    """The attributes that shopper and service desk mentioned before the turn to predict, in order of first mention."""
    marks = ("[understand]", "[elicit]")
    segments = [segment for turn in [*sample["context"], sample["current"]] for segment in turn if segment.startswith(marks)]
    return list(dict.fromkeys(a for segment in segments for a in parse_attributes(segment.partition("]")[2], prompts)))


def encode(samples: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, cutoff_len: int) -> list[list[int]]:
    """Per sample the token ids of ``dialogue [SEP] attributes so far``, at most ``cutoff_len``.

    A dialogue that is too long loses its oldest turns, never an attribute. If its last turn alone is too long, that turn loses
    its beginning.
    """
    special = special_of(tokenizer)
    texts = []
    for sample in samples.to_dict("records"):
        *earlier, current = [
            [piece for segment in turn if segment.startswith(("[user]", "[system]")) for piece in segment_pieces(segment, special)]
            for turn in [*sample["context"], sample["current"]]
        ]
        spoken = plain(prompts.items.join(spoken_attributes(sample, prompts)), special)
        texts.append(([shorten(turn) for turn in earlier], [*current, Piece(tokenizer.sep_token + spoken)]))
    return text_ids(texts, tokenizer, cutoff_len)


def labelled_questions(
    kind: type[TypicalModel], ids: list[list[int]], labels: pd.Series, attributes: list[str], longest: int, prompts: Prompts
) -> list[dict]:
    """Training examples. A validation label loses the attributes that do not occur in training: they cannot be predicted.

    Args:
        longest: most attributes of a DiaSeq label.
    """
    index = {attribute: place for place, attribute in enumerate(attributes)}
    known = [[index[a] for a in dict.fromkeys(parse_attributes(label, prompts)) if a in index] for label in labels]
    if kind is DiaMultiClass:
        targets = [[float(place in row) for place in range(len(attributes))] for row in map(set, known)]
    else:
        targets = [[*row[:longest], len(attributes)] for row in known]
    return [{"input_ids": row, "labels": target} for row, target in zip(ids, targets, strict=True)]


@torch.no_grad()
def answer_elicitation(
    system: str, dataset: Dataset, samples: pd.DataFrame, prompts: Prompts, *, output_dir: str | Path, batch_size: int
) -> pd.DataFrame:
    """Predictions (columns of ``predictions.SCHEMA`` without system and seed), in the order of ``samples``.

    The model of a sample's category answers it or, if there is none, the model of all categories. An answer is empty if no
    attribute has a probability above one half, or if the sequence ends at once. It is then not valid, and scored as an empty set.
    """
    record, tokenizer = made_in(output_dir)
    attributes = record["attributes"]
    ids = encode(samples, tokenizer, prompts, record["cutoff_len"])
    collate = attributes_collator(tokenizer.pad_token_id, KINDS[system] is DiaMultiClass)

    def answers_of(folder: str, rows: list[int]) -> pd.DataFrame:
        model = load_model(KINDS[system], Path(output_dir) / folder).to(device())

        def answer(task: str, chosen: list[int]) -> list[dict]:
            batch = collate([{"input_ids": ids[rows[i]]} for i in chosen])
            answers = model.choose(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            texts = [prompts.items.join(attributes[place] for place in places) for places in answers]
            return [text_answer(task, text, prompts) for text in texts]

        part = samples.iloc[rows].reset_index(drop=True)
        return answer_in_batches(part, [len(ids[row]) for row in rows], batch_size, answer).set_index(pd.Index(rows))

    folders = pd.Series([record["folders"].get(domain, ALL) for domain in told_domains(samples)], dtype=str)
    parts = [answers_of(folder, rows.tolist()) for folder, rows in folders.groupby(folders, sort=False).indices.items()]
    return pd.concat(parts).sort_index()


def told_domains(samples: pd.DataFrame) -> pd.Series:
    """What models may know of the samples' domains (``build_samples``)."""
    return samples.get("told_domain", samples["domain"])


def seen_elicitation(system: str, dataset: Dataset, sample: dict, prompts: Prompts, *, output_dir: str | Path) -> str:
    """The system's input for one sample, token for token, and the name of the model that reads it."""
    record, tokenizer = made_in(output_dir)
    text = tokenizer.decode(encode(pd.DataFrame([sample]), tokenizer, prompts, record["cutoff_len"])[0])
    domain = sample.get("told_domain", sample["domain"])
    reader = f"model of {domain}" if domain in record["folders"] else "model of all categories"
    return f"{text if prompts.space else ''.join(text.split())}\n({reader})"


def made_in(output_dir: str | Path) -> tuple[dict, PreTrainedTokenizerBase]:
    """The record of ``train_elicitation`` in ``output_dir``, and its tokenizer."""
    record = json.loads((Path(output_dir) / RECORD).read_text(encoding="utf-8"))
    return record, load_tokenizer(str(Path(output_dir) / TOKENIZER), segments=True)
