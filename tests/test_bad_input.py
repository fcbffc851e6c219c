"""Every kind of bad input: told with file, record and field; in one summary; and nothing lost where it is set aside."""

import json
import shutil
import time

import pytest
from folders import BEHAVIOUR, KNOWLEDGE, csv_text, dialogue, dialogues_text, set_aside, write_folder

from llmcrs_utils.corpus.faults import ERRORS, EXAMPLES, NOTES, REMEDIES, CorpusError, Report
from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, KNOWLEDGE_COLUMNS, SPLITS, dialogue_to_json
from llmcrs_utils.corpus.u_need import DIALOGUE_NAMES, read_corpus

VALID, ITEMS, ACTIONS = "valid_dialogue.json", "item_kg.txt", "user_action.txt"
BAD = "dialogue 1 (sid valid1)"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "corpus")


# --- ways to spoil a folder


def field(place, value):
    """The second valid dialogue with ``value`` at ``place``, e.g. ``dialogue.2.act_tag``; ``...`` removes the field."""

    def spoil(folder):
        record = dialogue("valid1")
        *way, last = [int(step) if step.isdigit() else step for step in place.split(".")]
        target = record
        for step in way:
            target = target[step]
        if value is ...:
            del target[last]
        else:
            target[last] = value
        (folder / VALID).write_text(dialogues_text(dialogue("valid0"), record), "utf-8")

    return spoil


def utterance(**changes):
    """The same with several changes in the recommendation."""
    return field("dialogue.2", {**dialogue()["dialogue"][2], **changes})


def text(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_text("utf-8")).encode("utf-8", "surrogatepass"))


def replaced(name, old, new):
    def change(found):
        assert old in found
        return new.join(found.rsplit(old, 1))  # the last one: of valid dialogues that of valid1

    return text(name, change)


def row(name, line):
    return text(name, lambda found: f"{found}\n{line}")


def raw(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def appended(name, content):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + content)


def one_fault(kind, name=VALID, record=BAD, at=""):
    return [(kind, name, record, at)]


ITEM_ROW, ACTION_ROW = "row 4", "row 4"  # the first one appended
LINES = "\n".join(json.dumps(dialogue(f"valid{n}"), ensure_ascii=False) for n in range(4))
TIME, SPAN = "dialogue.2.time", "dialogue.0.attributes.0"
# nothing to be seen: no character, blanks of several widths, characters of no width, control characters
BLANKS = ("", " ", "\t", "\u3000", "\xa0", "\u200b", "\ufeff", "\u200d\u2060", " \u3000\u200b ", "\u3164", "\0")
CONTROL = "\0"


def blank_fields():
    """Every blank in every field that names something: (how to spoil, what is told)."""
    items = ["dialogue.2.rec_item_id.0", "dialogue.2.rec_item_candidates.0.1"]
    places = ["sid", "sellerid", "domain", "dialogue.0.attributes.0.key", *items]
    for place in places:
        for blank in BLANKS:
            record = f"dialogue 1 (sid {blank})" if place == "sid" else BAD
            yield f"{place} is {blank!r}", (field(place, blank), one_fault("empty_field", record=record, at=place))


def blank_cells():
    rows = {
        ITEMS: (KNOWLEDGE_COLUMNS, ["13", "7", "功效", "补水"]),
        ACTIONS: (BEHAVIOUR_COLUMNS, ["7", "u1", "11", "2022-09-18 00:00:00", "0"]),
    }
    for name, (columns, cells) in rows.items():
        for place in range(3):  # the first three columns of both are names
            kind = "no_user" if columns[place] == "user_id_encrypt" else "empty_field"
            for blank in BLANKS:
                line = ",".join([*cells[:place], blank, *cells[place + 1 :]])
                odd = one_fault("control_character", name, ITEM_ROW, columns[place]) if CONTROL in blank else []
                told = one_fault(kind, name, ITEM_ROW, columns[place]) + odd
                yield f"{columns[place]} of {name} is {blank!r}", (row(name, line), told)

