"""Learning curves, and what all figures share: colours, and how a figure is saved."""

import textwrap
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmcrs_utils.evaluation import claims
from llmcrs_utils.evaluation.labels import figure_text
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.files.atomic import replacing
from llmcrs_utils.systems.registry import TASKS, system_of

# Okabe and Ito's scheme, which colour-blind readers can distinguish. A system has the colour and the mark of its kind, a collaboration
# those of the system that is helped.
LOOKS = {"crs": ("#0072B2", "o"), "llm": ("#D55E00", "s")}
CHANCE = {"Acc": 1 / 20, "MRR@5": sum(1 / rank for rank in range(1, 6)) / 20}  # of a random order of the 20 candidates


def figure_title(claim: str, note: str) -> str:
    """What a figure shows, and below it what of; both wrapped."""
    return figure_text("\n".join([*textwrap.wrap(claim, 120), *textwrap.wrap(note, 90)]))


def look_of(key: str) -> tuple[str, str]:
    """Colour and mark of a CRS, an LLM or a collaboration."""
    return LOOKS[system_of(key).family]


def learning_curve(history: pd.DataFrame, title: str, columns: int = 3) -> Figure:
    """Training and validation loss by epoch (``training.train``'s history), a panel per stage where there are stages, ``columns`` in a row."""
    stages = list(history.groupby("stage", sort=False)) if "stage" in history else [("", history)]
    columns = min(len(stages), columns)
    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(min(4.2 * columns + 0.6, 13.2), 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (stage, part) in zip(panels, stages):
        axes.plot(part["epoch"], part["train_loss"], color="0.6", marker="o", markersize=3, label="training")
        axes.plot(part["epoch"], part["valid_loss"], color="#332288", marker="o", markersize=4, label="validation")
        axes.set(xlabel="epoch", ylabel="loss (nats)", title=stage, ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
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
        axes.set(xlabel="training samples", title=f"{task} (n = {part['n'].iloc[0]})", ylim=(0, 1.4 * part["value"].max() or None))  # room for the legend
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
    figure.suptitle(figure_text(title))
    return figure


def dialogues_curve(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Validation scores by the number of training dialogues with their intervals, a panel per task; the best floor is dashed.

    Args:
        table: ``task, metric, other, ours, theirs, gain, low, high, system, dialogues`` (``complementarity.over_others`` for every size, one run each): ``other``
            is a floor. The bar of a score is the interval of its gain over the best floor: it compares a system with the floor, not two sizes.
    """
    table = table[table["metric"] == table["task"].map(HEADLINE)]
    tasks = [task for task in TASKS if task in set(table["task"])]
    looks = dict(zip(table["system"].unique(), cycle((("#332288", "o"), ("#CC6677", "s"), ("#117733", "D")))))
    figure = Figure(figsize=(3.1 * len(tasks) + 0.4, 3.4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks):
        part = table[table["task"] == task].sort_values("theirs").drop_duplicates(["system", "dialogues"], keep="last").sort_values("dialogues")
        for name, line in part.groupby("system", sort=False):
            spread, (colour, marker) = [line["gain"] - line["low"], line["high"] - line["gain"]], looks[name]
            axes.errorbar(line["dialogues"], line["ours"], yerr=spread, color=colour, marker=marker, markersize=5, capsize=2, linewidth=1.6, label=figure_text(name))
        floor = part.drop_duplicates("dialogues")
        axes.plot(floor["dialogues"], floor["theirs"], color="0.4", linewidth=1, linestyle="--", label="best floor")
        axes.set(xlabel="training dialogues", ylabel=part["metric"].iloc[0], title=task, ylim=(0, None), xticks=floor["dialogues"])
        axes.spines[["top", "right"]].set_visible(False)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(figure_title(claims.by_size(table), corpus_note))
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


def help_figure(table: pd.DataFrame, title: str) -> Figure:
    """A helper's score on the training and on the test dialogues, a row per task. ``table``: as for ``wording.help_in_words``."""
    figure = Figure(figsize=(7, 1.5 + 0.36 * len(table)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(table.itertuples()):
        axes.plot([row.training, row.test], [place] * 2, color="0.6", linewidth=1.6, zorder=1)
        axes.plot(row.training, place, "o", color="0.2", markerfacecolor="white", markersize=8, label="training dialogues" if place == 0 else None)
        axes.plot(row.test, place, "o", color="0.2", markersize=8, label="test dialogues" if place == 0 else None)
    axes.set_yticks(range(len(table)), [f"{task} ({metric})" for task, metric in table["metric"].items()])
    axes.set(xlabel="score of the helper's answers", xlim=(0, 1), ylim=(len(table) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(figure_text(title))
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Save as PNG, the same bytes for the same figure and library versions; a file appears only when it is whole."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
