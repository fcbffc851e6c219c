"""The figure of the tables' notebook, the gain of each collaboration by task and category; learning curves; and what all figures share."""

import textwrap
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmcrs_utils.evaluation.labels import figure_text, shortened
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.statistics import paired_gains
from llmcrs_utils.evaluation.tables import SHOWN_CATEGORIES, TABLES, category_name, category_names, collaborations, total_name
from llmcrs_utils.files.atomic import replacing
from llmcrs_utils.systems.registry import FLOORS, ORACLE, SYSTEMS, TASKS, system_of

# Paul Tol's "muted" scheme, which colour-blind readers can distinguish: cold colours where an LLM assists, warm ones where a CRS does.
PAPER_COLOURS = {
    "cllm-bcrs": "#88CCEE",
    "cllm-ccrs": "#44AA99",
    "allm-bcrs": "#332288",
    "allm-ccrs": "#117733",
    "bcrs-cllm": "#DDCC77",
    "ccrs-cllm": "#AA4499",
    "bcrs-allm": "#CC6677",
    "ccrs-allm": "#882255",
}
# Tol's "light" scheme, for collaborations that are not in the paper.
FURTHER_COLOURS = ["#77AADD", "#99DDFF", "#EE8866", "#FFAABB", "#BBCC33", "#AAAA00", "#EEDD88", "#DDDDDD"]
CHANCE = {"Acc": 1 / 20, "MRR@5": sum(1 / rank for rank in range(1, 6)) / 20}  # of a random order of the 20 candidates
MARKERS = {"LLM assisting CRS": "o", "CRS assisting LLM": "s"}


# Systems that work alone have colours of Okabe and Ito's scheme; floors are grey and the ceiling is black.
ALONE_COLOURS = {"bcrs": "#0072B2", "ccrs": "#56B4E9", "cllm": "#D55E00", "allm": "#E69F00"}
BOUND_COLOURS = dict.fromkeys(FLOORS, "#999999") | {ORACLE: "#000000"}


def colours() -> dict[str, str]:
    """A colour for every registered collaboration, for the CRSs and LLMs of the paper, floors and ceiling."""
    others = [key for key, system in SYSTEMS.items() if system.base and key not in PAPER_COLOURS]
    further = {key: FURTHER_COLOURS[n % len(FURTHER_COLOURS)] for n, key in enumerate(others)}
    return PAPER_COLOURS | ALONE_COLOURS | BOUND_COLOURS | further


