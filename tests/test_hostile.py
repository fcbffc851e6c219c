"""Arbitrary values survive writing and reading; arbitrary damage is read, set aside or refused, and nothing is lost unseen."""

import json
import tempfile
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from folders import dialogue, set_aside, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcrs_utils.corpus.faults import CorpusError, Report
from llmcrs_utils.corpus.joins import count_join, side, written_alike
from llmcrs_utils.corpus.reading import is_blank
from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, KNOWLEDGE_COLUMNS, SPLITS, TIME_TYPE, Corpus, Dialogue, write_corpus
from llmcrs_utils.corpus.u_need import read_corpus

# the same examples on every run, so that a failure is everybody's
STEADY = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

# any character but halves of characters; in tables no line breaks either. Those that a format gives a meaning come often.
ANY = st.text(
    st.one_of(st.sampled_from('",\t\0 {}[]\\:\x1c\x85\u2028\ufeff;；'), st.characters(exclude_categories=["Cs"])), max_size=8
)
LINE = ANY.filter(lambda text: not set(text) & set("\r\n"))
FIELD = st.one_of(LINE, LINE.map(lambda text: f'"{text}"'))  # what looks like a quoted field most of all
NAME = FIELD.filter(lambda text: not is_blank(text))
TIMES = st.datetimes(min_value=pd.Timestamp("0001-01-01").to_pydatetime())


def frame(rows, columns):
    return pd.DataFrame(rows, columns=columns, dtype=str)


@st.composite
def corpora(draw):
    """A corpus of arbitrary words, in order otherwise."""
    knowledge = frame(draw(st.lists(st.tuples(NAME, NAME, NAME, FIELD), max_size=4, unique=True)), KNOWLEDGE_COLUMNS)
    rows = draw(st.lists(st.tuples(NAME, NAME, NAME, TIMES, FIELD), max_size=4))
    behaviour = frame([[*row[:3], "", row[4]] for row in rows], BEHAVIOUR_COLUMNS)
    behaviour["actime"] = pd.Series([row[3] for row in rows], dtype=TIME_TYPE)
    behaviour = behaviour.sort_values("actime", kind="stable", ignore_index=True)
    talks = []
    for number in range(3):
        record = dialogue(
            draw(NAME) + str(number), domain=draw(NAME), sellerid=draw(NAME), userid=draw(ANY), ds=draw(ANY)
        )
        for utterance in record["dialogue"]:
            utterance["send_content"] = draw(ANY)
            words = draw(st.lists(st.tuples(NAME, ANY), max_size=2))
            utterance["attributes"] = [{"key": key, "value": value, "start": -1, "exclusive_end": -1} for key, value in words]
            utterance["rec_item_id"] = draw(st.lists(NAME, max_size=2))
            utterance["rec_item_candidates"] = [draw(st.lists(NAME, max_size=2)) for _ in utterance["rec_item_id"]]
        talks.append(Dialogue.model_validate(record))
    return Corpus({split: [talk] for split, talk in zip(SPLITS, talks, strict=True)}, knowledge, behaviour)


@settings(max_examples=40, **STEADY)
@given(corpora())
def test_what_is_written_reads_back_as_it_was(corpus):
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(corpus, folder)
        report = Report()
        again = read_corpus(folder, report=report)
    assert again.dialogues == corpus.dialogues
    pd.testing.assert_frame_equal(again.knowledge, corpus.knowledge)
    pd.testing.assert_frame_equal(again.behaviour, corpus.behaviour)
    assert all(fault.severity == "note" for fault in report.faults)


# --- damage

FILES = [*(f"{split}_dialogue.json" for split in SPLITS), "item_kg.txt", "user_action.txt"]
JUNK = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.sampled_from(
        [b"\0", b"\r\n", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"\n\n", b"null", b"1e999", b"\\ud800", b"\xed\xa0\x80"]
    ),
)
PLACE = st.floats(0, 1)


def bytes_deleted(data, draw):
    first, second = sorted(int(draw(PLACE) * len(data)) for _ in range(2))
    return data[:first] + data[second:]


def a_few_bytes_deleted(data, draw):
    place = int(draw(PLACE) * len(data))
    return data[:place] + data[place + draw(st.integers(1, 5)) :]


def bytes_inserted(data, draw):
    place = int(draw(PLACE) * len(data))
    return data[:place] + draw(JUNK) + data[place:]


def lines_swapped(data, draw):
    lines = data.split(b"\n")
    first, second = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def line_repeated(data, draw):
    lines = data.split(b"\n")
    place = draw(st.integers(0, len(lines) - 1))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


BYTE_DAMAGE = [bytes_deleted, a_few_bytes_deleted, bytes_inserted, lines_swapped, line_repeated]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), ANY, st.lists(ANY, max_size=2), st.just({})
)


def fields_damaged(record, draw):
    """One field somewhere in a JSON value dropped, renamed or given another value."""
    places = [(record, name) for name in record]
    for utterance in record["dialogue"]:
        places += [(utterance, name) for name in utterance]
        places += [(attribute, name) for attribute in utterance["attributes"] for name in attribute]
    holder, name = draw(st.sampled_from(places))
    value = holder.pop(name)
    what = draw(st.sampled_from(["drop", "rename", "misspell", "change"]))
    if what == "rename":
        holder[draw(ANY)] = value
    elif what == "misspell":
        holder[name[:-1] + name[-1] * 2] = value
    elif what == "change":
        holder[name] = draw(VALUES)