# what is done to the folder, and all that has to be told of it: (kind, file, record, field)
CASES = {
    # files
    "split missing": (lambda f: (f / VALID).unlink(), one_fault("missing_file", "", "")),
    "knowledge missing": (lambda f: (f / ITEMS).unlink(), one_fault("missing_file", "", "")),
    "behaviour missing": (lambda f: (f / ACTIONS).unlink(), one_fault("missing_file", "", "")),
    "folder missing": (shutil.rmtree, one_fault("missing_file", "", "")),
    "folder in place of a file": (lambda f: [(f / ITEMS).unlink(), (f / ITEMS).mkdir()], one_fault("missing_file", ITEMS, "")),
    "both naming conventions": (
        lambda f: shutil.copy(f / VALID, f / DIALOGUE_NAMES["valid"][1]),
        one_fault("file_twice", "", ""),
    ),
    "two behaviour files": (lambda f: shutil.copy(f / ACTIONS, f / "old_action.txt"), one_fault("file_twice", "", "")),
    "empty dialogues": (raw(VALID, b""), one_fault("empty_file", VALID, "")),
    "blank dialogues": (raw(VALID, b"\xef\xbb\xbf \r\n\n"), one_fault("empty_file", VALID, "")),
    "empty knowledge": (raw(ITEMS, b""), one_fault("empty_file", ITEMS, "")),
    "empty behaviour": (raw(ACTIONS, b""), one_fault("empty_file", ACTIONS, "")),
    "no dialogues": (raw(VALID, b"[]"), one_fault("no_records", VALID, "")),
    "header of knowledge misspelt": (replaced(ITEMS, "relation_name", "relation"), one_fault("header", ITEMS, "")),
    "columns of knowledge in another order": (
        replaced(ITEMS, ",".join(KNOWLEDGE_COLUMNS), ",".join(reversed(KNOWLEDGE_COLUMNS))),
        one_fault("header", ITEMS, ""),
    ),
    "no header of behaviour": (text(ACTIONS, lambda t: t.split("\n", 1)[1]), one_fault("header", ACTIONS, "")),
    # JSON
    "list cut short": (text(VALID, lambda t: t[:-40]), one_fault("json", VALID, "line 1, column 821")),
    "list cut short between dialogues": (text(VALID, lambda t: t[:-1]), one_fault("json", VALID, "line 1, column 1638")),
    "lines cut short": (text(VALID, lambda t: LINES[:-40]), one_fault("json", VALID, "line 4, column 1")),
    "a broken line": (
        text(VALID, lambda t: LINES.replace('"sid": "valid1"', '"sid": valid1')),
        one_fault("json", VALID, "line 2, column 1"),
    ),
    "a broken line in a list": (
        text(VALID, lambda t: "[" + LINES.replace("\n", ",\n").replace('"valid2",', '"valid2"') + "]"),
        one_fault("json", VALID, "line 3, column 1"),
    ),
    "something behind the list": (text(VALID, lambda t: t + "]"), one_fault("json", VALID, "line 1, column 1639")),
    "nested too deep": (
        text(VALID, lambda t: t[:-1] + ',{"sid": "valid2", "x": ' + "[" * 100_000 + "]}]"),
        one_fault("json", VALID, "line 1, column 1639"),
    ),
    "number too long": (
        replaced(VALID, '"seq_no": 1', '"seq_no": ' + "1" * 5000),
        one_fault("json", VALID, "line 1, column 821"),
    ),
    "NULs at the end": (text(VALID, lambda t: t + "\0" * 512), one_fault("json", VALID, "line 1, column 1639")),
    "no list": (
        text(VALID, lambda t: "5"),
        one_fault("wrong_value", VALID, "dialogue 0 (sid ?)") + one_fault("nothing_left", VALID, ""),
    ),
    "number among dialogues": (text(VALID, lambda t: t[:-1] + ", 5]"), one_fault("wrong_value", VALID, "dialogue 2 (sid ?)")),
    # encodings
    "GBK in a row of UTF-8": (appended(ITEMS, "\n13,7,品牌,好".encode("gbk")), one_fault("encoding", ITEMS, ITEM_ROW)),
    "GBK in a dialogue of UTF-8": (
        lambda f: raw(VALID, (f / VALID).read_bytes().replace("功效？".encode(), "功效？".encode("gbk")))(f),
        [("encoding", VALID, f"dialogue {n} (sid valid{n})", "dialogue.1.send_content") for n in (0, 1)]
        + one_fault("nothing_left", VALID, ""),
    ),
    "UTF-16 without its mark": (
        raw(ITEMS, csv_text(KNOWLEDGE_COLUMNS, KNOWLEDGE).encode("utf-16-le")),
        one_fault("header", ITEMS, ""),
    ),
    "half a character in JSON": (
        replaced(VALID, '"u1"', r'"u\ud83d"'),
        one_fault("surrogate", at="userid"),
    ),
    # fields of dialogues
    "field missing": (field("dialogue.1.send_content", ...), one_fault("missing_field", at="dialogue.1.send_content")),
    "field of the dialogue missing": (field("userid", ...), one_fault("missing_field", at="userid")),
    "optional field misspelt": (
        replaced(VALID, '"rec_item_id": ["11"]', '"rec_item_ids": ["11"]'),
        one_fault("misspelt_field", at="dialogue.2.rec_item_ids")
        + one_fault("candidates_count", at="dialogue.2.rec_item_candidates"),
    ),
    "needed field misspelt": (
        replaced(VALID, '"act_tag"', '"act_tags"'),
        one_fault("misspelt_field", at="dialogue.2.act_tags") + one_fault("missing_field", at="dialogue.2.act_tag"),
    ),
    "field twice": (replaced(VALID, '"seq_no": 2', '"seq_no": 2, "seq_no": 2'), one_fault("repeated_field", at="dialogue.1")),
    "text in place of a list": (utterance(rec_item_id="11"), one_fault("wrong_value", at="dialogue.2.rec_item_id")),
    "null in place of a text": (field("dialogue.0.attributes.0.value", None), one_fault("wrong_value", at=f"{SPAN}.value")),
    "NaN in place of a text": (
        field("dialogue.0.attributes.0.value", float("nan")),
        one_fault("wrong_value", at=f"{SPAN}.value"),
    ),
    "true in place of a number": (
        utterance(seq_no=True),
        one_fault("wrong_value", at="dialogue.2.seq_no") + one_fault("seq_no", at="dialogue.2.seq_no"),
    ),
    "number beyond all bounds": (utterance(seq_no=10**30), one_fault("wrong_value", at="dialogue.2.seq_no")),
    **dict(blank_fields()),
    "no utterances": (field("dialogue", []), one_fault("empty_field", at="dialogue")),
    "unknown act": (utterance(act_tag="系统问"), one_fault("unknown_act", at="dialogue.2.act_tag")),
    "unknown sender": (utterance(sender_type="bot"), one_fault("unknown_sender", at="dialogue.2.sender_type")),
    "sender against act": (utterance(sender_type="用户"), one_fault("sender_act", at="dialogue.2.act_tag")),
    "time unreadable": (utterance(time="yesterday"), one_fault("bad_time", at=TIME)),
    "date impossible": (utterance(time="2022-02-30 14:03:00"), one_fault("bad_time", at=TIME)),
    "time with a zone": (utterance(time="2022-09-18T14:03:00Z"), one_fault("bad_time", at=TIME)),
    "time as a number": (utterance(time=1663480980), one_fault("bad_time", at=TIME)),
    "day without time": (utterance(time="20220918"), one_fault("bad_time", at=TIME)),
    "times fall": (utterance(time="2022-09-18 14:01:59"), one_fault("time_falls", at=TIME)),
    "seq_no repeated": (utterance(seq_no=2), one_fault("seq_no", at="dialogue.2.seq_no")),
    "seq_no falls": (utterance(seq_no=1), one_fault("seq_no", at="dialogue.2.seq_no")),
    "span outside the text": (field(f"{SPAN}.exclusive_end", 9), one_fault("bad_span", at=f"{SPAN}.start")),
    "span half empty": (field(f"{SPAN}.exclusive_end", -1), one_fault("bad_span", at=f"{SPAN}.start")),
    "span backwards": (field(f"{SPAN}.start", 4), one_fault("bad_span", at=f"{SPAN}.start")),
    "span of an empty value": (field(f"{SPAN}.value", ""), one_fault("bad_span", at=f"{SPAN}.start")),
    "too many lists of candidates": (
        utterance(rec_item_candidates=[["11"], ["12"]]),
        one_fault("candidates_count", at="dialogue.2.rec_item_candidates"),
    ),
    "too many verdicts": (
        utterance(rec_item_verdict=["liked", "disliked"]),
        one_fault("verdict_count", at="dialogue.2.rec_item_verdict"),
    ),
    "unknown verdict": (utterance(rec_item_verdict=["loved"]), one_fault("wrong_value", at="dialogue.2.rec_item_verdict.0")),
    "same sid twice": (
        text(VALID, lambda t: dialogues_text(dialogue("valid0"), dialogue("valid0"))),
        one_fault("same_sid", record="dialogue 1 (sid valid0)", at="sid"),
    ),
    "same sid as a number": (
        text(VALID, lambda t: dialogues_text(dialogue("5"), dialogue(5))),
        one_fault("same_sid", record="dialogue 1 (sid 5)", at="sid"),
    ),
    "dialogue in two splits": (field("sid", "test0"), one_fault("two_splits", record="dialogue 1 (sid test0)", at="sid")),
    "several errors in one dialogue": (
        utterance(act_tag="系统问", time="?"),
        one_fault("bad_time", at=TIME) + one_fault("unknown_act", at="dialogue.2.act_tag"),
    ),
    # rows
    "too few fields of knowledge": (row(ITEMS, "13,7,功效"), one_fault("field_count", ITEMS, ITEM_ROW)),
    "line break in a quoted value": (
        row(ITEMS, '13,7,功效,"补水\n保湿"'),
        one_fault("open_quote", ITEMS, ITEM_ROW) + one_fault("field_count", ITEMS, "row 5"),
    ),
    **dict(blank_cells()),
    "too few fields of behaviour": (row(ACTIONS, "7,u1,11,2022-09-18 00:00:00"), one_fault("field_count", ACTIONS, ACTION_ROW)),
    "too many fields of behaviour": (
        row(ACTIONS, "7,u1,11,2022-09-18 00:00:00,0,9"),
        one_fault("field_count", ACTIONS, ACTION_ROW),
    ),
    **{
        f"behaviour at {time!r}": (row(ACTIONS, f"7,u1,11,{time},0"), one_fault("bad_time", ACTIONS, ACTION_ROW, "actime"))
        for time in (
            "",
            "18.9.",
            "now",
            "2022-02-30 00:00:00",
            "2022-09-18 00:00:60",
            "2022-09-18 00:00:00+08:00",
            "0000-01-01 00:00:00",
        )
    },
    "no action can be used": (
        text(ACTIONS, lambda t: t.replace("2022", "22")),
        [("bad_time", ACTIONS, f"row {n}", "actime") for n in (2, 3)] + one_fault("nothing_left", ACTIONS, ""),
    ),
    # what is read all the same
    "unknown field": (field("dialogue.2.mood", "good"), one_fault("unknown_field", at="dialogue.2.mood")),
    "unknown field like a known one": (field("sids", "x"), one_fault("unknown_field", at="sids")),
    "unknown domain": (field("domain", "母婴行业"), one_fault("unknown_domain", at="domain")),
    **{f"shopper {blank!r}": (field("userid", blank), one_fault("guest", at="userid")) for blank in BLANKS if CONTROL not in blank},
    **{
        f"utterance {blank!r}": (field("dialogue.1.send_content", blank), one_fault("empty_utterance", at="dialogue.1.send_content"))
        for blank in BLANKS
        if CONTROL not in blank
    },
    **{
        f"attribute {key!r}": (field("dialogue.1.attributes.0.key", key), one_fault("separator_key", at="dialogue.1.attributes.0.key"))
        for key in ("；", "：", ": ;", " ；；", "：功效")
    },
    "gigantic utterance": (
        field("dialogue.1.send_content", "长" * 1_000_000),
        one_fault("huge_utterance", at="dialogue.1.send_content"),
    ),
    "control character in a dialogue": (
        utterance(send_content="这\0款"),
        one_fault("control_character", at="dialogue.2.send_content"),
    ),
    "raw control character in a dialogue": (
        replaced(VALID, "这款", "这\x07款"),
        one_fault("control_character", at="dialogue.2.send_content"),
    ),
    "control character in a value": (row(ITEMS, "13,7,功效,补\0水"), one_fault("control_character", ITEMS, ITEM_ROW, "value")),
    "span beside the value": (field(f"{SPAN}.start", 1), one_fault("span_text", at=f"{SPAN}.start")),
    "fewer infos than items": (
        utterance(rec_item_id=["11", "12"], rec_item_info=["11@1801"], rec_item_candidates=[]),
        one_fault("info_count", at="dialogue.2.rec_item_info"),
    ),
    "item twice in a turn": (
        utterance(rec_item_id=["11", "11"], rec_item_candidates=[["11", "12"]] * 2),
        one_fault("repeated_item", at="dialogue.2.rec_item_id"),
    ),
    "candidates without the item": (
        utterance(rec_item_candidates=[["12"]]),
        one_fault("candidates_gold", at="dialogue.2.rec_item_candidates.0"),
    ),
    "candidate twice": (
        utterance(rec_item_candidates=[["11", "12", "12"]]),
        one_fault("repeated_candidate", at="dialogue.2.rec_item_candidates.0"),
    ),
    "item in a question": (utterance(act_tag="系统提问"), one_fault("item_elsewhere", at="dialogue.2.rec_item_id")),
    "recommendation without an item": (
        utterance(rec_item_id=[], rec_item_candidates=[]),
        one_fault("no_item", at="dialogue.2.rec_item_id"),
    ),
    "item the catalogue lacks": (
        utterance(rec_item_id=["99"], rec_item_candidates=[]),
        one_fault("unknown_item", at="dialogue.2.rec_item_id.0"),
    ),
    "candidate the catalogue lacks": (
        utterance(rec_item_candidates=[["11", "99"]]),
        one_fault("unknown_item", at="dialogue.2.rec_item_candidates.0.1"),
    ),
    "item of another seller": (field("sellerid", "8"), one_fault("other_seller", at="dialogue.2.rec_item_id.0")),
    "behaviour of an item the catalogue lacks": (
        row(ACTIONS, "7,u1,99,2022-09-18 00:00:00,0"),
        one_fault("unknown_item", ACTIONS, ACTION_ROW, "item_id_encrypt"),
    ),
    "behaviour in another seller's shop": (
        row(ACTIONS, "8,u1,11,2022-09-18 00:00:00,0"),
        one_fault("other_seller", ACTIONS, ACTION_ROW, "seller_id_encrypt"),
    ),
    "item of two sellers": (row(ITEMS, "11,8,功效,补水"), one_fault("two_sellers", ITEMS, ITEM_ROW, "seller_id_encrypt")),
    "knowledge twice": (row(ITEMS, ",".join(KNOWLEDGE[0])), one_fault("duplicate_row", ITEMS, ITEM_ROW)),
    "action twice": (row(ACTIONS, ",".join(BEHAVIOUR[0])), one_fault("duplicate_row", ACTIONS, ACTION_ROW)),
    **{
        f"value {blank!r}": (row(ITEMS, f"13,7,功效,{blank}"), one_fault("empty_value", ITEMS, ITEM_ROW, "value"))
        for blank in BLANKS
        if CONTROL not in blank
    },
    # files that are joined
    "no user of the behaviour": (text(ACTIONS, lambda t: t.replace("u1", "u2")), one_fault("no_match", ACTIONS, "")),
    "no user of the behaviour as it is written": (text(ACTIONS, lambda t: t.replace("u1", "U1")), one_fault("no_match", ACTIONS, "")),
    "some items as they are written": (
        lambda f: [row(ACTIONS, "7,u1,0011,2022-09-18 00:00:00,0")(f)],
        one_fault("unknown_item", ACTIONS, ACTION_ROW, "item_id_encrypt") + one_fault("near_match", ACTIONS, ""),
    ),
    "quote that is never closed": (row(ITEMS, '13,7,尺寸,"24寸'), one_fault("open_quote", ITEMS, ITEM_ROW)),
}


