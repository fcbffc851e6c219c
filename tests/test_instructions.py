"""LLM instruction data: word for word as the paper's, with and without a CRS's help, and to and from Alpaca JSON."""

import json

import pytest
from conftest import corpus_of, dialogue_of, said, samples_of, shop_of

from llmcrs_utils.corpus.schema import CorpusError
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.text.instructions import build_instructions, read_alpaca, to_alpaca, write_alpaca
from llmcrs_utils.text.prompts import CHINESE, LETTERS, PROMPTS

ITEMS = [f"i{n:02d}" for n in range(20)]
RANKING = ["i02", "i00", "i01", *ITEMS[3:]]
HELP = {"understand": "功能需求：耐用", "elicit": "功能需求；价格", "recommend": "i02", "respond": "请问要什么功能呢"}

TALK = (
    said("用户需求", "有洗衣机吗", [("品类", "洗衣机")]),
    said("系统提问", "要什么功能", [("功能需求", ""), ("价格区间", "")]),
    said("用户回答", "皮实耐用、不要烘干", [("功能需求", "皮实耐用"), ("功能需求", "不要烘干")]),
    said("系统推荐", "看这款", [], ["i02", "i05"], [ITEMS, ITEMS]),
)
# i00 has two facts, i01 none that may be shown, i02 one with two values; of the others nothing but hidden facts is known.
KNOWLEDGE = [
    *[(item, "shop", relation, value) for item in [*ITEMS, "spare"] for relation, value in [("一级类目", "10"), ("品牌", "牌")]],
    ("i00", "shop", "价格区间", "高"),
    ("i00", "shop", "功能需求", "舒适"),
    ("i01", "shop", "叶子类目", "11"),
    ("i02", "shop", "功能需求", "烘干"),
    ("i02", "shop", "功能需求", "除菌"),
]

CHINESE_TEXT = {
    "understand": (
        "根据大家电行业售前对话，识别当前用户或者客服输入中涉及的商品相关的属性值和对应的属性。\n"
        "针对用户输入，需要识别出属性和属性值。客服输入中属性值可能为空。",
        "售前对话：[Round 0]\n用户：有洗衣机吗\n客服：要什么功能\n当前输入：用户：皮实耐用、不要烘干",
        "功能需求：皮实耐用；功能需求：不要烘干",
    ),
    "elicit": (
        "根据大家电行业售前对话，选择一系列的属性，来引导用户提供更多关于需求的偏好信息。结果中可以包含属性值，也可以不包含属性值。",
        "售前对话：[Round 0]\n用户：有洗衣机吗\n",
        "功能需求；价格区间",
    ),
    "recommend": (
        "根据大家电行业售前对话中用户表达的需求和偏好信息以及候选商品信息，"
        "从候选商品A-T中选择最有可能满足用户需求、偏好的商品推荐给用户。",
        "售前对话：[Round 0]\n用户：有洗衣机吗\n客服：要什么功能\n[Round 1]\n用户：皮实耐用、不要烘干\n"
        "各候选商品对应的属性和属性值：A的价格区间是高，功能需求是舒适；C的功能需求是烘干、除菌",
        "C",
    ),
    "respond": (
        "根据大家电行业售前对话中已获取的信息、引导用户需求的属性、满足用户需求的商品信息，生成回应用户需求且用户容易理解的通俗回复。",
        "售前对话：[Round 0]\n用户：有洗衣机吗\n已获取的用户需求偏好信息：品类：洗衣机\n引导用户需求的属性：功能需求；价格区间",
        "要什么功能",
    ),
}
CHINESE_HELPED = {
    "understand": (
        "根据大家电行业售前对话，并参考对话式推荐系统的识别结果，识别当前用户或者客服输入中涉及的商品相关的属性值和对应的属性。\n"
        "针对用户输入，需要识别出属性和属性值。客服输入中属性值可能为空。",
        CHINESE_TEXT["understand"][1] + "\n对话式推荐系统识别的结果：功能需求：耐用",
    ),
    "elicit": (
        "根据大家电行业售前对话，并参考对话式推荐系统的属性预测结果，选择一系列的属性，来引导用户提供更多关于需求的偏好信息。"
        "结果中可以包含属性值，也可以不包含属性值。",
        "售前对话：[Round 0]\n用户：有洗衣机吗\n对话式推荐系统预测的属性：功能需求；价格",
    ),
    "recommend": (
        "根据大家电行业售前对话中用户表达的需求和偏好信息以及候选商品信息，并参考对话式推荐系统的商品推荐排序结果，"
        "从候选商品A-T中选择最有可能满足用户需求、偏好的商品推荐给用户。",
        "售前对话：[Round 0]\n用户：有洗衣机吗\n客服：要什么功能\n[Round 1]\n用户：皮实耐用、不要烘干\n"
        "对话式推荐系统推荐的Top1-20商品排序结果：C、A、B、D、E、F、G、H、I、J、K、L、M、N、O、P、Q、R、S、T\n"
        "各候选商品对应的属性和属性值：A的价格区间是高，功能需求是舒适；C的功能需求是烘干、除菌",
    ),
    "respond": (
        "根据大家电行业售前对话中已获取的信息、引导用户需求的属性、满足用户需求的商品信息，"
        "并参考对话式推荐系统生成的回复，生成回应用户需求且用户容易理解的通俗回复。",
        CHINESE_TEXT["respond"][1] + "\n对话式推荐系统生成的回复：请问要什么功能呢",
    ),
}
ENGLISH_INPUT = {
    "understand": "Pre-sales dialogue: [Round 0]\nUser: 有洗衣机吗\nStaff: 要什么功能\nCurrent input: User: 皮实耐用、不要烘干",
    "elicit": "Pre-sales dialogue: [Round 0]\nUser: 有洗衣机吗\n",
    "recommend": "Pre-sales dialogue: [Round 0]\nUser: 有洗衣机吗\nStaff: 要什么功能\n[Round 1]\nUser: 皮实耐用、不要烘干\n"
    "Attributes of the candidates: A: 价格区间 is 高, 功能需求 is 舒适; C: 功能需求 is 烘干, 除菌",
    "respond": "Pre-sales dialogue: [Round 0]\nUser: 有洗衣机吗\nNeeds known so far: 品类: 洗衣机\nAttributes to ask about: 功能需求; 价格区间",
}
ENGLISH_START = {
    "understand": "In this pre-sales dialogue about 大家电行业, {hint}identify the product attributes",
    "elicit": "In this pre-sales dialogue about 大家电行业, {hint}choose the attributes to ask about next",
    "recommend": "From the needs and preferences that the user expressed in this pre-sales dialogue about 大家电行业 and from the "
    "candidates' information, {hint}choose among the candidates A-T",
    "respond": "From what is known in this pre-sales dialogue about 大家电行业, the attributes to ask about and the products that "
    "satisfy the user, {hint}write a reply",
}
ENGLISH_HINT = {
    "understand": "with the attributes found by the conversational recommender system in mind, ",
    "elicit": "with the attributes predicted by the conversational recommender system in mind, ",
    "recommend": "with the ranking of the conversational recommender system in mind, ",
    "respond": "with the reply of the conversational recommender system in mind, ",
}


