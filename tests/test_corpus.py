"""Corpus folders: every accepted form reads the same, every kind of fault gives one error that says how to mend it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, KNOWLEDGE_COLUMNS, SPLITS, TIME_TYPE, Corpus, CorpusError, write_corpus
from llmcrs_utils.corpus.u_need import DIALOGUE_NAMES, KNOWLEDGE_NAMES, read_corpus

SAMPLES = Path(__file__).parents[2] / "shared" / "u_need_samples"
KNOWLEDGE = [("11", "7", "功效", "补水,保湿"), ("12", "7", "一级类目", "1801")]
BEHAVIOUR = [("7", "u1", "12", "2022-09-18 14:00:00", "0"), ("7", "u1", "11", "2022-09-18 00:00:00", "2")]


def dialogue(sid="s1", **changes):
    asked = {"key": "功效", "value": "", "start": -1, "exclusive_end": -1}
    said = {"key": "品类", "value": "水", "start": 2, "exclusive_end": 3}
    turns = [
        ("用户", "有化水吗", "用户需求", [said], []),
        ("客服", "功效？", "系统提问", [asked], []),
        ("客服", "这款", "系统推荐", [], ["11"]),
    ]
    record = {
        "domain": "美妆行业",
        "sid": sid,
        "sellerid": "7",
        "userid": "u1",
        "ds": "20220918",
        "dialogue": [
            {
                "seq_no": number,
                "time": f"2022-09-18 14:0{number}:00",
                "sender_type": sender,
                "send_content": text,
                "act_tag": act,
                "attributes": attributes,
                "rec_item_id": items,
                "rec_item_info": [],
                "rec_item_candidates": [["11", "12"] for _ in items],
            }
            for number, (sender, text, act, attributes, items) in enumerate(turns, start=1)
        ],
    }
    return {**record, **changes}


def csv_text(columns, rows):
    return "\n".join(",".join(row) for row in [columns, *rows])


def write_folder(folder, own_names=False, behaviour_name="user_action.txt"):
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        (folder / DIALOGUE_NAMES[split][own_names]).write_text(json.dumps([dialogue(split)], ensure_ascii=False), "utf-8")
    (folder / KNOWLEDGE_NAMES[own_names]).write_text(csv_text(KNOWLEDGE_COLUMNS, KNOWLEDGE), "utf-8")
    (folder / behaviour_name).write_text(csv_text(BEHAVIOUR_COLUMNS, BEHAVIOUR), "utf-8")
    return folder


def same(one, other):
    pd.testing.assert_frame_equal(one.knowledge, other.knowledge)
    pd.testing.assert_frame_equal(one.behaviour, other.behaviour)
    return one.dialogues == other.dialogues


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "corpus")


def test_reads_every_field(folder):
    corpus = read_corpus(folder)
    assert [d.sid for split in SPLITS for d in corpus.dialogues[split]] == list(SPLITS)
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


def test_json_lines_numeric_ids_and_bom_read_the_same(folder):
    expected = read_corpus(folder)
    record = dialogue("train", sellerid=7)
    record["dialogue"][2]["rec_item_id"] = [11]
    record["dialogue"][2]["rec_item_candidates"] = [[11, 12]]
    text = json.dumps(record, ensure_ascii=False)
    (folder / "train_dialogue.json").write_text(f"\ufeff{text}\n\n", "utf-8")
    (folder / "item_kg.txt").write_text("\ufeff" + csv_text(KNOWLEDGE_COLUMNS, KNOWLEDGE) + "\r\n", "utf-8")
    (folder / "user_action.txt").write_text("\ufeff" + csv_text(BEHAVIOUR_COLUMNS, BEHAVIOUR) + "\n", "utf-8")
    assert same(read_corpus(folder), expected)
    more = json.dumps(dialogue("another", ds="2022\u2028"), ensure_ascii=False)  # a line end to Python, not to JSON
    (folder / "train_dialogue.json").write_text(f"{text}\n{more}\n", "utf-8")
    assert [d.sid for d in read_corpus(folder).dialogues["train"]] == ["train", "another"]


def test_written_corpus_reads_the_same(folder, tmp_path):
    corpus = read_corpus(folder)
    write_corpus(corpus, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), corpus)


def test_no_knowledge_and_no_behaviour_survive_writing(folder, tmp_path):
    corpus = read_corpus(folder)
    bare = Corpus(corpus.dialogues, corpus.knowledge.iloc[:0], corpus.behaviour.iloc[:0])
    write_corpus(bare, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), bare)


def utterance_fault(**changes):
    def break_it(folder):
        record = dialogue("bad")
        record["dialogue"][2].update(changes)
        (folder / "valid_dialogue.json").write_text(json.dumps([dialogue("good"), record]), "utf-8")

    return break_it


def missing_field(folder):
    record = dialogue("bad")
    del record["dialogue"][1]["send_content"]
    (folder / "valid_dialogue.json").write_text(json.dumps([record]), "utf-8")


def rewrite(name, change):
    return lambda folder: (folder / name).write_text(change((folder / name).read_text("utf-8")), "utf-8")


RECORD = ["valid_dialogue.json", "dialogue 1 (sid bad)", "mend this record"]
FAULTS = {
    "truncated list": (rewrite("test_dialogue.json", lambda text: text[:-40]), ["test_dialogue.json", "line 1", "cut short"]),
    "truncated lines": (
        rewrite("test_dialogue.json", lambda text: f"{text[1:-1]}\n{text[1:-40]}"),
        ["test_dialogue.json", "line 2", "cut short"],
    ),
    "no list": (rewrite("test_dialogue.json", lambda text: "5"), ["test_dialogue.json", "list", "mend"]),
    "unknown act": (utterance_fault(act_tag="系统问"), [*RECORD, "dialogue.2.act_tag", "系统提问"]),
    "unknown sender": (utterance_fault(sender_type="bot"), [*RECORD, "dialogue.2.sender_type", "客服"]),
    "candidates": (utterance_fault(rec_item_candidates=[["11"], ["12"]]), [*RECORD, "dialogue.2", "rec_item_candidates has 2"]),
    "bad time": (utterance_fault(time="yesterday"), [*RECORD, "dialogue.2.time"]),
    "time zone": (utterance_fault(time="2022-09-18T14:00:00Z"), [*RECORD, "dialogue.2.time", "timezone"]),
    "missing field": (missing_field, ["valid_dialogue.json", "dialogue 0 (sid bad)", "dialogue.1.send_content", "required"]),
    "same sid": (
        lambda folder: (folder / "valid_dialogue.json").write_text(json.dumps([dialogue("bad"), dialogue("bad")]), "utf-8"),
        ["valid_dialogue.json", "sid bad", "twice"],
    ),
    "two splits": (
        lambda folder: shutil.copy(folder / "train_dialogue.json", folder / "test_dialogue.json"),
        ["sid train", "train_dialogue.json", "test_dialogue.json", "keep it in one"],
    ),
    "knowledge header": (
        rewrite("item_kg.txt", lambda text: text.replace("relation_name", "relation")),
        ["item_kg.txt", "first line", "relation_name"],
    ),
    "knowledge row": (
        rewrite("item_kg.txt", lambda text: text + "\n13,7"),
        ["item_kg.txt", "row 4", "2 fields", "relation_name"],
    ),
    "behaviour header": (
        rewrite("user_action.txt", lambda text: text.split("\n", 1)[1]),
        ["user_action.txt", "first line", "seller_id_encrypt"],
    ),
    "behaviour row": (rewrite("user_action.txt", lambda text: text + ",9"), ["user_action.txt", "row 3", "6 fields", "actime"]),
    "behaviour time": (
        rewrite("user_action.txt", lambda text: text.replace("2022-09-18 00", "18.9. 00")),
        ["user_action.txt", "row 3", "actime", "18.9.", "YYYY-MM-DD"],
    ),
    "behaviour with and without zone": (
        rewrite("user_action.txt", lambda text: text.replace("00:00:00", "00:00:00+08:00")),
        ["user_action.txt", "row 3", "actime"],
    ),
    "not UTF-8": (
        lambda folder: (folder / "item_kg.txt").write_bytes("品牌".encode("gbk")),
        ["item_kg.txt", "UTF-8", "convert"],
    ),
    "missing file": (
        lambda folder: (folder / "valid_dialogue.json").unlink(),
        ["valid is missing", "valid_dialogue.json or air_dev_dataset_0210_encrypt.json"],
    ),
    "missing knowledge": (lambda folder: (folder / "item_kg.txt").unlink(), ["knowledge is missing", *KNOWLEDGE_NAMES]),
    "missing behaviour": (lambda folder: (folder / "user_action.txt").unlink(), ["behaviour is missing", "user_action.txt"]),
    "both conventions": (
        lambda folder: write_folder(folder, own_names=True),
        ["train is there more than once", *DIALOGUE_NAMES["train"], "knowledge is there more than once"],
    ),
    "two behaviours": (
        lambda folder: shutil.copy(folder / "user_action.txt", folder / "old_action.txt"),
        ["behaviour is there more than once", "old_action.txt, user_action.txt"],
    ),
    "missing folder": (shutil.rmtree, ["no such folder"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_that_says_where_and_what_to_do(folder, fault):
    break_it, said = FAULTS[fault]
    break_it(folder)
    with pytest.raises(CorpusError) as caught:
        read_corpus(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert [part for part in said if part not in message] == []


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples of U-NEED are not here")
def test_published_samples(tmp_path):
    for name in ("train_dialogue.json", "item_kg.txt", "user_action.txt"):
        shutil.copy(SAMPLES / name, tmp_path)
    examples = json.loads((SAMPLES / "uneed_examples.json").read_text("utf-8"))
    for split, records in (("valid", examples[:1]), ("test", examples[1:])):
        (tmp_path / f"{split}_dialogue.json").write_text(json.dumps(records), "utf-8")
    corpus = read_corpus(tmp_path)
    assert [len(corpus.dialogues[split]) for split in SPLITS] == [1, 1, 2]
    recommendation = corpus.dialogues["train"][0].dialogue[3]
    assert recommendation.rec_item_id == ["586711180132"]
    assert recommendation.rec_item_candidates[0][-1] == "586711180132"
    assert len(recommendation.rec_item_candidates[0]) == 20
    assert (len(corpus.knowledge), len(corpus.behaviour)) == (3, 2)
    write_corpus(corpus, tmp_path / "copy")
    assert same(read_corpus(tmp_path / "copy"), corpus)
