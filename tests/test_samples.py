"""Task samples: equal to the published ones, by the stated rules, and without a word of the answer in the input."""

import json
import re
import warnings
from collections import Counter, defaultdict

import pytest
from conftest import SEGMENTS, SHARED, corpus_of, dialogue_of, needs_shared, said, samples_of

from llmcrs_utils.corpus.reading import is_blank
from llmcrs_utils.corpus.schema import LINK_ONLY, CorpusError, Dialogue, read_dialogues
from llmcrs_utils.evaluation.metrics import score_rows
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.instructions import build_instructions, render_input, to_alpaca
from llmcrs_utils.text.prompts import CHINESE, PROMPTS
from llmcrs_utils.text.segments import crs_segments
from llmcrs_utils.text.shielding import Special

SPECIAL = Special(SEGMENTS)
TASK_NAMES = {"Understand": "understand", "Elicit": "elicit", "Recommend": "recommend", "Response": "respond"}


def flat(sample, prompts=CHINESE):
    earlier = [segment for turn in sample["context"] for segment in turn]
    return [*earlier, *sample["current"], prompts.crs[sample["task"]]]


def by_task(samples, task):
    return samples[samples["task"] == task].to_dict("records")


# --- equality with what is published


def public_corpus(*files):
    filler = [(f"k{n:02d}", "k", "价格区间", "高") for n in range(30)]
    dialogues = [dialogue for file in files for dialogue in read_dialogues(SHARED / file)]
    return corpus_of(*dialogues, knowledge=filler)


def comparable(task, sid, segments, label):
    # the published code leaves the order inside an elicit label, also where respond is given it, to chance
    unordered = ["；".join(sorted(s.split("；"))) if s.startswith("[elicit]") else s for s in segments]
    return task, sid, tuple(unordered), "；".join(sorted(label.split("；"))) if task == "elicit" else label


@needs_shared
def test_samples_equal_the_published_ones():
    expected = json.loads((SHARED / "expected_task_samples.json").read_text("utf-8"))
    wanted = [
        comparable(TASK_NAMES[s["task_name"]], s["sid"], s["input"], s["item_id"] if "item_id" in s else s["label"])
        for s in expected
    ]
    samples = samples_of(public_corpus("train_dialogue.json", "uneed_examples.json")).to_dict("records")
    built = [comparable(s["task"], s["sid"], flat(s), s["label"]) for s in samples]
    assert len(built) == len(wanted) == 59
    assert Counter(built) == Counter(wanted)


@needs_shared
def test_instruction_data_equal_the_published_ones_byte_for_byte():
    released = json.loads((SHARED / "released_train_prompt4llm.json").read_text("utf-8"))
    corpus = public_corpus("train_dialogue.json")
    samples = samples_of(corpus)
    understand = samples[samples["task"] == "understand"].head(len(released))
    records = to_alpaca(build_instructions(understand, {}, CHINESE), CHINESE)
    wanted = [{"instruction": r["instruction"], "input": r["input_llm"], "output": r["output_llm"]} for r in released]
    assert [list(record) for record in records] == [["instruction", "input", "output", "sample_id"]] * 2  # ours says whose record it is
    assert [{key: record[key] for key in wanted[0]} for record in records] == wanted


# --- the rules, on hand-made dialogues

WHOLE = (
    said("用户需求", "有面霜吗", [("品类", "面霜")]),
    said("用户需求", "要补水的", [("功效", "补水")]),
    said("系统提问", "什么肤质，什么价位，什么肤质呢", [("肤质", ""), ("价格", "高"), ("肤质", "油")]),
    said("用户回答", "油皮", [("肤质", "油皮")]),
    said("系统推荐", LINK_ONLY, [], ["i01", "i02"]),
    said("系统推荐", "这两款", [("功效", "补水")], ["i02", "i03"]),
    said("系统解释", "都很补水", [("功效", "很补水")]),
    said("用户反馈", "好的"),
    said("系统解释", "有问题再来"),
    said("用户反馈", "再看看便宜的", [("价格", "便宜")]),
    said("系统推荐", LINK_ONLY, [], ["i01"]),
)


@pytest.fixture(scope="module")
def whole():
    return samples_of(corpus_of(dialogue_of(*WHOLE)))


def test_consecutive_utterances_of_one_act_are_merged(whole):
    first = by_task(whole, "understand")[0]
    assert (first["seq_no"], first["current"], first["label"]) == (1, ["[user]有面霜吗 要补水的"], "品类：面霜；功效：补水")
    assert 2 not in set(whole["seq_no"])


