"""The figures of the analysis notebooks: one per question, each from the table that answers it. Titles are counted in that table (``claims``)."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from llmcrs_utils.evaluation import claims
from llmcrs_utils.evaluation.complementarity import OUTCOMES
from llmcrs_utils.evaluation.cross_fitting import HELP_KINDS
from llmcrs_utils.evaluation.figures import LOOKS, figure_title, look_of
from llmcrs_utils.evaluation.health import DAGGER
from llmcrs_utils.evaluation.labels import figure_text, shortened
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.tables import SHOWN_CATEGORIES, total_name
from llmcrs_utils.systems.registry import CATEGORIES, SYSTEMS, TASKS, control_name

CRS_COLOUR, LLM_COLOUR = LOOKS["crs"][0], LOOKS["llm"][0]
OUTCOME_COLOURS = {"both": "#117733", "only CRS": CRS_COLOUR, "only LLM": LLM_COLOUR, "neither": "#DDDDDD"}
TICK = {"markersize": 12, "markeredgewidth": 1.6}  # of a mark "|"
HELP, HARM = "#44AA99", "#CC6677"
# How the points of several studies differ in one figure, beside colour and shape, which say who is helped.
STUDY_POINTS = {"hollow": {"markerfacecolor": "white"}, "filled": {}, "black edge": {"markeredgecolor": "black", "markeredgewidth": 1.8}}
MARKS = ("s", "x", "o", "D")  # the same in a figure of LLMs alone
# Tol's "bright"; a category keeps its colour wherever it is drawn.
CATEGORY_COLOURS = dict(zip(CATEGORIES.values(), ("#EE6677", "#4477AA", "#228833", "#AA3377", "#CCBB44")))


def gain_figure(gains: pd.DataFrame, corpus_note: str) -> Figure:
    """The gain of each collaboration over its base, a panel per task, all on one scale. Filled marks are significant after Holm's correction.

    ``health.DAGGER`` stands beside a collaboration where it, its base or its assistant has collapsed.

    Args:
        gains: what ``tables.gains`` returns.
    """
    figure, panels = _panels(claims.changes(gains, "scores"), corpus_note, gains)
    for task, axes in panels.items():
        part = gains[gains["task"] == task]
        for place, row in enumerate(part.itertuples()):
            colour, mark = look_of(row.system.lower())
            axes.plot([row.low, row.high], [place] * 2, color=colour, linewidth=2.2)
            axes.plot(row.gain, place, mark, color=colour, markerfacecolor=colour if row.holds else "white", markersize=8)
        axes.axvline(0, color="0.35", linewidth=1, zorder=1)
        _rows(axes, _marked(part, part["system"]))
        axes.set_xlabel(f"gain in {part['metric'].iloc[0]}")
    _legend(figure, [*_directions(figure, gains), _mark(figure.axes[0], "o", "0.3", "white", "hollow: not significant, or not tested")], 3)
    return figure


def pull_figure(table: pd.DataFrame, corpus_note: str, controls: pd.DataFrame | None = None) -> Figure:
    """The score of each system alone, with help, and of its helper alone: a panel per task, a row per collaboration, all on one scale.

    Args:
        table: what ``complementarity.pull`` returns; the interval is that of the gain, drawn around the score with help.
        controls: what ``controls.over_the_best_control`` returns, to mark the score of the control that was best on held-out answers.
    """
    note = f"{corpus_note}; *: significant" if table["holds"].any() else corpus_note
    figure, panels = _panels(claims.towards_the_helper(table), note, table, row_height=0.5)
    if controls is not None:
        ahead = controls[controls["sound"]].set_index(["system", "task"])["gain"]
        table = table.assign(control=table["helped"] - table.set_index(["system", "task"]).index.map(ahead))
    for task, axes in panels.items():
        part = table[table["task"] == task]
        for place, row in enumerate(part.itertuples()):
            colour = look_of(row.system.lower())[0]
            axes.plot([row.alone + row.low, row.alone + row.high], [place] * 2, color=colour, alpha=0.35, linewidth=5, solid_capstyle="butt")
            axes.plot([row.alone, row.helped], [place] * 2, color=colour, linewidth=1.6)
            axes.plot(row.alone, place, "o", color=colour, markerfacecolor="white", markersize=8, zorder=3)
            axes.plot(row.helped, place, "o", color=colour, markersize=8, zorder=3)
            axes.plot(row.helper, place, "|", color=look_of(SYSTEMS[row.system.lower()].assistant)[0], zorder=4, **TICK | {"markersize": 18, "markeredgewidth": 2.4})
            if controls is not None:
                axes.plot(row.control, place, "D", color="0.25", markerfacecolor="none", markersize=6, zorder=4)
        _rows(axes, _marked(part, part["system"].map(_spelt) + np.where(part["holds"], " *", "")))
        axes.set_xlabel(part["metric"].iloc[0])
    handles = [
        _mark(figure.axes[0], "o", "0.3", "white", "alone"),
        _mark(figure.axes[0], "o", "0.3", "0.3", "with help (bar: 95% interval of the change)"),
        _mark(figure.axes[0], "|", "0.3", "0.3", "its helper, alone", **TICK),
    ]
    if controls is not None:
        handles.append(_mark(figure.axes[0], "D", "0.25", "none", "best control on validation"))
    _legend(figure, handles, len(handles))
    return figure


def lead_figure(studies: dict[str, pd.DataFrame], corpus_note: str) -> Figure:
    """What help changes, by how far the helper is ahead: a point per collaboration and task of two or three studies.

    On the dotted line help makes a system as good as its helper. Both axes subtract the score of the helped system alone, so chance in this score slants the points
    upwards.

    Cases in which somebody has collapsed are left out.

    Args:
        studies: name of a study -> what ``complementarity.pull`` returns for it; their points differ by ``STUDY_POINTS``, in this order.

    Raises:
        ValueError: for more studies than ``STUDY_POINTS``.
    """
    if len(studies) > len(STUDY_POINTS):
        raise ValueError(f"{len(studies)} studies: at most {len(STUDY_POINTS)} can be told apart in one figure")
    sound = {name: table[table["collapsed"] == ""].assign(lead=table["helper"] - table["alone"]) for name, table in studies.items()}
    every = pd.concat(sound.values())
    figure = Figure(figsize=(9.5, 5.6), layout="constrained")
    axes = figure.subplots()
    for point, table in zip(STUDY_POINTS.values(), sound.values()):
        for row in table.itertuples():
            colour, mark = look_of(row.system.lower())
            axes.plot([row.lead] * 2, [row.low, row.high], color=colour, linewidth=1.6, alpha=0.7)
            axes.plot(row.lead, row.gain, mark, **{"color": colour, "markersize": 8, "zorder": 3} | point)
    least, most = min(every["lead"].min(), every["low"].min()), max(every["lead"].max(), every["high"].max())
    axes.axline((0, 0), slope=1, color="0.5", linestyle=":", zorder=1)
    axes.axhline(0, color="0.5", linewidth=1, zorder=1)
    axes.set(xlim=(least - 0.16, most + 0.16), ylim=(every["low"].min() - 0.04, every["high"].max() + 0.04))
    axes.set(xlabel="score of the helper alone minus score of the helped system alone", ylabel="change of the helped system's score by help")
    axes.spines[["top", "right"]].set_visible(False)
    names = [axes.plot([], [], "o", **{"color": "0.3", "label": figure_text(f"{look}: {name}")} | point)[0] for (look, point), name in zip(STUDY_POINTS.items(), sound)]
    line = axes.plot([], [], ":", color="0.5", label="as good as the helper")
    _legend(figure, [*_directions(figure, every), *names, *line], 3)
    figure.suptitle(figure_title(claims.by_the_lead(every), corpus_note))
    _name_points(figure, axes, every["lead"], every["gain"], every["task"], [look_of(name.lower())[0] for name in every["system"]], every["direction"] == "LLM assisting CRS")
    return figure


def reliance_figure(studies: dict[str, pd.DataFrame], corpus_note: str) -> Figure:
    """How far helped LLMs follow, by how much better the help was in training than they are alone: a point per task and study.

    Args:
        studies: name of a study -> what ``cross_fitting.reliance`` returns for it.

    Raises:
        ValueError: for more than four studies.
    """
    if len(studies) > len(MARKS):
        raise ValueError(f"{len(studies)} studies: at most {len(MARKS)} can be told apart in one figure")
    every = pd.concat(studies.values(), ignore_index=True)
    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    axes = figure.subplots()
    for (name, table), mark in zip(studies.items(), MARKS):
        axes.plot(table["lead"], table["moved"], mark, color=LLM_COLOUR, markersize=8, label=figure_text(name))
    axes.axvline(0, color="0.5", linewidth=1, zorder=1)
    axes.set(xlabel="score of the help in training minus score of the LLM alone", ylabel="rise of the agreement with the helper", ylim=(-0.04, None))
    axes.margins(x=0.14)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes.get_legend_handles_labels()[0], 2)
    figure.suptitle(figure_title(claims.following_the_training(every), corpus_note))
    _name_points(figure, axes, every["lead"], every["moved"], every["task"], LLM_COLOUR, False)
    return figure


def _name_points(figure: Figure, axes: Axes, x: pd.Series, y: pd.Series, names: pd.Series, colour, right) -> None:
    """Write names beside points, each at the first place where it covers no point and no other name, else at the last that was tried.

    Args:
        colour, right: of all points, or one for each; whether the place to the right of the point is tried before the one to the left.
    """
    figure.draw_without_rendering()  # settles the layout
    taken = [Bbox.from_bounds(across - 7, up - 7, 14, 14) for across, up in axes.transData.transform(np.column_stack([x, y]))]
    points = pd.DataFrame({"x": x, "y": y, "name": names, "colour": colour, "right": right})
    for point in points.sort_values("x").itertuples():
        beside = [(side, up) for up in (4, -12, 16, -24) for side in ((8, -8) if point.right else (-8, 8))]
        for tried, offset in enumerate(beside, 1):
            text = axes.annotate(point.name, (point.x, point.y), xytext=offset, textcoords="offset points", ha="left" if offset[0] > 0 else "right", color=point.colour)
            place = text.get_window_extent()
            if tried == len(beside) or not place.count_overlaps(taken):
                taken.append(place)
                break
            text.remove()


def outcome_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Which of a CRS and an LLM is right: a bar per pair, a panel per task. ``table``: what ``complementarity.outcomes`` returns."""
    figure, panels = _panels(claims.only_one_is_right(table), corpus_note, table[["task", "crs", "llm", "collapsed"]], row_height=0.5)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        pairs = part[["crs", "llm"]].drop_duplicates()
        labels = _marked(part.loc[pairs.index], pairs["crs"] + "\n" + pairs["llm"])
        left = np.zeros(len(pairs))
        for outcome in OUTCOMES:
            shares = part.loc[part["outcome"] == outcome, "share"].to_numpy()
            axes.barh(range(len(pairs)), shares, left=left, color=OUTCOME_COLOURS[outcome], edgecolor="white", height=0.7)
            for place, (start, share) in enumerate(zip(left, shares)):
                if share >= 0.06:
                    dark = outcome != "neither"
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
    figure, panels = _panels(claims.headroom_left(table), corpus_note, table)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        for place, row in enumerate(part.itertuples()):
            colour, mark = look_of(row.system.lower())
            axes.barh(place, row.headroom, color="0.88", height=0.62, zorder=1)
            if pd.notna(row.luck):
                axes.plot([row.luck] * 2, [place - 0.31, place + 0.31], color="0.35", linewidth=1.6, zorder=2)
            axes.plot([0, row.gain], [place] * 2, color=colour, linewidth=2.4, zorder=3)
            axes.plot(row.gain, place, mark, color=colour, markersize=7, zorder=4)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, _marked(part, part["system"]))
        axes.set_xlabel(f"{part['metric'].iloc[0]} above the base alone")
    handles = [Patch(color="0.88", label="headroom: the better answer per sample")]
    if table["luck"].notna().any():
        handles.append(_mark(figure.axes[0], "|", "0.35", "0.35", "headroom with another seed of the base (luck)", **TICK))
    _legend(figure, [*handles, *_directions(figure, table, "gain: ")], 2)
    return figure


