"""The figures of the analysis notebooks: one per question, each from the table that answers it."""

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from llmcrs_utils.evaluation.complementarity import OUTCOMES
from llmcrs_utils.evaluation.cross_fitting import HELP_KINDS
from llmcrs_utils.evaluation.figures import MARKERS, colours, draw_intervals
from llmcrs_utils.evaluation.health import DAGGER
from llmcrs_utils.evaluation.labels import figure_text, shortened
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.tables import SHOWN_CATEGORIES, TABLES, total_name
from llmcrs_utils.systems.registry import CATEGORIES, SYSTEMS, TASKS

OUTCOME_COLOURS = {"both": "#117733", "only CRS": "#0072B2", "only LLM": "#E69F00", "neither": "#DDDDDD"}
TICK = {"markersize": 12, "markeredgewidth": 1.6}  # of a mark "|"
HELP, HARM = "#44AA99", "#CC6677"
# Tol's "bright"; a category keeps its colour wherever it is drawn.
CATEGORY_COLOURS = dict(zip(CATEGORIES.values(), ("#EE6677", "#4477AA", "#228833", "#AA3377", "#CCBB44")))


def answer_figure(gains: pd.DataFrame, corpus_note: str) -> Figure:
    """The study's answer: the gain of each collaboration over its base, a panel per task. Filled marks are significant after Holm's correction.

    ``health.DAGGER`` stands beside a collaboration where it, its base or its assistant has collapsed.

    Args:
        gains: what ``tables.gains`` returns.
    """
    figure, panels = _panels("Does the other kind of model help?", corpus_note, gains, sharex=False)
    for task, axes in panels.items():
        part = gains[gains["task"] == task]
        points = part.assign(place=range(len(part)), system=part["system"].str.lower())
        for holds, face in ((True, {}), (False, {"markerfacecolor": "white"})):
            draw_intervals(axes, points[points["holds"] == holds], len(part), points["system"].tolist(), apart=0, markersize=8, **face)
        axes.axvline(0, color="0.35", linewidth=1, zorder=1)
        _rows(axes, [f"{row.system} {DAGGER}" if row.collapsed else row.system for row in part.itertuples()])
        axes.set_xlabel(f"gain in {part['metric'].iloc[0]}")
    hollow = f"hollow: no finding (Holm p ≥ 0.05{f', or {DAGGER} collapsed' if gains['collapsed'].any() else ''})"
    handles = [
        _mark(figure.axes[0], "o", "0.3", "0.3", "LLM assists CRS"),
        _mark(figure.axes[0], "s", "0.3", "0.3", "CRS assists LLM"),
        _mark(figure.axes[0], "o", "0.3", "white", hollow),
    ]
    _legend(figure, handles, 3)
    return figure


