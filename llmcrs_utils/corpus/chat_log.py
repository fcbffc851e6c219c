"""A shop's own catalogue and chat log, two CSV files, made a corpus folder.

    python -m llmcrs_utils.corpus.chat_log CATALOGUE CHATS OUT [--language en] [--shares 0.8,0.1,0.1] [--seed 1]

The catalogue has a row per product, with the columns of ``CATALOGUE_COLUMNS``. Each further column is an attribute: its name is the
relation, and ``|`` or ``;`` separates several values in one cell. The chat log has a row per message, with the columns of
``CHAT_COLUMNS``. ``corpus.spreadsheets`` says how files may be written, and ``corpus.guessing`` how acts and attributes that the log
does not give are guessed.

* Messages of a conversation are put in order of time; those of the same time stay in the order of the file. If times fall more often
  than they rise, the file has the newest message first and is read from its end.
* Items that a customer sends are no recommendation and are left out.
* A message without text and without items of the shop is left out. One with items alone gets the text that U-NEED writes for such messages.
* The category of a conversation is the log's, else that of the first item shown that has one. Since that may be shown late, models then read
  the words that they read for PSCon, unless the catalogue has a single category.
* Where only one of the files names the seller, it has to be a single one. Where none does, the seller is ``shop``.
* The split of a conversation depends on the seed and its id. If that would leave a split without any, as in a short log, the conversations are
  cut in the order that seed and id give, at least one for each split.

``guessed.json`` in the folder marks what was guessed: for each conversation the ``seq_no`` of the messages whose act, and of those whose
attributes, were guessed, and whether its category was. No model reads it.

Exit code: 0 if the folder was written, 1 if the files have errors, 2 if the command cannot run.
"""

import argparse
import hashlib
import re
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

import pandas as pd

from llmcrs_utils.corpus.faults import NOTES, CorpusError, Report
from llmcrs_utils.corpus.folders import data_folder
from llmcrs_utils.corpus.guessing import Dictionary, guess_act, guess_attributes
from llmcrs_utils.corpus.joins import count_join, side, written_alike
from llmcrs_utils.corpus.pscon import PARTS, attribute_of, check_shares, split_of, unique, without_separators
from llmcrs_utils.corpus.pscon_categories import REST
from llmcrs_utils.corpus.schema import (
    BEHAVIOUR_COLUMNS,
    KNOWLEDGE_COLUMNS,
    LINK_ONLY,
    SPLITS,
    TIME_TYPE,
    TOP_CATEGORY,
    WRONG,
    Act,
    Attribute,
    Corpus,
    Dialogue,
    Utterance,
    making_many_objects,
    write_corpus,
)
from llmcrs_utils.corpus.spreadsheets import (
    Sheet,
    check_cells_filled,
    check_uncut,
    find_columns,
    form_of_name,
    read_sheet,
    times_of_column,
)
from llmcrs_utils.corpus.validate import IN_ORDER, NOT_IN_ORDER, NOT_RUN, sizes_of, sizes_table
from llmcrs_utils.files.atomic import write_json, writing_folder

GUESSED = "guessed.json"
OWN_SHOP = "shop"
# Column -> the names that it may have; of several that a table has, the first one counts.
CATALOGUE_COLUMNS = {
    "id": ("id", "item id", "product id", "sku", "商品ID", "商品编号", "商品编码", "编号", "货号"),
    "title": ("title", "name", "item name", "product name", "product title", "标题", "商品标题", "商品名称", "名称", "品名"),
    "category": ("category", "类目", "商品类目", "一级类目", "分类", "商品分类"),
    "seller": ("seller", "shop", "store", "卖家", "店铺", "商家"),
}
CHAT_COLUMNS = {
    "conversation": (
        *("conversation", "conversation id", "chat", "chat id", "session id", "dialogue id"),
        *("会话ID", "会话编号", "会话", "对话ID", "对话编号", "对话"),
    ),
    "time": ("time", "timestamp", "date", "sent at", "时间", "发送时间", "消息时间", "日期"),
    "who": ("who", "sender", "speaker", "role", "from", "发送者", "发送人", "发送方", "说话人", "角色", "谁"),
    "text": ("text", "message", "content", "内容", "消息内容", "聊天内容", "消息", "文本"),
    "items": ("items shown", "items", "item ids", "products", "展示商品", "推荐商品", "商品ID", "商品"),
    "category": ("category", "domain", "类目", "商品类目", "一级类目", "行业", "分类"),
    "seller": ("seller", "shop", "store", "卖家", "店铺", "商家"),
    "customer": ("customer", "customer id", "user id", "buyer", "顾客", "顾客ID", "用户ID", "买家", "客户"),
    "act": ("act", "act tag", "行为", "对话行为"),
    "attributes": ("attributes", "属性"),
}
CUSTOMER_WORDS = ("customer", "client", "buyer", "shopper", "user", "用户", "顾客", "客户", "买家", "消费者")
SHOP_WORDS = (
    *("shop", "seller", "staff", "agent", "support", "assistant", "service", "store"),
    *("客服", "卖家", "商家", "店家", "店铺", "店员"),
)
VALUE_MARKS = re.compile("[|｜;；]")  # separate values, and attributes, in one cell
ITEM_MARKS = re.compile("[|｜;；,，、\n]")
PAIR_MARK = re.compile("[:：]")
NO_ATTRIBUTE = "-"  # in the log's column of attributes: the message has none


