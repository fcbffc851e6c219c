"""Is the gain real? Help that an assistant gives on dialogues it was trained on, against help it would give on new ones."""

import pandas as pd

from llmcrs_utils.evaluation.complementarity import JUDGED_BY, tasks_of
from llmcrs_utils.evaluation.metrics import HEADLINE, score_rows
from llmcrs_utils.evaluation.statistics import bootstrap, holm, interval, p_value, paired, paired_gain
from llmcrs_utils.evaluation.tables import GAIN_DRAWS, collaborations
from llmcrs_utils.systems import system_of

KINDS = ("in-sample", "cross-fitted")


def both_gains(in_sample: pd.DataFrame, cross_fitted: pd.DataFrame) -> pd.DataFrame:
    """Gain of each collaboration over its base, trained with in-sample and with cross-fitted help, by the ``HEADLINE`` metric.

    Args:
        in_sample: scores of bases and collaborations; ``cross_fitted``: of collaborations. Seeds that both have are compared.

    Returns:
        Per collaboration and task: ``system, direction, over, task, metric``; for each kind of help ``gain, low, high, p (Holm)``, prefixed with its
        name; ``change`` (cross-fitted less in-sample) with ``change low, change high, change p (Holm)``; ``seeds``.
    """
    seeds = set(in_sample["seed"]) & set(cross_fitted["seed"])
    rows = []
    for system in collaborations(cross_fitted):
        for task in tasks_of(cross_fitted, system):
            metric = HEADLINE[task]
            first, second = (part[part["seed"].isin(seeds) & (part["task"] == task)] for part in (in_sample, cross_fitted))
            base = first[first["system"] == system.base]
            row = {
                "system": system.name,
                "direction": system.group,
                "over": system_of(system.base).name,
                "task": task,
                "metric": metric,
                "seeds": len(seeds),
            }
            trained = {}
            for kind, part in zip(KINDS, (first, second)):
                trained[kind] = part[part["system"] == system.key]
                found = paired_gain(pd.concat([base, trained[kind]]), system.key, system.base, metric, draws=GAIN_DRAWS)
                row |= {f"{kind} {name}": value for name, value in zip(("gain", "low", "high", "p"), found)}
            renamed = trained["in-sample"].assign(system="in-sample")
            pairs = paired(pd.concat([trained["cross-fitted"], renamed]), system.key, "in-sample", metric)
            mean, draws = bootstrap(pairs["ours"] - pairs["theirs"], pairs["sid"], pairs["seed"], draws=GAIN_DRAWS)
            low, high = interval(draws[:, 0])
            rows.append(row | {"change": mean[0], "change low": low, "change high": high, "change p": p_value(draws[:, 0])})
    table = pd.DataFrame(rows)
    for kind in (*KINDS, "change"):
        table[f"{kind} p (Holm)"] = holm(table[f"{kind} p"])
    return table


def disruption_removed(table: pd.DataFrame) -> pd.DataFrame:
    """How much of the loss with in-sample help is gone with cross-fitted help, over the collaborations that lose.

    Returns:
        Per direction of help and task: how many collaborations ``lose`` in-sample, their mean loss ``in-sample`` and ``cross-fitted``,
        and the share ``removed`` (above 1 where a loss becomes a gain).
    """
    losing = table[table["in-sample gain"] < 0]
    grouped = losing.groupby(["direction", "task"], sort=False)
    found = grouped.agg(lose=("system", "size"), **{kind: (f"{kind} gain", "mean") for kind in KINDS}).reset_index()
    return found.assign(removed=(found["cross-fitted"] - found["in-sample"]) / -found["in-sample"])


def help_quality(samples: pd.DataFrame, in_sample: pd.DataFrame, held_out: pd.DataFrame, language: str) -> pd.DataFrame:
    """How good an assistant's answers are on its own training dialogues, on those its folds left out, and on new ones.

    Args:
        samples: with training and test samples; ``in_sample``: the assistants' answers to both; ``held_out``: of their folds.

    Returns:
        Per assistant and task, by ``JUDGED_BY``'s metric: ``system, task, metric, trained on, held out, test``.
    """
    columns = samples[["sample_id", "split", "task", "sid", "domain", "label"]]
    parts = {
        "trained on": in_sample[in_sample["split"] == "train"],
        "held out": held_out,
        "test": in_sample[in_sample["split"] == "test"],
    }
    found = []
    for name, part in parts.items():
        part = part[part["system"].isin(held_out["system"].unique())]
        rows = part.drop(columns="split").merge(columns, on="sample_id")
        rows["text"] = rows["text"].where(rows["valid"].astype(bool), "").fillna("")
        scores = score_rows(rows, language)
        for task, metric in JUDGED_BY.items():
            means = scores[scores["task"] == task].groupby("system")[metric].mean()
            found += [(system_of(key).name, task, metric, name, value) for key, value in means.items()]
    table = pd.DataFrame(found, columns=["system", "task", "metric", "answers", "value"])
    return table.pivot(index=["system", "task", "metric"], columns="answers", values="value")[list(parts)].reset_index()


def fallback_effect(usual: pd.DataFrame, published: pd.DataFrame, replaced: set[str], system: str) -> pd.DataFrame:
    """What a collaboration recommends where the gold item stands in for a missing answer, and where not.

    Args:
        usual: recommend scores without the fallback; ``published``: with it, of the same seed.
        replaced: ids of the test samples whose answer was missing, and replaced by the gold item in ``published``.

    Returns:
        One row for the replaced samples, one for the others and one for all: ``samples, n, usual, published``, the ``difference``
        in Acc and its interval over dialogues ``low, high``.
    """
    ours = published[published["system"] == system].assign(system="published")
    pairs = paired(pd.concat([ours, usual[usual["seed"].isin(ours["seed"])]]), "published", system, "Acc")
    gold = pairs["sample_id"].isin(replaced)
    rows = []
    for name, part in (
        ("gold item in place of a missing answer", pairs[gold]),
        ("the LLM's own answer", pairs[~gold]),
        ("all", pairs),
    ):
        mean, draws = bootstrap(part["ours"] - part["theirs"], part["sid"])
        low, high = interval(draws[:, 0])
        about = {"samples": name, "n": len(part), "usual": part["theirs"].mean(), "published": part["ours"].mean()}
        rows.append(about | {"difference": mean[0], "low": low, "high": high})
    return pd.DataFrame(rows)
