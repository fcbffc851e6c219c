"""Do measured results follow what was planted? The synthetic world's knobs decide how far behaviour and needs complement each other."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.evaluation.complementarity import JUDGED_BY, outcomes_alone
from llmcrs_utils.evaluation.controls import controls, pairs_in
from llmcrs_utils.evaluation.figures import LOOKS, figure_title, look_of
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.statistics import mean_interval
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import FLOORS, ORACLE, system_of
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import Knobs, Truth, generate
from llmcrs_utils.world.ceilings import (
    chosen_items,
    expected_scores,
    oracle_predictions,
    read_appeal,
    reader_predictions,
    true_labels,
)
from llmcrs_utils.world.knobs import SPREAD, measures
from llmcrs_utils.world.simulate import TUPLES_PER_ITEM

PLANTED = "planted.csv"
DEFAULTS = vars(Knobs()) | {"tuples_per_item": TUPLES_PER_ITEM}  # what a world may differ in -> its usual value
# Acc of a perfect reader who does not know what the catalogue leaves out, as an LLM does not; a reader of needs knows every fact of an item.
TEXT_READER = "who reads the dialogue and the catalogue"
READERS = {"both": "both", "behaviour only": "only CRS", "needs only": "only LLM", "neither": "neither"}


def write_planted(corpus: Corpus, truth: Truth, samples: pd.DataFrame, path: str | Path) -> None:
    """Write the world's own measures as CSV ``measure, score``: ``knobs.measures`` and ``planted_outcomes``."""
    found = measures(corpus, truth) | planted_outcomes(samples, truth)
    found.pop(SPREAD)  # stands out from chance only in larger worlds
    write_atomically(Path(path), pd.Series(found, name="score").rename_axis("measure").to_csv(lineterminator="\n"))


def planted_outcomes(samples: pd.DataFrame, truth: Truth) -> dict[str, float]:
    """How often the best reader of behaviour alone and the best reader of needs alone pick the right candidate: both, one, neither.

    Returns:
        Shares by the names of ``READERS``, which add up to 1, and of ``TEXT_READER``. ``recommend: NAME`` is an expectation under the
        world's own probabilities, over all recommendations in ``samples``. ``test: NAME`` is the share on the actual test samples,
        which is what one would measure of systems that read perfectly.
    """
    chosen = samples[samples["task"] == "recommend"]
    expected, seen = [], []
    for sample in chosen.itertuples():
        choice, candidates = truth[sample.sid, sample.seq_no].choice, list(sample.candidates)
        likely = dict(chosen_items(choice, candidates))
        by_behaviour, by_needs = (
            max(chosen_items(choice, candidates, weight), key=lambda pair: pair[1])[0] for weight in (1.0, 0.0)
        )
        read = read_appeal(choice, candidates)
        most = max(read.values())
        by_text = [item for item in candidates if read[item] == most]
        expected.append(_who_is_right(likely, by_behaviour, by_needs, by_text))
        if sample.split == "test":
            seen.append(_who_is_right({sample.label: 1.0}, by_behaviour, by_needs, by_text))
    names = [*READERS, TEXT_READER]
    means = {"recommend": np.mean(expected, axis=0), "test": np.mean(seen, axis=0) if seen else [np.nan] * len(names)}
    return {f"{of}: {name}": float(value) for of, values in means.items() for name, value in zip(names, values)}


def _who_is_right(likely: dict[str, float], by_behaviour: str, by_needs: str, by_text: list[str]) -> tuple[float, ...]:
    """The probabilities of ``READERS`` and ``TEXT_READER`` for one recommendation; the reader of text names each of ``by_text`` equally often."""
    behaviour, needs, same = likely.get(by_behaviour, 0.0), likely.get(by_needs, 0.0), by_behaviour == by_needs
    right = (needs * same, behaviour * (not same), needs * (not same))
    return (*right, 1 - sum(right), sum(likely.get(item, 0.0) for item in by_text) / len(by_text))


