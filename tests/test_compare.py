"""Two runs against each other: gains and the answers that changed."""

import shutil

import numpy as np
import pandas as pd
import pytest
from small_study import LABELS, WRONG, samples_of, study_in

from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.statistics import paired_gains
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.study.compare import changed_answers, main
from llmcrs_utils.systems.predictions import read_predictions, write_predictions


@pytest.fixture
def runs(tmp_path):
    """Run b answers three questions otherwise than a: one elicit better, one worse, and one ranking, with both seeds."""
    study_in(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for seed in (1, 2):
        change(tmp_path / "b" / "predictions" / f"bcrs_seed{seed}.parquet", "d5:elicit", text=LABELS["elicit"])
        change(tmp_path / "b" / "predictions" / f"bcrs_seed{seed}.parquet", "d0:elicit", text="颜色")
        change(tmp_path / "b" / "predictions" / f"bcrs_seed{seed}.parquet", "d0:recommend", text="i5", ranking=["i5", "i3"])
    return tmp_path / "a", tmp_path / "b"


def change(path, sample_id, **values):
    frame = read_parquet(path)
    place = frame.index[frame["sample_id"] == sample_id][0]
    for name, value in values.items():
        frame.at[place, name] = value
    write_predictions(frame, path)


def compared(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_gains_and_changed_answers_are_told(runs, tmp_path, capsys):
    code, out, err = compared(capsys, *runs, "--output", tmp_path / "changes.csv")
    assert code == 0, err
    assert "without a changed answer: trivial" in out
    totals = [line.split() for line in out.split("By category")[0].splitlines() if line.startswith("bcrs  ")]
    assert [line[:3] for line in totals] == [["bcrs", "elicit", "F1"], ["bcrs", "recommend", "MRR@5"]]  # what did not change is not tested
    samples = samples_of(runs[0])
    a, b = (read_predictions(run / "predictions").query("system == 'bcrs'").assign(system=name) for name, run in zip("ab", runs))
    scores = score(samples, pd.concat([a, b]), "zh")
    ((gain, low, high, p),) = paired_gains(scores[scores["task"] == "elicit"], [("b", "a")], "F1")
    assert f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]" in " ".join(totals[0]) and np.isnan(p) and totals[0][-2:] == ["–", "–"]  # one seed each
    assert [line.split()[:3] for line in out.split("By category")[1].splitlines()[2:6]] == [
        ["bcrs", "elicit", "Beauty"], ["bcrs", "elicit", "Shoes"], ["bcrs", "recommend", "Beauty"], ["bcrs", "recommend", "Shoes"],
    ]  # fmt: skip

    changes = pd.read_csv(tmp_path / "changes.csv")
    assert len(changes) == 6 and "6 answers changed: bcrs elicit 4, bcrs recommend 2" in out
    assert changes["change"].abs().is_monotonic_decreasing
    better = changes[changes["sample_id"] == "d5:elicit"].iloc[0]
    assert (better["asked"], better["gold"], better["A"], better["B"]) == ("[user]想要黑的", LABELS["elicit"], WRONG["elicit"], LABELS["elicit"])
    assert (better["score A"], better["score B"], better["category"]) == (0, 1, "Shoes")
    ranked = changes[changes["sample_id"] == "d0:recommend"].iloc[0]
    assert ranked["B"] == "i5；i3" and ranked["A"].startswith("i3；i0") and ranked["score B"] == 0.5
    assert "    B     i5；i3" in out and "    gold  颜色；尺码" in out


def test_the_terminal_shows_a_few_and_says_how_to_see_all(runs, capsys):
    out = compared(capsys, *runs, "--limit", "2")[1]
    assert out.count("    gold  ") == 2 and "4 more; write all by --output FILE.csv" in out


def test_a_run_beside_itself_has_nothing_to_test(runs, capsys):
    code, out, _ = compared(capsys, runs[0], runs[0])
    assert code == 0 and "without a changed answer: bcrs, trivial" in out and "Holm" not in out


def test_an_unusable_answer_is_empty_and_told(runs, capsys, tmp_path):
    change(runs[1] / "predictions" / "bcrs_seed1.parquet", "d0:respond", valid=False, text="")
    _, out, _ = compared(capsys, *runs, "--output", tmp_path / "c.csv")
    assert "    B     (no usable answer)" in out
    changes = pd.read_csv(tmp_path / "c.csv", keep_default_na=False)
    assert changes.loc[changes["sample_id"] == "d0:respond", "B"].tolist() == [""]


def test_folders_of_predictions_files_and_foreign_tables_are_sides_too(runs, tmp_path, capsys):
    folders = [run / "predictions" for run in runs]
    assert compared(capsys, *folders)[1].splitlines()[2:] == compared(capsys, *runs)[1].splitlines()[2:]
    code, out, _ = compared(capsys, *(folder / "bcrs_seed1.parquet" for folder in folders))
    assert code == 0 and "3 answers changed: bcrs elicit 2, bcrs recommend 1" in out
    code, out, _ = compared(capsys, folders[0] / "bcrs_seed1.parquet", folders[0] / "bcrs_seed2.parquet")  # another seed, paired all the same
    assert code == 0 and "4 answers changed" in out and "single run" not in out
    samples = samples_of(runs[0]).query("split == 'test' and task == 'elicit'")
    samples[["sample_id"]].assign(text=samples["label"]).to_csv(tmp_path / "mine.csv", index=False)
    code, out, err = compared(capsys, folders[0] / "bcrs_seed1.parquet", tmp_path / "mine.csv", "--study", runs[0])
    assert code == 0 and "mine over bcrs  elicit" in out and "mine over bcrs  understand" not in out, err


def relabelled(samples):
    samples.loc[samples["sample_id"] == "d1:elicit", "label"] = "品牌"
    return samples


@pytest.mark.parametrize(
    ("change_samples", "message"),
    [
        (relabelled, "d1:elicit: its label is '颜色；尺码' in A and '品牌' in B (1 such samples); compare runs on the same data"),
        (lambda s: s[s["sid"] != "d3"], "d3:understand: a test sample of A only (4 such samples)"),
        (lambda s: s.assign(domain="大家电行业"), "d0:understand: its domain is '美妆行业' in A and '大家电行业' in B (24 such samples)"),
    ],
)
def test_runs_on_other_samples_are_not_compared(runs, capsys, change_samples, message):
    write_parquet(change_samples(samples_of(runs[1])), runs[1] / "data" / "samples.parquet")
    code, out, err = compared(capsys, *runs)
    assert code == 2 and out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_what_cannot_be_compared_is_named(runs, tmp_path, capsys):
    assert "nowhere: no such file or folder" in compared(capsys, runs[0], tmp_path / "nowhere")[2]
    (runs[1] / "predictions" / "bcrs_seed1.parquet").unlink()
    (runs[1] / "predictions" / "bcrs_seed2.parquet").unlink()
    (runs[0] / "predictions" / "trivial_seed1.parquet").unlink()
    shutil.copytree(runs[1] / "predictions", tmp_path / "alone")
    assert "bcrs over trivial" in compared(capsys, runs[1], runs[0])[1]  # one system each
    assert "no samples.parquet there or above" in compared(capsys, tmp_path / "alone", runs[0])[2]
    both = pd.concat([read_predictions(run / "predictions") for run in runs])
    write_predictions(both, tmp_path / "both.parquet")
    assert "both.parquet: holds 2 systems; give a file of one" in compared(capsys, tmp_path / "both.parquet", runs[0], "--study", runs[0])[2]


def test_systems_of_one_side_only_are_told(runs, capsys):
    (runs[1] / "predictions" / "trivial_seed1.parquet").unlink()
    out = compared(capsys, *runs)[1]
    assert "only in A, not compared: trivial" in out


def test_answers_of_other_seeds_are_matched_where_each_side_has_one_run(runs):
    samples = samples_of(runs[0])
    one = read_predictions(runs[0] / "predictions").query("system == 'trivial'")
    other = one.assign(seed=42, text=one["text"].where(one["sample_id"] != "d3:elicit", "颜色"))
    sides = [(part, score(samples, part, "zh")) for part in (one, other)]
    changes = changed_answers(samples, sides, [("trivial", "trivial")])
    assert changes["sample_id"].tolist() == ["d3:elicit"]
