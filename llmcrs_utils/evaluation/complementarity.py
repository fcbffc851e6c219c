"""Are a CRS and an LLM right about different things, and does a collaboration make use of it? (the paper's RQ1, section 5.1)"""

from itertools import permutations

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.metrics import HEADLINE, score_rows
from llmcrs_utils.evaluation.statistics import DRAWS, bootstrap, interval, paired
from llmcrs_utils.evaluation.tables import collaborations
from llmcrs_utils.systems import System, system_of

# An answer is right from this value of the metric on: sets by half of their F1, items by being the one, replies by a BLEU-2 that takes
# more than the usual greeting.
RIGHT_FROM = {"understand": 0.5, "elicit": 0.5, "recommend": 1.0, "respond": 0.25}
JUDGED_BY = HEADLINE | {"recommend": "Acc"}
OUTCOMES = ("both", "only CRS", "only LLM", "neither")


def triples(scores: pd.DataFrame, system: System, task: str, metric: str) -> pd.DataFrame:
    """What a collaboration, its base and its assistant scored on the same samples: ``seed, sample_id, sid, pair, base, assistant``.

    Raises:
        ValueError: as ``statistics.paired``.
    """
    part = scores[scores["task"] == task]
    own = paired(part, system.key, system.base, metric).rename(columns={"ours": "pair", "theirs": "base"})
    other = paired(part, system.assistant, system.base, metric).rename(columns={"ours": "assistant"})
    return own.merge(other[["seed", "sample_id", "assistant"]], on=["seed", "sample_id"], validate="one_to_one")


def judged(scores: pd.DataFrame, system: System, task: str, right_from: dict[str, float]) -> pd.DataFrame:
    """As ``triples``, with whether each of the three is right."""
    values = triples(scores, system, task, JUDGED_BY[task])
    return values.assign(**{who: values[who] >= right_from[task] for who in ("pair", "base", "assistant")})


def tasks_of(scores: pd.DataFrame, system: System) -> list[str]:
    """The tasks on which a collaboration was scored."""
    scored = set(scores.loc[scores["system"] == system.key, "task"])
    return [task for task in HEADLINE if task in scored]


def outcomes(scores: pd.DataFrame, right_from: dict[str, float] = RIGHT_FROM) -> pd.DataFrame:
    """Of each CRS and LLM that collaborate, alone: how often both, only one or neither is right.

    Returns:
        ``crs, llm, task, outcome, share, low, high``; the four shares of a CRS, an LLM and a task add up to 1.
    """
    rows = []
    for system in collaborations(scores):
        if system.family != "crs":
            continue
        for task in tasks_of(scores, system):
            values = judged(scores, system, task, right_from)
            crs, llm = values["base"], values["assistant"]
            table = np.stack([crs & llm, crs & ~llm, ~crs & llm, ~crs & ~llm], axis=1)
            mean, draws = bootstrap(table, values["sid"], values["seed"])
            bounds = interval(draws).clip(0, 1)
            about = {
                "crs": system_of(system.base).name,
                "llm": system_of(system.assistant).name,
                "task": task,
                "outcome": OUTCOMES,
            }
            rows.append(pd.DataFrame(about | {"share": mean, "low": bounds[0], "high": bounds[1]}))
    return pd.concat(rows, ignore_index=True)


