"""Answers that need no training. Every learned system has to beat them."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from llmcrs_utils.corpus.schema import TIME_TYPE, TITLE_RELATIONS, Corpus
from llmcrs_utils.corpus.similarity import grams_of
from llmcrs_utils.systems.predictions import CATALOGUE, IN_CATALOGUE, SCHEMA
from llmcrs_utils.systems.registry import FLOORS
from llmcrs_utils.text.prompts import Prompts

WORD_OR_SIGN = r"\w+|[^\w\s]"
SPEAKER = re.compile(r"\[(user|system)\]")


def floor_predictions(samples: pd.DataFrame, items: pd.DataFrame, corpus: Corpus, prompts: Prompts) -> dict[str, pd.DataFrame]:
    """Every floor's answers to the test split, by its key: columns as in ``predictions.SCHEMA``, rankings with ``catalogue``.

    Args:
        samples: what ``build_samples`` makes of ``corpus``.
        items: the catalogue's.
    """
    popular = popular_predictions(samples, items, corpus.behaviour)
    answers = (
        trivial_predictions(samples),
        dictionary_predictions(samples, corpus.knowledge, prompts),
        popular,
        last_viewed_predictions(samples, popular),
        matcher_predictions(samples, corpus.knowledge, prompts),
    )
    return dict(zip(FLOORS, answers, strict=True))


def trivial_predictions(samples: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """The most frequent label of the task in the train split (of several, the first in code point order).

    For ``recommend`` a random order of the sample's candidates, drawn from the seed and the sample's id, so that no sample
    changes another's.

    Args:
        samples: as for ``metrics.score``, with ``candidates`` (list of item ids) where the task is ``recommend``.

    Returns:
        Predictions for the test split, columns as in ``predictions.SCHEMA``, system ``trivial``.

    Raises:
        ValueError: if the test split holds a task that the train split lacks.
    """
    frequent = samples[samples["split"] == "train"].groupby("task")["label"].agg(lambda labels: labels.mode()[0])
    test = samples[samples["split"] == "test"]
    answered = test["task"].isin([*frequent.index, "recommend"])
    if not answered.all():
        raise ValueError(f"task {test.loc[~answered, 'task'].iloc[0]!r} has test samples but no train samples to learn from")
    rankings = [
        random.Random(f"{seed} {sample_id}").sample(list(candidates), k=len(candidates)) if task == "recommend" else None
        for task, sample_id, candidates in zip(test["task"], test["sample_id"], test["candidates"])
    ]
    text = [frequent[task] if ranking is None else ranking[0] for task, ranking in zip(test["task"], rankings)]
    scores = [ranking and [1 / place for place in range(1, len(ranking) + 1)] for ranking in rankings]
    return _predictions("trivial", test, text, rankings, scores).assign(seed=seed)


def popular_predictions(samples: pd.DataFrame, items: pd.DataFrame, behaviour: pd.DataFrame) -> pd.DataFrame:
    """Items by how often anybody acted on them at the sample's shop before the turn, then by how often training dialogues
    recommend them; candidates that are alike stay in the order in which they are given, which is random.

    As in samples' histories, actions on items that only dialogues name do not count: they would give answers away.
    """
    test = _recommend(samples, "test")
    recommended = Counter(_recommend(samples, "train")["label"])
    names = items["item_id"].to_numpy(object)
    index = {item: row for row, item in enumerate(names)}
    often = np.array([recommended[item] for item in names])
    # Of each shop its actions in order of time: those before a turn are a prefix.
    listed = set(items.loc[items["listed"], "item_id"])
    known = behaviour[behaviour["item_id_encrypt"].isin(listed)].sort_values("actime", kind="stable")
    actions = {
        seller: (part["actime"].to_numpy(TIME_TYPE), part["item_id_encrypt"].map(index).to_numpy())
        for seller, part in known.groupby("seller_id_encrypt")
    }
    nothing = np.array([], dtype=TIME_TYPE), np.array([], dtype=int)
    rankings, scores, catalogue = [], [], []
    for seller, time, candidates in zip(test["seller_id"], test["time"].to_numpy(TIME_TYPE), test["candidates"]):
        moments, acted_on = actions.get(seller, nothing)
        counts = np.bincount(acted_on[: np.searchsorted(moments, time)], minlength=len(names))
        rows = np.array([index[item] for item in candidates])
        order = np.lexsort((-often[rows], -counts[rows]))
        rankings.append([candidates[place] for place in order])
        scores.append(counts[rows[order]].tolist())
        catalogue.append(names[np.lexsort((-often, -counts))[:IN_CATALOGUE]].tolist())
    return _predictions("popular", test, [ranking[0] for ranking in rankings], rankings, scores, catalogue)


def last_viewed_predictions(samples: pd.DataFrame, popular: pd.DataFrame) -> pd.DataFrame:
    """What the shopper acted on last comes first; items never acted on follow as in ``popular`` (``popular_predictions``)."""
    test = _recommend(samples, "test")
    rankings, scores, catalogue = [], [], []
    for history, candidates, items in zip(test["history"], popular["ranking"], popular[CATALOGUE]):
        place = {item: n for n, item in enumerate(history, start=1)}  # of several actions the last counts
        ranking = sorted(candidates, key=lambda item: -place.get(item, 0))
        rankings.append(ranking)
        scores.append([place.get(item, 0) for item in ranking])
        catalogue.append(list(dict.fromkeys([*sorted(place, key=lambda item: -place[item]), *items]))[:IN_CATALOGUE])
    return _predictions("last_viewed", test, [ranking[0] for ranking in rankings], rankings, scores, catalogue)


def matcher_predictions(samples: pd.DataFrame, knowledge: pd.DataFrame, prompts: Prompts) -> pd.DataFrame:
    """The candidates by how many of their values the dialogue names; equals stay in the order in which they are given.

    A reader of the dialogue and of the catalogue's text has to beat this: it only looks words up. Case does not count, and a
    single character is no word. A title (``TITLE_RELATIONS``) is taken apart: each of its words, in Chinese its pairs
    of neighbouring signs, counts by how rare it is among the titles of all candidates: log(1 + titles / titles that have it).
    """
    test = _recommend(samples, "test")
    shown = knowledge[~knowledge["relation_name"].isin(prompts.hidden_relations)]
    shown = shown[shown["item_id_encrypt"].isin({item for items in test["candidates"] for item in items})]

    def in_pieces(text: str) -> str:
        """Comparable text: words and signs between blanks in a language that parts words, so that "red" is not found in "tired"."""
        return f" {' '.join(_key(_pieces(text, prompts)))} " if prompts.space else text.casefold()

    titled = shown["relation_name"].isin(TITLE_RELATIONS.values())
    words = {
        item: {in_pieces(word): 1 for value in values for word in words_of(value)}
        for item, values in shown[~titled].groupby("item_id_encrypt")["value"]
    }
    grams = {item: grams_of(title) for item, title in zip(shown["item_id_encrypt"][titled], shown["value"][titled])}
    often = Counter(gram for found in grams.values() for gram in found)
    for item, found in grams.items():
        words.setdefault(item, {}).update({in_pieces(gram): math.log(1 + len(grams) / often[gram]) for gram in found})
    rankings, scores = [], []
    for context, current, candidates in zip(test["context"], test["current"], test["candidates"]):
        spoken = in_pieces("\n".join(segment for turn in [*context, current] for segment in turn if SPEAKER.match(segment)))
        found = {item: sum(weight for word, weight in words.get(item, {}).items() if word in spoken) for item in candidates}
        rankings.append(sorted(candidates, key=lambda item: -found[item]))
        scores.append([found[item] for item in rankings[-1]])
    return _predictions("matcher", test, [ranking[0] for ranking in rankings], rankings, scores)


def with_clicks(matcher: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """The matcher's rankings again, with one more for each candidate that the shopper acted on before; equals stay in its order.

    Args:
        matcher: what ``matcher_predictions`` returns; ``samples``: with ``sample_id`` and ``history``.
    """
    clicked = dict(zip(samples["sample_id"], map(frozenset, samples["history"])))
    rankings, counts = [], []
    for row in matcher.itertuples():
        found = {item: count + (item in clicked[row.sample_id]) for item, count in zip(row.ranking, row.scores)}
        rankings.append(sorted(row.ranking, key=lambda item: -found[item]))
        counts.append([found[item] for item in rankings[-1]])
    return matcher.assign(ranking=rankings, scores=counts, text=[ranking[0] for ranking in rankings])


def words_of(value: str) -> list[str]:
    """The words of a value of the product knowledge, which may hold several. A single character is no word."""
    return [word.strip() for word in re.split("[,，、/;；]", value) if len(word.strip()) > 1]


def dictionary_predictions(samples: pd.DataFrame, knowledge: pd.DataFrame, prompts: Prompts) -> pd.DataFrame:
    """What the product knowledge has a word for: its values, each with its most frequent relation, and the names of relations.

    The current utterance is read from left to right; the longest word that begins at a place is taken and passed over. A
    single character is no word, for it begins too many others; case does not count.
    """
    test = samples[(samples["split"] == "test") & (samples["task"] == "understand")]
    dictionary = knowledge_words(knowledge, prompts)
    longest = max(map(len, dictionary), default=0)
    texts = []
    for current in test["current"]:
        text = SPEAKER.sub("", current[-1], count=1)
        pieces = list(re.finditer(WORD_OR_SIGN if prompts.space else ".", text))
        found, start = {}, 0
        while start < len(pieces):
            for end in range(min(start + longest, len(pieces)), start, -1):
                word = _key(piece.group() for piece in pieces[start:end])
                if word in dictionary:
                    relation, named = dictionary[word]
                    word_in_text = text[pieces[start].start() : pieces[end - 1].end()]
                    found[f"{relation}{prompts.pair}{'' if named else word_in_text}"] = None
                    start = end - 1
                    break
            start += 1
        texts.append(prompts.items.join(found))
    empty = [[] for _ in texts]
    return _predictions("dictionary", test, texts, empty, empty).assign(valid=[bool(text) for text in texts])


def knowledge_words(knowledge: pd.DataFrame, prompts: Prompts) -> dict[tuple[str, ...], tuple[str, bool]]:
    """Pieces of a word, case folded -> (relation, whether the word is the relation's own name); relations never shown are left out."""
    shown = knowledge[~knowledge["relation_name"].isin(prompts.hidden_relations)]
    counts = shown.groupby(["value", "relation_name"]).size().sort_values(kind="stable")
    words = {}
    for (value, relation), _ in counts.items():  # the most frequent relation comes last and stays
        for word in words_of(value):
            words[_key(_pieces(word, prompts))] = (relation, False)
    return words | {_key(_pieces(relation, prompts)): (relation, True) for relation in shown["relation_name"].unique()}


def _pieces(text: str, prompts: Prompts) -> list[str]:
    """Characters, or words and signs in a language that parts words."""
    return re.findall(WORD_OR_SIGN if prompts.space else ".", text)


def _key(pieces: Iterable[str]) -> tuple[str, ...]:
    return tuple(piece.casefold() for piece in pieces)


def _recommend(samples: pd.DataFrame, split: str) -> pd.DataFrame:
    return samples[(samples["split"] == split) & (samples["task"] == "recommend")]


def _predictions(system: str, samples: pd.DataFrame, text: list, rankings: list, scores: list, catalogue: list | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"system": system, "seed": 1, "split": samples["split"], "sample_id": samples["sample_id"], "text": text, "ranking": rankings,
         "scores": scores, "raw": text, "valid": True},
        columns=SCHEMA.names,
    ).reset_index(drop=True)  # fmt: skip
    return frame if catalogue is None else frame.assign(**{CATALOGUE: catalogue})
