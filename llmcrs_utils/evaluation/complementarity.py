"""Are a CRS and an LLM right about different things, and does a collaboration make use of it? (the paper's RQ1, section 5.1)"""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import permutations

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.health import collapsed_among, collapsed_behind, collapsed_runs, holm_of_healthy, kinds_of
from llmcrs_utils.evaluation.metrics import HEADLINE, score_rows, usable_text
from llmcrs_utils.evaluation.pairs import with_floors_in_every_run
from llmcrs_utils.evaluation.statistics import (
    PAIRED_BY,
    SIGNIFICANT,
    mean_interval,
    mean_intervals,
    on_same_samples,
    paired,
    paired_gains,
    runs_of,
    wide_scores,
)
from llmcrs_utils.evaluation.tables import collaborations, gains, rows_of
from llmcrs_utils.systems.registry import System, system_of

# An answer counts as right from this value of the metric on: a set from an F1 of one half, an item if it is the right one, a reply
# from a BLEU-2 that a greeting alone does not reach.
RIGHT_FROM = {"understand": 0.5, "elicit": 0.5, "recommend": 1.0, "respond": 0.25}
JUDGED_BY = HEADLINE | {"recommend": "Acc"}
OUTCOMES = ("both", "only CRS", "only LLM", "neither")


def triples(wide: pd.DataFrame, system: System) -> pd.DataFrame:
    """What a collaboration, its base and its assistant scored on the same samples: ``seed, sample_id, sid, pair, base, assistant``.

    Args:
        wide: what ``statistics.wide_scores`` returns.

    Raises:
        ValueError: as ``statistics.on_same_samples``.
    """
    return on_same_samples(wide, pair=system.key, base=system.base, assistant=system.assistant)


def by_task(scores: pd.DataFrame, metrics: dict[str, str]) -> Iterator[tuple[str, list[tuple[System, pd.DataFrame]]]]:
    """Each task with its collaborations, and the ``triples`` of each by the task's metric."""
    for task, metric in metrics.items():
        part = scores[scores["task"] == task]
        systems = collaborations(part)
        if systems:
            wide = wide_scores(part, metric)
            yield task, [(system, triples(wide, system)) for system in systems]


def kinds_and_runs(
    found: Iterable[tuple[System, object]], task: str = "", collapsed: Collection[tuple[str, str]] = ()
) -> tuple[list[str], list[frozenset[str]]]:
    """What ``mean_intervals`` needs to know of collaborations: the kind of each, and the systems whose runs it depends on."""
    systems = [system for system, _ in found]
    return kinds_of(systems, task, collapsed), [runs_of(system.key) for system in systems]


def judged(values: pd.DataFrame, right_from: float) -> pd.DataFrame:
    """``triples`` in which each score is replaced by whether the answer is right."""
    return values.assign(**{who: values[who] >= right_from for who in ("pair", "base", "assistant")})


