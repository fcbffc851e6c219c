"""The validate command: what it prints, writes and exits with; and the example folder that the documentation explains."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import samples_of
from folders import dialogue, dialogues_text, set_aside, write_folder

from llmcrs_utils.corpus.faults import ERRORS, NOTES, Report
from llmcrs_utils.corpus.schema import KNOWLEDGE_COLUMNS, SPLITS
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.corpus.validate import main
from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.tasks.candidates import CANDIDATES

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "your-data"
PAGE = ROOT / "docs" / "your-data.md"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "corpus")


def spoil(folder):
    """Two errors and a note."""
    record = dialogue("valid1", domain="玩具", userid=None)
    (folder / "valid_dialogue.json").write_text(dialogues_text(dialogue("valid0"), record), "utf-8")
    with (folder / "item_kg.txt").open("a", encoding="utf-8") as file:
        file.write("\n13,7\n11,7,功效,补水,保湿\n")


def test_data_in_order_are_counted_and_exit_0(folder, tmp_path, capsys):
    assert main([str(folder), "--report", str(tmp_path / "report.json")]) == 0
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["train", "2", "dialogues", "(美妆行业", "2)"] in lines and ["utterances", "18"] in lines
    assert lines[-2:] == ["no errors, no notes".split(), "the data are in order".split()] and shown.err == ""
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["in_order"] and (report["errors"], report["notes"], report["faults"]) == (0, 0, [])
    sizes = {"dialogues": {split: {"美妆行业": 2} for split in SPLITS}, "utterances": 18, "items": 2, "tuples": 2, "actions": 2}
    assert report["sizes"] == sizes


def test_notes_alone_exit_0(folder, capsys):
    (folder / "user_action.txt").write_text("seller_id_encrypt,user_id_encrypt,item_id_encrypt,actime,action_id\n", "utf-8")
    assert main([str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "0 errors, 1 notes" in shown and f"note no_records: 1 ({NOTES['no_records']})" in shown


def test_errors_exit_1_and_the_report_has_every_fault(folder, tmp_path, capsys):
    spoil(folder)
    assert main([str(folder), "--report", str(tmp_path / "report.json")]) == 1
    shown = capsys.readouterr().out
    assert "2 errors, 1 notes; bad records: 2" in shown and shown.endswith("the data are not in order\n")
    assert f"error field_count: 1 ({ERRORS['field_count']})\n    {folder / 'item_kg.txt'}: row 4: 2 fields instead of 4" in shown
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert not report["in_order"] and (report["errors"], report["notes"], report["unusable_records"]) == (2, 1, 2)
    assert {kind: (told["severity"], told["count"]) for kind, told in report["kinds"].items()} == {
        "wrong_value": ("error", 1),
        "field_count": ("error", 1),
        "duplicate_row": ("note", 1),
    }
    places = {(fault["kind"], Path(fault["file"]).name, fault["record"], fault["field"]) for fault in report["faults"]}
    assert places == {
        ("wrong_value", "valid_dialogue.json", "dialogue 1 (sid valid1)", "userid"),
        ("field_count", "item_kg.txt", "row 4", ""),
        ("duplicate_row", "item_kg.txt", "row 5", ""),
    }
    assert (
        report["sizes"]["dialogues"]["valid"] == {"美妆行业": 1} and report["records"][str(folder / "valid_dialogue.json")] == 2
    )


def test_bad_records_are_set_aside_on_demand_and_are_errors_still(folder, tmp_path, capsys):
    spoil(folder)
    aside = tmp_path / "aside.jsonl"
    assert main([str(folder), "--bad-records", "set_aside", "--set-aside", str(aside)]) == 1
    assert f"bad records: 2, set aside in {aside}" in capsys.readouterr().out
    assert [line["record"] for line in set_aside(aside)] == ["row 4", "dialogue 1 (sid valid1)"]


def test_encoding_is_taken(folder, capsys):
    for path in folder.iterdir():
        path.write_bytes(path.read_text("utf-8").encode("gb18030"))
    assert main([str(folder), "--encoding", "gb18030"]) == 0
    assert main([str(folder)]) == 1
    assert ERRORS["encoding"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["{folder}", "--bad-records", "skip"], "invalid choice: 'skip'"),
        (["{folder}", "--unknown"], "unrecognized arguments"),
        (["{folder}", "--set-aside", "aside.jsonl"], "--set-aside FILE needs --bad-records set_aside"),
        (["{folder}/nothing"], "nothing: no such folder"),
        (["{folder}", "--encoding", "gb1803"], "encoding 'gb1803' is unknown"),
        (["{folder}", "--report", "{folder}/no/such/report.json"], "report.json: cannot be written"),
        (["{folder}", "--bad-records", "set_aside", "--set-aside", "{folder}/item_kg.txt/aside"], "item_kg.txt: cannot be written"),
    ],
)
def test_what_cannot_be_run_exits_2(folder, capsys, arguments, message):
    assert main([argument.format(folder=folder) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_as_a_command(folder):
    done = subprocess.run(
        [sys.executable, "-m", "llmcrs_utils.corpus.validate", str(folder)],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert b"the data are in order" in done.stdout


# --- the example


def test_the_example_is_in_order_and_asks_every_question():
    report = Report()
    corpus = read_corpus(EXAMPLE, report=report)
    assert report.counts() == {"unknown_domain": 3}
    assert [len(corpus.dialogues[split]) for split in SPLITS] == [1, 1, 1]
    samples = samples_of(corpus)
    assert set(samples[samples["split"] == "train"]["task"]) == set(TASKS) == set(samples[samples["split"] == "test"]["task"])
    recommend = samples[samples["task"] == "recommend"]
    assert all(len(candidates) == CANDIDATES for candidates in recommend["candidates"]) and recommend["history"].map(len).all()
    assert corpus.knowledge["value"].str.contains(",").any() and corpus.knowledge["value"].str.contains('"').any()


def test_the_profile_of_the_example_reads_it():
    assert (ROOT / load_profile(ROOT / "params" / "your-data.yaml")["01_build_data"]["data_dir"]).samefile(EXAMPLE)


def test_the_page_names_every_kind_and_shows_the_command_s_own_words(monkeypatch, capsys):
    page = PAGE.read_text("utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page.split("## Errors and notes")[1], re.MULTILINE))
    assert told == ERRORS | NOTES
    assert ",".join(KNOWLEDGE_COLUMNS) in page
    monkeypatch.chdir(ROOT)
    main(["docs/your-data"])
    assert capsys.readouterr().out.strip() in page
