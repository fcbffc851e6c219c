"""A shop's own catalogue and chat log: the examples of the documentation, what Excel does to tables, guesses, errors."""

import json
import os
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from llmcrs_utils.corpus.chat_log import (
    CATALOGUE_COLUMNS,
    CHAT_COLUMNS,
    CUSTOMER_WORDS,
    SHOP_WORDS,
    main,
    read_shop,
    splits_of,
    write_shop,
)
from llmcrs_utils.corpus.faults import CorpusError, Report
from llmcrs_utils.corpus.guessing import Dictionary, asks, guess_attributes
from llmcrs_utils.corpus.schema import LINK_ONLY, SPLITS
from llmcrs_utils.corpus.spreadsheets import time_of
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.corpus.validate import main as validate
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.tasks.candidates import CANDIDATES, build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import prompts_of

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "your-shop"
PAGE = (ROOT / "docs" / "your-data.md").read_text("utf-8")

ITEMS = "id,title,category,colour,size\n" + "".join(f"{n},Pot {n},pots,{'dark blue' if n % 2 else 'red'},{'large' if n % 3 else 'tiny'}\n" for n in range(100, 125))
CHATS = """conversation,time,who,text,items
a,2024-05-01 10:00,customer,A large pot please,
a,2024-05-01 10:01,shop,Which colour?,
a,2024-05-01 10:02,customer,Dark blue,
a,2024-05-01 10:03,shop,Look at this,101
a,2024-05-01 10:04,customer,Not so large,
b,2024-05-01 11:00,customer,Hello,
b,2024-05-01 11:01,shop,Hello and welcome,
b,2024-05-01 11:02,customer,Something red,
c,2024-05-01 12:00,customer,Hi,
"""


@pytest.fixture
def shop(tmp_path):
    """Reads the two tables, given as text or bytes."""

    def read(chats=CHATS, items=ITEMS, language="en", **settings):
        for name, content in (("items.csv", items), ("chats.csv", chats)):
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_shop(tmp_path / "items.csv", tmp_path / "chats.csv", language, **settings)

    return read


def dialogues_of(shop):
    return {dialogue.sid: dialogue for split in SPLITS for dialogue in shop.corpus.dialogues[split]}


def told(dialogue):
    """(act, [(attribute, value)], items) of each utterance."""
    return [(u.act_tag, [(a.key, a.value) for a in u.attributes], u.rec_item_id) for u in dialogue.dialogue]


def count(shop, what):
    row = shop.counts.set_index("what").loc[what]
    return row["count"], row["of"]


def refused(read, *arguments, **settings):
    with pytest.raises(CorpusError) as error:
        read(*arguments, **settings)
    return re.sub(r"/\S+/(?=items|chats)", "", str(error.value))


# --- the examples


EXPECTED = {
    "zh": {
        "甲": [
            ("用户需求", [("类目", "推车"), ("特点", "轻便")], []),
            ("系统提问", [("月龄", "")], []),
            ("用户回答", [("月龄", "6个月")], []),
            ("系统推荐", [], ["1001", "1007"]),
        ],
        "乙": [
            ("用户需求", [("类目", "奶瓶"), ("特点", "防胀气")], []),
            ("系统提问", [("颜色", "粉色"), ("颜色", "透明")], []),
            ("系统推荐", [], ["1009"]),
        ],
        "丙": [
            ("用户需求", [("类目", "安全座椅"), ("月龄", "新生儿")], []),
            ("系统提问", [("颜色", "")], []),
            ("系统推荐", [("特点", "可平躺")], ["1016"]),
        ],
    },
    "en": {
        "t-1": [
            ("用户需求", [("category", "headphones")], []),
            ("系统提问", [("size", ""), ("connection", "")], []),
            ("用户回答", [("size", "Medium"), ("connection", "Bluetooth")], []),
            ("系统推荐", [("features", "noise cancelling")], ["A-02"]),
        ],
        "t-2": [
            ("用户需求", [("features", "waterproof"), ("category", "earbuds")], []),
            ("系统提问", [("colour", "black"), ("colour", "yellow")], []),
            ("系统推荐", [], ["A-08", "A-12"]),
        ],
        "t-3": [
            ("用户需求", [("size", "large"), ("category", "speaker")], []),
            ("系统提问", [("features", "")], []),
            ("系统推荐", [("features", "waterproof")], ["A-17"]),
        ],
    },
}
DOMAINS = {"甲": "推车", "乙": "奶瓶", "丙": "安全座椅", "t-1": "headphones", "t-2": "earbuds", "t-3": "speakers"}