def outcomes(scores: pd.DataFrame, right_from: dict[str, float] = RIGHT_FROM, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """How often both, only one or neither is right, of each CRS and LLM that collaborate, each working alone.

    Args:
        scores: what ``metrics.score`` returns; ``health``: what ``health.answer_health`` returns, to name who has collapsed.

    Returns:
        ``crs, llm, task, outcome, collapsed, share, low, high``; the four shares of a CRS, an LLM and a task add up to 1. ``collapsed`` names
        those of the two that have collapsed in the task, here and in all tables below.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, found in by_task(scores, JUDGED_BY):
        # A CRS and an LLM may collaborate both ways; each pair is counted once.
        pairs = {}
        for system, values in found:
            crs, llm = ("base", "assistant") if system.family == "crs" else ("assistant", "base")
            pairs.setdefault((getattr(system, crs), getattr(system, llm)), (judged(values, right_from[task]), crs, llm))
        for (crs_key, llm_key), (right, crs, llm) in pairs.items():
            rows.append(four_outcomes(right[crs], right[llm], right, crs=crs_key, llm=llm_key, task=task, fallen=fallen))
    return pd.concat(rows, ignore_index=True)


def outcomes_alone(
    scores: pd.DataFrame, pairs: list[tuple[str, str]], right_from: dict[str, float] = RIGHT_FROM, health: pd.DataFrame | None = None
) -> pd.DataFrame:
    """``outcomes`` of these pairs of a CRS and an LLM, whether they collaborate or not."""
    rows, fallen = [], collapsed_runs(health)
    for task, metric in JUDGED_BY.items():
        part = scores[scores["task"] == task]
        wide = wide_scores(part, metric)
        for crs, llm in pairs if len(part) else ():
            both = on_same_samples(wide, crs=crs, llm=llm)
            rows.append(four_outcomes(both["crs"] >= right_from[task], both["llm"] >= right_from[task], both, crs=crs, llm=llm, task=task, fallen=fallen))
    return pd.concat(rows, ignore_index=True)


def four_outcomes(
    one: pd.Series, other: pd.Series, about: pd.DataFrame, *, crs: str, llm: str, task: str, fallen: Collection[tuple[str, str]]
) -> pd.DataFrame:
    """The four rows of ``outcomes`` of one pair and task.

    Args:
        one, other: whether the CRS's and the LLM's answer is right.
        about: ``sid, seed`` of the same answers.
        fallen: what ``health.collapsed_runs`` returns.
    """
    table = np.stack([one & other, one & ~other, ~one & other, ~one & ~other], axis=1)
    share, low, high = mean_interval(table, about["sid"], about["seed"])
    named = {"crs": system_of(crs).name, "llm": system_of(llm).name, "task": task, "outcome": OUTCOMES, "collapsed": collapsed_among((crs, llm), task, fallen)}
    return pd.DataFrame(named | {"share": share, "low": low.clip(0, 1), "high": high.clip(0, 1)})


def over_others(scores: pd.DataFrame, system: str, others: dict[str, list[str]]) -> pd.DataFrame:
    """What a system has over others of the same seeds, and over floors.

    Args:
        others: task -> keys of the systems or floors to compare with.

    Returns:
        A row per task, other and metric (``HEADLINE``; for recommend also Acc): ``task, metric, other, ours, theirs, gain, low, high, p``;
        p is NaN for one seed.
    """
    rows, names = [], {key: name for key, _, name in rows_of(scores)}
    for task, keys in others.items():
        part = scores[(scores["task"] == task) & scores["system"].isin([system, *keys])]
        part = with_floors_in_every_run(part, part.loc[part["system"] == system, "seed"].unique())
        for metric in dict.fromkeys((JUDGED_BY[task], HEADLINE[task])):
            means = part.groupby("system")[metric].mean()
            for key, (gain, low, high, p) in zip(keys, paired_gains(part, [(system, key) for key in keys], metric), strict=True):
                row = {"task": task, "metric": metric, "other": names[key], "ours": means[system], "theirs": means[key]}
                rows.append(row | {"gain": gain, "low": low, "high": high, "p": p})
    return pd.DataFrame(rows)


def headroom(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """The gain of choosing the better of base and assistant for each sample, and how much of it a collaboration realises.

    Some of this headroom is chance: of two runs of the *same* system, too, each is sometimes the better one. The column ``luck``
    measures it: the headroom of a base whose assistant is another seed of the base itself.

    Returns:
        Per task and collaboration, by the task's ``HEADLINE`` metric: ``system, direction, task, metric, collapsed, base, assistant, oracle,
        headroom`` (oracle less base) ``, luck`` (NaN for one seed), ``gain, realised`` (gain as a share of the headroom) and its
        interval ``low, high`` (NaN where there is no headroom).
    """
    rows, fallen = [], collapsed_runs(health)
    for task, found in by_task(scores, HEADLINE):
        rooms = [np.maximum(values["base"], values["assistant"]) - values["base"] for _, values in found]
        gained = [values["pair"] - values["base"] for _, values in found]
        realised = [gain.mean() / room.mean() if room.any() else np.nan for gain, room in zip(gained, rooms)]
        # The share is a quotient. Its interval is that of the gain beyond the share, in units of the headroom (its linear form).
        beyond = [gain - np.nan_to_num(share) * room for gain, share, room in zip(gained, realised, rooms)]
        quantities = [(values, part["sid"], part["seed"]) for values, (_, part) in zip(beyond, found)]
        bounds = mean_intervals(quantities, *kinds_and_runs(found))
        for (system, values), room, gain, share, (_, low, high, _) in zip(found, rooms, gained, realised, bounds):
            row = {"system": system.name, "direction": system.group, "task": task, "metric": HEADLINE[task]}
            row |= {"collapsed": collapsed_behind(system, task, fallen)}
            row |= {"base": values["base"].mean(), "assistant": values["assistant"].mean()}
            row |= {"oracle": values["base"].mean() + room.mean(), "headroom": room.mean(), "luck": _chance_headroom(values)}
            row |= {"gain": gain.mean(), "realised": share}
            unit = room.mean() if room.any() else np.nan
            rows.append(row | {"low": share + low / unit, "high": share + high / unit})
    return pd.DataFrame(rows)


def over_the_better(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Is a collaboration better than the better of its two members, which one could use alone? A gain over a weaker base may be a mere copy.

    The better member is chosen on the same samples, so losses are a little overstated and gains a little understated.

    Args:
        scores: what ``metrics.score`` returns; ``health``: as for ``tables.gains``, and with the same effect.

    Returns:
        Per task and collaboration, by the task's ``HEADLINE`` metric: ``system, task, metric, better`` (who is, alone), ``collapsed``, ``gain, low,
        high, p, p (Holm)``.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        alone, systems = part.groupby("system")[metric].mean(), collaborations(part)
        better = [max((system.base, system.assistant), key=alone.get) for system in systems]
        pairs = [(system.key, key) for system, key in zip(systems, better)]
        found = paired_gains(part, pairs, metric, kinds_of(systems, task, fallen))
        for system, key, values in zip(systems, better, found):
            about = {"system": system.name, "task": task, "metric": metric, "better": system_of(key).name}
            about["collapsed"] = collapsed_behind(system, task, fallen)
            rows.append(about | dict(zip(("gain", "low", "high", "p"), values)))
    return pd.DataFrame(rows).assign(**{"p (Holm)": lambda table: holm_of_healthy(table["p"], table["collapsed"])})


def pull(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Does help move a system's score towards the score that its helper has alone?

    Args:
        scores: what ``metrics.score`` returns; ``health``: as for ``tables.gains``.

    Returns:
        The rows of ``tables.gains`` with the mean scores ``alone`` (the base), ``helper`` and ``helped``; ``clear``, whether the gain's 95%
        interval excludes zero and nobody has collapsed; and ``towards``, whether the gain has the sign of ``helper`` less ``alone``. Only of
        clear gains does ``towards`` mean anything: of three scores that differ by chance alone, two are on the same side of the third in
        two cases of three.
    """
    rows = []
    for task, found in by_task(scores, HEADLINE):
        for system, values in found:
            means = values[["base", "assistant", "pair"]].mean().set_axis(["alone", "helper", "helped"])
            rows.append({"system": system.name, "task": task} | means.to_dict())
    table = gains(scores, health).merge(pd.DataFrame(rows), on=["system", "task"])
    clear = (table["collapsed"] == "") & ((table["low"] > 0) | (table["high"] < 0))
    return table.assign(clear=clear, towards=table["gain"] * (table["helper"] - table["alone"]) > 0)


def confirmed(judge: Callable[[pd.DataFrame], pd.DataFrame], scores: pd.DataFrame, added: pd.Series | None = None) -> pd.DataFrame:
    """What ``judge`` finds on all dialogues and seeds, with p-values that count only if they also hold on what was added after a first look, alone.

    A p-value that is computed again on more data is too small. So the larger of two is given: that of all, and that of the added dialogues or seeds. What
    cannot be tested on the added ones is not tested.

    Args:
        judge: scores -> a table with a row per ``system`` and ``task``, with ``p``, ``p (Holm)`` and maybe ``holds``; for example ``pull``.
        added: which rows of ``scores`` are of dialogues or seeds that were added; ``None`` if none were.

    Raises:
        ValueError: if no row was added, or if all were.
    """
    table = judge(scores)
    if added is None:
        return table
    if not added.any() or added.all():
        raise ValueError(f"{added.sum()} of {len(added)} scores were added after a first look: name the dialogues or seeds that were added, and only these")
    rows = table[["system", "task"]]
    apart = rows.merge(judge(scores[added])[["system", "task", "p", "p (Holm)"]], how="left", on=["system", "task"]).set_index(table.index)
    table = table.assign(**{name: np.maximum(table[name], apart[name]) for name in ("p", "p (Holm)")})
    return table.assign(holds=table["p (Holm)"] < SIGNIFICANT) if "holds" in table else table


def _chance_headroom(values: pd.DataFrame) -> float:
    """Headroom of the base with another seed of itself, over all ordered pairs of seeds."""
    by_seed = values.pivot(index="sample_id", columns="seed", values="base")
    rooms = [(np.maximum(by_seed[one], by_seed[other]) - by_seed[one]).mean() for one, other in permutations(by_seed, 2)]
    return float(np.mean(rooms)) if rooms else float("nan")


def help_and_harm(scores: pd.DataFrame, right_from: dict[str, float] = RIGHT_FROM, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Which samples a collaboration wins and loses, and whether its assistant was right about them.

    Returns:
        Per task and collaboration, as shares of all samples: ``help`` (base wrong, pair right), of it ``help, assistant right``;
        ``harm`` (base right, pair wrong), of it ``harm, assistant wrong``; ``gain`` = help - harm, with its interval ``low, high``;
        and ``churn``: how often the base is right with one seed and wrong with another (NaN for one seed). That much changes by
        training again, without any help. Also ``collapsed``.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, found in by_task(scores, JUDGED_BY):
        right = [judged(values, right_from[task]) for _, values in found]
        gained = [(values["pair"].astype(float) - values["base"], values["sid"], values["seed"]) for values in right]
        for (system, _), values, (gain, low, high, _) in zip(found, right, mean_intervals(gained, *kinds_and_runs(found))):
            won, lost = ~values["base"] & values["pair"], values["base"] & ~values["pair"]
            by_seed = values.pivot(index="sample_id", columns="seed", values="base")
            turned = [(by_seed[one] & ~by_seed[other]).mean() for one, other in permutations(by_seed, 2)]
            row = {
                "system": system.name,
                "task": task,
                "collapsed": collapsed_behind(system, task, fallen),
                "help": won.mean(),
                "help, assistant right": (won & values["assistant"]).mean(),
            }
            row |= {"harm": lost.mean(), "harm, assistant wrong": (lost & ~values["assistant"]).mean()}
            rows.append(row | {"gain": gain, "low": low, "high": high, "churn": np.mean(turned) if turned else np.nan})
    return pd.DataFrame(rows)


def following(samples: pd.DataFrame, predictions: pd.DataFrame, language: str, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """How often a system agrees with its assistant, before and after it reads the assistant's answers.

    Agreement is the task's ``JUDGED_BY`` metric of one system's answers, with the other's answers as labels.

    Args:
        samples: the test samples; ``predictions``: of base, assistant and collaboration, with the same seeds.

    Returns:
        Per task and collaboration: ``system, task, collapsed, before`` (base and assistant), ``after`` (collaboration and assistant), ``moved``
        (after less before) with its interval ``low, high``, and ``kept`` (collaboration and base).
    """
    answers = dict(list(predictions[predictions["split"] == "test"].groupby("system")))
    compared = {}
    for system in collaborations(predictions):
        pair, base, assistant = (answers[key] for key in (system.key, system.base, system.assistant))
        two = {"before": (base, assistant), "after": (pair, assistant), "kept": (pair, base)}
        parts = [agreement(samples, *both, language).assign(system=name) for name, both in two.items()]
        compared[system] = pd.concat(parts)
    rows, fallen = [], collapsed_runs(health)
    for task, metric in JUDGED_BY.items():
        found = {system: table[table["task"] == task] for system, table in compared.items() if task in set(table["task"])}
        pairs = [paired(table, "after", "before", metric) for table in found.values()]
        quantities = [(pair["ours"] - pair["theirs"], pair["sid"], pair["seed"]) for pair in pairs]
        moved = mean_intervals(quantities, *kinds_and_runs(found.items()))
        for system, (change, low, high, _) in zip(found, moved):
            means = found[system].groupby("system")[metric].mean()
            row = {"system": system.name, "task": task, "collapsed": collapsed_behind(system, task, fallen), "before": means["before"], "after": means["after"]}
            rows.append(row | {"moved": change, "low": low, "high": high, "kept": means["kept"]})
    return pd.DataFrame(rows)


def agreement(samples: pd.DataFrame, ours: pd.DataFrame, other: pd.DataFrame, language: str) -> pd.DataFrame:
    """Scores of one system's answers with another's of the same seed as labels; an unusable answer agrees with nothing."""
    labels = other[["seed", "sample_id", "text"]].assign(label=usable_text(other))
    rows = ours.drop(columns="split").merge(labels.drop(columns="text"), on=["seed", "sample_id"])
    return score_rows(rows.merge(samples[["sample_id", "task", "sid", "domain"]], on="sample_id"), language)
