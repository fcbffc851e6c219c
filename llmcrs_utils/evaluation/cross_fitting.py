"""An assistant's help on the dialogues that it was trained on, against its help on dialogues that are new to it."""

from collections.abc import Collection

import pandas as pd

from llmcrs_utils.evaluation.complementarity import JUDGED_BY, following
from llmcrs_utils.evaluation.health import collapsed_behind, holm_of_healthy, kinds_of
from llmcrs_utils.evaluation.metrics import HEADLINE, score, score_rows
from llmcrs_utils.evaluation.statistics import PAIRED_BY, holm, mean_interval, mean_intervals, paired, paired_gains
from llmcrs_utils.evaluation.tables import GROUPS, collaborations
from llmcrs_utils.systems.registry import system_of

HELP_KINDS = ("in-sample", "cross-fitted")
CROSS_FITTED_SUFFIX = " (cross-fitted)"  # follows the key of a collaboration, to distinguish its two runs


def both_gains(
    in_sample: pd.DataFrame, cross_fitted: pd.DataFrame, collapsed: Collection[tuple[str, str]] = ()
) -> pd.DataFrame:
    """Gain of each collaboration over its base, trained with in-sample and with cross-fitted help, by the ``HEADLINE`` metric.

    Args:
        in_sample: scores of bases and collaborations; ``cross_fitted``: of collaborations. Seeds that both have are compared.
        collapsed: what ``health.collapsed_runs`` returns for the answers of either kind; their gains are not tested.

    Returns:
        Per collaboration and task: ``system, direction, over, task, metric, collapsed``; for each kind of help ``gain, low, high, p (Holm)``, prefixed with its
        name; ``change`` (cross-fitted less in-sample) with ``change low, change high, change p (Holm)``; ``seeds``.
    """
    seeds = set(in_sample["seed"]) & set(cross_fitted["seed"])
    systems = collaborations(cross_fitted)
    renamed = cross_fitted.assign(system=cross_fitted["system"] + CROSS_FITTED_SUFFIX)
    every = pd.concat([in_sample, renamed])
    rows = []
    for task, metric in HEADLINE.items():
        part = every.loc[every["seed"].isin(seeds) & (every["task"] == task), [*PAIRED_BY, metric]]
        chosen = [system for system in systems if system.key + CROSS_FITTED_SUFFIX in set(part["system"])]
        compared = {
            "in-sample": [(system.key, system.base) for system in chosen],
            "cross-fitted": [(system.key + CROSS_FITTED_SUFFIX, system.base) for system in chosen],
            "change": [(system.key + CROSS_FITTED_SUFFIX, system.key) for system in chosen],
        }
        kinds = kinds_of(chosen, task, collapsed)
        found = {name: paired_gains(part, pairs, metric, kinds) for name, pairs in compared.items()}
        for place, system in enumerate(chosen):
            row = {"system": system.name, "direction": system.group, "over": system_of(system.base).name, "task": task}
            row |= {"metric": metric, "collapsed": collapsed_behind(system, task, collapsed), "seeds": len(seeds)}
            for name, values in found.items():
                value = "change" if name == "change" else f"{name} gain"
                row |= dict(zip((value, f"{name} low", f"{name} high", f"{name} p"), values[place]))
            rows.append(row)
    table = pd.DataFrame(rows)
    for name in (*HELP_KINDS, "change"):
        table[f"{name} p (Holm)"] = holm_of_healthy(table[f"{name} p"], table["collapsed"])
    return table


