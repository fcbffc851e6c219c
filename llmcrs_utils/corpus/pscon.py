"""PSCon (Zou et al., 2025; github.com/JieZouIR/PSCon, CC BY 4.0), its English or its Chinese part, mapped to the internal format.

Acts of the system, by PSCon's action:

* Clarify -> 系统提问, Recommend -> 系统推荐; Chitchat, No answer and Inquire -> 系统解释.

Acts of the user depend on the system's last 系统提问 or 系统推荐 and, except for Reveal, not on the user's intent:

* before any 系统提问 or 系统推荐, or the first turn with keywords if its intent is Reveal -> 用户需求;
* after a 系统提问 -> 用户回答; after a 系统推荐 -> 用户反馈.

Attributes of a Clarify turn: its clarifying_attribute. "Price: $25 to $50" is attribute "Price", value "$25 to $50";
"Brand" and the blank form "Price: $        $" are attributes without a value. One text may name several: "品牌, 价格" is two
attributes, and so is "品牌：华为，价格：1000". A comma or a semicolon ends a value only where a name and a colon follow.

Attributes of a user turn: the keywords that no earlier turn of the user has, ignoring case and blanks; PSCon's annotators
repeat old ones. The attribute is the one that the system asked about since the user's last turn. If it asked about none or
several, PSCon does not say which one a keyword answers, and the attribute is ``Keyword`` (``关键词``). So it is for a keyword
that the user said earlier and not in this message: annotators often mark what is wanted some turns late.

Values are the annotators' words with single blanks. ";" becomes "," and a colon before a blank becomes " - ", because ";" and
":" separate attributes and values in the prompts; so do their full-width forms. The span is the first place where the message has the annotators'
words, in upper or lower case, else -1,-1.

Recommendations: recommended_products, each with itself and the turn's search results as candidates. Titles are the only
knowledge (relation ``Title`` or ``标题``) and exist for products that were recommended at some time. Search results without a
title are left out: a candidate without knowledge could not be the answer, and so would help to guess it. So are those that only
a later turn of the conversation recommends. Where a turn has no search results, or too few, the rest are products that other
conversations recommend and this one did not show before: neighbours of one of the right product's neighbours by group and by
similarity of the titles (``similar_products``). Nothing said later changes them.

The shopper rates the products shown, in the shopper's last message. That is the verdict on each recommendation: ``liked``,
``disliked``, or ``""`` where there is none or the shopper gave both. No model reads a verdict. It says which recommendations
are right answers, and which products shown so far are among the wrong candidates (``tasks.samples``).

PSCon names no shop, shopper or time. The seller is ``pscon``, the user is the conversation, and the times only keep the
order of the messages, one minute apart. PSCon publishes no behaviour before a dialogue. ``losses`` counts what the mapping
drops.

PSCon names no categories. The domain of a conversation is the group (``corpus.pscon_categories``) of its first keyword that
has one, else of its first recommended title that has one. That may be said late, so models read ``Shopping`` or ``购物``.
"""

import hashlib
import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.folders import data_files, data_folder
from llmcrs_utils.corpus.joins import count_join, side
from llmcrs_utils.corpus.pscon_categories import REST, category_of
from llmcrs_utils.corpus.reading import is_blank
from llmcrs_utils.corpus.schema import (
    BEHAVIOUR_COLUMNS,
    KNOWLEDGE_COLUMNS,
    SPLITS,
    TIME_TYPE,
    TITLE_RELATIONS,
    WRONG,
    Attribute,
    Corpus,
    CorpusError,
    Dialogue,
    Name,
    Record,
    Utterance,
    read_records,
)
from llmcrs_utils.corpus.similarity import nearest_titles, title_grams