def worlds(folder: str | Path) -> list[tuple[str, float, Path]]:
    """(knob, value, folder) of every world in ``folder``; a world at a knob's default stands for all knobs' defaults.

    Raises:
        FileNotFoundError: where there is none, naming the command that makes them.
        ValueError: for a folder that is not named after a knob.
    """
    turned = [(path.name.rpartition("-"), path) for path in sorted(Path(folder).glob("*-*")) if path.is_dir()]
    unknown = [path for (knob, _, _), path in turned if knob not in DEFAULTS]
    if unknown:
        raise ValueError(f"{unknown[0]}: no knob of the world; name folders KNOB-VALUE with a knob of {', '.join(DEFAULTS)}")
    if not turned:
        raise FileNotFoundError(f"{folder}: holds no worlds; docs/results.md has the commands that make them")
    found = {(knob, float(value)): path for (knob, _, value), path in turned}
    usual = [path for (knob, value), path in found.items() if value == DEFAULTS[knob]]
    for knob in dict.fromkeys(knob for knob, _ in found) if usual else ():
        found.setdefault((knob, DEFAULTS[knob]), usual[0])
    return sorted((knob, value, path) for (knob, value), path in found.items())


def planted(folder: str | Path) -> pd.DataFrame:
    """``knob, value, measure, score`` of every world."""
    parts = [pd.read_csv(path / PLANTED).assign(knob=knob, value=value) for knob, value, path in worlds(folder)]
    return pd.concat(parts, ignore_index=True)[["knob", "value", "measure", "score"]]


def measured(folder: str | Path, language: str = "zh") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of the trained systems, floors and ceiling of every world, and which of CRS and LLM was right.

    Returns:
        ``knob, value, system, task, metric, score, low, high`` by ``JUDGED_BY``'s metric; and ``outcomes_alone`` with ``knob, value``.
    """
    rows, shares = [], []
    for knob, value, path in worlds(folder):
        answers = read_predictions(path / "predictions")
        scores = score(read_parquet(path / "samples.parquet"), answers, language)
        for task, metric in JUDGED_BY.items():
            for key, part in scores[scores["task"] == task].groupby("system"):
                mean, low, high = mean_interval(part[metric], part["sid"], part["seed"])
                about = {"knob": knob, "value": value, "system": key, "task": task, "metric": metric}
                rows.append(about | {"score": mean, "low": low, "high": high})
        shares.append(outcomes_alone(scores, pairs_in(answers)).assign(knob=knob, value=value))
    return pd.DataFrame(rows), pd.concat(shares, ignore_index=True)


def complementarity(truth: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """Who is right about a recommendation: as planted, with perfect readers, and as measured.

    Args:
        truth: what ``planted`` returns; ``shares``: the second table of ``measured``.

    Returns:
        A row per ``knob, value``, columns (outcome, of) with ``of`` one of ``planted, perfect readers, measured``.
    """
    parts = [shares[shares["task"] == "recommend"].rename(columns={"share": "score"}).assign(of="measured")]
    for prefix, of in (("recommend", "planted"), ("test", "perfect readers")):
        names = {f"{prefix}: {name}": outcome for name, outcome in READERS.items()}
        part = truth[truth["measure"].isin(list(names))]
        parts.append(part.assign(outcome=part["measure"].map(names), of=of))
    table = pd.concat(parts).pivot(index=["knob", "value"], columns=["outcome", "of"], values="score")
    order = [(outcome, of) for outcome in READERS.values() for of in ("planted", "perfect readers", "measured")]
    return table[order]


def beside_the_text(truth: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Acc in recommendation of the trained systems and of a perfect reader of dialogue and catalogue, on the test questions; a row per ``knob, value``.

    Args:
        truth: what ``planted`` returns; ``scores``: the first table of ``measured``.
    """
    part = scores[(scores["task"] == "recommend") & (scores["metric"] == "Acc") & ~scores["system"].isin([*FLOORS, ORACLE])]
    table = part.pivot(index=["knob", "value"], columns="system", values="score").rename(columns=lambda key: system_of(key).name)
    reader = truth[truth["measure"] == f"test: {TEXT_READER}"].set_index(["knob", "value"])["score"]
    return table.assign(**{"perfect reader of dialogue and catalogue": reader}).rename_axis(columns=None)