def outcome_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Which of a CRS and an LLM is right: a bar per pair, a panel per task. ``table``: what ``complementarity.outcomes`` returns."""
    figure, panels = _panels("Which of the two is right?", corpus_note, table)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        pairs = part[["crs", "llm"]].drop_duplicates()
        labels = [f"{row.crs}\n{row.llm}" for row in pairs.itertuples()]
        left = np.zeros(len(pairs))
        for outcome in OUTCOMES:
            shares = part.loc[part["outcome"] == outcome, "share"].to_numpy()
            axes.barh(range(len(pairs)), shares, left=left, color=OUTCOME_COLOURS[outcome], edgecolor="white", height=0.7)
            for place, (start, share) in enumerate(zip(left, shares)):
                if share >= 0.06:
                    dark = outcome in ("both", "only CRS")
                    axes.text(
                        start + share / 2,
                        place,
                        f"{share:.0%}",
                        ha="center",
                        va="center",
                        color="white" if dark else "black",
                        fontsize=9,
                    )
            left += shares
        _rows(axes, labels)
        axes.set(xlim=(0, 1), xlabel="share of samples")
        axes.grid(False)
    _legend(figure, [Patch(color=OUTCOME_COLOURS[name], label=name) for name in OUTCOMES], 4)
    return figure


def headroom_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """The gain of choosing the better answer, and the gain of collaboration. ``table``: what ``complementarity.headroom`` returns."""
    figure, panels = _panels("How much of its headroom does a collaboration use?", corpus_note, table, sharex=False)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        for place, row in enumerate(part.itertuples()):
            colour = colours()[row.system.lower()]
            axes.barh(place, row.headroom, color="0.88", height=0.62, zorder=1)
            if pd.notna(row.luck):
                axes.plot([row.luck] * 2, [place - 0.31, place + 0.31], color="0.35", linewidth=1.6, zorder=2)
            axes.plot([0, row.gain], [place] * 2, color=colour, linewidth=2.4, zorder=3)
            axes.plot(row.gain, place, MARKERS[SYSTEMS[row.system.lower()].group], color=colour, markersize=7, zorder=4)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, part["system"].tolist())
        axes.set_xlabel(f"{part['metric'].iloc[0]} above the base alone")
    handles = [Patch(color="0.88", label="headroom: the better answer per sample")]
    if table["luck"].notna().any():
        handles.append(_mark(figure.axes[0], "|", "0.35", "0.35", "headroom with another seed of the base (luck)", **TICK))
    handles.append(_mark(figure.axes[0], "o", "0.3", "0.3", "the collaboration's gain"))
    _legend(figure, handles, 3)
    return figure


def following_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Who follows whom: agreement with the assistant before and after. ``table``: what ``complementarity.following`` returns."""
    figure, panels = _panels("Who follows whom?", corpus_note, table)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        for place, row in enumerate(part.itertuples()):
            colour = colours()[row.system.lower()]
            axes.plot([row.before, row.after], [place] * 2, color=colour, linewidth=2.4, zorder=2)
            axes.plot(row.before, place, "o", color=colour, markerfacecolor="white", markersize=7, zorder=3)
            axes.plot(row.after, place, "o", color=colour, markersize=7, zorder=3)
        _rows(axes, part["system"].tolist())
        axes.set(xlim=(-0.02, 1), xlabel="agreement with the assistant")
    handles = [
        _mark(figure.axes[0], "o", "0.3", "white", "before: the base alone"),
        _mark(figure.axes[0], "o", "0.3", "0.3", "after: with the assistant's answer in its input"),
    ]
    _legend(figure, handles, 2)
    return figure


