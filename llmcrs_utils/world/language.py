"""The phrases of shoppers and desks around the words of a category, and how a line with exact spans is built from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from llmcrs_utils.world.category import WorldAttribute


@dataclass(frozen=True)
class Mention:
    """A word and the attribute under which it is annotated. ``may_be`` holds the share of each attribute, where several are possible."""

    key: str
    word: str = ""  # "" where a question names an attribute but no value
    may_be: dict[str, float] | None = None


Line = list[str | Mention]

# --- the shopper ---

OPENINGS = (
    "有{}推荐吗", "想买{}", "{}有什么推荐的", "帮我推荐一款{}", "你们店有{}吗", "想看看{}", "在吗，想买{}", "你好，有没有{}", "麻烦推荐下{}",
    "{}哪款好", "想入手{}，求推荐", "最近想买{}", "{}怎么选", "有没有好一点的{}", "请问{}有推荐的吗", "我要买{}",
)  # fmt: skip
OPENINGS_WITHOUT_KIND = ("{}，有什么推荐吗", "{}，推荐一款", "推荐一款吧，{}", "{}，哪款合适", "你好，{}", "{}，帮我看看")
INDIFFERENT = ("都可以", "没什么要求", "随便", "都行", "你推荐吧", "这个无所谓", "没有特别要求", "你帮我看着选吧", "不挑")
YES_WORDS = ("嗯", "嗯嗯", "嗯呢", "恩恩", "嗯对")
NO_WORDS = ("不，", "")
ACCEPT = (
    "好的，我看看", "可以，就这款吧", "这个不错", "行，我拍下了", "好的谢谢", "挺好的，我先收藏", "嗯，看着可以", "好，那我下单了", "OK，谢谢",
)  # fmt: skip
ANOTHER = ("还有别的吗", "还有没有其他款", "再推荐几款看看", "不太喜欢这款，还有吗", "这款一般，换一款吧", "有没有别的可以看看")
BEFORE_ANSWER = ("",) * 16 + ("嗯，", "额，", "嗯嗯，", "我想想，", "就", "那就")
AFTER_ANSWER = ("",) * 14 + ("吧", "哈", "，谢谢")
AFTER_OTHERS = ("",) * 20 + ("，谢谢",)
JOINTS = ("，", "，", " ")

# --- the desk ---

TWO_QUESTIONS = (
    "请问{}和{}有什么要求呢", "方便说下{}和{}吗", "您对{}和{}有要求吗", "{}和{}您怎么考虑呢", "麻烦说一下{}以及{}",
)  # fmt: skip
BEFORE_DESK = ("",) * 8 + ("亲，", "亲亲，", "亲亲，", "好的亲，", "好的呢，", "嗯嗯，", "亲爱的，")
AFTER_QUESTION = ("",) * 10 + ("亲", "亲亲", "~", "/:065", "/:065", "？", "，我帮您看看", "，小二好给您推荐")
AFTER_STATEMENT = ("",) * 6 + ("哦", "呢", "哦亲", "的呢", "哦~", "~", "/:065", "，您看看喜欢吗", "，可以看看哦", "哈")
LINK_TEXTS = ("您看看这款", "这款您看下", "亲可以看看这个", "给您推荐这款", "这边推荐您看一下这款", "链接发您了，看看喜欢吗")
LINK_TEXTS_OF_TWO = ("这两款您看下", "给您推荐这两款", "这两款都可以看看")
EXPLANATIONS = ("这款{}", "您看看这款，{}", "推荐这款，{}", "这个{}", "这款卖得很好，{}", "可以看下这款，{}")
AS_ASKED = ("按您说的，这款{}", "按您的要求，这款{}")  # where the first reason is a need
EXPLANATIONS_OF_TWO = ("这两款都{}", "您看看这两款，都{}", "两款都{}")
FURTHER = ("而且{}", "另外{}", "同时{}", "并且{}")
PLAIN_EXPLANATIONS = (
    "这款是店里的热卖款", "这款卖得很好", "您看看这款喜欢吗", "这款很多顾客回购", "这款性价比不错", "这是我们家的爆款", "这款评价很高",
)  # fmt: skip
PLAIN_EXPLANATIONS_OF_TWO = ("这两款您都可以看看", "这两款卖得都很好", "这两款都是热卖款")
CONFIRMED = ("是的亲，这款{}", "没错亲，这款{}", "对的亲亲，这款{}", "嗯嗯，这款{}", "是的呢，{}")
DENIED = ("这款{}哦亲", "不好意思亲，这款{}", "这款{}呢，您再看看别的", "亲，这款{}呢", "抱歉亲亲，这款{}哦")

# Characters that a hurried shopper's input method gets wrong.
SLIPS = {
    "的": "得地", "吗": "嘛马", "买": "卖", "在": "再", "那": "哪", "想": "像", "需": "须", "款": "宽", "点": "店", "用": "永", "要": "药",
    "看": "砍", "适": "试", "有": "又", "给": "跟", "这": "着", "大": "打", "左": "做", "油": "由", "质": "制", "色": "涩", "声": "生",
    "轻": "清", "皮": "疲", "机": "鸡", "牌": "排", "码": "马", "脚": "角", "厚": "后", "暖": "软", "防": "放", "百": "白", "千": "前", "省": "生",
}  # fmt: skip


def fill(template: str, *words: str | Mention | Line) -> Line:
    """The parts of ``template``, with ``words`` in place of its ``{}``."""
    texts = template.split("{}")
    parts: Line = [texts[0]]
    for word, text in zip(words, texts[1:], strict=True):
        parts += [*word, text] if isinstance(word, list) else [word, text]
    return [part for part in parts if part != ""]


def joined(lines: Sequence[Line], joint: str) -> Line:
    return [part for line in lines for part in [joint, *line]][1:]


def spoken(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.word for part in line)


def word_for(rng: Random, attribute: WorldAttribute, value: str, vocabulary_gap: float) -> str:
    """A shopper's word for a catalogue value: the nearest one, or a paraphrase with probability ``vocabulary_gap``."""
    near, *others = attribute.words[value]
    far, chance = rng.choice(others or [near]), rng.random()  # both drawn always, so that the gap moves no other draw
    return far if chance < vocabulary_gap else near


