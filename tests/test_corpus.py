"""Corpus folders: every accepted form reads the same, and what is written reads back as it was."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from folders import KNOWLEDGE, csv_text, dialogue, dialogues_text, write_folder

from llmcrs_utils.corpus.faults import CorpusError, Report
from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, KNOWLEDGE_COLUMNS, SPLITS, TIME_TYPE, Corpus, write_corpus
from llmcrs_utils.corpus.u_need import read_corpus

SAMPLES = Path(__file__).parents[2] / "shared" / "u_need_samples"


def same(one, other):
    pd.testing.assert_frame_equal(one.knowledge, other.knowledge)
    pd.testing.assert_frame_equal(one.behaviour, other.behaviour)
    return one.dialogues == other.dialogues


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "corpus")


def test_reads_every_field(folder):
    corpus = read_corpus(folder)
    assert [d.sid for split in SPLITS for d in corpus.dialogues[split]] == [f"{split}{n}" for split in SPLITS for n in (0, 1)]
    need, _, recommendation = corpus.dialogues["train"][0].dialogue
    assert (need.attributes[0].key, need.attributes[0].value, need.attributes[0].start) == ("品类", "水", 2)
    assert recommendation.rec_item_candidates == [["11", "12"]]
    assert corpus.knowledge.to_numpy().tolist() == [list(row) for row in KNOWLEDGE]
    assert corpus.behaviour["item_id_encrypt"].tolist() == ["11", "12"]  # by time
    assert corpus.behaviour["actime"].dtype == TIME_TYPE


@pytest.mark.parametrize("behaviour_name", ["user_action.txt", "air_user_action_encrypt.csv"])
def test_own_names_read_the_same(folder, tmp_path, behaviour_name):
    own = write_folder(tmp_path / "own", own_names=True, behaviour_name=behaviour_name)
    assert same(read_corpus(own), read_corpus(folder))


def rewrite(folder, change):
    """Every file's text through ``change``, which gives bytes."""
    for path in folder.iterdir():
        path.write_bytes(change(path.read_text("utf-8")))


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: text.encode("utf-8-sig"), "utf-8"),
        (lambda text: text.replace("\n", "\r\n").encode(), "utf-8"),
        (lambda text: (text + "\r\n\r\n").encode("utf-8-sig"), "utf-8"),
        (lambda text: text.replace("\n", "\n\n").encode(), "utf-8"),
        (lambda text: text.encode("gb18030"), "gb18030"),
        (lambda text: text.encode("gb18030"), "GBK"),
        (lambda text: text.encode("utf-32"), "utf-32"),
        (lambda text: text.encode("utf-16"), "utf-16"),
        (lambda text: text.encode("utf-16-be"), "utf-16-be"),
        (lambda text: text.encode("utf-16"), "utf-8"),  # the mark decides
        (lambda text: text.encode("utf-8-sig"), "gb18030"),
    ],
)
def test_every_encoding_and_line_end_reads_the_same(folder, change, encoding):
    expected = read_corpus(folder)
    rewrite(folder, change)
    report = Report()
    assert same(read_corpus(folder, encoding, report), expected) and report.faults == []


def test_json_lines_and_numeric_ids_read_the_same(folder):
    expected = read_corpus(folder)
    record = dialogue("train0", sellerid=7)
    record["dialogue"][2]["rec_item_id"] = [11]
    record["dialogue"][2]["rec_item_candidates"] = [[11, 12]]
    lines = [json.dumps(record, ensure_ascii=False), json.dumps(dialogue("train1"))]
    indented = json.dumps([json.loads(line) for line in lines], indent=4)
    for text in ("\n".join(lines), f"\n{lines[0]}\r\n\n{lines[1]}\n\n", "".join(lines), indented):
        (folder / "train_dialogue.json").write_text(text, "utf-8")
        assert same(read_corpus(folder), expected)
    (folder / "train_dialogue.json").write_text(lines[0], "utf-8")
    assert [d.sid for d in read_corpus(folder).dialogues["train"]] == ["train0"]
    more = json.dumps(dialogue("another", ds="2022\u2028"), ensure_ascii=False)  # a line end to Python, not to JSON
    (folder / "train_dialogue.json").write_text(f"{lines[0]}\n{more}\n", "utf-8")
    assert [d.sid for d in read_corpus(folder).dialogues["train"]] == ["train0", "another"]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tables_that_pandas_wrote_read_the_same(folder, quoting):
    values = ["补水,保湿", 'a "b", c', '"', '""', '"x"', ",", "' ", " 白 ", '24"']
    knowledge = pd.DataFrame([(f"{n}", "7", "a,b", value) for n, value in enumerate(values, start=11)], columns=KNOWLEDGE_COLUMNS)
    knowledge.to_csv(folder / "item_kg.txt", index=False, quoting=quoting)
    actions = pd.DataFrame([("7", 'u"1"', "11", "2022-09-18 00:00:00", "2,3")], columns=BEHAVIOUR_COLUMNS)
    actions.to_csv(folder / "user_action.txt", index=False, quoting=quoting)
    corpus = read_corpus(folder)
    assert corpus.knowledge.to_numpy().tolist() == knowledge.to_numpy().tolist()
    assert corpus.behaviour["user_id_encrypt"].tolist() == ['u"1"'] and corpus.behaviour["action_id"].tolist() == ["2,3"]