def headroom(scores: pd.DataFrame) -> pd.DataFrame:
    """What choosing the better of base and assistant for each sample would gain, and how much of it a collaboration does.

    Some of it is luck: of two runs of the *same* system, too, each is now and then the better one. ``luck`` is the headroom
    of a base with another seed of itself as its assistant; what is above it, the other kind of model has and the base lacks.

    Returns:
        Per collaboration and task, by the task's ``HEADLINE`` metric: ``system, task, metric, base, assistant, oracle, headroom``
        (oracle less base) ``, luck`` (NaN for one seed), ``gain, realised`` (gain as a share of the headroom) and its interval
        ``low, high`` (NaN where there is no headroom).
    """
    rows = []
    for system in collaborations(scores):
        for task in tasks_of(scores, system):
            values = triples(scores, system, task, HEADLINE[task])
            room = np.maximum(values["base"], values["assistant"]) - values["base"]
            mean, draws = bootstrap(np.stack([values["pair"] - values["base"], room], axis=1), values["sid"], values["seed"])
            possible = mean[1] > 0 and (draws[:, 1] > 0).all()
            low, high = interval(draws[:, 0] / draws[:, 1]) if possible else (np.nan, np.nan)
            rows.append(
                {"system": system.name, "task": task, "metric": HEADLINE[task], "base": values["base"].mean()}
                | {"assistant": values["assistant"].mean(), "oracle": values["base"].mean() + mean[1], "headroom": mean[1]}
                | {
                    "luck": _luck(values),
                    "gain": mean[0],
                    "realised": mean[0] / mean[1] if mean[1] else np.nan,
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def _luck(values: pd.DataFrame) -> float:
    """Headroom of the base with another seed of itself, over all ordered pairs of seeds."""
    by_seed = values.pivot(index="sample_id", columns="seed", values="base")
    rooms = [(np.maximum(by_seed[one], by_seed[other]) - by_seed[one]).mean() for one, other in permutations(by_seed, 2)]
    return float(np.mean(rooms)) if rooms else float("nan")


def help_and_harm(scores: pd.DataFrame, right_from: dict[str, float] = RIGHT_FROM) -> pd.DataFrame:
    """Which samples a collaboration wins and loses, and whether its assistant was right about them.

    Returns:
        Per collaboration and task, as shares of all samples: ``help`` (base wrong, pair right), of it ``help, assistant right``;
        ``harm`` (base right, pair wrong), of it ``harm, assistant wrong``; ``gain`` = help - harm, with its interval ``low, high``;
        and ``churn``: how often the base is right with one seed and wrong with another (NaN for one seed), which is what training
        anew does without any help.
    """
    rows = []
    for system in collaborations(scores):
        for task in tasks_of(scores, system):
            values = judged(scores, system, task, right_from)
            won, lost = ~values["base"] & values["pair"], values["base"] & ~values["pair"]
            mean, draws = bootstrap(won.astype(float) - lost, values["sid"], values["seed"])
            low, high = interval(draws[:, 0])
            by_seed = values.pivot(index="sample_id", columns="seed", values="base")
            turned = [(by_seed[one] & ~by_seed[other]).mean() for one, other in permutations(by_seed, 2)]
            rows.append(
                {
                    "system": system.name,
                    "task": task,
                    "help": won.mean(),
                    "help, assistant right": (won & values["assistant"]).mean(),
                }
                | {"harm": lost.mean(), "harm, assistant wrong": (lost & ~values["assistant"]).mean()}
                | {"gain": mean[0], "low": low, "high": high, "churn": np.mean(turned) if turned else np.nan}
            )
    return pd.DataFrame(rows)


def following(samples: pd.DataFrame, predictions: pd.DataFrame, language: str, draws: int = DRAWS) -> pd.DataFrame:
    """How much a system says what its assistant says, before it hears it and after.

    Agreement is the task's ``JUDGED_BY`` metric of one's answers with the other's in the place of the truth.

    Args:
        samples: the test samples; ``predictions``: of base, assistant and collaboration, with the same seeds.

    Returns:
        Per collaboration and task: ``system, task, before`` (base and assistant), ``after`` (collaboration and assistant), ``moved``
        (after less before) with its interval ``low, high``, and ``kept`` (collaboration and base).
    """
    texts = {key: part for key, part in predictions[predictions["split"] == "test"].groupby("system")}
    rows = []
    for system in collaborations(predictions):
        pair, base, assistant = (texts[key] for key in (system.key, system.base, system.assistant))
        compared = [
            agreement(samples, ours, other, language) for ours, other in ((base, assistant), (pair, assistant), (pair, base))
        ]
        for task, metric in JUDGED_BY.items():
            before, after, kept = (part[part["task"] == task] for part in compared)
            if after.empty:
                continue
            pairs = after[["seed", "sample_id", "sid", metric]].merge(
                before[["seed", "sample_id", metric]], on=["seed", "sample_id"]
            )
            mean, drawn = bootstrap(pairs[f"{metric}_x"] - pairs[f"{metric}_y"], pairs["sid"], pairs["seed"], draws)
            low, high = interval(drawn[:, 0])
            about = {"system": system.name, "task": task, "before": before[metric].mean(), "after": after[metric].mean()}
            rows.append(about | {"moved": mean[0], "low": low, "high": high, "kept": kept[metric].mean()})
    return pd.DataFrame(rows)


def agreement(samples: pd.DataFrame, ours: pd.DataFrame, other: pd.DataFrame, language: str) -> pd.DataFrame:
    """Scores of one system's answers with another's of the same seed as labels; an unusable answer agrees with nothing."""
    labels = other[["seed", "sample_id", "text"]].assign(label=other["text"].where(other["valid"].astype(bool), "").fillna(""))
    rows = ours.drop(columns="split").merge(labels.drop(columns="text"), on=["seed", "sample_id"])
    rows = rows.merge(samples[["sample_id", "task", "sid", "domain"]], on="sample_id")
    rows["text"] = rows["text"].where(rows["valid"].astype(bool), "").fillna("")
    return score_rows(rows, language)