def read_all(folder):
    """Reads ``folder`` in both ways, checks that they agree and that nothing is lost; the report and what was set aside.

    ``None`` where a file cannot be used at all.
    """
    aside = folder.parent / "set_aside.jsonl"
    report = Report("set_aside", aside)
    try:
        corpus = read_corpus(folder, report=report)
    except CorpusError as error:
        assert str(error) and str(folder) in str(error)
        corpus = None
    stop = Report()
    try:
        assert read_corpus(folder, report=stop).dialogues == corpus.dialogues
        assert not report.of_severity("error")
    except CorpusError:
        assert report.of_severity("error")
    str(report.summary()).encode("utf-8"), json.dumps(report.to_json()).encode("utf-8")
    if corpus is None:
        return None
    written = set_aside(aside)
    repeated = sum(fault.kind == "duplicate_row" and fault.file.endswith(FILES[3]) for fault in report.faults)
    kept = {f"{split}_dialogue.json": len(corpus.dialogues[split]) for split in SPLITS}
    kept |= {FILES[3]: len(corpus.knowledge) + repeated, FILES[4]: len(corpus.behaviour)}
    for name, count in kept.items():
        assert count + sum(line["file"].endswith(name) for line in written) == report.records[str(folder / name)]
    write_corpus(corpus, folder.parent / "copy")  # what was read is a valid corpus
    again = read_corpus(folder.parent / "copy")
    assert again.dialogues == corpus.dialogues
    pd.testing.assert_frame_equal(again.knowledge, corpus.knowledge)
    pd.testing.assert_frame_equal(again.behaviour, corpus.behaviour)
    return report, written


@settings(max_examples=40, **STEADY)
@given(st.data())
def test_damaged_bytes_are_read_set_aside_or_refused(data):
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(Path(temporary) / "corpus")
        if data.draw(st.booleans()):
            for path in folder.glob("*.json"):
                path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False, indent=1), "utf-8")
        name = data.draw(st.sampled_from(FILES))
        for _ in range(data.draw(st.integers(1, 3))):
            content = data.draw(st.sampled_from(BYTE_DAMAGE))((folder / name).read_bytes(), data.draw)
            (folder / name).write_bytes(content)
        read = read_all(folder)
        if read and name.endswith(".txt"):  # in a table every line is a record: each was read or set aside
            text = content.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
            assert read[0].records[str(folder / name)] == sum(map(bool, text.split("\n")[1:]))


@settings(max_examples=40, **STEADY)
@given(st.data())
def test_damaged_fields_are_read_set_aside_or_refused(data):
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(Path(temporary) / "corpus")
        path = folder / data.draw(st.sampled_from(FILES[:3]))
        records = json.loads(path.read_text("utf-8"))
        fields_damaged(data.draw(st.sampled_from(records)), data.draw)
        path.write_text(json.dumps(records, ensure_ascii=data.draw(st.booleans())), "utf-8")
        read = read_all(folder)
        assert read and read[0].records[str(path)] == 2  # one good record is left whatever befell the other
        for line in read[1]:
            assert json.dumps(line["raw"]) in map(
                json.dumps, json.loads(path.read_text("utf-8"), parse_constant=lambda name: None)
            )


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deep_nesting_is_no_crash(tmp_path, depth):
    folder = write_folder(tmp_path / "corpus")
    deep = "[" * depth + "]" * depth
    record = json.dumps(dialogue("deep"), ensure_ascii=False)[:-1] + f', "more": {deep}}}'
    (folder / "train_dialogue.json").write_text(f"[{record}, {json.dumps(dialogue('train1'))}]", "utf-8")
    report, written = read_all(folder)
    assert report.records[str(folder / "train_dialogue.json")] == 2 and len(written) == (depth > 1000)


@settings(max_examples=40, **STEADY)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.text(st.sampled_from(" \u3000\u200b\ufeff\t\xad\u2060"), max_size=4))
def test_a_name_is_blank_where_no_character_of_it_is_seen_and_only_there(text, blanks):
    unseen = [c for c in text if c.isspace() or unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp")]
    assert is_blank(blanks)
    if len(unseen) == len(text):
        assert is_blank(text)
    if any(unicodedata.category(c)[0] in "NPS" and c != "\u2800" or unicodedata.category(c) in ("Lu", "Ll", "Lt") for c in text):
        assert not is_blank(blanks + text + blanks)


@settings(max_examples=40, **STEADY)
@given(st.integers(0, 10**15), st.integers(0, 5), st.sampled_from(["{}", " {}", "{}\u3000", "\ufeff{}", "'{}", '"{}"', "{}.0", "{}.", "{}.000"]))
def test_a_number_written_in_another_way_is_a_near_match(number, zeros, form):
    name, other = str(number), form.format("0" * zeros + str(number))
    assert written_alike(other) == written_alike(name) == name
    report = Report()
    count_join(report, "there", side("items", [other]), side("others", [name, "x"]))
    if other == name:
        assert report.faults == [] and report.joins[0].matched == 1
    else:
        (fault,) = report.faults
        assert fault.kind == "no_match" and "1 would match if both were written alike" in fault.message
        assert repr(other) in fault.message and repr(name) in fault.message
