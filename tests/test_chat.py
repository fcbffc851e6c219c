"""A talk with the desk: what each system is asked at each turn, and what the desk does with the answers. No model."""

import pandas as pd
import pytest
import tiny

from llmcrs_utils.study.chat import MOST_QUESTIONS, Desk, talk
from llmcrs_utils.systems.registry import SYSTEMS
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE


class Scripted:
    """Answers by task, in turn; keeps what it was asked and what help came along."""

    def __init__(self, **answers):
        self.answers, self.seen = {task: iter(given) for task, given in answers.items()}, []

    def __call__(self, samples, helped):
        sample = samples.iloc[0]
        self.seen.append((sample.to_dict(), None if helped is None else helped.iloc[0].to_dict()))
        ranking, text = [], ""
        if sample["task"] == "recommend":
            ranking = sample["candidates"][::-1]
        else:
            text = next(self.answers[sample["task"]])
        items = tiny.dataset().items["item_id"].tolist()
        row = {"sample_id": sample["sample_id"], "text": ranking[0] if ranking else text, "ranking": ranking, "valid": bool(ranking or text), "catalogue": items[5:55]}
        return pd.DataFrame([row])


def desk(system="bcrs", **others):
    answers = {"understand": ["品类：面霜", "肤质：油皮", "", "价位：三百"], "elicit": ["肤质；品类", "肤质", "功效"], "respond": ["您是什么肤质呢", "这款好", "好的", "嗯"]}
    asks = {system: Scripted(**answers)} | others
    return Desk(SYSTEMS[system], asks, tiny.dataset(), CHINESE, {"domain": "美妆行业", "history": tiny.dataset().items["item_id"][:2].tolist(), "seller_id": "none"})


def said(desk, *lines):
    shown = []
    talk(desk, lines, shown.append)
    return shown


def test_the_desk_asks_for_what_is_new_and_then_recommends():
    one = desk()
    shown = said(one, "想要面霜", "油皮", "随便", "三百的")
    assert [turn.act for turn in one.turns] == ["用户需求", "系统提问", "用户回答", "系统推荐", "用户回答", "系统提问", "用户回答", "系统推荐"]
    assert one.turns[1].attributes == ["肤质"], "the product type was told"
    assert one.asked == ["肤质", "功效"] and len(one.asked) == MOST_QUESTIONS, "it asks twice at most"
    assert one.turns[3].items != one.turns[7].items, "no product is shown twice"
    assert one.known == [("品类", "面霜"), ("肤质", "油皮"), ("价位", "三百")]
    assert sum(line.startswith("desk> ") for line in shown) == 4 and "  understood: nothing" in shown


def test_a_question_reads_as_in_the_study():
    """The samples of a talk have the segments that the same dialogue would have in the data."""
    one = desk()
    one.shopper["told_domain"] = "商品"
    said(one, "想要面霜", "油皮")
    assert all(sample["told_domain"] == "商品" for sample, _ in one.asks["bcrs"].seen), "an LLM reads this instead of the domain"
    asked = {(sample["task"], len(sample["context"])): sample for sample, _ in one.asks["bcrs"].seen}
    assert asked["understand", 0]["current"] == ["[user]想要面霜"]
    assert asked["elicit", 0]["current"] == ["[user]想要面霜", "[understand]品类：面霜"]
    assert asked["respond", 0]["current"] == ["[user]想要面霜", "[understand]品类：面霜", "[elicit]肤质"] and asked["respond", 0]["asked"] == ["肤质"]
    assert asked["understand", 2]["context"] == [["[user]想要面霜", "[understand]品类：面霜"], ["[system]您是什么肤质呢", "[understand]肤质："]]
    chosen = asked["recommend", 2]
    assert chosen["history"] == one.shopper["history"] and len(chosen["candidates"]) == 20 and sorted(chosen["candidates"]) == sorted(tiny.dataset().items["item_id"].tolist()[5:25])
    assert chosen["candidates"] != tiny.dataset().items["item_id"].tolist()[5:25], "the first candidate would always be the CRS's best"
    reply = asked["respond", 2]
    assert reply["items"] == one.turns[3].items and reply["current"][-1] == f"[recommend]{reply['items'][0]}" and reply["needs"] == [("品类", "面霜"), ("肤质", "油皮")]
    columns = set(build_samples.__doc__.split("Columns: ")[1].split("Two columns")[0].split("``")[1::2])
    assert columns - set(reply) <= {"seq_no", "time", "user_id", "seller_id", "max_history"}  # no model reads these; the last is no column


def test_an_assistant_is_asked_first_and_its_answer_reaches_the_other():
    helper = Scripted(understand=["品类：乳液"], elicit=[""], respond=["亲"])
    one = desk("bcrs-allm", bcrs=helper)
    one.asks["bcrs-allm"].answers["elicit"] = iter([""])
    shown = said(one, "想要面霜")
    helps = {sample["task"]: help for sample, help in one.asks["bcrs-allm"].seen}
    assert helps["understand"]["text"] == "品类：乳液" and not helps["elicit"]["usable"] and helps["respond"]["text"] == "亲"
    candidates = helper.seen[-2][0]["candidates"]
    assert helps["recommend"]["ranking"] == candidates[::-1]
    assert all(help is None for _, help in helper.seen)
    assert "  help to understand, by UniMIND(BART): 品类 (product type)：乳液" in shown
    assert "  help to elicit, by UniMIND(BART): nothing" in shown


def test_an_llm_alone_chooses_among_products_with_the_told_values():
    one = desk("allm")
    one.asks["allm"].answers |= {"elicit": iter([""])}
    facts = tiny.dataset().facts
    value = next(iter(facts.values())).split("，")[0].split("是")[1].split("、")[0]
    one.asks["allm"].answers["understand"] = iter([f"品类：{value}"])
    said(one, "你好")
    (candidates,) = [sample["candidates"] for sample, _ in one.asks["allm"].seen if sample["task"] == "recommend"]
    fitting = {item for item, told in facts.items() if value in told}
    assert len(set(candidates)) == 20 and (fitting <= set(candidates) or set(candidates) <= fitting)


@pytest.mark.parametrize("lines", [["", "想要面霜"], ["   "]])
def test_an_empty_line_ends_the_talk(lines):
    assert said(desk(), *lines) == []


def test_what_was_shown_joins_the_clicks_where_the_data_were_built_so():
    for shown_history in (False, True):
        one = desk()
        one.shown_history = shown_history
        said(one, "想要面霜", "油皮", "随便", "三百的")
        last = [sample for sample, _ in one.asks["bcrs"].seen if sample["task"] == "recommend"][-1]
        assert last["history"] == one.shopper["history"] + (one.turns[3].items if shown_history else [])


def test_a_reply_that_cannot_be_used_is_said_to_be_none():
    one = desk()
    one.asks["bcrs"].answers["respond"] = iter([""])
    assert said(one, "想要面霜")[-1].startswith("desk> (no usable reply)")
