"""Describes a corpus: its turns, acts, attributes, behaviour and catalogue. Draws a dialogue as chat bubbles."""

import html
import json
from itertools import groupby
from pathlib import Path

import pandas as pd

from llmcrs_utils.corpus.schema import SPLITS, Corpus, Dialogue
from llmcrs_utils.corpus.u_need import DIALOGUES_BY_CATEGORY

# Sizes of U-NEED: dialogues per category from Liu et al. (EMNLP 2023 Findings), section 4.1, the rest from its release.
U_NEED = {
    "dialogues": DIALOGUES_BY_CATEGORY,
    "items": 69_000,  # rounded
    "knowledge tuples": 332_148,
    "actions": 333_879,
    "split": (0.90, 0.05, 0.05),
}
ACTS = {"用户需求": "need", "系统提问": "ask", "用户回答": "answer", "系统推荐": "recommend", "系统解释": "explain", "用户反馈": "feedback"}
ALL_CATEGORIES = "all"


def u_need_examples() -> list[Dialogue]:
    """The three whole dialogues that U-NEED's authors publish (github.com/LeeeeoLiu/U-NEED, MIT licence)."""
    return [Dialogue.model_validate(record) for record in json.loads(Path(__file__).with_name("u_need_examples.json").read_text("utf-8"))]


def every_dialogue(corpus: Corpus) -> list[Dialogue]:
    return [dialogue for split in SPLITS for dialogue in corpus.dialogues[split]]


def beside_u_need(corpus: Corpus, name: str) -> pd.DataFrame:
    """The sizes of a corpus in column ``name``, and the published sizes of U-NEED in a second column."""
    counts = pd.Series([dialogue.domain for dialogue in every_dialogue(corpus)]).value_counts()
    split = [len(corpus.dialogues[part]) for part in SPLITS]
    published = U_NEED["dialogues"]
    ours = {f"dialogues, {domain}": int(counts.get(domain, 0)) for domain in {**published, **counts}}
    ours |= {"dialogues": sum(split)}
    ours |= {"train, valid, test": ", ".join(f"{part / sum(split):.0%}" for part in split)}
    ours |= {"items": corpus.knowledge["item_id_encrypt"].nunique()}
    ours |= {"knowledge tuples": len(corpus.knowledge), "actions": len(corpus.behaviour)}
    theirs = {f"dialogues, {domain}": count for domain, count in published.items()}
    theirs |= {"dialogues": sum(published.values()), "train, valid, test": ", ".join(f"{part:.0%}" for part in U_NEED["split"])}
    theirs |= {"items": f"about {U_NEED['items']}", "knowledge tuples": U_NEED["knowledge tuples"], "actions": U_NEED["actions"]}
    return pd.DataFrame({name: pd.Series(ours, dtype=object), "U-NEED": pd.Series(theirs, dtype=object)}).reindex(list(ours)).fillna("–")


def readable(table: pd.DataFrame, name: str, digits: int = 3) -> pd.DataFrame:
    """The table for display: rounded, whole numbers without decimals, ``name`` as the heading of its columns."""
    def cell(value):
        if not isinstance(value, float) or value != value:
            return value
        return int(value) if value == int(value) else round(value, digits)

    return pd.DataFrame({column: pd.Series(map(cell, table[column]), table.index, dtype=object) for column in table}).rename_axis(
        name, axis=1
    )


def domains_of(domains: pd.Series) -> list[str]:
    """The categories that occur: U-NEED's in its own order, then others in order of appearance."""
    return [name for name in {**U_NEED["dialogues"], **dict.fromkeys(domains)} if name in set(domains)]


def utterance_table(dialogues: list[Dialogue]) -> pd.DataFrame:
    """One row per utterance: ``sid, domain, act, by_user, characters, values, asked, offered, items``.

    ``values`` counts the attributes annotated with words. ``asked`` counts those annotated without a word, which the desk asks
    for. ``offered`` is true for a question that names words.
    """
    rows = [
        (
            dialogue.sid,
            dialogue.domain,
            ACTS[utterance.act_tag],
            utterance.sender_type == "用户",
            len(utterance.send_content),
            sum(attribute.value != "" for attribute in utterance.attributes),
            sum(attribute.value == "" for attribute in utterance.attributes),
            utterance.act_tag == "系统提问" and any(attribute.value for attribute in utterance.attributes),
            len(utterance.rec_item_id),
        )
        for dialogue in dialogues
        for utterance in dialogue.dialogue
    ]
    columns = ["sid", "domain", "act", "by_user", "characters", "values", "asked", "offered", "items"]
    return pd.DataFrame(rows, columns=columns)


