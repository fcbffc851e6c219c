"""Human ratings of replies (paper appendix D, Table 4): material for raters who do not know who wrote what, and what their ratings say.

A rater sees a dialogue, the desk's own reply and one system's reply, and gives two numbers. Equal replies to one question are one item, which is rated
once and counts for each of its systems. What tells systems apart lies in a key that raters never get. Ratings come back as filled-in sheets or
as JSON exports of Label Studio.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd
import statsmodels.api as sm
from nltk.metrics.agreement import AnnotationTask
from nltk.metrics.distance import interval_distance
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from llmcrs_utils.evaluation.metrics import usable_text
from llmcrs_utils.evaluation.one_dialogue import turns_of
from llmcrs_utils.evaluation.statistics import mean_interval
from llmcrs_utils.evaluation.tables import BOUNDS, paper_numbers, rows_of
from llmcrs_utils.files.atomic import write_atomically, writing_folder

RATED = {"relevance": "Rel", "informativeness": "Info"}  # what is rated -> its column in the paper's Table 4
SIDES = ("left", "right", "tie")
FOR_RATERS, KEY = "for_raters", "key"  # folders of the material
KEY_ITEMS, KEY_COMPARISONS, KEY_SETTINGS = "items.csv", "comparisons.csv", "settings.json"  # files of the key
PAPERS_SCALE = (1, 5)
SPEAKERS_NAMED = {"zh": {"user": "顾客", "desk": "客服"}, "en": {"user": "Shopper", "desk": "Service desk"}}
EMPTY = {"zh": "（空）", "en": "(empty)"}
HEADINGS = {
    "zh": {
        "reference": "客服的原回复", "reply": "请评这条回复", "relevance": "相关性", "informativeness": "信息量", "left": "左边的回复", "right": "右边的回复",
        "better": "哪条回复更好？", "tie": "一样好",
    },
    "en": {
        "reference": "The desk's own reply", "reply": "The reply to rate", "relevance": "Relevance", "informativeness": "Informativeness",
        "left": "Reply on the left", "right": "Reply on the right", "better": "Which reply is better?", "tie": "equally good",
    },
}  # fmt: skip
GUIDELINES = {
    "zh": """# 评分说明

每一条请先读对话，再读客服的原回复，然后为待评回复打两个分，均为 {low} 到 {high} 的整数。待评回复由不同系统写成，顺序随机；请不要猜测是谁写的，也不要与别的评分者讨论。

* **相关性**：回复是否接得上顾客最后的话和整段对话。{low} = 答非所问；{high} = 完全切题。
* **信息量**：与客服的原回复相比，回复包含多少关于商品的信息。{low} = 没有；{high} = 与原回复一样多或更多。信息不必与原回复相同，但不能与对话矛盾。

错别字、礼貌用语和表情不影响得分。空的回复两项都给 {low}。看不懂的条目请留空。
成对比较时，请选整体上更好的回复；分不出时选“一样好”。在表格的 better 一栏中填写 left（左边）、right（右边）或 tie（一样好）。
""",
    "en": """# How to rate

Read the dialogue and the desk's own reply. Then give the other reply two whole numbers from {low} to {high}. The replies come from different systems in random order. Please do not guess who
wrote a reply, and do not discuss it with other raters.

* **Relevance**: does the reply follow from what the shopper said last and from the dialogue? {low}: it misses the point. {high}: it is to the point.
* **Informativeness**: how much does it say about the product, compared with the desk's own reply? {low}: nothing. {high}: as much as the desk, or more. It need not be the same
  information, but it must not contradict the dialogue.