def following_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Who follows whom: agreement with the assistant before and after. ``table``: what ``complementarity.following`` returns."""
    figure, panels = _panels(claims.following_the_helper(table), corpus_note, table)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        for place, row in enumerate(part.itertuples()):
            colour = look_of(row.system.lower())[0]
            axes.plot([row.before, row.after], [place] * 2, color=colour, linewidth=2.4, zorder=2)
            axes.plot(row.before, place, "o", color=colour, markerfacecolor="white", markersize=7, zorder=3)
            axes.plot(row.after, place, "o", color=colour, markersize=7, zorder=3)
        _rows(axes, _marked(part, part["system"]))
        axes.set(xlim=(-0.02, 1), xlabel="agreement with the assistant")
    handles = [
        _mark(figure.axes[0], "o", "0.3", "white", "before: the base alone"),
        _mark(figure.axes[0], "o", "0.3", "0.3", "after: with the assistant's answer in its input"),
    ]
    _legend(figure, handles, 2)
    return figure


def help_and_harm_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Answers that help corrects and spoils. ``table``: what ``complementarity.help_and_harm`` returns."""
    figure, panels = _panels(claims.corrected_and_spoiled(table), corpus_note, table)
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
        _rows(axes, _marked(part, part["system"]))
        axes.set_xlabel("share of samples")
    handles = [
        Patch(color=HELP, label="corrected (pale: the helper was wrong)"),
        Patch(color=HARM, label="spoiled (pale: the helper was right)"),
        _mark(figure.axes[0], "D", "black", "black", "gain"),
    ]
    if table["churn"].notna().any():
        handles.append(_mark(figure.axes[0], "|", "0.2", "0.2", "another seed of the base, without help", **TICK))
    _legend(figure, handles, 2)
    return figure


