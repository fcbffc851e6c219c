"""PSCon (Zou et al., 2025; github.com/JieZouIR/PSCon, CC BY 4.0), English part, mapped to the internal format.

Acts of the system, by PSCon's action:

* Clarify -> 系统提问, Recommend -> 系统推荐; Chitchat, No answer and Inquire -> 系统解释.

Acts of the user depend on the system's last 系统提问 or 系统推荐 and, except for Reveal, not on the user's intent:

* before any 系统提问 or 系统推荐, or the first turn with keywords if its intent is Reveal -> 用户需求;
* after a 系统提问 -> 用户回答; after a 系统推荐 -> 用户反馈.

Attributes of a Clarify turn: its clarifying_attribute. "Price: $25 to $50" is attribute "Price", value "$25 to $50";
"Brand" and the blank form "Price: $        $" are attributes without a value.

Attributes of a user turn: the keywords that no earlier turn of the user has, ignoring case and blanks; PSCon's annotators
repeat old ones. The attribute is the one that the system asked about since the user's last turn. If it asked about none or
several, PSCon does not say which one a keyword answers, and the attribute is ``Keyword``.

Values are the annotators' words with single blanks. ";" becomes "," and a colon before a blank becomes " - ", because ";" and
":" separate attributes and values in the English prompts. The span is the first place where the message has the annotators'
words, in upper or lower case, else -1,-1.

Recommendations: recommended_products, each with itself and the turn's search results as candidates. Titles are the only
knowledge (relation ``Title``) and exist for products that were recommended at some time. Search results without a title are
left out: a candidate without knowledge could not be the answer, and so would help to guess it. PSCon has no categories, so the
only domain is ``Shopping``.

PSCon names no shop, shopper or time. The seller is ``pscon``, the user is the conversation, and the times only keep the
order of the messages, one minute apart. PSCon publishes no behaviour before a dialogue. The likes at a dialogue's end come
after everything that is predicted, so they are left out. ``losses`` counts what the mapping drops.
"""

import hashlib
import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.folders import data_files, data_folder
from llmcrs_utils.corpus.joins import count_join, side
from llmcrs_utils.corpus.reading import is_blank
from llmcrs_utils.corpus.schema import (
    BEHAVIOUR_COLUMNS,
    KNOWLEDGE_COLUMNS,
    SPLITS,
    TIME_TYPE,
    Attribute,
    Corpus,
    CorpusError,
    Dialogue,
    Name,
    Record,
    Utterance,
    read_records,
)

FILE = "conversation_en.json"
DOMAIN = "Shopping"
SELLER = "pscon"
KEYWORD = "Keyword"  # attribute of a keyword that answers no single question
TITLE = "Title"
START = datetime(2000, 1, 1)  # clearly not a time of the conversations
SYSTEM_ACTS = {
    "Clarify": "系统提问",
    "Recommend": "系统推荐",
    "Chitchat": "系统解释",
    "No answer": "系统解释",
    "Inquire": "系统解释",
}


class Product(Record):
    product_id: Name
    product_title: str = ""


# The search results of some turns are bare ids.
Found = Annotated[Product, BeforeValidator(lambda value: value if isinstance(value, dict) else {"product_id": value})]