@pytest.mark.parametrize("language", EXPECTED)
def test_the_examples_become_corpora_that_every_system_can_be_asked_about(language, tmp_path, capsys):
    folder = tmp_path / "new" / "corpus"
    assert main([str(EXAMPLES / f"items-{language}.csv"), str(EXAMPLES / f"chats-{language}.csv"), str(folder), "--language", language]) == 0
    printed = capsys.readouterr().out
    assert "10 of 10       acts guessed" in printed and validate([str(folder)]) == 0
    corpus = read_corpus(folder)
    dialogues = {dialogue.sid: dialogue for split in SPLITS for dialogue in corpus.dialogues[split]}
    assert {sid: told(dialogue) for sid, dialogue in dialogues.items()} == EXPECTED[language]
    assert {sid: dialogue.domain for sid, dialogue in dialogues.items()}.items() <= DOMAINS.items()
    for utterance in (utterance for dialogue in dialogues.values() for utterance in dialogue.dialogue):
        assert all(a.start == -1 or utterance.send_content[a.start : a.exclusive_end] == a.value for a in utterance.attributes)
    marks = json.loads((folder / "guessed.json").read_text("utf-8"))["conversations"]
    assert {name: len(mark["acts"]) for name, mark in marks.items()} == {sid: len(turns) for sid, turns in EXPECTED[language].items()}
    assert sorted(path.name for path in folder.iterdir()) == ["guessed.json", "item_kg.txt", "test_dialogue.json", "train_dialogue.json", "user_action.txt", "valid_dialogue.json"]
    prompts = prompts_of(language)
    samples = build_samples(corpus, build_catalogue(corpus, prompts), prompts)
    for split in SPLITS:
        assert set(samples.loc[samples["split"] == split, "task"]) == set(TASKS)
    assert samples.loc[samples["task"] == "recommend", "candidates"].map(len).eq(CANDIDATES).all()
    # the category follows from an item that is shown late: no model reads it
    assert set(samples["told_domain"]) == {"购物" if language == "zh" else "Shopping"}


def test_the_page_shows_the_examples_the_columns_and_the_command_s_own_words(monkeypatch, capsys, tmp_path):
    for name in ("chats-zh", "chats-en"):
        assert f"```csv\n{(EXAMPLES / f'{name}.csv').read_text('utf-8')}```" in PAGE
    for name in ("items-zh", "items-en"):
        assert f"```csv\n{''.join((EXAMPLES / f'{name}.csv').read_text('utf-8').splitlines(True)[:4])}```" in PAGE
    for table, columns in (("products", CATALOGUE_COLUMNS), ("messages", CHAT_COLUMNS)):
        for key, names in columns.items():
            assert f"| {table} | `{key}` | {', '.join(names)} |" in PAGE
    assert ", ".join(CUSTOMER_WORDS) in PAGE and ", ".join(SHOP_WORDS) in PAGE
    monkeypatch.chdir(ROOT)
    assert main(["docs/your-shop/items-en.csv", "docs/your-shop/chats-en.csv", str(tmp_path / "shop"), "--language", "en"]) == 0
    assert capsys.readouterr().out.replace(str(tmp_path / "shop"), "runs/shop") in PAGE


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_the_target_takes_a_language_only_from_its_own_call():
    def command(*given):
        call = ["make", "-n", "-o", ".venv/.installed", "import", "CATALOGUE=a b.csv", "CHATS=c.csv", "OUT=d", *given]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}  # of `make test`
        environment = {**outside, "LANGUAGE": "en_US:en", "SEED": "x"}
        return subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split("chat_log")[1]

    assert command().split() == ['"$CATALOGUE"', '"$CHATS"', '"$OUT"']
    assert command("LANGUAGE=en", "SEED=2").split()[3:] == ["--language", '"$LANGUAGE"', "--seed", '"$SEED"']


# --- what is guessed