Typing errors, courtesies and emoticons do not count. An empty reply gets {low} twice. Leave blank what you do not understand.
Where two replies are compared, choose the better one on the whole, or "equally good" if you cannot tell. In a sheet, write left, right or tie in the column better.
""",
}


class RatingsError(ValueError):
    """Ratings or material that cannot be used. The message names file, row, field and remedy."""


def items_to_rate(
    samples: pd.DataFrame, predictions: pd.DataFrame, dialogues: int, seed: int, systems: Iterable[str] = (), split: str = "test"
) -> pd.DataFrame:
    """Draws dialogues, in each one question of ``respond``, and gives every system's reply a blind name.

    Args:
        samples: with ``split, task, sample_id, sid, domain, context, current, label``.
        predictions: columns of ``predictions.SCHEMA``. Of a system with several runs the one with ``seed`` counts.
        dialogues: how many; the paper draws 100.
        seed: also draws dialogues and orders.
        systems: keys of the systems whose replies are rated; empty: all that reply, but floors and ceiling.

    Returns:
        A row per question and system, in random order within a question: ``item`` (such as ``q0007-03``; equal replies share it), ``sample_id, sid, domain,
        system, reply``.

    Raises:
        ValueError: for a system without replies, too many dialogues, two replies of one run to one question, or a reply that is missing.
    """
    asked = samples[(samples["split"] == split) & (samples["task"] == "respond")]
    if not 1 <= dialogues <= asked["sid"].nunique():
        raise ValueError(f"dialogues={dialogues}: {asked['sid'].nunique()} dialogues of {split} have a reply to rate; ask for 1 to that many")
    replying = predictions[predictions["sample_id"].isin(asked["sample_id"])]
    replying = replying[(replying["seed"] == seed) | (replying.groupby("system")["seed"].transform("nunique") == 1)]
    known = sorted(set(replying["system"]))
    chosen = list(systems) or [key for key in known if key not in BOUNDS]
    if not chosen or set(chosen) - set(known):
        raise ValueError(f"systems {', '.join(sorted(set(chosen) - set(known))) or 'none'}: no replies with seed {seed}; known: {', '.join(known) or 'none'}")
    replying = replying[replying["system"].isin(chosen)]
    if replying.duplicated(["system", "sample_id"]).any():
        raise ValueError("two replies of one run to one question; give each run once")
    draw = np.random.default_rng(seed)
    one_each = asked.sample(frac=1, random_state=seed).drop_duplicates("sid").sort_values("sid").iloc[draw.permutation(asked["sid"].nunique())[:dialogues]]
    replies = replying.assign(reply=usable_text(replying)).pivot(index="sample_id", columns="system", values="reply")
    replies = replies.reindex(index=one_each["sample_id"], columns=sorted(chosen))
    lacking = replies.isna().stack()
    if lacking.any():
        sample_id, system = lacking.idxmax()
        raise ValueError(f"{system}: no reply to {sample_id}; leave the system out, or give all its replies")
    rows = []
    for number, (sample, given) in enumerate(zip(one_each.to_dict("records"), replies.to_dict("records"), strict=True), start=1):
        different = sorted(set(given.values()))
        names = dict(zip(different, (f"q{number:04d}-{place + 1:02d}" for place in draw.permutation(len(different)))))
        about = {name: sample[name] for name in ("sample_id", "sid", "domain")}
        rows += sorted(({"item": names[reply]} | about | {"system": system, "reply": reply} for system, reply in given.items()), key=lambda row: row["item"])
    return pd.DataFrame(rows)


def question_of(item: str) -> str:
    """The question to which an item replies, such as ``q0007``."""
    return item.partition("-")[0]


def comparisons_of(items: pd.DataFrame, pairs: list[tuple[str, str]], seed: int) -> pd.DataFrame:
    """Which replies are compared, each pair of systems in each question, sides and order at random.

    Returns:
        ``comparison`` (its blind name; empty where both replies are equal, which is a tie that nobody has to judge), ``sample_id, sid``,
        and of either side the item and the system: ``left, right, left_system, right_system``.

    Raises:
        ValueError: for a system that has no items, or a pair of one system with itself.
    """
    draw, rows = np.random.default_rng(seed), []
    alone = next((pair for pair in pairs if len(set(pair)) != 2), None)
    if alone:
        raise ValueError(f"compared: {', '.join(alone)} is no pair; name two systems")
    item_of = items.set_index(["sample_id", "system"])["item"]
    unknown = {key for pair in pairs for key in pair} - set(items["system"])
    if unknown:
        raise ValueError(f"{min(unknown)}: no reply to compare; name systems that are rated")
    for sample_id, sid in items.drop_duplicates("sample_id")[["sample_id", "sid"]].itertuples(index=False):
        for pair in pairs:
            left, right = draw.permutation(pair)
            sides = {"left": item_of[sample_id, left], "right": item_of[sample_id, right], "left_system": left, "right_system": right}
            rows.append({"sample_id": sample_id, "sid": sid} | sides)
    columns = ["sample_id", "sid", "left", "right", "left_system", "right_system"]
    table = pd.DataFrame(rows, columns=columns).iloc[draw.permutation(len(rows))].reset_index(drop=True)
    names = iter(f"C{number:04d}" for number in range(1, len(table) + 1))
    table.insert(0, "comparison", ["" if one == other else next(names) for one, other in zip(table["left"], table["right"])])
    return table


def write_material(
    folder: str | Path, items: pd.DataFrame, comparisons: pd.DataFrame, samples: pd.DataFrame, *, language: str, scale: tuple[int, int], raters: int, each: int
) -> bool:
    """Write all that a rating needs: a sheet per rater, tasks and settings for Label Studio, guidelines; and the key, in a folder of its own.

    A folder that holds this material already is kept, with all that raters have filled in.

    Args:
        comparisons: of ``comparisons_of``; may be empty.
        scale: lowest and highest rating. The paper rates from 1 to 5, U-NEED from 0 to 2.
        raters: number of sheets; every dialogue is on ``each`` of them.

    Returns:
        Whether it was written, not kept.

    Raises:
        RatingsError: if the folder exists and holds the material of other replies or settings.
        ValueError: for a language, a scale or a number of raters that cannot be.
    """
    check_settings(language, scale, raters, each)
    settings = {"language": language, "scale": list(scale), "raters": raters, "each": each}
    key = {KEY_ITEMS: csv_of(items), KEY_COMPARISONS: csv_of(comparisons), KEY_SETTINGS: json.dumps(settings)}
    if Path(folder).exists():
        changed = [name for name, text in key.items() if not (path := Path(folder) / KEY / name).is_file() or path.read_text("utf-8") != text]
        if not changed:
            return False
        raise RatingsError(f"{folder}: exists, and its {', '.join(changed)} would be others; choose another folder, or delete this one if nobody has rated yet")
    about = samples.set_index("sample_id")
    shown = items.drop_duplicates("item").assign(
        reference=lambda table: table["sample_id"].map(about["label"]), dialogue=lambda table: [said_before(about.loc[one], language) for one in table["sample_id"]]
    )
    shown["reply"] = shown["reply"].replace("", EMPTY[language])
    replies = shown.set_index("item")[["dialogue", "reference", "reply"]].to_dict("index")
    tasks = [{"item": item} | about_item for item, about_item in replies.items()]
    pairs = [
        {"comparison": row.comparison, "dialogue": replies[row.left]["dialogue"], "left": replies[row.left]["reply"], "right": replies[row.right]["reply"]}
        for row in comparisons[comparisons["comparison"] != ""].itertuples()
    ]  # fmt: skip
    question = dict(zip(comparisons["comparison"], comparisons["left"]))
    with writing_folder(folder) as place:
        sheets = place / FOR_RATERS
        for number in range(raters):
            own = [task | dict.fromkeys(RATED, "") for task in tasks if number in raters_of(task["item"], raters, each)]
            write_atomically(sheets / f"rater_{number + 1:02d}.csv", sheet_of(own))
            own = [pair | {"better": ""} for pair in pairs if number in raters_of(question[pair["comparison"]], raters, each)]
            if own:
                write_atomically(sheets / f"comparisons_{number + 1:02d}.csv", sheet_of(own))
        for name, data, config in (("ratings", tasks, rating_config(language, scale)), ("comparisons", pairs, comparison_config(language))):
            if data:
                write_atomically(sheets / f"label_studio_{name}.json", json.dumps([{"data": task} for task in data], ensure_ascii=False, indent=1))
                write_atomically(sheets / f"label_studio_{name}.xml", config)
        for name, text in GUIDELINES.items():
            write_atomically(sheets / f"guidelines.{name}.md", text.format(low=scale[0], high=scale[1]))
        for name, text in key.items():
            write_atomically(place / KEY / name, text)
    return True


def check_settings(language: str, scale: tuple[int, int], raters: int, each: int) -> None:
    """Refuses settings with which nobody could rate (``ValueError``)."""
    if language not in HEADINGS:
        raise ValueError(f"language={language!r}: known are {', '.join(HEADINGS)}")
    if len(scale) != 2 or scale[0] >= scale[1]:
        raise ValueError(f"scale={list(scale)}: give the lowest and the highest rating, such as [1, 5]")
    if not 1 <= each <= raters:
        raise ValueError(f"each={each}, raters={raters}: a dialogue can be on 1 to {raters} sheets")


def csv_of(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def sheet_of(rows: list[dict]) -> str:
    """Rows with a ``dialogue`` as CSV. Excel takes a file for UTF-8 only if it begins with a byte order mark."""
    table = pd.DataFrame(rows)
    return "\ufeff" + csv_of(table.assign(dialogue=table["dialogue"].map(as_lines)))


def raters_of(item: str, raters: int, each: int) -> set[int]:
    """Numbers, from 0, of the ``each`` raters who rate all replies of an item's question."""
    return {(int(question_of(item)[1:]) - 1 + turn) % raters for turn in range(each)}