def test_the_folder_is_in_perfect_order_before_it_is_spoilt(folder):
    report = Report()
    corpus = read_corpus(folder, report=report)
    assert report.faults == []
    assert report.summary().splitlines() == [
        "1 of 1 users of the dialogues are among the users of the behaviour",
        "1 of 1 sellers of the dialogues are among the sellers of the behaviour",
        "1 of 1 recommended items are among the items of the product knowledge",
        "2 of 2 candidates are among the items of the product knowledge",
        "1 of 1 sellers of the dialogues are among the sellers of the product knowledge",
        "2 of 2 items of the behaviour are among the items of the product knowledge",
        "1 of 1 sellers of the behaviour are among the sellers of the product knowledge",
        "no errors, no notes",
    ]
    assert [len(corpus.dialogues[split]) for split in SPLITS] == [2, 2, 2]


def test_every_kind_of_fault_has_a_case():
    told = {kind for _, faults in CASES.values() for kind, *_ in faults}
    assert told == set(REMEDIES) and len(CASES) > 90


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_told_with_its_place_and_nothing_is_lost(folder, tmp_path, case):
    spoil, expected = CASES[case]
    spoil(folder)
    expected = [(kind, str(folder / name) if name else str(folder), record, at) for kind, name, record, at in expected]
    errors = [fault for fault in expected if fault[0] in ERRORS]
    aside = tmp_path / "runs" / "set_aside.jsonl"

    # stop: every error at once, each with its place and remedy
    report = Report()
    if errors:
        with pytest.raises(CorpusError) as stopped:
            read_corpus(folder, report=report)
        for kind, file, record, at in errors:
            if kind != "nothing_left":  # of two bad records it is enough to tell these
                message = str(stopped.value)
                assert file in message and record in message and at in message and REMEDIES[kind] in message
    else:
        read_corpus(folder, report=report)
    found = [tuple(fault[:4]) for fault in report.faults]
    assert sorted(found) == sorted(fault for fault in expected if fault[0] != "nothing_left")

    # set aside: the good records are read, the bad ones written down
    report = Report("set_aside", aside)
    if any(not record for _, _, record, _ in errors):
        with pytest.raises(CorpusError):
            read_corpus(folder, report=report)
        assert sorted(tuple(fault[:4]) for fault in report.faults) == sorted(expected)
        return
    corpus = read_corpus(folder, report=report)
    assert sorted(tuple(fault[:4]) for fault in report.faults) == sorted(expected)
    written = set_aside(aside)
    firsts = dict.fromkeys((file, record) for _, file, record, _ in errors)
    assert sorted((line["file"], line["record"]) for line in written) == sorted(firsts)
    assert all(line["kind"] in ERRORS and line["message"] and "raw" in line for line in written)
    assert sum(1 + len(line["also"]) for line in written) == len(errors)
    kept = {str(folder / f"{split}_dialogue.json"): len(corpus.dialogues[split]) for split in SPLITS}
    repeated = sum(kind == "duplicate_row" and file.endswith(ITEMS) for kind, file, *_ in expected)
    kept |= {str(folder / ITEMS): len(corpus.knowledge) + repeated, str(folder / ACTIONS): len(corpus.behaviour)}
    for file, count in kept.items():
        assert count + sum(line["file"] == file for line in written) == report.records[file], file