class Message(Record):
    """One message as PSCon publishes it."""

    role: Literal["user", "system"]
    content: str
    intent: Literal["Reveal", "Interpret", "Revise", "Inquire", "Chitchat"] | None = None
    action: Literal["Clarify", "Recommend", "Chitchat", "No answer", "Inquire"] | None = None
    keywords: list[str] = []
    clarifying_attribute: list[str] = []
    search_results: list[Found] = []
    recommended_products: list[Product] = []
    user_rating: list[dict] = []

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
    seed: int = 1,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    encoding: str = "utf-8",
    report: Report | None = None,
) -> Corpus:
    """Read the English part of PSCon, split by conversation into train, valid and test.

    The split of a conversation depends only on ``seed`` and its id, so a new conversation moves no other.

    Args:
        folder: a clone of the repository, or any folder that holds one ``conversation_en.json`` at some depth.
        seed: seed of the split.
        shares: shares of train, valid and test; they add up to 1.
        encoding, report: as for ``read_corpus`` of ``u_need``.

    Raises:
        CorpusError: names what is missing, present twice or broken, and the remedy.
        ValueError: for shares that are not three or do not add up to 1.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
        raise ValueError(f"shares {shares} are not three shares of 1, for {', '.join(SPLITS)}")
    conversations = read_conversations(folder, encoding, report)
    knowledge = knowledge_of(conversations)
    titled = set(knowledge["item_id_encrypt"])
    dialogues = {split: [] for split in SPLITS}
    for conversation in conversations:
        dialogues[split_of(conversation.conv_id, seed, shares)].append(to_dialogue(conversation, titled))
    behaviour = pd.DataFrame([], columns=BEHAVIOUR_COLUMNS, dtype=str).astype({"actime": TIME_TYPE})
    return Corpus(dialogues, knowledge, behaviour)


def read_conversations(folder: str | Path, encoding: str = "utf-8", report: Report | None = None) -> list[Conversation]:
    report = Report() if report is None else report
    folder = data_folder(folder)
    paths = conversation_files(folder)
    if not paths:
        raise CorpusError(f"{folder}: no {FILE} at any depth; clone https://github.com/JieZouIR/PSCon and give its folder")
    if len(paths) > 1:
        raise CorpusError(f"{folder}: {FILE} is there more than once ({', '.join(map(str, paths))}); give the folder of one")
    conversations = read_records(paths[0], Conversation, "conv_id", encoding, report)
    count_pscon_joins(conversations, paths[0], report)
    report.finish()
    return conversations


def conversation_files(folder: Path) -> list[Path]:
    """The files from which PSCon is read. A folder in order has exactly one."""
    return data_files(folder, FILE, deep=True)


def count_pscon_joins(conversations: list[Conversation], file: Path, report: Report) -> None:
    """Count in ``report`` how many recommended or found products have a title, which is all the knowledge there is of them."""
    messages = [message for conversation in conversations for message in conversation.conversation]
    recommended = side("recommended products", (product.product_id for m in messages for product in m.recommended_products))
    found = side("found products", (product.product_id for m in messages for product in m.search_results))
    titled = side("products with a title", knowledge_of(conversations)["item_id_encrypt"])
    count_join(report, file, recommended, titled)
    count_join(report, file, found, titled)


def split_of(conv_id: str, seed: int, shares: tuple[float, float, float]) -> str:
    digest = hashlib.sha256(f"{seed}:{conv_id}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < shares[0]:
        return "train"
    return "valid" if point < shares[0] + shares[1] else "test"


def to_dialogue(conversation: Conversation, titled: set[str]) -> Dialogue:
    """The conversation in the internal format, by the rules at the top of this module. ``titled``: the products with a title."""
    utterances = []
    known, asked = set(), []  # keywords so far; attributes asked about since the user's last turn
    last_act = None  # the last 系统提问 or 系统推荐
    for seq_no, message in enumerate(conversation.conversation, start=1):
        common = {"seq_no": seq_no, "time": START + timedelta(minutes=seq_no), "send_content": message.content}
        if message.role == "system":
            act = SYSTEM_ACTS[message.action]
            named = [entry for entry in message.clarifying_attribute if not is_blank(entry.partition(":")[0])]
            attributes = [clarified(entry, message.content) for entry in named]
            asked += [attribute.key for attribute in attributes]
            last_act = last_act if act == "系统解释" else act
            items = unique(product.product_id for product in message.recommended_products)
            results = [product.product_id for product in message.search_results if product.product_id in titled]
            utterance = Utterance(
                **common,
                sender_type="客服",
                act_tag=act,
                attributes=attributes,
                rec_item_id=items,
                rec_item_candidates=[unique([*results, item]) for item in items],
            )
        else:
            new = new_keywords(message.keywords, known)
            reveals = message.intent == "Reveal" and not known and bool(new)
            name = asked[0] if len(set(asked)) == 1 else KEYWORD
            utterance = Utterance(
                **common,
                sender_type="用户",
                act_tag="用户需求" if last_act is None or reveals else "用户回答" if last_act == "系统提问" else "用户反馈",
                attributes=[attribute_of(name, keyword, message.content) for keyword in new],
            )
            known.update(map(normal, new))
            asked = []
        utterances.append(utterance)
    return Dialogue(
        domain=DOMAIN,
        sid=conversation.conv_id,
        sellerid=SELLER,
        userid=conversation.conv_id,
        ds=f"{START:%Y%m%d}",
        dialogue=utterances,
    )


def clarified(entry: str, text: str) -> Attribute:
    """The attribute of a clarifying question: ``"Price: $25 to $50"`` has a value, the blank form ``"Price: $   $"`` has none."""
    name, _, value = entry.partition(":")
    return attribute_of(name, "" if not value.strip("$ ") else value, text)


def attribute_of(name: str, value: str, text: str) -> Attribute:
    value = value.strip()
    place = re.search(re.escape(value), text, re.IGNORECASE) if value else None
    start, end = place.span() if place else (-1, -1)
    return Attribute(key=without_separators(name), value=without_separators(value), start=start, exclusive_end=end)


def without_separators(text: str) -> str:
    text = " ".join(text.replace(";", ",").split()).rstrip(" :")
    return re.sub(" ?: ", " - ", text)


def new_keywords(keywords: list[str], known: set[str]) -> list[str]:
    by_form = {}
    for keyword in keywords:
        by_form.setdefault(normal(keyword), keyword)
    return [keyword for form, keyword in by_form.items() if not is_blank(form) and form not in known]


def normal(text: str) -> str:
    return " ".join(text.casefold().split())


def unique(items) -> list[str]:
    return list(dict.fromkeys(items))


def knowledge_of(conversations: list[Conversation]) -> pd.DataFrame:
    """The title of each recommended product; if it has several, the first."""
    titles = {}
    for conversation in conversations:
        for message in conversation.conversation:
            for product in message.recommended_products:
                title = " ".join(product.product_title.split())
                if not is_blank(title):
                    titles.setdefault(product.product_id, title)
    rows = [(item, SELLER, TITLE, title) for item, title in titles.items()]
    return pd.DataFrame(rows, columns=KNOWLEDGE_COLUMNS, dtype=str)


def losses(folder: str | Path, encoding: str = "utf-8", bad_records: str = "stop") -> pd.DataFrame:
    """What ``read_pscon`` drops or cannot know. Columns ``what``, ``count`` and ``of`` (how many there were)."""
    conversations = read_conversations(folder, encoding, Report(bad_records))
    messages = [message for conversation in conversations for message in conversation.conversation]
    titled = set(knowledge_of(conversations)["item_id_encrypt"])
    utterances = [utterance for conversation in conversations for utterance in to_dialogue(conversation, titled).dialogue]
    users = [message for message in messages if message.role == "user"]
    systems = [message for message in messages if message.role == "system"]
    recommends = [message for message in systems if message.action == "Recommend"]
    spoken = [attribute for u in utterances if u.sender_type == "用户" for attribute in u.attributes]
    offered = [attribute for u in utterances if u.sender_type == "客服" for attribute in u.attributes if attribute.value]
    by_users = sum(len(message.keywords) for message in users)
    by_systems = sum(len(message.keywords) for message in systems)
    found = {product.product_id for message in systems for product in message.search_results}
    ratings = sum(len(message.user_rating) for message in messages)
    other_intents = [message for message in users if message.intent in ("Chitchat", "Inquire", "Revise")]
    explanations = [message for message in systems if SYSTEM_ACTS[message.action] == "系统解释"]
    empty = [message for message in recommends if not message.recommended_products]
    rows = [
        ("user keywords that repeat an earlier one: dropped", by_users - len(spoken), by_users),
        ("keywords on a system turn: dropped", by_systems, by_users + by_systems),
        ("kept keywords that do not stand in the text: no span", sum(a.start < 0 for a in spoken), len(spoken)),
        (f"kept keywords whose attribute is unknown: {KEYWORD}", sum(a.key == KEYWORD for a in spoken), len(spoken)),
        ("values offered by the system, not in the text: no span", sum(a.start < 0 for a in offered), len(offered)),
        ("found products without a title: no candidates", len(found - titled), len(found)),
        ("recommendations without a product: nothing to predict", len(empty), len(recommends)),
        ("user ratings, given after the dialogue: dropped", ratings, ratings),
        ("user turns of intent Chitchat, Inquire or Revise: no act of their own", len(other_intents), len(users)),
        ("system turns of action Chitchat, No answer or Inquire: all 系统解释", len(explanations), len(systems)),
    ]
    return pd.DataFrame(rows, columns=["what", "count", "of"])