def read_key(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame, tuple[int, int]]:
    """Items and comparisons of written material, as ``items_to_rate`` and ``comparisons_of`` returned them, and its scale.

    Raises:
        RatingsError: if the folder holds no key.
    """
    place = Path(folder) / KEY
    missing = next((name for name in (KEY_ITEMS, KEY_COMPARISONS, KEY_SETTINGS) if not (place / name).is_file()), None)
    if missing:
        raise RatingsError(f"{place / missing}: no such file; give the folder of the material that was rated, with its key")
    items, comparisons = (pd.read_csv(place / name, dtype=str, keep_default_na=False) for name in (KEY_ITEMS, KEY_COMPARISONS))
    return items, comparisons, tuple(json.loads((place / KEY_SETTINGS).read_text("utf-8"))["scale"])


def said_before(sample: pd.Series, language: str) -> list[dict[str, str]]:
    """What was said before a reply, as Label Studio shows dialogues: ``author`` and ``text`` of every turn with words."""
    return [{"author": SPEAKERS_NAMED[language][turn.by], "text": turn.said} for turn in turns_of(sample, {}) if turn.said]


def as_lines(dialogue: list[dict[str, str]]) -> str:
    return "\n".join(f"{turn['author']}: {turn['text']}" for turn in dialogue)


