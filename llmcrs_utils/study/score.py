"""Scores answers of other software on the samples of a study, and shows them beside the study's systems.

    python -m llmcrs_utils.study.score PREDICTIONS [--study results/study-cpu] [--against KEY ...] [--name NAME] [--output FOLDER]

PREDICTIONS is a table with sample_id and text or ranking: Parquet, CSV or JSON lines (docs/score.md). Exit code: 0 if it was
scored, else 2.
"""

import argparse
import sys
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.health import DAGGER, GAIN_NOTE, answer_health, collapsed_among, collapsed_runs, holm_of_healthy
from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.evaluation.pairs import gains_of_pairs, testable, with_same_seeds
from llmcrs_utils.evaluation.tables import (
    BOUNDS,
    NOTHING,
    TABLES,
    legend_of_marks,
    metrics_table,
    summaries,
    task_table,
    write_tables,
)
from llmcrs_utils.evaluation.wording import NOT_TESTED, write_rounded
from llmcrs_utils.files.atomic import read_json_or_none
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.study.foreign import read_answers, to_predictions, unread_columns, with_candidates
from llmcrs_utils.systems.predictions import SCHEMA, read_predictions
from llmcrs_utils.systems.registry import FLOORS, ORACLE, SYSTEMS, TASKS, register
from llmcrs_utils.text.prompts import PROMPTS, has_chinese, parse_attributes, prompts_of

STUDY = "results/study-cpu"
PROFILE_FILE = "profile.json"  # in a run's folder: the profile as the workflow got it
DONE, NOT_DONE = 0, 2
SET_EXAMPLE = "颜色：黑；尺码：43"


def study_samples(folder: str | Path) -> pd.DataFrame:
    """The samples of a results folder (``samples.parquet``) or of a run's folder (``data/samples.parquet``).

    Raises:
        FileNotFoundError: if the folder has neither file.
    """
    places = [Path(folder) / "samples.parquet", Path(folder) / "data" / "samples.parquet"]
    files = [place for place in places if place.is_file()]
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name one of results/ or runs/")
    if not files and (Path(folder) / "scores.parquet").is_file():
        raise FileNotFoundError(f"{folder}: holds scores only, because its conversations are not ours to publish; run the study on them and name its folder of runs/")
    if not files:
        raise FileNotFoundError(
            f"{folder}: holds no samples.parquet nor data/samples.parquet; name a folder of results/ or runs/"
        )
    return read_parquet(files[0])


def register_models_of(folder: str | Path) -> None:
    """Register the models of the profile that a run's folder holds, so that its systems have their names and places in tables.

    Raises:
        ValueError: if another model has one of their keys or names.
    """
    register((read_json_or_none(Path(folder) / PROFILE_FILE) or {}).get("models", {}))


def language_of(samples: pd.DataFrame) -> str:
    """The language of the samples' labels: Chinese if any has a Chinese character, else English."""
    texts = samples.loc[samples["task"] != "recommend", "label"]
    return "zh" if texts.map(has_chinese).any() else "en"


def check_names(mine: pd.DataFrame, theirs: pd.DataFrame, path: str) -> None:
    """Check that no new system has the key of a system of the study, or of a row of floors and ceiling.

    Raises:
        ValueError: if one has.
    """
    taken = [name for name in mine["system"].unique() if name in {*theirs["system"], *BOUNDS, *SYSTEMS}]
    if taken:
        raise ValueError(
            f"{path}: {taken[0]!r} is the key of a system that there is already; give another name by --name, or in the column system"
        )


def strongest(scores: pd.DataFrame, task: str) -> list[str]:
    """The best floor and the best trained system of a task by its ``HEADLINE`` metric. The ceiling is left out."""
    means = scores[scores["task"] == task].groupby("system", sort=False)[HEADLINE[task]].mean().drop(ORACLE, errors="ignore")
    floors = means.index.isin(FLOORS)
    return [part.idxmax() for part in (means[floors], means[~floors]) if len(part)]