SELLER = "pscon"
SIMILAR = 30  # candidates are drawn from so many products with similar titles
START = datetime(2000, 1, 1)  # clearly not a time of the conversations
VERDICT = re.compile(r"\s*[(（](liked|disliked)[)）]\s*$")
COLON = re.compile("[:：]")
SEPARATOR = re.compile("[,，、;；]")
BEFORE_A_NAME = re.compile("[,，、;；](?=[^,，、;；:：]+[:：])")  # separates two attributes, the second of which has a value
SYSTEM_ACTS = {
    "Clarify": "系统提问",
    "Recommend": "系统推荐",
    "Chitchat": "系统解释",
    "No answer": "系统解释",
    "Inquire": "系统解释",
}


@dataclass(frozen=True)
class Part:
    """What differs between the parts of PSCon."""

    name: str
    files: tuple[str, ...]  # patterns of its file's name
    domain: str  # what models read as the domain
    keyword: str  # attribute of a keyword that answers no single question
    title: str  # relation of a product's title


PARTS = {
    "en": Part("English part", ("conversation_en.json",), "Shopping", "Keyword", TITLE_RELATIONS["en"]),
    "zh": Part("Chinese part", ("conversation_cn.json", "conversation_cn_*.json"), "购物", "关键词", TITLE_RELATIONS["zh"]),
}


def pscon_part(language: str) -> Part:
    """The part of PSCon in a language.

    Raises:
        ValueError: for a language other than ``en`` and ``zh``.
    """
    if language not in PARTS:
        raise ValueError(f"PSCon has no part in language {language!r}; known: {', '.join(PARTS)}")
    return PARTS[language]


def as_product(value: Any) -> Any:
    """A product as PSCon writes it: id and title, an id alone (also bare), or a title alone, from which an id is made."""
    if isinstance(value, str) and not is_blank(value) and (not value.isascii() or len(value.split()) > 1):
        value = {"product_title": value}
    if not isinstance(value, dict):
        return {"product_id": value}
    value = {name: content for name, content in value.items() if content is not None}
    title = value.get("product_title")
    if "product_id" not in value and isinstance(title, str) and not is_blank(title):
        value["product_id"] = f"title-{hashlib.sha256(normal(title).encode()).hexdigest()[:12]}"
    return value