LATER = {
    "nothing": "",
    "a question": 'a,2024-05-02 10:00,shop,"Which size, red or dark blue?",\n',
    "a recommendation": "a,2024-05-02 10:00,shop,The large red one,102|103\n",
    "an answer": "a,2024-05-02 10:00,shop,Which colour?,\na,2024-05-02 10:01,customer,tiny and red?,\n",
    "a need": "a,2024-05-02 10:00,customer,red,\n",
}


@pytest.mark.parametrize("later", LATER)
def test_what_comes_later_changes_nothing(shop, later):
    first, *rows = CHATS.replace("Dark blue,", "Dark blue,\na,2024-05-01 10:02,shop,One moment please,").splitlines(keepends=True)
    own, others = [row for row in rows if row.startswith("a,")], [row for row in rows if not row.startswith("a,")]
    whole = {sid: told(dialogue) for sid, dialogue in dialogues_of(shop("".join([first, *rows]))).items()}
    assert [act for act, _, _ in whole["a"]] == ["用户需求", "系统提问", "用户回答", "系统解释", "系统推荐", "用户反馈"]
    for last in range(1, len(own) + 1):
        cut = dialogues_of(shop("".join([first, *own[:last], LATER[later], *others])))
        assert told(cut["a"])[:last] == whole["a"][:last]
        assert told(cut["b"]) == whole["b"] and told(cut["c"]) == whole["c"]


def test_acts_follow_what_came_before(shop):
    dialogues = dialogues_of(shop())
    assert [act for act, _, _ in told(dialogues["a"])] == ["用户需求", "系统提问", "用户回答", "系统推荐", "用户反馈"]
    assert [act for act, _, _ in told(dialogues["b"])] == ["用户需求", "系统解释", "用户需求"]
    greeted = CHATS.replace("b,2024-05-01 11:00,customer,Hello,", "b,2024-05-01 11:00,shop,What can I do for you?,")
    acts = [act for act, _, _ in told(dialogues_of(shop(greeted))["b"])]
    assert acts == ["系统提问", "系统解释", "用户需求"]  # the customer's first message


@pytest.mark.parametrize(
    "text",
    ["您要什么颜色", "哪一款", "要灰色的吗", "多少钱以内", "宝宝多大了呢", "是不是敏感肌", "闭口的么", "红色？我们有", "Any size?", "What colour do you like", "Hi, which one", "red or blue? Both are here"],
)
def test_a_question_is_known_by_its_mark_or_its_words(text):
    assert asks(text)


@pytest.mark.parametrize(
    "text", ["没什么区别", "这几个都不错", "在的亲", "The red one, it is what you want.", "https://shop.example/item?id=3", "How to wash it is on the label.", "What a good choice!", "somewhat"]
)
def test_what_asks_nothing_is_no_question(text):
    assert not asks(text)


def pairs(text, cells, question=False, asked=()):
    return [(a.key, a.value, a.start) for a in guess_attributes(text, Dictionary(cells), question, asked)]


def test_words_of_the_catalogue():
    cells = [("颜色", "蓝色"), ("颜色", "深蓝色"), ("表带", "蓝色"), ("颜色", "蓝色"), ("型号", "T3"), ("colour", "red"), ("防水", "是"), ("库存", "12"), ("stock", "yes"), ("尺寸(cm)", "大号")]
    assert pairs("深蓝色和蓝色", cells) == [("颜色", "深蓝色", 0), ("颜色", "蓝色", 4)]  # the longest; the column that has it most often
    assert pairs("蓝色", cells, asked=["表带"]) == [("表带", "蓝色", 0)]
    assert pairs("有t3吗, AT3, T35, T3s", cells) == [("型号", "t3", 1), ("型号", "T3", 16)]
    assert pairs("tired of RED, red!", cells) == [("colour", "RED", 9), ("colour", "red", 14)]
    assert pairs("yes, 12 是", cells) == []
    assert pairs("尺寸和颜色？大号", cells, question=True) == [("尺寸(cm)", "大号", 6), ("颜色", "", -1)]
    assert pairs("尺寸和颜色都好", cells) == []
    assert pairs("İ red", cells) == [("colour", "red", 2)]  # a sign whose small form is longer moves nothing