def change(by_value: pd.DataFrame | pd.Series) -> pd.Series | float:
    """Of what is indexed by a knob's value: at its highest value less at its lowest."""
    ordered = by_value.sort_index()
    return ordered.iloc[-1] - ordered.iloc[0]


def readers_together(dialogues: dict[str, int], sellers: int = 2, items: int = 40, seed: int = 1, knobs: Knobs = Knobs()) -> pd.DataFrame:
    """Does a training-free control realise what is planted? Two perfect readers, one of behaviour and one of needs, and their controls.

    Parameters are chosen on the validation dialogues. Scores are expectations under the world's own probabilities over the test
    dialogues' recommendations, so they have no noise of single labels, and none can be above the ceiling.

    Args:
        dialogues: their number for ``valid`` and ``test``; ``sellers, items``: shops per category, and items of each.

    Returns:
        One row per reader, control and the ceiling: ``Acc, MRR@5`` and ``of the planted potential``: the gain in MRR@5 above the better
        reader, as a share of the ceiling's.
    """
    corpus, truth = generate(dialogues, sellers, items, seed=seed, knobs=knobs)
    samples = build_samples(corpus, build_catalogue(corpus, CHINESE), CHINESE)
    samples = samples[samples["task"] == "recommend"]
    read = reader_predictions(samples, truth)
    made = controls(samples, read, read[read["split"] == "valid"], "zh", pairs=[("behaviour", "needs")])
    tests = samples[samples["split"] == "test"]
    every = pd.concat([read, made.without_copies, oracle_predictions(samples, truth)])
    means = expected_scores(tests, every, true_labels(tests, truth)).groupby("system")[["Acc", "MRR@5"]].mean()
    better = means.loc[["behaviour", "needs"], "MRR@5"].max()
    means["of the planted potential"] = (means["MRR@5"] - better) / (means.loc[ORACLE, "MRR@5"] - better)
    names = {"behaviour": "reader of behaviour", "needs": "reader of needs", ORACLE: "ceiling"}
    table = means.sort_values("MRR@5").rename(index=lambda key: names.get(key) or key.partition(":")[0])
    return table.rename_axis(None)


PLANTED_COLOURS = {
    "recommend: ceiling": "#000000",
    "recommend: who sees behaviour only": "#88CCEE",
    "recommend: who sees needs only": "#DDCC77",
    "understand: words as in the catalogue": "#AA4499",
}
PLANTED_NAMES = {"understand: words as in the catalogue": "share of words as in the catalogue"}
SHAPES = {"bcrs": "o", "allm": "s", "bcrs-allm": "v", "last_viewed": "x", "dictionary": "x"}


