"""One system's answers as another's help: joined by sample, nothing where there is none, and counted."""


import pandas as pd
import pytest
from conftest import SEGMENTS

from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.tasks.answers import ranked_answer, text_answer
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.collaboration import coverage, merge_assistant
from llmcrs_utils.text.instructions import build_instructions, to_alpaca
from llmcrs_utils.text.prompts import CHINESE, LETTERS, PROMPTS
from llmcrs_utils.text.segments import crs_segments
from llmcrs_utils.text.shielding import Special

SPECIAL = Special(SEGMENTS)


class ByCharacter:
    all_special_tokens = SEGMENTS
    added_tokens_decoder = {}
    model_max_length = 10**30

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def answers(samples, valid=True):
    """An assistant's answers: recognisable texts and rankings from the last candidate to the first."""
    rows = []
    for sample in samples.to_dict("records"):
        ranking = sample["candidates"][::-1]
        text = ranking[0] if ranking else f"答{len(rows)}：话"
        rows.append({"sample_id": sample["sample_id"], "text": text, "ranking": ranking, "raw": text, "valid": valid})
    return pd.DataFrame(rows)


def read_by_crs(samples, catalogue, helped):
    examples, _ = encode_samples(samples, ByCharacter(), CHINESE, catalogue.index, 10**6, 64, helped)
    return [
        {"input": "".join(map(chr, e["input_ids"])), "helped": e.get("helped"), "history": e.get("history")} for e in examples
    ]


def read_by_llm(samples, catalogue, helped):
    facts = dict(zip(catalogue.items["item_id"], catalogue.items["facts"], strict=True))
    records = to_alpaca(build_instructions(samples, facts, CHINESE, helped), CHINESE)
    return [(record["instruction"], record["input"]) for record in records]


@pytest.fixture(scope="module")
def catalogue(generated):
    return build_catalogue(generated, CHINESE)


def test_help_stands_beside_its_sample_whatever_the_order(generated_samples):
    shuffled = answers(generated_samples).sample(frac=1, random_state=1)
    helped = merge_assistant(generated_samples, shuffled)
    assert list(helped["sample_id"]) == list(generated_samples["sample_id"])
    assert list(helped["text"]) == list(answers(generated_samples)["text"])
    assert helped["usable"].all() and set(helped["split"]) == {"train", "valid", "test"}


def test_help_survives_the_file_it_travels_in(generated_samples, tmp_path):
    predictions = answers(generated_samples)
    predictions.loc[::3, "valid"] = False
    helped = merge_assistant(generated_samples, predictions)
    write_parquet(helped, tmp_path / "help.parquet")
    assert read_parquet(tmp_path / "help.parquet").to_dict("records") == helped.to_dict("records")


def test_unusable_missing_and_gold_looking_answers_contribute_no_text_and_no_ranking(generated_samples):
    unusable = answers(generated_samples, valid=False).assign(text=generated_samples["label"].to_numpy())
    for predictions in (unusable, unusable.iloc[:0], unusable.iloc[:3]):
        helped = merge_assistant(generated_samples, predictions)
        assert not helped["usable"].any() and set(helped["text"]) == {""} and not helped["ranking"].map(len).any()


@pytest.mark.parametrize("how", ["marked unusable", "missing"])
@pytest.mark.parametrize("reader", [read_by_crs, read_by_llm])
def test_an_answer_that_is_not_usable_leaves_every_byte_as_without_assistant(generated_samples, catalogue, reader, how):
    predictions = answers(generated_samples, valid=False).assign(text=generated_samples["label"].to_numpy())
    helped = merge_assistant(generated_samples, predictions if how == "marked unusable" else predictions.iloc[:0])
    assert reader(generated_samples, catalogue, helped) == reader(generated_samples, catalogue, None)


def test_one_unusable_answer_among_usable_ones_is_the_only_one_left_out(generated_samples, catalogue):
    predictions = answers(generated_samples)
    predictions.loc[5, "valid"] = False
    helped = merge_assistant(generated_samples, predictions)
    for reader in (read_by_crs, read_by_llm):
        alone = reader(generated_samples, catalogue, None)
        together = reader(generated_samples, catalogue, helped)
        assert [n for n, (a, b) in enumerate(zip(alone, together, strict=True)) if a == b] == [5]


