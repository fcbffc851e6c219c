"""Controls that cost no second training: does prompting with help beat what a CRS and an LLM give together for nothing?

Every CRS is combined with every LLM from saved predictions alone. Parameters are chosen on held-out answers (of validation, or of fold models to the dialogues that they left out), never on test.

* ``copy_crs``, ``copy_llm``: the answer of one of the two as it is.
* ``router``: the answer whose expected score is higher. A straight line through held-out answers turns each system's confidence into
  an expected score. Confidence is the mean log-probability per token of a text, and the log-probability of the first item of a ranking
  among the candidates.
* ``fusion`` (recommend): candidates by ``(1 - s) log p_crs + s log p_llm``, which orders them as ``log p_crs + w log p_llm`` with
  ``w = s / (1 - s)``. A log-linear opinion pool; share ``s`` from ``SHARES``.
* ``tiebreak`` (recommend): the LLM's order, and the CRS's among candidates with equal scores. An LLM that ranks by likelihood gives equal scores to products
  that the catalogue describes alike. Left out where no scores are equal.
* ``rerank`` (recommend): the CRS's first ``k`` in the LLM's order, then the CRS's others (as in CRAG, Zhu et al. 2025); ``k`` from ``FIRST``.
* ``union``, ``intersection`` (understand, elicit): of the two sets, in the order of the CRS's answer, then the LLM's.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.complementarity import JUDGED_BY, RIGHT_FROM
from llmcrs_utils.evaluation.health import collapsed_among, collapsed_runs, kinds_of
from llmcrs_utils.evaluation.metrics import HEADLINE, score, score_rows, usable_text
from llmcrs_utils.evaluation.pairs import with_floors_in_every_run
from llmcrs_utils.evaluation.statistics import (
    PAIRED_BY,
    holm,
    mean_intervals,
    on_same_samples,
    paired_gains,
    runs_of,
    wide_scores,
)
from llmcrs_utils.evaluation.tables import collaborations
from llmcrs_utils.systems.predictions import SCHEMA
from llmcrs_utils.systems.registry import CONTROLS, control_key, control_name, system_of, working_alone
from llmcrs_utils.text.prompts import Prompts, parse_needs, prompts_of

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FIRST = (1, 2, 3, 5, 10, 20)
OF_TASK = {
    "understand": ("copy_crs", "copy_llm", "router", "union", "intersection"),
    "elicit": ("copy_crs", "copy_llm", "router", "union", "intersection"),
    "recommend": ("copy_crs", "copy_llm", "router", "fusion", "tiebreak", "rerank"),
    "respond": ("copy_crs", "copy_llm", "router"),
}


class Controls(NamedTuple):
    """What ``controls`` returns.

    Attributes:
        predictions: the controls' test answers, columns of ``predictions.SCHEMA``, systems as ``fusion:bcrs+cllm``.
        chosen: ``crs, llm, task, control, system, parameter`` (as text) and ``held_out``, the mean ``HEADLINE`` score on held-out answers.
            A router's parameter is each system's expected score by its confidence c.
        notes: a line for each control that had to be left out, and why; none for a tiebreak where no scores are equal.
    """

    predictions: pd.DataFrame
    chosen: pd.DataFrame
    notes: list[str]

    @property
    def without_copies(self) -> pd.DataFrame:
        """``predictions`` of the controls that are more than one system's own answers."""
        return self.predictions[~self.predictions["system"].str.startswith("copy")]