@dataclass(frozen=True)
class ShopCatalogue:
    """What a shop's catalogue says.

    Attributes:
        sheet: the table, and the place of each of ``CATALOGUE_COLUMNS`` in it.
        sellers: item -> seller, ``""`` where the table names none.
        facts: (item, relation, value), by item.
        categories: item -> category, where it has one.
        dictionary: the words that messages are searched for.
    """

    sheet: Sheet
    places: dict[str, int | None]
    sellers: dict[str, str]
    facts: list[tuple[str, str, str]]
    categories: dict[str, str]
    dictionary: Dictionary


@dataclass(frozen=True)
class ChatMessage:
    """A row of a chat log. ``act`` and ``attributes`` are ``""`` where the log does not give them."""

    row: int
    time: datetime
    by_customer: bool
    text: str
    items: list[str]
    act: str
    attributes: str


@dataclass(frozen=True)
class ChatLog:
    """A chat log: the table, the place of each of ``CHAT_COLUMNS`` in it, and the messages of each conversation in order of time."""

    sheet: Sheet
    places: dict[str, int | None]
    conversations: dict[str, list[ChatMessage]]
    newest_first: bool

    def of_conversations(self, key: str) -> dict[str, str]:
        """Conversation -> what its rows say in a column that is about conversations; ``""`` if nothing.

        Raises:
            CorpusError: if two rows of a conversation say different things.
        """
        place, found = self.places[key], {}
        cells = self.sheet.cells(place)
        for name, messages in self.conversations.items():
            rows = [message.row for message in sorted(messages, key=lambda message: message.row) if cells[message.row]]
            other = [row for row in rows if cells[row] != cells[rows[0]]]
            if other:
                raise self.sheet.wrong(
                    other, place, f"contradicts line {self.sheet.lines[rows[0]]} of the same conversation", "write the same in all its rows"
                )
            found[name] = cells[rows[0]] if rows else ""
        return found


@dataclass(frozen=True)
class ImportedShop:
    """A corpus made of a shop's files.

    Attributes:
        corpus: the corpus; without behaviour.
        guessed: sid -> ``{"category": whether, "acts": [seq_no], "attributes": [seq_no]}``: what was guessed.
        counts: columns ``what``, ``count`` and ``of``: what was guessed or left out, and of how many.
        lines: how the files were read.
    """

    corpus: Corpus
    guessed: dict[str, dict]
    counts: pd.DataFrame
    lines: list[str]


