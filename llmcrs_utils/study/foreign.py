"""Answers from other software -> predictions: tables of ``sample_id`` and ``text`` or ``ranking``."""

import json
import math
import re
from pathlib import Path

import pandas as pd

from llmcrs_utils.files.parquet import plain_frame
from llmcrs_utils.systems.predictions import SCHEMA, read_arrow
from llmcrs_utils.tasks.answers import text_answer
from llmcrs_utils.text.prompts import LETTERS, Prompts

FORMATS = (".parquet", ".csv", ".jsonl", ".json")
YES, NO = ("true", "1", "yes"), ("false", "0", "no")
# A list as Python or NumPy prints it, and one member of it.
PRINTED = re.compile(r"""\[\s*((?:'[^']*'|"[^"]*")[\s,]*)*\]""")
IN_QUOTES = re.compile(r"""'([^']*)'|"([^"]*)\"""")


class AnswersError(ValueError):
    """A table of answers that cannot be used. The message names file, row, column and remedy."""


def read_answers(path: str | Path) -> pd.DataFrame:
    """Read a table of answers: Parquet, CSV (UTF-8, commas), JSON lines or a JSON list.

    Values are not converted; those of a CSV file are text.

    Raises:
        AnswersError: if the file is missing, has another format, or does not have the format of its name.
    """
    path = Path(path)
    if not path.is_file():
        raise AnswersError(f"{path}: no such file; give a table with sample_id and text or ranking")
    read = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_json, ".json": _read_json}.get(path.suffix.lower())
    if read is None:
        raise AnswersError(f"{path}: no format known by this ending; write {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    try:
        answers = read(path)
    except UnicodeDecodeError as error:
        raise AnswersError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (ValueError, pd.errors.ParserError) as error:  # of a malformed file
        message = str(error).strip().splitlines()[0].removeprefix(f"{path}: ")
        raise AnswersError(f"{path}: cannot be read as {path.suffix[1:]} ({message}); write it again") from None
    answers.columns = [str(name).strip() for name in answers.columns]
    if "sample_id" not in answers or not {"text", "ranking"} & set(answers):
        columns = ", ".join(answers.columns) or "none"
        raise AnswersError(f"{path}: needs the columns sample_id and text or ranking, but has {columns}; rename or add them")
    if answers.empty:
        raise AnswersError(f"{path}: holds no answers; write a row per sample")
    return answers


def to_predictions(
    answers: pd.DataFrame, path: str | Path, samples: pd.DataFrame, prompts: Prompts, name: str = ""
) -> pd.DataFrame:
    """Answers as predictions, columns as in ``predictions.SCHEMA``.

    An answer that is empty, or that its task cannot use, is not ``valid``. For ``recommend`` a ``ranking`` holds item ids, best
    first; a ``text`` alone is a ranking of one item. If the candidates are known, ids must be among them, and a text that is not
    among them is an unusable answer. If their order is known too, the letters A-T are read as candidates.

    Args:
        answers: as ``read_answers`` returns them. ``system, seed, split, scores, raw, valid`` and ``confidence`` may be missing.
        path: path of the file. Messages name it, and its stem is the system's name if there is no ``system``.
        samples: samples of the study: ``sample_id, split, task`` and optionally ``candidates``: a list of item ids, a set if
            their order is unknown, or empty or ``None`` if they are unknown.
        name: name of the system, in place of the file's; only for a file of one system.

    Raises:
        AnswersError: names the first row that cannot be used, or the first sample that is unknown, answered twice or missing.
    """
    name, stem = _name(name, "--name"), _name(Path(path).stem, str(path))
    known = samples.set_index("sample_id").to_dict("index")
    rows = []
    for number, row in enumerate(answers.to_dict("records"), start=1):
        where = f"{path}: row {number}"
        sample_id = _text(row["sample_id"], f"{where}, sample_id").strip()
        if sample_id not in known:
            unknown = sum(_text(other, f"{where}, sample_id").strip() not in known for other in answers["sample_id"])
            raise AnswersError(
                f"{where}: no sample is called {sample_id!r} ({unknown} in all); "
                "take the names from samples.parquet or alpaca_test.json"
            )
        sample = known[sample_id]
        about = {"system": _name(row.get("system"), where) or stem, "seed": _seed(row.get("seed"), where)}
        about |= {"split": sample["split"], "sample_id": sample_id}
        split = _text(row.get("split"), f"{where}, split").strip()
        if split not in ("", sample["split"]):
            raise AnswersError(
                f"{where}: {sample_id} is a {sample['split']} sample, not {split}; correct or drop the column split"
            )
        if sample["task"] == "recommend":
            answer = _ranked(row, sample, where, sample_id)
        else:
            answer = _written(row, sample, where, sample_id, prompts)
        raw, usable = _text(row.get("raw"), f"{where}, raw"), _flag(row.get("valid"), f"{where}, valid")
        confidence = _number(row.get("confidence"), f"{where}, confidence")
        rows.append(about | answer | {"raw": raw or answer["raw"], "valid": answer["valid"] and usable, "confidence": confidence})
    predictions = pd.DataFrame(rows, columns=SCHEMA.names)
    if name:
        systems = predictions["system"].nunique()
        if systems > 1:
            raise AnswersError(f"{path}: holds {systems} systems, and --name names one; rename them in the column system")
        predictions["system"] = name
    _complete(predictions, samples, path)
    return predictions


def with_candidates(samples: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """The samples with ``candidates``: the study's list or, without one, the set of all items that any system ranked there."""
    if "candidates" in samples:
        return samples
    ranked = predictions[predictions["ranking"].map(lambda ranking: len(ranking or []) > 1)]
    items = {name: set().union(*rankings) for name, rankings in ranked.groupby("sample_id")["ranking"]}
    return samples.assign(candidates=samples["sample_id"].map(items))


def unread_columns(answers: pd.DataFrame) -> list[str]:
    """The columns that are not part of a prediction."""
    return [name for name in answers.columns if name not in SCHEMA.names]


def _read_parquet(path: Path) -> pd.DataFrame:
    return plain_frame(read_arrow(path))


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig", index_col=False)


def _read_json(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        records = json.loads(text)
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        records = [_json_line(line, number) for number, line in lines]
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ValueError(f"record {number} is no object")
    names = dict.fromkeys(name for record in records for name in record)
    return pd.DataFrame({name: pd.Series([record.get(name) for record in records], dtype=object) for name in names})


def _json_line(line: str, number: int) -> dict:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg}") from None


def _missing(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value, where: str) -> str:
    """The value as text. A whole number becomes its digits, and a missing value becomes ``""``."""
    if _missing(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value == int(value):
        return str(int(value))
    raise AnswersError(f"{where}: {value!r} is no text; write it as text")


def _name(value, where: str) -> str:
    """A system's name on one line, without blanks at its ends."""
    name = " ".join(_text(value, f"{where}, system").split())
    if not name.isprintable():
        raise AnswersError(f"{where}: the system's name {name!r} holds control characters; write a name that can be printed")
    return name


def _seed(value, where: str) -> int:
    """The seed; 1 if the row has none."""
    text = _text(value, f"{where}, seed").strip() or "1"
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise AnswersError(f"{where}, seed: {text!r} is no whole number; write 1, 2, ...")
    return int(text)


def _flag(value, where: str) -> bool:
    """Whether an answer is marked as usable. An answer without a mark is."""
    if isinstance(value, bool) or _missing(value):
        return value is not False
    text = str(value).strip().lower()
    if text and text not in YES + NO:
        raise AnswersError(f"{where}: {value!r} is neither true nor false; write one of them")
    return text not in NO


def _number(value, where: str) -> float | None:
    """A number; ``None`` if the row has none."""
    if _missing(value) or not str(value).strip():
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise AnswersError(f"{where}: {value!r} is no number; correct it or leave it empty") from None


def _list(value, where: str) -> list:
    """A list from Parquet, JSON or a CSV cell."""
    if _missing(value):
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    text = _text(value, where).strip()
    if not text.startswith("["):
        return [member.strip() for member in re.split("[；;|]", text) if member.strip()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if PRINTED.fullmatch(text):
            return [one or other for one, other in IN_QUOTES.findall(text)]
    raise AnswersError(f"{where}: {text[:60]!r} is no list; write it as JSON or part its members by ；")


def _written(row: dict, sample: dict, where: str, sample_id: str, prompts: Prompts) -> dict:
    """The answer to a task that is answered by text."""
    if "text" not in row:
        raise AnswersError(
            f"{where}: {sample_id} is a question of {sample['task']}, which is answered by text; add the column text"
        )
    answer = text_answer(sample["task"], _text(row["text"], f"{where}, text"), prompts)
    return {name: answer[name] for name in ("text", "ranking", "scores", "raw", "valid")}


def _ranked(row: dict, sample: dict, where: str, sample_id: str) -> dict:
    """The answer to recommend: a ranking, or one item as text."""
    text = _text(row.get("text"), f"{where}, text").strip()
    ranking = [_text(item, f"{where}, ranking").strip() for item in _list(row.get("ranking"), f"{where}, ranking")]
    candidates = sample.get("candidates")
    candidates = () if candidates is None or _missing(candidates) else candidates
    scores = _scores(row.get("scores"), ranking, where)
    if ranking:
        ranking = [_item(item, candidates, where) for item in ranking]
        strange = [item for item in ranking if candidates and item not in candidates]
        if strange:
            raise AnswersError(
                f"{where}: {strange[0]!r} is not among the {len(candidates)} candidates of {sample_id}; rank candidates only"
            )
        if len(set(ranking)) < len(ranking):
            twice = next(item for place, item in enumerate(ranking) if item in ranking[:place])
            raise AnswersError(f"{where}: ranks {twice!r} twice; name each item once")
    elif text:
        item = _item(text, candidates, where)
        ranking = [item] if not candidates or item in candidates else []
    return {"text": ranking[0] if ranking else "", "ranking": ranking, "scores": scores, "raw": text, "valid": bool(ranking)}


def _item(text: str, candidates, where: str) -> str:
    """The item id for a text that is an item id or a candidate's letter. Any other text is returned unchanged."""
    letter = text.strip(" .。、:：")
    if text in candidates or len(letter) != 1 or letter not in LETTERS:
        return text
    if not isinstance(candidates, list):
        raise AnswersError(
            f"{where}: {text!r} is a letter, and this study does not say which item it stands for; write item ids, "
            "or give the run folder in which the questions were made by --study runs/PROFILE"
        )
    return candidates[LETTERS.index(letter)] if LETTERS.index(letter) < len(candidates) else text


def _scores(value, ranking: list, where: str) -> list[float]:
    numbers = _list(value, f"{where}, scores")
    try:
        scores = [float(number) for number in numbers]
    except (TypeError, ValueError):
        raise AnswersError(f"{where}, scores: not all are numbers; correct them or drop the column") from None
    if scores and len(scores) != len(ranking):
        raise AnswersError(f"{where}: {len(scores)} scores of {len(ranking)} ranked items; give one each or drop the column")
    return scores


def _complete(predictions: pd.DataFrame, samples: pd.DataFrame, path: str | Path) -> None:
    """Check that every run answers, for each task and split, either all samples, each once, or none."""
    run = ["system", "seed", "sample_id"]
    twice = predictions[predictions.duplicated(run)]
    if len(twice):
        first = twice.iloc[0]
        raise AnswersError(
            f"{path}: {first['sample_id']} is answered twice by {first['system']}, seed {first['seed']} ({len(twice)} in all); "
            "keep one answer each, or tell the runs apart in the column seed"
        )
    asked = samples[["sample_id", "split", "task"]]
    joined = predictions[run].merge(asked, on="sample_id")
    for (system, seed, split, task), part in joined.groupby(["system", "seed", "split", "task"], sort=False):
        wanted = asked.loc[(asked["split"] == split) & (asked["task"] == task), "sample_id"]
        left = wanted[~wanted.isin(part["sample_id"])]
        if len(left) and split == "test":
            raise AnswersError(
                f"{path}: {system} (seed {seed}) answers {task}, but not {left.iloc[0]} "
                f"({len(left)} of {len(wanted)} samples are missing); "
                "answer all samples of a task, with an empty text where there is no answer, or none"
            )
    if not (joined["split"] == "test").any():
        raise AnswersError(f"{path}: answers no test sample; {joined['split'].iloc[0]} samples are not scored")