def test_what_is_set_aside_can_be_mended_and_put_back(folder, tmp_path):
    """Dialogues as the JSON they were, rows as the lines they were, of broken JSON the text."""
    whole = read_corpus(folder)
    bad = dialogue("valid1", domain="")
    (folder / VALID).write_text(dialogues_text(dialogue("valid0"), bad) + "\n{]", "utf-8")
    row(ACTIONS, "7,,11,x,0")(folder)
    left = read_corpus(folder, report=Report("set_aside", tmp_path / "aside.jsonl"))
    assert [d.sid for d in left.dialogues["valid"]] == ["valid0"] and len(left.behaviour) == len(whole.behaviour)
    first, second, third = set_aside(tmp_path / "aside.jsonl")
    assert (first["kind"], first["raw"]) == ("json", "{]") and (second["raw"], third["raw"]) == (bad, "7,,11,x,0")
    assert third["kind"] == "no_user" and third["also"] == ["actime: 'x' is no time"]
    (folder / VALID).write_text(json.dumps([dialogue("valid0"), {**second["raw"], "domain": "美妆行业"}]), "utf-8")
    text(ACTIONS, lambda found: found.replace("\n7,,11,x,0", ""))(folder)
    mended = read_corpus(folder, report=Report("set_aside", tmp_path / "aside.jsonl"))
    assert mended.dialogues == whole.dialogues and (tmp_path / "aside.jsonl").read_text() == ""