@making_many_objects()
def read_shop(
    catalogue: str | Path, chats: str | Path, language: str = "zh", seed: int = 1, shares: tuple[float, ...] = (0.8, 0.1, 0.1)
) -> ImportedShop:
    """Read a shop's catalogue and chat log, by the rules at the top of this module.

    Args:
        catalogue, chats: the CSV files.
        language: of both, ``zh`` or ``en``.
        seed, shares: seed of the split, and its shares of train, valid and test.

    Raises:
        CorpusError: names file, line, column, value and remedy.
        ValueError: for another language, and for shares that are not three or do not add up to 1.
    """
    if language not in PARTS:
        raise ValueError(f"language {language!r} is unknown; known: {', '.join(PARTS)}")
    check_shares(shares)
    shop = read_shop_catalogue(catalogue, language)
    log = read_chat_log(chats, language)
    item_sellers, sellers = sellers_of(shop, log)
    categories, customers = log.of_conversations("category"), log.of_conversations("customer")
    single = set(shop.categories.values()) if len(set(shop.categories.values())) == 1 else set()
    dialogues, guessed, tally = {}, {}, Counter()
    for name, messages in log.conversations.items():
        kept = [message for message in messages if message.text or (message.items and not message.by_customer)]
        tally["messages"] += len(messages)
        tally["sent by customers"] += sum(len(message.items) for message in messages if message.by_customer)
        tally["blank"] += len(messages) - len(kept)
        if not kept:
            continue
        utterances, marks = to_utterances(kept, shop.dictionary, tally)
        guessed[name] = {"category": not categories[name], **marks}
        shown_items = [item for utterance in utterances for item in utterance.rec_item_id]
        tops = [shop.categories[item] for item in shown_items if item in shop.categories]
        tally["items"] += len(shown_items)
        tally["unknown"] += sum(item not in shop.sellers for item in shown_items)
        dialogues[name] = Dialogue(
            domain=categories[name] or next(iter([*tops, *single]), REST[language]),
            told_domain="" if categories[name] or single else PARTS[language].domain,
            sid=name,
            sellerid=sellers[name],
            userid=customers[name],
            ds=f"{kept[0].time:%Y%m%d}",
            dialogue=utterances,
        )
    splits = splits_of(list(dialogues), seed, shares, log.sheet.file)
    rows = [(item, item_sellers[item], relation, value) for item, relation, value in shop.facts]
    corpus = Corpus(
        {split: [dialogue for name, dialogue in dialogues.items() if splits[name] == split] for split in SPLITS},
        pd.DataFrame(rows, columns=KNOWLEDGE_COLUMNS, dtype=str),
        pd.DataFrame([], columns=BEHAVIOUR_COLUMNS, dtype=str).astype({"actime": TIME_TYPE}),
    )
    return ImportedShop(corpus, guessed, import_counts(guessed, tally), import_lines(shop, log, corpus))


def read_shop_catalogue(path: str | Path, language: str) -> ShopCatalogue:
    """Read a catalogue: a row per item. Blanks inside titles, values and names of columns become single ones.

    Raises:
        CorpusError: as ``read_sheet`` and ``find_columns``, for a blank id or title, for an id that Excel cut, and for an id twice.
    """
    sheet = read_sheet(path, CATALOGUE_COLUMNS, language)
    places = find_columns(sheet, CATALOGUE_COLUMNS, ("id", "title"))
    for key in ("id", "title"):
        check_cells_filled(sheet, places[key])
    check_uncut(sheet, places["id"])
    items = sheet.cells(places["id"])
    first = {item: row for row, item in reversed(list(enumerate(items)))}
    again = [row for row, item in enumerate(items) if first[item] != row]
    if again:
        message = f"is already in line {sheet.lines[first[items[again[0]]]]}"
        raise sheet.wrong(again, places["id"], message, "give each product one row and an id of its own")
    relations = relations_of(sheet, places)
    titles, tops = sheet.cells(places["title"]), sheet.cells(places["category"])
    facts, words, categories = [], [], {}
    for row, item in enumerate(items):
        facts.append((item, PARTS[language].title, single_blanks(titles[row])))
        category = next(iter(values_of_cell(tops[row])), "")
        if category:
            categories[item] = category
            facts.append((item, TOP_CATEGORY, category))
            words.append((sheet.columns[places["category"]], category))
        for place, relation in relations.items():
            values = values_of_cell(sheet.rows[row][place])
            facts += [(item, relation, value) for value in values]
            words += [(relation, value) for value in values]
    sellers = dict(zip(items, sheet.cells(places["seller"]), strict=True))
    return ShopCatalogue(sheet, places, sellers, facts, categories, Dictionary(words))


def relations_of(sheet: Sheet, places: dict[str, int | None]) -> dict[int, str]:
    """Place -> relation, of the columns that are not among ``places``."""
    relations = {place: without_separators(name) for place, name in enumerate(sheet.columns) if place not in places.values()}
    return {place: relation for place, relation in relations.items() if relation}