def dialogue_statistics(dialogues: list[Dialogue]) -> pd.DataFrame:
    """Sizes and shares. One column per category, then ``ALL_CATEGORIES``."""
    table, attributes = utterance_table(dialogues), attribute_table(dialogues)
    columns = {}
    for name in [*domains_of(table["domain"]), ALL_CATEGORIES]:
        part = table if name == ALL_CATEGORIES else table[table["domain"] == name]
        named = attributes if name == ALL_CATEGORIES else attributes[attributes["domain"] == name]
        count, questions = part["sid"].nunique(), part[part["act"] == "ask"]
        columns[name] = {
            "dialogues": count,
            "utterances per dialogue": len(part) / count,
            "characters per utterance": part["characters"].mean(),
            "annotated words per shopper's utterance": part.loc[part["by_user"], "values"].mean(),
            "attributes in use": named["key"].nunique(),
            "different annotated words": named.loc[named["value"] != "", ["key", "value"]].drop_duplicates().shape[0],
            "questions that name words": questions["offered"].mean(),
            "questions about several attributes": (questions["asked"] > 1).mean(),
            "items recommended per dialogue": part["items"].sum() / count,
            **{f"share of {act}": (part["act"] == act).mean() for act in ACTS.values()},
        }
    return pd.DataFrame(columns)


def attribute_table(dialogues: list[Dialogue]) -> pd.DataFrame:
    """One row per annotation: ``domain, act, key, value``."""
    rows = [
        (dialogue.domain, ACTS[utterance.act_tag], attribute.key, attribute.value)
        for dialogue in dialogues
        for utterance in dialogue.dialogue
        for attribute in utterance.attributes
    ]
    return pd.DataFrame(rows, columns=["domain", "act", "key", "value"])


def frequent_attributes(dialogues: list[Dialogue], attributes: int = 5, words: int = 6) -> pd.DataFrame:
    """For each category the most frequent attributes, their share of its annotations, and their commonest words.

    Args:
        attributes: how many attributes per category.
        words: how many words per attribute.
    """
    table = attribute_table(dialogues)
    rows = []
    for domain in domains_of(table["domain"]):
        part = table[table["domain"] == domain]
        for key, share in part["key"].value_counts(normalize=True).head(attributes).items():
            used = part.loc[(part["key"] == key) & (part["value"] != ""), "value"].value_counts()
            rows.append((domain, key, share, len(used), " ".join(used.index[:words])))
    return pd.DataFrame(rows, columns=["category", "attribute", "share", "different words", "commonest words"])


def act_sequences(dialogues: list[Dialogue], top: int = 10) -> pd.DataFrame:
    """The ``top`` most frequent sequences of acts.

    A repeated act counts once, and an explanation right after a recommendation counts as part of it.
    """
    sequences = []
    for dialogue in dialogues:
        acts = [act for act, _ in groupby(ACTS[utterance.act_tag] for utterance in dialogue.dialogue)]
        merged = [act for before, act in zip(["", *acts], acts) if (before, act) != ("recommend", "explain")]
        sequences.append(" – ".join(act for act, _ in groupby(merged)))
    counts = pd.Series(sequences).value_counts()
    table = counts.head(top).rename_axis("sequence of acts").rename("dialogues").reset_index()
    return table.assign(share=table["dialogues"] / len(dialogues))


def behaviour_statistics(corpus: Corpus) -> pd.DataFrame:
    """Shoppers' actions before their dialogue. One column per category, then ``ALL_CATEGORIES``.

    Rows: mean and quartiles per dialogue, the share of shoppers without actions, and the share of actions at other sellers.
    """
    starts = pd.DataFrame(
        [(d.userid, d.sellerid, d.domain, d.dialogue[0].time) for d in every_dialogue(corpus)],
        columns=["user_id_encrypt", "home", "domain", "start"],
    )
    starts["visit"] = range(len(starts))
    actions = corpus.behaviour.merge(starts, on="user_id_encrypt")
    before = actions[actions["actime"] < actions["start"]]
    lengths = before.groupby("visit").size().reindex(starts["visit"], fill_value=0)
    elsewhere = before["seller_id_encrypt"] != before["home"]
    columns = {}
    for name in [*domains_of(starts["domain"]), ALL_CATEGORIES]:
        counts = lengths[(starts["domain"] == name).to_numpy() | (name == ALL_CATEGORIES)]
        columns[name] = {
            "actions before the dialogue, mean": counts.mean(),
            **{f"quartile {place}": counts.quantile(place / 4) for place in (1, 2, 3)},
            "shoppers without any": (counts == 0).mean(),
            "actions at other sellers": elsewhere[(before["domain"] == name) | (name == ALL_CATEGORIES)].mean(),
        }
    return pd.DataFrame(columns)


