"""KBRD (Chen et al. 2019): a reply model that prefers the words of the items and values mentioned in the dialogue.

First a recommender is trained: a relational graph convolution over the product knowledge, self-attention over the entities
mentioned so far, and item scores by dot product. Then the recommender is frozen, and a Transformer learns to reply. The
recommender's vector of the user becomes a bias on every word of the vocabulary (section 3.3; "switching mechanism" in the paper's
appendix B). Sizes and architecture are those of the published code (github.com/THUDM/KBRD).
"""

import json
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LogitsProcessor, LogitsProcessorList, MarianConfig, MarianMTModel, PreTrainedTokenizerBase

from llmcrs_utils.checkpoints.loading import device, load_tokenizer
from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.files.atomic import write_json
from llmcrs_utils.tasks.answers import text_answer
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.text.prompts import Prompts
from llmcrs_utils.text.segments import crs_pieces
from llmcrs_utils.text.shielding import plain, special_of
from llmcrs_utils.training.collators import kbrd_collator, pad
from llmcrs_utils.training.decoding import answer_in_batches
from llmcrs_utils.training.folders import STAGES
from llmcrs_utils.training.trainer import train
from llmcrs_utils.typical.graph import Graph, RelationalGraph, SelfAttention, knowledge_graph, make_linker
from llmcrs_utils.typical.models import TypicalModel, load_model, new_model, text_ids

RECORD = "kbrd.json"  # beside the weights: names of the nodes, and maximum lengths of texts