def category_heatmap(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Gains by collaboration, task and category, all on one scale. A cell has a colour where its 95% interval excludes zero, and a star where
    Holm's correction leaves p below 0.05. ``health.DAGGER`` marks collaborations in which somebody has collapsed; they have no colour.

    Args:
        table: what ``categories.category_gains`` returns; the last category is the total.
    """
    names = list(table["category"].unique())
    total = total_name(names[1:])  # one of the names is the total's
    shown = [*[name for name in names if name != total][:SHOWN_CATEGORIES], total]
    systems = table["system"].unique()
    tasks = [task for task in TASKS if task in set(table["task"])]
    figure = Figure(figsize=(11, 1.9 + 0.36 * len(systems) * (1 if len(tasks) == 1 else 2)), layout="constrained")
    panels = np.ravel(figure.subplots(-(-len(tasks) // 2), min(len(tasks), 2), squeeze=False))
    sound = (table["collapsed"] == "") & table["low"].notna()
    apart = sound & ((table["low"] > 0) | (table["high"] < 0))
    bound = max(table["gain"].abs().max(), 1e-9)
    for task, axes in zip(tasks, panels):
        part = table.assign(apart=apart)[table["task"] == task]
        gain, sure, clear = (part.pivot(index="system", columns="category", values=name).reindex(index=systems, columns=shown) for name in ("gain", "p (Holm)", "apart"))
        texts = [["" if pd.isna(value) else f"{value:+.3f}{'*' if p < 0.05 else ''}" for value, p in zip(*row)] for row in zip(gain.to_numpy(), sure.to_numpy())]
        style = {"annot": np.array(texts), "fmt": "", "annot_kws": {"fontsize": 9}, "cbar": False, "xticklabels": False, "yticklabels": False}
        sns.heatmap(gain.where(clear.eq(True), 0.0), cmap="PuOr", vmin=-bound, vmax=bound, linewidths=0.5, linecolor="0.9", ax=axes, **style)
        for text, value, coloured in zip(axes.texts, gain.stack(future_stack=True), clear.stack(future_stack=True)):
            text.set_color("0.45" if coloured is not True else "white" if abs(value) > 0.65 * bound else "black")
        axes.axvline(len(shown) - 1, color="white", linewidth=4)
        axes.set(title=f"{task}: gain in {HEADLINE[task]}", xlabel="", ylabel="")
        fallen = set(part.loc[part["collapsed"] != "", "system"])
        axes.set_yticks(np.arange(len(systems)) + 0.5, [figure_text(f"{name} {DAGGER}" if name in fallen else name) for name in systems])
        axes.set_xticks(np.arange(len(shown)) + 0.5, list(map(figure_text, shortened(shown, 14))), fontsize=8.5)
        axes.tick_params(length=0)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    single = table["category"] != total
    tried = (sound & single).sum()
    about = f"{corpus_note}; {(apart & single).sum()} of {tried} intervals of single categories exclude zero (coloured), chance alone would give {0.05 * tried:.1f}"
    figure.suptitle(figure_title(claims.changes(table[single], "scores of a category"), _explained(about, table)))
    return figure


def category_slopes(scores: pd.DataFrame, corpus_note: str) -> Figure:
    """Scores alone and with help: a line per category, a panel per direction and task; each score is the mean of a direction's collaborations.

    Args:
        scores: what ``categories.category_levels`` returns.
    """
    categories = list(scores["category"].unique())
    label = dict(zip(categories, map(figure_text, shortened(categories, 24))))
    directions, tasks = scores["direction"].unique(), [task for task in TASKS if task in set(scores["task"])]
    figure = Figure(figsize=(11, 3.0 * len(directions) + 0.8), layout="constrained")
    axes_of = figure.subplots(len(directions), len(tasks), squeeze=False, sharey=True)
    for row, direction in enumerate(directions):
        for axes, task in zip(axes_of[row], tasks):
            part = scores[(scores["direction"] == direction) & (scores["task"] == task)]
            for place, line in enumerate(part.itertuples()):
                colour = CATEGORY_COLOURS.get(line.category, f"C{place}")
                axes.plot([0, 1], [line.alone, line.helped], "o-", color=colour, linewidth=1.8, markersize=5, label=label[line.category])
            axes.set_xticks([0, 1], ["alone", "with help"])
            pairs, of = part[["pairs", "of"]].iloc[0]
            left_out = "" if pairs == of else f"{pairs} of {of} pairs" if pairs else "all have collapsed"
            axes.set(xlim=(-0.25, 1.25), title="\n".join(filter(None, [task if row == 0 else "", left_out])))
            axes.set_ylabel(f"{direction}\n{part['metric'].iloc[0]}" if axes is axes_of[row][0] else part["metric"].iloc[0])
            axes.spines[["top", "right"]].set_visible(False)
    axes_of[0][0].set_ylim(bottom=0)  # once, and of all panels: it stops the scale from following what is drawn later
    handles = list(axes_of[0][0].lines)  # matplotlib's own list would leave out a category that begins with _
    figure.legend(handles, [line.get_label() for line in handles], loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(figure_title(claims.categories_raised(scores), corpus_note))
    return figure


def cross_fitting_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Gains with in-sample and with cross-fitted help. ``table``: what ``cross_fitting.both_gains`` returns."""
    figure, panels = _panels(claims.cross_fitting_changes(table), corpus_note, table)
    for task, axes in panels.items():
        part = table[table["task"] == task]
        for place, row in enumerate(part.to_dict("records")):
            colour = look_of(row["system"].lower())[0]
            for kind, shift, shape in zip(HELP_KINDS, (-0.16, 0.16), ("x", "o")):
                axes.plot([row[f"{kind} low"], row[f"{kind} high"]], [place + shift] * 2, color=colour, linewidth=1.8, zorder=2)
                axes.plot(row[f"{kind} gain"], place + shift, shape, color=colour, markersize=6, zorder=3)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, _marked(part, part["system"]))
        axes.set_xlabel(f"gain over the base, in {part['metric'].iloc[0]}")
    handles = [_mark(figure.axes[0], shape, "0.3", "0.3", f"trained with {kind} help") for kind, shape in zip(HELP_KINDS, ("x", "o"))]
    _legend(figure, handles, 2)
    return figure


