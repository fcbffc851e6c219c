"""Where does collaboration help, and what goes with it? (the paper's RQ2, sections 5.2 and 5.3)"""

from itertools import combinations

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.complementarity import by_task
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.statistics import (
    PAIRED_BY,
    bootstrap,
    holm,
    influence,
    interval,
    mean_intervals,
    p_value,
    paired_gains,
)
from llmcrs_utils.evaluation.tables import GAIN_DRAWS, GROUPS, category_name, category_names, collaborations, total_name
from llmcrs_utils.evaluation.traits import OF_CATEGORIES, TRAITS
from llmcrs_utils.systems.registry import SYSTEMS, System, system_of

PERMUTATIONS = 2000
FEW_DIALOGUES = 10  # with fewer, an interval over dialogues means nothing


def category_gains(scores: pd.DataFrame) -> pd.DataFrame:
    """Gain of each collaboration over its base in each category and in all together, by the task's ``HEADLINE`` metric.

    Returns:
        ``system, group, task, category, n, gain, low, high, p, p (Holm)``; the correction is for all single categories together.
    """
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
            pairs, kinds = [(system.key, system.base) for system in systems], [system.family for system in systems]
            found = paired_gains(part, pairs, metric, kinds, GAIN_DRAWS)
            for system, values in zip(systems, found):
                about = {"system": system.name, "group": system.group, "task": task, "category": category}
                rows.append(about | {"n": part["sample_id"].nunique()} | dict(zip(("gain", "low", "high", "p"), values)))
    table = pd.DataFrame(rows)
    single = table["category"] != total
    return table.assign(**{"p (Holm)": holm(table["p"].where(single))})


def varies(scores: pd.DataFrame, permutations: int = PERMUTATIONS, seed: int = 1) -> pd.DataFrame:
    """Does a gain differ between categories by more than between random groups of dialogues? A permutation test.

    The statistic is the variance of the categories' gains around the total, weighted by their samples. Under the null hypothesis
    the dialogues are assigned at random to categories of the same sizes.

    Returns:
        Per collaboration and task: ``system, task, lowest, highest`` (category and gain), ``p, p (Holm)``.
    """
    rows = []
    domain = scores.drop_duplicates("sid").set_index("sid")["domain"].map(category_name)
    for task, found in by_task(scores, HEADLINE):
        for system, values in found:
            dialogues = (values["pair"] - values["base"]).groupby(values["sid"]).agg(["sum", "size"])
            category = domain.reindex(dialogues.index)
            by_category = dialogues.groupby(category).sum()
            gains = by_category["sum"] / by_category["size"]
            row = {
                "system": system.name,
                "task": task,
                "lowest": _named(gains, gains.idxmin()),
                "highest": _named(gains, gains.idxmax()),
            }
            rows.append(row | {"p": _permuted(dialogues.to_numpy(float), pd.factorize(category)[0], permutations, seed)})
    return pd.DataFrame(rows).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def _named(gains: pd.Series, category: str) -> str:
    return f"{category} {gains[category]:+.3f}"


def _permuted(dialogues: np.ndarray, category: np.ndarray, permutations: int, seed: int) -> float:
    """p-value of the spread of the means of ``dialogues`` (sum, size) over ``category``, both by dialogue."""
    if category.max() == 0:
        return float("nan")
    mean = dialogues[:, 0].sum() / dialogues[:, 1].sum()
    members = np.eye(category.max() + 1)

    def spread(labels: np.ndarray) -> np.ndarray:
        sums = np.einsum("dk,...dc->...kc", dialogues, members[labels])
        return (sums[..., 1, :] * (sums[..., 0, :] / sums[..., 1, :] - mean) ** 2).sum(axis=-1)

    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(category, (permutations, 1)), axis=1)
    as_large = (spread(shuffled) >= spread(category) * (1 - 1e-12)).sum()
    return float((as_large + 1) / (permutations + 1))