def gains_over(scores: pd.DataFrame, mine: list[str], against: list[str], single: set[str], collapsed: Collection = ()) -> pd.DataFrame:
    """Paired gains of ``mine`` over others on each task's ``HEADLINE`` metric.

    Args:
        scores: scores of all systems, as ``metrics.score`` returns them.
        mine: the systems whose gains are computed.
        against: keys of the other systems; empty: the strongest floor and, of those that have not collapsed in it, the strongest
            system of each task.
        single: the systems among ``mine`` that recommend only one item per sample. They are compared by Acc.
        collapsed: (system, task), what ``health.collapsed_runs`` returns.

    Returns:
        One row per system, task and other system: ``system, task, metric, over, collapsed, gain, low, high, p, p (Holm), note``.
        As in ``tables.gains``, a gain is not tested where one of the two, or its assistant, has ``collapsed``.
    """
    rows, pairs, kinds = [], [], []
    theirs = scores[~scores["system"].isin(mine)]
    for task in TASKS:
        part = scores[scores["task"] == task]
        for system in mine:
            ours = part[part["system"] == system]
            fallen = [key for key in theirs["system"].unique() if (key, task) in collapsed]
            for other in against or strongest(theirs[~theirs["system"].isin(fallen)], task):
                base = part[part["system"] == other]
                if other == system or ours.empty or base.empty:
                    continue
                *pair, note = with_same_seeds(ours, base)
                metric = "Acc" if task == "recommend" and system in single else HEADLINE[task]
                both = (system, other, SYSTEMS[other].assistant if other in SYSTEMS else None)
                about = {"system": system, "task": task, "metric": metric, "over": other, "note": note}
                rows.append(about | {"collapsed": collapsed_among(both, task, collapsed), "testable": testable(ours, base)})
                pairs.append(tuple(pair))
                kinds.append((system, SYSTEMS[other].family if other in SYSTEMS else other))
    table = pd.DataFrame(rows, columns=["system", "task", "metric", "over", "note", "collapsed", "testable"])
    gains = pd.Series([None] * len(rows), dtype=object)
    for (_, metric), chosen in table.groupby(["task", "metric"]):
        values = gains_of_pairs([pairs[place] for place in chosen.index], metric, [kinds[place] for place in chosen.index])
        gains.loc[chosen.index] = pd.Series(values, chosen.index, dtype=object)
    for place, column in enumerate(("gain", "low", "high", "p")):
        table[column] = [float(values[place]) for values in gains]
    table["p"] = table["p"].where(table["testable"].astype(bool))
    table["p (Holm)"] = holm_of_healthy(table["p"], table["collapsed"])
    return table[["system", "task", "metric", "over", "collapsed", "gain", "low", "high", "p", "p (Holm)", "note"]]


def p_value_text(value: float) -> str:
    return "–" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def gains_text(table: pd.DataFrame) -> str:
    """The gains as text, with a star if the corrected p-value is below 0.05, and ``health.DAGGER`` if somebody has ``collapsed``."""
    shown = table.drop(columns=["low", "high", "note", "collapsed"], errors="ignore")
    marks = ["*" if p < 0.05 else "" for p in table["p (Holm)"]]
    if "collapsed" in table:
        marks = [DAGGER if names else mark for names, mark in zip(table["collapsed"], marks)]
    cells = zip(table["gain"], table["low"], table["high"], marks)
    shown["gain"] = [f"{gain:+.3f}{mark}{interval_text(low, high, '+.3f')}" for gain, low, high, mark in cells]
    for column in ("p", "p (Holm)"):
        shown[column] = table[column].map(p_value_text)
    return as_text(shown)


def interval_text(low: float, high: float, style: str = ".3f") -> str:
    """`` [low, high]``, or ``""`` if there is no interval."""
    return "" if pd.isna(low) else f" [{low:{style}}, {high:{style}}]"


def as_text(table: pd.DataFrame) -> str:
    """The table as text for the terminal. Every column is as wide as its longest cell, and the index is left out."""
    columns = [[str(name), *map(str, table[name])] for name in table]
    widths = [max(map(screen_width, column)) for column in columns]
    lines = ["  ".join(cell + " " * (wide - screen_width(cell)) for cell, wide in zip(row, widths)).rstrip() for row in zip(*columns)]
    return "\n".join(lines)