@pytest.mark.parametrize(
    ("value", "text", "said"), [("dresses", "a dress", "dress"), ("dress", "two dresses", "dress"), ("boxes", "box", "box"), ("glass", "glas", None), ("sizes", "size 4", "size"), ("bus", "bu", None)]
)
def test_singular_and_plural(value, text, said):
    assert [found for _, found, _ in pairs(text, [("kind", value)])] == ([said] if said else [])


def test_what_the_log_says_is_not_guessed(shop):
    chats = """会话,时间,角色,内容,行为,属性
a,2024/5/1 9:00,顾客,随便看看,用户反馈,-
a,2024/5/1 9:01,店家,您要什么样的,,"颜色：红色; 尺码|颜色：红色"
a,2024/5/1 9:02,顾客,红色,,
b,2024/5/1 9:00,顾客,你好,,
c,2024/5/1 9:00,顾客,你好,,
"""
    read = shop(chats, ITEMS.replace("red", "红色").replace("colour", "颜色"), "zh")
    assert told(dialogues_of(read)["a"]) == [("用户反馈", [], []), ("系统提问", [("颜色", "红色"), ("尺码", "")], []), ("用户回答", [("颜色", "红色")], [])]
    assert read.guessed["a"] == {"category": True, "acts": [2, 3], "attributes": [3]}
    assert count(read, "acts guessed") == (4, 5) and count(read, "attributes guessed") == (1, 3)
    wrong = chats.replace("用户反馈", "系统提问")
    message = "chats.csv: line 2, column 行为: '系统提问' is no act of the customer; write one of 用户需求, 用户回答, 用户反馈, or nothing"
    assert refused(shop, wrong) == message


def test_what_was_guessed_and_left_out_is_counted(shop):
    chats = CHATS.replace("Something red,", "Something red,105").replace("Hello and welcome,", ",").replace("this,101", "this,101|101.0;x9").replace("Not so large,", ",107")
    read = shop(chats)
    assert count(read, "messages that say nothing: left out") == (2, 9)
    assert count(read, "items that customers sent: left out") == (2, 5)
    assert count(read, "items shown that the catalogue lacks") == (2, 3)
    assert any(line.endswith("lacks items that were shown: x9; add a row for each") for line in read.lines)
    assert not any("lacks" in line for line in shop().lines)
    assert count(read, "acts guessed") == (7, 7)
    assert count(read, "questions of the shop in which none was found") == (0, 1)
    assert count(read, "messages of customers in which none was found") == (2, 5)
    assert any("101.0" in line and "written alike" in line for line in read.lines)  # ids are texts, and the report says so


def test_categories_of_conversations(shop):
    two = ITEMS.replace("101,Pot 101,pots", "101,Pot 101,pans")
    assert [(d.domain, d.told_domain) for d in dialogues_of(shop(items=two)).values()] == [("pans", "Shopping"), ("Other", "Shopping"), ("Other", "Shopping")]
    assert {(d.domain, d.told_domain) for d in dialogues_of(shop()).values()} == {("pots", "")}  # there is no other
    logged = "\n".join(f"{line},{'domain' if not n else 'kitchen' if n < 3 else ''}" for n, line in enumerate(CHATS.strip().split("\n")))
    read = shop(logged, two)
    assert [d.domain for d in dialogues_of(read).values()] == ["kitchen", "Other", "Other"] and dialogues_of(read)["a"].told_domain == ""
    assert [mark["category"] for mark in read.guessed.values()] == [False, True, True]
    assert "line 3, column domain: 'bath' contradicts line 2 of the same conversation" in refused(shop, logged.replace("colour?,,kitchen", "colour?,,bath"))


def test_sellers(shop):
    def with_seller(text, sellers):
        first, *rows = text.strip().split("\n")
        return "\n".join([f"{first},seller", *(f"{row},{sellers[n % len(sellers)]}" for n, row in enumerate(rows))])

    assert {d.sellerid for d in dialogues_of(shop()).values()} == {"shop"} == set(shop().corpus.knowledge["seller_id_encrypt"])
    for read in (shop(with_seller(CHATS, ["s1"])), shop(items=with_seller(ITEMS, ["s1", ""]))):
        assert {d.sellerid for d in dialogues_of(read).values()} == {"s1"} == set(read.corpus.knowledge["seller_id_encrypt"])
    message = "chats.csv: conversation a has no seller, and there are several (s1, s2); name its seller in a column seller"
    assert refused(shop, items=with_seller(ITEMS, ["s1", "s2"])) == message