def known_answer_figure(measured: pd.DataFrame, planted: pd.DataFrame, knobs: dict[str, str], corpus_note: str) -> Figure:
    """The scores of systems by the value of a knob, with the world's ceilings: a panel per knob.

    Args:
        measured, planted: what ``known_answer.measured`` (its first table) and ``known_answer.planted`` return.
        knobs: knob -> the task that it should move.
    """
    knobs = {knob: task for knob, task in knobs.items() if knob in set(measured["knob"])}
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    lines, trained, above = {}, {}, {}
    floors = [key for key in SHAPES if key in FLOORS]
    floor_name = f"floor: {' or '.join(sorted(FLOORS[key] for key in floors))}"
    for (knob, task), axes in zip(knobs.items(), np.ravel(figure.subplots(1, len(knobs), squeeze=False))):
        for measure, colour in PLANTED_COLOURS.items():
            line = planted[(planted["knob"] == knob) & (planted["measure"] == measure)].sort_values("value")
            if measure.startswith(task) and len(line):
                (lines[PLANTED_NAMES.get(measure, measure.partition(": ")[2])],) = axes.plot(line["value"], line["score"], "--", color=colour, linewidth=2)
        part = measured[(measured["knob"] == knob) & (measured["task"] == task)]
        if task != "recommend":  # nobody plants it, so it is measured
            line = part[part["system"] == ORACLE].sort_values("value")
            (lines["ceiling"],) = axes.plot(line["value"], line["score"], "--", color=PLANTED_COLOURS["recommend: ceiling"], linewidth=2)
        floor = part[part["system"].isin(floors)].set_index("value")["score"]
        for key, shape in SHAPES.items():
            points = part[part["system"] == key].sort_values("value")
            if len(points):
                name = floor_name if key in floors else system_of(key).name
                error = [points["score"] - points["low"], points["high"] - points["score"]]
                trained[name] = axes.errorbar(
                    points["value"],
                    points["score"],
                    error,
                    fmt=f"{shape}{'--' if key == 'bcrs-allm' else '-'}",
                    color="#999999" if key in floors else look_of(key)[0],
                    linewidth=1.4,
                    capsize=2,
                    markersize=5,
                )
            if key not in floors:  # two panels of one task share the world at the default
                worlds_of = [("default" if value == DEFAULTS[knob] else (knob, value)) for value in points["value"]]
                above |= {(task, key, world): one > floor[value] for world, value, one in zip(worlds_of, points["value"], points["score"]) if value in floor}
        axes.axvline(DEFAULTS[knob], color="0.8", linestyle=":", linewidth=1)
        axes.set(title=f"{knob}", xlabel="knob (dotted: default)", ylabel=f"{task}: {part['metric'].iloc[0]}", ylim=(0, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    middle = figure.axes[len(figure.axes) // 2]
    middle.legend(lines.values(), lines.keys(), frameon=False, fontsize=9)
    figure.legend(trained.values(), trained.keys(), loc="outside lower center", ncols=len(trained), frameon=False, fontsize=9)
    figure.suptitle(figure_title(f"{sum(above.values())} of {len(above)} scores of trained systems are above the floor's (not tested)", corpus_note))
    return figure


def shares_figure(truth: pd.DataFrame, measured_by: dict[str, pd.DataFrame], knob: str, corpus_note: str) -> Figure:
    """How often only the CRS and only the LLM recommends the right item, by the value of a knob: planted, by perfect readers and as measured of trained pairs.

    Args:
        truth: what ``planted`` returns.
        measured_by: name of a trained pair -> the second table of ``measured``; at most two. The title tells the change of the first.
    """
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    first = next(iter(measured_by))
    for name, role, axes in zip(("behaviour only", "needs only"), ("crs", "llm"), figure.subplots(1, 2, sharey=True)):
        lines = {}
        for of, label, style in (("recommend", "planted", {"color": "black", "linestyle": "--"}), ("test", "two perfect readers", {"color": "0.6"})):
            part = truth[(truth["knob"] == knob) & (truth["measure"] == f"{of}: {name}")].set_index("value").sort_index()
            lines[label] = part["score"]
            axes.plot(part.index, part["score"], linewidth=2, label=label, **style)
        for (pair, shares), face in zip(measured_by.items(), (LOOKS[role][0], "white")):
            part = shares[(shares["knob"] == knob) & (shares["task"] == "recommend") & (shares["outcome"] == READERS[name])].set_index("value").sort_index()
            lines[pair] = part["share"]
            error = [part["share"] - part["low"], part["high"] - part["share"]]
            axes.errorbar(part.index, part["share"], error, fmt="o-", color=LOOKS[role][0], markerfacecolor=face, capsize=2, label=pair)
        axes.set(title=f"{READERS[name].replace('only', 'only the')} is right", xlabel=knob, ylabel="share of recommendations", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        if role == "crs":
            claim = f"Change of how often only the CRS is right: planted {change(lines['planted']):+.3f}, measured {change(lines[first]):+.3f}"
    figure.suptitle(figure_title(claim, corpus_note))
    return figure
