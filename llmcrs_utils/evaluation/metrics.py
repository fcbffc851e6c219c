"""The score of one answer: the automatic metrics of the paper's section 4.4 and appendix D, per sample."""

from math import prod

import numpy as np
import pandas as pd
from sacrebleu.metrics import BLEU
from scipy.sparse import csr_array

from llmcrs_utils.systems.predictions import CATALOGUE
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.text.prompts import Prompts, parse_attributes, parse_needs, prompts_of

CUTOFFS = (1, 5, 10, 15)  # K of Hit, MRR and NDCG
CATALOGUE_CUTOFFS = (10, 50)
ORDERS = (1, 2, 3, 4)  # n of Dist and BLEU
SETS = ("P", "R", "F1")
METRICS = {
    "understand": SETS,
    "elicit": SETS,
    "recommend": ("Acc", *(f"{name}@{k}" for name in ("Hit", "MRR", "NDCG") for k in CUTOFFS)),
    CATALOGUE: ("Hit@10", "Hit@50", "MRR@50", "NDCG@10", "NDCG@50"),  # recommend once more, among all items
    "respond": tuple(name.format(n) for name in ("Dist-{}", "BLEU-{}", "BLEU-{} (published)") for n in ORDERS),
}
# Of samples that have candidates which their shopper disliked: whether such a candidate comes first. Lower is better.
DISLIKED_FIRST = "Disliked first"
# The one metric by which a figure compares systems.
HEADLINE = {"understand": "F1", "elicit": "F1", "recommend": "MRR@5", "respond": "BLEU-2"}


def score(samples: pd.DataFrame, predictions: pd.DataFrame, language: str, split: str = "test") -> pd.DataFrame:
    """Score every prediction for the samples of one split.

    An answer marked invalid scores as an empty one: 0 on every metric.

    Args:
        samples: one row per task sample: ``sample_id, split, task, sid, domain, label``, and ``disliked`` where there is one.
        predictions: columns as in ``predictions.SCHEMA``, any number of systems and seeds.
        language: ``zh`` or ``en``; says how sets are written and what a token of a reply is.
        split: the samples to score; predictions for other splits are checked but not scored.

    Returns:
        One row per (system, seed, sample), in that order, with ``system, seed, sample_id, sid, domain, task, valid`` and
        one column per metric in ``METRICS``, each within 0..1 and NaN where it belongs to another task. With ``disliked``
        also ``DISLIKED_FIRST``, NaN for samples without disliked candidates.

    Raises:
        ValueError: naming the first sample that occurs twice, has no label, is predicted twice by one run, is unknown, belongs to another split
            than its prediction says, or has no prediction of a system that answers its task. So a missing prediction is never
            left out of a mean.
    """
    return score_rows(_join(samples, predictions, split), language)


def score_rows(rows: pd.DataFrame, language: str) -> pd.DataFrame:
    """Score each row's answer (``text, ranking, valid``) against the row's own ``label``: rows and columns as ``score`` returns."""
    prompts = prompts_of(language)
    rows = rows.assign(valid=rows["valid"].astype(bool), text=usable_text(rows))
    scorers = {"understand": _needs_scores, "elicit": _attribute_scores, "recommend": _ranking_scores, "respond": _reply_scores}
    parts = [scorers[task](part, prompts) for task, part in rows.groupby("task")]
    columns = dict.fromkeys(metric for task in TASKS for metric in METRICS[task])
    about = rows[["system", "seed", "sample_id", "sid", "domain", "task", "valid"]]
    scores = about.join(pd.concat(parts).reindex(columns=list(columns)))
    if "disliked" not in rows:
        return scores
    first = [items[0] if valid and pd.api.types.is_list_like(items) and len(items) else None for items, valid in zip(rows["ranking"], rows["valid"])]
    return scores.assign(**{DISLIKED_FIRST: [float(item in names) if len(names) else np.nan for item, names in zip(first, rows["disliked"])]})


def usable_text(answers: pd.DataFrame) -> pd.Series:
    """``text`` of answers, empty where they are not ``valid``."""
    return answers["text"].where(answers["valid"].astype(bool), "").fillna("")


