"""Where does collaboration help, and what goes with it? (the paper's RQ2, sections 5.2 and 5.3)"""

from itertools import combinations

import numpy as np
import pandas as pd

from llmcrs_utils.evaluation.complementarity import by_task
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.statistics import PAIRED_BY, bootstrap, holm, interval, p_value, paired_gains
from llmcrs_utils.evaluation.tables import GAIN_DRAWS, category_name, category_names, collaborations, total_name
from llmcrs_utils.evaluation.traits import TRAITS
from llmcrs_utils.systems import system_of

PERMUTATIONS = 2000


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
            found = paired_gains(part, [(system.key, system.base) for system in systems], metric, draws=GAIN_DRAWS)
            for system, values in zip(systems, found):
                about = {"system": system.name, "group": system.group, "task": task, "category": category}
                rows.append(about | {"n": part["sample_id"].nunique()} | dict(zip(("gain", "low", "high", "p"), values)))
    table = pd.DataFrame(rows)
    single = table["category"] != total
    return table.assign(**{"p (Holm)": holm(table["p"].where(single))})


def varies(scores: pd.DataFrame, permutations: int = PERMUTATIONS, seed: int = 1) -> pd.DataFrame:
    """Does a gain differ between categories by more than dialogues dealt out at random would? A permutation test.

    The statistic is the variance of the categories' gains around the total, weighted by their samples; the null deals the
    dialogues out to categories of the same sizes.

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
    """The paper's claim that a better assistant helps more: of two assistants of one base, does the better one's pair lead too?

    Returns:
        Per base, pair of assistants and task: ``base, task, better, worse`` (assistants), ``lead`` (of the better assistant alone),
        ``lead of its pair`` with its interval ``low, high``, ``p, p (Holm)``.
    """
    rows = []
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        alone = part.groupby("system")[metric].mean()
        rivals = [two for two in combinations(collaborations(part), 2) if two[0].base == two[1].base]
        rivals = [sorted(two, key=lambda system: -alone[system.assistant]) for two in rivals]
        found = paired_gains(part, [(better.key, worse.key) for better, worse in rivals], metric, draws=GAIN_DRAWS)
        for (better, worse), values in zip(rivals, found):
            about = {"base": system_of(better.base).name, "task": task, "better": system_of(better.assistant).name}
            about |= {"worse": system_of(worse.assistant).name, "lead": alone[better.assistant] - alone[worse.assistant]}
            rows.append(about | dict(zip(("lead of its pair", "low", "high", "p"), values)))
    columns = ["base", "task", "better", "worse", "lead", "lead of its pair", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(**{"p (Holm)": holm(table["p"])})


def disruption(scores: pd.DataFrame) -> pd.DataFrame:
    """The paper's claim that a bad assistant disrupts: what a pair loses where its assistant is worse than its base.

    Some of it any new training would lose: samples on which the base beat its assistant are samples on which that run of the base was
    lucky. So the pair is compared with the base's next seed on the same samples, which was trained anew, too, but without help.

    Returns:
        Per task and collaboration: ``system, task, worse`` (share of samples on which the assistant scored below the base) and there
        ``gain where worse`` (pair less base), ``without help`` (the base's next seed less base), and ``disruption``, the former less the
        latter, with its interval over dialogues ``low, high``, ``p, p (Holm)``; NaN for one seed.
    """
    rows = []
    for task, found in by_task(scores, HEADLINE):
        rows += [{"system": system.name, "task": task} | _disruption(values) for system, values in found]
    return pd.DataFrame(rows).assign(**{"p (Holm)": lambda table: holm(table["p"])})


def _disruption(values: pd.DataFrame) -> dict[str, float]:
    worse = values["assistant"] < values["base"]
    found = {"worse": worse.mean(), "gain where worse": (values["pair"] - values["base"])[worse].mean()}
    # The base's next seed, on the same samples, stands for a base that was only trained anew.
    seeds = sorted(values["seed"].unique())
    following = dict(zip(seeds, [*seeds[1:], seeds[0]]))
    again = values[["seed", "sample_id", "base"]].rename(columns={"base": "again"})
    both = values.assign(next=values["seed"].map(following)).merge(
        again.rename(columns={"seed": "next"}), on=["next", "sample_id"], validate="one_to_one"
    )
    worse = both["assistant"] < both["base"]
    if len(seeds) == 1 or not worse.any():
        return found | dict.fromkeys(("without help", "disruption", "low", "high", "p"), float("nan"))
    found["without help"] = (both["again"] - both["base"])[worse].mean()
    chosen = both[worse]
    mean, draws = bootstrap(chosen["pair"] - chosen["again"], chosen["sid"], draws=GAIN_DRAWS)
    low, high = interval(draws[:, 0])
    return found | {"disruption": mean[0], "low": low, "high": high, "p": p_value(draws[:, 0])}


def trait_effects(scores: pd.DataFrame, traits: pd.DataFrame) -> pd.DataFrame:
    """What goes with a gain: the gain where a trait is high less the gain where it is low, all collaborations of a direction together.

    Args:
        traits: what ``traits.sample_traits`` returns. High is above the median of the task's test samples, or at the maximum where that
            is the median.

    Returns:
        Per direction, task and trait: ``direction, task, trait, where low, where high`` (mean gains), ``difference`` with its interval
        over dialogues ``low, high``, ``p, p (Holm)``. A trait that is the same for all samples is left out.
    """
    rows = []
    for task, found in by_task(scores, HEADLINE):
        for direction in dict.fromkeys(system.group for system, _ in found):
            parts = [values for system, values in found if system.group == direction]
            values = pd.concat([part.assign(gain=part["pair"] - part["base"]) for part in parts])
            values = values.groupby(["sid", "sample_id"], as_index=False)["gain"].mean().merge(traits, on="sample_id")
            for trait in TRAITS:
                high = values[trait] > values[trait].median()
                high = high if high.any() else values[trait] == values[trait].max()
                if values[trait].isna().any() or high.nunique() < 2:
                    continue
                table = np.stack([values["gain"] * high, high, values["gain"] * ~high, ~high], axis=1)
                mean, draws = bootstrap(table, values["sid"], draws=GAIN_DRAWS)
                draws = draws[(draws[:, 1] > 0) & (draws[:, 3] > 0)]  # of a rare trait a draw may hold no sample
                differences = draws[:, 0] / draws[:, 1] - draws[:, 2] / draws[:, 3]
                bounds = interval(differences)
                about = {"direction": direction, "task": task, "trait": trait}
                about |= {
                    "where low": mean[2] / mean[3],
                    "where high": mean[0] / mean[1],
                    "difference": mean[0] / mean[1] - mean[2] / mean[3],
                }
                rows.append(about | {"low": bounds[0], "high": bounds[1], "p": p_value(differences)})
    table = pd.DataFrame(rows)
    return table.assign(**{"p (Holm)": holm(table["p"])})


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
    return every.sort_values("category", key=lambda column: column.map(order), kind="stable", ignore_index=True)
