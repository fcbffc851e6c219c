"""Where does collaboration help, and what goes with it? (the paper's RQ2, sections 5.2 and 5.3)"""

from itertools import combinations

import pandas as pd

from llmcrs_utils.evaluation.complementarity import by_task, kinds_and_runs
from llmcrs_utils.evaluation.health import collapsed_among, collapsed_behind, collapsed_runs, holm_of_healthy, kind_of, kinds_of
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.statistics import (
    FEW_DIALOGUES,
    PAIRED_BY,
    SIGNIFICANT,
    holm,
    influence,
    mean_intervals,
    paired_gains,
    runs_of,
)
from llmcrs_utils.evaluation.tables import GROUPS, category_name, category_names, collaborations, total_name
from llmcrs_utils.evaluation.traits import OF_CATEGORIES, TRAITS
from llmcrs_utils.systems.registry import system_of, working_alone


def category_gains(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Gain of each collaboration over its base in each category and in all together, by the task's ``HEADLINE`` metric.

    Args:
        scores: what ``metrics.score`` returns; ``health``: as for ``tables.gains``, and with the same effect.

    Returns:
        ``system, group, task, category, n, collapsed, gain, low, high, p, p (Holm)``; the correction is for all single categories together.
    """
    fallen = collapsed_runs(health)
    categories = category_names(scores)
    total = total_name(categories)
    parts = {(task, total): part for task, part in scores.groupby("task")}
    parts |= dict(list(scores.groupby(["task", scores["domain"].map(category_name)])))
    rows = []
    for task, metric in HEADLINE.items():
        for category in [*categories, total]:
            if (task, category) not in parts:
                continue
            part = parts[task, category][[*PAIRED_BY, metric]]
            systems = collaborations(part)
            pairs = [(system.key, system.base) for system in systems]
            found = paired_gains(part, pairs, metric, kinds_of(systems, task, fallen))
            for system, values in zip(systems, found):
                about = {"system": system.name, "group": system.group, "task": task, "category": category, "n": part["sample_id"].nunique()}
                about["collapsed"] = collapsed_behind(system, task, fallen)
                rows.append(about | dict(zip(("gain", "low", "high", "p"), values)))
    table = pd.DataFrame(rows)
    single = table["p"].where(table["category"] != total)
    return table.assign(**{"p (Holm)": holm_of_healthy(single, table["collapsed"])})


def varies(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Does a gain differ between categories by more than other dialogues and other runs would explain?

    Each category is tested against all others together, and the smallest p-value is multiplied by the number of categories (Bonferroni).
    Categories with fewer than ``FEW_DIALOGUES`` dialogues are only counted among the others.

    Returns:
        Per collaboration and task: ``system, task, collapsed, lowest, highest`` (category and gain), ``p, p (Holm)``; p is NaN for one seed
        and where there are no two categories to compare. ``health``: as for ``tables.gains``, and with the same effect.
    """
    rows, fallen = [], collapsed_runs(health)
    domain = scores.drop_duplicates("sid").set_index("sid")["domain"].map(category_name)
    for task, found in by_task(scores, HEADLINE):
        lowest = {}
        for category in category_names(scores[scores["task"] == task]):
            compared = []
            for system, values in found:
                gain, inside = values["pair"] - values["base"], values["sid"].map(domain) == category
                fewer = min(values.loc[side, "sid"].nunique() for side in (inside, ~inside))
                if fewer >= FEW_DIALOGUES:
                    change = influence(gain, inside) - influence(gain, ~inside)
                    compared.append((system, (change, values["sid"], values["seed"]), fewer))
            kinds, runs = kinds_and_runs([(system, None) for system, *_ in compared], task, fallen)
            quantities, carried_by = [quantity for _, quantity, _ in compared], [fewer for *_, fewer in compared]
            for (system, *_), (*_, p) in zip(compared, mean_intervals(quantities, kinds, runs, carried_by=carried_by)):
                lowest.setdefault(system, []).append(p)
        for system, values in found:
            gains = (values["pair"] - values["base"]).groupby(values["sid"].map(domain)).mean()
            found_p = pd.Series(lowest.get(system, []), dtype=float)
            row = {"system": system.name, "task": task, "collapsed": collapsed_behind(system, task, fallen)}
            row |= {"lowest": _named(gains, gains.idxmin()), "highest": _named(gains, gains.idxmax())}
            rows.append(row | {"p": min(1.0, found_p.min() * found_p.count()) if found_p.count() > 1 else float("nan")})
    return pd.DataFrame(rows).assign(**{"p (Holm)": lambda table: holm_of_healthy(table["p"], table["collapsed"])})


def _named(gains: pd.Series, category: str) -> str:
    return f"{category} {gains[category]:+.3f}"


def better_assistant(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """The paper's claim that a better assistant helps more: of two assistants of one base, does the better one also give the better pair?

    Args:
        scores: what ``metrics.score`` returns; ``health``: as for ``tables.gains``, and with the same effect.

    Returns:
        Per task, base and pair of assistants: ``base, task, better, worse`` (assistants), ``collapsed``, ``lead`` (of the better assistant alone),
        ``sure`` (whether that lead is significant after Holm's correction; if not, their order is unknown), ``lead of its pair`` with its interval
        ``low, high`` and ``p, p (Holm)``, corrected for the pairs whose assistants' order is sure. The lead of two assistants who help
        several bases is one comparison.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        alone = part.groupby("system")[metric].mean()
        rivals = [two for two in combinations(collaborations(part), 2) if two[0].base == two[1].base]
        rivals = [sorted(two, key=lambda system: -alone[system.assistant]) for two in rivals]
        assistants = list(dict.fromkeys((better.assistant, worse.assistant) for better, worse in rivals))
        leads = paired_gains(part, assistants, metric, kinds_of([system_of(better) for better, _ in assistants], task, fallen))
        leads = dict(zip(assistants, leads))
        found = paired_gains(part, [(better.key, worse.key) for better, worse in rivals], metric, kinds_of([better for better, _ in rivals], task, fallen))
        for (better, worse), values in zip(rivals, found):
            lead, *_, p = leads[better.assistant, worse.assistant]
            about = {"base": system_of(better.base).name, "task": task, "better": system_of(better.assistant).name}
            about |= {"worse": system_of(worse.assistant).name, "lead": lead, "lead p": p}
            about["fallen"] = bool(collapsed_among((better.assistant, worse.assistant), task, fallen))
            about["collapsed"] = collapsed_among((better.base, better.assistant, worse.assistant, better.key, worse.key), task, fallen)
            rows.append(about | dict(zip(("lead of its pair", "low", "high", "p"), values)))
    columns = ["base", "task", "better", "worse", "collapsed", "lead", "lead p", "fallen", "lead of its pair", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    order = table.drop_duplicates(["task", "better", "worse"])
    order = order.assign(sure=holm(order["lead p"].where(~order["fallen"])) < SIGNIFICANT)
    table = table.merge(order[["task", "better", "worse", "sure"]], on=["task", "better", "worse"]).drop(columns=["lead p", "fallen"])
    table.insert(6, "sure", table.pop("sure"))
    return table.assign(**{"p (Holm)": holm_of_healthy(table["p"].where(table["sure"]), table["collapsed"])})


def disruption(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """The paper's claim that a bad assistant disrupts: what a pair loses where its assistant is worse than a base.

    Where a run of the base beats the assistant, that run was partly lucky, and any other run would do worse there. So the samples are
    chosen by *another* seed of the base than the one that the pair is compared with. They still suit the base, and any other system is
    likely to do worse on them. So the control is another system of the base's family that works without help. What counts is whether
    the pair does worse than the control.

    Args:
        scores: what ``metrics.score`` returns; ``health``: as for ``tables.gains``, and with the same effect.

    Returns:
        Per task and collaboration: ``system, task, collapsed`` (the control may be), ``worse`` (share of samples on which the assistant scored below the base's other
        seed), there ``gain where worse`` (over the base) and ``another alone`` (the mean of the controls, less the base), ``beyond it``
        (the first less the second) with its interval over dialogues and seeds ``low, high`` and ``p, p (Holm)``, and ``gain
        elsewhere``. NaN for one seed; ``beyond it`` is NaN where there is no control.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, found in by_task(scores, HEADLINE):
        known = []
        for system, values in found:
            part = _with_other_seed(values)
            gain, worse = part["pair"] - part["base"], part["assistant"] < part["other"]
            others = [other.key for other in working_alone(system.family) if other.key != system.base]
            row = {"system": system.name, "task": task}
            row["collapsed"] = collapsed_among((system.key, system.base, system.assistant, *others), task, fallen)
            if worse.any() and not worse.all():
                row |= {"worse": worse.mean(), "gain where worse": gain[worse].mean(), "gain elsewhere": gain[~worse].mean()}
                control = _mean_of(others, scores, task, part)
                if control is not None:
                    row["another alone"] = (control - part["base"])[worse].mean()
                    quantity = influence(part["pair"] - control, worse), part["sid"], part["seed"]
                    carried_by = part.loc[worse, "sid"].nunique()
                    known.append((row, quantity, kind_of(system, row["collapsed"]), runs_of(system.key) | set(others), carried_by))
            rows.append(row)
        quantities, kinds, runs, carried_by = map(list, zip(*(about for _, *about in known))) if known else ([], [], [], [])
        tested = mean_intervals(quantities, kinds, runs, carried_by=carried_by)
        for (row, *_), values in zip(known, tested):
            row |= dict(zip(("beyond it", "low", "high", "p"), values))
    columns = ["system", "task", "collapsed", "worse", "gain where worse", "another alone", "beyond it", "low", "high", "p", "gain elsewhere"]
    return pd.DataFrame(rows, columns=columns).assign(**{"p (Holm)": lambda table: holm_of_healthy(table["p"], table["collapsed"])})


def _mean_of(keys: list[str], scores: pd.DataFrame, task: str, values: pd.DataFrame) -> pd.Series | None:
    """The mean score of these systems on the seed and sample of each row of ``values``; ``None`` if there is none for some of them."""
    means = scores[scores["system"].isin(keys) & (scores["task"] == task)].groupby(["seed", "sample_id"])[HEADLINE[task]].mean()
    control = pd.Series(means.reindex(pd.MultiIndex.from_frame(values[["seed", "sample_id"]])).to_numpy(), values.index)
    return None if control.isna().any() else control


def _with_other_seed(values: pd.DataFrame) -> pd.DataFrame:
    """``triples`` with a column ``other``: the score of the base's next seed on the sample; NaN for one seed."""
    seeds = sorted(values["seed"].unique())
    following = dict(zip(seeds, [*seeds[1:], seeds[0]])) if len(seeds) > 1 else {}
    other = values[["seed", "sample_id", "base"]].rename(columns={"base": "other", "seed": "next"})
    return values.assign(next=values["seed"].map(following).astype(float)).merge(other, on=["next", "sample_id"], how="left")


def trait_effects(scores: pd.DataFrame, traits: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Which traits go with a gain: the gain where a trait is high less the gain where it is low, over the collaborations of a direction.

    Collaborations of which somebody has collapsed (``health``) are left out.

    Args:
        traits: what ``traits.sample_traits`` returns. High means above the median of the task's test samples, or at the maximum where
            the maximum is the median. A trait is left out where either side has fewer than ``FEW_DIALOGUES`` dialogues. A trait of
            categories (``vocabulary``) is left out too: five categories are five cases, however many dialogues they have.

    Returns:
        Per direction, task and trait: ``direction, task, trait, where low, where high`` (mean gains), ``difference`` with its interval
        over dialogues and seeds ``low, high``, ``p, p (Holm)``.
    """
    rows, fallen = [], collapsed_runs(health)
    for task, found in by_task(scores, HEADLINE):
        found = [(system, values) for system, values in found if not collapsed_behind(system, task, fallen)]
        for direction in dict.fromkeys(system.group for system, _ in found):
            parts = [values.assign(gain=values["pair"] - values["base"]) for system, values in found if system.group == direction]
            values = pd.concat(parts).groupby(["seed", "sid", "sample_id"], as_index=False)["gain"].mean().merge(traits, on="sample_id")
            for trait in [name for name in TRAITS if name not in OF_CATEGORIES]:
                one = values.drop_duplicates("sample_id")[trait]
                high = values[trait] > one.median()
                high = high if high.any() else values[trait] == one.max()
                fewer = min(values.loc[side, "sid"].nunique() for side in (high, ~high))
                if values[trait].isna().any() or fewer < FEW_DIALOGUES:
                    continue
                change = influence(values["gain"], high) - influence(values["gain"], ~high)
                tested = mean_intervals([(change, values["sid"], values["seed"])], carried_by=[fewer])[0]
                about = {"direction": direction, "task": task, "trait": trait}
                about |= {"where low": values["gain"][~high].mean(), "where high": values["gain"][high].mean()}
                rows.append(about | dict(zip(("difference", "low", "high", "p"), tested)))
    columns = ["direction", "task", "trait", "where low", "where high", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def beside_vocabulary(scores: pd.DataFrame, traits: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """The size of each category's attribute vocabulary, and its mean gains (of ``category_levels``) by direction and task; the smallest vocabulary first."""
    levels = category_levels(scores, health)
    column = levels["direction"] + ": " + levels["task"]
    gained = levels.assign(column=column, gain=levels["helped"] - levels["alone"])
    table = gained.pivot(index="category", columns="column", values="gain").reindex(columns=column.unique())
    domain = scores.drop_duplicates("sample_id").set_index("sample_id")["domain"].map(category_name)
    known = traits[traits["sample_id"].isin(domain.index)]
    vocabulary = known.groupby(known["sample_id"].map(domain))["vocabulary"].first()
    table.insert(0, "vocabulary", vocabulary)
    return table.sort_values("vocabulary").rename_axis(None, axis=1)


def category_levels(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean scores alone and with help, the collaborations of a direction together: ``direction, task, metric, category, alone, helped, pairs, of``.

    Of each direction ``pairs`` of all ``of`` are in the mean: those in which somebody has collapsed (``health.answer_health``) are left out, unless all have.
    """
    fallen = collapsed_runs(health)
    names = scores.drop_duplicates("sid").set_index("sid")["domain"].map(category_name)
    parts = []
    for task, found in by_task(scores, HEADLINE):
        for direction in dict.fromkeys(system.group for system, _ in found):
            own = [(system, values) for system, values in found if system.group == direction]
            sound = [(system, values) for system, values in own if not collapsed_behind(system, task, fallen)]
            about = {"direction": direction, "task": task, "metric": HEADLINE[task], "pairs": len(sound), "of": len(own)}
            parts += [values.assign(**about, category=values["sid"].map(names)) for _, values in sound or own]
    every = (
        pd.concat(parts).groupby(["direction", "task", "metric", "category", "pairs", "of"], sort=False)[["base", "pair"]].mean().reset_index()
    )
    order = {name: place for place, name in enumerate(category_names(scores))}
    every = every.rename(columns={"base": "alone", "pair": "helped"})
    every = every.sort_values("category", key=lambda column: column.map(order), kind="stable")
    return every.sort_values("direction", key=lambda column: column.map(GROUPS.index), kind="stable", ignore_index=True)
