"""PSCon's conversations in the internal format: two made by hand, asserted exactly, and the published ones."""

import json
from pathlib import Path

import pandas as pd
import pytest
from folders import set_aside

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.pscon import losses, read_pscon, split_of, without_separators
from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, SPLITS, CorpusError, write_corpus
from llmcrs_utils.corpus.sources import source_files
from llmcrs_utils.corpus.u_need import read_corpus

PSCON = Path(__file__).parents[2] / "shared" / "pscon"


def user(content, intent, *keywords, **more):
    return {"role": "user", "content": content, "intent": intent, "keywords": list(keywords), **more}


def system(content, action, **more):
    return {"role": "system", "content": content, "action": action, **more}


def products(*ids):
    return [{"product_id": name, "product_title": f"Title of {name},\nlong"} for name in ids]


FRIDGE = [
    user("Hi", "Chitchat"),
    system("How can I help?", "Chitchat"),
    user("A new Fridge; quiet please", "Reveal", "fridge", "fridge; quiet", " Fridge "),
    system("Which size? $25 to $50?", "Clarify", clarifying_attribute=["Size", "Price: $25 to $50"]),
    user("Small", "Interpret", "fridge", "small"),
    system("Which colour?", "Clarify", clarifying_attribute=["Colour"]),
    system("Any colour at all?", "Clarify", clarifying_attribute=["Colour", ""]),
    user("It should be white", "Interpret", "White", "snow  white: matt"),
    user("And cheap", "Interpret", "cheap"),
    system(
        "These two", "Recommend",
        search_results=["B1", {"product_id": "B2"}, {"product_id": "B1"}], recommended_products=products("B2", "B9", "B2"),
    ),
    user("Bigger", "Revise", "bigger"),
    system("We have none", "No answer"),
    user("Pity", "Chitchat", user_rating=[{"product_id": "B2", "product_rate": "Title of B2(liked)"}]),
]  # fmt: skip
LAMP = [
    system("What do you need?", "Inquire", keywords=["lamp"]),
    user("Hello", "Reveal"),
    system("In which range?", "Clarify", clarifying_attribute=["Price: $        $", "Brand: A;B"]),
    user("a lamp", "Reveal", "lamp"),
    system("Nothing asked", "Clarify", clarifying_attribute=[]),
    user("thanks", "Interpret"),
    system("How about it?", "Recommend", search_results=[], recommended_products=[]),
]


@pytest.fixture
def folder(tmp_path):
    records = [{"conv_id": 7, "conversation": FRIDGE}, {"conv_id": 8, "conversation": LAMP}]
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "conversation_en.json").write_text(json.dumps(records), "utf-8")
    return tmp_path


def all_of(corpus):
    return {d.sid: d for split in SPLITS for d in corpus.dialogues[split]}


def test_acts_and_attributes(folder):
    mapped = {
        sid: [(u.act_tag, [(a.key, a.value, a.start, a.exclusive_end) for a in u.attributes]) for u in d.dialogue]
        for sid, d in all_of(read_pscon(folder)).items()
    }
    assert mapped["7"] == [
        ("用户需求", []),
        ("系统解释", []),
        ("用户需求", [("Keyword", "fridge", 6, 12), ("Keyword", "fridge, quiet", 6, 19)]),
        ("系统提问", [("Size", "", -1, -1), ("Price", "$25 to $50", 12, 22)]),
        ("用户回答", [("Keyword", "small", 0, 5)]),  # two attributes asked about: which one is meant is unknown
        ("系统提问", [("Colour", "", -1, -1)]),
        ("系统提问", [("Colour", "", -1, -1)]),
        ("用户回答", [("Colour", "White", 13, 18), ("Colour", "snow white - matt", -1, -1)]),
        ("用户回答", [("Keyword", "cheap", 4, 9)]),
        ("系统推荐", []),
        ("用户反馈", [("Keyword", "bigger", 0, 6)]),
        ("系统解释", []),
        ("用户反馈", []),
    ]
    assert mapped["8"] == [
        ("系统解释", []),
        ("用户需求", []),
        ("系统提问", [("Price", "", -1, -1), ("Brand", "A,B", -1, -1)]),
        ("用户需求", [("Keyword", "lamp", 2, 6)]),
        ("系统提问", []),
        ("用户回答", []),
        ("系统推荐", []),
    ]