def test_every_broken_record_is_counted_in_time_that_grows_with_the_file(folder):
    """Recovery goes on at the next record, not at the end of the file, and does not try every bracket on the way."""
    good = json.dumps(json.loads((folder / "train_dialogue.json").read_text("utf-8"))[0], ensure_ascii=False)
    lines = [(good[:-1] + ",}" if number % 2 else good).replace('"sid": "', f'"sid": "n{number}-') for number in range(600)]
    (folder / "train_dialogue.json").write_text("\n".join(lines), "utf-8")
    report, start = Report("set_aside"), time.process_time()
    corpus = read_corpus(folder, report=report)
    assert report.counts()["json"] == 300 and len(corpus.dialogues["train"]) == 300
    assert time.process_time() - start < 10


def test_one_summary_counts_each_kind_and_shows_the_first_ones(folder):
    for number in range(5):
        row(ACTIONS, f"7,u1,11,never {number},0")(folder)
        row(ACTIONS, f"7,u1,99,2022-09-18 00:00:0{number},0")(folder)
    utterance(act_tag="系统问")(folder)
    with pytest.raises(CorpusError) as stopped:
        read_corpus(folder)
    lines = str(stopped.value).splitlines()
    assert lines[0] == "6 errors, 5 notes; bad records: 6; mend them, or leave them out by bad_records: set_aside"
    headed = [line for line in lines[1:] if not line.startswith(" ")]
    assert headed == [
        f"error unknown_act: 1 ({ERRORS['unknown_act']})",
        f"error bad_time: 5 ({ERRORS['bad_time']})",
        f"note unknown_item: 5 ({NOTES['unknown_item']})",
    ]
    shown = [line for line in lines if "never" in line]
    assert shown == [f"    {folder / ACTIONS}: row {row}, field actime: 'never {n}' is no time" for n, row in ((0, 4), (1, 6))]
    assert len(shown) == EXAMPLES


