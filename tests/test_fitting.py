"""Long inputs lose their oldest utterances, as few as needed, and nothing else."""

import random

import pandas as pd
import pytest
from conftest import SEGMENTS, corpus_of, dialogue_of, said, samples_of

from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.llm.batches import LETTER_TOKENS, encode_instructions
from llmcrs_utils.text.fitting import fit, summarise_fit
from llmcrs_utils.text.instructions import build_instructions, render_input
from llmcrs_utils.text.prompts import CHINESE


def encode(texts):
    assert texts, "a tokenizer is never asked about nothing"
    return [[ord(letter) for letter in text] for text in texts]


def fit_texts(inputs, limit):
    """``inputs``: (utterances that may go, what must stay)."""

    def render(index, dropped):
        utterances, kept = inputs[index]
        return "".join(utterances[dropped:]) + kept

    ids, report = fit(render, [len(utterances) for utterances, _ in inputs], encode, [limit] * len(inputs))
    return ["".join(map(chr, row)) for row in ids], report


@pytest.mark.parametrize(
    ("limit", "text", "cut", "over"),
    [
        (10, "aabbccKEEP", 0, False),  # fits exactly
        (9, "bbccKEEP", 1, False),
        (8, "bbccKEEP", 1, False),
        (7, "ccKEEP", 2, False),
        (5, "KEEP", 3, False),
        (4, "KEEP", 3, False),
        (3, "KEEP", 3, True),  # kept whole, and said so
    ],
)
def test_the_oldest_go_first_as_few_as_needed_and_what_must_stay_stays(limit, text, cut, over):
    texts, report = fit_texts([(["aa", "bb", "cc"], "KEEP")], limit)
    assert texts == [text]
    assert report.to_dict("records") == [{"tokens": len(text), "cut": cut, "shortened": 0, "over": over}]


def test_input_without_anything_to_drop_is_kept_whole_and_flagged():
    texts, report = fit_texts([([], "KEEP"), (["a"], "KEEP")], 3)
    assert texts == ["KEEP", "KEEP"] and list(report["cut"]) == [0, 1] and list(report["over"]) == [True, True]


@pytest.mark.parametrize("seed", range(5))
def test_same_as_trying_every_cut_in_turn(seed):
    generator = random.Random(seed)
    letters = iter(range(0x4E00, 0x9FFF))

    def words(length):
        return "".join(chr(next(letters)) for _ in range(length))

    inputs = [
        ([words(generator.randint(0, 6)) for _ in range(generator.randint(0, 12))], words(generator.randint(1, 12)))
        for _ in range(100)
    ]
    limit = 20
    expected = []
    for utterances, kept in inputs:
        cut = 0
        while cut < len(utterances) and len("".join(utterances[cut:]) + kept) > limit:
            cut += 1
        expected.append(("".join(utterances[cut:]) + kept, cut))
    texts, report = fit_texts(inputs, limit)
    assert list(zip(texts, report["cut"], strict=True)) == expected
    assert list(report["tokens"]) == [len(text) for text in texts]
    assert report["cut"].nunique() > 5 and not report["over"].any()


def test_summary_counts_inputs_cut_and_over_the_limit_by_task():
    _, report = fit_texts([(["aa"], "KEEP"), (["aaaa"], "KEEP"), ([], "KEEPKEEP"), (["a"], "KEE")], 6)
    summary = summarise_fit(report, pd.Series(["respond", "respond", "respond", "elicit"]))
    assert summary.to_dict("index") == {
        "respond": {"inputs": 3, "mean_tokens": 6.0, "max_tokens": 8, "inputs_cut": 1, "inputs_over_limit": 1},
        "elicit": {"inputs": 1, "mean_tokens": 4.0, "max_tokens": 4, "inputs_cut": 0, "inputs_over_limit": 0},
    }


class ByCharacter:
    """A tokenizer of single characters."""

    all_special_tokens = SEGMENTS
    added_tokens_decoder = {}
    eos_token_id = 0

    def __init__(self, model_max_length=10**30):
        self.model_max_length = model_max_length

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def text_of(ids):
    return "".join(map(chr, ids))