def rating_config(language: str, scale: tuple[int, int]) -> str:
    """Label Studio's settings for ratings: the dialogue, the desk's reply, the reply, and a choice of numbers for each question."""
    said = HEADINGS[language]
    values = [(str(value), "") for value in range(scale[0], scale[1] + 1)]
    questions = "".join(_choices(name, "reply", said[name], values) for name in RATED)
    return _view(f"{_text('reference', said)}{_text('reply', said)}{questions}")


def comparison_config(language: str) -> str:
    """Label Studio's settings for comparisons: two replies side by side, and which is better."""
    said = HEADINGS[language]
    sides = "".join(f'    <View style="flex: 1">\n{_text(side, said)}    </View>\n' for side in SIDES[:2])
    return _view(f'  <View style="display: flex; gap: 1em">\n{sides}  </View>\n{_choices("better", "left", said["better"], [(side, said[side]) for side in SIDES])}')


def _view(inner: str) -> str:
    return f'<View>\n  <Paragraphs name="dialogue" value="$dialogue" layout="dialogue" nameKey="author" textKey="text"/>\n{inner}</View>\n'


def _text(name: str, said: dict[str, str]) -> str:
    return f'  <Header value={quoteattr(said[name])}/>\n  <Text name="{name}" value="${name}"/>\n'


def _choices(name: str, of: str, heading: str, values: list[tuple[str, str]]) -> str:
    """``values``: what is exported, and what is shown in its place if that is not empty."""
    shown = "".join(f"    <Choice value={quoteattr(text or value)} alias={quoteattr(value)}/>\n" for value, text in values)
    return f'  <Header value={quoteattr(heading)}/>\n  <Choices name="{name}" toName="{of}" choice="single-radio" showInline="true" required="true">\n{shown}  </Choices>\n'