def catalogue_statistics(corpus: Corpus) -> pd.Series:
    """How well the catalogue describes its items, and how shoppers' actions and relations are spread over them."""
    per_item = corpus.knowledge.groupby("item_id_encrypt", sort=False).size()
    views = corpus.behaviour["item_id_encrypt"].value_counts()
    top = views.head(max(1, len(per_item) // 10)).sum() / max(1, views.sum())
    return pd.Series(
        {
            "items": len(per_item),
            "sellers": corpus.knowledge["seller_id_encrypt"].nunique(),
            "knowledge tuples": len(corpus.knowledge),
            "relations": corpus.knowledge["relation_name"].nunique(),
            "tuples per item, mean": per_item.mean(),
            "items with two tuples or fewer": (per_item <= 2).mean(),
            "items with seven or more": (per_item >= 7).mean(),
            "actions": len(corpus.behaviour),
            "shoppers with behaviour": corpus.behaviour["user_id_encrypt"].nunique(),
            "share of actions on the most visited tenth": top,
        },
        name="catalogue and behaviour",
    )


# --- a dialogue as chat bubbles ---

_COLOURS = ("#cfe8ff", "#ffe1b3", "#d6f0d0", "#f3d1f4", "#ffd1d1", "#e4e0ff", "#fff3a6", "#c9f0ec", "#e6d8c8", "#dddddd")
_PAGE = (
    '<div style="max-width:760px;font-size:14px;line-height:1.5;color:#111;background:#f7f7f8;border:1px solid #ddd;border-radius:8px;'
    'padding:10px 14px;margin:8px 0">{}</div>'
)
_LINE = '<div style="display:flex;justify-content:{side};margin:4px 0"><div style="max-width:78%">{about}{bubble}</div></div>'
_ABOUT = '<div style="font-size:11px;color:#666;text-align:{side}">{text}</div>'
_BUBBLE = '<div style="background:{colour};border:1px solid #e0e0e0;border-radius:10px;padding:5px 10px">{text}</div>'
_MARK = '<mark style="background:{colour};color:#111;padding:0 2px;border-radius:3px">{word}<sub style="color:#555;font-size:9px"> {key}</sub></mark>'


def html_text(text: str) -> str:
    """``text`` escaped so that a notebook shows it literally: no tags, and no formula between two dollar signs."""
    return html.escape(text).replace("$", "<span>$</span>")


def render_dialogue(dialogue: Dialogue, note: str) -> str:
    """A dialogue as HTML chat bubbles.

    The desk is on the left, the shopper on the right, and annotated words have the colour of their attribute.
    """
    keys = list(dict.fromkeys(a.key for utterance in dialogue.dialogue for a in utterance.attributes))
    colour = {key: _COLOURS[place % len(_COLOURS)] for place, key in enumerate(keys)}
    lines = [f'<div style="font-size:12px;color:#666">{html_text(f"{dialogue.domain} · {note}")}</div>']
    for utterance in dialogue.dialogue:
        text, end, elsewhere = "", 0, []
        for attribute in sorted(utterance.attributes, key=lambda a: a.start):
            mark = _MARK.format(colour=colour[attribute.key], word=html_text(attribute.value or "?"), key=html_text(attribute.key))
            if attribute.value and attribute.start >= end:
                text += html_text(utterance.send_content[end : attribute.start]) + mark
                end = attribute.exclusive_end
            else:  # without a word, or not in the text, or inside another word
                elsewhere.append(mark)
        text += html_text(utterance.send_content[end:]) + "".join(elsewhere)
        text += "".join(f' <span style="color:#06c">▶ {html_text(item)}</span>' for item in utterance.rec_item_id)
        by_user = utterance.sender_type == "用户"
        side, about = ("right", "flex-end") if by_user else ("left", "flex-start")
        about_text = _ABOUT.format(side=side, text=f"{utterance.time:%H:%M:%S} · {utterance.act_tag}")
        bubble = _BUBBLE.format(colour="#dcf5d0" if by_user else "#ffffff", text=text)
        lines.append(_LINE.format(side=about, about=about_text, bubble=bubble))
    return _PAGE.format("".join(lines))