@pytest.fixture(scope="module", params=PROMPTS)
def language(request):
    return request.param


def asked(language, usable=None, seq_no=None):
    """Task -> the Alpaca record of the sample at hand; ``usable`` says what the CRS's help is, None: no CRS."""
    prompts = PROMPTS[language]
    corpus = corpus_of(dialogue_of(*TALK, domain="大家电行业"), knowledge=KNOWLEDGE)
    items = build_catalogue(corpus, prompts).items
    samples = samples_of(corpus, prompts)
    places = {"understand": 3, "elicit": 2, "recommend": 4, "respond": 2} | (seq_no or {})
    samples = samples[[places[task] == n for task, n in zip(samples["task"], samples["seq_no"], strict=True)]]
    samples = samples.drop_duplicates("task").reset_index(drop=True)
    samples["candidates"] = [ITEMS if task == "recommend" else [] for task in samples["task"]]
    helped = None
    if usable is not None:
        helped = samples[["sample_id", "task"]].assign(usable=usable, text=samples["task"].map(HELP))
        helped["ranking"] = [RANKING if task == "recommend" else [] for task in samples["task"]]
    rows = build_instructions(samples, dict(zip(items["item_id"], items["facts"], strict=True)), prompts, helped)
    assert list(rows["sample_id"]) == list(samples["sample_id"])
    return dict(zip(rows["task"], to_alpaca(rows, prompts), strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_chinese_text_is_the_paper_s(task):
    record = asked("zh")[task]
    assert (record["instruction"], record["input"], record["output"]) == CHINESE_TEXT[task]


@pytest.mark.parametrize("task", TASKS)
def test_chinese_text_with_help_of_a_crs_is_the_paper_s(task):
    record = asked("zh", usable=True)[task]
    assert (record["instruction"], record["input"]) == CHINESE_HELPED[task]
    assert record["output"] == CHINESE_TEXT[task][2]


@pytest.mark.parametrize("task", TASKS)
def test_english_text_has_the_same_structure(task):
    record, helped = asked("en")[task], asked("en", usable=True)[task]
    assert record["input"] == ENGLISH_INPUT[task]
    assert record["instruction"].startswith(ENGLISH_START[task].format(hint=""))
    assert helped["instruction"].startswith(ENGLISH_START[task].format(hint=ENGLISH_HINT[task]))
    assert helped["instruction"].replace(ENGLISH_HINT[task], "", 1) == record["instruction"]


def test_english_help_is_the_last_line_and_a_ranking_stands_before_the_candidates():
    records, helped = asked("en"), asked("en", usable=True)
    lines = {
        "understand": "\nFound by the conversational recommender system: 功能需求：耐用",
        "elicit": "Attributes predicted by the conversational recommender system: 功能需求；价格",
        "respond": "\nReply of the conversational recommender system: 请问要什么功能呢",
    }
    for task, line in lines.items():
        assert helped[task]["input"] == records[task]["input"] + line
    dialogue, candidates = records["recommend"]["input"].split("Attributes of the candidates: ")
    ranking = "Top 1-20 ranking of the conversational recommender system: C, A, B, " + ", ".join(LETTERS[3:]) + "\n"
    assert helped["recommend"]["input"] == dialogue + ranking + "Attributes of the candidates: " + candidates


def test_without_a_usable_answer_every_byte_is_as_without_a_crs(language):
    assert asked(language, usable=False) == asked(language)


def test_reply_that_recommends_reads_the_needs_so_far_and_the_items_to_speak_of():
    record = asked("zh", seq_no={"respond": 4})["respond"]
    assert record["input"].split("\n", 5)[-1] == (
        "已获取的用户需求偏好信息：品类：洗衣机；功能需求：皮实耐用、不要烘干\n满足用户需求的商品信息：商品A满足用户需求，A的功能需求是烘干、除菌"
    )


def test_brand_and_categories_are_never_shown_and_unknown_items_keep_their_letter(language):
    text = str(asked(language, usable=True))
    assert not [word for word in ("品牌", "一级类目", "叶子类目") if word in text]
    candidates = asked("zh")["recommend"]["input"].split("各候选商品对应的属性和属性值：")[1]
    assert "B的" not in candidates and "C的" in candidates


def test_output_of_recommend_is_the_letter_of_the_gold_item(generated, generated_samples):
    items = build_catalogue(generated, CHINESE).items
    facts = dict(zip(items["item_id"], items["facts"], strict=True))
    samples = generated_samples[generated_samples["task"] == "recommend"]
    records = to_alpaca(build_instructions(samples, facts, CHINESE), CHINESE)
    for gold, candidates, record in zip(samples["label"], samples["candidates"], records, strict=True):
        assert candidates[LETTERS.index(record["output"])] == gold
        described = record["input"].split(CHINESE.candidates)[1].split("；")
        assert described == [f"{letter}的{facts[item]}" for letter, item in zip(LETTERS, candidates, strict=True)]


def test_rounds_hold_two_lines_each():
    talk = [said("用户反馈" if n % 2 else "系统解释", f"第{n}句") for n in range(4)]
    corpus = corpus_of(dialogue_of(*talk, said("系统提问", "颜色", [("颜色", "")])), knowledge=shop_of("shop", ITEMS))
    samples = samples_of(corpus)
    (record,) = to_alpaca(build_instructions(samples[samples["task"] == "elicit"], {}, CHINESE), CHINESE)
    assert record["input"] == "售前对话：[Round 0]\n客服：第0句\n用户：第1句\n[Round 1]\n客服：第2句\n用户：第3句\n"


def test_alpaca_file_gives_back_what_was_written_and_is_plain_json(tmp_path):
    records = list(asked("zh", usable=True).values())
    write_alpaca(records, tmp_path / "train.json")
    assert read_alpaca(tmp_path / "train.json") == records
    text = (tmp_path / "train.json").read_text("utf-8")
    assert json.loads(text) == records and "售前对话" in text
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]


def test_further_keys_of_other_tuners_are_left_out(tmp_path):
    record = {"instruction": "a", "input": "", "output": "c"}
    (tmp_path / "x.json").write_text(json.dumps([{**record, "history": []}]), "utf-8")
    assert read_alpaca(tmp_path / "x.json") == [record]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"instruction": "a", "input": "", "output": ""}, {"instruction": "", "input": ""}]', "record 1, field output"),
        ('[{"instruction": "a", "input": 3, "output": "c"}]', "record 0, field input: missing or no text"),
        ('[\n{"instruction": "a"', "not valid JSON at line 2"),
        ('["a"]', "record 0"),
        ('{"instruction": "a", "input": "b", "output": "c"}', "list"),
    ],
)
def test_broken_alpaca_record_is_a_clear_error(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text, "utf-8")
    with pytest.raises(CorpusError, match=message) as error:
        read_alpaca(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(error.value)


def test_missing_alpaca_file_is_named(tmp_path):
    with pytest.raises((CorpusError, FileNotFoundError), match="nothing.json"):
        read_alpaca(tmp_path / "nothing.json")


def test_every_exported_record_names_its_sample_so_that_answers_can_be_scored(generated, generated_samples, tmp_path):
    facts = build_catalogue(generated, CHINESE).items.set_index("item_id")["facts"].to_dict()
    samples = generated_samples[generated_samples["split"] == "test"]
    write_alpaca(to_alpaca(build_instructions(samples, facts, CHINESE), CHINESE), tmp_path / "alpaca_test.json")
    read = read_alpaca(tmp_path / "alpaca_test.json")
    assert [record["sample_id"] for record in read] == samples["sample_id"].tolist()
    assert all(list(record) == ["instruction", "input", "output", "sample_id"] for record in read)


def test_a_sample_id_that_is_no_text_is_a_clear_error(tmp_path):
    (tmp_path / "x.json").write_text('[{"instruction": "a", "input": "", "output": "c", "sample_id": 3}]', "utf-8")
    with pytest.raises(CorpusError, match="record 0, field sample_id"):
        read_alpaca(tmp_path / "x.json")