def test_explanation_right_after_a_recommendation_belongs_to_it_and_another_does_not(whole):
    replies = {s["seq_no"]: s["label"] for s in by_task(whole, "respond")}
    assert replies == {3: "什么肤质，什么价位，什么肤质呢", 5: " 这两款 都很补水", 9: "有问题再来"}


def test_explanation_before_a_recommendation_stays_a_turn_of_its_own():
    samples = samples_of(corpus_of(dialogue_of(said("系统解释", "亲"), said("系统推荐", "看这款", [], ["i01"]))))
    assert [s["label"] for s in by_task(samples, "respond")] == ["亲", "看这款"]


def test_link_only_text_is_dropped_and_makes_no_reply(whole):
    assert LINK_ONLY not in str(whole.drop(columns="time").to_dict("records"))
    assert 11 not in [s["seq_no"] for s in by_task(whole, "respond")]
    assert [s["label"] for s in by_task(whole, "recommend") if s["seq_no"] == 11] == ["i01"]


def test_elicit_label_names_each_attribute_once_in_order_of_first_mention(whole):
    (sample,) = by_task(whole, "elicit")
    assert (sample["label"], sample["seq_no"]) == ("肤质；价格", 3)


@pytest.mark.parametrize(("language", "keys"), [("zh", ["；", "：", "；；：", "：功效"]), ("en", [";", ":", ": ;", ":Size"])])
def test_questions_that_nobody_can_answer_are_left_out_and_counted(language, keys):
    prompts = PROMPTS[language]
    talks = [
        dialogue_of(said("用户需求", "有吗", [(key, "补水")]), said("系统提问", "什么？", [(key, "")]), said("系统解释", "\u3000\u200b"), sid=f"s{n}")
        for n, key in enumerate(keys)
    ]
    good = dialogue_of(said("用户需求", "有吗", [("；", "x"), ("功效", "补水")]), said("系统提问", "？", [("：", ""), ("肤质", "")]), sid="good")
    with pytest.warns(UserWarning, match=f"left out: {2 * len(keys)} of understand, {len(keys)} of elicit; .*s0:1:understand"):
        samples = samples_of(corpus_of(*talks, good), prompts)
    assert set(samples.loc[samples["task"] != "respond", "sid"]) == {"good"}
    # every question that is asked has an answer that scores 1
    asked = samples[samples["task"].isin(["understand", "elicit"])]
    right = asked.assign(system="bcrs", seed=1, text=asked["label"], valid=True, ranking=[[]] * len(asked))
    assert (score_rows(right, language)["F1"] == 1).all()
    # a reply without anything to be seen is none
    assert not [text for text in samples.loc[samples["task"] == "respond", "label"] if is_blank(text)]


def test_samples_that_can_all_be_answered_are_told_of_by_no_warning(generated):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples_of(generated)


def test_question_without_attributes_is_no_elicit_sample():
    samples = samples_of(corpus_of(dialogue_of(said("用户需求", "在吗"), said("系统提问", "亲要什么"))))
    assert list(samples["task"]) == ["respond"]


def test_one_recommend_sample_per_item_and_a_repeated_item_counts_once(whole):
    assert [(s["seq_no"], s["label"]) for s in by_task(whole, "recommend")] == [(5, "i01"), (5, "i02"), (5, "i03"), (11, "i01")]


def test_understand_sees_texts_and_needs_but_neither_asked_attributes_nor_items(whole):
    sample = by_task(whole, "understand")[-1]
    assert flat(sample) == [
        "[user]有面霜吗 要补水的",
        "[understand]品类：面霜；功效：补水",
        "[system]什么肤质，什么价位，什么肤质呢",
        "[understand]肤质：；价格：高；肤质：油",
        "[user]油皮",
        "[understand]肤质：油皮",
        "[system] 这两款 都很补水",
        "[understand]功效：补水；功效：很补水",
        "[user]好的",
        "[understand]",
        "[system]有问题再来",
        "[understand]",
        "[user]再看看便宜的",
        "。请识别前一句中的关键词并给出分类，以'属性：属性值'的方式，使用'；'连接：",
    ]


@pytest.mark.parametrize(
    ("task", "hidden"), [("understand", "[elicit][recommend]"), ("elicit", "[recommend]"), ("recommend", "[elicit]")]
)
def test_each_task_sees_its_own_segments_of_earlier_turns(task, hidden):
    asking = said("系统提问", "还要什么", [("功效", "")])
    answer, last = said("用户回答", "白", [("色", "白")]), said("系统推荐", "这款", [], ["i05"])
    samples = samples_of(corpus_of(dialogue_of(*WHOLE, said("用户回答", "不要了"), asking, answer, last)))
    sample = by_task(samples, task)[-1]
    markers = {re.match(r"\[\w+\]", segment).group() for turn in sample["context"] for segment in turn}
    all_markers = {"[user]", "[system]", "[understand]", "[elicit]", "[recommend]"}
    assert markers == all_markers - set(re.findall(r"\[\w+\]", hidden))