def test_product_knowledge_keeps_all_columns(shop):
    items = "product_id;Name;Category;Use; \n" + "".join(f"{n};Pot, {n};pots;oven|hob ; oven;x\n" for n in range(20)) + '20;"Pot with a\nlid";;;\n'
    items = items.replace("oven|hob ; oven", '"oven|hob ; oven"')
    rows = shop(items=items).corpus.knowledge
    first = rows[rows["item_id_encrypt"] == "0"]
    assert first[["relation_name", "value"]].values.tolist() == [["Title", "Pot, 0"], ["一级类目", "pots"], ["Use", "oven"], ["Use", "hob"]]
    assert rows[rows["item_id_encrypt"] == "20"]["value"].tolist() == ["Pot with a lid"]


def test_splits_do_not_move_and_none_stays_empty(shop):
    names = [f"c{n}" for n in range(200)]
    splits = splits_of(names, 1, (0.8, 0.1, 0.1), "chats.csv")
    assert splits_of(names[:150], 1, (0.8, 0.1, 0.1), "chats.csv").items() <= splits.items()
    assert splits_of(names, 2, (0.8, 0.1, 0.1), "chats.csv") != splits
    assert 140 < list(splits.values()).count("train") < 180
    for count_of in (3, 4, 10):
        few = list(splits_of(names[:count_of], 1, (0.8, 0.1, 0.1), "chats.csv").values())
        assert set(few) == set(SPLITS) and few.count("train") >= count_of - 4
    assert set(splits_of(["x"], 1, (0, 0, 1.0), "chats.csv").values()) == {"test"}
    message = "chats.csv: holds 1 conversations; train, valid, test need one each; export more of them"
    assert refused(shop, "".join(CHATS.splitlines(True)[:6])) == message


# --- what Excel does


def semicolons(text):
    return text.replace(",", ";")


VARIANTS = {
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16 with tabs": lambda text: text.replace(",", "\t").encode("utf-16"),
    "GB18030": lambda text: text.encode("gb18030"),
    "semicolons": lambda text: semicolons(text).encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "lines of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "lines of old Macs": lambda text: text.replace("\n", "\r").encode(),
    "blank lines": lambda text: ("\n" + text.replace("\n", "\n\n") + "\n,,,,\n \n").encode(),
    "no last line break": lambda text: text.rstrip("\n").encode(),
    "everything quoted": lambda text: "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines()).encode(),
    "Excel's line of the separator": lambda text: ("sep=;\r\n" + semicolons(text)).encode(),
    "empty columns behind": lambda text: text.replace("\n", ",,\n").encode(),
    "blanks around": lambda text: text.replace(",", " , ").encode(),
}
PLAIN = "会话ID,时间,发送者,内容,展示商品\n甲,2024/5/1 10:00,用户,想要红色的锅，大号,\n甲,2024/5/1 10:01,客服,什么颜色,\n甲,2024/5/1 10:02,客服,看看这个,0101\n乙,2024/5/1 10:00,用户,你好,\n丙,2024/5/1 10:00,用户,在吗,\n"
PLAIN_ITEMS = "商品ID,标题,类目,颜色\n" + "".join(f"{n:04d},锅{n},锅具,红色\n" for n in range(100, 121))


@pytest.mark.parametrize("variant", VARIANTS)
def test_exports_of_excel_say_the_same(variant, shop):
    change = VARIANTS[variant]
    plain, read = shop(PLAIN, PLAIN_ITEMS, "zh"), shop(change(PLAIN), change(PLAIN_ITEMS), "zh")
    assert read.corpus.dialogues == plain.corpus.dialogues
    assert read.corpus.knowledge.equals(plain.corpus.knowledge) and "0101" in set(read.corpus.knowledge["item_id_encrypt"])
    assert told(dialogues_of(read)["甲"]) == [("用户需求", [("颜色", "红色")], []), ("系统提问", [("颜色", "")], []), ("系统推荐", [], ["0101"])]