def read_ratings(paths: Iterable[str | Path], items: pd.DataFrame, scale: tuple[int, int]) -> pd.DataFrame:
    """Ratings from sheets (CSV, a file per rater) and exports of Label Studio (JSON): ``rater, item, question, value``. Blanks are left out.

    Raises:
        RatingsError: for an unknown item, a rating outside the scale, two ratings of one item by one rater, or files without any rating.
    """
    allowed, rows = {str(value) for value in range(scale[0], scale[1] + 1)}, []
    for where, rater, name, given in _filled_in(paths, "item", tuple(RATED), set(items["item"])):
        for question, value in given.items():
            if value not in allowed:
                raise RatingsError(f"{where}, {question}: {value!r} is not a whole number from {scale[0]} to {scale[1]}; correct it or leave it blank")
            rows.append({"rater": rater, "item": name, "question": question, "value": float(value)})
    return pd.DataFrame(rows)


def read_choices(paths: Iterable[str | Path], comparisons: pd.DataFrame) -> pd.DataFrame:
    """Judged comparisons from sheets and exports, as ``read_ratings``: ``rater, comparison, better`` (one of ``SIDES``)."""
    shown = {said[side]: side for said in HEADINGS.values() for side in SIDES} | {side: side for side in SIDES}
    rows = []
    for where, rater, name, given in _filled_in(paths, "comparison", ("better",), set(comparisons["comparison"]) - {""}):
        better = shown.get(given["better"])
        if better is None:
            raise RatingsError(f"{where}, better: {given['better']!r} is none of {', '.join(SIDES)}; correct it or leave it blank")
        rows.append({"rater": rater, "comparison": name, "better": better})
    return pd.DataFrame(rows)


def _filled_in(paths: Iterable[str | Path], name: str, fields: tuple[str, ...], known: set[str]) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """``(where, rater, item, field -> what was given)`` of every row with something in it; ``where`` is for messages."""
    seen: dict[tuple[str, str], str] = {}
    paths = list(map(Path, paths))
    for path in paths:
        if not path.is_file():
            raise RatingsError(f"{path}: no such file; name filled-in sheets (.csv) or exports of Label Studio (.json)")
        for where, rater, row in _of_export(path) if path.suffix.lower() == ".json" else _of_sheet(path, name, fields):
            item, given = row.get(name, ""), {field: row[field] for field in fields if row.get(field)}
            if not given:
                continue
            where = f"{where}, {item} by {rater}"
            if item not in known:
                raise RatingsError(f"{where}: {name} {item!r} is not in the key; give ratings of this material")
            if (rater, item) in seen:
                raise RatingsError(f"{where}: rated before ({seen[rater, item]}); keep one of the two")
            seen[rater, item] = where
            yield where, rater, item, given
    if not seen:
        raise RatingsError(f"{', '.join(map(str, paths))}: nothing is filled in in {', '.join(fields)}; give files that came back from raters")