def test_elicit_sees_earlier_questions_and_recommend_earlier_items():
    more = (said("用户回答", "嗯"), said("系统提问", "颜色？", [("颜色", "")]))
    samples = samples_of(corpus_of(dialogue_of(*WHOLE, *more)))
    assert "[elicit]肤质；价格" in flat(by_task(samples, "elicit")[-1])
    assert "[recommend]i01；i02；i03" in flat(by_task(samples, "recommend")[-1])


def test_reply_is_given_what_it_asks_or_recommends_as_last_segment(whole):
    closing = {s["seq_no"]: flat(s)[-2:] for s in by_task(whole, "respond")}
    prompt = "。生成系统回复："
    assert closing == {
        3: ["[elicit]肤质；价格", prompt],
        5: ["[recommend]i01；i02；i03", prompt],
        9: ["[understand]", prompt],
    }
    asked = {s["seq_no"]: (s["asked"], s["items"]) for s in by_task(whole, "respond")}
    assert asked == {3: (["肤质", "价格"], []), 5: ([], ["i01", "i02", "i03"]), 9: ([], [])}


def test_reply_knows_the_needs_of_earlier_user_turns_only(whole):
    needs = {s["seq_no"]: [tuple(pair) for pair in s["needs"]] for s in by_task(whole, "respond")}
    assert needs[3] == [("品类", "面霜"), ("功效", "补水")]
    assert needs[5] == needs[3] + [("肤质", "油皮")] == needs[9]


def test_dialogues_that_ask_nothing_are_a_clear_error():
    with pytest.raises(CorpusError, match="hold nothing to ask"):
        samples_of(corpus_of(dialogue_of(said("用户反馈", "在吗"))))


def test_sample_ids_are_unique(whole, generated_samples):
    assert whole["sample_id"].is_unique and generated_samples["sample_id"].is_unique
    assert set(generated_samples["task"]) == set(TASKS)


# --- rule of evidence 1: nothing of the answer reaches the input

OTHER = [("改了", "新值"), ("别的", "")]


def reads(corpus, prompts, ranking="letter"):
    """(task, sid, seq_no) -> what each model reads of it, and the labels."""
    catalogue = build_catalogue(corpus, prompts)
    samples = build_samples(corpus, catalogue, prompts)
    facts = dict(zip(catalogue.items["item_id"], catalogue.items["facts"], strict=True))
    found = defaultdict(lambda: {"labels": [], "read": set()})
    instructions = build_instructions(samples, facts, prompts, ranking=ranking).to_dict("records")
    for sample, row in zip(samples.to_dict("records"), instructions, strict=True):
        droppable, kept = crs_segments(sample, prompts, None, SPECIAL)
        llm = render_input(row["lines"], row["tail"], prompts)
        if sample["task"] == "recommend":  # the candidates hold the gold item by definition
            assert llm.count(prompts.candidates) == (ranking != "likelihood")
            llm = llm.split(prompts.candidates)[0]
        entry = found[sample["task"], sample["sid"], sample["seq_no"]]
        entry["labels"].append(sample["label"])
        entry["read"].add((*droppable, kept, tuple(sample["history"]), row["instruction"], llm, row["keep"]))
    return found


def altered(dialogue, task, seq_no, new_items):
    """The dialogue with another answer at the sample's turn, and something else said ever after."""
    record = dialogue.model_dump()
    utterances = record["dialogue"]
    start = next(k for k, u in enumerate(utterances) if u["seq_no"] == seq_no)
    end, act = start + 1, utterances[start]["act_tag"]
    while end < len(utterances) and (
        utterances[end]["act_tag"] in (utterances[end - 1]["act_tag"], act)
        or (act == "系统推荐" and utterances[end]["act_tag"] == "系统解释")
    ):
        end += 1
    for k, utterance in enumerate(utterances[start:end]):
        others = [{"key": key, "value": value + str(k), "start": -1, "exclusive_end": -1} for key, value in OTHER]
        if task != "understand":
            utterance["send_content"] = f"另一句{k}"
        if task != "respond":
            utterance["attributes"] = others
            utterance["rec_item_id"] = new_items if utterance["rec_item_id"] else []
            utterance["rec_item_candidates"] = []
        elif act != "系统提问":
            utterance["attributes"] = others
    next_act = "用户需求" if utterances[end - 1]["act_tag"] != "用户需求" else "用户反馈"
    later = [said(next_act, "后来的话", OTHER), said("系统推荐", "后来的商品", OTHER, new_items), said("系统提问", "问", OTHER)]
    for k, utterance in enumerate(later):
        later[k] = {**utterance, "seq_no": 900 + k, "time": f"2022-12-31 23:00:{k:02d}"}
    record["dialogue"] = utterances[:end] + later
    return Dialogue.model_validate(record)


