"""Compares two runs: what B gains over A by task and category, and the answers that changed.

    python -m llmcrs_utils.study.compare A B [--output changes.csv] [--limit 10] [--study FOLDER] [--language zh]

A and B are folders of runs/ or results/, folders of predictions, or files with one system's predictions.
Exit code: 0 if they were compared, else 2.
"""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from llmcrs_utils.evaluation.health import answer_health, collapsed_among, collapsed_runs, holm_of_healthy
from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.evaluation.pairs import gains_of_pairs, testable, with_same_seeds
from llmcrs_utils.evaluation.tables import category_name, category_names
from llmcrs_utils.evaluation.wording import NOT_TESTED, write_rounded
from llmcrs_utils.study.foreign import read_answers, to_predictions
from llmcrs_utils.study.score import STUDY, exit_code, gains_text, language_of, register_models_of, screen_width, study_samples
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import SYSTEMS
from llmcrs_utils.text.prompts import PROMPTS, prompts_of

WIDEST = 60  # most terminal columns of an answer
LABELS = ["task", "sid", "domain", "label"]


def read_side(path: str, study: str | None, language: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test samples and test predictions of one side.

    Args:
        path: folder of a run or of results, folder of predictions, or file with one system's predictions.
        study: folder whose samples were answered. ``None``: the folder that contains the path, or ``STUDY`` for a file outside
            of any.
        language: language of the samples; ``None``: the language of their labels.

    Raises:
        ValueError, OSError: for what is missing or wrong; names it.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; give a run, a folder of predictions or a file of one system")
    samples = _samples_of(place, study)
    samples = samples[samples["split"] == "test"]
    if place.is_dir():
        predictions = read_predictions(place / "predictions" if (place / "predictions").is_dir() else place)
        return samples, predictions[predictions["split"] == "test"]
    answers = read_answers(path)
    answers = answers[answers["split"] == "test"] if "split" in answers else answers
    if "candidates" not in samples:
        samples = samples.assign(candidates=None)
    predictions = to_predictions(answers, path, samples, prompts_of(language or language_of(samples)))
    systems = predictions["system"].nunique()
    if systems > 1:
        raise ValueError(f"{path}: holds {systems} systems; give a file of one")
    return samples, predictions


def _samples_of(place: Path, study: str | None) -> pd.DataFrame:
    for folder in [Path(study)] if study else [*([place] if place.is_dir() else []), *place.resolve().parents[:2]]:
        if any((folder / name).is_file() for name in ("samples.parquet", "data/samples.parquet")) or study:
            register_models_of(folder)
            return study_samples(folder)
    if place.is_dir():
        raise FileNotFoundError(f"{place}: no samples.parquet there or above; name the folder with the samples by --study")
    return study_samples(STUDY)


def check_samples(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Check that both sides have the same samples.

    Raises:
        ValueError: names the first sample that only one side has, or whose labels differ.
    """
    ours, theirs = one.set_index("sample_id"), other.set_index("sample_id")
    for side, ids, others in (("A", ours.index, theirs.index), ("B", theirs.index, ours.index)):
        left = ids.difference(others, sort=False)
        if len(left):
            raise ValueError(f"{left[0]}: a test sample of {side} only ({len(left)} such samples); compare runs on the same data")
    theirs = theirs.loc[ours.index]
    for field in LABELS:
        differs = ours[field] != theirs[field]
        if differs.any():
            first = differs.idxmax()
            values = f"{ours.loc[first, field]!r} in A and {theirs.loc[first, field]!r} in B"
            raise ValueError(f"{first}: its {field} is {values} ({differs.sum()} such samples); compare runs on the same data")


def matched(one: pd.DataFrame, other: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of systems to compare, as (A's, B's), in the order of the tables' rows.

    These are the systems with the same name. If each side has only one system, these two are compared whatever their names.

    Raises:
        ValueError: if there is no pair.
    """
    ours, theirs = sorted(one["system"].unique()), sorted(other["system"].unique())
    shared = [name for name in ours if name in theirs]
    if shared:
        order = [*SYSTEMS, *shared]
        return [(name, name) for name in sorted(shared, key=order.index)]
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    raise ValueError(
        f"no system is in both: A has {', '.join(ours)}; B has {', '.join(theirs)}; compare two files of one system each"
    )


def compare(
    one: pd.DataFrame,
    other: pd.DataFrame,
    pairs: list[tuple[str, str]],
    moved: Collection[tuple[str, str]],
    collapsed: Collection[tuple[str, str]] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gains of B over A on each task's ``HEADLINE`` metric, over all categories and in each.

    Args:
        one: A's scores, as ``metrics.score`` returns them.
        other: B's scores.
        pairs: pairs of systems from ``matched``.
        moved: (``pair_name``, task) of the pairs with changed answers. Pairs without a changed answer are left out.
        collapsed: (system, task) that has collapsed in A or B (``health.collapsed_runs``); its gain is not tested.

    Returns:
        Two tables with ``system, task, [category,] metric, A, B, collapsed, gain, low, high, p, p (Holm)`` and ``note`` (on the seeds). In
        the first table Holm's correction is for all rows. In the second, by category, it is for all rows of a system.
    """
    names, places = [], category_names(one)
    for task, metric in HEADLINE.items():
        for system, counterpart in pairs:
            theirs = one[(one["system"] == system) & (one["task"] == task)]
            ours = other[(other["system"] == counterpart) & (other["task"] == task)]
            about = {"system": pair_name(system, counterpart), "task": task, "metric": metric}
            about["collapsed"] = collapsed_among((system, counterpart), task, collapsed)
            if len(ours) and len(theirs) and (about["system"], task) in moved:
                about["testable"] = testable(ours, theirs)
                names.append((about, *with_same_seeds(ours, theirs), system))
    totals = _gains([(about | {"note": note}, ours, theirs, _kind(key)) for about, ours, theirs, note, key in names])
    totals["p (Holm)"] = holm_of_healthy(totals["p"], totals["collapsed"])
    rows = []
    for about, ours, theirs, note, key in names:
        for category in places:
            part, base = (scores[scores["domain"].map(category_name) == category] for scores in (ours, theirs))
            if len(part):
                rows.append((about | {"category": category, "note": note}, part, base, _kind(key) + (category,)))
    by_category = _gains(rows)
    by_category["p (Holm)"] = float("nan")
    for _, part in by_category.groupby("system"):
        by_category.loc[part.index, "p (Holm)"] = holm_of_healthy(part["p"], part["collapsed"])
    columns = ["metric", "A", "B", "collapsed", "gain", "low", "high", "p", "p (Holm)", "note"]
    return totals[["system", "task", *columns]], by_category[["system", "task", "category", *columns]]


def _kind(key: str) -> tuple:
    """The group whose systems are assumed to vary alike from seed to seed: those of one family."""
    return (SYSTEMS[key].family if key in SYSTEMS else key,)


def _gains(rows: list[tuple]) -> pd.DataFrame:
    """A table of the rows (about, B's scores, A's scores, kind) with means, gain, interval and p."""
    table, gains = pd.DataFrame([about for about, *_ in rows]), {}
    for metric in dict.fromkeys(about["metric"] for about, *_ in rows):
        chosen = [place for place, (about, *_) in enumerate(rows) if about["metric"] == metric]
        kinds = [(rows[place][0]["task"], *rows[place][3]) for place in chosen]
        gains |= dict(zip(chosen, gains_of_pairs([rows[place][1:3] for place in chosen], metric, kinds)))
    for column, side in (("A", 2), ("B", 1)):
        table[column] = [row[side][row[0]["metric"]].mean() for row in rows]
    for place, column in enumerate(("gain", "low", "high", "p")):
        table[column] = [gains[row][place] for row in range(len(rows))]
    table["p"] = table["p"].where(table.pop("testable").astype(bool))
    return table


def pair_name(system: str, counterpart: str) -> str:
    return system if system == counterpart else f"{counterpart} over {system}"


def changed_answers(
    samples: pd.DataFrame, sides: list[tuple[pd.DataFrame, pd.DataFrame]], pairs: list[tuple[str, str]]
) -> pd.DataFrame:
    """The answers that differ between A and B, those with the largest change of score first.

    Runs with the same seed are compared. If each side has a single run, these are compared whatever their seeds.

    Args:
        samples: the test samples.
        sides: predictions and scores of A, and of B.
        pairs: pairs of systems from ``matched``.

    Returns:
        ``system, seed, sample_id, task, category, asked, gold, A, B, metric, score A, score B, change``. An unusable answer is
        empty. A ranking is its items joined by ``；``. ``asked`` is the current turn, empty if the samples do not hold it.
    """
    about = samples.assign(asked=samples["current"].map(" ".join) if "current" in samples else "")
    about = about.assign(category=about["domain"].map(category_name)).rename(columns={"label": "gold"})
    about = about[["sample_id", "task", "category", "asked", "gold"]]
    parts = []
    for systems in pairs:
        one, other = (_answers(*side, system) for side, system in zip(sides, systems))
        if one["seed"].nunique() == other["seed"].nunique() == 1:
            other["seed"] = one["seed"].iloc[0]  # a single run on each side, so their seeds may differ
        both = one.merge(other, on=["seed", "sample_id"], suffixes=(" A", " B"))
        both = both[both["answer A"] != both["answer B"]]
        parts.append(both.assign(system=pair_name(*systems)))
    table = pd.concat(parts).merge(about, on="sample_id").rename(columns={"answer A": "A", "answer B": "B"})
    table["metric"] = table["task"].map(HEADLINE)
    table["change"] = table["score B"] - table["score A"]
    order = table["change"].abs().sort_values(ascending=False, kind="stable").index
    columns = [
        "system",
        "seed",
        "sample_id",
        "task",
        "category",
        "asked",
        "gold",
        "A",
        "B",
        "metric",
        "score A",
        "score B",
        "change",
    ]
    return table.loc[order, columns].reset_index(drop=True)


def _answers(predictions: pd.DataFrame, scores: pd.DataFrame, system: str) -> pd.DataFrame:
    """``seed, sample_id, answer, score`` of a system."""
    chosen = predictions[predictions["system"] == system]
    ranked = chosen["ranking"].map(lambda ranking: "；".join(ranking or []))
    texts = ranked.where(ranked != "", chosen["text"]).where(chosen["valid"].astype(bool), "").fillna("")
    answers = chosen[["seed", "sample_id"]].assign(answer=texts)
    scored = scores[scores["system"] == system]
    values = pd.concat([part[HEADLINE[task]] for task, part in scored.groupby("task")])
    return answers.merge(scored[["seed", "sample_id"]].assign(score=values), on=["seed", "sample_id"])


def changes_text(changes: pd.DataFrame, limit: int) -> str:
    """The first ``limit`` changed answers as text, one below the other."""
    lines = []
    for row in changes.head(limit).to_dict("records"):
        scores = f"{row['metric']} {row['score A']:.3f} -> {row['score B']:.3f}"
        lines.append(f"{row['sample_id']}  {row['system']}, seed {row['seed']}  {scores}")
        lines += [f"    {name:5} {one_line(row[name])}" for name in ("asked", "gold", "A", "B") if name != "asked" or row[name]]
    return "\n".join(lines)


def one_line(text: str) -> str:
    """The text on one line, cut to the width ``WIDEST``. An empty text becomes a remark."""
    line = "".join(character if character.isprintable() else " " for character in text)
    if screen_width(line) > WIDEST:
        while screen_width(line) > WIDEST - 1:
            line = line[:-1]
        line += "…"
    return line or "(no usable answer)"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmcrs_utils.study.compare", description=__doc__.split("\n")[0])
    for side in ("A", "B"):
        parser.add_argument(side, help="folder of runs/ or results/, folder of predictions, or file of one system")
    parser.add_argument("--output", metavar="FILE.csv", help="file for all changed answers")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="changed answers to show (default: %(default)s)")
    parser.add_argument(
        "--study", metavar="FOLDER", help=f"folder whose samples were answered (default: the folder of A or B, else {STUDY})"
    )
    parser.add_argument("--language", choices=sorted(PROMPTS), help="language of the samples (default: that of their labels)")
    return exit_code(parser, run, arguments)


def run(chosen: argparse.Namespace) -> None:
    """Run the command with parsed arguments. Raises ValueError or OSError with the message to show."""
    (samples, ours), (others, theirs) = (read_side(path, chosen.study, chosen.language) for path in (chosen.A, chosen.B))
    check_samples(samples, others)
    samples = samples if "current" in samples else others
    language = chosen.language or language_of(samples)
    pairs = matched(ours, theirs)
    sides = []
    for predictions, systems in zip((ours, theirs), zip(*pairs)):
        kept = predictions[predictions["system"].isin(systems)]
        sides.append((kept, score(samples, kept, language)))
    changes = changed_answers(samples, sides, pairs)
    counted = changes.groupby(["system", "task"], sort=False).size()

    print(f"A: {chosen.A}\nB: {chosen.B}")
    for side, predictions, systems in zip("AB", (ours, theirs), zip(*pairs)):
        left = sorted(set(predictions["system"]) - set(systems))
        if left:
            print(f"only in {side}, not compared: {', '.join(left)}")
    same = [pair_name(*systems) for systems in pairs if pair_name(*systems) not in set(changes["system"])]
    if same:
        print(f"without a changed answer: {', '.join(same)}")
    if len(changes):
        collapsed = set().union(*(collapsed_runs(answer_health(samples, kept, language)) for kept, _ in sides))
        totals, by_category = compare(sides[0][1], sides[1][1], pairs, set(counted.index), collapsed)
        tested = totals["p (Holm)"].notna().sum()
        print(f"\nGains of B over A with 95% intervals over dialogues and seeds; * p < 0.05 after Holm's correction for the {tested} that can be tested{NOT_TESTED}")
        print(_shown(totals))
        for note, part in totals[totals["note"] != ""].groupby("note", sort=False):
            print(f"{', '.join(dict.fromkeys(part['system']))}: {note}")
        print("\nBy category; * p < 0.05 after Holm's correction for the tested rows of a system")
        print(_shown(by_category))
        print(
            f"\n{len(changes)} answers changed: {', '.join(f'{name} {task} {count}' for (name, task), count in counted.items())}"
        )
        print(changes_text(changes, chosen.limit))
    if len(changes) > chosen.limit and not chosen.output:
        print(f"{len(changes) - chosen.limit} more; write all by --output FILE.csv")
    if chosen.output:
        write_rounded(changes, chosen.output)
        print(f"written: {chosen.output}")


def _shown(table: pd.DataFrame) -> str:
    return gains_text(table.assign(A=table["A"].map("{:.3f}".format), B=table["B"].map("{:.3f}".format)))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.exit(main(sys.argv[1:]))
