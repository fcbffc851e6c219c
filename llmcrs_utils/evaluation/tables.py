"""The paper's Tables 1-4 from our scores, with the paper's own numbers beside them."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import nan
from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.health import DAGGER, collapsed_behind, collapsed_runs, collapsed_seeds, holm_of_healthy, kinds_of
from llmcrs_utils.evaluation.labels import latex_text, markdown_text
from llmcrs_utils.evaluation.metrics import DISLIKED_FIRST, HEADLINE, METRICS
from llmcrs_utils.evaluation.statistics import PAIRED_BY, SIGNIFICANT, mean_intervals, paired_gains, runs_of
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.systems.predictions import CATALOGUE
from llmcrs_utils.systems.registry import CATEGORIES, FLOORS, ORACLE, SYSTEMS, System, control_name, system_of


@dataclass(frozen=True)
class PaperTable:
    """One table: its number in the paper, its title and the metrics it shows, for each category or for all together only."""

    number: int | str
    title: str
    metrics: tuple[str, ...]
    by_category: bool = True


TABLES = {
    "understand": PaperTable(1, "Pre-sales dialogue understanding", ("P", "R", "F1")),
    "elicit": PaperTable(2, "User needs elicitation", ("P", "R", "F1")),
    "recommend": PaperTable(3, "User needs-based recommendation", ("Acc", "Hit@5", "MRR@5")),
    # The setting of U-NEED, which the paper left for candidates that an LLM can read.
    CATALOGUE: PaperTable("3b", "Recommendation from the whole catalogue", METRICS[CATALOGUE], by_category=False),
    # Relevance and informativeness, the other columns of Table 4, are human scores.
    "respond": PaperTable(4, "Pre-sales dialogue generation", ("Dist-1", "BLEU-1", "BLEU-2")),
}
PAPER_METRICS = {"H@5": "Hit@5", "M@5": "MRR@5"}  # where the paper's column is called otherwise
OTHERS = "Other systems"  # those that the registry does not know: somebody else's answers, each under its own name
WITHOUT_TRAINING = "Training-free controls"  # combinations of a CRS's and an LLM's saved answers (``evaluation.controls``)
# Blocks of rows, top to bottom.
GROUPS = ("Floor", "Typical", "No collaboration", WITHOUT_TRAINING, "LLM assisting CRS", "CRS assisting LLM", OTHERS, "Ceiling")
# The rows of those who are no system: floors and ceiling.
BOUNDS = {key: ("Floor", name) for key, name in FLOORS.items()} | {ORACLE: ("Ceiling", "The world's own probabilities")}
# A page has room for five categories, as many as U-NEED has. Of more categories the largest are shown; the CSV files hold all.
SHOWN_CATEGORIES = 5
NOTHING = "–"
BELOW_FLOOR = "‡"  # stands beside a task's headline metric of a system whose value is lower than the best floor's
DIGITS = 6  # of numbers in files and comparisons, so that neither depends on the last bit of a processor's results
MARKS_IN_LATEX = {DAGGER: r"$^{\dagger}$", BELOW_FLOOR: r"$^{\ddagger}$"}
SAMPLES_ROW = ("", "Samples")  # the row of a table that counts them

_LEGEND = (
    "Means over samples and seeds; in square brackets, for all categories together, the 95% interval over dialogues and, where there "
    "are several, seeds; in parentheses the paper's number for the same system and category, where it has one. Bold: a collaboration "
    "that is better than its base by this metric, tested over dialogues and runs, with Holm's correction for all collaborations and tasks (p < 0.05)."
)
_LEGEND_RESPOND = (
    " The paper heads its total of this table All 3 categories, but Chinese-Alpaca's is below each of its three numbers and "
    "so averages more than these; it stands beside our total of all five."
)
_LIKE_A_TOTAL = re.compile(r"All \d+")


def category_name(domain: str) -> str:
    """English name of a U-NEED category; any other domain keeps its own, said to be one where it reads like a total."""
    return f"{domain} (category)" if _LIKE_A_TOTAL.fullmatch(domain) else CATEGORIES.get(domain, domain)


def category_names(scores: pd.DataFrame) -> list[str]:
    """Names of the categories in ``scores``: U-NEED's in the order of the paper's columns, then others, largest first."""
    sizes = scores.drop_duplicates("sample_id")["domain"].map(category_name).value_counts()
    known = [name for name in CATEGORIES.values() if name in sizes.index]
    others = sizes.drop(known).rename_axis("name").reset_index().sort_values(["count", "name"], ascending=[False, True])
    return known + others["name"].tolist()


def total_name(categories: list[str]) -> str:
    """Heading of the column over all categories."""
    return f"All {len(categories)}"


def paper_numbers(human: bool = False) -> pd.DataFrame:
    """The paper's Tables 1-4: ``task, name, category, metric, paper``, tasks and metrics by our names.

    With ``human`` the ratings of Table 4 alone (``Rel``, ``Info``, 1 to 5), else all but these. NaN where the paper has a dash (an LLM named
    one item: no Hit@5, MRR@5).
    """
    numbers = pd.read_csv(Path(__file__).with_name("paper_tables.csv"))
    tasks = {table.number: task for task, table in TABLES.items()}
    numbers["task"] = numbers["table"].map(tasks)
    numbers["metric"] = numbers["metric"].replace(PAPER_METRICS)
    # The total of Table 4 is called All 3 but cannot be one (see _LEGEND_RESPOND).
    numbers["category"] = numbers["category"].mask(numbers["category"].str.startswith("All "), total_name(list(CATEGORIES)))
    numbers = numbers[numbers["metric"].isin(["Rel", "Info"]) == human]
    return numbers.rename(columns={"system": "name", "value": "paper"})[["task", "name", "category", "metric", "paper"]]


def metrics_table(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every metric of every system in every category and in all together; a system that the registry does not know is one of ``OTHERS``.

    Args:
        scores: what ``metrics.score`` returns, and below it, if wanted, what ``metrics.score_catalogue`` does.
        health: what ``health.answer_health`` returns for the answers; ``None`` if they are not at hand.

    Returns:
        One row per (task, system, category, metric), in the order of the tables: ``task, system, name, group, category,
        metric, value, low, high, paper, n, seeds, collapsed, below_floor, better``. ``value`` is the mean over samples and seeds, ``low`` and ``high`` its 95%
        interval over dialogues and seeds, within 0 and 1 (NaN for a single dialogue), ``paper`` the paper's number or NaN, ``n`` the number
        of samples, ``seeds`` that of runs and ``collapsed`` that of the runs that have collapsed in the task (NA without ``health``).
        ``below_floor`` holds where the total of the task's headline metric is lower than that of the best floor (NA without a floor).
        A category without samples of the task has n = 0 and NaN values. ``better`` holds where ``gains`` finds a
        collaboration better than its base beyond doubt, for the total of the task's headline metric.
    """
    table = summaries(scores, health=health)
    total = table["category"].iloc[-1]
    better = gains(scores, health).query("holds and gain > 0")
    key = pd.MultiIndex.from_frame(table[["task", "name", "metric", "category"]])
    table["better"] = key.isin(list(zip(better["task"], better["system"], better["metric"], [total] * len(better))))
    table["better"] &= table["group"] != OTHERS  # which may bear a collaboration's name
    return table


