"""What a message does and what it speaks of, where a chat log does not say it: acts and attributes by rules, from what came before.

Acts of the shop: with items shown 系统推荐; else, if it asks something (``asks``), 系统提问; else 系统解释.

Acts of the customer: the first message, and all before any 系统提问 or 系统推荐, 用户需求; later ones by which of the two came last:
after 系统提问 用户回答, after 系统推荐 用户反馈.

Attributes: the values of the catalogue that the message holds (``Dictionary.find``). Where several columns have a value, it belongs to
the one that the shop asked about since the customer's last message, else to the one that has it most often. Where the shop asks, the
names of columns that it holds are attributes without a value.
"""

import re
from collections import Counter
from collections.abc import Iterable

from llmcrs_utils.corpus.pscon import without_separators
from llmcrs_utils.corpus.schema import Attribute

# A question mark with a letter or digit behind it may belong to an address of the web.
QUESTION_MARK = re.compile(r"？|\?(?![a-zA-Z0-9=&%])")
CHINESE_QUESTION = re.compile(
    r"(?<!没)(?<!没有)什么|哪|吗|多少|多大|多高|多重|(?<![这那])几[个位岁号款]|怎么|怎样|是否|是不是|有没有|要不要|需不需要|么$"
)
ENGLISH_QUESTION = re.compile(
    r"(?:^|[.!:;,\n]\s*)(?:and |so |but |or )?(?:what(?! an? )|which|who|whose|why|how(?! to )|do you|did you|are you|would you|could you|"
    r"can you|will you|have you|is it|is this|is that|any preference)\b"
)
# Values that say something only beside their column.
YES_OR_NO = {"yes", "no", "true", "false", "none", "n/a", "nan", "null", "没有", "支持", "不支持"}
LONGEST_VALUE = 30  # signs; what is longer is a description
LETTER = re.compile(r"[^\W\d_]")
PARTED = "[^\\W_\u2e80-\uffff]"  # letters and digits of scripts that put blanks between words
INSIDE_A_WORD = re.compile(f"(?<={PARTED})(?={PARTED})")
PLURAL = re.compile(f"e?s(?!{PARTED})")
LATIN_PLURAL = re.compile(r"(.*[a-z](?:ss|ch|sh|x))es|(.*[a-z][a-rtv-z])s(?<!is)")
BRACKETS = re.compile(r"[(（\[【].*")


def asks(text: str) -> bool:
    """Whether a message asks something: it has a question mark at the end of a sentence, or a question word.

    Chinese question words count anywhere, English ones where a sentence or a part of one begins.
    """
    lowered = text.casefold()
    return any(form.search(lowered) for form in (QUESTION_MARK, CHINESE_QUESTION, ENGLISH_QUESTION))


def guess_act(by_customer: bool, text: str, items: list[str], last_act: str | None, first: bool) -> str:
    """The act of a message.

    Args:
        items: what the shop shows with it.
        last_act: the last 系统提问 or 系统推荐 before it; ``None`` before any.
        first: whether it is the customer's first one.
    """
    if by_customer:
        return "用户需求" if first or last_act is None else "用户回答" if last_act == "系统提问" else "用户反馈"
    return "系统推荐" if items else "系统提问" if asks(text) else "系统解释"


def guess_attributes(text: str, dictionary: "Dictionary", question: bool, asked: Iterable[str] = ()) -> list[Attribute]:
    """The attributes of a message, each once, in order of mention; values as the message has them.

    Args:
        question: whether names of columns count, as attributes without a value.
        asked: columns that were asked about, which come first where several have a value.
    """
    found, named = {}, {}
    for start, end, form in dictionary.find(text):
        columns = dictionary.values.get(form)
        if columns:
            column = next((column for column in asked if column in columns), columns[0])
            attribute = Attribute(key=column, value=without_separators(text[start:end]), start=start, exclusive_end=end)
            found.setdefault((attribute.key, attribute.value), attribute)
        elif question:
            key = dictionary.names[form]
            named.setdefault(key, Attribute(key=key, value="", start=-1, exclusive_end=-1))
    with_value = {key for key, _ in found}
    return [*found.values(), *(attribute for key, attribute in named.items() if key not in with_value)]


class Dictionary:
    """The words of a catalogue.

    Looked up are values and names of columns of 2 signs or more that hold a letter. Of a name only what stands before a bracket
    counts, and ``_`` is a blank. Left out are values of more than ``LONGEST_VALUE`` signs and those of ``YES_OR_NO``.

    Args:
        cells: (column, value) for each value of each item.
    """

    def __init__(self, cells: Iterable[tuple[str, str]]):
        counts = Counter(cells)
        columns = dict.fromkeys(column for column, _ in counts)
        often: dict[str, Counter] = {}
        for (column, value), count in counts.items():
            form = lowered(value)
            if len(form) <= LONGEST_VALUE and form not in YES_OR_NO and is_word(form):
                often.setdefault(form, Counter())[column] += count
        # most_common keeps the order of equals: that of the first rows
        self.values = with_singulars({form: [column for column, _ in by_column.most_common()] for form, by_column in often.items()})
        names = {" ".join(lowered(BRACKETS.sub("", column)).replace("_", " ").split()): column for column in reversed(columns)}
        self.names = with_singulars({form: column for form, column in names.items() if is_word(form)})
        self.lengths = sorted({len(form) for form in (*self.values, *self.names)}, reverse=True)

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, form) of the words in a text, from left to right, at each place the longest; they do not overlap.

        Case does not count. In scripts with blanks between words, whole words are looked for, in singular and plural.
        """
        forms, found, place = lowered(text), [], 0
        while place < len(forms):
            for length in self.lengths if not INSIDE_A_WORD.match(forms, place) else ():
                end = place + length
                form = forms[place:end]
                if (form in self.values or form in self.names) and len(form) == length and ends_a_word(forms, end):
                    found.append((place, end, form))
                    place = end
                    break
            else:
                place += 1
        return found


def with_singulars(words: dict) -> dict:
    """``words``, and those in a Latin plural also without ``s`` or ``es``."""
    found = {}
    for form, meaning in words.items():
        match = LATIN_PLURAL.fullmatch(form)
        if match:
            found[match[1] or match[2]] = meaning
    return found | words


def lowered(text: str) -> str:
    """Lower case, sign by sign, so that places in the text stay what they are."""
    return "".join(small if len(small := sign.lower()) == 1 else sign for sign in text)


def is_word(form: str) -> bool:
    return len(form) > 1 and LETTER.search(form) is not None


def ends_a_word(text: str, end: int) -> bool:
    return not INSIDE_A_WORD.match(text, end) or PLURAL.match(text, end) is not None