def test_items_people_and_order(folder):
    corpus = read_pscon(folder)
    fridge = all_of(corpus)["7"]
    recommendation = fridge.dialogue[9]
    assert recommendation.send_content == "These two"
    assert recommendation.rec_item_id == ["B2", "B9"]
    assert recommendation.rec_item_candidates == [["B2"], ["B2", "B9"]]  # B1 has no title
    assert recommendation.rec_item_info == []
    assert all_of(corpus)["8"].dialogue[-1].rec_item_candidates == []
    assert (fridge.domain, fridge.sellerid, fridge.userid) == ("Shopping", "pscon", "7")
    times = [u.time for u in fridge.dialogue]
    assert times == sorted(set(times))
    assert [u.seq_no for u in fridge.dialogue] == list(range(1, len(FRIDGE) + 1))
    assert corpus.knowledge.to_numpy().tolist() == [
        ["B2", "pscon", "Title", "Title of B2, long"],
        ["B9", "pscon", "Title", "Title of B9, long"],
    ]
    assert corpus.behaviour.columns.tolist() == BEHAVIOUR_COLUMNS
    assert corpus.behaviour.empty


def test_losses_are_counted(folder):
    counts = losses(folder)
    assert counts[["count", "of"]].to_numpy().tolist() == [
        [2, 10],  # " Fridge " and "fridge"
        [1, 11],
        [1, 8],
        [6, 8],
        [1, 2],
        [1, 2],
        [1, 2],
        [1, 1],
        [3, 10],
        [3, 10],
    ]
    assert counts["what"].is_unique


def test_split_is_seeded_and_each_conversation_s_own():
    shares = (0.8, 0.1, 0.1)
    splits = [split_of(str(number), 1, shares) for number in range(2000)]
    assert [round(splits.count(split) / 2000, 1) for split in SPLITS] == list(shares)
    assert splits != [split_of(str(number), 2, shares) for number in range(2000)]
    assert split_of("19762", 1, shares) == "train"  # the same on every machine and in every process
    assert {split_of(str(number), 1, (0, 0, 1)) for number in range(50)} == {"test"}


def test_no_separator_is_left_in_a_value():
    assert without_separators(" a;b : c:\nd:") == "a,b - c - d"
    assert without_separators("10:30") == "10:30"