def better_assistant(scores: pd.DataFrame) -> pd.DataFrame:
    """The paper's claim that a better assistant helps more: of two assistants of one base, does the better one also give the better pair?

    Returns:
        Per task, base and pair of assistants: ``base, task, better, worse`` (assistants), ``lead`` (of the better assistant alone),
        ``sure`` (whether that lead is significant after Holm's correction; if not, their order is unknown), ``lead of its pair`` with its interval
        ``low, high`` and ``p, p (Holm)``, corrected for the pairs whose assistants' order is sure.
    """
    rows = []
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        alone = part.groupby("system")[metric].mean()
        rivals = [two for two in combinations(collaborations(part), 2) if two[0].base == two[1].base]
        rivals = [sorted(two, key=lambda system: -alone[system.assistant]) for two in rivals]
        families = [better.family for better, _ in rivals]
        leads = paired_gains(
            part, [(better.assistant, worse.assistant) for better, worse in rivals], metric, families, GAIN_DRAWS
        )
        found = paired_gains(part, [(better.key, worse.key) for better, worse in rivals], metric, families, GAIN_DRAWS)
        for (better, worse), lead, values in zip(rivals, leads, found):
            about = {"base": system_of(better.base).name, "task": task, "better": system_of(better.assistant).name}
            about |= {"worse": system_of(worse.assistant).name, "lead": lead[0], "lead p": lead[3]}
            rows.append(about | dict(zip(("lead of its pair", "low", "high", "p"), values)))
    columns = ["base", "task", "better", "worse", "lead", "lead p", "lead of its pair", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    # Two bases share two assistants: their order is one comparison.
    order = table.drop_duplicates(["task", "better", "worse"]).assign(sure=lambda part: holm(part["lead p"]) < 0.05)
    table = table.merge(order[["task", "better", "worse", "sure"]], on=["task", "better", "worse"]).drop(columns="lead p")
    table.insert(5, "sure", table.pop("sure"))
    return table.assign(**{"p (Holm)": holm(table["p"].where(table["sure"]))})


def disruption(scores: pd.DataFrame) -> pd.DataFrame:
    """The paper's claim that a bad assistant disrupts: what a pair gains or loses where its assistant is worse than a base.

    On samples where a run of the base beats the assistant, that run was partly lucky, and any other run would do worse there. So the
    samples are chosen by *another* seed of the base than the one that the pair is compared with. They still suit the base, and any
    other system is likely to do worse on them. A column for comparison shows how much worse another system of the base's family
    does there without help.

    Returns:
        Per task and collaboration: ``system, task, worse`` (share of samples on which the assistant scored below the base's other
        seed), there ``gain where worse`` with its interval over dialogues and seeds ``low, high`` and ``p, p (Holm)``, ``another alone``
        (what others of the base's family score there without help, less the base; NaN where there is no other), and ``gain
        elsewhere``; NaN for one seed.
    """
    rows = []
    for task, found in by_task(scores, HEADLINE):
        known = []
        for system, values in found:
            part = _with_other_seed(values)
            gain, worse = part["pair"] - part["base"], part["assistant"] < part["other"]
            if worse.any() and not worse.all():
                means = {"worse": worse.mean(), "gain where worse": gain[worse].mean(), "gain elsewhere": gain[~worse].mean()}
                means["another alone"] = _another(scores, system, task, part[worse])
                known.append((system, means, (influence(gain, worse), part["sid"], part["seed"])))
            else:
                rows.append({"system": system.name, "task": task})
        bounds = mean_intervals([quantity for *_, quantity in known], [system.family for system, *_ in known], GAIN_DRAWS)
        for (system, means, _), (_, low, high, p) in zip(known, bounds):
            rows.append({"system": system.name, "task": task} | means | {"low": low, "high": high, "p": p})
    columns = ["system", "task", "worse", "gain where worse", "low", "high", "p", "another alone", "gain elsewhere"]
    return pd.DataFrame(rows, columns=columns).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def _another(scores: pd.DataFrame, system: System, task: str, chosen: pd.DataFrame) -> float:
    """Mean gain over the base, on the chosen samples, of the other systems of its family that work alone; NaN where there are none."""
    others = [key for key, other in SYSTEMS.items() if other.family == system.family and not other.base and key != system.base]
    metric = HEADLINE[task]
    alone = scores.loc[scores["system"].isin(others) & (scores["task"] == task), ["seed", "sample_id", metric]]
    both = chosen.merge(alone, on=["seed", "sample_id"])
    return float((both[metric] - both["base"]).mean())


def _with_other_seed(values: pd.DataFrame) -> pd.DataFrame:
    """``triples`` with a column ``other``: the score of the base's next seed on the sample; NaN for one seed."""
    seeds = sorted(values["seed"].unique())
    following = dict(zip(seeds, [*seeds[1:], seeds[0]])) if len(seeds) > 1 else {}
    other = values[["seed", "sample_id", "base"]].rename(columns={"base": "other", "seed": "next"})
    return values.assign(next=values["seed"].map(following).astype(float)).merge(other, on=["next", "sample_id"], how="left")


def trait_effects(scores: pd.DataFrame, traits: pd.DataFrame) -> pd.DataFrame:
    """Which traits go with a gain: the gain where a trait is high less the gain where it is low, over all collaborations of a direction.

    Args:
        traits: what ``traits.sample_traits`` returns. High means above the median of the task's test samples, or at the maximum where
            the maximum is the median. A trait is left out where either side has fewer than ``FEW_DIALOGUES`` dialogues. A trait of
            categories (``vocabulary``) is left out too: five categories are five cases, however many dialogues they have.

    Returns:
        Per direction, task and trait: ``direction, task, trait, where low, where high`` (mean gains), ``difference`` with its interval
        over dialogues ``low, high``, ``p, p (Holm)``.
    """
    rows = []
    for task, found in by_task(scores, HEADLINE):
        for direction in dict.fromkeys(system.group for system, _ in found):
            parts = [values for system, values in found if system.group == direction]
            values = pd.concat([part.assign(gain=part["pair"] - part["base"]) for part in parts])
            values = values.groupby(["sid", "sample_id"], as_index=False)["gain"].mean().merge(traits, on="sample_id")
            for trait in [name for name in TRAITS if name not in OF_CATEGORIES]:
                high = values[trait] > values[trait].median()
                high = high if high.any() else values[trait] == values[trait].max()
                if values[trait].isna().any() or min(values.loc[side, "sid"].nunique() for side in (high, ~high)) < FEW_DIALOGUES:
                    continue
                change = influence(values["gain"], high) - influence(values["gain"], ~high)
                means, draws = bootstrap(change, values["sid"], draws=GAIN_DRAWS)
                low_bound, high_bound = interval(draws[:, 0])
                about = {"direction": direction, "task": task, "trait": trait}
                about |= {
                    "where low": values["gain"][~high].mean(),
                    "where high": values["gain"][high].mean(),
                    "difference": means[0],
                }
                rows.append(about | {"low": low_bound, "high": high_bound, "p": p_value(draws[:, 0])})
    columns = ["direction", "task", "trait", "where low", "where high", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def beside_vocabulary(scores: pd.DataFrame, traits: pd.DataFrame) -> pd.DataFrame:
    """The size of each category's attribute vocabulary, and its mean gains by direction and task; the smallest vocabulary first."""
    levels = category_levels(scores)
    column = levels["direction"] + ": " + levels["task"]
    gained = levels.assign(column=column, gain=levels["helped"] - levels["alone"])
    table = gained.pivot(index="category", columns="column", values="gain").reindex(columns=column.unique())
    domain = scores.drop_duplicates("sample_id").set_index("sample_id")["domain"].map(category_name)
    known = traits[traits["sample_id"].isin(domain.index)]
    vocabulary = known.groupby(known["sample_id"].map(domain))["vocabulary"].first()
    table.insert(0, "vocabulary", vocabulary)
    return table.sort_values("vocabulary").rename_axis(None, axis=1)


def category_levels(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean scores alone and with help, the collaborations of a direction together: ``direction, task, metric, category, alone, helped``."""
    names = scores.drop_duplicates("sid").set_index("sid")["domain"].map(category_name)
    parts = []
    for task, found in by_task(scores, HEADLINE):
        for system, values in found:
            about = {"direction": system.group, "task": task, "metric": HEADLINE[task], "category": values["sid"].map(names)}
            parts.append(values.assign(**about))
    every = (
        pd.concat(parts).groupby(["direction", "task", "metric", "category"], sort=False)[["base", "pair"]].mean().reset_index()
    )
    order = {name: place for place, name in enumerate(category_names(scores))}
    every = every.rename(columns={"base": "alone", "pair": "helped"})
    every = every.sort_values("category", key=lambda column: column.map(order), kind="stable")
    return every.sort_values("direction", key=lambda column: column.map(GROUPS.index), kind="stable", ignore_index=True)