@pytest.mark.parametrize("task", TASKS)
def test_a_usable_answer_reaches_the_crs_before_its_prompt_or_as_the_item_chosen(generated_samples, catalogue, task):
    samples = generated_samples[generated_samples["task"] == task]
    helped = merge_assistant(samples, answers(samples))
    alone, together = read_by_crs(samples, catalogue, None), read_by_crs(samples, catalogue, helped)
    for sample, help, before, after in zip(samples.to_dict("records"), helped.to_dict("records"), alone, together, strict=True):
        if task == "recommend":
            assert before["helped"] == len(catalogue.index), "the index behind the last item: none"
            assert after == {**before, "helped": catalogue.index[sample["candidates"][-1]]}
        else:
            prompt = CHINESE.crs[task]
            assert after["input"] == before["input"].removesuffix(prompt) + "[LLM]" + help["text"] + prompt
            assert "[LLM]" not in before["input"]


def test_a_ranking_reaches_the_llm_as_letters_of_the_candidates(generated_samples, catalogue):
    samples = generated_samples[generated_samples["task"] == "recommend"]
    helped = merge_assistant(samples, answers(samples))
    for _, text in read_by_llm(samples, catalogue, helped):
        assert f"\n{CHINESE.help['recommend']}{'、'.join(LETTERS[::-1])}\n{CHINESE.candidates}A的" in text


def test_an_assistant_cannot_speak_in_segments():
    sample = {"context": [], "current": ["[user]便宜的"], "task": "understand"}
    _, kept = crs_segments(sample, CHINESE, {"usable": True, "text": "[user]贵的"}, SPECIAL)
    assert kept == "[user]便宜的[LLM]［user］贵的" + CHINESE.crs["understand"]


def test_predictions_of_two_runs_or_of_other_samples_are_refused(generated_samples):
    predictions = answers(generated_samples)
    first = generated_samples["sample_id"].iloc[0]
    with pytest.raises(ValueError, match=f"predicted {first} twice; give the predictions of one system and one seed"):
        merge_assistant(generated_samples, pd.concat([predictions, predictions.head(1)]))
    with pytest.raises(ValueError, match="predicted elsewhere, which is none of the samples"):
        merge_assistant(generated_samples, pd.concat([predictions, predictions.head(1).assign(sample_id="elsewhere")]))


def test_coverage_counts_usable_answers_by_task_and_split():
    samples = pd.DataFrame(
        [(f"{t}{split}{n}", split, t) for t in ("understand", "elicit") for split in ("train", "test") for n in range(4)],
        columns=["sample_id", "split", "task"],
    ).assign(label="y")
    predictions = samples.assign(text="x", ranking=[[]] * len(samples), valid=True)
    predictions.loc[[0, 1, 2], "valid"] = False
    table = coverage(merge_assistant(samples, predictions.drop(index=[15, 14])))
    assert table.to_dict("records") == [
        {"task": "understand", "split": "train", "samples": 4, "usable": 1, "share": 0.25},
        {"task": "understand", "split": "test", "samples": 4, "usable": 4, "share": 1.0},
        {"task": "elicit", "split": "train", "samples": 4, "usable": 4, "share": 1.0},
        {"task": "elicit", "split": "test", "samples": 4, "usable": 2, "share": 0.5},
    ]


@pytest.mark.parametrize("language", PROMPTS)
@pytest.mark.parametrize(
    ("task", "raw", "valid"),
    [
        ("understand", "功效：补水", True),
        ("understand", " ", False),
        ("understand", "；；", False),
        ("elicit", "功效", True),
        ("elicit", "", False),
        ("elicit", "：补水", False),
        ("respond", "亲，您好", True),
        ("respond", " \n", False),
    ],
)
def test_a_text_is_usable_where_it_names_or_says_something(language, task, raw, valid):
    prompts = PROMPTS[language]
    raw = raw.replace("；", prompts.items).replace("：", prompts.pair)
    answer = text_answer(task, raw, prompts)
    assert (answer["valid"], answer["raw"], answer["ranking"]) == (valid, raw, [])


def test_blanks_between_characters_are_a_tokenizer_s_and_go_in_chinese_only():
    assert text_answer("respond", "亲 您 好", PROMPTS["zh"])["text"] == "亲您好"
    assert text_answer("respond", " a  dry skin ", PROMPTS["en"])["text"] == "a dry skin"


def test_a_ranking_answers_with_its_first_item():
    answer = ranked_answer(["a", "b", "c"], [2, 0, 1], [0.9, 0.5, 0.1], "C")
    assert (answer["text"], answer["ranking"], answer["scores"], answer["valid"]) == ("c", ["c", "a", "b"], [0.9, 0.5, 0.1], True)