def controls(
    samples: pd.DataFrame, predictions: pd.DataFrame, held_out: pd.DataFrame, language: str, pairs: list[tuple[str, str]] | None = None
) -> Controls:
    """Every control of every CRS and LLM.

    Both answers of a control come from runs of the same seed. One parameter is chosen for a pair and task, on the held-out answers of all
    seeds together.

    Args:
        samples: at least ``sample_id, split, task, sid, domain, label``.
        predictions: answers; those to the test split are combined.
        held_out: answers of the same systems to dialogues that these were not trained on, none of them of the test split.
        pairs: (CRS, LLM); ``None``: ``pairs_in`` the answers.

    Raises:
        ValueError: if an answer of the test split is among the held-out ones.
    """
    leaked = held_out.loc[held_out["split"] == "test", "sample_id"]
    if len(leaked):
        raise ValueError(f"{leaked.iloc[0]}: a test sample among the held-out answers; choose parameters on validation answers only")
    prompts, test = prompts_of(language), predictions[predictions["split"] == "test"]
    pairs = pairs_in(test) if pairs is None else pairs
    about, answers, chosen, notes = samples[["sample_id", "task", "sid", "domain", "label"]], [], [], []
    for crs, llm in pairs:
        tuned_on, asked = side_by_side(about, held_out, crs, llm), side_by_side(about, test, crs, llm)
        for task, kinds in OF_TASK.items():
            tune, now = (table[table["task"] == task].reset_index(drop=True) for table in (tuned_on, asked))
            if now.empty:
                continue
            for kind in kinds:
                if kind == "tiebreak" and not has_ties(now):
                    continue
                where = f"{control_name(control_key(kind, crs, llm))}, {task}"
                missing = lacking(kind, tune, now)
                if missing:
                    notes.append(f"{where}: left out, {missing}")
                    continue
                parameter, reached = fitted(kind, tune, prompts, language)
                key = control_key(kind, crs, llm)
                answers.append(combined(kind, now, parameter, prompts).assign(system=key)[SCHEMA.names])
                row = {"crs": crs, "llm": llm, "task": task, "control": kind, "system": key, "parameter": parameter_text(kind, parameter)}
                chosen.append(row | {"held_out": reached})
    columns = ["crs", "llm", "task", "control", "system", "parameter", "held_out"]
    every = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame(columns=SCHEMA.names)
    return Controls(every, pd.DataFrame(chosen, columns=columns), notes)


def fusion_curve(samples: pd.DataFrame, predictions: pd.DataFrame, crs: str, others: list[str], language: str) -> pd.DataFrame:
    """What fusing a CRS's test rankings with another's reaches at every share of the other, the best of which nobody could know beforehand.

    Args:
        others: keys of LLMs or of floors that have scores (``matcher``).

    Returns:
        Index ``share``, columns (other, metric) with Acc and MRR@5.
    """
    about = samples.loc[samples["task"] == "recommend", ["sample_id", "task", "sid", "domain", "label"]]
    prompts, found = prompts_of(language), {}
    test = predictions[predictions["split"] == "test"]
    test = with_floors_in_every_run(test, test.loc[test["system"] == crs, "seed"].unique())
    for other in others:
        both = side_by_side(about, test, crs, other)
        for share in SHARES:
            answers = combined("fusion", both, share, prompts).assign(system=other)
            found[other, share] = score(samples, answers[SCHEMA.names], language)[["Acc", "MRR@5"]].mean()
    return pd.DataFrame(found).T.unstack(0).swaplevel(axis=1).sort_index(axis=1).rename_axis("share")


def pairs_in(answers: pd.DataFrame) -> list[tuple[str, str]]:
    """Every registered CRS with every registered LLM, of those that work alone and have answers."""
    present = set(answers["system"])
    crss, llms = ([system.key for system in working_alone(family) if system.key in present] for family in ("crs", "llm"))
    return [(crs, llm) for crs in crss for llm in llms]


def side_by_side(about: pd.DataFrame, answers: pd.DataFrame, crs: str, llm: str) -> pd.DataFrame:
    """Both systems' answers to the same samples with the same seeds: a sample's columns, and each answer's with ``_crs`` or ``_llm``."""
    columns = ["seed", "split", "sample_id", "text", "ranking", "scores", "valid", "confidence"]
    ours, theirs = (answers.loc[answers["system"] == key, columns] for key in (crs, llm))
    both = ours.merge(theirs.drop(columns="split"), on=["seed", "sample_id"], suffixes=("_crs", "_llm"))
    return both.merge(about, on="sample_id")