@pytest.fixture(scope="module")
def samples():
    talk = [said("用户需求" if n % 2 else "系统解释", f"第{n}句" + "话" * n, [("功效", f"值{n}")]) for n in range(1, 20)]
    last = (said("系统提问", "肤质如何", [("肤质", "")]), said("用户回答", "油", [("肤质", "油")]))
    return samples_of(corpus_of(dialogue_of(*talk, *last, said("系统推荐", "看", [("功效", "好")], ["i01"]))))


def helped_by(samples):
    ranking = [candidates[::-1] for candidates in samples["candidates"]]
    return samples[["sample_id", "task"]].assign(usable=True, text="助手的话", ranking=ranking)


CURRENT = {  # of the last sample of each task, what a CRS must still read
    "understand": "[system]看[LLM]助手的话" + CHINESE.crs["understand"],
    "elicit": "[LLM]助手的话" + CHINESE.crs["elicit"],
    "recommend": "[user]油[understand]肤质：油",
    "respond": "[user]油[understand]肤质：油[recommend]i01[LLM]助手的话" + CHINESE.crs["respond"],
}


SPOKEN = {  # and what an LLM must
    "understand": "当前输入：客服：看",
    "elicit": "用户：第19句" + "话" * 19,
    "recommend": "用户：油\n",
    "respond": "用户：油\n",
}


@pytest.mark.parametrize("task", CURRENT)
@pytest.mark.parametrize("limit", [1, 100, 130, 160])
def test_crs_input_keeps_its_end_and_loses_whole_oldest_turns(samples, task, limit):
    index = {f"i{n:02d}": n for n in range(30)}
    last = samples[samples["task"] == task].tail(1)
    arguments = (last, ByCharacter(), CHINESE, index)
    (whole,), _ = encode_samples(*arguments, 10**6, 64, helped_by(last))
    (short,), report = encode_samples(*arguments, limit, 64, helped_by(last))
    whole, short = text_of(whole["input_ids"]), text_of(short["input_ids"])
    turns = ["".join(turn) for turn in last["context"].iloc[0]]
    cut = int(report["cut"].iloc[0])
    assert whole.endswith(CURRENT[task]) and len(short) < len(whole)
    assert (len(short) > limit) == bool(report["over"].iloc[0]) == (limit == 1) and not report["shortened"].any()
    if limit == 1:  # no more can go: losing the current turn too would not bring it within the limit
        assert cut == len(turns) and short == whole.removeprefix("".join(turns))
    else:
        assert whole == "".join(turns[:cut]) + short and short.endswith(CURRENT[task])
        assert len(turns[cut - 1] + short) > limit, "one turn fewer would have been enough"


LONG = "".join(chr(0x4E00 + n) for n in range(1500))


def with_long_turn(samples, task):
    """The last sample of a task, its current turn's words 1,500 different characters."""
    last = samples[samples["task"] == task].tail(1)
    words = [f"{s[: s.index(']') + 1]}{LONG}" if s.startswith(("[user]", "[system]")) else s for s in last["current"].iloc[0]]
    return last.assign(current=[words])


@pytest.mark.parametrize("task", CURRENT)
@pytest.mark.parametrize(("cutoff_len", "positions"), [(512, 1024), (10**6, 512), (512, 512)])
def test_a_turn_too_long_for_a_crs_loses_its_beginning_and_nothing_else(samples, task, cutoff_len, positions):
    index = {f"i{n:02d}": n for n in range(30)}
    last = with_long_turn(samples, task)
    (example,), report = encode_samples(last, ByCharacter(positions), CHINESE, index, cutoff_len, 10**6, helped_by(last))
    short, shortened = text_of(example["input_ids"]), int(report["shortened"].item())
    assert len(short) == 512 and report.loc[0, ["tokens", "over"]].tolist() == [512, False] and 0 < shortened < 1500
    words = [segment.replace(LONG, LONG[shortened:]) for segment in last["current"].iloc[0]]
    told = last.assign(current=[words], context=[[]])
    (whole,), _ = encode_samples(told, ByCharacter(), CHINESE, index, 10**6, 10**6, helped_by(last))
    assert short == text_of(whole["input_ids"])
    if "labels" in example:
        assert len(example["labels"]) <= positions


def test_an_answer_longer_than_the_model_is_one_clear_error(samples):
    last = samples[samples["task"] == "elicit"].tail(1)
    helped = helped_by(last).assign(text="话" * 600)
    with pytest.raises(ValueError, match=r"sample s1:\d+:elicit: \d+ tokens are left .* the model has 512 positions; shorten the assistant"):
        encode_samples(last, ByCharacter(512), CHINESE, {}, 512, 64, helped)