def screen_width(text: str) -> int:
    """The width of a text in terminal columns. A Chinese character has two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def table_text(task: str, metrics: pd.DataFrame, mine: list[str]) -> str:
    """One of Tables 1-4: the totals of all systems, then the categories of ``mine``."""
    total = metrics["category"].iloc[-1]
    part = metrics[(metrics["task"] == task) & metrics["metric"].isin(TABLES[task].metrics)].assign(better=False)
    in_total = part[part["category"] == total]
    wide = task_table(task, in_total)[total]
    count, rows = wide.iloc[0, 0], wide.iloc[1:].reset_index()[["name", *wide.columns]]
    rows.insert(0, "key", in_total["system"].unique())
    lines = [f"Table {TABLES[task].number}: {TABLES[task].title}, {total}, {count} samples", as_text(rows)]
    for system in mine:
        scored = part[(part["system"] == system) & (part["category"] != total)]
        if len(scored):
            mark = DAGGER if (scored["collapsed"] > 0).any() else ""
            cells = [f"{row.value:.3f}{mark}{interval_text(row.low, row.high)}" if row.n else NOTHING for row in scored.itertuples()]
            by_category = scored.assign(cell=cells).pivot(index="category", columns="metric", values="cell")
            by_category = by_category.reindex(index=scored["category"].unique(), columns=list(TABLES[task].metrics))
            by_category.insert(0, "samples", scored.groupby("category")["n"].first())
            lines += [f"{system} by category", as_text(by_category.reset_index())]
    return "\n".join([*lines, *filter(None, [legend_of_marks(in_total)])])


def unusable_text(scores: pd.DataFrame) -> list[str]:
    """One line per system and task with unusable answers."""
    counted = scores.groupby(["system", "task"], sort=False)["valid"].agg(["size", "sum"])
    return [
        f"{system}, {task}: {row['size'] - row['sum']} of {row['size']} answers are unusable and count as wrong"
        for (system, task), row in counted.iterrows()
        if row["sum"] < row["size"]
    ]


def half_width_text(answers: pd.DataFrame, tasks: dict[str, str], language: str) -> list[str]:
    """One line per system and task of test answers that would be read differently with full-width punctuation."""
    prompts, full_width = prompts_of(language), str.maketrans(":;", "：；")
    if language != "zh":
        return []
    asked = answers["sample_id"].map(tasks)
    texts = answers.assign(task=asked)[asked.isin(["understand", "elicit"]) & (answers["split"] == "test")]
    half = texts[texts["text"].fillna("").map(lambda text: parse_attributes(text, prompts) != parse_attributes(text.translate(full_width), prompts)).astype(bool)]
    return [
        f"{system}, {task}: {count} answers have ':' or ';' where '：' or '；' is meant, so they are misread; write sets as in {SET_EXAMPLE}"
        for (system, task), count in half.groupby(["system", "task"], sort=False).size().items()
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmcrs_utils.study.score", description=__doc__.split("\n")[0])
    options = {
        "--study": {
            "default": STUDY,
            "metavar": "FOLDER",
            "help": "folder of results/ or runs/ whose samples were answered (default: %(default)s)",
        },
        "--against": {
            "nargs": "+",
            "default": [],
            "metavar": "KEY",
            "help": "systems to compare with (default: a task's best floor and best system)",
        },
        "--name": {"default": "", "help": "name of your system (default: the column system, or the file's name)"},
        "--language": {"choices": sorted(PROMPTS), "help": "language of the samples (default: that of their labels)"},
        "--output": {"metavar": "FOLDER", "help": "folder for the predictions, the gains and Tables 1-4 with all systems"},
        "--corpus-note": {"help": "name of the corpus in the written tables (default: the folder of the study)"},
    }
    parser.add_argument(
        "predictions", metavar="PREDICTIONS", help="table with sample_id and text or ranking: .parquet, .csv or .jsonl"
    )
    for name, about in options.items():
        parser.add_argument(name, **about)
    return exit_code(parser, run, arguments)


def exit_code(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], None], arguments: list[str]) -> int:
    """Parse the arguments and run the command. Its errors become one line each and the exit code ``NOT_DONE``."""
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code
    try:
        command(chosen)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_DONE
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        return DONE
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return NOT_DONE
    return DONE


def run(chosen: argparse.Namespace) -> None:
    """Run the command with parsed arguments. Raises ValueError or OSError with the message to show."""
    samples = study_samples(chosen.study)
    register_models_of(chosen.study)
    samples = samples[samples["split"].isin(["train", "valid", "test"])]
    language = chosen.language or language_of(samples)
    theirs = read_predictions(Path(chosen.study) / "predictions")
    theirs = theirs[theirs["split"] == "test"]
    answers = read_answers(chosen.predictions)
    mine = to_predictions(answers, chosen.predictions, with_candidates(samples, theirs), prompts_of(language), chosen.name)
    check_names(mine, theirs, chosen.predictions)
    names = list(mine["system"].unique())
    unknown = [key for key in chosen.against if key not in {*theirs["system"], *names}]
    if unknown:
        keys = ", ".join(sorted(set(theirs["system"])))
        raise ValueError(f"--against {unknown[0]}: no system of {chosen.study}; there are {keys}")

    tasks = dict(zip(samples["sample_id"], samples["task"]))
    answered = set(mine["sample_id"].map(tasks))
    beside = theirs if chosen.output else theirs[theirs["sample_id"].map(tasks).isin(answered)]
    answered_by_all = pd.concat([beside, mine], ignore_index=True)
    scores, health = score(samples, answered_by_all, language), answer_health(samples, answered_by_all, language)
    single = {name for name, part in mine.groupby("system") if part["ranking"].map(len).max() == 1}
    gained = gains_over(scores, names, chosen.against, single, collapsed_runs(health))
    scored = scores[scores["system"].isin(names)]

    print(f"{chosen.predictions}: {len(scored)} test answers of {', '.join(names)}, scored on {chosen.study} ({language})")
    if len(scored) < len(mine):
        print(f"{len(mine) - len(scored)} answers to other splits are not scored")
    if unread_columns(answers):
        print(f"not read: {', '.join(unread_columns(answers))}")
    for line in (*unusable_text(scored), *half_width_text(mine, tasks, language)):
        print(line)
    metrics = metrics_table(scores, health) if chosen.output else summaries(scores, names, health)
    metrics.loc[metrics["system"].isin(single) & (metrics["task"] == "recommend"), "below_floor"] = pd.NA  # its MRR@5 is its Acc
    for task in [task for task in TASKS if task in answered]:
        print(f"\n{table_text(task, metrics, names)}")
        if task == "recommend" and single:
            print(f"{', '.join(sorted(single))}: one item is named, so Hit@5 and MRR@5 equal Acc")
    what = "named by --against" if chosen.against else "that is the strongest floor or the strongest system of the task"
    print(f"\nGains over each system {what}; * p < 0.05 after Holm's correction for the {gained['p (Holm)'].notna().sum()} that can be tested{NOT_TESTED}")
    print(gains_text(gained) if len(gained) else "No system that was named answers a task of yours.")
    for note, part in gained[gained["note"] != ""].groupby("note", sort=False):
        print(f"{', '.join(dict.fromkeys(part['over']))}: {note}")
    if (gained["collapsed"] != "").any():
        print(GAIN_NOTE)
    print("In square brackets: 95% intervals over dialogues and, with several, seeds; in parentheses: the paper's numbers.")
    if chosen.output:
        folder = Path(chosen.output)
        write_parquet(mine, folder / "predictions.parquet", SCHEMA)
        write_rounded(gained, folder / "gains.csv")
        write_rounded(health, folder / "health.csv")
        write_tables(metrics, folder, chosen.corpus_note or f"Samples of {chosen.study}")
        print(f"written: {folder}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.exit(main(sys.argv[1:]))