def attention_figure(table: pd.DataFrame, corpus_note: str) -> Figure:
    """Where the LLM looks while it answers: the share of its attention that goes to the help, by layer; a panel per task.

    Args:
        table: ``help`` (its kind in training) ``, task, layer, share, tokens`` (the help's share of the prompt) ``, n``, as ``workflow/attention.py`` writes it.
    """
    tasks = [task for task in TASKS if task in set(table["task"])]
    figure = Figure(figsize=(3.4 * len(tasks) + 0.4, 3.4), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks):
        part = table[table["task"] == task]
        for kind, shape, style in zip(HELP_KINDS, ("x", "o"), ("--", "-")):
            line = part[part["help"] == kind]
            axes.plot(line["layer"], line["share"], shape + style, color=LLM_COLOUR, markersize=5, linewidth=1.4, label=f"trained with {kind} help")
        axes.axhline(part["tokens"].iloc[0], color="0.5", linewidth=1.2, linestyle=":", label="the help's share of the prompt")
        axes.set(title=f"{task} (n = {part['n'].iloc[0]})", xlabel="layer", ylabel="attention to the help", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(figure_title(claims.attention_to_help(table), corpus_note))
    _legend(figure, panels[0].get_legend_handles_labels()[0], 3)
    return figure


WAYS = ("Router", "Fusion", "Tiebreak", "Rerank", "Union", "Intersection", "LLM assisting CRS", "CRS assisting LLM")


def control_figure(table: pd.DataFrame, beaten: pd.DataFrame, corpus_note: str) -> Figure:
    """What each way of combining a CRS and an LLM gains over the better of the two: a panel per task, a row per way, a mark per pair.

    Args:
        table: what ``controls.realised`` returns, with ``sound``; ways that rest on a collapsed system are drawn pale.
        beaten: what ``controls.over_the_best_control`` returns, for the title; a ring marks the best control of a pair, unless it is a copy of one of the two.
    """
    pairs = list(table[["crs", "llm"]].drop_duplicates().itertuples(index=False, name=None))
    potential = "potential: the better answer"
    ways = [potential, *(way for way in WAYS if way in set(table["way"]))]
    shift = dict(zip(pairs, np.linspace(-0.3, 0.3, len(pairs)) if len(pairs) > 1 else [0.0]))
    marks = dict(zip(pairs, "os^Dv<>pP*Xh" * len(pairs)))
    note = corpus_note if table["sound"].all() else f"{corpus_note}; pale: a system behind it has collapsed"
    best = set(zip(beaten["task"], beaten["control"]))
    rows = pd.DataFrame([(task, way) for task in table["task"].unique() for way in ways], columns=["task", "system"])
    figure, panels = _panels(claims.controls_suffice(beaten), note, rows, row_height=max(0.24, 0.075 * len(pairs)))
    for task, axes in panels.items():
        part = table[table["task"] == task]
        present = [way for way in ways if way == potential or way in set(part["way"])]
        for row in part.itertuples():
            pair = (row.crs, row.llm)
            colour = look_of(row.system)[0] if row.system in SYSTEMS else "0.2"
            looks = {"alpha": 1 if row.sound else 0.25, "color": colour}
            place = present.index(row.way) + shift[pair]
            axes.plot([row.low, row.high], [place] * 2, linewidth=1.6, **looks)
            axes.plot(row.gain, place, marks[pair], markersize=6, **looks)
            if (task, control_name(row.system)) in best:
                axes.plot(row.gain, place, "o", color="black", markerfacecolor="none", markersize=11)
        for row in part.sort_values("sound").drop_duplicates(["crs", "llm"], keep="last").itertuples():
            axes.plot(row.potential, shift[row.crs, row.llm], marks[row.crs, row.llm], color="0.6", alpha=1 if row.sound else 0.25, markersize=6)
        axes.axvline(0, color="0.35", linewidth=1)
        _rows(axes, present)
        axes.set_xlabel(f"{part['metric'].iloc[0]} above the better of the two")
    ring = _mark(figure.axes[0], "o", "black", "none", "the pair's best control on held-out answers (no ring: a copy)", markersize=11)
    named = [_mark(figure.axes[0], marks[pair], "0.2", "0.2", figure_text(" and ".join(SYSTEMS[key].name for key in pair))) for pair in pairs if len(pairs) > 1]
    _legend(figure, [*named, ring], 2)
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


def _panels(claim: str, note: str, table: pd.DataFrame, row_height: float = 0.3) -> tuple[Figure, dict]:
    """A figure with a panel per task of ``table``, two in a row, named by task; all have one scale. Its title explains ``health.DAGGER`` where it is needed."""
    tasks = [task for task in TASKS if task in set(table["task"])]
    by = [name for name in ("system", "crs", "llm") if name in table]
    lines = len(table[by].drop_duplicates())
    rows = -(-len(tasks) // 2)
    figure = Figure(figsize=(10, 1.5 + rows * (0.9 + row_height * lines)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    panels = np.ravel(figure.subplots(rows, min(len(tasks), 2), squeeze=False, sharex=True))
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    for task, axes in zip(tasks, panels):
        axes.set_title(task)
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.tick_params(labelbottom=True)
    figure.suptitle(figure_title(claim, _explained(note, table)))
    return figure, dict(zip(tasks, panels))


def _explained(note: str, table: pd.DataFrame) -> str:
    """``note``, and what ``health.DAGGER`` means if somebody in ``table`` has collapsed."""
    return f"{note}; {DAGGER}: a system has collapsed, not counted" if "collapsed" in table and (table["collapsed"] != "").any() else note


def _directions(figure: Figure, table: pd.DataFrame, before: str = "") -> list:
    """The legend's entries for the directions of ``table``."""
    groups = {"crs": "LLM assisting CRS", "llm": "CRS assisting LLM"}
    named = {family: group for family, group in groups.items() if group in set(table["direction"])}
    return [_mark(figure.axes[0], LOOKS[family][1], LOOKS[family][0], LOOKS[family][0], before + name) for family, name in named.items()]


def _spelt(name: str) -> str:
    """A collaboration in words: who is helped, by whom."""
    system = SYSTEMS[name.lower()]
    return f"{SYSTEMS[system.base].name}\nwith {SYSTEMS[system.assistant].name}"


def _marked(part: pd.DataFrame, labels: pd.Series) -> list[str]:
    """Labels of the rows of ``part``, with ``health.DAGGER`` where somebody has collapsed."""
    return list(labels + np.where(part["collapsed"] != "", f" {DAGGER}", ""))


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