def values_of_cell(cell: str) -> list[str]:
    """The values in one cell, each once: ``|`` and ``;`` separate them."""
    return unique(value for value in map(single_blanks, VALUE_MARKS.split(cell)) if value)


def single_blanks(text: str) -> str:
    return " ".join(text.split())


def read_chat_log(path: str | Path, language: str) -> ChatLog:
    """Read a chat log: a row per message.

    Raises:
        CorpusError: as ``read_sheet``, ``find_columns`` and ``times_of_column``, for a blank or cut conversation id, for items that Excel
            cut, for somebody who is neither customer nor shop, and for an act that is none or that the other side says.
    """
    sheet = read_sheet(path, CHAT_COLUMNS, language)
    places = find_columns(sheet, CHAT_COLUMNS, ("conversation", "time", "who", "text"))
    check_cells_filled(sheet, places["conversation"])
    check_uncut(sheet, places["conversation"])
    if places["items"] is not None:
        check_uncut(sheet, places["items"])
    times = times_of_column(sheet, places["time"])
    by_customer = speakers_of(sheet, places["who"])
    cells = {key: sheet.cells(places[key]) for key in ("conversation", "text", "items", "act", "attributes")}
    if places["act"] is not None:
        check_acts(sheet, places["act"], by_customer)
    conversations: dict[str, list[ChatMessage]] = {}
    for row, name in enumerate(cells["conversation"]):
        items = unique(item for item in map(str.strip, ITEM_MARKS.split(cells["items"][row])) if item)
        message = ChatMessage(row, times[row], by_customer[row], cells["text"][row], items, cells["act"][row], cells["attributes"][row])
        conversations.setdefault(name, []).append(message)
    steps = [(b.time - a.time).total_seconds() for messages in conversations.values() for a, b in zip(messages, messages[1:], strict=False)]
    newest_first = sum(step < 0 for step in steps) > sum(step > 0 for step in steps)
    for messages in conversations.values():
        messages.sort(key=lambda message: (message.time, -message.row if newest_first else message.row))
    return ChatLog(sheet, places, conversations, newest_first)


def speakers_of(sheet: Sheet, place: int) -> list[bool]:
    """For each row whether the customer speaks."""
    customers, shops = (set(map(form_of_name, words)) for words in (CUSTOMER_WORDS, SHOP_WORDS))
    who = [form_of_name(cell) for cell in sheet.cells(place)]
    strange = [row for row, word in enumerate(who) if word not in customers | shops]
    if strange:
        remedy = f"write one of {', '.join(CUSTOMER_WORDS)}, or of {', '.join(SHOP_WORDS)}; remove what others say"
        raise sheet.wrong(strange, place, "is neither the customer nor the shop", remedy)
    return [word in customers for word in who]


def check_acts(sheet: Sheet, place: int, by_customer: list[bool]) -> None:
    acts = get_args(Act)
    wrong = [
        row
        for row, act in enumerate(sheet.cells(place))
        if act and (act not in acts or act.startswith("用户") != by_customer[row])
    ]
    if wrong:
        speaker, begin = ("customer", "用户") if by_customer[wrong[0]] else ("shop", "系统")
        known = ", ".join(act for act in acts if act.startswith(begin))
        raise sheet.wrong(wrong, place, f"is no act of the {speaker}", f"write one of {known}, or nothing")


def sellers_of(shop: ShopCatalogue, log: ChatLog) -> tuple[dict[str, str], dict[str, str]]:
    """The seller of each item, and that of each conversation. Where none is given, it is the only one that the files name.

    Raises:
        CorpusError: if an item or a conversation has no seller, and the files name several.
    """
    of_log = log.of_conversations("seller")
    known = sorted({*shop.sellers.values(), *of_log.values()} - {""})
    for sheet, what, sellers in ((shop.sheet, "item", shop.sellers), (log.sheet, "conversation", of_log)):
        missing = next((name for name, seller in sellers.items() if not seller), None)
        if missing is not None and len(known) > 1:
            raise CorpusError(
                f"{sheet.file}: {what} {missing} has no seller, and there are several ({', '.join(known[:3])}); name its seller in a column seller"
            )
    only = known[0] if known else OWN_SHOP
    return tuple({name: seller or only for name, seller in sellers.items()} for sellers in (shop.sellers, of_log))


# --- guessing