@pytest.mark.parametrize("language", PROMPTS)
@pytest.mark.parametrize(("task", "ranking"), [*((task, "letter") for task in TASKS), ("recommend", "candidates"), ("recommend", "likelihood")])
def test_no_byte_read_depends_on_the_answer_or_on_what_is_said_after(task, ranking, language, generated):
    prompts = PROMPTS[language]
    seen_before = [("shop", "u1", f"i{n:02d}", f"2022-09-17 10:{n:02d}:00", "0") for n in range(8)]
    hand_made = corpus_of(dialogue_of(*WHOLE), behaviour=seen_before)
    checked = 0
    for corpus in (hand_made, generated):
        new_items = sorted(corpus.knowledge["item_id_encrypt"].unique())[-2:]
        before = reads(corpus, prompts, ranking)
        dialogue = corpus.dialogues["train"][0]
        for key in [key for key in before if key[0] == task and key[1] == dialogue.sid]:
            changed = altered(dialogue, task, key[2], new_items)
            splits = {**corpus.dialogues, "train": [changed, *corpus.dialogues["train"][1:]]}
            after = reads(type(corpus)(splits, corpus.knowledge, corpus.behaviour), prompts, ranking)
            assert after[key]["labels"] and not set(after[key]["labels"]) & set(before[key]["labels"]), key
            assert len(before[key]["read"]) == 1 and after[key]["read"] == before[key]["read"], key
            checked += 1
    assert checked >= 2


def test_gold_item_that_only_its_own_dialogue_names_is_not_given_away_by_the_behaviour():
    viewed = [("shop", "u1", item, "2022-09-17 10:00:00", "0") for item in ("i01", "unlisted")]
    histories = []
    for gold in ("unlisted", "i07"):
        corpus = corpus_of(dialogue_of(said("用户需求", "面霜"), said("系统推荐", "看", [], [gold])), behaviour=viewed)
        histories.append(by_task(samples_of(corpus), "recommend")[0]["history"])
    assert histories == [["i01"], ["i01"]]


def test_own_segments_can_be_told_from_what_a_shopper_types():
    samples = samples_of(corpus_of(dialogue_of(said("用户需求", "[system]便宜[LLM]", [("品类", "x")]))))
    (sample,) = by_task(samples, "understand")
    _, kept = crs_segments(sample, CHINESE, None, SPECIAL)
    assert kept.startswith("[user]［system］便宜［LLM］。")


# --- rule of evidence 2: behaviour counts only before the utterance being predicted


def history_of(behaviour, **settings):
    dialogue = dialogue_of(said("用户需求", "面霜"), said("系统推荐", "看这款", [], ["i01"]))
    return by_task(samples_of(corpus_of(dialogue, behaviour=behaviour), **settings), "recommend")[0]["history"]


def action(item, time, user="u1"):
    return ("shop", user, item, f"2022-09-18 {time}", "0")


def test_only_actions_strictly_before_the_turn_enter_history_oldest_first():
    actions = [action("i05", "14:01:59"), action("i06", "14:02:00"), action("i07", "14:02:01"), action("i04", "09:00:00")]
    assert history_of(actions) == ["i04", "i05"]


def test_actions_of_others_and_on_unknown_items_never_enter_history():
    actions = [action("i05", "09:00:00", user="u2"), action("nowhere", "09:00:00"), action("i06", "09:00:01")]
    assert history_of(actions) == ["i06"]


def test_history_keeps_the_latest_actions():
    actions = [action(f"i{n:02d}", f"09:{n:02d}:00") for n in range(10)]
    assert history_of(actions, max_history=3) == ["i07", "i08", "i09"]


def test_only_recommend_samples_carry_behaviour_and_candidates(generated_samples):
    others = generated_samples[generated_samples["task"] != "recommend"]
    assert not others["history"].map(len).any() and not others["candidates"].map(len).any()
    assert generated_samples["history"].map(len).any()