def as_shopper(rng: Random, line: Line, answers: bool) -> Line:
    """A line with the fillers that shoppers add; answers to questions have other fillers."""
    before, after, text = rng.choice(BEFORE_ANSWER), rng.choice(AFTER_ANSWER if answers else AFTER_OTHERS), spoken(line)
    if not answers or (before in ("就", "那就") and not text.startswith(("要", "看"))) or text.startswith(("嗯", "不", "是", "对")):
        before = ""
    if after and (len(text) < 3 or text[-1] in "吧吗么嘛呢了哈谢"):
        after = ""
    return [part for part in [before, *line, after] if part != ""]


def as_desk(rng: Random, line: Line, endings: tuple[str, ...], greets: bool = True) -> Line:
    """A line with the courtesies of a service desk; without ``greets`` only at its end."""
    before, after, text = rng.choice(BEFORE_DESK), rng.choice(endings), spoken(line)
    if not greets or "亲" in text or text.startswith(("您好", "好的", "嗯", "是的", "对的", "可以的", "不好意思")):
        before = ""
    if "亲" in after and ("亲" in before or "亲" in text):
        after = ""
    if after and (text[-1] in "哦呢~亲哈" or (after.startswith("的") and text.endswith("的"))) and after[0] in "哦呢亲哈的~":
        after = "" if text[-1] in "哦~亲哈" else after.lstrip("哦呢亲哈的")
    return [part for part in [before, *line, after] if part != ""]


def with_slips(rng: Random, line: Line, typo_rate: float) -> Line:
    """A line with typing errors: each character that can slip does so with ``typo_rate``. A mention's word is the word as typed."""
    found: Line = []
    for part in line:
        text = part if isinstance(part, str) else part.word
        typed = ""
        for character in text:
            others = SLIPS.get(character)
            slips = others is not None and rng.random() < typo_rate
            typed += rng.choice(others) if slips else character
        found.append(typed if isinstance(part, str) else Mention(part.key, typed, part.may_be))
    return found
