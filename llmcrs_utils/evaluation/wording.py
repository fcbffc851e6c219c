"""Sentences and readable cells made from tables, for notebooks: their text must hold for any corpus."""

from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.claims import significant, span, towards_the_helper
from llmcrs_utils.evaluation.health import DAGGER
from llmcrs_utils.evaluation.labels import markdown_text
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.statistics import FEW_DIALOGUES
from llmcrs_utils.evaluation.tables import category_name, category_names, csv_text, markdown_lines
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.systems.registry import CONTROLS, FLOORS, ORACLE, SYSTEMS, TASKS, working_alone

HOLM = "after Holm's correction"
WHY_NOT = f" (one seed, or fewer than {FEW_DIALOGUES} dialogues)"
NOT_TESTED = f"; none for one seed or fewer than {FEW_DIALOGUES} dialogues"


def gain_text(gain: float, low: float, high: float, marks: str = "") -> str:
    """A gain with its interval, and with marks (a star, ``health.DAGGER``) behind the gain."""
    return f"{gain:+.3f}{marks} [{low:+.3f}, {high:+.3f}]"


def grid(table: pd.DataFrame, value: str, low: str, high: str, sure: str | None = None, rows: str = "system") -> pd.DataFrame:
    """A row per system and a column per task, headed by the metric too where the table names it.

    A cell is the value with its interval; a star marks a ``sure`` (a corrected p-value) below 0.05, ``health.DAGGER`` a row in whose column
    ``collapsed`` (where the table has one) somebody is named.
    """
    marks = [DAGGER if names else "" for names in table.get("collapsed", [""] * len(table))]
    cells = [
        ("–" if pd.isna(number) else gain_text(number, least, most, ("*" if sure and certain < 0.05 else "") + mark))
        for number, least, most, certain, mark in zip(table[value], table[low], table[high], table[sure or value], marks)
    ]
    wide = table.assign(cell=cells).pivot(index=rows, columns="task", values="cell")
    wide = wide.reindex(index=table[rows].unique(), columns=[task for task in TASKS if task in wide]).fillna("–")
    metrics = dict(zip(table["task"], table["metric"])) if "metric" in table else {}
    return wide.rename_axis(None, axis=1).rename(columns={task: f"{task} ({metric})" for task, metric in metrics.items()})


def findings(table: pd.DataFrame, value: str = "gain", sure: str = "p (Holm)", what: str = "comparisons", rule: str = HOLM) -> str:
    """Sentences in Markdown: how many rows of a table are significant, and which; and how many a collapse excludes.

    Args:
        what: what each row is, in the plural; ``rule``: what "significant" means for these p-values.
    """
    excluded = (table["collapsed"] != "").sum() if "collapsed" in table else (~table["sound"]).sum() if "sound" in table else 0
    left_out = f" {excluded} more {'is' if excluded == 1 else 'are'} not tested ({DAGGER}), because a system has collapsed there." if excluded else ""
    untested = int(table[sure].isna().sum()) - excluded
    if not table[sure].notna().any():
        return f"Nothing can be tested here{WHY_NOT if untested else ''}.{left_out}"
    left_out += f" {untested} cannot be tested{WHY_NOT}." if untested else ""
    tested, held = int(table[sure].notna().sum()), table[table[sure] < 0.05]
    if held.empty:
        return f"**None of {tested}** {what} is significant {rule}.{left_out}"
    named = []
    for word, part in (("above zero", held[held[value] > 0]), ("below zero", held[held[value] < 0])):
        rows = ", ".join(f"{markdown_text(row['system'])} in {row['task']} ({row[value]:+.3f})" for _, row in part.iterrows())
        named += [f"{word} {rows}"] if len(part) else []
    return f"**{len(held)} of {tested}** {what} {'is' if len(held) == 1 else 'are'} significant {rule}: {'; '.join(named)}.{left_out}"