def learning_curve(history: pd.DataFrame, title: str) -> Figure:
    """Training and validation loss by epoch (``training.train``'s history), a panel per stage where there are stages."""
    stages = list(history.groupby("stage", sort=False)) if "stage" in history else [("", history)]
    columns = min(len(stages), 3)
    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(4.2 * columns + 0.6, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (stage, part) in zip(panels, stages):
        axes.plot(part["epoch"], part["train_loss"], color="0.6", marker="o", markersize=3, label="training")
        axes.plot(part["epoch"], part["valid_loss"], color="#332288", marker="o", markersize=4, label="validation")
        axes.set(xlabel="epoch", ylabel="loss (nats)", title=stage, ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    figure.suptitle(figure_text(title))
    return figure


def skill_curve(curve: pd.DataFrame, title: str) -> Figure:
    """Validation scores by the number of training samples, a panel per task; chance of a ranking is dashed.

    Args:
        curve: ``samples, task, metric, value, n`` (``llm.system.read_curve``).
    """
    tasks = [task for task in TASKS if task in set(curve["task"])]
    figure = Figure(figsize=(3.1 * len(tasks) + 0.4, 3.0), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks):
        part = curve[curve["task"] == task]
        for (metric, line), colour in zip(part.groupby("metric", sort=False), ("#332288", "#CC6677")):
            axes.plot(line["samples"], line["value"], color=colour, marker="o", markersize=4, label=metric)
            if metric in CHANCE:
                axes.axhline(CHANCE[metric], color=colour, linewidth=1, linestyle="--")
        axes.set(xlabel="training samples", title=f"{TABLES[task].title}\n(n = {part['n'].iloc[0]})", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(figure_text(title))
    return figure


def lookup_curve(history: pd.DataFrame, title: str) -> Figure:
    """Accuracy on held-out look-ups by tokens of exercises read: a line per length of list, and its chance level.

    Args:
        history: what ``exercises.pretrain_with_exercises`` returns.
    """
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    axes = figure.subplots()
    names = [name for name in history if name.startswith("accuracy_")]
    if not names:
        axes.text(0.5, 0.5, "catalogue too small for held-out lists", transform=axes.transAxes, ha="center")
    for name, colour in zip(names, ["#332288", "#44AA99", "#CC6677", "#AA4499"], strict=False):
        size = int(name.removeprefix("accuracy_"))
        axes.plot(history["exercise_tokens"] / 1e6, history[name], color=colour, marker="o", markersize=4, label=f"among {size}")
        axes.axhline(1 / size, color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="million tokens of exercises (dotted: chance)", ylabel="right answers", title=figure_text(title), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        axes.legend(frameon=False)
    return figure


def gain_figure(scores: pd.DataFrame, corpus_note: str) -> Figure:
    """Gain of each collaboration over its base: a panel per task, a row per category and one for all together.

    Points are differences of the task's ``HEADLINE`` metric on the same samples and seeds, lines their 95% intervals
    over dialogues and seeds (none for a single dialogue). Where a task has no scores in a category, the row says so.

    Args:
        scores: what ``metrics.score`` returns.
        corpus_note: which corpus the numbers are on; stands under the title.

    Raises:
        ValueError: if the scores hold no collaboration, or one without its base.
    """
    keys = [system.key for system in collaborations(scores)]
    if not keys:
        raise ValueError("no collaboration in these scores; run 05_collaborate first")
    categories = category_names(scores)
    shown = [*categories[:SHOWN_CATEGORIES], total_name(categories)]
    label = dict(zip(shown, map(figure_text, shortened(shown, 24))))
    names = scores["domain"].map(category_name)

    figure = Figure(figsize=(9, 2.2 + max(0.95, 0.22 * len(keys)) * len(shown)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    for task, axes in zip(TASKS, figure.subplots(2, 2).flat):
        metric = HEADLINE[task]
        labels, found = [], []
        for place, category in enumerate(shown):
            members = scores[(scores["task"] == task) & ((category == shown[-1]) | (names == category))]
            labels.append(f"{label[category]}\n(n = {members['sample_id'].nunique()})")
            present = [key for key in keys if key in set(members["system"])]
            pairs, families = [(key, SYSTEMS[key].base) for key in present], [SYSTEMS[key].family for key in present]
            found += [(place, key, *values) for key, values in zip(present, paired_gains(members, pairs, metric, families))]
            if not present:
                across = axes.get_yaxis_transform()  # x in parts of the panel's width
                axes.text(0.5, place, "no scores", ha="center", va="center", color="0.4", transform=across)
        table = pd.DataFrame(found, columns=["place", "system", "gain", "low", "high", "p"])
        draw_intervals(axes, table, len(shown), keys, markersize=7 if len(keys) <= 4 else 5)
        axes.axvline(0, color="0.35", linewidth=1, zorder=1)
        axes.axhspan(len(shown) - 1.5, len(shown) - 0.5, color="0.94", zorder=0)  # the total is set off
        axes.set(title=TABLES[task].title, xlabel=f"gain in {metric}", ylim=(len(shown) - 0.5, -0.5))
        axes.set_yticks(range(len(shown)), labels)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="0.88", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(figure_text("\n".join(["What collaboration adds, with 95% intervals", *textwrap.wrap(corpus_note, 90)])))
    marks = [_mark(figure.axes[0], key) for key in keys]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    return figure


def draw_intervals(axes, table: pd.DataFrame, places: int, keys: list[str], apart: float = 0.7, **style) -> None:
    """Gains with their intervals, by seaborn's point plot.

    Args:
        table: ``place`` (a row of the panel, from 0), ``system, gain, low, high``; an interval that is NaN is not drawn.
        places: number of rows of the panel.
        keys: the systems, in the order in which they stand below each other in a place.
        apart: how much of a place's height the systems spread over; 0 where each place has one system.
        style: of the points, as for ``matplotlib.lines.Line2D``.
    """
    # seaborn estimates from samples. These are estimates already, so a sample is the gain and its two bounds.
    long = table.melt(["place", "system"], ["gain", "low", "high"], value_name="x")
    sns.pointplot(
        long,
        x="x",
        y="place",
        hue="system",
        order=range(places),
        hue_order=keys,
        orient="h",
        estimator=lambda sample: sample.iloc[0],
        errorbar=lambda sample: (sample.min(), sample.max()),
        dodge=apart * (len(keys) - 1) / len(keys),
        palette={key: colours()[key] for key in keys},
        markers=[MARKERS[system_of(key).group] for key in keys],
        linestyle="none",
        markeredgewidth=1,
        zorder=3,
        err_kws={"linewidth": 2.2, "solid_capstyle": "butt", "zorder": 2},
        legend=False,
        ax=axes,
        **style,
    )
    axes.set(xlabel="", ylabel="")


def save_figure(figure: Figure, path: Path) -> None:
    """Save as PNG, the same bytes for the same figure and library versions; a file appears only when it is whole."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _mark(axes, key: str):
    """The legend's entry for one system."""
    system = system_of(key)
    label = figure_text(f"{system.name} over {system_of(system.base).name}")
    (handle,) = axes.plot([], [], MARKERS[system.group] + "-", color=colours()[key], linewidth=2.2, markersize=7, label=label)
    return handle
