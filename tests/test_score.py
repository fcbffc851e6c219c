"""Answers from outside, scored on a study's samples beside its systems."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from small_study import CANDIDATES, samples_of, study_in

from llmcrs_utils.evaluation import tables
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.pairs import with_same_seeds
from llmcrs_utils.evaluation.statistics import paired_gains
from llmcrs_utils.files.parquet import write_parquet
from llmcrs_utils.study import compare
from llmcrs_utils.study.foreign import read_answers, to_predictions
from llmcrs_utils.study.score import gains_over, half_width_text, main
from llmcrs_utils.systems.predictions import SCHEMA, read_predictions
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.text.prompts import CHINESE

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results" / "study-cpu"


@pytest.fixture
def study(tmp_path):
    study_in(tmp_path / "run")
    return tmp_path / "run"


def test_a_model_of_the_studys_own_profile_has_its_name_in_the_tables(study, tmp_path, capsys):
    (study / "profile.json").write_text(json.dumps({"models": {"qwen": {"name": "Qwen of ours", "family": "llm"}}}))
    folder = study / "predictions"
    answers = read_predictions(folder).query("system == 'bcrs' and seed == 1")
    write_parquet(answers.assign(system="qwen"), folder / "qwen.parquet", SCHEMA)
    answers_to(samples_of(study)).to_csv(tmp_path / "mine.csv", index=False)
    code, out, _ = scored(capsys, tmp_path / "mine.csv", "--study", study)
    assert code == 0 and out.count("Qwen of ours") == len(TASKS)


def answers_to(samples, tasks=TASKS):
    chosen = samples[(samples["split"] == "test") & samples["task"].isin(tasks)]
    return chosen[["sample_id"]].assign(text=chosen["label"]).reset_index(drop=True)


def scored(capsys, *arguments):
    """Exit code, what was printed and what was complained of."""
    code = main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_csv_file_is_scored_beside_the_studys_systems(study, tmp_path, capsys):
    answers_to(samples_of(study)).to_csv(tmp_path / "my model.csv", index=False)
    code, out, _ = scored(capsys, tmp_path / "my model.csv", "--study", study)
    assert code == 0
    blocks = out.split("\nTable ")[1:]
    assert [block[:2] for block in blocks] == ["1:", "2:", "3:", "4:"]
    for block in blocks:
        keys = [line.split("  ")[0] for line in block.splitlines()[2:5]]
        assert keys == ["trivial", "bcrs", "my model"]
        assert "1.000 [1.000, 1.000]" in block.splitlines()[4]
        assert [line.split()[:2] for line in block.splitlines()[7:9]] == [["Beauty", "3"], ["Shoes", "3"]]
    gains = [line.split() for line in out.split("Holm's correction")[1].splitlines()[2:10]]
    assert [(line[2], line[4]) for line in gains] == [(task, over) for task in TASKS for over in ("trivial", "bcrs")]
    assert all(line[5].startswith("+0.") for line in gains)
    assert "one item is named, so Hit@5 and MRR@5 equal Acc" in out and "a single run is compared with each of the other's 2 runs" in out


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "json"])
def test_every_format_gives_the_same_predictions(study, tmp_path, ending):
    samples = samples_of(study)
    answers = answers_to(samples).assign(system="mine", seed=3)
    answers["ranking"] = [CANDIDATES[3:] if text == "i3" else None for text in answers["text"]]
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        answers.to_parquet(path)
    elif ending == "csv":
        answers.assign(ranking=["；".join(ranking or []) for ranking in answers["ranking"]]).to_csv(path, index=False)
    else:
        answers.to_json(path, orient="records", lines=ending == "jsonl", force_ascii=False)
    found = to_predictions(read_answers(path), path, samples, CHINESE)
    assert list(found.columns) == SCHEMA.names and set(found["system"]) == {"mine"} and set(found["seed"]) == {3}
    assert found["valid"].all() and set(found["split"]) == {"test"}
    ranked = found[found["sample_id"].str.endswith("recommend")]
    assert ranked["ranking"].tolist() == [CANDIDATES[3:]] * 6 and set(ranked["text"]) == {"i3"}


@pytest.mark.parametrize(
    "cell",
    ["i3；i1;i2", "i3|i1|i2", '["i3", "i1", "i2"]', "['i3', 'i1', 'i2']", "['i3' 'i1'\n 'i2']", "D；B；C", " i3 ; i1 ; i2 "],
)
def test_a_ranking_may_be_written_in_several_ways(study, tmp_path, cell):
    samples = samples_of(study)
    asked = samples[samples["task"] == "recommend"]
    asked[["sample_id"]].assign(ranking=cell).to_csv(tmp_path / "x.csv", index=False)
    found = to_predictions(read_answers(tmp_path / "x.csv"), tmp_path / "x.csv", samples, CHINESE)
    assert found["ranking"].tolist() == [["i3", "i1", "i2"]] * 6


def test_an_item_is_named_by_its_id_or_its_letter_and_anything_else_is_unusable(study, tmp_path):
    samples = samples_of(study)
    asked = samples.loc[samples["task"] == "recommend", ["sample_id"]]
    asked.assign(text=["i3", "D", " D。", "I like D", "", "i99"]).to_csv(tmp_path / "x.csv", index=False)
    found = to_predictions(read_answers(tmp_path / "x.csv"), tmp_path / "x.csv", samples, CHINESE)
    assert found["text"].tolist() == ["i3", "i3", "i3", "", "", ""] and found["valid"].tolist() == [True] * 3 + [False] * 3
    assert found["raw"].tolist()[1] == "D"


def test_numbers_of_items_and_an_empty_or_unusable_text(study, tmp_path, capsys):
    samples = samples_of(study)
    text = answers_to(samples, ["elicit"])
    text["text"] = ["颜色；尺码", "", "  ", "；", "颜色", "颜色；尺码"]
    text["valid"] = [True, True, True, True, True, False]
    text.to_csv(tmp_path / "x.csv", index=False)
    code, out, _ = scored(capsys, tmp_path / "x.csv", "--study", study, "--against", "bcrs")
    assert code == 0 and "x, elicit: 4 of 6 answers are unusable and count as wrong" in out
    row = next(line for line in out.splitlines() if line.startswith("x  "))
    assert [part.split()[0] for part in row.split("  ")[1:] if "[" in part] == ["0.333", "0.250", "0.278"]  # P, R, F1
    numbered = samples.assign(candidates=[[str(n) for n in range(20)] if one else [] for one in samples["task"] == "recommend"])
    asked = samples.loc[samples["task"] == "recommend", ["sample_id"]].assign(ranking=[[3, 1]] * 6)
    asked.to_parquet(tmp_path / "x.parquet")
    found = to_predictions(read_answers(tmp_path / "x.parquet"), tmp_path / "x.parquet", numbered, CHINESE)
    assert found["ranking"].tolist() == [["3", "1"]] * 6


def changed(**columns):
    return lambda answers: answers.assign(**columns)


def without_third(answers):
    return answers.drop(index=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_third, r"mine\.csv: mine \(seed 1\) answers elicit, but not d2:elicit \(1 of 6 samples are missing\); answer all"),
        (lambda a: pd.concat([a, a.iloc[:2]]), r"d0:elicit is answered twice by mine, seed 1 \(2 in all\); keep one"),
        (lambda a: a.replace("d1:elicit", "d9:elicit"), r"row 2: no sample is called 'd9:elicit' \(1 in all\)"),
        (lambda a: a.rename(columns={"text": "answer"}), r"needs the columns sample_id and text or ranking, but has sample_id, answer"),
        (changed(seed="one"), r"row 1, seed: 'one' is no whole number"),
        (changed(split="train"), r"row 1: d0:elicit is a test sample, not train"),
        (changed(valid="perhaps"), r"row 1, valid: 'perhaps' is neither true nor false"),
        (changed(system="bcrs"), r"'bcrs' is the key of a system that there is already; give another name"),
        (changed(system="a\x1b[31m"), r"row 1: the system's name .* holds control characters"),
        (lambda a: a.rename(columns={"text": "ranking"}), r"row 1: d0:elicit is a question of elicit, which is answered by text"),
        (lambda a: a.iloc[:0], r"mine\.csv: holds no answers"),
        (changed(sample_id="t0:understand", text="颜色：黑"), r"answered twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_one_clear_line(study, tmp_path, capsys, change, message):
    change(answers_to(samples_of(study), ["elicit"])).to_csv(tmp_path / "mine.csv", index=False)
    code, out, err = scored(capsys, tmp_path / "mine.csv", "--study", study)
    assert code == 2 and out == "" and err.count("\n") == 1 and str(tmp_path / "mine.csv") in err
    assert pd.Series([err]).str.contains(message).all(), err


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("i3；i77", "'i77' is not among the 20 candidates of d0:recommend; rank candidates only"),
        ("i3；i1；i3", "ranks 'i3' twice"),
        ("[i3, i1", "'[i3, i1' is no list"),
        ("6.53E+11；i1", "'6.53E+11' is not among the 20 candidates"),
    ],
)
def test_a_ranking_that_cannot_be_meant_is_refused(study, tmp_path, capsys, cell, message):
    asked = samples_of(study).query("task == 'recommend'")[["sample_id"]]
    asked.assign(ranking=cell).to_csv(tmp_path / "mine.csv", index=False)
    code, _, err = scored(capsys, tmp_path / "mine.csv", "--study", study)
    assert code == 2 and "row 1" in err and message in err


def test_a_results_folder_knows_the_candidates_but_not_their_letters(tmp_path, capsys):
    samples = study_in(tmp_path / "results", known_order=False)
    asked = samples.query("task == 'recommend'")[["sample_id"]]
    asked.assign(text="D").to_csv(tmp_path / "mine.csv", index=False)
    code, _, err = scored(capsys, tmp_path / "mine.csv", "--study", tmp_path / "results")
    assert code == 2 and "'D' is a letter, and this study does not say which item it stands for; write item ids" in err
    asked.assign(text="i99").to_csv(tmp_path / "mine.csv", index=False)
    code, out, _ = scored(capsys, tmp_path / "mine.csv", "--study", tmp_path / "results")
    assert code == 0 and "mine, recommend: 6 of 6 answers are unusable" in out


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"sample_id,text\n\xff\xfe,1\n", "x.csv", "not UTF-8 at byte 15; save it as UTF-8"),
        (b"sample_id,text\na,b\nc,d,e,f\n", "x.csv", "cannot be read as csv"),
        (b'{"sample_id": "a"\n', "x.jsonl", "cannot be read as jsonl (line 1:"),
        (b"[1, 2]", "x.json", "record 1 is no object"),
        (b"PAR1", "x.parquet", "cannot be read as parquet"),
        (b"", "x.csv", "cannot be read as csv"),
        (b"a", "x.xlsx", "no format known by this ending"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_a_remedy(study, tmp_path, capsys, content, name, message):
    (tmp_path / name).write_bytes(content)
    code, _, err = scored(capsys, tmp_path / name, "--study", study)
    assert code == 2 and err.startswith(f"error: {tmp_path / name}: ") and message in err and err.count("\n") == 1


def test_unknown_study_and_unknown_opponent_are_named(study, tmp_path, capsys):
    answers_to(samples_of(study)).to_csv(tmp_path / "mine.csv", index=False)
    assert "holds no samples.parquet nor data/samples.parquet" in scored(capsys, tmp_path / "mine.csv", "--study", tmp_path)[2]
    code, _, err = scored(capsys, tmp_path / "mine.csv", "--study", study, "--against", "gpt5")
    assert code == 2 and "--against gpt5: no system of" in err and "bcrs, trivial" in err


def test_several_systems_in_a_file_are_several_rows(study, tmp_path, capsys):
    answers = answers_to(samples_of(study), ["elicit"])
    both = pd.concat([answers.assign(system="one"), answers.assign(system="two", text="")])
    both.to_csv(tmp_path / "both.csv", index=False)
    code, out, _ = scored(capsys, tmp_path / "both.csv", "--study", study, "--against", "two", "bcrs")
    assert code == 0 and "two, elicit: 6 of 6 answers are unusable" in out
    rows = out.split("\nTable ")[1].splitlines()[2:6]
    assert [line.split()[0] for line in rows] == ["trivial", "bcrs", "one", "two"]
    gains = [line.split() for line in out.splitlines() if line.split()[1:3] == ["elicit", "F1"]]
    assert [(line[0], line[3]) for line in gains] == [("one", "two"), ("one", "bcrs"), ("two", "bcrs")] and gains[0][4] == "+1.000"  # one seed: no test
    assert "holds 2 systems, and --name names one" in scored(capsys, tmp_path / "both.csv", "--study", study, "--name", "x")[2]


def test_a_committed_system_under_another_name_has_its_own_numbers(tmp_path, capsys):
    """The same answers, as CSV, are worth what the committed table says, and gain nothing over themselves."""
    answers = read_predictions(STUDY / "predictions").query("system == 'allm'")
    answers = answers[answers["sample_id"].str.contains(":elicit|:recommend")]
    answers[["sample_id", "seed", "text", "ranking", "valid"]].assign(system="copy").to_csv(tmp_path / "x.csv", index=False)
    code, _, err = scored(capsys, tmp_path / "x.csv", "--study", STUDY, "--against", "allm", "--output", tmp_path / "out")
    assert code == 0, err
    made = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index(["task", "category", "metric"])
    committed = pd.read_csv(ROOT / "figures" / "study-cpu" / "metrics.csv").set_index(["task", "category", "metric"])
    copy, allm = made[made["system"] == "copy"], committed[committed["system"] == "allm"].loc[["elicit", "recommend"]]
    assert len(copy) == len(allm) and np.allclose(copy["value"], allm["value"].loc[copy.index], atol=1e-6)
    assert (made[made["system"] == "allm"].loc[["elicit", "recommend"], "low"] == allm["low"]).all()
    gains = pd.read_csv(tmp_path / "out" / "gains.csv")
    assert gains["task"].tolist() == ["elicit", "recommend"] and (gains[["gain", "low", "high"]] == 0).all(axis=None)
    assert "| copy |" in (tmp_path / "out" / "table2.md").read_text("utf-8")
    again = read_predictions(tmp_path / "out")
    assert set(again["system"]) == {"copy"} and len(again) == len(answers)


def test_gains_are_paired_and_tested_over_dialogues_and_runs(study, tmp_path, capsys):
    samples = samples_of(study)
    answers = answers_to(samples, ["elicit"])
    answers.loc[answers.index[4:], "text"] = "品牌"
    two = pd.concat([answers.assign(seed=1), answers.assign(seed=2)])
    two.to_csv(tmp_path / "mine.csv", index=False)
    assert scored(capsys, tmp_path / "mine.csv", "--study", study, "--against", "bcrs", "--output", tmp_path / "out")[0] == 0
    mine = to_predictions(read_answers(tmp_path / "mine.csv"), tmp_path / "mine.csv", samples, CHINESE)
    scores = score(samples, pd.concat([read_predictions(study / "predictions"), mine]), "zh")
    elicit = scores[scores["task"] == "elicit"]
    ((gain, low, high, p),) = paired_gains(elicit, [("mine", "bcrs")], "F1")
    (row,) = pd.read_csv(tmp_path / "out" / "gains.csv").to_dict("records")
    assert [row[name] for name in ("gain", "low", "high", "p", "p (Holm)")] == pytest.approx([gain, low, high, p, p], abs=1e-6, nan_ok=True)


def test_answers_that_are_all_the_same_are_marked_and_their_gains_have_no_star(capsys):
    code, out, _ = scored(capsys, ROOT / "docs" / "score" / "mine.csv", "--study", STUDY, "--against", "dia_seq")
    assert code == 0 and "mine: elicit 1 of 1" in out
    total, in_category, gain = [line for line in out.splitlines() if re.match("mine +mine|Shoes|mine +elicit", line)]
    assert total.count("†") == in_category.count("†") == 3
    assert gain.count("†") == 1 and "*" not in gain and gain.endswith("–")  # the loss would have a star
    assert "† The system, the one it is compared with or its assistant has collapsed" in out


def test_a_collapsed_system_is_never_the_strongest():
    scores = pd.concat([made_up.random_scores(["mine", "allm", "trivial"]), made_up.scores_of({"bcrs": [[2.0] * 30] * 2}, dialogues=[f"d{n // 2:03d}" for n in range(30)])])
    for collapsed, best in ((set(), "bcrs"), ({("bcrs", "elicit")}, "allm")):
        assert gains_over(scores, ["mine"], [], set(), collapsed)["over"].tolist() == ["trivial", best]


def test_categories_of_systems_that_are_not_shown_are_left_out(study, tmp_path, capsys, monkeypatch):
    answers_to(samples_of(study), ["elicit"]).to_csv(tmp_path / "mine.csv", index=False)
    sizes = []
    plain = tables.mean_intervals
    monkeypatch.setattr(tables, "mean_intervals", lambda quantities, *rest: sizes.extend(len(part[0]) for part in quantities) or plain(quantities, *rest))
    assert scored(capsys, tmp_path / "mine.csv", "--study", study)[0] == 0
    assert sorted(sizes) == [3, 3, 6, 6, 12]  # mine by two categories; the totals of mine, trivial and bcrs, of one task only


def test_runs_with_other_seeds_are_paired():
    scores = pd.DataFrame({"seed": [1, 1, 2, 2], "sample_id": ["a", "b"] * 2, "F1": [0.0, 1.0, 0.5, 0.5]})
    ours, theirs, note = with_same_seeds(scores[scores["seed"] == 1].assign(seed=42), scores)
    assert sorted(ours["seed"]) == sorted(theirs["seed"]) == [1, 1, 2, 2] and "each of the other's 2 runs" in note
    three = pd.concat([scores.assign(seed=scores["seed"] + 10), scores[:2].assign(seed=13)])
    ours, theirs, note = with_same_seeds(three, scores)
    assert sorted(ours["seed"].unique()) == sorted(theirs["seed"].unique()) and len(ours) == len(theirs) == 4
    assert note == "seeds 11, 12 are paired with seeds 1, 2"
    assert with_same_seeds(scores, scores)[2] == ""


def test_the_docs_show_what_is_printed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = Path("docs/score.md").read_text("utf-8").split("```\n")
    assert scored(capsys, "docs/score/mine.csv", "--against", "dia_seq", "allm-bcrs")[1] in shown
    assert compare.main(["results/fallback", "results/withheld", "--limit", "3"]) == 0
    assert capsys.readouterr().out in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
@pytest.mark.parametrize("target", ["score", "compare"])
def test_make_says_how_it_is_used(target):
    shown = subprocess.run(["make", "-o", ".venv/.installed", target], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 2 and f"usage: make {target} " in shown.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_make_takes_a_path_as_it_is(tmp_path):
    """Blanks and signs of the shell in a path reach the command as they were given."""
    path = tmp_path / "my answers (1) & 'more' #2 甲.csv"
    arguments = [f"PREDICTIONS={path}", "STUDY=results/no such", "AGAINST=bcrs allm", "OUTPUT=my tables"]
    program = tmp_path / "python"
    program.write_text('#!/usr/bin/env python3\nimport json, sys\njson.dump(sys.argv[1:], open(%r, "w"))\n' % str(tmp_path / "seen"))
    program.chmod(0o755)
    shown = subprocess.run(
        ["make", "-o", ".venv/.installed", "score", f"VENV_PYTHON={program}", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "seen").read_text()) == [
        "-m", "llmcrs_utils.study.score", str(path), "--study", "results/no such", "--against", "bcrs", "allm", "--output", "my tables",
    ]  # fmt: skip


def test_sets_with_half_width_punctuation_are_counted(study, tmp_path, capsys):
    text = answers_to(samples_of(study), ["elicit"]).assign(text=["颜色;尺码", "颜色；尺码;产地", "颜色", "颜色:黑", "", "颜色；尺码"])
    text.to_csv(tmp_path / "x.csv", index=False)
    code, out, _ = scored(capsys, tmp_path / "x.csv", "--study", study, "--against", "bcrs")
    assert code == 0 and "x, elicit: 3 answers have ':' or ';' where '：' or '；' is meant" in out


def test_a_folder_that_is_not_there_or_holds_scores_only_is_called_so(study, tmp_path, capsys):
    answers_to(samples_of(study)).to_csv(tmp_path / "x.csv", index=False)
    code, _, err = scored(capsys, tmp_path / "x.csv", "--study", tmp_path / "gone")
    assert code == 2 and "no such folder" in err
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "scores.parquet").touch()
    code, _, err = scored(capsys, tmp_path / "x.csv", "--study", tmp_path / "private")
    assert code == 2 and "holds scores only" in err


def test_half_width_punctuation_is_counted_by_its_effect_in_test_answers():
    texts = ["颜色：黑；尺码：43", "颜色：黑；尺码:43", "颜色：黑;尺码：43", "时间：10:30", None, "颜色:黑"]
    answers = pd.DataFrame({"system": "x", "sample_id": list("abcdef"), "split": ["test"] * 5 + ["train"], "text": texts})
    tasks = dict.fromkeys("abcdef", "understand")
    (line,) = half_width_text(answers, tasks, "zh")
    assert line.startswith("x, understand: 2 answers") and half_width_text(answers, tasks, "en") == []