def test_quoted_cells_keep_line_breaks_quotes_and_separators(shop):
    said = 'first, "second"\nthird;'
    quoted = '"first, ""second""\r\nthird;"'
    for text in (CHATS.replace("Dark blue", quoted), CHATS.replace(",", ";").replace("Dark blue", quoted)):
        assert dialogues_of(shop(text))["a"].dialogue[2].send_content == said
    inches = dialogues_of(shop(CHATS.replace("Dark blue", '24" wide')))["a"]
    assert inches.dialogue[2].send_content == '24" wide'


def test_western_letters_are_not_read_as_chinese_ones(shop):
    chats = CHATS.replace("Dark blue", "Crème très chic")
    read = shop(chats.encode("cp1252"))
    assert dialogues_of(read)["a"].dialogue[2].send_content == "Crème très chic" and "WINDOWS-1252" in read.lines[1]
    assert dialogues_of(shop(CHATS.replace("Dark blue", "深蓝").encode("gb18030")))["a"].dialogue[2].send_content == "深蓝"


def test_messages_are_put_in_order(shop):
    first, *rows = CHATS.splitlines(keepends=True)
    in_order = shop().corpus.dialogues
    assert shop("".join([first, *rows[::2], *rows[1::2]])).corpus.dialogues == in_order  # mixed
    same_minute = re.sub(r"10:0[123]", "10:01", CHATS)

    def texts(read):
        return {sid: [u.send_content for u in dialogue.dialogue] for sid, dialogue in dialogues_of(read).items()}

    kept = texts(shop(same_minute))
    assert kept["a"][:4] == ["A large pot please", "Which colour?", "Dark blue", "Look at this"]
    first, *rows = same_minute.splitlines(keepends=True)
    newest_first = shop("".join([first, *reversed(rows)]))
    assert texts(newest_first) == kept
    assert "newest messages first" in newest_first.lines[1] and "newest" not in shop().lines[1]


@pytest.mark.parametrize(
    "written",
    ["2024-05-01 13:05", "2024-05-01T13:05:00", "2024-05-01T13:05:00.000Z", "2024-05-01 13:05:00+08:00", "2024/5/1 13:05", "2024.5.1 13:05:00", "2024年5月1日 13:05", "2024年5月1日13:05", "01.05.2024 13:05", "1.5.2024, 13:05:00"],
)
def test_times_in_common_forms(written):
    assert time_of(written) == datetime(2024, 5, 1, 13, 5)


@pytest.mark.parametrize("written", ["", "2024-05-01", "2024-02-30 10:00", "01/05/2024 13:05", "45413.545", "13:05", "2024-05-01 25:00", "2024/5/113:05", "2024-05-01 1:05 PM"])
def test_what_is_no_time(written):
    assert time_of(written) is None


# --- errors


