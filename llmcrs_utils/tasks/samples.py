"""Dialogues -> task samples (paper section 3.3 and appendix A): one row for each answer that a system has to give."""

import warnings
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd

from llmcrs_utils.corpus.reading import is_blank
from llmcrs_utils.corpus.schema import LINK_ONLY, SPLITS, TIME_TYPE, Corpus, CorpusError, Dialogue, making_many_objects, same_turn
from llmcrs_utils.tasks.candidates import CANDIDATES, Catalogue
from llmcrs_utils.text.prompts import Prompts, parse_needs

# The segments of earlier turns that a task may see; other annotation is hidden from it.
VISIBLE = {
    "understand": ("[user]", "[system]", "[understand]"),
    "elicit": ("[user]", "[elicit]", "[system]", "[understand]"),
    "recommend": ("[user]", "[recommend]", "[system]", "[understand]"),
    "respond": ("[user]", "[system]", "[understand]"),
}


# Which recommendations are right answers: those that their shopper liked in the end, or all. "liked" asks what only some
# corpora know; where an utterance has no verdicts (``rec_item_verdict``), all its items count.
GOLD = ("liked", "all")


@dataclass
class Turn:
    """Consecutive utterances with the same act. An explanation right after a recommendation belongs to its turn."""

    act: str
    seq_no: int
    time: datetime
    texts: list[str] = field(default_factory=list)
    needs: list[tuple[str, str]] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    candidates: dict[str, list[str]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)  # of the items whose utterance has verdicts

    @property
    def by_user(self) -> bool:
        return self.act.startswith("用户")

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    @property
    def attributes(self) -> list[str]:
        """Attributes in order of first mention, each once."""
        return list(dict.fromkeys(key for key, _ in self.needs))

    @property
    def spoken(self) -> str:
        """The segment of what was said."""
        return ("[user]" if self.by_user else "[system]") + self.text

    def needs_text(self, prompts: Prompts) -> str:
        return prompts.items.join(f"{key}{prompts.pair}{value}" for key, value in self.needs)

    def closing(self, prompts: Prompts) -> list[str]:
        """The segment that names the content of a reply: the attributes to ask about or the items to recommend."""
        if self.act == "系统提问":
            return ["[elicit]" + prompts.items.join(self.attributes)]
        if self.act == "系统推荐":
            return ["[recommend]" + prompts.items.join(self.items)]
        return []

    def segments(self, prompts: Prompts) -> list[str]:
        """All segments of the turn, as later turns see them."""
        return [*self.closing(prompts), self.spoken, "[understand]" + self.needs_text(prompts)]


def merge_turns(dialogue: Dialogue) -> list[Turn]:
    """The turns of a dialogue, in order."""
    turns: list[Turn] = []
    previous_act = ""
    for utterance in dialogue.dialogue:
        act = utterance.act_tag
        if not same_turn(previous_act, act):
            turns.append(Turn(act, utterance.seq_no, utterance.time))
        previous_act = act
        turn = turns[-1]
        text = utterance.send_content
        turn.texts.append(text if turn.by_user else text.replace(LINK_ONLY, ""))
        turn.needs.extend((a.key, a.value) for a in utterance.attributes)
        for position, item in enumerate(utterance.rec_item_id):
            if item not in turn.items:
                turn.items.append(item)
                if utterance.rec_item_candidates:
                    turn.candidates[item] = utterance.rec_item_candidates[position]
                if utterance.rec_item_verdict:
                    turn.verdicts[item] = utterance.rec_item_verdict[position]
    return turns


def visible_segments(task: str, segments: list[list[str]]) -> list[list[str]]:
    """Of each turn's segments those that a task may see."""
    return [[segment for segment in turn if segment.startswith(VISIBLE[task])] for turn in segments]


def up_to_question(task: str, before: list[list[str]], current: list[str]) -> tuple[list[list[str]], list[str]]:
    """``context`` and ``current`` of a sample, from the visible segments of the turns before it and those of its own turn.

    The utterance that a system answers must never be cut. Where the task answers the turn before, that turn is therefore part of ``current``.
    """
    if task == "understand" or not before:
        return before, current
    return before[:-1], before[-1] + current