def help_and_harm_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Samples won and lost by collaborating. ``table``: what ``complementarity.help_and_harm`` returns."""
    figure, panels = _panels("What is won, and what is lost?", corpus_note, table)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        rows = range(len(part))
        axes.barh(rows, part["help"], color=HELP, alpha=0.4, height=0.66)
        axes.barh(rows, part["help, assistant right"], color=HELP, height=0.66)
        axes.barh(rows, -part["harm"], color=HARM, alpha=0.4, height=0.66)
        axes.barh(rows, -part["harm, assistant wrong"], color=HARM, height=0.66)
        for sign in (-1, 1):
            axes.plot(sign * part["churn"], rows, "|", color="0.2", **TICK)
        axes.plot(part["gain"], rows, "D", color="black", markersize=4)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, part["system"].tolist())
        axes.set_xlabel("share of samples")
    handles = [
        Patch(color=HELP, label="won, the assistant was right"), Patch(color=HELP, alpha=0.4, label="won, the assistant was wrong"),
        Patch(color=HARM, label="lost, the assistant was wrong"), Patch(color=HARM, alpha=0.4, label="lost, the assistant was right"),
        _mark(figure.axes[0], "D", "black", "black", "gain"),
    ]  # fmt: skip
    if table["churn"].notna().any():
        handles.append(_mark(figure.axes[0], "|", "0.2", "0.2", "the base with another seed", **TICK))
    _legend(figure, handles, 3)
    return figure


def category_heatmap(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Gains by collaboration, task and category; a star where Holm's correction leaves p below 0.05.

    Args:
        table: what ``categories.category_gains`` returns; the last category is the total.
    """
    names = list(table["category"].unique())
    total = total_name(names[1:])  # one of the names is the total's
    shown = [*[name for name in names if name != total][:SHOWN_CATEGORIES], total]
    systems = table["system"].unique()
    tasks = [task for task in TASKS if task in set(table["task"])]
    figure = Figure(figsize=(11, 1.9 + 0.36 * len(systems) * (1 if len(tasks) == 1 else 2)), layout="constrained")
    for task, axes in zip(tasks, np.ravel(figure.subplots(-(-len(tasks) // 2), min(len(tasks), 2), squeeze=False))):
        part = table[table["task"] == task]
        gain = part.pivot(index="system", columns="category", values="gain").reindex(index=systems, columns=shown)
        sure = part.pivot(index="system", columns="category", values="p (Holm)").reindex(index=systems, columns=shown) < 0.05
        bound = max(np.nanmax(np.abs(gain.to_numpy())), 1e-9)
        texts = [[f"{value:+.3f}{'*' if certain else ''}" for value, certain in zip(*row)] for row in zip(gain.to_numpy(), sure.to_numpy())]
        sns.heatmap(
            gain,
            cmap="PuOr",
            vmin=-bound,
            vmax=bound,
            annot=np.array(texts),
            fmt="",
            annot_kws={"fontsize": 9},
            cbar_kws={"pad": 0.01, "aspect": 30},
            xticklabels=False,
            yticklabels=False,
            ax=axes,
        )
        for text in axes.texts:  # seaborn's own rule puts white on light orange, which is hard to read
            text.set_color("white" if abs(float(text.get_text().rstrip("*"))) > 0.65 * bound else "black")
        axes.axvline(len(shown) - 1, color="white", linewidth=4)
        axes.set(title=f"{TABLES[task].title}: gain in {HEADLINE[task]}", xlabel="", ylabel="")
        axes.set_yticks(np.arange(len(systems)) + 0.5, list(map(figure_text, systems)))
        axes.set_xticks(np.arange(len(shown)) + 0.5, list(map(figure_text, shortened(shown, 14))), fontsize=8.5)
        axes.tick_params(length=0)
    figure.suptitle(figure_title("Where does collaboration help?", corpus_note))
    return figure


def category_slopes(scores: pd.DataFrame, corpus_note: str) -> Figure:
    """Scores alone and with help: a line per category, a panel per direction and task; each score is the mean of a direction's collaborations.

    Args:
        scores: mean scores ``direction, task, metric, category, alone, helped``.
    """
    categories = list(scores["category"].unique())
    label = dict(zip(categories, map(figure_text, shortened(categories, 24))))
    directions, tasks = scores["direction"].unique(), [task for task in TASKS if task in set(scores["task"])]
    figure = Figure(figsize=(11, 3.0 * len(directions) + 0.8), layout="constrained")
    axes_of = figure.subplots(len(directions), len(tasks), squeeze=False, sharey="col")
    for row, direction in enumerate(directions):
        for axes, task in zip(axes_of[row], tasks):
            part = scores[(scores["direction"] == direction) & (scores["task"] == task)]
            for place, line in enumerate(part.itertuples()):
                colour = CATEGORY_COLOURS.get(line.category, f"C{place}")
                axes.plot([0, 1], [line.alone, line.helped], "o-", color=colour, linewidth=1.8, markersize=5, label=label[line.category])
            axes.set_xticks([0, 1], ["alone", "with help"])
            axes.set(xlim=(-0.25, 1.25), title=task if row == 0 else "")
            axes.set_ylabel(f"{direction}\n{part['metric'].iloc[0]}" if axes is axes_of[row][0] else part["metric"].iloc[0])
            axes.spines[["top", "right"]].set_visible(False)
    handles = list(axes_of[0][0].lines)  # matplotlib's own list would leave out a category that begins with _
    figure.legend(handles, [line.get_label() for line in handles], loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(figure_title("From alone to with help, by category", corpus_note))
    return figure


def cross_fitting_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Gains with in-sample and with cross-fitted help. ``table``: what ``cross_fitting.both_gains`` returns."""
    figure, panels = _panels("Is the gain real?", corpus_note, table, sharex=False)
    for task, axes in panels.items():
        part = table[table["task"] == task].to_dict("records")
        for place, row in enumerate(part):
            colour = colours()[row["system"].lower()]
            for kind, shift, shape in zip(HELP_KINDS, (-0.16, 0.16), ("x", "o")):
                axes.plot([row[f"{kind} low"], row[f"{kind} high"]], [place + shift] * 2, color=colour, linewidth=1.8, zorder=2)
                axes.plot(row[f"{kind} gain"], place + shift, shape, color=colour, markersize=6, zorder=3)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, [row["system"] for row in part])
        axes.set_xlabel(f"gain in {part[0]['metric']}")
    handles = [_mark(figure.axes[0], shape, "0.3", "0.3", f"trained with {kind} help") for kind, shape in zip(HELP_KINDS, ("x", "o"))]
    _legend(figure, handles, 2)
    return figure


WAYS = {
    "Router": ("o", "#0072B2"), "Fusion": ("D", "#D55E00"), "Rerank": ("s", "#E69F00"), "Union": ("^", "#117733"), "Intersection": ("v", "#AA4499"),
    "LLM assisting CRS": ("o", "white"), "CRS assisting LLM": ("s", "white"),
}  # fmt: skip


def control_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """The potential of each pair, and what each way of combining the two gains: a panel per task, a block per pair.

    Args:
        table: what ``controls.realised`` returns, with ``sound``; ways that rest on a collapsed system are drawn pale.
    """
    figure, panels = _panels("How much of the potential is realised?", corpus_note, table[["task", "crs", "llm"]], sharex=False)
    figure.set_size_inches(10, figure.get_figheight() * 1.35)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        pairs = list(part.groupby(["crs", "llm"], sort=False))
        for place, (_, ways) in enumerate(pairs):
            axes.barh(place, ways["potential"].iloc[0], color="0.88", height=0.9, zorder=1)
            shifts = np.linspace(-0.36, 0.36, len(ways)) if len(ways) > 1 else [0]
            for shift, row in zip(shifts, ways.itertuples()):
                shape, face = WAYS[row.way]
                colour, alpha = ("0.25" if face == "white" else face), (1 if row.sound else 0.3)
                axes.plot([row.low, row.high], [place + shift] * 2, color=colour, alpha=alpha, linewidth=1.4, zorder=2)
                axes.plot(row.gain, place + shift, shape, color=colour, markerfacecolor=face, alpha=alpha, markersize=5.5, zorder=3)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, ["\n".join(SYSTEMS[key].name for key in names) for names, _ in pairs])
        axes.set_xlabel(f"{part['metric'].iloc[0]} above the better of the two")
    shown = [name for name in WAYS if name in set(table["way"])]
    handles = [Patch(color="0.88", label="potential: the better answer per sample")]
    handles += [_mark(figure.axes[0], WAYS[name][0], "0.25" if WAYS[name][1] == "white" else WAYS[name][1], WAYS[name][1], name) for name in shown]
    _legend(figure, handles, 4)
    return figure


def rating_figure(table: pd.DataFrame, claim: str, note: str) -> Figure:
    """Mean human ratings with their 95% intervals, a row per system, best in relevance first. ``table``: what ``ratings.rated_systems`` returns."""
    systems = table["system"].unique().tolist()
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(systems)), layout="constrained")
    axes = figure.subplots()
    looks = {"relevance": ("#0072B2", "o", -0.14), "informativeness": ("#D55E00", "s", 0.14)}
    for question, (colour, shape, shift) in looks.items():
        part = table[table["question"] == question].set_index("system").reindex(systems)
        places = np.arange(len(systems)) + shift
        axes.hlines(places, part["low"], part["high"], color=colour, linewidth=1.4)
        axes.plot(part["value"], places, shape, color=colour, markersize=6, label=question)
    _rows(axes, systems)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("mean rating")
    figure.suptitle(figure_title(claim, note))
    _legend(figure, axes.get_legend_handles_labels()[0], 2)
    return figure


def figure_title(claim: str, note: str) -> str:
    return figure_text("\n".join([claim, *textwrap.wrap(note, 90)]))


def _panels(claim: str, note: str, table: pd.DataFrame, sharex: bool = True) -> tuple[Figure, dict]:
    """A figure with a panel per task of ``table``, two in a row, named by task."""
    tasks = [task for task in TASKS if task in set(table["task"])]
    by = [name for name in ("system", "crs", "llm") if name in table]
    lines = len(table[by].drop_duplicates()) * (1 if "system" in table else 1.7)
    rows = -(-len(tasks) // 2)
    figure = Figure(figsize=(10, 1.5 + rows * (0.9 + 0.3 * lines)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    panels = np.ravel(figure.subplots(rows, min(len(tasks), 2), squeeze=False, sharex=sharex))
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    for task, axes in zip(tasks, panels):
        axes.set_title(TABLES[task].title)
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.tick_params(labelbottom=True)
    figure.suptitle(figure_title(claim, note))
    return figure, dict(zip(tasks, panels))


def _rows(axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), list(map(figure_text, labels)))
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _mark(axes, shape: str, colour: str, face: str, label: str, **size):
    """A legend's entry."""
    return axes.plot([], [], shape, color=colour, markerfacecolor=face, label=label, **{"markersize": 7} | size)[0]


def _legend(figure: Figure, handles: list, columns: int) -> None:
    """One legend for all panels, below them."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