class Kbrd(TypicalModel):
    """The recommender and the reply model. ``forward`` takes a batch for either of them and returns its loss."""

    def build(self, items: int, nodes: int, relations: int, edges: int, dim: int, bases: int, bias_dim: int, writer: dict) -> None:
        self.graph = RelationalGraph(nodes, relations, edges, dim, bases)
        self.attention = SelfAttention(dim)
        self.item_bias = nn.Parameter(torch.zeros(items))
        # Marian is the Transformer of Vaswani et al. (2017) as published: fixed positions, post-norm, tied embeddings.
        self.writer = MarianMTModel(MarianConfig(**writer))
        self.vocabulary_bias = nn.Sequential(nn.Linear(dim, bias_dim), nn.ReLU(), nn.Linear(bias_dim, writer["vocab_size"]))

    @property
    def recommender(self) -> set[nn.Parameter]:
        return {*self.graph.parameters(), *self.attention.parameters(), self.item_bias}

    def train_only(self, trainable: set[nn.Parameter]) -> None:
        for parameter in self.parameters():
            parameter.requires_grad_(parameter in trainable)

    def users(self, nodes: Tensor, entities: Tensor) -> Tensor:
        """[batch, dim]: users' vectors, from the graph's ``nodes`` [nodes, dim] and ``entities`` [batch, slots] (-1: padding)."""
        return self.attention(nodes[entities.clamp(min=0)], entities >= 0)

    def item_scores(self, entities: Tensor) -> Tensor:
        """[batch, items]."""
        nodes = self.graph()
        return F.linear(self.users(nodes, entities), nodes[: len(self.item_bias)], self.item_bias)

    def reply_logits(self, user: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """[batch, words, vocabulary]: logits of each word of ``labels`` ([batch, words], padded with -100)."""
        before = self.writer.prepare_decoder_input_ids_from_labels(labels)
        logits = self.writer(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=before, use_cache=False).logits
        return logits + self.vocabulary_bias(user)[:, None]

    def forward(self, entities=None, gold=None, user=None, input_ids=None, attention_mask=None, labels=None, return_loss: bool = True):
        if gold is not None:
            return {"loss": F.cross_entropy(self.item_scores(entities), gold)}
        return {"loss": F.cross_entropy(self.reply_logits(user, input_ids, attention_mask, labels).flatten(0, 1), labels.flatten())}

    def reply(self, user: Tensor, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int) -> Tensor:
        """[batch, words]: the words of a greedy decoding."""
        bias = LogitsProcessorList([VocabularyBias(self.vocabulary_bias(user))])
        return self.writer.generate(
            input_ids=input_ids, attention_mask=attention_mask, logits_processor=bias, max_new_tokens=max_new_tokens, do_sample=False
        )


class VocabularyBias(LogitsProcessor):
    def __init__(self, bias: Tensor):
        self.bias = bias

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + self.bias


def train_kbrd(
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
    max_target_len: int = 64,
    recommender_epochs: float = 10,
    recommender_learning_rate: float = 3e-3,
    recommender_batch_size: int = 64,
    graph_dim: int = 128,
    bases: int = 8,
    bias_dim: int = 512,
    hidden_size: int = 300,
    layers: int = 2,
    heads: int = 2,
    dropout: float = 0.1,
    **training_options,
) -> pd.DataFrame:
    """Train the recommender, then the reply model with it, and save both in ``output_dir``.

    The recommender learns from the recommend samples (context without the gold item). The reply model learns from the respond
    samples, where the items to recommend count as mentioned entities. Of the checkpoint only the tokenizer is used.

    Args:
        cutoff_len, max_target_len: most tokens that the reply model reads and writes.
        graph_dim, bases: size of a node's vector, and number of basis matrices of the graph's relations.
        bias_dim: hidden units between the user's vector and the bias on the vocabulary.
        hidden_size, layers, heads, dropout: settings of the reply Transformer, for its encoder and its decoder.

    Returns:
        The history of ``trainer.train`` with ``stage`` and ``without_entities``, the number of the stage's training samples that
        mention no node of the graph. Their user vector is zeros.

    Raises:
        ValueError: if training or validation lacks recommendations or replies.
    """
    output_dir = Path(output_dir)
    graph = knowledge_graph(corpus.knowledge, dataset.items["item_id"].tolist())
    linker = make_linker(graph.items, graph.values, prompts)
    tokenizer = load_tokenizer(model_name_or_path, segments=True)
    recommend, respond = examples_of_stages(dataset, tokenizer, prompts, linker, cutoff_len, max_target_len)
    writer = writer_config(tokenizer, hidden_size, layers, heads, dropout, max(cutoff_len, max_target_len))
    model = new_kbrd(graph, seed, dim=graph_dim, bases=bases, bias_dim=bias_dim, writer=writer)
    collate, options = kbrd_collator(tokenizer.pad_token_id), {"seed": seed, "label_names": [], **training_options}
    trainable = {parameter for parameter in model.parameters() if parameter.requires_grad}  # without the fixed positions

    model.train_only(model.recommender)
    first = train(
        model, recommend["train"], recommend["valid"], collate, output_dir=output_dir / STAGES / "recommender",
        num_train_epochs=recommender_epochs, learning_rate=recommender_learning_rate,
        per_device_train_batch_size=recommender_batch_size, group_by_length=False, **options,
    )  # fmt: skip
    model.train_only(trainable - model.recommender)
    # The recommender is frozen, so each sample's user vector is computed once instead of once per epoch.
    second = train(
        model, with_users(model, respond["train"]), with_users(model, respond["valid"]), collate, output_dir=output_dir,
        num_train_epochs=num_train_epochs, learning_rate=learning_rate, per_device_train_batch_size=per_device_train_batch_size,
        tokenizer=tokenizer, **options,
    )  # fmt: skip
    record = {"cutoff_len": cutoff_len, "max_target_len": max_target_len, "items": graph.items, "values": graph.values}
    write_json(output_dir / RECORD, record)
    stages = {"recommender": (first, recommend), "reply": (second, respond)}
    return pd.concat(
        [
            history.assign(stage=stage, without_entities=sum(not example["entities"] for example in examples["train"]))
            for stage, (history, examples) in stages.items()
        ],
        ignore_index=True,
    )


def examples_of_stages(dataset: Dataset, tokenizer, prompts: Prompts, linker, cutoff_len: int, max_target_len: int) -> tuple[dict, dict]:
    """Examples of the recommender and of the reply model, each as split -> examples of training and validation.

    Raises:
        ValueError: if either has no examples in a split.
    """
    recommend, respond = {}, {}
    for name in ("train", "valid"):
        samples = dataset.split(name)
        recommend[name] = recommend_examples(samples, dataset.index, linker)
        respond[name] = respond_examples(samples, tokenizer, prompts, linker, cutoff_len, max_target_len)
    for task, examples in {"recommendations": recommend, "replies": respond}.items():
        if not all(examples.values()):
            raise ValueError(f"no {task} in training or validation; KBRD learns from recommendations and from replies")
    return recommend, respond


def new_kbrd(graph: Graph, seed: int, **sizes) -> Kbrd:
    """An untrained KBRD over the graph. ``sizes`` are further arguments of ``Kbrd``'s config."""
    counts = {"items": len(graph.items), "nodes": len(graph.items) + len(graph.values), "relations": graph.relations}
    model = new_model(Kbrd, None, seed, **counts, edges=graph.edges.shape[1], **sizes)
    model.graph.edges.copy_(graph.edges)
    return model


def writer_config(
    tokenizer: PreTrainedTokenizerBase, hidden_size: int, layers: int, heads: int, dropout: float, positions: int
) -> dict:
    """Arguments of ``MarianConfig`` for the reply Transformer. Feed-forward layers are as wide as all others, as published."""
    return {
        "vocab_size": len(tokenizer), "d_model": hidden_size, "encoder_layers": layers, "decoder_layers": layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": hidden_size,
        "decoder_ffn_dim": hidden_size, "activation_function": "relu", "dropout": dropout, "activation_dropout": dropout,
        "scale_embedding": True, "init_std": hidden_size**-0.5, "max_position_embeddings": positions,
        "pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id, "forced_eos_token_id": None,
    }  # fmt: skip


def answer_kbrd(
    system: str, dataset: Dataset, samples: pd.DataFrame, prompts: Prompts, *, output_dir: str | Path, batch_size: int
) -> pd.DataFrame:
    """Predictions (columns of ``predictions.SCHEMA`` without system and seed) for respond samples, in their order."""
    record, tokenizer, linker = load_saved(output_dir, prompts)
    model = load_model(Kbrd, output_dir).to(device())
    collate = kbrd_collator(tokenizer.pad_token_id)
    examples = read_texts(samples.to_dict("records"), tokenizer, prompts, linker, record["cutoff_len"])
    examples = with_users(model, examples)

    @torch.no_grad()
    def answer(task: str, chosen: list[int]) -> list[dict]:
        batch = {name: tensor.to(model.device) for name, tensor in collate([examples[i] for i in chosen]).items()}
        written = tokenizer.batch_decode(model.reply(**batch, max_new_tokens=record["max_target_len"]), skip_special_tokens=True)
        return [text_answer(task, raw, prompts) for raw in written]

    return answer_in_batches(samples, [len(example["input_ids"]) for example in examples], batch_size, answer)


def seen_kbrd(system: str, dataset: Dataset, sample: dict, prompts: Prompts, *, output_dir: str | Path) -> str:
    """The encoder's text for a respond sample, and the nodes of the graph that the sample mentions."""
    record, tokenizer, linker = load_saved(output_dir, prompts)
    (example,) = read_texts([sample], tokenizer, prompts, linker, record["cutoff_len"])
    names = [*record["items"], *record["values"]]
    entities = ", ".join(names[node] for node in example["entities"]) or "none; the user is zeros"
    return f"text: {tokenizer.decode(example['input_ids'])}\nentities of the graph: {entities}"


def load_saved(output_dir: str | Path, prompts: Prompts):
    """The record, the tokenizer and the linker of a trained KBRD."""
    record = json.loads((Path(output_dir) / RECORD).read_text(encoding="utf-8"))
    return record, load_tokenizer(str(output_dir), segments=True), make_linker(record["items"], record["values"], prompts)


def recommend_examples(samples: pd.DataFrame, items: dict[str, int], linker) -> list[dict]:
    rows = samples[samples["task"] == "recommend"].to_dict("records")
    return [{"entities": linker(row), "gold": items[row["label"]]} for row in rows]


def respond_examples(samples: pd.DataFrame, tokenizer, prompts: Prompts, linker, cutoff_len: int, max_target_len: int) -> list[dict]:
    rows = samples[samples["task"] == "respond"].to_dict("records")
    if not rows:
        return []
    special = special_of(tokenizer)
    labels = tokenizer([plain(row["label"], special) for row in rows], truncation=True, max_length=max_target_len)["input_ids"]
    examples = read_texts(rows, tokenizer, prompts, linker, cutoff_len)
    # The decoder's start token is the one that begins a text, so labels leave it out.
    return [{**example, "labels": label[1:]} for example, label in zip(examples, labels, strict=True)]


def read_texts(rows: list[dict], tokenizer: PreTrainedTokenizerBase, prompts: Prompts, linker, cutoff_len: int) -> list[dict]:
    """``input_ids`` and ``entities`` of each sample."""
    special = special_of(tokenizer)
    ids = text_ids([crs_pieces(row, prompts, None, special) for row in rows], tokenizer, cutoff_len)
    return [{"input_ids": tokens, "entities": linker(row)} for row, tokens in zip(rows, ids, strict=True)]


@torch.no_grad()
def with_users(model: Kbrd, examples: list[dict], batch_size: int = 1024) -> list[dict]:
    """The examples with ``user`` [dim], the recommender's user vector for their entities."""
    model.eval()
    nodes = model.graph()
    rows = [example["entities"] for example in examples]
    batches = (pad(rows[start : start + batch_size], -1).to(model.device) for start in range(0, len(rows), batch_size))
    users = torch.cat([model.users(nodes, entities) for entities in batches]).cpu()
    return [{**example, "user": user} for example, user in zip(examples, users, strict=True)]