def dialogue_samples(dialogue: Dialogue, prompts: Prompts, gold: str = "liked") -> list[dict]:
    """All task samples of a dialogue, by task, then by turn; candidates as the corpus gives them. ``gold``: one of ``GOLD``."""
    turns = merge_turns(dialogue)
    segments = [turn.segments(prompts) for turn in turns]
    visible = {task: visible_segments(task, segments) for task in VISIBLE}
    samples = []

    def add(task: str, index: int, current: list[str], label: str, **extra):
        before, current = up_to_question(task, visible[task][:index], current)
        turn = turns[index]
        name = f"{dialogue.sid}:{turn.seq_no}:{task}" + (f":{label}" if task == "recommend" else "")
        empty = {"asked": [], "items": [], "needs": [], "given": [], "others": [], "disliked": [], "shown": []}
        samples.append(
            {
                "sample_id": name,
                "task": task,
                "sid": dialogue.sid,
                "seq_no": turn.seq_no,
                "time": turn.time,
                "domain": dialogue.domain,
                "told_domain": dialogue.told_domain or dialogue.domain,
                "user_id": dialogue.userid,
                "seller_id": dialogue.sellerid,
                "context": before,
                "current": current,
                "label": label,
                **empty,
                **extra,
            }
        )

    for index, turn in enumerate(turns):
        if turn.needs:
            add("understand", index, [turn.spoken], turn.needs_text(prompts))
    for index, turn in enumerate(turns):
        if turn.act == "系统提问" and turn.needs:
            add("elicit", index, [], prompts.items.join(turn.attributes))
    shown: dict[str, None] = {}  # items of earlier turns
    disliked: dict[str, None] = {}  # items shown so far that the shopper disliked in the end
    for index, turn in enumerate(turns):
        if gold == "liked":
            disliked |= {item: None for item in turn.items if turn.verdicts.get(item) == "disliked"}
        for item in turn.items:
            if gold == "liked" and turn.verdicts.get(item, "liked") != "liked":
                continue
            others = [other for other in turn.items if other != item]
            known = {"given": turn.candidates.get(item, []), "disliked": [other for other in disliked if other != item][1 - CANDIDATES :]}
            add("recommend", index, [], item, others=others, shown=list(shown), **known)
        shown |= dict.fromkeys(turn.items)
    for index, turn in enumerate(turns):
        if not turn.by_user and not is_blank(turn.text):
            add(
                "respond",
                index,
                turn.closing(prompts),
                turn.text,
                asked=turn.attributes if turn.act == "系统提问" else [],
                items=turn.items,
                needs=[pair for earlier in turns[:index] if earlier.by_user for pair in earlier.needs],
            )
    return samples


def can_be_answered(task: str, label: str, prompts: Prompts) -> bool:
    """Whether an answer could be right: a set that holds no attribute once it is taken apart is equal to no answer."""
    return task not in ("understand", "elicit") or bool(parse_needs(label, prompts))


