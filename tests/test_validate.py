"""The validate command: what it prints, writes and exits with; and the example folder that the documentation explains."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import samples_of
from folders import dialogue, dialogues_text, set_aside, write_folder

from llmcrs_utils.corpus.faults import ERRORS, NOTES, Report
from llmcrs_utils.corpus.schema import KNOWLEDGE_COLUMNS, SPLITS, Corpus, Dialogue, Utterance
from llmcrs_utils.corpus.sources import SOURCES, corpus_note, read_source, source_files
from llmcrs_utils.corpus.u_need import count_u_need_joins, read_corpus
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
    assert "2 of 2 items of the behaviour are among the items of the product knowledge" in shown.out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["in_order"] and (report["errors"], report["notes"], report["faults"]) == (0, 0, [])
    sizes = {"dialogues": {split: {"美妆行业": 2} for split in SPLITS}, "utterances": 18, "items": 2, "tuples": 2, "actions": 2}
    assert report["sizes"] == sizes
    joins = {(join["names"], join["among"]): (join["matched"], join["of"], join["near"]) for join in report["joins"]}
    assert joins == {
        ("users of the dialogues", "users of the behaviour"): (1, 1, 0),
        ("sellers of the dialogues", "sellers of the behaviour"): (1, 1, 0),
        ("recommended items", "items of the product knowledge"): (1, 1, 0),
        ("candidates", "items of the product knowledge"): (2, 2, 0),
        ("sellers of the dialogues", "sellers of the product knowledge"): (1, 1, 0),
        ("items of the behaviour", "items of the product knowledge"): (2, 2, 0),
        ("sellers of the behaviour", "sellers of the product knowledge"): (1, 1, 0),
    }


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


@pytest.mark.parametrize("write", ["{}.0", "00{}", " {}", "{}\u3000", "\ufeff{}", "'{}'"])
@pytest.mark.parametrize(("file", "names", "among"), [
    ("user_action.txt", "users of the dialogues", "users of the behaviour"),
    ("user_action.txt", "sellers of the dialogues", "sellers of the behaviour"),
    ("user_action.txt", "items of the behaviour", "items of the product knowledge"),
    ("user_action.txt", "sellers of the behaviour", "sellers of the product knowledge"),
    ("item_kg.txt", "recommended items", "items of the product knowledge"),
    ("item_kg.txt", "candidates", "items of the product knowledge"),
    ("item_kg.txt", "sellers of the dialogues", "sellers of the product knowledge"),
])  # fmt: skip
def test_a_join_that_matches_nobody_is_told_with_what_would_match(folder, tmp_path, capsys, file, names, among, write):
    header, *lines = (folder / file).read_text("utf-8").split("\n")
    column = {"users": "user_id_encrypt", "sellers": "seller_id_encrypt"}.get(among.split()[0], "item_id_encrypt")
    place = header.split(",").index(column)
    rows = [line.replace("u1", "77").split(",", len(header.split(",")) - 1) for line in lines]
    rows = [[write.format(cell) if n == place else cell for n, cell in enumerate(row)] for row in rows]
    (folder / file).write_text("\n".join([header, *map(",".join, rows)]), "utf-8")
    for path in folder.glob("*.json"):  # users are numbers here too
        path.write_text(path.read_text("utf-8").replace('"u1"', '"77"'), "utf-8")
    assert main([str(folder), "--report", str(tmp_path / "report.json")]) == 0
    shown = capsys.readouterr().out
    joins = json.loads((tmp_path / "report.json").read_text("utf-8"))["joins"]
    (join,) = [join for join in joins if (join["names"], join["among"]) == (names, among)]
    assert join["matched"] == 0 and join["near"] == join["of"] > 0
    assert f"0 of {join['of']} {names} are among the {among}\n" in shown
    told = f"{file}: none of the {join['of']} {names} is among the {among}; {join['of']} would match if both were written alike"
    assert told in shown
    assert NOTES["no_match"] in shown


def test_joins_of_a_corpus_of_full_size_take_no_time_to_speak_of():
    items = [f"7{number:011d}" for number in range(69_000)]
    turn = Utterance.model_construct(rec_item_id=items[:2], rec_item_candidates=[[f"{item}.0" for item in items]])
    talks = [Dialogue.model_construct(userid=f"u{number} ", sellerid="7", dialogue=[turn]) for number in range(3)]
    knowledge = pd.DataFrame({"item_id_encrypt": items * 5, "seller_id_encrypt": "7"})
    behaviour = pd.DataFrame({"user_id_encrypt": [f"U{number}" for number in range(334_000)], "seller_id_encrypt": "8"})
    behaviour["item_id_encrypt"] = [f"0{items[number % 69_000]}" for number in range(334_000)]
    corpus = Corpus({"train": talks, "valid": [], "test": []}, knowledge, behaviour)
    report, start = Report(), time.process_time()
    count_u_need_joins(corpus, {"knowledge": Path("x"), "behaviour": Path("x")}, report)
    assert time.process_time() - start < 6  # a second where nothing else runs; nothing may be compared with everything
    assert report.counts() == {"no_match": 5}
    assert [(join.matched, join.near) for join in report.joins] == [(0, 3), (0, 0), (2, 0), (0, 69_000), (1, 0), (0, 69_000), (0, 0)]


LEFT_BEHIND = ["._user_action.txt", "~$user_action.txt", ".user_action.txt", "._item_kg.txt", ".DS_Store", "user_action.txt.part"]


@pytest.mark.parametrize("name", [*LEFT_BEHIND, "__MACOSX/._user_action.txt"])
def test_what_a_program_left_behind_is_no_data(folder, capsys, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\0\5\x16\7Mac OS X")
    assert main([str(folder)]) == 0
    assert "no errors, no notes" in capsys.readouterr().out
    assert folder / name not in source_files("u_need", folder) and len(source_files("u_need", folder)) == 5


ODD_NAMES = ["my study #2", "a&b (old)", "20230210", "我的数据", "100% [done]", "it's", "$HOME", "-x", "~$x"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_may_have_any_name_and_lie_below_the_home_folder(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_folder(tmp_path / name, own_names=True, behaviour_name=f"{name} action.txt" if name != "~$x" else "action.txt")
    for given in (str(folder), f"~/{name}"):
        assert main(["--report", str(tmp_path / name / "report.json"), given]) == 0
        assert [len(read_source("u_need", given).dialogues[split]) for split in SPLITS] == [2, 2, 2]
        assert source_files("u_need", given) == sorted(path for path in folder.iterdir() if path.name != "report.json")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["{folder}", "--bad-records", "skip"], "invalid choice: 'skip'"),
        (["{folder}", "--unknown"], "unrecognized arguments"),
        (["{folder}", "--set-aside", "aside.jsonl"], "--set-aside FILE needs --bad-records set_aside"),
        (["{folder}/nothing"], "nothing: no such folder"),
        (["{folder}", "--encoding", "gb1803"], "encoding 'gb1803' is unknown"),
        (["{folder}", "--report", "{folder}/item_kg.txt/report.json"], "item_kg.txt: cannot be written"),
        (["~no-such-user/data"], "there is no such user"),
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


# --- what the data are called, and which files they are


def test_the_data_are_called_by_what_they_are(tmp_path):
    assert corpus_note("generated", 200, 30, 80) == "Synthetic corpus of 310 dialogues"
    assert corpus_note("generated", 200, 30, 80, "anything") == "Synthetic corpus of 310 dialogues"
    assert corpus_note("pscon", 0, 0, 0, str(tmp_path)) == "PSCon (English part; right answers: what the shopper liked)"
    assert corpus_note("pscon", 0, 0, 0, language="zh", gold="all") == "PSCon (Chinese part; right answers: all recommended)"
    assert corpus_note("u_need", 0, 0, 0) == "U-NEED"
    assert corpus_note("u_need", 0, 0, 0, str(write_folder(tmp_path / "published", own_names=True))) == "U-NEED"
    # whose data these are nobody knows: a generated corpus that was written down, for one
    assert corpus_note("u_need", 0, 0, 0, str(write_folder(tmp_path / "母婴 #2"))) == "Dialogues of 母婴 #2"
    for function in (lambda: corpus_note("u-need", 1, 1, 1), lambda: source_files("u-need", tmp_path)):
        with pytest.raises(ValueError, match="corpus 'u-need' is unknown; known: generated, u_need, pscon"):
            function()
    assert all(corpus_note(corpus, 1, 1, 1) for corpus in SOURCES)


def test_files_of_a_source_are_those_it_reads(folder, tmp_path, monkeypatch):
    opened = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    (folder / "notes.txt").write_text("mine", "utf-8")
    read_source("u_need", str(folder))
    assert source_files("u_need", str(folder)) == sorted(opened) and len(opened) == 5
    assert source_files("generated", str(folder)) == source_files("u_need", tmp_path / "nowhere") == []
    (folder / "user_action.txt").unlink()
    assert len(source_files("u_need", folder)) == 4


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


def test_a_catalogue_too_small_for_a_recommendation_is_noted(folder, capsys):
    """The folder's product knowledge has two items."""
    assert main([str(folder)]) == 0
    assert "note: no run is possible yet: dialogue " in capsys.readouterr().out
    assert main([str(EXAMPLE)]) == 0
    assert "no run is possible" not in capsys.readouterr().out