def _of_sheet(path: Path, name: str, fields: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The rater of a sheet is its file's name. Some spreadsheets write semicolons or tabs between columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            delimiter = max(",;\t", key=lines.readline().count)
            lines.seek(0)
            table = csv.DictReader(lines, delimiter=delimiter)
            lacking = {name, *fields} - set(table.fieldnames or ())
            if lacking:
                raise RatingsError(f"{path}: no column {min(lacking)}; keep the columns of the sheet as they were")
            rows = [(table.line_num, {key: (value or "").strip() for key, value in row.items() if key}) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RatingsError(f"{path}: cannot be read as CSV in UTF-8 ({error}); save the sheet as CSV UTF-8") from None
    for line, row in rows:
        yield f"{path}: line {line}", path.stem, row


def _of_export(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The rater of an annotation is Label Studio's number of the user; cancelled annotations are left out."""
    found = []
    try:
        for task in json.loads(path.read_text(encoding="utf-8")):
            for annotation in task["annotations"]:
                if annotation.get("was_cancelled"):
                    continue
                by = annotation["completed_by"]
                given = {part["from_name"]: str(part["value"]["choices"][0]) for part in annotation["result"]}
                found.append((f"{path}: task {task['id']}", f"user {by['id'] if isinstance(by, dict) else by}", task["data"] | given))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RatingsError(f"{path}: not an export of Label Studio in its JSON format ({type(error).__name__}: {error}); export it again as JSON") from None
    yield from found


def rater_agreement(ratings: pd.DataFrame) -> pd.DataFrame:
    """How far raters agree: Krippendorff's alpha of each question, for ratings as numbers (interval data), for these are what is averaged.

    The 95% interval is a jackknife's over questions, with Student's t: each question is left out once, with all replies to it.

    Returns:
        A row per question: ``question, alpha, low, high, raters, items`` (that two or more have rated). NaN where no item has two ratings or all
        ratings are equal.
    """
    rows = []
    for question, part in ratings.groupby("question", sort=False):
        several = part[part.groupby("item")["rater"].transform("nunique") > 1]
        found = alpha(several)
        groups = several["item"].map(question_of)
        without = np.array([alpha(several[groups != group]) for group in groups.unique()])
        spread = (len(without) - 1) / len(without) * ((without - without.mean()) ** 2).sum() if len(without) > 1 else np.nan
        half = stats.t.ppf(0.975, len(without) - 1) * np.sqrt(spread)
        rows.append({"question": question, "alpha": found, "low": found - half, "high": min(found + half, 1.0), "raters": part["rater"].nunique(), "items": several["item"].nunique()})
    return pd.DataFrame(rows)


def alpha(ratings: pd.DataFrame) -> float:
    """Krippendorff's alpha for interval data of ``rater, item, value``; NaN where it is not defined."""
    if ratings["value"].nunique() < 2:
        return np.nan
    return AnnotationTask(data=list(ratings[["rater", "item", "value"]].itertuples(index=False, name=None)), distance=interval_distance).alpha()


def rated_systems(ratings: pd.DataFrame, items: pd.DataFrame, scale: tuple[int, int]) -> pd.DataFrame:
    """The human columns of Table 4: each system's mean ratings, over raters, then over dialogues, with 95% intervals over dialogues.

    Returns:
        A row per system and question: ``system`` (name), ``question, value, low, high, n`` (dialogues), ``paper`` (Table 4, all
        categories; NaN for others, and on another scale than the paper's).
    """
    of_item = ratings.groupby(["question", "item"])["value"].mean().reset_index()
    paper = paper_numbers(human=True)
    paper = paper[paper["category"].str.startswith("All ")].set_index(["name", "metric"])["paper"] if scale == PAPERS_SCALE else {}
    names, rows = {key: name for key, _, name in rows_of(items)}, []
    for (system, question), part in items.merge(of_item, on="item").groupby(["system", "question"], sort=False):
        value, low, high = mean_interval(part["value"], part["sid"])[:3]
        row = {"system": names[system], "question": question, "value": value, "low": low, "high": high, "n": part["sid"].nunique()}
        rows.append(row | {"paper": paper.get((names[system], RATED[question]), np.nan)})
    table = pd.DataFrame(rows)
    return table.sort_values(["question", "value"], ascending=[False, False], ignore_index=True)


def rating_table(rated: pd.DataFrame) -> pd.DataFrame:
    """``rated_systems`` as shown: a row per system, for each question the mean, its interval and in parentheses the paper's number, and ``n``."""
    cells = [
        f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" + (f" ({row.paper:.2f})" if pd.notna(row.paper) else "") for row in rated.itertuples()
    ]  # fmt: skip
    wide = rated.assign(cell=cells).pivot(index="system", columns="question", values="cell").reindex(columns=list(RATED)).fillna("–")
    wide = wide.assign(dialogues=rated.groupby("system")["n"].max())
    return wide.loc[rated["system"].unique()].rename_axis(None).rename_axis(None, axis=1)


def preferences(choices: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Every judged comparison as ``sid, one, other, share``: the share of the raters who prefer the first, ties counting half.

    Equal replies are ties that nobody had to judge. They count only if all other comparisons are judged: else they would outweigh these.
    """
    value = choices["better"].map({"left": 1.0, "right": 0.0, "tie": 0.5})
    share = value.groupby(choices["comparison"]).mean()
    asked = comparisons["comparison"] != ""
    table = comparisons.assign(share=comparisons["comparison"].map(share))
    if table.loc[asked, "share"].notna().all():
        table["share"] = table["share"].where(asked, 0.5)
    return table.dropna(subset="share").rename(columns={"left_system": "one", "right_system": "other"})[["sid", "one", "other", "share"]]


def bradley_terry(preferred: pd.DataFrame) -> pd.DataFrame:
    """Strengths of systems from pairwise preferences (Bradley and Terry 1952), as the chance to be preferred to the average system.

    One system is preferred to another with the logistic function of the difference of their strengths. Each compared pair is given
    one further tie, so that a system that always wins has a finite strength. 95% intervals are over dialogues (errors clustered by dialogue, Student's t).

    Args:
        preferred: what ``preferences`` returns, of one pair of systems or more.

    Returns:
        ``system`` (name), ``strength`` (log-odds against the average), ``low, high, chance`` (of being preferred to the average), strongest first.

    Raises:
        ValueError: if the comparisons do not connect all systems, so that their strengths cannot be compared.
    """
    keys = sorted({*preferred["one"], *preferred["other"]})
    place = {key: number for number, key in enumerate(keys)}
    met = preferred.drop_duplicates(["one", "other"])[["one", "other"]]
    graph = coo_array((np.ones(len(met)), (met["one"].map(place), met["other"].map(place))), shape=(len(keys), len(keys)))
    if connected_components(graph, directed=False)[0] > 1:
        raise ValueError("some systems were never compared with the others, even through third ones; compare more pairs")
    ties = {tuple(sorted(pair)) for pair in met.itertuples(index=False, name=None)}
    data = pd.concat([preferred, pd.DataFrame([{"sid": f"tie {one} {other}", "one": one, "other": other, "share": 0.5} for one, other in sorted(ties)])])
    differences = np.zeros((len(data), len(keys)))
    rows = np.arange(len(data))
    differences[rows, data["one"].map(place)], differences[rows, data["other"].map(place)] = 1.0, -1.0
    # Strengths sum to zero: the last one is minus the sum of the others.
    free = differences[:, :-1] - differences[:, -1:]
    clusters = pd.factorize(data["sid"])[0]
    fitted = sm.GLM(data["share"].to_numpy(), free, family=sm.families.Binomial()).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    to_all = np.vstack([np.eye(len(keys) - 1), -np.ones(len(keys) - 1)])
    strength, error = to_all @ fitted.params, np.sqrt(np.diag(to_all @ fitted.cov_params() @ to_all.T))
    names, half = {key: name for key, _, name in rows_of(pd.DataFrame({"system": keys}))}, stats.t.ppf(0.975, max(preferred["sid"].nunique() - 1, 1)) * error
    table = pd.DataFrame({"system": [names[key] for key in keys], "strength": strength, "low": strength - half, "high": strength + half})
    return table.assign(chance=1 / (1 + np.exp(-table["strength"]))).sort_values("strength", ascending=False, ignore_index=True)


def simulated_ratings(replies: pd.DataFrame, quality: pd.Series, scale: tuple[int, int], raters: int, each: int, seed: int) -> pd.DataFrame:
    """Ratings by simulated raters, to try the material and the analysis out; nothing can be concluded from them.

    A rater gives a reply's quality on the scale, plus a leaning of its own and noise.

    Args:
        replies: with ``item``; ``quality``: of each item, from 0 to 1.

    Returns:
        As ``read_ratings``.
    """
    draw, (low, high) = np.random.default_rng(seed), scale
    leaning = draw.normal(0, 0.3, raters)
    rows = []
    for item in sorted(replies["item"].unique()):
        for rater in sorted(raters_of(item, raters, each)):
            for question in RATED:
                value = low + (high - low) * quality[item] + leaning[rater] + draw.normal(0, 0.6)
                rows.append({"rater": f"simulated {rater + 1}", "item": item, "question": question, "value": float(np.clip(np.rint(value), low, high))})
    return pd.DataFrame(rows)


def simulated_choices(comparisons: pd.DataFrame, quality: pd.Series, each: int, seed: int) -> pd.DataFrame:
    """Choices by simulated raters, as ``read_choices``: the better reply by ``quality`` and noise, a tie where the two are close."""
    draw, rows = np.random.default_rng(seed), []
    for row in comparisons[comparisons["comparison"] != ""].itertuples():
        for rater in range(each):
            lead = quality[row.left] - quality[row.right] + draw.normal(0, 0.15)
            rows.append({"rater": f"simulated {rater + 1}", "comparison": row.comparison, "better": "tie" if abs(lead) < 0.05 else SIDES[int(lead < 0)]})
    return pd.DataFrame(rows)