@making_many_objects()
def build_samples(
    corpus: Corpus, catalogue: Catalogue, prompts: Prompts, max_history: int = 50, gold: str = "liked", shown_history: bool = False
) -> pd.DataFrame:
    """All task samples of a corpus, one row each.

    Columns: ``sample_id`` (unique), ``split``, ``task``, ``sid``, ``seq_no``, ``time``, ``domain``, ``user_id``,
    ``seller_id``; ``context`` (one list of CRS segments per earlier turn), ``current`` (segments never cut);
    ``label`` (text; for recommend the gold item id); for recommend ``candidates`` (20 item ids) and ``history``
    (item ids the user acted on before the turn, oldest first, at most ``max_history``); for respond ``asked``
    (attributes), ``items`` (item ids) and ``needs`` ([attribute, value] pairs of the user so far).

    A question that nobody can answer is left out; a warning says how many of each task were.

    Two columns are there only where the corpus has something for them: ``told_domain``, what models read as the domain if that
    is not ``domain``; ``disliked``, the candidates of recommend that the shopper disliked.

    With ``gold="liked"`` only what its shopper liked in the end is a right answer of recommend, in a corpus that has verdicts.
    What the shopper disliked, up to and in that turn, is then among the candidates.

    With ``shown_history`` the items that the dialogue showed before the turn end the ``history``: the shopper saw them, and the
    conversation went on to another recommendation. Whether they were liked, which is said in the end, plays no part.

    Raises:
        CorpusError: if there is no sample at all, or the catalogue holds too few items to choose from.
        ValueError: for another ``gold``.
    """
    if gold not in GOLD:
        raise ValueError(f"gold {gold!r} is unknown; known: {', '.join(GOLD)}")
    rows = [
        {"split": split, **sample}
        for split in SPLITS
        for dialogue in corpus.dialogues[split]
        for sample in dialogue_samples(dialogue, prompts, gold)
    ]
    answerable = [can_be_answered(row["task"], row["label"], prompts) for row in rows]
    if not all(answerable):
        left_out = [row for row, kept in zip(rows, answerable, strict=True) if not kept]
        counts = ", ".join(f"{count} of {task}" for task, count in Counter(row["task"] for row in left_out).items())
        warnings.warn(
            f"samples left out: {counts}; their attributes hold nothing but separators, so that no answer could be right; "
            f"the first one is {left_out[0]['sample_id']}",
            stacklevel=2,
        )
        rows = [row for row, kept in zip(rows, answerable, strict=True) if kept]
    if not rows:
        raise CorpusError("the dialogues hold nothing to ask a system: no need, no question, no recommendation, no reply")
    samples = pd.DataFrame(rows)
    samples = samples.drop(columns=["given", "others", "shown"])
    if (samples["told_domain"] == samples["domain"]).all():
        samples = samples.drop(columns="told_domain")
    if not samples["disliked"].map(bool).any():
        samples = samples.drop(columns="disliked")
    # only the recommend samples have any
    candidates: list[list[str]] = [[] for _ in rows]
    histories: list[list[str]] = [[] for _ in rows]
    wanted = np.flatnonzero(samples["task"] == "recommend")
    for row in wanted:
        candidates[row] = catalogue.candidates(
            *(rows[row][name] for name in ("sid", "seq_no", "label", "seller_id", "given", "others", "disliked"))
        )
    askers = samples.iloc[wanted]
    for row, history in zip(wanted, behaviour_before(corpus, askers["user_id"], askers["time"], max_history), strict=True):
        whole = [*history, *(rows[row]["shown"] if shown_history else [])]
        histories[row] = whole[max(0, len(whole) - max_history) :]
    samples["history"] = histories
    samples["candidates"] = candidates
    return samples


def behaviour_before(corpus: Corpus, users: pd.Series, times: pd.Series, max_history: int) -> list[list[str]]:
    """For each user and time the last ``max_history`` known items that the user acted on before that time, oldest first.

    The items of the product knowledge are known. An item that only dialogues name is left out: it would be in a history only
    because it is recommended somewhere, and would so give an answer away.
    """
    known = corpus.behaviour[corpus.behaviour["item_id_encrypt"].isin(corpus.knowledge["item_id_encrypt"].unique())]
    codes, names = pd.factorize(known["user_id_encrypt"])
    moments = known["actime"].to_numpy(TIME_TYPE)
    order = np.lexsort((moments, codes))  # by user, then by time; otherwise in the given order
    moments, items = moments[order], known["item_id_encrypt"].to_numpy(object)[order]
    first = dict(zip(names, np.searchsorted(codes[order], np.arange(len(names))).tolist(), strict=True))
    last = dict(zip(names, np.searchsorted(codes[order], np.arange(len(names)), side="right").tolist(), strict=True))
    histories = []
    for user, time in zip(users.tolist(), times.to_numpy(TIME_TYPE), strict=True):
        start, end = first.get(user, 0), last.get(user, 0)
        end = start + int(np.searchsorted(moments[start:end], time, side="left"))
        histories.append(items[max(start, end - max_history) : end].tolist())
    return histories