@pytest.mark.parametrize("task", CURRENT)
@pytest.mark.parametrize("limit", [600, 900])
def test_a_turn_too_long_for_an_llm_loses_its_beginning_and_nothing_else(samples, task, limit):
    facts = {f"i{n:02d}": f"价格是{n}" for n in range(30)}
    last = with_long_turn(samples, task)
    rows = build_instructions(last, facts, CHINESE, helped_by(last))
    (example,), report = encode_instructions(rows, ByCharacter(limit), CHINESE, "plain", 10**6, 8)
    short, room = text_of(example["prompt"]), limit - (LETTER_TOKENS if task == "recommend" else 8)
    shortened = int(report["shortened"].item())
    assert len(short) == room and not report["over"].item() and shortened
    speaker = "客服：" if task == "understand" else "用户："
    row = rows.assign(lines=[[line.replace(LONG, LONG[shortened:]) for line in rows["lines"][0][len(rows["lines"][0]) - rows["keep"][0] :]]])
    row["tail"] = row["tail"].str.replace(LONG, LONG[shortened:])
    rest = render_input(row["lines"][0], row["tail"][0], CHINESE)
    assert short == f"{row['instruction'][0]}\n{rest}\n" and speaker + LONG[shortened:] in rest and LONG[shortened - 1] not in rest


def test_the_summary_counts_shortened_turns_only_where_there_are_any():
    report = pd.DataFrame({"tokens": [4, 4], "cut": [0, 1], "shortened": [0, 3], "over": [False, False]})
    tasks = pd.Series(["elicit", "respond"])
    assert summarise_fit(report, tasks)["inputs_shortened"].to_dict() == {"elicit": 0, "respond": 1}
    assert "inputs_shortened" not in summarise_fit(report.assign(shortened=0), tasks)


@pytest.mark.parametrize("task", CURRENT)
@pytest.mark.parametrize("limit", [1, 350, 450])
def test_llm_input_keeps_instruction_current_turn_candidates_and_help(samples, task, limit):
    facts = {f"i{n:02d}": f"价格是{n}" for n in range(30)}
    last = samples[samples["task"] == task].tail(1)
    rows = build_instructions(last, facts, CHINESE, helped_by(last))
    row = rows.iloc[0]
    (whole,), _ = encode_instructions(rows, ByCharacter(), CHINESE, "plain", 10**6, 8)
    (short,), report = encode_instructions(rows, ByCharacter(), CHINESE, "plain", limit + 8, 8)
    whole, short = text_of(whole["prompt"]), text_of(short["prompt"])
    current = "".join(line + "\n" for line in row["lines"][len(row["lines"]) - row["keep"] :])
    assert SPOKEN[task] in short  # also where no cut brings the prompt within the limit
    assert short.startswith(row["instruction"] + "\n售前对话：") and short.endswith(current + row["tail"] + "\n")
    assert CHINESE.help[task] in row["tail"] and not report["shortened"].any()
    assert task != "recommend" or row["tail"].count("价格是") == 20
    cut, over = report.loc[0, ["cut", "over"]]
    assert cut > 0 and over == (limit == 1) and len(short) < len(whole)
    gone, left = row["lines"][:cut], row["lines"][cut:]
    assert not [line for line in gone if line in short]
    assert not [line for line in left[: len(left) - row["keep"]] if line not in short]
    assert over or len(short) <= limit


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (200, {"tokens": 104, "cut": 2, "shortened": 0, "over": True}),  # all of it can be read: nothing is gained by losing the turn
        (102, {"tokens": 102, "cut": 2, "shortened": 2, "over": True}),  # only as much is lost as the model cannot read
    ],
)
def test_a_turn_is_kept_where_losing_it_would_not_help(positions, expected):
    def render(index: int, dropped: int, lost: int = 0) -> str:
        return "earlier" * (2 - dropped) + "candidate " * 10 + "turn"[lost:]

    ids, report = fit(render, [2], lambda texts: [[0] * len(text) for text in texts], [50], [4], [positions])
    assert report.iloc[0].to_dict() == expected and len(ids[0]) == expected["tokens"]