def summaries(scores: pd.DataFrame, detailed: Collection[str] | None = None, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """What ``metrics_table`` returns without ``better``, the categories of the systems ``detailed`` only (``None``: of all)."""
    categories = category_names(scores)
    total = total_name(categories)
    names = scores["domain"].map(category_name)
    paper = paper_numbers()
    if set(categories) != set(CATEGORIES.values()):  # a total over other categories is another quantity
        paper = paper[paper["category"].isin(categories)]
    rows = []
    for task in TABLES:
        in_task = scores["task"] == task
        if not in_task.any():
            continue
        found = {}
        for category in [*categories, total]:
            chosen = scores.loc[in_task if category == total else in_task & (names == category), [*PAIRED_BY, *METRICS[task]]]
            if detailed is not None and category != total:
                chosen = chosen[chosen["system"].isin(detailed)]
            found |= {(key, category): summary for key, summary in _summaries(chosen, METRICS[task]).items()}
        for key, group, name in rows_of(scores[in_task]):
            for category in [*categories, total] if detailed is None or key in detailed else [total]:
                about = {"task": task, "system": key, "name": name, "group": group, "category": category}
                nothing = [{"metric": metric, "value": nan, "low": nan, "high": nan, "n": 0, "seeds": 0} for metric in METRICS[task]]
                rows += [about | summary for summary in found.get((key, category), nothing)]
    table = pd.DataFrame(rows).merge(paper, on=["task", "name", "category", "metric"], how="left")
    table["paper"] = table["paper"].mask(table["group"] == OTHERS)  # the paper's ChatGLM is not anybody's
    runs = pd.MultiIndex.from_frame(table[["system", "task"]])
    table["collapsed"] = collapsed_seeds(health).reindex(runs).astype("Int64").array
    judged = (table["category"] == total) & (table["metric"] == table["task"].map(HEADLINE))
    floors = table["group"] == "Floor"
    best = table[judged & floors].groupby("task")["value"].max()
    floor = table["task"].map(best)
    below = judged & ~floors & (table["value"].round(DIGITS) < floor.round(DIGITS))
    table["below_floor"] = below.astype("boolean").mask(floor.isna())
    columns = ["task", "system", "name", "group", "category", "metric", "value", "low", "high", "paper", "n", "seeds", "collapsed", "below_floor"]
    return table[columns]


def task_table(task: str, metrics: pd.DataFrame) -> pd.DataFrame:
    """One of Tables 1-4 in the paper's layout, as text ready to show.

    Args:
        metrics: what ``metrics_table`` returns.

    Returns:
        Rows (group, name), the first of them the number of samples; columns (category, metric), categories first, then their
        total. A cell is our value, in the total column with its interval in square brackets, and in parentheses the paper's
        number; ``–`` where a category has no samples of the task; ``**`` around what is ``better``; ``health.DAGGER`` after every value
        of a system that has ``collapsed`` in the task; ``BELOW_FLOOR`` after what is ``below_floor``. Of many categories the first
        ``SHOWN_CATEGORIES`` are shown.
    """
    *categories, total = metrics["category"].unique()
    first, *_ = shown = TABLES[task].metrics
    narrow = categories[:SHOWN_CATEGORIES] if TABLES[task].by_category else []
    columns = pd.MultiIndex.from_product([[*narrow, total], shown], names=["category", "metric"])
    rows = metrics[(metrics["task"] == task) & metrics["metric"].isin(shown)]
    counts = dict(zip(rows["category"], rows["n"]))
    samples = [str(counts.get(category, 0)) if metric == first else "" for category, metric in columns]
    header = pd.DataFrame([samples], index=pd.MultiIndex.from_tuples([SAMPLES_ROW], names=["group", "name"]), columns=columns)
    cells = rows.assign(cell=[_cell(row, row.category == total) for row in rows.itertuples()])
    wide = cells.pivot(index=["group", "name"], columns=["category", "metric"], values="cell")
    order = pd.MultiIndex.from_frame(rows[["group", "name"]].drop_duplicates())
    return pd.concat([header, wide.reindex(index=order, columns=columns)])


def headline(scores: pd.DataFrame) -> pd.DataFrame:
    """One line per task (and system, where there are several): its ``HEADLINE`` metric, the mean and the number of samples."""
    rows = [
        {"task": task, "system": key, "metric": metric, "value": round(part[metric].mean(), 3), "samples": len(part)}
        for task, metric in HEADLINE.items()
        for key, part in scores[scores["task"] == task].groupby("system", sort=False)
    ]
    table = pd.DataFrame(rows).set_index("task")
    return table if table["system"].nunique() > 1 else table.drop(columns="system")


def disliked_first(scores: pd.DataFrame) -> pd.DataFrame:
    """How often each system puts an item first that the shopper disliked in the end, where there are such candidates; lower is better.

    Returns:
        One row per system, in the order of the tables: ``system, name, group, metric, value, low, high, n``, as in ``metrics_table``,
        for all categories together. No rows if the corpus tells of no dislikes.
    """
    asked = scores[scores[DISLIKED_FIRST].notna()] if DISLIKED_FIRST in scores else scores[:0]
    if asked.empty:
        return pd.DataFrame(columns=["system", "name", "group", "metric", "value", "low", "high", "n"])
    found = _summaries(asked, (DISLIKED_FIRST,))
    rows = [{"system": key, "name": name, "group": group} | summary for key, group, name in rows_of(asked) for summary in found[key]]
    return pd.DataFrame(rows)[["system", "name", "group", "metric", "value", "low", "high", "n"]]


def collaborations(scores: pd.DataFrame) -> list[System]:
    """The collaborations in ``scores``, in the order of the tables' rows."""
    present = set(scores["system"])
    return [system for key, system in SYSTEMS.items() if system.base and key in present]


def gains(scores: pd.DataFrame, health: pd.DataFrame | None = None) -> pd.DataFrame:
    """Gain of each collaboration over its base on each task's ``HEADLINE`` metric.

    Args:
        scores: what ``metrics.score`` returns.
        health: what ``health.answer_health`` returns for the answers; ``None`` if they are not at hand.

    Returns:
        One row per collaboration and task: names ``system`` and ``over``, ``direction, task, metric``, names of those of the pair, its base
        and its assistant that have ``collapsed`` in the task, ``gain``, its 95% interval over dialogues and seeds ``low, high``, the p-value
        of no gain ``p`` and corrected for the number of tested rows ``p (Holm)``, and ``holds``, whether that is below 0.05. Where
        somebody has collapsed the gain is not tested: it does not count in the correction and its ``p (Holm)`` is NaN. p is NaN as well where
        nothing can be tested (``statistics.mean_intervals``).
    """
    rows, fallen = [], collapsed_runs(health)
    for task, metric in HEADLINE.items():
        part = scores.loc[scores["task"] == task, [*PAIRED_BY, metric]]
        systems = collaborations(part)
        pairs = [(system.key, system.base) for system in systems]
        found = paired_gains(part, pairs, metric, kinds_of(systems, task, fallen))
        for system, values in zip(systems, found):
            about = {"system": system.name, "over": system_of(system.base).name, "direction": system.group}
            about |= {"collapsed": collapsed_behind(system, task, fallen)}
            rows.append(about | {"task": task, "metric": metric} | dict(zip(("gain", "low", "high", "p"), values)))
    table = pd.DataFrame(rows, columns=["system", "over", "direction", "task", "metric", "collapsed", "gain", "low", "high", "p"])
    table["p (Holm)"] = holm_of_healthy(table["p"], table["collapsed"])
    return table.assign(holds=table["p (Holm)"] < SIGNIFICANT)


def read_markdown(task: str, folder: str | Path) -> str:
    """The Markdown table of a task that ``write_tables`` wrote."""
    return (Path(folder) / f"table{TABLES[task].number}.md").read_text(encoding="utf-8")


SUMMARY = (("understand", "F1"), ("elicit", "F1"), ("recommend", "Acc"), ("recommend", "MRR@5"), ("respond", "Dist-1"), ("respond", "BLEU-2"))


def summary_markdown(metrics: pd.DataFrame) -> str:
    """One Markdown table for a README: a row per system, the totals of ``SUMMARY`` with their intervals, and ``legend_of_marks``."""
    total = metrics["category"].iloc[-1]
    rows = metrics[metrics["category"] == total].set_index(["system", "task", "metric"])
    lines = ["| | " + " | ".join(f"{task}<br>{metric}" for task, metric in SUMMARY) + " |"]
    lines.append("| :--- |" + " ---: |" * len(SUMMARY))
    for key, _, name in rows_of(metrics):
        cells = [rows.loc[(key, *what)] if (key, *what) in rows.index else None for what in SUMMARY]
        shown = ["" if cell is None else f"{cell['value']:.3f}{_marks(cell)}<br><sub>{cell['low']:.3f}–{cell['high']:.3f}</sub>" for cell in cells]
        name = markdown_text(name).replace("|", "\\|")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    legend = legend_of_marks(metrics[metrics["task"].isin([task for task, _ in SUMMARY])])
    return "\n".join([*lines, "", markdown_text(legend)] if legend else lines)


def legend_of_marks(metrics: pd.DataFrame) -> str:
    """What ``health.DAGGER`` and ``BELOW_FLOOR`` mean in a table of these rows; ``""`` if neither is there."""
    about = "The task's main metric, in total, is lower than the best floor's. This difference is not tested."
    below = f"{BELOW_FLOOR} {about}" if metrics["below_floor"].eq(True).any() else ""
    return " ".join(filter(None, [collapsed_legend(metrics), below]))


def collapsed_legend(metrics: pd.DataFrame) -> str:
    """What ``health.DAGGER`` means in a table of these rows: who has collapsed, and with how many seeds; ``""`` if nobody has."""
    if metrics["collapsed"].isna().any():
        return "Whether a run has collapsed is not known here, since its answers are not at hand."
    runs = metrics[metrics["collapsed"] > 0].groupby(["name", "task"], sort=False)[["collapsed", "seeds"]].max().reset_index()
    if runs.empty:
        return ""
    runs["text"] = [f"{row.task} {row.collapsed} of {row.seeds}" for row in runs.itertuples()]
    named = "; ".join(f"{name}: {', '.join(part)}" for name, part in runs.groupby("name", sort=False)["text"])
    return (
        f"{DAGGER} Collapsed: the same few answers whatever the question, in at least one seed ({named}). No finding rests on it: "
        "a gain is not tested, nor counted in Holm's correction, where the pair, its base or its assistant has collapsed."
    )


def write_tables(metrics: pd.DataFrame, folder: str | Path, corpus_note: str) -> None:
    """Write ``table1`` to ``table4`` as ``.md``, ``.tex`` and ``.csv`` and all metrics as ``metrics.csv``.

    The Markdown and LaTeX files hold ``task_table``; the CSV files are long, have six digits and hold every category. A file
    appears under its name only when it is whole.

    Args:
        metrics: what ``metrics_table`` returns.
        folder: made where it is missing.
        corpus_note: which corpus the numbers are on and whether the paper's compare; stands above each table.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "metrics.csv", csv_text(metrics))
    for task, table in TABLES.items():
        long = metrics[(metrics["task"] == task) & metrics["metric"].isin(table.metrics)].drop(columns="task")
        wide = task_table(task, metrics)
        title = f"Table {table.number}: {table.title}"
        corpus, note = corpus_note.rstrip("."), _LEGEND
        if task == "respond" and long.loc[long["category"] == total_name(list(CATEGORIES)), "paper"].notna().any():
            note += _LEGEND_RESPOND
        hidden = table.by_category and metrics["category"].nunique() - wide.columns.get_level_values("category").nunique()
        if hidden:
            note += f" {hidden} smaller categories are counted in the total and listed in the CSV file only."
        legend = legend_of_marks(long.assign(task=task))
        stem = folder / f"table{table.number}"
        write_atomically(stem.with_suffix(".csv"), csv_text(long))
        write_atomically(stem.with_suffix(".md"), _markdown(wide, title, f"{markdown_text(corpus)}. {note} {markdown_text(legend)}".rstrip()))
        write_atomically(stem.with_suffix(".tex"), _latex(wide, title, f"{corpus}. {note} {legend}".rstrip()))


def rows_of(scores: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(key, group, name) of every system with scores, in the order of the rows of the tables."""
    keys = set(scores["system"])
    rows = [(key, *about) for key, about in BOUNDS.items() if key in keys]
    rows += [(key, system.group, system.name) for key, system in SYSTEMS.items() if key in keys]
    others = {key: control_name(key) for key in sorted(keys.difference(BOUNDS, SYSTEMS))}
    rows += [(key, WITHOUT_TRAINING if name else OTHERS, name or key) for key, name in others.items()]
    return sorted(rows, key=lambda row: GROUPS.index(row[1]))


def _summaries(scores: pd.DataFrame, metrics: tuple[str, ...]) -> dict[str, list[dict]]:
    """For each system in ``scores`` a row per metric: ``metric, value, low, high, n, seeds``. What varies from run to run is pooled within a family."""
    members = dict(list(scores.groupby("system")))
    quantities = [(part[list(metrics)], part["sid"], part["seed"]) for part in members.values()]
    kinds = [SYSTEMS[key].family if key in SYSTEMS else key for key in members]
    found = {}
    for (key, part), (value, low, high, _) in zip(members.items(), mean_intervals(quantities, kinds, [runs_of(key) for key in members])):
        size = {"n": part["sample_id"].nunique(), "seeds": part["seed"].nunique()}
        columns = zip(metrics, value.tolist(), low.clip(0, 1).tolist(), high.clip(0, 1).tolist())
        found[key] = [dict(zip(("metric", "value", "low", "high"), row)) | size for row in columns]
    return found


def csv_text(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n", float_format=f"%.{DIGITS}f")


def _cell(row, with_interval: bool) -> str:
    if pd.isna(row.value):
        return NOTHING
    interval = f" [{row.low:.3f}, {row.high:.3f}]" if with_interval and pd.notna(row.low) else ""
    paper = f" ({row.paper:.3f})" if pd.notna(row.paper) else ""
    value = f"**{row.value:.3f}**" if row.better else f"{row.value:.3f}"
    return f"{value}{_marks(row)}{interval}{paper}"


def _marks(row) -> str:
    """``health.DAGGER`` if any run has collapsed, ``BELOW_FLOOR`` if the value is below the best floor's. Neither if that is not known (NA)."""
    known = [(mark, value) for mark, value in ((DAGGER, row.collapsed), (BELOW_FLOOR, row.below_floor)) if pd.notna(value)]
    return "".join(mark for mark, value in known if value > 0)


def markdown_lines(corner: str, columns, rows) -> list[str]:
    """A GitHub table: its header, the first column to the left and all others to the right, and ``rows`` of cells.

    ``DataFrame.to_markdown`` writes another text: it pads each column to its longest cell and escapes no bar.
    """
    header = [corner, *columns]
    ruler = "| :--- |" + " ---: |" * (len(header) - 1)
    first, *others = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |" for cells in (header, *rows)]
    return [first, ruler, *others]


def _markdown(wide: pd.DataFrame, title: str, note: str) -> str:
    """A GitHub table; its one header row names category and metric, and each group has a row of its own."""
    rows = []
    for group, block in wide.groupby(level="group", sort=False):
        if group:
            rows.append([f"*{group}*", *[""] * len(wide.columns)])
        rows += [[markdown_text(name), *cells] for (_, name), cells in zip(block.index, block.to_numpy())]
    lines = markdown_lines("System", [f"{markdown_text(category)}<br>{metric}" for category, metric in wide.columns], rows)
    return "\n".join([f"# {title}", "", note, "", *lines, ""])


def _latex(wide: pd.DataFrame, title: str, note: str) -> str:
    """A booktabs table as wide as the page (needs ``booktabs`` and ``graphicx``)."""
    bold = wide.map(lambda cell: _marks_in_latex(re.sub(r"\*\*(.*?)\*\*", r"\\textbf{\1}", cell))).rename(index=latex_text, columns=latex_text)
    tabular = bold.rename_axis(index=[None, None], columns=[None, None]).to_latex(
        escape=False, multicolumn_format="c", multirow=False, column_format="ll" + "r" * len(wide.columns)
    )
    caption = _marks_in_latex(latex_text(f"{title.partition(': ')[2]}. {note}"))
    lines = ["\\begin{table*}", "\\centering", f"\\caption{{{caption}}}", "\\resizebox{\\textwidth}{!}{%"]
    return "\n".join([*lines, tabular.rstrip(), "}", "\\end{table*}", ""])


def _marks_in_latex(text: str) -> str:
    for mark, command in MARKS_IN_LATEX.items():
        text = text.replace(mark, command)
    return text
