"""Bert, SASRec and TG-CRS: which item of the catalogue to recommend, from the dialogue, from behaviour, from both (paper appendix B).

``bert_rec`` puts a softmax over all items on BERT's first state. ``sasrec`` is Kang and McAuley's (2018): causal self-attention over
what a shopper did, one embedding for items that are read and items that are scored. ``tg_crs`` is the recommender of TG-ReDial
(Zhou et al. 2020; ``SASBERT`` in its published code, ``TGRec`` in CRSLab): a linear layer over all items on SASRec's state and BERT's
first state together, trained as a whole after SASRec was trained by itself (which that code may load).

What differs from those codes: BERT's first state is taken as it is, without the pooling layer that its pretraining left behind; in
TG-CRS one learning rate serves all parts (there BERT's is a hundredth of the others'), and the joining layer starts from how the
trained SASRec scores items, else it would learn that anew from the few recommendations there are; SASRec's loss is the cross entropy
over items, where the published one tells each next action from one random item (Klenitskiy and Vasilev 2023 compare the two); a
shopper who did nothing is scored by the items' biases, which the published SASRec lacks. Its blocks are UniMIND's
(``backbones/sasrec.py``): two heads, GELU, norms on what enters a block and on the embeddings, none behind the last block.

All vectors of items start random. An item that no training label names and no training shopper touched has only ever been a wrong
answer to these systems; ``coldness`` counts how often such an item is the right one.
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
    """Every item has a score by what BERT has made of the dialogue's [CLS]."""

    def build(self, n_items: int) -> None:
        self.items = nn.Linear(self.encoder.config.hidden_size, n_items)

    def scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[batch, n_items]."""
        return self.items(self.states(input_ids, attention_mask)[:, 0])

    def forward(self, gold: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """``gold``: [batch], the column of the right item."""
        return {"loss": F.cross_entropy(self.scores(**inputs), gold)}


class BehaviourRec(TypicalModel):
    """SASRec with its items: a score is the dot product of a shopper's state and an item's embedding, plus the item's bias.

    The state before any action is zeros. There the biases speak alone; they learn how popular an item is, since the first action
    of every training shopper is predicted from that state too.
    """

    def build(self, n_items: int, item_dim: int, max_history: int, negatives: int) -> None:
        self.negatives = negatives
        self.item_embedding = nn.Embedding(n_items + 1, item_dim, padding_idx=n_items)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[n_items].zero_()  # the pad is no item
        self.item_bias = nn.Parameter(torch.zeros(n_items))
        self.sasrec = SASRec(item_dim, max_history)

    def scores(self, history: Tensor, history_length: Tensor) -> Tensor:
        """[batch, n_items], from ``history`` [batch, slots] (item columns, padded with ``n_items``) and its length [batch]."""
        return self.of_all(self.sasrec(self.item_embedding(history), history_length))

    def of_all(self, states: Tensor) -> Tensor:
        """[rows, n_items] for ``states`` [rows, item_dim]."""
        return states @ self.item_embedding.weight[:-1].T + self.item_bias

    def forward(self, gold: Tensor, history: Tensor, history_length: Tensor) -> dict[str, Tensor]:
        """``gold``: [batch, slots + 1], what came after the first 0, 1, 2 … actions; ``NO_CHOICE`` where it is not to be predicted."""
        states = self.item_embedding.weight.new_zeros(len(history), 1, self.item_embedding.embedding_dim)
        if history.shape[1]:
            states = torch.cat([states, self.sasrec.states(self.item_embedding(history))], dim=1)
        chosen = gold != NO_CHOICE
        (share,) = loss_weights([int(chosen.sum())], self.device)
        return {"loss": share * self.choice_loss(states[chosen], gold[chosen])}

    def choice_loss(self, states: Tensor, gold: Tensor) -> Tensor:
        """Mean cross entropy of the right items among all, ``states`` [rows, item_dim] and ``gold`` [rows].

        In training, a catalogue of more than ``negatives`` wrong items is estimated by as many, drawn evenly and shared by all rows;
        each stands for its share of the catalogue (sampled softmax, Jean et al. 2015).
        """
        n_items = len(self.item_bias)
        if not self.training or n_items - 1 <= self.negatives:
            return F.cross_entropy(self.of_all(states), gold)
        drawn = torch.randint(n_items, (self.negatives,), device=gold.device)
        right = (states * self.item_embedding(gold)).sum(dim=1, keepdim=True) + self.item_bias[gold][:, None]
        wrong = states @ self.item_embedding(drawn).T + self.item_bias[drawn] + math.log((n_items - 1) / self.negatives)
        wrong = wrong.masked_fill(drawn == gold[:, None], -torch.inf)
        return F.cross_entropy(torch.cat([right, wrong], dim=1), torch.zeros_like(gold))


class TgCrs(TypicalModel):
    """Every item has a score by SASRec's state and BERT's first state, joined by one linear layer."""

    def build(self, n_items: int, item_dim: int, max_history: int) -> None:
        self.item_embedding = nn.Embedding(n_items + 1, item_dim, padding_idx=n_items)
        self.sasrec = SASRec(item_dim, max_history)
        self.fusion = nn.Linear(item_dim + self.encoder.config.hidden_size, n_items)

    def scores(self, input_ids: Tensor, attention_mask: Tensor, history: Tensor, history_length: Tensor) -> Tensor:
        """[batch, n_items]."""
        behaviour = self.sasrec(self.item_embedding(history), history_length)
        return self.fusion(torch.cat([behaviour, self.states(input_ids, attention_mask)[:, 0]], dim=1))

    def start_from(self, trained: BehaviourRec) -> None:
        """Take over a trained SASRec and, for its half of the layer that joins, how it scores items."""
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
    """Train ``bert_rec``, ``sasrec`` or ``tg_crs``; ``output_dir`` then holds the model, ``recommender.json`` and a tokenizer.

    SASRec learns from what training shoppers did, each action predicted from those before it, and from what training dialogues
    recommended after what its shopper had done; the epoch kept is the one that does best on recommendations in validation.
    ``tg_crs`` starts from a SASRec trained so.

    Args:
        model_name_or_path: a BERT; ``sasrec`` reads no text and takes none.
        cutoff_len: tokens of a dialogue; no more than the encoder has positions.
        item_dim: of an item's embedding.
        max_history: actions that SASRec reads, the last ones.
        max_sequences: training shoppers that SASRec learns from; of more, as many are drawn.
        negatives: wrong items that SASRec's own training sets against the right one; where there are fewer, all.
        behaviour_epochs: of the SASRec that ``tg_crs`` starts from; 0 for a random start.
        behaviour_learning_rate: likewise.
        training_options: go to ``trainer.train``.

    Returns:
        ``trainer.train``'s history; of ``tg_crs`` with a column ``stage``.

    Raises:
        ValueError: where training or validation holds no recommend sample.
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
    """What the system reads of a split's recommend samples, with the right item as ``gold``.

    Raises:
        ValueError: where there is none.
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
    """What tells one catalogue from another: columns of scores have no names."""
    return hashlib.sha256("\n".join(items).encode()).hexdigest()


def training_sequences(corpus: Corpus, dataset: Dataset, max_history: int, max_sequences: int, seed: int) -> list[list[int]]:
    """Per shopper the columns of the last ``max_history + 1`` items acted on, oldest first.

    Shoppers of validation and test dialogues teach nothing; of the others all they did counts, later than their dialogues too.
    Items are those of the product knowledge, as in samples' histories. Of more than ``max_sequences`` shoppers as many are drawn.
    """
    barred = {dialogue.userid for split in ("valid", "test") for dialogue in corpus.dialogues[split]}
    columns = corpus.behaviour["item_id_encrypt"].map(dict(zip(dataset.items["item_id"], range(len(dataset.items)))))
    listed = corpus.behaviour["item_id_encrypt"].isin(dataset.items.loc[dataset.items["listed"], "item_id"])
    taught = corpus.behaviour.assign(column=columns)[listed & ~corpus.behaviour["user_id_encrypt"].isin(barred)]
    taught = taught.astype({"column": int}).sort_values(["user_id_encrypt", "actime"], kind="stable")
    sequences = [actions[-max_history - 1 :] for actions in taught.groupby("user_id_encrypt", sort=True)["column"].agg(list)]
    if len(sequences) > max_sequences:
        drawn = np.random.default_rng(seed).choice(len(sequences), max_sequences, replace=False)
        sequences = [sequences[i] for i in sorted(drawn)]
    return sequences


def coldness(dataset: Dataset, corpus: Corpus, max_history: int = 50, max_sequences: int = 100_000, seed: int = 1) -> pd.DataFrame:
    """How much of recommendation these systems cannot have learned, per split.

    Returns:
        Rows by split; ``samples`` to recommend, and the shares of them whose right item is no training sample's
        (``never_recommended``: Bert knows nothing of it), whose right item no training shopper acted on either (``never_seen``:
        nor does SASRec), and whose shopper has done nothing before (``no_history``).
    """
    samples = dataset.samples[dataset.samples["task"] == TASK]
    train_samples = samples[samples["split"] == "train"]
    names = dataset.items["item_id"].to_numpy(object)
    acted_on = training_sequences(corpus, dataset, max_history, max_sequences, seed)
    recommended = set(train_samples["label"])
    seen = recommended | {item for history in train_samples["history"] for item in history}
    seen |= {names[column] for actions in acted_on for column in actions}
    told = samples.assign(
        never_recommended=~samples["label"].isin(recommended), never_seen=~samples["label"].isin(seen),
        no_history=samples["history"].map(len) == 0,
    )  # fmt: skip
    table = told.groupby("split").agg(
        samples=("label", "size"), never_recommended=("never_recommended", "mean"), never_seen=("never_seen", "mean"),
        no_history=("no_history", "mean"),
    )  # fmt: skip
    return table.reindex([split for split in SPLITS if split in table.index])


def inputs_of(
    system: str, samples: pd.DataFrame, items: dict[str, int], tokenizer: PreTrainedTokenizerBase | None, prompts: Prompts, record: dict
) -> list[dict]:
    """Per sample what the system reads: ``input_ids`` of the dialogue, ``history`` (columns of items, oldest first), or both."""
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
    """What training noted in ``output_dir``, and the tokenizer, where there is one.

    Raises:
        FileNotFoundError: where no recommender was trained there.
        ValueError: where it was trained on another catalogue.
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
    """Predictions (columns of ``predictions.SCHEMA`` but system and seed, and ``catalogue``), in the order of ``samples``.

    ``ranking`` and ``scores`` are of the sample's candidates, ``catalogue`` holds the 50 best of all items, best first.
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
    """What the system sees of one sample, as text: the dialogue as cut and tokenised, and the items acted on."""
    items = dataset.index
    record, tokenizer = made_in(output_dir, system, items)
    (example,) = inputs_of(system, pd.DataFrame([sample]), items, tokenizer, prompts, record)
    lines = []
    if "input_ids" in example:
        text = tokenizer.decode(example["input_ids"])
        lines.append(f"dialogue ({len(example['input_ids'])} tokens): {text if prompts.space else ''.join(text.split())}")
    if "history" in example:
        names = list(items)
        told = " > ".join(names[column] for column in example["history"]) or "none; what is popular decides"
        lines.append(f"behaviour ({len(example['history'])} items, oldest first): {told}")
    return "\n".join(lines)