def test_a_single_error_is_one_line(folder):
    utterance(act_tag="系统问")(folder)
    with pytest.raises(CorpusError) as stopped:
        read_corpus(folder)
    line = str(stopped.value)
    assert line.startswith(f"{folder / VALID}: {BAD}, field dialogue.2.act_tag: ") and line.endswith(f"; {ERRORS['unknown_act']}")
    assert "系统提问" in line and "'系统问'" in line and "\n" not in line


def test_faults_of_all_files_come_together(folder):
    utterance(time="?")(folder)
    row(ITEMS, "13")(folder)
    row(ACTIONS, "7,u1,11,?,0")(folder)
    (folder / "test_dialogue.json").unlink()
    with pytest.raises(CorpusError) as stopped:
        read_corpus(folder)
    for part in ("test is missing", f"{VALID}: {BAD}", f"{ITEMS}: row 4", f"{ACTIONS}: row 4", "4 errors"):
        assert part in str(stopped.value)


def test_a_dialogue_in_two_splits_stays_where_it_is_tested_on(folder, tmp_path):
    (folder / "train_dialogue.json").write_text(dialogues_text(*map(dialogue, ("train0", "valid0", "test0"))), "utf-8")
    text(VALID, lambda t: dialogues_text(*map(dialogue, ("valid0", "valid1", "test1"))))(folder)
    corpus = read_corpus(folder, report=Report("set_aside", tmp_path / "aside.jsonl"))
    sids = {split: [d.sid for d in corpus.dialogues[split]] for split in SPLITS}
    assert sids == {"train": ["train0"], "valid": ["valid0", "valid1"], "test": ["test0", "test1"]}