def lacking(kind: str, tune: pd.DataFrame, now: pd.DataFrame) -> str:
    """What this control needs and does not have; empty if it has all."""
    if tune.empty:
        return "no held-out answers of both systems"
    for table, of in ((tune, "held-out"), (now, "test")):
        ranked = table["task"].iloc[0] == "recommend"
        for side in ("crs", "llm"):
            if kind in ("fusion", "tiebreak", "rerank") and not (table[f"scores_{side}"].map(len) > 1).any():
                return f"the {side.upper()}'s {of} answers have no scores"
            if kind == "router" and confidences(table, side).isna().all():
                return f"the {side.upper()}'s {of} answers have no {'scores' if ranked else 'confidence'}"
    return ""


def has_ties(table: pd.DataFrame) -> bool:
    """Whether the LLM gives any two candidates of a question the same score."""
    return any(len(set(scores)) < len(scores) for scores in table["scores_llm"])


def fitted(kind: str, tune: pd.DataFrame, prompts: Prompts, language: str) -> tuple:
    """The control's parameter, chosen on these answers, and the mean ``HEADLINE`` score that it reaches on them."""
    metric = HEADLINE[tune["task"].iloc[0]]
    scored = lambda table: score_rows(table, language)[metric].to_numpy()  # noqa: E731
    if kind == "router":
        lines = []
        for side in ("crs", "llm"):
            lines.append(line_of(confidences(tune, side).to_numpy(), scored(answers_of_one(tune, side))))
        parameters = [tuple(lines)]
    else:
        parameters = {"fusion": SHARES, "rerank": FIRST}.get(kind, [None])
    found = [scored(combined(kind, tune, parameter, prompts)).mean() for parameter in parameters]
    best = int(np.argmax(found))  # the first of equals: the one nearer to the CRS alone
    return parameters[best], float(found[best])


def combined(kind: str, both: pd.DataFrame, parameter, prompts: Prompts) -> pd.DataFrame:
    """A control's answers, a row for each of ``side_by_side``: its sample's columns and those of ``predictions.SCHEMA``."""
    if kind in ("copy_crs", "copy_llm"):
        return answers_of_one(both, kind.removeprefix("copy_"))
    if kind == "router":
        crs, llm = (answers_of_one(both, side) for side in ("crs", "llm"))
        expected = [np.nan_to_num(start + slope * confidences(both, side), nan=-np.inf) for side, (start, slope) in zip(("crs", "llm"), parameter)]
        takes_crs = expected[0] >= expected[1]
        return pd.concat([crs[takes_crs], llm[~takes_crs]]).sort_index()
    if kind in ("union", "intersection"):
        texts = [joined_sets(kind, *pair, prompts) for pair in zip(*(usable_text(answers_of_one(both, side)).to_list() for side in ("crs", "llm")))]
        return answers_of_one(both, "crs").assign(text=texts, raw=texts, valid=[bool(text) for text in texts], confidence=None)
    share = {"fusion": parameter, "tiebreak": 1.0}.get(kind)  # of the LLM; a fusion keeps the CRS's order among equals
    ordered = [reranked(*row[:3], parameter) if share is None else fused(*row, share) for row in ranked_rows(both)]
    rankings, scores = [[list(part) for part in column] for column in zip(*ordered)]
    first = [ranking[0] if ranking else "" for ranking in rankings]
    return answers_of_one(both, "crs").assign(
        ranking=rankings, scores=scores, text=first, raw=first, valid=[bool(ranking) for ranking in rankings], confidence=None
    )


def answers_of_one(both: pd.DataFrame, side: str) -> pd.DataFrame:
    """The CRS's (``crs``) or the LLM's (``llm``) answers alone."""
    own = {name: both[f"{name}_{side}"] for name in ("text", "ranking", "scores", "valid", "confidence")}
    return both[["seed", "split", "sample_id", "task", "sid", "domain", "label"]].assign(system=side, raw=own["text"], **own)