def to_utterances(messages: list[ChatMessage], dictionary: Dictionary, tally: Counter) -> tuple[list[Utterance], dict[str, list[int]]]:
    """The utterances of a conversation, and the ``seq_no`` of those whose ``acts`` and ``attributes`` are guessed.

    What a message becomes depends on it and on those before it. ``tally`` counts.
    """
    utterances, guessed = [], {"acts": [], "attributes": []}
    last_act, asked, customer_spoke = None, [], False
    for seq_no, message in enumerate(messages, start=1):
        items = [] if message.by_customer else message.items
        act = message.act or guess_act(message.by_customer, message.text, items, last_act, not customer_spoke)
        if message.attributes:
            attributes = written_attributes(message.attributes, message.text)
        else:
            attributes = guess_attributes(message.text, dictionary, act == "系统提问", asked)
            tally["attributes guessed"] += len(attributes)
            tally["customer, nothing found"] += message.by_customer and not attributes
            tally["customer, looked"] += message.by_customer
            tally["question, nothing found"] += act == "系统提问" and not attributes
            tally["question, looked"] += act == "系统提问"
        guessed["acts"] += [seq_no] * (not message.act)
        guessed["attributes"] += [seq_no] * (not message.attributes)
        tally["attributes"] += len(attributes)
        if message.by_customer:
            asked, customer_spoke = [], True
        else:
            asked = asked + [attribute.key for attribute in attributes if act == "系统提问"]
        last_act = act if act in ("系统提问", "系统推荐") else last_act
        utterances.append(
            Utterance(
                seq_no=seq_no,
                time=message.time,
                sender_type="用户" if message.by_customer else "客服",
                send_content=message.text or LINK_ONLY,
                act_tag=act,
                attributes=attributes,
                rec_item_id=items,
            )
        )
    return utterances, guessed


def written_attributes(cell: str, text: str) -> list[Attribute]:
    """The attributes that the log gives: ``颜色：红色; 尺码`` is one with a value and one without; ``-`` is none."""
    pairs = [(PAIR_MARK.split(pair, maxsplit=1) + [""])[:2] for pair in VALUE_MARKS.split(cell) if cell != NO_ATTRIBUTE]
    attributes = [attribute_of(key, value, text) for key, value in pairs if without_separators(key)]
    return list({(attribute.key, attribute.value): attribute for attribute in attributes}.values())


def splits_of(names: list[str], seed: int, shares: tuple[float, ...], file: str) -> dict[str, str]:
    """Conversation -> split. In a short log each split gets at least one.

    Raises:
        CorpusError: if there are fewer conversations than splits.
    """
    wanted = [split for split, share in zip(SPLITS, shares, strict=True) if share]
    splits = {name: split_of(name, seed, shares) for name in names}
    if set(wanted) <= set(splits.values()):
        return splits
    if len(names) < len(wanted):
        raise CorpusError(f"{file}: holds {len(names)} conversations; {', '.join(wanted)} need one each; export more of them")
    sizes = dict.fromkeys(wanted, 1)
    for _ in range(len(names) - len(wanted)):
        sizes[max(wanted, key=lambda split: shares[SPLITS.index(split)] * len(names) - sizes[split])] += 1
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return dict(zip(ordered, [split for split in wanted for _ in range(sizes[split])], strict=True))


# --- the report


def import_counts(guessed: dict[str, dict], tally: Counter) -> pd.DataFrame:
    """What was guessed and left out. Columns ``what``, ``count`` and ``of``."""
    messages = tally["messages"] - tally["blank"]
    rows = [
        ("acts guessed", sum(len(marks["acts"]) for marks in guessed.values()), messages),
        ("messages whose attributes were guessed", sum(len(marks["attributes"]) for marks in guessed.values()), messages),
        ("attributes guessed", tally["attributes guessed"], tally["attributes"]),
        ("questions of the shop in which none was found", tally["question, nothing found"], tally["question, looked"]),
        ("messages of customers in which none was found", tally["customer, nothing found"], tally["customer, looked"]),
        ("categories of conversations guessed", sum(marks["category"] for marks in guessed.values()), len(guessed)),
        ("items shown that the catalogue lacks", tally["unknown"], tally["items"]),
        ("items that customers sent: left out", tally["sent by customers"], tally["items"] + tally["sent by customers"]),
        ("messages that say nothing: left out", tally["blank"], tally["messages"]),
    ]
    return pd.DataFrame(rows, columns=["what", "count", "of"])