def test_whole_dialogues_before_a_cut_are_kept(folder, tmp_path):
    whole = [dialogue(f"valid{n}") for n in range(5)]
    found = json.dumps(whole, ensure_ascii=False, indent=1)
    for share in (0.3, 0.5, 0.9):
        (folder / VALID).write_text(found[: int(share * len(found))], "utf-8")
        corpus = read_corpus(folder, report=Report("set_aside", tmp_path / "aside.jsonl"))
        (line,) = set_aside(tmp_path / "aside.jsonl")
        kept = [dialogue_to_json(d) for d in corpus.dialogues["valid"]]
        assert kept == whole[: len(kept)] and len(kept) == int(share * 5)
        assert found[: int(share * len(found))].endswith(line["raw"])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("old", "new"), [('"sid": "valid2"', '"sid": valid2'), ('"dialogue": [', '"dialogue": '), ('"ds": "', '"ds": ')]
)
def test_a_broken_dialogue_costs_only_itself(folder, tmp_path, indent, old, new):
    texts = [json.dumps(dialogue(f"valid{n}"), ensure_ascii=False, indent=indent) for n in range(5)]
    broken = texts[2].replace(old, new)
    assert broken != texts[2]
    for between, around in (("\n", "{}"), (",\n", "[{}]")):
        (folder / VALID).write_text(around.format(between.join([*texts[:2], broken, *texts[3:]])), "utf-8")
        corpus = read_corpus(folder, report=Report("set_aside", tmp_path / "aside.jsonl"))
        assert [d.sid for d in corpus.dialogues["valid"]] == ["valid0", "valid1", "valid3", "valid4"]
        (line,) = set_aside(tmp_path / "aside.jsonl")
        assert line["raw"].strip(", \n") == broken


def test_unknown_way_to_treat_bad_records_is_refused():
    with pytest.raises(ValueError, match="bad_records 'skip' is unknown; known: stop, set_aside"):
        Report("skip")


@pytest.mark.parametrize("encoding", ["utf8-sig-x", "rot13", ""])
def test_unknown_encoding_is_refused(folder, encoding):
    with pytest.raises(LookupError, match=f"encoding '{encoding}' is unknown; known are utf-8, gb18030"):
        read_corpus(folder, encoding)
