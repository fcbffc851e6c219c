"""The best possible scores in the synthetic world: the true probability of every answer, and the answer that makes the most of it.

A *ceiling* is the expected score of the answer that is best under the true probabilities. A system that answers so knows the
world's rules and all facts of its items. Of the shopper it knows no more than the desk does: tastes stay hidden.
"""

from itertools import product
from random import Random

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.metrics import HEADLINE, METRICS, score
from llmcrs_utils.evaluation.tables import category_name, category_names, total_name
from llmcrs_utils.systems.predictions import SCHEMA
from llmcrs_utils.systems.registry import ORACLE, TASKS
from llmcrs_utils.text.prompts import CHINESE, parse_needs
from llmcrs_utils.world import Truth
from llmcrs_utils.world.dialogues import Choice, TurnTruth

LANGUAGE = "zh"  # of the world
WORDINGS = 12  # wordings of a reply that represent all possible ones
LEAST_PROBABILITY = 1e-9  # probability of an item that is ruled out, where its logarithm is needed
Labels = list[tuple[str, float]]  # label, probability


def true_labels(samples: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """The probability of every label that a task sample might have had, given all that the world knows before it.

    Args:
        samples: rows of ``build_samples`` of the world's corpus.

    Returns:
        One row per (sample, label): ``sample_id, label, probability``; labels are written as in the samples. For ``respond``
        ``WORDINGS`` wordings, drawn as the desk draws them, share the probability, since not all wordings can be listed.

    Raises:
        KeyError: for a sample of a dialogue that ``truth`` does not know.
    """
    rows = []
    for sample in samples.itertuples(index=False):
        turn = truth[sample.sid, sample.seq_no]
        if sample.task == "recommend":
            labels = chosen_items(turn.choice, list(sample.candidates))
        elif sample.task == "elicit":
            labels = [(CHINESE.items.join(dict.fromkeys(keys)), share) for keys, share in shares(turn.questions)]
        elif sample.task == "understand":
            labels = annotations(turn)
        else:
            labels = [(text, 1 / WORDINGS) for text in replies(turn, Random(f"{sample.sample_id} labels"))]
        rows += [(sample.sample_id, label, probability) for label, probability in labels]
    return pd.DataFrame(rows, columns=["sample_id", "label", "probability"])


def oracle_predictions(samples: pd.DataFrame, truth: Truth, split: str = "test") -> pd.DataFrame:
    """The answers whose expected score is best: columns as in ``predictions.SCHEMA``, system ``oracle``.

    ``recommend``: the candidates by probability. ``understand`` and ``elicit``: the set with the highest expected F1.
    ``respond``: of some wordings the one most like the others by BLEU-2 (a minimum-risk choice; there may be better ones).
    """
    samples = samples[samples["split"] == split]
    worded = samples["task"] == "respond"
    possible = true_labels(samples[~worded], truth).groupby("sample_id")
    labels = {name: list(zip(part["label"], part["probability"])) for name, part in possible}
    wordings = best_replies(samples[worded], truth)
    rows = []
    for sample_id, task in zip(samples["sample_id"], samples["task"]):
        ranking, scores = [], []
        if task == "recommend":
            best_first = sorted(labels[sample_id], key=lambda pair: -pair[1])
            ranking, scores = map(list, zip(*best_first))
            text = ranking[0]
        else:
            text = wordings[sample_id] if task == "respond" else best_set(labels[sample_id])
        rows.append((ORACLE, 1, split, sample_id, text, ranking, scores, text, True, None))
    return pd.DataFrame(rows, columns=SCHEMA.names)


def expected_scores(samples: pd.DataFrame, predictions: pd.DataFrame, labels: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """The average scores of predictions over all labels that might have been: as ``metrics.score``, without the noise of one label.

    Args:
        labels: what ``true_labels`` returns for these samples.
    """
    samples = samples[samples["split"] == split]
    possible = labels.assign(variant=[f"{name} {place}" for place, name in enumerate(labels["sample_id"])])
    unfolded = samples.drop(columns="label").merge(possible, on="sample_id")
    answers = predictions[predictions["split"] == split].merge(possible[["sample_id", "variant"]], on="sample_id")
    scored = score(
        unfolded.assign(sample_id=unfolded["variant"]), answers.assign(sample_id=answers["variant"]), LANGUAGE, split
    )
    scored = scored.rename(columns={"sample_id": "variant"}).merge(possible[["variant", "sample_id", "probability"]], on="variant")
    metrics = list(dict.fromkeys(metric for task in TASKS for metric in METRICS[task]))
    weighted = scored[metrics].mul(scored["probability"], axis=0)
    about = ["system", "seed", "sample_id", "sid", "domain", "task"]
    return weighted.groupby([scored[column] for column in about], sort=False).sum(min_count=1).reset_index()


def ceiling_table(expected: pd.DataFrame) -> pd.DataFrame:
    """The oracle's expected headline metric per task (rows) and category (columns), from ``expected_scores``."""
    categories = category_names(expected)
    names = expected["domain"].map(category_name)
    rows = {}
    for task, metric in HEADLINE.items():
        scores = expected[metric].where(expected["task"] == task)
        rows[f"{task} ({metric})"] = [*(scores[names == category].mean() for category in categories), scores.mean()]
    return pd.DataFrame(rows, index=[*categories, total_name(categories)]).T


def reader_table(samples: pd.DataFrame, truth: Truth, split: str = "test") -> pd.DataFrame:
    """Expected Acc and MRR@5 of recommendations by perfect readers of a part of what there is to know (rows).

    A reader of the text knows all needs of the dialogue and what the catalogue says of each item; what it does not say counts as not
    so. A reader of behaviour knows all traits that an item shares with what the shopper viewed. The last row knows everything.
    """
    chosen = samples[(samples["split"] == split) & (samples["task"] == "recommend")]
    rows = {"reads the dialogue and the catalogue": [], "sees behaviour": [], "knows everything": []}
    for sample in chosen.itertuples():
        choice, candidates = truth[sample.sid, sample.seq_no].choice, list(sample.candidates)
        likely = dict(chosen_items(choice, candidates))
        for row, found in zip(rows.values(), (read_appeal(choice, candidates), dict(chosen_items(choice, candidates, 1.0)), likely), strict=True):
            ranking = sorted(candidates, key=lambda item: -found[item])
            row.append((likely[ranking[0]], sum(likely[item] / rank for rank, item in enumerate(ranking[:5], start=1))))
    return pd.DataFrame({name: np.mean(values, axis=0) for name, values in rows.items()}, index=["Acc", "MRR@5"]).T


def reader_predictions(samples: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Rankings by two perfect readers, of behaviour alone (``behaviour``) and of needs alone (``needs``), columns as in ``predictions.SCHEMA``.

    Each knows one half of what the desk's choice depends on, and its scores are log-probabilities of a desk that knows no more. The
    desk's own log-probabilities are a weighted sum of both, so a fusion of the two can reach the ceiling.
    """
    rows = []
    for sample in samples[samples["task"] == "recommend"].itertuples():
        choice, candidates = truth[sample.sid, sample.seq_no].choice, list(sample.candidates)
        for system, weight in (("behaviour", 1.0), ("needs", 0.0)):
            likely = dict(chosen_items(choice, candidates, weight))
            ranking = sorted(candidates, key=lambda item: -likely[item])
            scores = [float(np.log(max(likely[item], LEAST_PROBABILITY))) for item in ranking]
            rows.append((system, 1, sample.split, sample.sample_id, ranking[0], ranking, scores, "", True, None))
    return pd.DataFrame(rows, columns=SCHEMA.names)


def read_appeal(choice: Choice, candidates: list[str]) -> dict[str, float]:
    """The needs that each candidate meets by what can be read of it. A candidate that is ruled out comes after all others."""
    written = dict(zip(choice.item_ids, np.where(choice.possible, choice.written, choice.written.min() - 1).tolist()))
    return {item: written.get(item, choice.written.min() - 1) for item in candidates}


def shares(weighted: list[tuple]) -> list[tuple]:
    total = sum(weight for _, weight in weighted)
    return [(what, weight / total) for what, weight in weighted]


def chosen_items(choice: Choice, candidates: list[str], implicit_weight: float | None = None) -> Labels:
    """The probability that each candidate is the gold item. The other candidates are drawn evenly from the rest of the shop.

    Where two items were recommended, the second is never among the candidates.
    """
    weights = dict(zip(choice.item_ids, choice.weights(implicit_weight).tolist()))
    of = np.array([weights.get(item, 0) for item in candidates], dtype=float)  # 0: another shop's, where the shop is small
    if choice.count > 1:
        total = sum(weights.values())
        outside = np.array([weight for item, weight in weights.items() if item not in set(candidates)], dtype=float)
        # either item may have been drawn first, the other one then from what was left
        of = np.array([w * (outside * (1 / (total - outside) + 1 / (total - w))).sum() if w < total else 0.0 for w in of])
    return list(zip(candidates, (of / of.sum()).tolist()))


def annotations(turn: TurnTruth) -> Labels:
    """Every annotation of the turn that an annotator may choose, with its probability."""
    choices = [list((mention.may_be or {mention.key: 1.0}).items()) for mention in turn.mentions]
    found: dict[str, float] = {}
    for combination in product(*choices):
        pairs = [f"{key}{CHINESE.pair}{mention.word}" for (key, _), mention in zip(combination, turn.mentions)]
        label = CHINESE.items.join(pairs)
        found[label] = found.get(label, 0.0) + float(np.prod([share for _, share in combination]))
    return list(found.items())


def replies(turn: TurnTruth, rng: Random) -> list[str]:
    """``WORDINGS`` wordings of the desk's turn. A wording that is only a link is no reply and is drawn again."""
    found: list[str] = []
    while len(found) < WORDINGS:
        text = " ".join(turn.reply(rng))
        if text.strip():
            found.append(text)
    return found


def best_set(labels: Labels) -> str:
    """The set of members with the highest expected F1 against a label drawn with its probability."""
    sets = [frozenset(parse_needs(label, CHINESE)) for label, _ in labels]
    weights = np.array([probability for _, probability in labels])
    members = list(dict.fromkeys(pair for label, _ in labels for pair in parse_needs(label, CHINESE)))
    certain = [member for member in members if all(member in one for one in sets)]
    open_members = [member for member in members if member not in certain]
    has = np.array([[member in one for member in open_members] for one in sets], dtype=float).reshape(len(sets), -1)
    sizes = np.array([len(one) for one in sets])
    answers = np.array(list(product((0, 1), repeat=len(open_members))), dtype=float)
    answers = answers.reshape(2 ** len(open_members), len(open_members))
    hits = answers @ has.T + len(certain)
    f1 = 2 * hits / (answers.sum(axis=1)[:, None] + len(certain) + sizes)
    best = answers[int(np.argmax(f1 @ weights))]
    chosen = [*certain, *[member for member, taken in zip(open_members, best) if taken]]
    return CHINESE.items.join(f"{key}{CHINESE.pair}{value}" if value else key for key, value in chosen)


def best_replies(samples: pd.DataFrame, truth: Truth) -> dict[str, str]:
    """For each sample the wording that is most similar to the others by BLEU-2."""
    drawn = {s.sample_id: replies(truth[s.sid, s.seq_no], Random(f"{s.sample_id} answers")) for s in samples.itertuples()}
    pairs = [(name, one, other) for name, texts in drawn.items() for one in range(WORDINGS) for other in range(WORDINGS) if one != other]
    if not pairs:
        return {}
    frame = pd.DataFrame(pairs, columns=["name", "one", "other"])
    frame["sample_id"] = [f"{name} {one} {other}" for name, one, other in pairs]
    texts = [drawn[name][one] for name, one, _ in pairs]
    wording_samples = frame.assign(task="respond", split="test", sid="", domain="", label=[drawn[name][other] for name, _, other in pairs])
    answers = frame.assign(system=ORACLE, seed=1, split="test", text=texts, ranking=None, scores=None, raw=texts, valid=True, confidence=None)
    scored = score(wording_samples, answers[SCHEMA.names], LANGUAGE).merge(frame, on="sample_id")
    mean = scored.groupby(["name", "one"])[HEADLINE["respond"]].mean()
    return {name: drawn[name][int(part.idxmax()[1])] for name, part in mean.groupby(level="name")}
