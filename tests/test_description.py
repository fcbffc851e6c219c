"""What the data notebook tells of a corpus, checked on hand-made dialogues and on the three that U-NEED's authors publish."""

import re

import pytest
from conftest import corpus_of, dialogue_of, said

from llmcrs_utils.corpus import description
from llmcrs_utils.world import generate

DIALOGUE = dialogue_of(
    {**said("用户需求", "想买面霜<b>"), "attributes": [{"key": "品类", "value": "面霜", "start": 2, "exclusive_end": 4}]},
    said("系统提问", "预算和肤质呢", needs=[("价位", ""), ("肤质", "")]),
    said("用户回答", "两百"),
    said("系统推荐", "仅发送商品链接", items=["i00", "i01"]),
    said("系统解释", "这两款都不错"),
    said("用户反馈", "好的"),
)
BEHAVIOUR = [
    ("shop", "u1", "i05", "2022-09-18 13:59:00", "0"),
    ("elsewhere", "u1", "i06", "2022-09-18 13:58:00", "0"),
    ("shop", "u1", "i00", "2022-09-18 14:04:30", "0"),  # during the dialogue
    ("shop", "u2", "i00", "2022-09-18 13:00:00", "0"),  # of another shopper
]


def test_counts_of_one_dialogue():
    table = description.dialogue_statistics([DIALOGUE])[description.ALL_CATEGORIES]
    assert table["utterances per dialogue"] == 6
    assert table["items recommended per dialogue"] == 2
    assert table["questions about several attributes"] == 1 and table["questions that name words"] == 0
    assert table["annotated words per shopper's utterance"] == pytest.approx(1 / 3)
    assert table["attributes in use"] == 3 and table["different annotated words"] == 1
    assert table["share of ask"] == pytest.approx(1 / 6)


def test_an_explanation_belongs_to_its_recommendation_in_a_sequence():
    (sequence,) = description.act_sequences([DIALOGUE])["sequence of acts"]
    assert sequence == "need – ask – answer – recommend – feedback"
    published = description.act_sequences(description.u_need_examples())
    assert published["dialogues"].sum() == 3
    assert any(text.startswith("need – ask – answer – recommend – feedback – recommend") for text in published["sequence of acts"])


def test_only_what_was_done_before_the_dialogue_counts():
    table = description.behaviour_statistics(corpus_of(DIALOGUE, behaviour=BEHAVIOUR))[description.ALL_CATEGORIES]
    assert table["actions before the dialogue, mean"] == 2
    assert table["shoppers without any"] == 0 and table["actions at other sellers"] == 0.5


def test_sizes_stand_beside_the_published_ones():
    corpus, _ = generate({"train": 6, "valid": 2, "test": 2}, 1, 30)
    table = description.beside_u_need(corpus, "ours")
    assert list(table.loc["dialogues"]) == [10, 7698] and list(table.loc["items"]) == [150, "about 69000"]
    assert table.loc["knowledge tuples", "U-NEED"] == 332_148 and table.loc["dialogues, 美妆行业", "U-NEED"] == 1662
    assert table.loc["train, valid, test", "ours"] == "60%, 20%, 20%"


def test_bubbles_show_every_word_once_and_mark_the_annotated_ones():
    page = description.render_dialogue(DIALOGUE, "hand-made")
    marks = re.findall(r"<mark[^>]*>(.*?)<sub[^>]*> (.*?)</sub></mark>", page)
    assert marks == [("面霜", "品类"), ("?", "价位"), ("?", "肤质")]
    assert "hand-made" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert page.count("▶") == 2
    text = re.sub(r"<sub.*?</sub>", "", page)
    for utterance in DIALOGUE.dialogue:
        assert re.sub(r"<[^>]*>", "", text).count(re.sub(r"<", "&lt;", utterance.send_content).replace(">", "&gt;")) == 1


def test_a_value_that_stands_nowhere_or_inside_another_leaves_the_text_whole():
    spans = [("品类", "推车", 3, 5), ("品类", "车", 4, 5), ("人群", "宝宝", -1, -1)]
    need = said("用户需求", "想买推车，有吗")
    need["attributes"] = [dict(zip(("key", "value", "start", "exclusive_end"), span)) for span in spans]
    need["attributes"][0] |= {"start": 2, "exclusive_end": 4}
    need["attributes"][1] |= {"start": 3, "exclusive_end": 4}
    page = description.render_dialogue(dialogue_of(need), "hand-made")
    text = re.sub(r"<mark.*?</mark>", lambda mark: re.sub(r"<sub.*?</sub>|<[^>]*>", "", mark[0]), page)
    assert "想买推车，有吗" in text and text.count("想买") == 1
    assert re.findall(r"<mark[^>]*>(.*?)<sub", page) == ["推车", "宝宝", "车"]


def test_whole_numbers_are_shown_whole():
    shown = description.readable(description.dialogue_statistics([DIALOGUE]), "hand-made")
    assert str(shown.loc["dialogues", description.ALL_CATEGORIES]) == "1"
    assert str(shown.loc["annotated words per shopper's utterance", description.ALL_CATEGORIES]) == "0.333"
