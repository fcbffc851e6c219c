"""Bert, SASRec and TG-CRS: they recommend items from the dialogue, from behaviour, and from both (paper appendix B).

``bert_rec`` is a softmax over all items on BERT's first state. ``sasrec`` is Kang and McAuley's (2018): causal self-attention
over a shopper's actions, with one embedding for items that are read and items that are scored. ``tg_crs`` is the recommender of
TG-ReDial (Zhou et al. 2020; ``SASBERT`` in its published code, ``TGRec`` in CRSLab): a linear layer over all items on the
concatenated states of SASRec and BERT. It is trained as a whole, after SASRec was trained alone (which that code can load).

Differences from the published codes:

* BERT's first state is used directly, without the pooling layer of its pretraining.
* All parts of TG-CRS have the same learning rate; in its code BERT's is a hundredth of the others'.
* TG-CRS's joint layer starts with the trained SASRec's item scores. Otherwise it would relearn them from few recommendations.
* SASRec's loss is the cross entropy over items. The published loss compares each next action with one random item (Klenitskiy and
  Vasilev 2023 compare both losses).
* The score of an item for a shopper without actions is the item's bias; the published SASRec has no biases.
* SASRec's blocks are UniMIND's (``behaviour/sasrec.py``): two heads, GELU, layer norms on the embeddings and on the input of each
  block, and none after the last block.

All item vectors start at random. An item that is no training label, and that no training shopper acted on, has been only a wrong
answer in training. ``coldness`` counts how often such an item is the right answer.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.behaviour.sasrec import SASRec
from llmcrs_utils.checkpoints.loading import device, load_tokenizer
from llmcrs_utils.corpus.schema import SPLITS, Corpus
from llmcrs_utils.files.atomic import read_json_or_none, write_json
from llmcrs_utils.tasks.answers import ranked
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.segments import crs_pieces
from llmcrs_utils.text.shielding import special_of
from llmcrs_utils.training.collators import NO_CHOICE, recommender_collator
from llmcrs_utils.training.decoding import answer_in_batches
from llmcrs_utils.training.folders import STAGES
from llmcrs_utils.training.processes import loss_weights
from llmcrs_utils.training.trainer import train
from llmcrs_utils.typical.models import TypicalModel, load_model, new_model, text_ids

TASK = "recommend"
RECORD = "recommender.json"


class BertRec(TypicalModel):
    """Scores every item with a linear layer on BERT's state at ``[CLS]``."""

    def build(self, n_items: int) -> None:
        self.items = nn.Linear(self.encoder.config.hidden_size, n_items)

    def scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[batch, n_items]."""
        return self.items(self.states(input_ids, attention_mask)[:, 0])

    def forward(self, gold: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """``gold``: [batch], the column of the right item."""
        return {"loss": F.cross_entropy(self.scores(**inputs), gold)}


class BehaviourRec(TypicalModel):
    """SASRec with item scores: the dot product of a shopper's state and an item's embedding, plus the item's bias.

    The state before the first action is zeros, so scores are then the biases. They learn the popularity of items, because the
    first action of every training shopper is predicted from that state.
    """

    def build(self, n_items: int, item_dim: int, max_history: int, negatives: int) -> None:
        self.negatives = negatives
        self.item_embedding = nn.Embedding(n_items + 1, item_dim, padding_idx=n_items)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[n_items].zero_()  # the padding index
        self.item_bias = nn.Parameter(torch.zeros(n_items))
        self.sasrec = SASRec(item_dim, max_history)

    def scores(self, history: Tensor, history_length: Tensor) -> Tensor:
        """[batch, n_items], from ``history`` [batch, slots] (item columns, padded with ``n_items``) and its length [batch]."""
        return self.scores_of_states(self.sasrec(self.item_embedding(history), history_length))

    def scores_of_states(self, states: Tensor) -> Tensor:
        """[rows, n_items] for ``states`` [rows, item_dim]."""
        return states @ self.item_embedding.weight[:-1].T + self.item_bias

    def forward(self, gold: Tensor, history: Tensor, history_length: Tensor) -> dict[str, Tensor]:
        """``gold``: [batch, slots + 1], the items after the first 0, 1, 2 … actions; ``NO_CHOICE`` for items not to predict."""
        states = self.item_embedding.weight.new_zeros(len(history), 1, self.item_embedding.embedding_dim)
        if history.shape[1]:
            states = torch.cat([states, self.sasrec.states(self.item_embedding(history))], dim=1)
        chosen = gold != NO_CHOICE
        (share,) = loss_weights([int(chosen.sum())], self.device)
        return {"loss": share * self.choice_loss(states[chosen], gold[chosen])}

    def choice_loss(self, states: Tensor, gold: Tensor) -> Tensor:
        """Mean cross entropy of the right items among all items, for ``states`` [rows, item_dim] and ``gold`` [rows].

        In training, if there are more than ``negatives`` wrong items, that many are drawn uniformly for all rows together. They
        are weighted to represent the whole catalogue (sampled softmax, Jean et al. 2015).
        """
        n_items = len(self.item_bias)
        if not self.training or n_items - 1 <= self.negatives:
            return F.cross_entropy(self.scores_of_states(states), gold)
        drawn = torch.randint(n_items, (self.negatives,), device=gold.device)
        right = (states * self.item_embedding(gold)).sum(dim=1, keepdim=True) + self.item_bias[gold][:, None]
        wrong = states @ self.item_embedding(drawn).T + self.item_bias[drawn] + math.log((n_items - 1) / self.negatives)
        wrong = wrong.masked_fill(drawn == gold[:, None], -torch.inf)
        return F.cross_entropy(torch.cat([right, wrong], dim=1), torch.zeros_like(gold))


class TgCrs(TypicalModel):
    """Scores every item with a linear layer on SASRec's state and BERT's first state."""

    def build(self, n_items: int, item_dim: int, max_history: int) -> None:
        self.item_embedding = nn.Embedding(n_items + 1, item_dim, padding_idx=n_items)
        self.sasrec = SASRec(item_dim, max_history)
        self.fusion = nn.Linear(item_dim + self.encoder.config.hidden_size, n_items)

    def scores(self, input_ids: Tensor, attention_mask: Tensor, history: Tensor, history_length: Tensor) -> Tensor:
        """[batch, n_items]."""
        behaviour = self.sasrec(self.item_embedding(history), history_length)
        return self.fusion(torch.cat([behaviour, self.states(input_ids, attention_mask)[:, 0]], dim=1))

    def start_from(self, trained: BehaviourRec) -> None:
        """Copy a trained SASRec, and its item scores into the part of the joint layer that reads SASRec's state."""
        self.item_embedding.load_state_dict(trained.item_embedding.state_dict())
        self.sasrec.load_state_dict(trained.sasrec.state_dict())
        with torch.no_grad():
            self.fusion.weight[:, : self.item_embedding.embedding_dim] = trained.item_embedding.weight[:-1]
            self.fusion.bias.copy_(trained.item_bias)

    def forward(self, gold: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """``gold``: [batch], the column of the right item."""
        return {"loss": F.cross_entropy(self.scores(**inputs), gold)}


MODELS = {"bert_rec": BertRec, "sasrec": BehaviourRec, "tg_crs": TgCrs}
READ_TEXT, READ_BEHAVIOUR = ("bert_rec", "tg_crs"), ("sasrec", "tg_crs")


def train_recommender(
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
    cutoff_len: int,
    item_dim: int = 64,
    max_history: int = 50,
    max_sequences: int = 100_000,
    negatives: int = 4_096,
    behaviour_epochs: float = 20,
    behaviour_learning_rate: float = 0.001,
    **training_options,
) -> pd.DataFrame:
    """Train ``bert_rec``, ``sasrec`` or ``tg_crs``. ``output_dir`` then holds the model, ``recommender.json`` and a tokenizer.

    SASRec learns from the actions of training shoppers, each predicted from those before it, and from the recommendations of
    training dialogues, each predicted from its shopper's earlier actions. The best epoch is the one with the smallest loss on
    recommendations in validation. ``tg_crs`` starts from a SASRec that was trained in this way.

    Args:
        model_name_or_path: a BERT; ``None`` for ``sasrec``, which reads no text.
        cutoff_len: most tokens of a dialogue; lowered to the encoder's number of positions.
        item_dim: size of an item's embedding.
        max_history: number of last actions that SASRec reads.
        max_sequences: most training shoppers that SASRec learns from; if there are more, that many are drawn.
        negatives: most wrong items in the loss of SASRec's own training; if there are more, that many are drawn.
        behaviour_epochs: epochs of the SASRec that ``tg_crs`` starts from; 0 for a random start.
        behaviour_learning_rate: learning rate of that SASRec.
        training_options: passed to ``trainer.train``.

    Returns:
        The history of ``trainer.train``; for ``tg_crs`` with a column ``stage``.

    Raises:
        ValueError: if training or validation has no recommend sample.
    """
    output_dir, items = Path(output_dir), dataset.index
    tokenizer = load_tokenizer(model_name_or_path, segments=True) if system in READ_TEXT else None
    shape = {} if system == "bert_rec" else {"item_dim": item_dim, "max_history": max_history}
    if system == "sasrec":
        shape["negatives"] = negatives
    model = new_model(MODELS[system], model_name_or_path if tokenizer else None, seed, tokenizer, n_items=len(items), **shape)
    if tokenizer:
        cutoff_len = min(cutoff_len, model.encoder.config.max_position_embeddings)
    record = {"cutoff_len": cutoff_len, "max_history": max_history, "catalogue": names_hash(items)}
    examples = {name: labelled_examples(system, dataset, name, tokenizer, prompts, record) for name in ("train", "valid")}
    if system == "sasrec":
        shoppers = training_sequences(corpus, dataset, max_history, max_sequences, seed)
        examples["train"] += [{"history": actions[:-1], "gold": actions} for actions in shoppers]
    first = None
    if system == "tg_crs" and behaviour_epochs:
        folder = output_dir / STAGES / "behaviour"
        first = train_recommender(
            "sasrec", dataset, corpus, prompts, model_name_or_path=None, output_dir=folder, seed=seed, cutoff_len=cutoff_len,
            num_train_epochs=behaviour_epochs, learning_rate=behaviour_learning_rate, item_dim=item_dim, max_history=max_history,
            max_sequences=max_sequences, negatives=negatives, **training_options,
        )  # fmt: skip
        model.start_from(load_model(BehaviourRec, folder))
    history = train(
        model, examples["train"], examples["valid"], recommender_collator(tokenizer.pad_token_id if tokenizer else 0, len(items)),
        output_dir=output_dir, seed=seed, num_train_epochs=num_train_epochs, learning_rate=learning_rate, label_names=["gold"],
        group_by_length=system in READ_TEXT, tokenizer=tokenizer, **training_options,
    )  # fmt: skip
    write_json(output_dir / RECORD, record)
    if system != "tg_crs":
        return history
    return pd.concat([*([] if first is None else [first.assign(stage="behaviour")]), history.assign(stage="all")], ignore_index=True)


def labelled_examples(
    system: str, dataset: Dataset, split: str, tokenizer: PreTrainedTokenizerBase | None, prompts: Prompts, record: dict
) -> list[dict]:
    """The system's inputs for a split's recommend samples, with the right item as ``gold``.

    Raises:
        ValueError: if there is no such sample.
    """
    samples = dataset.split(split).query("task == @TASK").reset_index(drop=True)
    if samples.empty:
        raise ValueError(f"no recommend sample in the {split} split; {system} needs recommendations in training and validation")
    items = dataset.index
    examples = inputs_of(system, samples, items, tokenizer, prompts, record)
    for example, gold in zip(examples, (items[item] for item in samples["label"]), strict=True):
        example["gold"] = [*[NO_CHOICE] * len(example["history"]), gold] if system == "sasrec" else gold
    return examples


def names_hash(items: dict[str, int]) -> str:
    """A hash of the item ids in order. It identifies the catalogue of a model, whose score columns have no names."""
    return hashlib.sha256("\n".join(items).encode()).hexdigest()


def training_sequences(corpus: Corpus, dataset: Dataset, max_history: int, max_sequences: int, seed: int) -> list[list[int]]:
    """Per shopper the columns of the last ``max_history + 1`` items acted on, oldest first.

    Shoppers of validation and test dialogues are left out. All actions of the others count, also those after their dialogues.
    Only items of the product knowledge count, as in samples' histories. If there are more than ``max_sequences`` shoppers, that
    many are drawn.
    """
    excluded = {dialogue.userid for split in ("valid", "test") for dialogue in corpus.dialogues[split]}
    columns = corpus.behaviour["item_id_encrypt"].map(dict(zip(dataset.items["item_id"], range(len(dataset.items)))))
    listed = corpus.behaviour["item_id_encrypt"].isin(dataset.items.loc[dataset.items["listed"], "item_id"])
    behaviour = corpus.behaviour.assign(column=columns)[listed & ~corpus.behaviour["user_id_encrypt"].isin(excluded)]
    behaviour = behaviour.astype({"column": int}).sort_values(["user_id_encrypt", "actime"], kind="stable")
    sequences = [actions[-max_history - 1 :] for actions in behaviour.groupby("user_id_encrypt", sort=True)["column"].agg(list)]
    if len(sequences) > max_sequences:
        drawn = np.random.default_rng(seed).choice(len(sequences), max_sequences, replace=False)
        sequences = [sequences[i] for i in sorted(drawn)]
    return sequences


def coldness(dataset: Dataset, corpus: Corpus, max_history: int = 50, max_sequences: int = 100_000, seed: int = 1) -> pd.DataFrame:
    """How many recommendations these systems cannot have learned, per split.

    Returns:
        One row per split: ``samples``, the number of recommend samples, and three shares of them. ``never_recommended``: no
        training sample has this right item, so Bert cannot know it. ``never_seen``: no training shopper acted on it either, so
        SASRec cannot know it. ``no_history``: the shopper has no earlier actions.
    """
    samples = dataset.samples[dataset.samples["task"] == TASK]
    train_samples = samples[samples["split"] == "train"]
    names = dataset.items["item_id"].to_numpy(object)
    acted_on = training_sequences(corpus, dataset, max_history, max_sequences, seed)
    recommended = set(train_samples["label"])
    seen = recommended | {item for history in train_samples["history"] for item in history}
    seen |= {names[column] for actions in acted_on for column in actions}
    marked = samples.assign(
        never_recommended=~samples["label"].isin(recommended), never_seen=~samples["label"].isin(seen),
        no_history=samples["history"].map(len) == 0,
    )  # fmt: skip
    table = marked.groupby("split").agg(
        samples=("label", "size"), never_recommended=("never_recommended", "mean"), never_seen=("never_seen", "mean"),
        no_history=("no_history", "mean"),
    )  # fmt: skip
    return table.reindex([split for split in SPLITS if split in table.index])


def inputs_of(
    system: str, samples: pd.DataFrame, items: dict[str, int], tokenizer: PreTrainedTokenizerBase | None, prompts: Prompts, record: dict
) -> list[dict]:
    """The system's input for each sample: ``input_ids`` of the dialogue, ``history`` (item columns, oldest first), or both."""
    examples: list[dict] = [{} for _ in range(len(samples))]
    if system in READ_TEXT:
        for example, ids in zip(examples, dialogue_ids(samples, tokenizer, prompts, record["cutoff_len"]), strict=True):
            example["input_ids"] = ids
    if system in READ_BEHAVIOUR:
        for example, history in zip(examples, samples["history"], strict=True):
            example["history"] = [items[item] for item in history[-record["max_history"] :]]
    return examples


def dialogue_ids(samples: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, cutoff_len: int) -> list[list[int]]:
    """Per sample the token ids of the dialogue's segments."""
    special = special_of(tokenizer)
    return text_ids([crs_pieces(row, prompts, None, special) for row in samples.to_dict("records")], tokenizer, cutoff_len)


def made_in(output_dir: str | Path, system: str, items: dict[str, int]) -> tuple[dict, PreTrainedTokenizerBase | None]:
    """The record of the training in ``output_dir``, and the tokenizer if the system reads text.

    Raises:
        FileNotFoundError: if no recommender was trained there.
        ValueError: if it was trained on another catalogue.
    """
    record = read_json_or_none(Path(output_dir) / RECORD)
    if record is None:
        raise FileNotFoundError(f"{output_dir}: no recommender was trained here ({RECORD} is missing)")
    if record["catalogue"] != names_hash(items):
        raise ValueError(f"{output_dir}: this recommender was trained on another catalogue; train it again on this one")
    return record, load_tokenizer(str(output_dir)) if system in READ_TEXT else None


@torch.no_grad()
def answer_recommender(
    system: str, dataset: Dataset, samples: pd.DataFrame, prompts: Prompts, *, output_dir: str | Path, batch_size: int
) -> pd.DataFrame:
    """Predictions in the order of ``samples``: columns of ``predictions.SCHEMA`` without system and seed, and ``catalogue``.

    ``ranking`` and ``scores`` are those of the sample's candidates. ``catalogue`` holds the 50 best of all items, best first.
    """
    items = dataset.index
    record, tokenizer = made_in(output_dir, system, items)
    model = load_model(MODELS[system], output_dir).to(device())
    examples = inputs_of(system, samples, items, tokenizer, prompts, record)
    collate = recommender_collator(tokenizer.pad_token_id if tokenizer else 0, len(items))
    rows = samples.to_dict("records")

    def answer(task: str, chosen: list[int]) -> list[dict]:
        batch = {name: tensor.to(model.device) for name, tensor in collate([examples[i] for i in chosen]).items()}
        return ranked(model.scores(**batch), [rows[i] for i in chosen], items)

    lengths = [len(example.get("input_ids", example.get("history"))) for example in examples]
    return answer_in_batches(samples, lengths, batch_size, answer)


def seen_recommender(system: str, dataset: Dataset, sample: dict, prompts: Prompts, *, output_dir: str | Path) -> str:
    """The system's input for one sample as text: the dialogue as it was cut and tokenised, and the items acted on."""
    items = dataset.index
    record, tokenizer = made_in(output_dir, system, items)
    (example,) = inputs_of(system, pd.DataFrame([sample]), items, tokenizer, prompts, record)
    lines = []
    if "input_ids" in example:
        text = tokenizer.decode(example["input_ids"])
        lines.append(f"dialogue ({len(example['input_ids'])} tokens): {text if prompts.space else ''.join(text.split())}")
    if "history" in example:
        names = list(items)
        actions = " > ".join(names[column] for column in example["history"]) or "none; what is popular decides"
        lines.append(f"behaviour ({len(example['history'])} items, oldest first): {actions}")
    return "\n".join(lines)