def test_faults_say_where_and_what_to_do(folder, tmp_path):
    path = folder / "dataset" / "conversation_en.json"
    with pytest.raises(ValueError, match="three shares of 1"):
        read_pscon(folder, shares=(0.8, 0.1, 0.2))
    faulty = {"conv_id": 9, "conversation": [user("Hi", "Reveal"), {"role": "system", "content": "?", "action": "Claryfy"}]}
    path.write_text(json.dumps([faulty]), "utf-8")
    with pytest.raises(CorpusError, match=r"_en.json: conversation 0 \(conv_id 9\), field conversation.1.action: .*Clarify"):
        read_pscon(folder)
    del faulty["conversation"][1]["action"]
    path.write_text(json.dumps([faulty]), "utf-8")
    with pytest.raises(CorpusError, match="conversation.1: .*needs an action"):
        read_pscon(folder)
    (folder / "conversation_en.json").write_text("[]", "utf-8")
    with pytest.raises(CorpusError, match="more than once"):
        read_pscon(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no conversation_en.json.*clone"):
        read_pscon(tmp_path / "empty")


def test_bad_conversations_are_set_aside_and_the_encoding_is_taken(folder, tmp_path):
    path = folder / "dataset" / "conversation_en.json"
    records = [*json.loads(path.read_text("utf-8")), {"conv_id": 9, "conversation": [user("Hi", None)]}, {"conv_id": 10}]
    path.write_text(json.dumps(records), "utf-16")
    report = Report("set_aside", tmp_path / "aside.jsonl")
    assert sorted(all_of(read_pscon(folder, encoding="utf-16", report=report))) == ["7", "8"]
    assert [line["raw"] for line in set_aside(tmp_path / "aside.jsonl")] == records[2:]
    assert len(losses(folder, "utf-16", "set_aside")) == 10
    with pytest.raises(CorpusError, match=r"(?s)2 errors.*\(conv_id 10\).*\(conv_id 9\)"):
        read_pscon(folder)


@pytest.mark.parametrize("blank", ["", " ", "\u3000", "\u200b", "\ufeff "])
def test_blank_names_are_errors_and_blank_words_are_none(folder, blank):
    path = folder / "dataset" / "conversation_en.json"
    recommends = system("This", "Recommend", search_results=[{"product_id": blank}], recommended_products=products("B1", blank))
    records = [
        {"conv_id": blank, "conversation": LAMP},
        {"conv_id": 9, "conversation": [recommends, system("?", "Recommend", search_results=["B1", blank])]},
        {"conv_id": 10, "conversation": [user("Hi", "Reveal", blank, "lamp"), system("?", "Clarify", clarifying_attribute=[blank, f"{blank}: x"])]},
    ]
    path.write_text(json.dumps(records), "utf-8")
    report = Report("set_aside")
    kept = all_of(read_pscon(folder, report=report))
    assert list(kept) == ["10"]
    assert {(fault.kind, fault.record, fault.field) for fault in report.of_severity("error")} == {
        ("empty_field", f"conversation 0 (conv_id {blank})", "conv_id"),
        ("empty_field", "conversation 1 (conv_id 9)", "conversation.0.search_results.0.product_id"),
        ("empty_field", "conversation 1 (conv_id 9)", "conversation.0.recommended_products.1.product_id"),
        ("empty_field", "conversation 1 (conv_id 9)", "conversation.1.search_results.1.product_id"),
    }
    assert [[(a.key, a.value) for a in utterance.attributes] for utterance in kept["10"].dialogue] == [[("Keyword", "lamp")], []]


def test_products_are_joined_to_titles_and_that_is_told(folder):
    report = Report()
    read_pscon(folder, report=report)
    assert report.summary().splitlines()[:2] == [
        "2 of 2 recommended products are among the products with a title",
        "1 of 2 found products are among the products with a title",
    ]
    path = folder / "dataset" / "conversation_en.json"
    path.write_text(path.read_text("utf-8").replace('"B1"', '"b9 "').replace('{"product_id": "B2"}', '"B2.0"'), "utf-8")
    report = Report()
    read_pscon(folder, report=report)
    (note,) = report.faults
    assert note.kind == "no_match" and note.file == str(path)
    assert note.message == (
        "none of the 2 found products is among the products with a title; 1 would match if both were written alike, for example 'b9 ' and 'B9'"
    )


def test_files_that_a_program_left_behind_are_no_conversations(folder, monkeypatch):
    for place in ("__MACOSX/dataset", ".git", ".hidden"):
        (folder / place).mkdir(parents=True)
        (folder / place / "conversation_en.json").write_bytes(b"\0")
    assert source_files("pscon", folder) == [folder / "dataset" / "conversation_en.json"]
    monkeypatch.setenv("HOME", str(folder.parent))
    assert sorted(all_of(read_pscon(f"~/{folder.name}"))) == ["7", "8"]
    assert len(losses(f"~/{folder.name}")) == 10


@pytest.mark.skipif(not PSCON.is_dir(), reason="PSCon is not here")
def test_published_conversations(tmp_path):
    corpus = read_pscon(PSCON)
    assert len(all_of(corpus)) == 180
    assert all(len(corpus.dialogues[split]) >= 10 for split in SPLITS)
    values = [a.value for d in all_of(corpus).values() for u in d.dialogue for a in u.attributes]
    assert not [value for value in values if ";" in value or ": " in value]
    assert corpus.knowledge["item_id_encrypt"].is_unique
    write_corpus(corpus, tmp_path)
    again = read_corpus(tmp_path)
    assert again.dialogues == corpus.dialogues
    pd.testing.assert_frame_equal(again.knowledge, corpus.knowledge)
    pd.testing.assert_frame_equal(again.behaviour, corpus.behaviour)