def only_sound(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows in which nobody has collapsed, and a sentence in Markdown that says so if others are left out."""
    sound = table[table["collapsed"] == ""]
    return sound, "" if len(sound) == len(table) else f"\n\nCases in which a system has collapsed ({DAGGER}) are left out."


def how_many(table: pd.DataFrame, what: str, p: str = "p") -> str:
    """A sentence in Markdown: how many rows of a table are significant with and without Holm's correction."""
    tested = int(table[f"{p} (Holm)"].notna().sum())
    if not tested:
        reasons = ["there is one seed", "there are too few dialogues", "a system has collapsed", *(["it is not certain which helper is better"] if "sure" in table else [])]
        return f"Whether {what} cannot be tested here: in every case {', '.join(reasons[:-1])} or {reasons[-1]}."
    held, before = (table[f"{p} (Holm)"] < 0.05).sum(), (table.loc[table[f"{p} (Holm)"].notna(), p] < 0.05).sum()
    return (
        f"**{held} of {tested}** {what} after Holm's correction. Without the correction {before} {'is' if before == 1 else 'are'} significant; chance alone would give {0.05 * tested:.1f}."
    )


def interval_note(scores: pd.DataFrame) -> str:
    """What the intervals of these scores cover: dialogues and, where systems have several seeds, seeds."""
    seeds = scores.groupby("system")["seed"].nunique().max()
    return "95% intervals over dialogues" + (f" and {seeds} seeds" if seeds > 1 else " (one seed)")


def sizes(scores: pd.DataFrame) -> pd.DataFrame:
    """Number of samples by category and task."""
    samples = scores.drop_duplicates("sample_id")
    counted = samples.groupby([samples["domain"].map(category_name), "task"]).size().unstack(fill_value=0)
    return counted.reindex(index=category_names(scores), columns=[task for task in TASKS if task in counted]).rename_axis(
        index="category", columns=None
    )


def who_is_right(table: pd.DataFrame) -> str:
    """The result of ``complementarity.outcomes``, a line per task."""
    sound, left_out = only_sound(table)
    lines = []
    for task, part in sound.groupby("task", sort=False):
        share = {outcome: span(rows["share"]) for outcome, rows in part.groupby("outcome")}
        lines.append(
            f"* *{task}*: only the CRS is right on {share['only CRS']} of the samples, only the LLM on {share['only LLM']}, "
            f"both on {share['both']}, neither on {share['neither']}."
        )
    return "\n".join(lines) + left_out


def headroom_used(table: pd.DataFrame) -> str:
    """The result of ``complementarity.headroom``, a line per task."""
    sound, left_out = only_sound(table)
    lines = []
    for task, part in sound.groupby("task", sort=False):
        best = part.loc[part["gain"].idxmax()]
        luck = f" (another seed of the base: {span(part['luck'], '.3f')})" if part["luck"].notna().any() else ""
        lines.append(
            f"* *{task}* ({best['metric']}): the better answer per sample is worth {span(part['headroom'], '.3f')}{luck}; "
            f"gains run from {part['gain'].min():+.3f} to {part['gain'].max():+.3f}, the best of them, {markdown_text(best['system'])}, "
            + (f"being {best['realised']:.0%} of its headroom." if pd.notna(best["realised"]) else "having none to use.")
        )
    known = sound[sound["luck"].notna()]
    if len(known):
        lines.append(f"\nIn {(known['headroom'] > known['luck']).sum()} of {len(known)} cases the headroom is larger than that of another seed of the base.")
    return "\n".join(lines) + left_out


def potential_used(table: pd.DataFrame) -> str:
    """The result of ``controls.realised``, a line per task; rows that are not ``sound`` are left out and counted."""
    lines = []
    for task, part in table.groupby("task", sort=False):
        good = part[part["sound"]]
        left_out = f" {len(part) - len(good)} of {len(part)} ways are left out, because a system behind them has collapsed." if len(good) < len(part) else ""
        if good.empty:
            lines.append(f"* *{task}*: every pair has a system that has collapsed.")
            continue
        best = good.loc[good["gain"].idxmax()]
        known = pd.notna(best["realised"]) and best["gain"] > 0
        share = f", {best['realised']:.0%} of it [{best['realised low']:.0%}, {best['realised high']:.0%}]" if known else ""
        lines.append(
            f"* *{task}* ({best['metric']}): the potential above the better of the two is {span(good['potential'], '.3f')}; the best way, "
            f"{best['way'].lower() if best['system'] not in SYSTEMS else markdown_text(SYSTEMS[best['system']].name)} for "
            f"{markdown_text(both_names(best))}, {'gains' if best['gain'] > 0 else 'gains nothing:'} {best['gain']:+.3f}{share}.{left_out}"
        )
    return "\n".join(lines)


def ways_grid(table: pd.DataFrame) -> pd.DataFrame:
    """The result of ``controls.realised``: a row per task and way, a column per pair, each cell the gain above the better of the two with
    its interval; ``collapsed`` where the row is not ``sound``."""
    cells = [gain_text(row.gain, row.low, row.high) if row.sound else "collapsed" for row in table.itertuples(index=False)]
    shown = table.assign(cell=cells, pair=[both_names(row, ", ") for row in table.to_dict("records")])
    wide = shown.pivot(index=["task", "way"], columns="pair", values="cell")
    order = pd.MultiIndex.from_frame(shown[["task", "way"]].drop_duplicates())
    return wide.reindex(index=order, columns=shown["pair"].unique()).fillna("–").rename_axis(None, axis=1)


def both_names(row, between: str = " and ") -> str:
    """The names of a row's ``crs`` and ``llm``."""
    return between.join(SYSTEMS[row[side]].name for side in ("crs", "llm"))


def who_follows(table: pd.DataFrame) -> str:
    """The result of ``complementarity.following``."""
    sound, left_out = only_sound(table)
    if sound.empty:
        return left_out.strip()
    more = (sound["moved"] > 0).sum()
    most = sound.loc[sound["moved"].idxmax()]
    return (
        f"In {more} of {len(sound)} cases a system agrees more with its assistant after reading it than before. The agreement of "
        f"{markdown_text(most['system'])} in {most['task']} rises most, from {most['before']:.0%} to {most['after']:.0%}.{left_out}"
    )


def turned_by_help(table: pd.DataFrame) -> str:
    """The result of ``complementarity.help_and_harm``, a line per task."""
    sound, left_out = only_sound(table)
    lines = []
    for task, part in sound.groupby("task", sort=False):
        churn = f"; training a base again with another seed corrects and spoils {span(part['churn'])} each" if part["churn"].notna().any() else ""
        lines.append(f"* *{task}*: help corrects {span(part['help'])} of the answers and spoils {span(part['harm'])}{churn}.")
    return "\n".join(lines) + left_out


def p_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table for display: three digits, small p-values as ``<0.001``, no row numbers."""
    shown = table.set_axis([""] * len(table))
    for column in shown.select_dtypes("number"):
        if column in ("n", "seeds"):
            continue
        is_p = column == "p" or column.endswith("p (Holm)")
        shown[column] = [
            "–" if pd.isna(value) else "<0.001" if is_p and value < 0.001 else f"{value:.3f}" for value in shown[column]
        ]
    return shown


def alone_and_bounds(scores: pd.DataFrame) -> pd.DataFrame:
    """The best floor, each CRS and LLM alone and the ceiling, by each task's ``HEADLINE`` metric."""
    means = {task: scores[scores["task"] == task].groupby("system")[metric].mean() for task, metric in HEADLINE.items()}
    rows = {"best floor": {task: part[part.index.isin(FLOORS)].max() for task, part in means.items()}}
    for system in (*working_alone("crs"), *working_alone("llm")):
        rows[system.name] = {task: part.get(system.key) for task, part in means.items()}
    rows["ceiling"] = {task: part.get(ORACLE) for task, part in means.items()}
    table = pd.DataFrame(rows).T.dropna(how="all").astype(float).round(3)
    return table.rename(columns={task: f"{task} ({metric})" for task, metric in HEADLINE.items()})


def write_rounded(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table with six digits; a file appears only when it is whole."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), csv_text(table))


def markdown(table: pd.DataFrame, corner: str = "") -> str:
    """A table with its index as GitHub Markdown."""
    columns, names = ([markdown_text(str(name)) for name in axis] for axis in (table.columns, table.index))
    return "\n".join(markdown_lines(markdown_text(corner), columns, [[name, *row] for name, row in zip(names, table.to_numpy())]))


def scored(name: str, table: pd.DataFrame, split: str, health: pd.DataFrame) -> str:
    """The takeaway of a training: what a system scores, and where it has collapsed.

    Args:
        table: what ``tables.headline`` returns for one system; ``health``: ``health.health_by_split`` of the same answers.
        split: the dialogues that are scored.
    """
    parts = [f"{row['metric']} {row['value']:.3f} in {task}" for task, row in table.iterrows()]
    fallen = [task for task in table.index if health.loc[health["task"] == task, "collapsed"].any()]
    collapse = [f"It has collapsed in {', '.join(fallen)}, so its score there says nothing"] if fallen else []
    return takeaway(f"On the {split.replace('_', '-')} dialogues {markdown_text(name)} scores {', '.join(parts)}", *collapse)


def help_in_words(name: str, table: pd.DataFrame) -> str:
    """The takeaway of a helper's answers.

    Args:
        table: a row per task with the columns ``metric``, ``training`` and ``test``: its score on the dialogues that teach the helped system, and on new ones.
    """
    better = table[table["training"] > table["test"]]
    first = f"The help of {markdown_text(name)} is better on the training dialogues than on the test dialogues in {len(better)} of {len(table)} tasks"
    if better.empty:
        return takeaway(first)
    most = (better["training"] - better["test"]).idxmax()
    row = better.loc[most]
    return takeaway(
        f"{first}. The difference is largest in {most} ({row['metric']} {row['training']:.3f} against {row['test']:.3f})",
        "So a system that is trained with this help may learn to trust it more than the help on new dialogues deserves (12_cross_fitting)",
    )


def overview(pulled: pd.DataFrame, better: pd.DataFrame, rule: str = HOLM) -> str:
    """The takeaway of a whole run.

    Args:
        pulled: what ``complementarity.pull`` returns; ``better``: ``complementarity.over_the_better``; ``rule``: as for ``findings``.
    """
    if not pulled["p (Holm)"].notna().any():
        return takeaway(towards_the_helper(pulled), findings(pulled))
    compared, above, _ = significant(better)
    than = f"**{above} of {compared}** collaborations are significantly better than the better of their two systems alone" if compared else "Whether a collaboration is better than the better of its two systems cannot be tested here"
    return takeaway(towards_the_helper(pulled), findings(pulled, what="changes by help", rule=rule), than)


def pair_markdown(pulled: pd.DataFrame, beaten: pd.DataFrame) -> str:
    """A CRS and an LLM that help each other, as GitHub Markdown: each alone, each with the other's help, and the best control. A row per task.

    The better of the two alone is bold. A star says that help changes the score significantly (``holds``).

    Args:
        pulled: what ``complementarity.pull`` returns, for the two collaborations of one pair. ``health.DAGGER`` marks those in which somebody has collapsed.
        beaten: ``controls.over_the_best_control`` of the same.

    Raises:
        ValueError: unless there is exactly one pair, in both directions.
    """
    if len(pulled["system"].unique()) != 2 or len(pulled["direction"].unique()) != 2:
        raise ValueError(f"{', '.join(pulled['system'].unique()) or 'nothing'}: give the two collaborations of one CRS and one LLM")
    lines, crs, llm = [], *(pulled.loc[pulled["direction"] == direction, "over"].iloc[0] for direction in ("LLM assisting CRS", "CRS assisting LLM"))
    for task, part in pulled.groupby("task", sort=False):
        with_help = part.set_index("over")
        alone = [f"**{one:.3f}**" if one >= other else f"{one:.3f}" for one, other in zip(with_help.loc[[crs, llm], "alone"], with_help.loc[[llm, crs], "alone"])]
        helped = []
        for row in with_help.loc[[llm, crs]].itertuples():
            star = ("*" if row.holds else "") + (DAGGER if isinstance(row.collapsed, str) and row.collapsed else "")
            helped.append(f"{row.helped:.3f} ({gain_text(row.gain, row.low, row.high, star)})")
        control = beaten[(beaten["task"] == task) & (beaten["system"] == with_help.loc[llm, "system"])].iloc[0]
        way = next(kind for kind, name in CONTROLS.items() if control["control"] == name.format(crs=crs, llm=llm))
        way = {"copy_crs": f"copy of {crs}", "copy_llm": f"copy of {llm}"}.get(way, way)
        lines.append([f"{task} ({part['metric'].iloc[0]})", *alone, *helped, f"{with_help.loc[llm, 'helped'] - control['gain']:.3f} ({way})"])
    heads = [f"{crs} alone", f"{llm} alone", f"{llm} with help", f"{crs} with help", "control chosen on validation"]
    return "\n".join(markdown_lines("", heads, lines))


def opened_on_click(title: str, table: str) -> str:
    """A wide Markdown table that opens on a click and scrolls in its own width."""
    return f'<details><summary>{title}</summary><div style="overflow-x:auto">\n\n{table}\n\n</div></details>'


def takeaway(*claims: str) -> str:
    """What to remember of a notebook, from sentences with or without their full stop."""
    return " ".join(["**Takeaway.**", *(f"{claim.rstrip('.')}." for claim in claims)])