def by_direction(
    in_sample: pd.DataFrame, cross_fitted: pd.DataFrame, collapsed: Collection[tuple[str, str]] = ()
) -> pd.DataFrame:
    """What cross-fitting changes for the collaborations of a direction together, without those of which somebody has ``collapsed``.

    Choosing the collaborations that lose in-sample would bias the result: some of them would lose less in a second run whatever was
    changed. So none is left out.

    Args: as for ``both_gains``.

    Returns:
        Per direction and task: number of ``pairs``, mean gain ``in-sample, cross-fitted`` of the collaborations, ``change`` with its interval over dialogues
        and seeds ``low, high`` and ``p, p (Holm)``, and ``removed``: the change as a share of the loss, NaN unless the mean gain
        in-sample is below zero with its whole interval.
    """
    seeds = set(in_sample["seed"]) & set(cross_fitted["seed"])
    rows = []
    for task, metric in HEADLINE.items():
        means = []
        for system in collaborations(cross_fitted[cross_fitted["task"] == task]):
            if collapsed_behind(system, task, collapsed):
                continue
            of_task = [part[part["seed"].isin(seeds) & (part["task"] == task)] for part in (in_sample, cross_fitted)]
            first = paired(of_task[0], system.key, system.base, metric).rename(columns={"ours": "in_sample"})
            second = of_task[1].loc[of_task[1]["system"] == system.key, ["seed", "sample_id", metric]]
            both = first.merge(second.rename(columns={metric: "cross_fitted"}), on=["seed", "sample_id"], validate="one_to_one")
            means.append(both.assign(direction=system.group))
        if not means:
            continue
        pairs = pd.Series([part["direction"].iloc[0] for part in means]).value_counts()
        every = pd.concat(means).groupby(["direction", "seed", "sid", "sample_id"], sort=False, as_index=False).mean()
        for direction, part in every.groupby("direction", sort=False):
            loss, change = part["in_sample"] - part["theirs"], part["cross_fitted"] - part["in_sample"]
            (lost, _, most, _), (changed, low, high, p) = (
                mean_intervals([(values, part["sid"], part["seed"])])[0] for values in (loss, change)
            )
            row = {"direction": direction, "task": task, "pairs": pairs[direction], "in-sample": lost, "cross-fitted": lost + changed, "change": changed}
            rows.append(row | {"low": low, "high": high, "p": p, "removed": changed / -lost if most < 0 else float("nan")})
    rows.sort(key=lambda row: GROUPS.index(row["direction"]))
    return pd.DataFrame(rows).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def trust(
    samples: pd.DataFrame, in_sample: pd.DataFrame, cross_fitted: pd.DataFrame, language: str, collapsed: Collection[tuple[str, str]]
) -> pd.DataFrame:
    """How much pairs agree with their assistants (``after`` of ``following``), by kind of help: a row per direction and task.

    Args:
        in_sample: predictions of bases, assistants and collaborations; ``cross_fitted``: of collaborations.
        collapsed: as for ``both_gains``; pairs in which somebody has collapsed are left out.
    """
    same_seeds = in_sample[in_sample["seed"].isin(cross_fitted["seed"].unique())]
    alone = same_seeds[~same_seeds["system"].isin(cross_fitted["system"].unique())]
    kinds = dict(zip(HELP_KINDS, (same_seeds, pd.concat([alone, cross_fitted]))))
    found = {kind: following(samples, part, language).set_index(["task", "system"])["after"] for kind, part in kinds.items()}
    table = pd.DataFrame(found).dropna().reset_index()
    table = table[[not collapsed_behind(system_of(name.lower()), task, collapsed) for name, task in zip(table["system"], table["task"])]]
    direction = table["system"].map(lambda name: system_of(name.lower()).group)
    return table.groupby([direction.rename("direction"), "task"], sort=False)[list(HELP_KINDS)].mean()


def reliance(
    samples: pd.DataFrame, predictions: pd.DataFrame, training: pd.DataFrame, language: str, health: pd.DataFrame, held_out: pd.DataFrame | None = None
) -> pd.DataFrame:
    """How far collaborations follow their assistants, beside how good the help was while they were trained.

    Args:
        samples: with training and test samples; ``predictions``: test answers of bases, assistants and collaborations, of the same seeds.
        training: the assistants' answers to their own training dialogues; ``held_out``: those of their folds, for cross-fitted help.
        health: what ``health.answer_health`` returns for ``predictions``; cases in which somebody has collapsed are left out.

    Returns:
        Per collaboration and task, by ``JUDGED_BY``'s metric: ``system, task, metric, help in training, help in test, own`` (the base alone, in the
        test) ``, lead`` (of the help in training over ``own``), and ``before, after, moved`` of ``complementarity.following``.
    """
    follows = following(samples, predictions, language, health)
    systems = [system_of(name.lower()) for name in follows["system"]]
    assistants = {system.assistant for system in systems}
    answers = pd.concat([predictions[predictions["system"].isin(assistants)], training[training["system"].isin(assistants)]])
    quality = help_quality(samples, answers, language, held_out).set_index(["system", "task"])
    given = quality.loc[[(system_of(system.assistant).name, task) for system, task in zip(systems, follows["task"])]].reset_index(drop=True)
    scores = score(samples, predictions[predictions["system"].isin({system.base for system in systems})], language)
    alone = {task: scores[scores["task"] == task].groupby("system")[metric].mean() for task, metric in JUDGED_BY.items()}
    own = pd.Series([alone[task][system.base] for system, task in zip(systems, follows["task"])], dtype=float)
    in_training = given["trained on" if held_out is None else "held out"]
    about = {"metric": follows["task"].map(JUDGED_BY), "help in training": in_training, "help in test": given["test"], "own": own, "lead": in_training - own}
    table = follows[["system", "task"]].assign(**about).join(follows[["before", "after", "moved"]])
    return table[follows["collapsed"] == ""].reset_index(drop=True)