def confidences(both: pd.DataFrame, side: str) -> pd.Series:
    """How sure the CRS or the LLM is of each answer; of a ranking, the log-probability of its first item. NaN where it is unknown."""
    if both["task"].iloc[0] != "recommend":
        return both[f"confidence_{side}"].astype(float)
    return both[f"scores_{side}"].map(lambda scores: log_softmax(scores).max() if len(scores) > 1 else np.nan).astype(float)


def log_softmax(scores) -> np.ndarray:
    """Log-probabilities of the candidates, [n]. Scores may be logits (CRSs) or log-probabilities (LLMs), which stay as they are."""
    scores = np.asarray(scores, dtype=float)
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())


def line_of(confidence: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Start and slope of the straight line from confidence to score, by least squares over the answers that have a confidence."""
    known = ~np.isnan(confidence)
    confidence, scores = confidence[known], scores[known]
    if confidence.std() == 0:
        return float(scores.mean()), 0.0
    slope = np.cov(confidence, scores, bias=True)[0, 1] / confidence.var()
    return float(scores.mean() - slope * confidence.mean()), float(slope)


def joined_sets(kind: str, ours: str, theirs: str, prompts: Prompts) -> str:
    """The union or the intersection of two sets, as text."""
    crs, llm = (list(dict.fromkeys(parse_needs(text, prompts))) for text in (ours, theirs))
    members = dict.fromkeys([*crs, *llm]) if kind == "union" else [member for member in crs if member in llm]
    return prompts.items.join(f"{name}{prompts.pair}{value}" if value else name for name, value in members)


def ranked_rows(both: pd.DataFrame):
    """Of each row the CRS's ranking, the LLM's, and both scores; a ranking that is not valid is empty."""
    columns = ("ranking_crs", "valid_crs", "ranking_llm", "valid_llm", "scores_crs", "scores_llm")
    for crs, crs_valid, llm, llm_valid, crs_scores, llm_scores in both[[*columns]].itertuples(index=False, name=None):
        yield list(crs) if crs_valid else [], list(llm) if llm_valid else [], crs_scores, llm_scores


def fused(crs: list, llm: list, crs_scores, llm_scores, share: float) -> tuple[list, list]:
    """All candidates by the weighted sum of both log-probabilities, and these sums. Where one has no answer, the other's is taken."""
    if not crs or not llm or set(crs) != set(llm) or not len(crs_scores) or not len(llm_scores):
        items, scores = (crs, crs_scores) if crs else (llm, llm_scores)
        return items, scores
    theirs = dict(zip(llm, log_softmax(llm_scores)))
    mixed = (1 - share) * log_softmax(crs_scores) + share * np.array([theirs[item] for item in crs])
    order = np.argsort(-mixed, kind="stable")
    return [crs[place] for place in order], mixed[order].tolist()


def reranked(crs: list, llm: list, crs_scores, first: int) -> tuple[list, list]:
    """The CRS's ``first`` items in the LLM's order, then its others. The scores only say the order."""
    place = {item: number for number, item in enumerate(llm)}
    ranking = sorted(crs[:first], key=lambda item: place.get(item, len(place))) + crs[first:] if crs else llm
    return ranking, [-float(number) for number in range(len(ranking))]


def parameter_text(kind: str, parameter) -> str:
    if kind == "fusion":
        return f"share of the LLM {parameter:.1f}"
    if kind == "rerank":
        return f"first {parameter}"
    if kind == "router":
        return "; ".join(f"{side} {start:.3f} {slope:+.3f} c" for side, (start, slope) in zip(("CRS", "LLM"), parameter))
    return ""


# --- what controls and trained pairs make of two systems


def ways_of(scores: pd.DataFrame, crs: str, llm: str) -> list[str]:
    """Keys of everything in ``scores`` that combines the two: controls, then trained collaborations."""
    present = set(scores["system"])
    keys = [control_key(kind, crs, llm) for kind in CONTROLS if not kind.startswith("copy")]
    return [key for key in (*keys, f"{llm}-{crs}", f"{crs}-{llm}") if key in present]


def realised(scores: pd.DataFrame, pairs: list[tuple[str, str]], health: pd.DataFrame | None = None) -> pd.DataFrame:
    """The potential of each pair, and how much of it each control and each trained collaboration realises (Hemmer et al. 2024).

    The potential is what an oracle gains that picks the better of the two answers for each sample, above the better of the two systems.
    The better system is known only from these scores, so gains are a little understated.

    Args:
        scores: of the two systems, the controls and the collaborations, as ``metrics.score`` returns them.
        health: ``health.answer_health``; the spread between runs of collapsed systems is not pooled with that of others.

    Returns:
        Per pair, task and way, by the task's ``HEADLINE`` metric: ``crs, llm, task, metric, way`` (a name) ``, system`` (its key)
        ``, better`` (key of the better one) ``, alone`` (its mean) ``, potential, gain`` (over the better one) ``, low, high, realised``
        (gain as a share of the potential) ``, realised low, realised high``, with 95% intervals.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        wide, found = wide_scores(part, metric), []
        for crs, llm in pairs:
            if not {crs, llm} <= set(part["system"]):
                continue
            both = on_same_samples(wide, crs=crs, llm=llm)
            better = crs if both["crs"].mean() >= both["llm"].mean() else llm
            best = both["crs" if better == crs else "llm"]
            room = dict(zip(zip(both["seed"], both["sample_id"]), np.maximum(both["crs"], both["llm"]) - best))
            for key in ways_of(part, crs, llm):
                pair = on_same_samples(wide, ours=key, theirs=better)
                gain = pair["ours"] - pair["theirs"]
                own = np.array([room[seed, name] for seed, name in zip(pair["seed"], pair["sample_id"])])
                about = {"crs": crs, "llm": llm, "task": task, "metric": metric, "way": way_name(key), "system": key, "better": better}
                found.append((about, pair, gain, own))
        kinds = [(about["way"], bool(collapsed_among((about["crs"], about["llm"], about["system"]), task, fallen))) for about, *_ in found]
        runs = [runs_of(about["system"]) | runs_of(about["better"]) for about, *_ in found]
        gains = mean_intervals([(gain, pair["sid"], pair["seed"]) for _, pair, gain, _ in found], kinds, runs)
        # As in ``complementarity.headroom``: the interval of the gain beyond the share, in units of the potential.
        shares = [gain.mean() / own.mean() if own.any() else np.nan for _, _, gain, own in found]
        beyond = [(gain - np.nan_to_num(share) * own, pair["sid"], pair["seed"]) for (_, pair, gain, own), share in zip(found, shares)]
        bounds = mean_intervals(beyond, kinds, runs)
        for (about, pair, _, own), (gain, low, high, _), share, (_, least, most, _) in zip(found, gains, shares, bounds):
            unit = own.mean() if own.any() else np.nan
            row = about | {"alone": pair["theirs"].mean(), "potential": own.mean(), "gain": gain, "low": low, "high": high}
            rows.append(row | {"realised": share, "realised low": share + least / unit, "realised high": share + most / unit})
    return pd.DataFrame(rows)


def way_name(key: str) -> str:
    """``Fusion`` of ``fusion:bcrs+cllm``; the direction of a trained collaboration."""
    kind, colon, _ = key.partition(":")
    return kind.capitalize() if colon else system_of(key).group


def error_correlation(scores: pd.DataFrame, pairs: list[tuple[str, str]], right_from: dict[str, float] = RIGHT_FROM) -> pd.DataFrame:
    """How alike a CRS and an LLM err: the correlation of their scores on the same samples, and of being right (phi).

    Near 1 they are right and wrong together, and little can be gained; at 0 each fails on its own; below 0 one is right where the other
    is not.

    Returns:
        Per pair and task: ``crs, llm, task, correlation, low, high, phi``. NaN where one of the two is always equally right.
    """
    rows, quantities = [], []
    for task, metric in HEADLINE.items():
        judged = JUDGED_BY[task]
        part = scores[scores["task"] == task]
        wide = {name: wide_scores(part, name) for name in {metric, judged}}
        for crs, llm in pairs:
            if not {crs, llm} <= set(part["system"]):
                continue
            both, right = (on_same_samples(wide[name], crs=crs, llm=llm) for name in (metric, judged))
            one, other = (standard(both[name]) for name in ("crs", "llm"))
            value = float((one * other).mean())
            phi = (standard((right["crs"] >= right_from[task]).astype(float)) * standard((right["llm"] >= right_from[task]).astype(float))).mean()
            rows.append({"crs": crs, "llm": llm, "task": task, "correlation": value, "phi": phi})
            # The correlation's influence function: its mean is the correlation, its spread that of the estimate.
            known = 0.0 if np.isnan(value) else value
            quantities.append(((known + one * other - known / 2 * (one**2 + other**2)).fillna(0), both["sid"], both["seed"]))
    bounds = mean_intervals(quantities, [row["task"] for row in rows])
    table = pd.DataFrame(rows).assign(low=[low for _, low, _, _ in bounds], high=[high for _, _, high, _ in bounds])
    table.loc[table["correlation"].isna(), ["low", "high"]] = np.nan
    return table[["crs", "llm", "task", "correlation", "low", "high", "phi"]]


def standard(values: pd.Series) -> pd.Series:
    """Values with mean 0 and standard deviation 1; NaN where they are all equal."""
    return (values - values.mean()) / (values.std(ddof=0) if values.nunique() > 1 else np.nan)


def over_the_best_control(scores: pd.DataFrame, chosen: pd.DataFrame, health: pd.DataFrame) -> pd.DataFrame:
    """Does prompting with help beat the best control? Which control is best is known from held-out answers alone.

    Args:
        scores: of collaborations and controls, on the test split; ``chosen``: of ``Controls``; ``health``: ``health.answer_health``.

    Returns:
        Per collaboration and task, by ``HEADLINE``: ``system, key, task, metric, control`` (the best one's name) ``, gain, low, high, p,
        sound, p (Holm)``. Where a system of the pair has collapsed, the row is not ``sound`` and not tested: its p is NaN.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        best = chosen[chosen["task"] == task].sort_values("held_out", kind="stable").drop_duplicates(["crs", "llm"], keep="last")
        of_pair = {frozenset((row.crs, row.llm)): row.system for row in best.itertuples()}
        known = [system for system in collaborations(part) if frozenset((system.base, system.assistant)) in of_pair]
        pairs = [(system.key, of_pair[frozenset((system.base, system.assistant))]) for system in known]
        found = paired_gains(part, pairs, metric, kinds_of(known, task, fallen))
        for system, (_, control), values in zip(known, pairs, found):
            row = {"system": system.name, "key": system.key, "task": task, "metric": metric, "control": control_name(control)}
            rows.append(row | dict(zip(("gain", "low", "high", "p"), values)))
    table = pd.DataFrame(rows, columns=["system", "key", "task", "metric", "control", "gain", "low", "high", "p"])
    table["sound"] = sound(table, health)
    table["p"] = table["p"].where(table["sound"])
    return table.assign(**{"p (Holm)": holm(table["p"])})


def sound(table: pd.DataFrame, health: pd.DataFrame) -> pd.Series:
    """Whether no system behind a row has collapsed in its task (``health.answer_health``): no finding may rest on other rows.

    Args:
        table: with ``task`` and the keys ``crs, llm, system`` or ``key``.
    """
    fallen, columns = collapsed_runs(health), table.columns.intersection(["crs", "llm", "system", "key"])
    behind = [frozenset().union(*map(runs_of, keys)) for keys in table[columns].itertuples(index=False)]
    return pd.Series([not collapsed_among(keys, task, fallen) for keys, task in zip(behind, table["task"])], index=table.index, dtype=bool)
