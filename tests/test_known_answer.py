"""The worlds whose answer is known: what was planted, and what is measured beside it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import samples_of
from made_up import answers_of

from llmcrs_utils.files.parquet import write_parquet
from llmcrs_utils.systems.predictions import write_predictions
from llmcrs_utils.world import Knobs, generate
from llmcrs_utils.world.ceilings import true_labels
from llmcrs_utils.world.known_answer import (
    READERS,
    TEXT_READER,
    beside_the_text,
    complementarity,
    measured,
    planted,
    planted_outcomes,
    shares_figure,
    worlds,
    write_planted,
)
from llmcrs_utils.world.simulate import TUPLES_PER_ITEM

BOTH, BEHAVIOUR, NEEDS, NEITHER = (f"recommend: {name}" for name in READERS)


class Desk:
    """Of the items a, b, c: what it recommends, what it would by needs (0) or by behaviour (1) alone, and the needs that the catalogue says they meet."""

    count, item_ids, possible = 1, ["a", "b", "c"], np.array([True] * 3)

    def __init__(self, chosen, by_needs, by_behaviour, written):
        self.by, self.written = {None: chosen, 0.0: by_needs, 1.0: by_behaviour}, np.array(written)

    def weights(self, implicit_weight=None):
        return np.array(self.by[implicit_weight])


def test_planted_outcomes_by_hand():
    # Needs say a and behaviour b, which are chosen 6 and 3 times of ten; where both say c, that is chosen 8 times of ten.
    # The catalogue says the same of a and b at first, so a reader of the text names each half of the time; then it says most of c.
    desks = [Desk([6, 3, 1], [9, 1, 0], [2, 7, 1], [1, 1, 0]), Desk([1, 1, 8], [0, 0, 5], [1, 0, 2], [0, 0, 2])]
    truth = {("d", number): SimpleNamespace(choice=desk) for number, desk in enumerate(desks)}
    about = {"task": "recommend", "sid": "d", "seq_no": [0, 1], "candidates": [["a", "b", "c"], ["c", "a", "b"]]}
    about |= {"split": "test", "label": ["b", "c"]}
    samples = pd.concat([pd.DataFrame(about), pd.DataFrame({"task": ["elicit"], "sid": "d", "seq_no": 7})])
    found = planted_outcomes(samples, truth)
    expected = {BOTH: 0.8 / 2, BEHAVIOUR: 0.3 / 2, NEEDS: 0.6 / 2, NEITHER: (0.1 + 0.2) / 2}
    expected |= {f"recommend: {TEXT_READER}": (0.45 + 0.8) / 2, f"test: {TEXT_READER}": 0.75}
    seen = {"test: both": 0.5, "test: behaviour only": 0.5, "test: needs only": 0, "test: neither": 0}
    assert found == pytest.approx(expected | seen)


@pytest.fixture(scope="module")
def by_weight():
    """The planted outcomes of small worlds, by how far behaviour decides."""
    found = {}
    for weight in (0.0, 0.5, 1.0):
        corpus, truth = generate({"test": 30}, 1, 40, knobs=Knobs(implicit_weight=weight))
        found[weight] = planted_outcomes(samples_of(corpus), truth)
    return found


def test_planted_outcomes_add_up_to_1(by_weight):
    for found in by_weight.values():
        for of in ("recommend", "test"):
            assert sum(found[f"{of}: {name}"] for name in READERS) == pytest.approx(1, rel=1e-9)
        assert min(found.values()) >= 0


def test_planted_outcomes_follow_the_knob(by_weight):
    assert by_weight[0.0][NEEDS] > by_weight[0.5][NEEDS] > by_weight[1.0][NEEDS]
    assert by_weight[0.0][BEHAVIOUR] < by_weight[0.5][BEHAVIOUR] < by_weight[1.0][BEHAVIOUR]
    assert by_weight[0.0]["test: needs only"] > by_weight[1.0]["test: needs only"]
    assert by_weight[0.0][NEEDS] > 3 * by_weight[0.0][BEHAVIOUR] and by_weight[1.0][BEHAVIOUR] > 3 * by_weight[1.0][NEEDS]


def test_what_is_planted_is_written(tmp_path):
    corpus, truth = generate({"test": 6}, 1, 30)
    samples = samples_of(corpus)
    write_planted(corpus, truth, samples, tmp_path / "planted.csv")
    written = pd.read_csv(tmp_path / "planted.csv").set_index("measure")["score"]
    assert written[list(planted_outcomes(samples, truth))].to_dict() == pytest.approx(planted_outcomes(samples, truth))
    labels = true_labels(samples[samples["task"] == "recommend"], truth)
    assert written["recommend: ceiling"] == pytest.approx(labels.groupby("sample_id")["probability"].max().mean())
    assert written["recommend: who sees needs only"] == pytest.approx(written[BOTH] + written[NEEDS])
    assert written["recommend: who sees behaviour only"] == pytest.approx(written[BOTH] + written[BEHAVIOUR])
    assert not written.index.str.contains("spread").any()


def test_planted_perfect_and_measured_stand_side_by_side():
    rows = [("k", 0.0, f"{of}: {name}", 0.1 * place) for of in ("recommend", "test") for place, name in enumerate(READERS)]
    truth = pd.DataFrame([*rows, ("k", 0.0, "elicit: ceiling", 1.0)], columns=["knob", "value", "measure", "score"])
    shares = pd.DataFrame({"knob": "k", "value": 0.0, "task": "recommend", "outcome": list(READERS.values()), "share": [0.4, 0.3, 0.2, 0.1]})
    table = complementarity(truth, shares)
    assert list(table.loc[("k", 0.0), "only CRS"]) == pytest.approx([0.1, 0.1, 0.3])
    assert list(table.loc[("k", 0.0), "neither"]) == pytest.approx([0.3, 0.3, 0.1])


# --- several worlds


@pytest.fixture
def folder(tmp_path):
    """The default world and three others, each with two test dialogues that some systems answered."""
    default = Knobs().implicit_weight
    for place, name in enumerate((f"implicit_weight-{default}", "implicit_weight-0.0", "vocabulary_gap-0.0", "vocabulary_gap-1.0")):
        world = tmp_path / name
        about = {"sample_id": ["s1", "s2"], "split": "test", "task": "elicit", "sid": ["d1", "d2"], "domain": "鞋", "label": ["颜色", "尺码"]}
        write_parquet(pd.DataFrame(about), world / "samples.parquet")
        said = {"bcrs": ["颜色", "产地"], "allm": ["颜色；产地", "尺码"], "allm-bcrs": ["产地", "产地" if place else "尺码"]}
        for key, texts in said.items():
            write_predictions(answers_of(key, dict(zip(["s1", "s2"], texts))), world / "predictions" / f"{key}.parquet")
        (world / "planted.csv").write_text(f"measure,score\n{BOTH},0.{place}\n")
    (tmp_path / "notes-1.txt").write_text("no world")
    return tmp_path


def test_the_default_world_stands_for_every_knob(folder):
    found = [(knob, value, path.name) for knob, value, path in worlds(folder)]
    default = f"implicit_weight-{Knobs().implicit_weight}"
    assert found == [
        ("implicit_weight", 0.0, "implicit_weight-0.0"),
        ("implicit_weight", Knobs().implicit_weight, default),
        ("vocabulary_gap", 0.0, "vocabulary_gap-0.0"),
        ("vocabulary_gap", Knobs().vocabulary_gap, default),
        ("vocabulary_gap", 1.0, "vocabulary_gap-1.0"),
    ]


def test_no_worlds_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no worlds; docs/results.md has the commands"):
        worlds(tmp_path)


def test_planted_of_every_world(folder):
    table = planted(folder)
    assert list(table.columns) == ["knob", "value", "measure", "score"] and len(table) == 5
    assert list(table.loc[table["knob"] == "vocabulary_gap", "score"]) == [0.2, 0.0, 0.3]


def test_measured_of_every_world(folder):
    scores, shares = measured(folder)
    assert len(scores) == 5 * 3 and set(scores["metric"]) == {"F1"} and len(shares) == 5 * 4
    elsewhere = scores[(scores["knob"] == "implicit_weight") & (scores["value"] == 0)].set_index("system")["score"]
    assert elsewhere.to_dict() == pytest.approx({"bcrs": 1 / 2, "allm": (2 / 3 + 1) / 2, "allm-bcrs": 0})
    default = scores[(scores["knob"] == "vocabulary_gap") & (scores["value"] == Knobs().vocabulary_gap)].set_index("system")
    assert default.loc["allm-bcrs", "score"] == 0.5 and (default["low"] <= default["score"]).all()
    assert list(shares["share"]) == [0.5, 0, 0.5, 0] * 5 and list(shares["outcome"][:4]) == ["both", "only CRS", "only LLM", "neither"]


def test_a_world_may_differ_in_the_size_of_its_catalogue(folder):
    (folder / "implicit_weight-0.0").rename(folder / "tuples_per_item-9.0")
    found = [(knob, value) for knob, value, _ in worlds(folder)]
    assert ("tuples_per_item", 9.0) in found and ("tuples_per_item", TUPLES_PER_ITEM) in found


def test_systems_that_work_alone_are_measured_as_well(folder):
    _, before = measured(folder)
    for path in folder.glob("*/predictions/allm-bcrs.parquet"):
        path.unlink()
    _, shares = measured(folder)
    pd.testing.assert_frame_equal(shares, before)


def test_the_figure_of_shares_shows_what_is_planted_and_what_each_pair_has():
    rows = [("implicit_weight", value, f"{of}: {name}", value * shift) for value in (0.0, 1.0) for of, shift in (("recommend", 0.4), ("test", 0.3)) for name in READERS]
    truth = pd.DataFrame(rows, columns=["knob", "value", "measure", "score"])
    about = {"knob": "implicit_weight", "value": [0.0, 1.0], "task": "recommend", "low": 0.0, "high": 0.3}
    pairs = {name: pd.concat([pd.DataFrame(about | {"outcome": outcome, "share": [0.1, share]}) for outcome, share in (("only CRS", top), ("only LLM", 0.05))]) for name, top in (("readers", 0.25), ("small", 0.15))}
    figure = shares_figure(truth, pairs, "implicit_weight", "Synthetic")
    left, right = figure.axes
    assert figure.get_suptitle().startswith("Change of how often only the CRS is right: planted +0.400, measured +0.150\n")
    assert (left.get_title(), right.get_title()) == ("only the CRS is right", "only the LLM is right")
    drawn = {line.get_label(): list(line.get_ydata()) for line in left.get_lines() if not line.get_label().startswith("_")}
    assert drawn == {"planted": [0.0, 0.4], "two perfect readers": [0.0, 0.3]}
    shown = [list(container.lines[0].get_ydata()) for container in left.containers]
    assert shown == [[0.1, 0.25], [0.1, 0.15]] and [container.get_label() for container in left.containers] == ["readers", "small"]
    assert [list(container.lines[0].get_ydata()) for container in right.containers] == [[0.1, 0.05]] * 2


def test_trained_systems_stand_beside_a_perfect_reader_of_dialogue_and_catalogue():
    rows = [("k", value, system, "recommend", "Acc", score) for value in (0.0, 1.0) for system, score in (("bcrs", 0.2), ("allm", 0.3 - value / 5), ("matcher", 0.1), ("oracle", 0.9))]
    scores = pd.DataFrame([*rows, ("k", 0.0, "bcrs", "elicit", "F1", 0.5)], columns=["knob", "value", "system", "task", "metric", "score"])
    truth = pd.DataFrame([("k", 0.0, f"test: {TEXT_READER}", 0.4), ("k", 1.0, f"test: {TEXT_READER}", 0.5), ("k", 1.0, "test: both", 0.6)], columns=["knob", "value", "measure", "score"])
    table = beside_the_text(truth, scores)
    assert table.to_dict("list") == {"Chinese-Alpaca": [0.3, 0.3 - 1 / 5], "UniMIND(BART)": [0.2, 0.2], "perfect reader of dialogue and catalogue": [0.4, 0.5]}