def as_rating(value: Any) -> Any:
    """A rating as PSCon writes it: id and title with the verdict behind it, or this text alone, from which an id is made."""
    value = {"product_rate": value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        return value
    value = {name: content for name, content in value.items() if content is not None}
    if not value.get("product_id") and isinstance(value.get("product_rate"), str):
        value["product_id"] = as_product({"product_title": VERDICT.sub("", value["product_rate"])}).get("product_id", "")
    return value


def listed_texts(value: Any) -> Any:
    """A list of texts, where PSCon may have one text or none."""
    return [value] if isinstance(value, str) else [] if value is None else value


class Product(Record):
    product_id: Name
    product_title: str = ""


class Rating(Record):
    """The shopper's verdict on one product: its title with ``(liked)`` or ``(disliked)`` behind it."""

    product_id: str = ""
    product_rate: str = ""


Texts = Annotated[list[str], BeforeValidator(listed_texts)]
Products = Annotated[list[Annotated[Product, BeforeValidator(as_product)]], BeforeValidator(listed_texts)]
Ratings = Annotated[list[Annotated[Rating, BeforeValidator(as_rating)]], BeforeValidator(listed_texts)]


class Message(Record):
    """One message as PSCon publishes it."""

    role: Literal["user", "system"]
    content: str
    intent: Literal["Reveal", "Interpret", "Revise", "Inquire", "Chitchat"] | None = None
    action: Literal["Clarify", "Recommend", "Chitchat", "No answer", "Inquire"] | None = None
    keywords: Texts = []
    clarifying_attribute: Texts = []
    search_results: Products = []
    recommended_products: Products = []
    user_rating: Ratings = []

    @model_validator(mode="after")
    def says_what_it_does(self):
        if self.role == "user" and self.intent is None:
            raise ValueError("a user's message needs an intent")
        if self.role == "system" and self.action is None:
            raise ValueError("a system's message needs an action")
        return self


class Conversation(Record):
    """One conversation as PSCon publishes it."""

    conv_id: Name
    conversation: list[Message] = Field(min_length=1)


def read_pscon(
    folder: str | Path,
    language: str = "en",
    seed: int = 1,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    encoding: str = "utf-8",
    report: Report | None = None,
) -> Corpus:
    """Read one part of PSCon, split by conversation into train, valid and test.

    The split of a conversation depends only on ``seed`` and its id, so a new conversation moves no other.

    Args:
        folder: a clone of the repository, or any folder that holds one file of the part at some depth.
        language: ``en`` (``conversation_en.json``) or ``zh`` (``conversation_cn.json`` or ``conversation_cn_*.json``).
        seed: seed of the split.
        shares: shares of train, valid and test; they add up to 1.
        encoding, report: as for ``read_corpus`` of ``u_need``.

    Raises:
        CorpusError: names what is missing, present twice or broken, and the remedy.
        ValueError: for another language, and for shares that are not three or do not add up to 1.
    """
    check_shares(shares)
    part = pscon_part(language)
    conversations = read_conversations(folder, language, encoding, report)
    titles = titles_of(conversations)
    knowledge = pd.DataFrame([(item, SELLER, part.title, title) for item, title in titles.items()], columns=KNOWLEDGE_COLUMNS, dtype=str)
    groups = {item: category_of([title], language) for item, title in titles.items()}
    owners = owners_of(conversations)
    similar = similar_products(conversations, titles, groups, owners)
    dialogues = {split: [] for split in SPLITS}
    for conversation in conversations:
        elsewhere = {item for item in titles if owners[item] - {conversation.conv_id}}
        dialogue = to_dialogue(conversation, part, elsewhere, similar.get(conversation.conv_id))
        dialogue.domain = domain_of(conversation, groups, language)
        dialogues[split_of(conversation.conv_id, seed, shares)].append(dialogue)
    behaviour = pd.DataFrame([], columns=BEHAVIOUR_COLUMNS, dtype=str).astype({"actime": TIME_TYPE})
    return Corpus(dialogues, knowledge, behaviour)


def read_conversations(
    folder: str | Path, language: str = "en", encoding: str = "utf-8", report: Report | None = None
) -> list[Conversation]:
    report = Report() if report is None else report
    folder = data_folder(folder)
    paths = conversation_files(folder, language)
    names = " or ".join(pscon_part(language).files)
    if not paths:
        raise CorpusError(f"{folder}: no {names} at any depth; clone https://github.com/JieZouIR/PSCon and give its folder")
    if len(paths) > 1:
        raise CorpusError(f"{folder}: {names} is there more than once ({', '.join(map(str, paths))}); give the folder of one")
    conversations = read_records(paths[0], Conversation, "conv_id", encoding, report)
    count_pscon_joins(conversations, paths[0], report)
    report.finish()
    return conversations


def conversation_files(folder: Path, language: str = "en") -> list[Path]:
    """The files from which a part of PSCon is read. A folder in order has exactly one of each part."""
    return data_files(folder, *pscon_part(language).files, deep=True)


def count_pscon_joins(conversations: list[Conversation], file: Path, report: Report) -> None:
    """Count in ``report`` how many recommended or found products have a title, which is all the knowledge there is of them."""
    messages = [message for conversation in conversations for message in conversation.conversation]
    titled = side("products with a title", titles_of(conversations))
    recommended = side("recommended products", (product.product_id for m in messages for product in m.recommended_products))
    count_join(report, file, recommended, titled)
    if any(message.search_results for message in messages):
        count_join(report, file, side("found products", (product.product_id for m in messages for product in m.search_results)), titled)


def check_shares(shares: tuple[float, ...]) -> None:
    """Raise a ``ValueError`` if these are not shares of train, valid and test."""
    if len(shares) != len(SPLITS) or not min(shares) >= 0 or not math.isclose(sum(shares), 1):
        raise ValueError(f"shares {shares} are not three shares of 1, for {', '.join(SPLITS)}")


def split_of(conv_id: str, seed: int, shares: tuple[float, float, float]) -> str:
    digest = hashlib.sha256(f"{seed}:{conv_id}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < shares[0]:
        return "train"
    return "valid" if point < shares[0] + shares[1] else "test"


def domain_of(conversation: Conversation, groups: dict[str, str], language: str) -> str:
    """The group of the first keyword of the user that has one, else of the first recommended product that has one."""
    messages = conversation.conversation
    asked = [category_of([keyword], language) for message in messages if message.role == "user" for keyword in message.keywords]
    shown = [groups.get(product.product_id, REST[language]) for message in messages for product in message.recommended_products]
    return next((group for group in [*asked, *shown] if group != REST[language]), REST[language])


def owners_of(conversations: list[Conversation]) -> dict[str, set[str]]:
    """Product -> the conversations that recommend it."""
    owners = defaultdict(set)
    for conversation in conversations:
        for message in conversation.conversation:
            for product in message.recommended_products:
                owners[product.product_id].add(conversation.conv_id)
    return owners


def similar_products(
    conversations: list[Conversation], titles: dict[str, str], groups: dict[str, str], owners: dict[str, set[str]]
) -> dict[str, dict[tuple[int, str], list[str]]]:
    """For each conversation, by (number of the message, product): up to ``SIMILAR`` products from which wrong candidates are drawn.

    They are the neighbours of a neighbour: of a product among whose ``SIMILAR`` nearest the right one is too. If they were the
    neighbours of the right one, it would be the one in their middle, and could be told without reading the dialogue. Which
    neighbour it is, is drawn by a generator of (conversation, message, product).

    Only for products with a title. Products of the same group are nearest. The
    products, and the weights of their words, are those of other conversations; what the conversation showed before is left
    out.

    Args:
        titles, groups: product -> its title, its group.
        owners: as of ``owners_of``.
    """
    items = sorted(titles)
    group = np.array([groups[item] for item in items])
    index = {item: row for row, item in enumerate(items)}
    grams = title_grams([titles[item] for item in items])
    found = {}
    for conversation in conversations:
        own = {p.product_id for message in conversation.conversation for p in message.recommended_products} & index.keys()
        nearest = None
        shown = set()

        def around(row: int, also: tuple[int, ...] = ()) -> list[int]:
            """The ``SIMILAR`` rows nearest to this one: those of its group first, then by similarity; ``also`` counts one more."""
            rows = nearest(row, [index[item] for item in shown & index.keys()], also)
            same = (group[rows] == group[row]) & (group[row] not in REST.values())
            return [*rows[same], *rows[~same]][: SIMILAR + len(also)]

        for number, message in enumerate(conversation.conversation):
            now = {product.product_id for product in message.recommended_products}
            for item in sorted(now & index.keys()):
                if nearest is None:
                    nearest = nearest_titles(grams, [index[i] for i in own if len(owners[i]) == 1])
                right = index[item]
                chosen = around(right)
                for neighbour in random.Random(f"{conversation.conv_id}|{number}|{item}").sample(chosen, len(chosen)):
                    others = around(neighbour, (right,))
                    if right in others:
                        chosen = [row for row in others if row != right]
                        break
                found.setdefault(conversation.conv_id, {})[number, item] = [items[row] for row in chosen]
            shown |= now
    return found


def to_dialogue(conversation: Conversation, part: Part, titled: set[str], similar: dict[tuple[int, str], list[str]] | None = None) -> Dialogue:
    """The conversation in the internal format, by the rules at the top of this module.

    Args:
        part: the part of PSCon it belongs to.
        titled: the products with a title that other conversations recommend. Those that this one has shown have one too.
        similar: its entry of ``similar_products``.
    """
    verdicts = verdicts_of(conversation)
    utterances = []
    known, asked = set(), []  # keywords so far; attributes asked about since the user's last turn
    said = ""  # by the user, so far
    shown = set()  # products, so far
    last_act = None  # the last 系统提问 or 系统推荐
    for seq_no, message in enumerate(conversation.conversation, start=1):
        common = {"seq_no": seq_no, "time": START + timedelta(minutes=seq_no), "send_content": message.content}
        if message.role == "system":
            act = SYSTEM_ACTS[message.action]
            entries = [entry for text in message.clarifying_attribute for entry in attribute_texts(text)]
            named = [entry for entry in entries if not is_blank(COLON.split(entry)[0])]
            attributes = [clarified(entry, message.content) for entry in named]
            asked += [attribute.key for attribute in attributes]
            last_act = last_act if act == "系统解释" else act
            items = unique(product.product_id for product in message.recommended_products)
            shown.update(items)
            results = unique(product.product_id for product in message.search_results if product.product_id in titled or product.product_id in shown)
            others = {item: filled_up(results, items, (similar or {}).get((seq_no - 1, item), []), bool(message.search_results)) for item in items}
            utterance = Utterance(
                **common,
                sender_type="客服",
                act_tag=act,
                attributes=attributes,
                rec_item_id=items,
                rec_item_candidates=[unique([*others[item], item]) for item in items],
                rec_item_verdict=[verdicts.get(item, "") for item in items],
            )
        else:
            new = new_keywords(message.keywords, known)
            reveals = message.intent == "Reveal" and not known and bool(new)
            late = {keyword for keyword in new if normal(keyword) in said and normal(keyword) not in normal(message.content)}
            name = asked[0] if len(set(asked)) == 1 else part.keyword
            utterance = Utterance(
                **common,
                sender_type="用户",
                act_tag="用户需求" if last_act is None or reveals else "用户回答" if last_act == "系统提问" else "用户反馈",
                attributes=[attribute_of(part.keyword if keyword in late else name, keyword, message.content) for keyword in new],
            )
            said += normal(message.content) + "\n"
            known.update(map(normal, new))
            asked = []
        utterances.append(utterance)
    return Dialogue(
        domain=part.domain,
        told_domain=part.domain,
        sid=conversation.conv_id,
        sellerid=SELLER,
        userid=conversation.conv_id,
        ds=f"{START:%Y%m%d}",
        dialogue=utterances,
    )


def filled_up(results: list[str], right: list[str], similar: list[str], searched: bool) -> list[str]:
    """Search results, and as many similar products as are missing to 19 wrong candidates; without a search all similar products."""
    missing = WRONG - len(set(results) - set(right)) if searched else len(similar)
    return [*results, *[item for item in similar if item not in results and item not in right][: max(0, missing)]]


def verdicts_of(conversation: Conversation) -> dict[str, str]:
    """Product -> ``liked`` or ``disliked``, as its shopper rated it. A product that was rated both ways has no verdict."""
    given = defaultdict(set)
    for message in conversation.conversation:
        for rating in message.user_rating:
            verdict = VERDICT.search(rating.product_rate)
            if verdict:
                given[rating.product_id].add(verdict.group(1))
    return {item: verdicts.pop() for item, verdicts in given.items() if len(verdicts) == 1}


def attribute_texts(text: str) -> list[str]:
    """The attributes that one text names: ``"品牌, 价格"`` is two; ``"Brand: A, B"`` is one with a value, ``"品牌：A，价格：B"`` two."""
    with_values = BEFORE_A_NAME.split(text)
    return [entry for given in with_values for entry in ([given] if COLON.search(given) else SEPARATOR.split(given))]


def clarified(entry: str, text: str) -> Attribute:
    """The attribute of a clarifying question: ``"Price: $25 to $50"`` has a value, the blank form ``"Price: $   $"`` has none."""
    name, *values = COLON.split(entry, maxsplit=1)
    value = "".join(values)
    return attribute_of(name, "" if not value.strip("$￥¥ ") else value, text)


def attribute_of(name: str, value: str, text: str) -> Attribute:
    value = value.strip()
    place = re.search(re.escape(value), text, re.IGNORECASE) if value else None
    start, end = place.span() if place else (-1, -1)
    return Attribute(key=without_separators(name), value=without_separators(value), start=start, exclusive_end=end)


def without_separators(text: str) -> str:
    text = " ".join(text.replace(";", ",").replace("；", "，").split()).rstrip(" :：")
    return re.sub(" ?: | ?： ?", " - ", text)


def new_keywords(keywords: list[str], known: set[str]) -> list[str]:
    by_form = {}
    for keyword in keywords:
        by_form.setdefault(normal(keyword), keyword)
    return [keyword for form, keyword in by_form.items() if not is_blank(form) and form not in known]


def normal(text: str) -> str:
    return " ".join(text.casefold().split())


def unique(items) -> list[str]:
    return list(dict.fromkeys(items))


def titles_of(conversations: list[Conversation]) -> dict[str, str]:
    """The title of each recommended product: the first that a recommendation gives, else the one that it was rated with."""
    titles, rated, recommended = {}, {}, set()
    for conversation in conversations:
        for message in conversation.conversation:
            for product in message.recommended_products:
                recommended.add(product.product_id)
                add_title(titles, product.product_id, product.product_title)
            for rating in message.user_rating:
                add_title(rated, rating.product_id, VERDICT.sub("", rating.product_rate))
    return titles | {item: title for item, title in rated.items() if item in recommended and item not in titles}


def add_title(titles: dict[str, str], item: str, title: str) -> None:
    title = " ".join(title.split())
    if not is_blank(title):
        titles.setdefault(item, title)


def losses(folder: str | Path, encoding: str = "utf-8", bad_records: str = "stop", language: str = "en") -> pd.DataFrame:
    """What ``read_pscon`` drops or cannot know. Columns ``what``, ``count`` and ``of`` (how many there were)."""
    part = pscon_part(language)
    conversations = read_conversations(folder, language, encoding, Report(bad_records))
    messages = [message for conversation in conversations for message in conversation.conversation]
    titled = set(titles_of(conversations))
    utterances = [utterance for conversation in conversations for utterance in to_dialogue(conversation, part, titled).dialogue]
    users = [message for message in messages if message.role == "user"]
    systems = [message for message in messages if message.role == "system"]
    recommends = [message for message in systems if message.action == "Recommend"]
    spoken = [attribute for u in utterances if u.sender_type == "用户" for attribute in u.attributes]
    offered = [attribute for u in utterances if u.sender_type == "客服" for attribute in u.attributes if attribute.value]
    by_users = sum(len(message.keywords) for message in users)
    by_systems = sum(len(message.keywords) for message in systems)
    found = {product.product_id for message in systems for product in message.search_results}
    rated = {(c.conv_id, rating.product_id) for c in conversations for message in c.conversation for rating in message.user_rating}
    shown = {(c.conv_id, product.product_id) for c in conversations for message in c.conversation for product in message.recommended_products}
    verdicts = {(c.conv_id, item) for c in conversations for item in verdicts_of(c)}
    other_intents = [message for message in users if message.intent in ("Chitchat", "Inquire", "Revise")]
    explanations = [message for message in systems if SYSTEM_ACTS[message.action] == "系统解释"]
    empty = [message for message in recommends if not message.recommended_products]
    rows = [
        ("user keywords that repeat an earlier one: dropped", by_users - len(spoken), by_users),
        ("keywords on a system turn: dropped", by_systems, by_users + by_systems),
        ("kept keywords that do not stand in the text: no span", sum(a.start < 0 for a in spoken), len(spoken)),
        (f"kept keywords whose attribute is unknown: {part.keyword}", sum(a.key == part.keyword for a in spoken), len(spoken)),
        ("values offered by the system, not in the text: no span", sum(a.start < 0 for a in offered), len(offered)),
        ("found products without a title: no candidates", len(found - titled), len(found)),
        ("recommendations without a product: nothing to predict", len(empty), len(recommends)),
        ("rated products that no turn recommends: dropped", len(rated - shown), len(rated)),
        ("recommended products without a verdict, or with both: right answers only if gold is all", len(shown - verdicts), len(shown)),
        ("user turns of intent Chitchat, Inquire or Revise: no act of their own", len(other_intents), len(users)),
        ("system turns of action Chitchat, No answer or Inquire: all 系统解释", len(explanations), len(systems)),
    ]
    return pd.DataFrame(rows, columns=["what", "count", "of"])
