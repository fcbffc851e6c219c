"""The product knowledge as a graph of items and values, and a relational graph convolution on it (Schlichtkrull et al. 2018)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmcrs_utils.text.prompts import Prompts, parse_needs, split_set

# The parts by which names are compared: each Chinese character, each sign, each run of letters and digits (14G does not hold 4G).
WORD = re.compile(r"(?:(?![\u3400-\u9fff])\w)+|\S")


def words(name: str) -> tuple[str, ...]:
    return tuple(WORD.findall(name.casefold()))


@dataclass(frozen=True)
class Graph:
    """A graph whose nodes are entities, as in KBRD's DBpedia graph: items and values.

    Equal values of different relations are one node.

    Attributes:
        items: ids of the first nodes.
        values: names of the nodes after them.
        edges: [3, edges] source, relation and target, sorted by target. Each fact is two edges: its relation and the inverse.
        relations: number of relations, inverses included.
    """

    items: list[str]
    values: list[str]
    edges: Tensor
    relations: int


def knowledge_graph(knowledge: pd.DataFrame, items: list[str]) -> Graph:
    """The graph of a corpus's product knowledge (all relations) for a catalogue. An item without facts has no edges."""
    names: dict[tuple[str, ...], str] = {}
    for value in knowledge["value"].unique():
        names.setdefault(words(value), value)
    names.pop((), None)  # a value of blanks
    node_of = {key: node for node, key in enumerate(names, start=len(items))}
    item_of = {item: node for node, item in enumerate(items)}
    values = knowledge["value"].map({value: node_of.get(words(value), -1) for value in knowledge["value"].unique()})
    relation, known = knowledge["relation_name"].factorize(sort=True)
    rows = np.stack([knowledge["item_id_encrypt"].map(item_of), relation, values]).astype(np.int64)
    rows = rows[:, rows[2] >= 0]
    inverse = np.stack([rows[2], rows[1] + len(known), rows[0]])
    edges = np.unique(np.concatenate([rows, inverse], axis=1)[::-1], axis=1)[::-1]
    return Graph(list(items), list(names.values()), torch.from_numpy(edges.copy()), 2 * len(known))


def make_linker(items: list[str], values: list[str], prompts: Prompts) -> Callable[[dict], list[int]]:
    """Return the function ``linker(sample)``: the nodes that a sample's visible turns mention, sorted.

    Items come from ``[recommend]`` segments. Values are linked by name, as in KBRD: a value in an ``[understand]`` segment
    (干性皮肤) is read from left to right, and at each place the longest name of a node that starts there (干性) is taken.
    """
    item_nodes = {item: node for node, item in enumerate(items)}
    value_nodes = {words(value): node for node, value in enumerate(values, start=len(items))}
    longest = max(map(len, value_nodes), default=0)

    def nodes_in(value: str) -> list[int]:
        spoken, start, nodes = words(value), 0, []
        while start < len(spoken):
            ends = range(min(start + longest, len(spoken)), start, -1)
            end = next((end for end in ends if spoken[start:end] in value_nodes), None)
            if end:
                nodes.append(value_nodes[spoken[start:end]])
            start = end or start + 1
        return nodes

    @cache  # a segment is part of the context of many samples
    def nodes_of(segment: str) -> list[int]:
        marker, _, text = segment.partition("]")
        if marker == "[recommend":
            return [item_nodes[item] for item in split_set(text, prompts) if item in item_nodes]
        if marker == "[understand":
            return [node for _, value in parse_needs(text, prompts) for node in nodes_in(value)]
        return []

    def linker(sample: dict) -> list[int]:
        return sorted({node for turn in (*sample["context"], sample["current"]) for segment in turn for node in nodes_of(segment)})

    return linker


class RelationalGraph(nn.Module):
    """One relational graph convolution with basis decomposition (Schlichtkrull et al. 2018, equations 2 and 3).

    As in KBRD's published code, a node's input is its one-hot vector, so a relation's matrix has one row per node. The state of
    node i is ``sum_r sum_j W_r[j] / c_ir + W_0[i] + bias``, where j runs over the c_ir nodes from which relation r leads to i.
    ``W_r`` is ``sum_b mixing[r, b] bases[b]``, and W_0 (``root``) is the self-loop. There is no activation.
    """

    def __init__(self, nodes: int, relations: int, edges: int, dim: int, bases: int):
        super().__init__()
        self.register_buffer("edges", torch.zeros(3, edges, dtype=torch.long))  # as in Graph; saved with the weights
        self.bases = nn.Parameter(torch.empty(bases, nodes, dim))
        self.mixing = nn.Parameter(torch.empty(relations, bases))
        self.root = nn.Parameter(torch.empty(nodes, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        for matrix in (*self.bases, self.mixing, self.root):
            nn.init.xavier_uniform_(matrix)

    def forward(self) -> Tensor:
        """[nodes, dim]."""
        source, relation, target = self.edges
        group = target * len(self.mixing) + relation
        share = 1 / group.bincount()[group]
        degree = target.bincount(minlength=len(self.root))
        starts = degree.cumsum(0) - degree
        states = self.root + self.bias
        for basis, mixing in zip(self.bases, self.mixing.T, strict=True):
            # This sums over each node's edges without storing a row per edge.
            states = states + F.embedding_bag(source, basis, starts, mode="sum", per_sample_weights=mixing[relation] * share)
        return states


class SelfAttention(nn.Module):
    """A user's vector: the mean of the mentioned entities, weighted by ``softmax(b tanh(A h))`` (KBRD, section 3.2; Lin et al.
    2017)."""

    def __init__(self, dim: int):
        super().__init__()
        self.hidden = nn.Linear(dim, dim, bias=False)
        self.weight = nn.Linear(dim, 1, bias=False)
        nn.init.xavier_uniform_(self.hidden.weight, gain=2**0.5)
        nn.init.xavier_uniform_(self.weight.weight, gain=2**0.5)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """
        Args:
            states: [batch, slots, dim].
            real: [batch, slots], False for padding.

        Returns:
            [batch, dim]; zeros for a user without entities.
        """
        scores = self.weight(torch.tanh(self.hidden(states))).squeeze(-1).masked_fill(~real, -1e9)
        weights = scores.softmax(dim=1) * real  # all zeros for a row without real slots
        return (weights[..., None] * states).sum(dim=1)