def score_catalogue(samples: pd.DataFrame, rankings: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Score rankings of the whole catalogue, the setting of U-NEED: Hit, MRR and NDCG of the one item that was recommended.

    Args:
        samples: as for ``score``.
        rankings: columns as in ``predictions.CATALOGUE_SCHEMA``; an item beyond the ranking's end counts as not found.

    Returns:
        As ``score``, with task ``catalogue`` and the metrics of that name.

    Raises:
        ValueError: as ``score``.
    """
    rows = _join(samples, rankings.assign(text="", valid=True), split)
    about = rows[["system", "seed", "sample_id", "sid", "domain", "valid"]].assign(task=CATALOGUE)
    return about.join(_ranking_scores(rows, cutoffs=CATALOGUE_CUTOFFS)[list(METRICS[CATALOGUE])])


def _join(samples: pd.DataFrame, predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    """Predictions of the split beside their samples, sorted by system, seed and sample; complete, or an error."""
    samples = samples[["sample_id", "split", "task", "sid", "domain", "label", *samples.columns.intersection(["disliked"])]]
    run = ["system", "seed", "sample_id"]
    _refuse(samples[samples["sample_id"].duplicated()], "{0.sample_id}: two samples have this id")
    _refuse(samples[samples["label"].isna()], "{0.sample_id}: a sample without a label")
    _refuse(predictions[predictions.duplicated(run)], "{0.sample_id}: predicted twice by {0.system}, seed {0.seed}")
    unknown = predictions[~predictions["sample_id"].isin(samples["sample_id"])]
    _refuse(unknown, "{0.sample_id}: predicted by {0.system} (seed {0.seed}), but no sample has this id")

    joined = predictions.merge(samples, on="sample_id", suffixes=("_predicted", ""))
    moved = joined[joined["split_predicted"] != joined["split"]]
    _refuse(moved, "{0.sample_id}: a {0.split} sample, which {0.system} predicted as {0.split_predicted}")

    # A system that answers a task answers all its samples, with every seed.
    runs = joined[["system", "seed"]].drop_duplicates()
    duties = joined[["system", "task"]].drop_duplicates()
    scored = samples[samples["split"] == split]
    expected = runs.merge(duties, on="system").merge(scored[["task", "sample_id"]], on="task")
    checked = expected.merge(joined[run], on=run, how="left", indicator=True)
    missing = checked[checked["_merge"] == "left_only"]
    _refuse(missing, "{0.sample_id}: a sample of {0.task}, which {0.system} (seed {0.seed}) did not predict")

    rows = joined[joined["split"] == split].sort_values(run, ignore_index=True)
    if rows.empty:
        raise ValueError(f"no prediction for any sample of the {split!r} split")
    return rows


def _refuse(bad: pd.DataFrame, message: str) -> None:
    if not bad.empty:
        first = next(bad.itertuples())
        raise ValueError(message.format(first) + (f" ({len(bad)} such rows)" if len(bad) > 1 else ""))


def _needs_scores(rows: pd.DataFrame, prompts: Prompts) -> pd.DataFrame:
    return _set_scores(rows, lambda text: parse_needs(text, prompts))


def _attribute_scores(rows: pd.DataFrame, prompts: Prompts) -> pd.DataFrame:
    return _set_scores(rows, lambda text: parse_attributes(text, prompts))


def _set_scores(rows: pd.DataFrame, parse) -> pd.DataFrame:
    """P, R and F1 of one set against another, per sample. They are averaged over samples later, as published."""
    texts, labels = rows["text"].to_list(), rows["label"].to_list()  # much faster to go through than the columns
    members = {text: frozenset(parse(text)) for text in {*texts, *labels}}
    pairs = [(members[text], members[label]) for text, label in zip(texts, labels)]
    hits, predicted, gold = np.array([(len(a & b), len(a), len(b)) for a, b in pairs], dtype=float).T
    # Without a hit all three are 0, whatever the size of the sets.
    ratios = (hits / np.maximum(predicted, 1), hits / np.maximum(gold, 1), 2 * hits / np.maximum(predicted + gold, 1))
    return pd.DataFrame(dict(zip(SETS, ratios)), index=rows.index)


def _ranking_scores(rows: pd.DataFrame, prompts: Prompts | None = None, cutoffs: tuple[int, ...] = CUTOFFS) -> pd.DataFrame:
    """Hit, MRR and NDCG at the cut-offs; with one gold item, NDCG@K is 1 / log2(rank + 1)."""
    rank = np.array([_rank(*row) for row in zip(rows["label"].to_list(), rows["ranking"], rows["valid"])])
    scores = pd.DataFrame(index=rows.index)
    for k in cutoffs:
        hit = rank <= k
        scores[f"Hit@{k}"] = hit.astype(float)
        scores[f"MRR@{k}"] = np.where(hit, 1 / rank, 0.0)
        scores[f"NDCG@{k}"] = np.where(hit, 1 / np.log2(rank + 1), 0.0)
    return scores.assign(Acc=(rank == 1).astype(float))


def _rank(gold: str, ranking, valid: bool) -> float:
    """Place of the gold item, from 1; infinite where it is not named."""
    items = list(ranking) if valid and pd.api.types.is_list_like(ranking) else []
    return items.index(gold) + 1 if gold in items else np.inf


def _reply_scores(rows: pd.DataFrame, prompts: Prompts) -> pd.DataFrame:
    """Dist-n and BLEU-n of each reply against the one that was given.

    Dist-n: distinct n-grams / n-grams, 0 for a reply too short to have any. BLEU-n: the brevity penalty times the geometric
    mean of the n-gram precisions of orders 1..n, unsmoothed. ``BLEU-n (published)``: the penalty times the precision of order
    n alone, which is what the published code computes (its weights are 1 for that order and 0 for the others).
    """
    counts = _ngram_counts([*rows["text"].to_list(), *rows["label"].to_list()], prompts)
    said, given = ([of_order[part] for of_order in counts] for part in (slice(len(rows)), slice(len(rows), None)))
    correct = np.stack([ours.minimum(theirs).sum(axis=1) for ours, theirs in zip(said, given)], axis=1)
    totals = np.stack([ours.sum(axis=1) for ours in said], axis=1)
    scores = {f"Dist-{n}": np.diff(ours.indptr) / np.maximum(total, 1) for n, ours, total in zip(ORDERS, said, totals.T)}
    lengths = zip(correct.tolist(), totals.tolist(), given[0].sum(axis=1).tolist())
    counted = [BLEU.compute_bleu(hits, total, total[0], length, smooth_method="none") for hits, total, length in lengths]
    penalties, precisions = [row.bp for row in counted], [[percent / 100 for percent in row.precisions] for row in counted]
    for n in ORDERS:
        scores[f"BLEU-{n}"] = [penalty * prod(of_orders[:n]) ** (1 / n) for penalty, of_orders in zip(penalties, precisions)]
        scores[f"BLEU-{n} (published)"] = [penalty * of_orders[n - 1] for penalty, of_orders in zip(penalties, precisions)]
    return pd.DataFrame(scores, index=rows.index)


def reply_tokens(text: str, prompts: Prompts) -> list[str]:
    """Words, or characters in a language without spaces between words."""
    return text.split() if prompts.space else list("".join(text.split()))


def _ngram_counts(texts: list[str], prompts: Prompts) -> list[csr_array]:
    """How often each text has each n-gram, for each of ``ORDERS``: [texts, distinct n-grams of all texts]."""
    row, unique = pd.factorize(np.array(texts, dtype=object))
    tokens = [reply_tokens(text, prompts) for text in unique]
    text = np.repeat(np.arange(len(tokens)), [len(own) for own in tokens])
    word = pd.factorize(np.array([token for own in tokens for token in own], dtype=object))[0]
    counts, gram = [], word  # the n-gram that begins at each token, as a number
    for n in ORDERS:
        whole = max(len(text) - n + 1, 0)
        if n > 1:
            gram = pd.factorize(gram[:whole] * (word.max(initial=0) + 1) + word[n - 1 :])[0]
        inside = text[:whole] == text[n - 1 :]
        shape = (len(tokens), gram.max(initial=0) + 1)
        counts.append(csr_array((np.ones(inside.sum(), dtype=int), (text[:whole][inside], gram[inside])), shape=shape)[row])
    return counts