ERRORS = {
    "no column of texts": (
        {"chats": CHATS.replace("text", "said")},
        "chats.csv: column text is missing; its columns are conversation, time, who, said, items; rename the right one to one of: text, message,",
    ),
    "no titles": ({"items": ITEMS.replace("title", "")}, "items.csv: column title is missing; its columns are id, category, colour, size; rename"),
    "two columns of one name": ({"chats": CHATS.replace("items", "Who")}, "chats.csv: two columns are called who; rename or remove one"),
    "a time that is none": (
        {"chats": CHATS.replace("2024-05-01 11:01", "5/1/2024 11:01").replace("2024-05-01 12:00", "soon")},
        "chats.csv: line 8, column time: '5/1/2024 11:01' is no time (and 1 more like it); write 2024-05-01 13:05:00",
    ),
    "a stranger": (
        {"chats": CHATS.replace("11:01,shop", "11:01,robot")},
        "chats.csv: line 8, column who: 'robot' is neither the customer nor the shop; write one of customer, client,",
    ),
    "no conversation": ({"chats": CHATS.replace("\nc,", "\n,")}, "chats.csv: line 10, column conversation: '' is blank; fill it in"),
    "an id twice": ({"items": ITEMS + "101,Again,pots,red,tiny\n"}, "items.csv: line 27, column id: '101' is already in line 3; give each product one row"),
    "an id that Excel cut": ({"items": ITEMS + "6.92E+12,Cut,pots,red,tiny\n"}, "items.csv: line 27, column id: '6.92E+12' is a number that Excel cut; format"),
    "a shown id that Excel cut": ({"chats": CHATS.replace(",101", ",6.92E+12")}, "chats.csv: line 5, column items: '6.92E+12' is a number that Excel cut"),
    "no title": ({"items": ITEMS.replace("Pot 103", "")}, "items.csv: line 5, column title: '' is blank"),
    "an open quote": ({"chats": CHATS.replace("Dark blue", '"Dark blue')}, "chats.csv: line 4: the quotes of this row do not fit together"),
    "too many cells": ({"chats": CHATS.replace("Dark blue,", "Dark, blue,101")}, "chats.csv: line 4 has 6 cells, the first line 5; put double quotes"),
    "a first line alone": ({"chats": CHATS.splitlines()[0]}, "chats.csv: has nothing below its first line; export it again"),
    "nothing": ({"chats": " \n"}, "chats.csv: holds nothing; export it again"),
    "a workbook": ({"items": b"PK\x03\x04rest"}, 'items.csv: is a workbook, not a CSV file; save the table as "CSV UTF-8"'),
    "no encoding": ({"items": ITEMS.encode() + b"999,\x81\xff\xff ,,,\n", "language": "zh"}, "items.csv: line 27 holds bytes that are neither UTF-8 nor GB18030; save"),
    "UTF-16 without a mark": ({"items": ITEMS.encode("utf-16-le")}, "items.csv: holds zero bytes, as no text does; save"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_one_clear_error(case, shop):
    settings, message = ERRORS[case]
    assert refused(shop, **settings).startswith(message)


def test_quoted_line_breaks_are_counted_in_line_numbers(shop):
    chats = CHATS.replace("Dark blue", '"Dark\nblue\n"').replace("11:01,shop", "11:01,robot")
    assert "line 10, column who" in refused(shop, chats)


def test_a_missing_file_a_filled_folder_and_wrong_shares(tmp_path, capsys, shop):
    items, chats = tmp_path / "items.csv", tmp_path / "chats.csv"
    shop()
    assert main([str(items), str(tmp_path / "nowhere.csv"), str(tmp_path / "out")]) == 1
    assert "nowhere.csv: cannot be read (No such file or directory); give the path of a CSV file" in capsys.readouterr().err
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine", "utf-8")
    assert main([str(items), str(chats), str(full)]) == 1 and [path.name for path in full.iterdir()] == ["mine.txt"]
    assert "full: is there and is not an empty folder; name another one, or remove it" in capsys.readouterr().err
    for shares in ("0.8,0.2", "a,b,c", "1,1,-1", "0.5,0.5,0.5"):
        assert main([str(items), str(chats), str(tmp_path / "out"), "--shares", shares]) == 2
        assert "write three shares that add up to 1, such as 0.8,0.1,0.1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="language 'cn' is unknown; known: en, zh"):
        shop(language="cn")
    (tmp_path / "empty").mkdir()
    assert main([str(items), str(chats), str(tmp_path / "empty"), "--language", "en"]) == 0
    assert len(list((tmp_path / "empty").iterdir())) == 6


def test_nothing_is_half_written(tmp_path, shop, monkeypatch):
    read, before = shop(), sorted(tmp_path.iterdir())

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("llmcrs_utils.corpus.chat_log.write_json", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_shop(read, tmp_path / "out")
        assert sorted(tmp_path.iterdir()) == before
    assert main([str(tmp_path / "items.csv"), str(tmp_path / "chats.csv"), "/proc/nowhere/out"]) == 2

    def another_was_faster(path, value):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs.txt").write_text("theirs", "utf-8")

    monkeypatch.setattr("llmcrs_utils.corpus.chat_log.write_json", another_was_faster)
    with pytest.raises(CorpusError, match="is there and is not an empty folder"):
        write_shop(read, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs.txt"]


def test_a_message_of_items_alone_and_too_few_of_them(tmp_path, shop):
    read = shop(CHATS.replace("Look at this", ""), "".join(ITEMS.splitlines(True)[:15]))
    assert dialogues_of(read)["a"].dialogue[3].send_content == LINK_ONLY
    assert read.lines[-1] == "note: the catalogue has 14 items; a recommendation needs 20 to choose among"
    write_shop(read, tmp_path / "out")
    corpus = read_corpus(tmp_path / "out", report=Report())
    with pytest.raises(CorpusError, match="the catalogue holds only 14 items to choose among"):
        build_samples(corpus, build_catalogue(corpus, prompts_of("en")), prompts_of("en"))