def import_lines(shop: ShopCatalogue, log: ChatLog, corpus: Corpus) -> list[str]:
    """How the files were read, and what a person should know of them."""
    lines = [f"{table.sheet.file}: {table.sheet.written}; {columns_read(table.sheet, table.places)}" for table in (shop, log)]
    relations = relations_of(shop.sheet, shop.places).values()
    lines[0] += f"; attributes: {', '.join(relations) or 'none'}"
    unused = relations_of(log.sheet, log.places).values()
    lines[1] += f"; not used: {', '.join(unused)}" if unused else ""
    lines[1] += "; newest messages first, so read from its end" if log.newest_first else ""
    shown_items = [u.rec_item_id for split in SPLITS for dialogue in corpus.dialogues[split] for u in dialogue.dialogue]
    shown_side, catalogue = side("items shown", (item for items in shown_items for item in items)), side("items of the catalogue", shop.sellers)
    report = Report()
    count_join(report, log.sheet.file, shown_side, catalogue)
    lines += [f"note: {fault.message} ({NOTES[fault.kind]})" for fault in report.faults]
    lacking = sorted(item for item in shown_side.names - catalogue.names if written_alike(item) not in catalogue.by_form)
    if lacking:
        lines.append(f"note: {shop.sheet.file}: lacks items that were shown: {', '.join(lacking[:3])}{f' and {len(lacking) - 3} more' if len(lacking) > 3 else ''}; add a row for each")
    if len(shop.sellers) <= WRONG and any(shown_items):
        lines.append(f"note: the catalogue has {len(shop.sellers)} items; a recommendation needs {WRONG + 1} to choose among")
    return lines


def columns_read(sheet: Sheet, places: dict[str, int | None]) -> str:
    return ", ".join(f"{key} = {sheet.columns[place]}" for key, place in places.items() if place is not None)


def write_shop(shop: ImportedShop, folder: str | Path) -> None:
    """Write the corpus and ``guessed.json`` to a new folder, whole or not at all.

    Raises:
        CorpusError: if the folder is there and not empty.
    """
    folder = data_folder(folder)
    check_vacant(folder)
    with writing_folder(folder, unless=lambda: check_vacant(folder)) as written:
        write_corpus(shop.corpus, written)
        write_json(written / GUESSED, {"counts": shop.counts.to_dict("records"), "conversations": shop.guessed})


def check_vacant(folder: Path) -> bool:
    """Whether nothing is lost if the folder is written; never false, since it raises."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CorpusError(f"{folder}: is there and is not an empty folder; name another one, or remove it")
    return True


def shares_of(text: str) -> tuple[float, ...]:
    """``"0.8,0.1,0.1"`` as three shares."""
    try:
        shares = tuple(map(float, text.split(",")))
        check_shares(shares)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write three shares that add up to 1, such as 0.8,0.1,0.1") from None
    return shares


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llmcrs_utils.corpus.chat_log", description="Makes a corpus folder of a shop's catalogue and chat log."
    )
    parser.add_argument("catalogue", help="CSV file with a row per product: id, title, further columns")
    parser.add_argument("chats", help="CSV file with a row per message: conversation, time, who, text; optional: items")
    parser.add_argument("out", help="new folder for the corpus")
    parser.add_argument("--language", default="zh", choices=list(PARTS), help="of both files (default: %(default)s)")
    parser.add_argument("--shares", type=shares_of, default="0.8,0.1,0.1", help="shares of train, valid and test (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the split (default: %(default)s)")
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code
    try:
        check_vacant(data_folder(chosen.out))
        shop = read_shop(chosen.catalogue, chosen.chats, chosen.language, chosen.seed, chosen.shares)
        write_shop(shop, chosen.out)
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    except OSError as error:
        print(f"error: {chosen.out}: cannot be written ({error.strerror})", file=sys.stderr)
        return NOT_RUN
    counts = [f"{row['count']:8} of {row['of']:<8} {row['what']}" for row in shop.counts.to_dict("records")]
    print("\n".join([*shop.lines, sizes_table(sizes_of(shop.corpus)), *counts]))
    print(f"written to {chosen.out}; {GUESSED} there says which acts and attributes are guessed; next: make validate DATA={shlex.quote(chosen.out)}")
    return IN_ORDER


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show Chinese
    sys.stderr.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