def help_quality(samples: pd.DataFrame, in_sample: pd.DataFrame, language: str, held_out: pd.DataFrame | None = None) -> pd.DataFrame:
    """How good an assistant's answers are on its own training dialogues, on new ones and, where folds left dialogues out, on those.

    Args:
        samples: with training and test samples; ``in_sample``: the assistants' answers to both; ``held_out``: those of their folds. Only assistants
            and seeds that have folds are then compared.

    Returns:
        Per assistant and task, by ``JUDGED_BY``'s metric: ``system, task, metric, trained on, held out, test``; without folds no ``held out``.
    """
    columns = samples[["sample_id", "split", "task", "sid", "domain", "label"]]
    if held_out is not None:
        in_sample = in_sample[in_sample["system"].isin(held_out["system"]) & in_sample["seed"].isin(held_out["seed"])]
    parts = {"trained on": in_sample[in_sample["split"] == "train"], "held out": held_out, "test": in_sample[in_sample["split"] == "test"]}
    parts = {name: part for name, part in parts.items() if part is not None}
    found = []
    for name, part in parts.items():
        double = part[part.duplicated(["system", "seed", "sample_id"])]
        if len(double):
            first = double.iloc[0]
            raise ValueError(
                f"{first['sample_id']}: {first['system']} (seed {first['seed']}) answered twice; remove files of earlier runs"
            )
        scores = score_rows(part.drop(columns="split").merge(columns, on="sample_id"), language)
        for task, metric in JUDGED_BY.items():
            means = scores[scores["task"] == task].groupby("system")[metric].mean()
            found += [(system_of(key).name, task, metric, name, value) for key, value in means.items()]
    table = pd.DataFrame(found, columns=["system", "task", "metric", "answers", "value"])
    wide = table.pivot(index=["system", "task", "metric"], columns="answers", values="value")
    return wide[list(parts)].reset_index().rename_axis(columns=None)


def fallback_effect(without: pd.DataFrame, published: pd.DataFrame, replaced: set[str], system: str) -> pd.DataFrame:
    """How well a collaboration recommends where the gold item replaces a missing answer, and where it does not.

    Args:
        without: recommend scores of the run in which nothing replaced missing answers; ``published``: with the fallback, same seed.
        replaced: ids of the test samples whose answer was missing, and replaced by the gold item in ``published``.

    Returns:
        One row for the replaced samples, one for the others and one for all: ``samples, n, nothing, published`` (Acc), their
        ``difference`` and its interval over dialogues ``low, high``.
    """
    ours = published[published["system"] == system].assign(system="published")
    pairs = paired(pd.concat([ours, without[without["seed"].isin(ours["seed"])]]), "published", system, "Acc")
    gold = pairs["sample_id"].isin(replaced)
    rows = []
    for name, part in (
        ("gold item in place of a missing answer", pairs[gold]),
        ("the LLM's own answer", pairs[~gold]),
        ("all", pairs),
    ):
        if part.empty:
            continue
        mean, low, high = mean_interval(part["ours"] - part["theirs"], part["sid"])
        about = {"samples": name, "n": len(part), "nothing": part["theirs"].mean(), "published": part["ours"].mean()}
        rows.append(about | {"difference": mean, "low": low, "high": high})
    return pd.DataFrame(rows)