def test_quotes_that_no_writer_put_there_stand_for_themselves(folder):
    rows = [
        '13,7,尺寸,24"',
        '14,7,尺寸,"24"和"27"',
        '15,7,"尺寸,大",x',
        '16,7,尺寸,a,"b"',
        '17,7,尺寸,"a","b"',
        '18,"7",尺寸,"a,b"',
    ]
    with (folder / "item_kg.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"\n{row}" for row in rows)
    read = read_corpus(folder).knowledge.to_numpy().tolist()[2:]
    assert [row[3] for row in read] == ['24"', '"24"和"27"', "x", 'a,"b"', '"a","b"', "a,b"]
    assert read[2][2] == "尺寸,大" and read[5][1] == "7"


def test_fractions_of_a_second_are_kept(folder, tmp_path):
    times = ("2022-09-18 00:00:00.000002", "2022-09-18 0:00:00", "0901-01-01 00:00:00")
    rows = [("7", "u1", "11", time, "0") for time in times]
    (folder / "user_action.txt").write_text(csv_text(BEHAVIOUR_COLUMNS, rows), "utf-8")
    record = dialogue("train0")
    record["dialogue"][1]["time"] = "2022-09-18 14:00:59.999996"  # microseconds before the one it answers, as in U-NEED
    (folder / "train_dialogue.json").write_text(dialogues_text(record), "utf-8")
    report = Report()
    corpus = read_corpus(folder, report=report)
    assert [f"{time:%m-%d %H:%M:%S.%f}" for time in corpus.behaviour["actime"]] == [
        "01-01 00:00:00.000000", "09-18 00:00:00.000000", "09-18 00:00:00.000002"
    ]  # fmt: skip
    assert report.faults == [] and corpus.dialogues["train"][0].dialogue[1].time.microsecond == 999996
    write_corpus(corpus, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), corpus)


def test_a_line_break_in_a_value_cannot_be_written(folder, tmp_path):
    corpus = read_corpus(folder)
    for broken in ("补水\n保湿", "补水\r保湿"):
        knowledge = corpus.knowledge.assign(value=["x", broken])
        with pytest.raises(CorpusError, match="item_kg.txt: row 3, field value: .* holds a line break; write a blank"):
            write_corpus(Corpus(corpus.dialogues, knowledge, corpus.behaviour), tmp_path / "copy")


def test_written_corpus_reads_the_same(folder, tmp_path):
    corpus = read_corpus(folder)
    write_corpus(corpus, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), corpus)


def test_no_knowledge_and_no_behaviour_survive_writing(folder, tmp_path):
    corpus = read_corpus(folder)
    bare = Corpus(corpus.dialogues, corpus.knowledge.iloc[:0], corpus.behaviour.iloc[:0])
    write_corpus(bare, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), bare)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples of U-NEED are not here")
def test_published_samples(tmp_path):
    for name in ("train_dialogue.json", "item_kg.txt", "user_action.txt"):
        shutil.copy(SAMPLES / name, tmp_path)
    examples = json.loads((SAMPLES / "uneed_examples.json").read_text("utf-8"))
    for split, records in (("valid", examples[:1]), ("test", examples[1:])):
        (tmp_path / f"{split}_dialogue.json").write_text(json.dumps(records), "utf-8")
    report = Report()
    corpus = read_corpus(tmp_path, report=report)
    assert report.counts() == {"info_count": 1, "unknown_item": 32, "no_match": 7}  # the tables are the first rows only
    assert [len(corpus.dialogues[split]) for split in SPLITS] == [1, 1, 2]
    recommendation = corpus.dialogues["train"][0].dialogue[3]
    assert recommendation.rec_item_id == ["586711180132"]
    assert recommendation.rec_item_candidates[0][-1] == "586711180132"
    assert len(recommendation.rec_item_candidates[0]) == 20
    assert (len(corpus.knowledge), len(corpus.behaviour)) == (3, 2)
    write_corpus(corpus, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), corpus)
