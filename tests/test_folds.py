"""Parts of the training dialogues, each left out once, and the help that comes of it."""

import numpy as np
import pandas as pd
import pytest

from llmcrs_utils.tasks.collaboration import coverage, cross_fitted, merge_assistant, withhold
from llmcrs_utils.tasks.dataset import SPLITS, Dataset
from llmcrs_utils.tasks.folds import HELD_OUT, fold_numbers
from llmcrs_utils.text.instructions import build_instructions, to_alpaca
from llmcrs_utils.text.prompts import CHINESE, LETTERS

SIZES = {"鞋": 17, "机": 10, "妆": 8}


@pytest.fixture(scope="module")
def dataset():
    """35 training dialogues of three categories with two to four samples each, and four of either other split."""
    rows = []
    for split, sizes in (("train", SIZES), ("valid", {"鞋": 4}), ("test", {"机": 4})):
        for domain, count in sizes.items():
            for number in range(count):
                sid = f"{split}-{domain}{number:02d}"
                rows += [{"sample_id": f"{sid}-{n}", "split": split, "sid": sid, "domain": domain} for n in range(2 + number % 3)]
    return Dataset(pd.DataFrame(rows), pd.DataFrame({"item_id": [], "facts": []}))


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_training_dialogue_is_left_out_once_and_whole(dataset, folds):
    train = dataset.split("train")
    seen = []
    for number in range(1, folds + 1):
        parts = dataset.splits(folds, number)
        left_out, kept = parts[HELD_OUT], parts["train"]
        assert set(left_out["sid"]).isdisjoint(kept["sid"]) and len(left_out) + len(kept) == len(train)
        assert set(left_out["sample_id"]) == set(train.loc[train["sid"].isin(left_out["sid"]), "sample_id"])
        assert list(kept.index) == list(range(len(kept))) and list(left_out.index) == list(range(len(left_out)))
        for domain, size in SIZES.items():
            assert size / folds - 1 < left_out.loc[left_out["domain"] == domain, "sid"].nunique() < size / folds + 1
        assert set(left_out["split"]) == {"train"}, "its answers are to training samples"
        for split in ("valid", "test"):
            pd.testing.assert_frame_equal(parts[split], dataset.split(split))
        seen += list(left_out["sid"].unique())
    assert sorted(seen) == sorted(train["sid"].unique())


def test_without_folds_the_splits_are_the_datasets(dataset):
    for parts in (dataset.splits(), dataset.splits(3, 0)):
        assert tuple(parts) == SPLITS
        for name, part in parts.items():
            pd.testing.assert_frame_equal(part, dataset.split(name))


def test_a_dialogue_s_part_does_not_depend_on_the_order_of_rows(dataset):
    train = dataset.split("train")
    numbers = fold_numbers(train, 3)
    assert set(numbers) == {1, 2, 3} and numbers.index.is_unique
    shuffled = fold_numbers(train.sample(frac=1, random_state=1), 3)
    assert shuffled.to_dict() == numbers.to_dict()
    twice = Dataset(dataset.samples.sample(frac=1, random_state=2), dataset.items)
    assert set(twice.splits(3, 2)[HELD_OUT]["sample_id"]) == set(dataset.splits(3, 2)[HELD_OUT]["sample_id"])


def test_parts_do_not_follow_the_order_of_the_corpus(dataset):
    """Neighbours in a corpus, say of one shop or week, must not be dealt out in turn."""
    numbers = fold_numbers(dataset.split("train"), 2)
    in_turn = [numbers[f"train-鞋{n:02d}"] for n in range(17)]
    assert 2 < sum(one != other for one, other in zip(in_turn, in_turn[1:])) < 15


@pytest.mark.parametrize(("folds", "number"), [(3, 4), (3, -1), (0, 1), (2, 3)])
def test_a_part_that_there_is_not_is_refused(dataset, folds, number):
    with pytest.raises(ValueError, match=f"held_out_fold {number} is none of 1 to {folds}"):
        dataset.splits(folds, number)


@pytest.mark.parametrize(("folds", "number"), [(1, 1), (36, 36)])
def test_too_many_parts_or_one_are_refused(dataset, folds, number):
    with pytest.raises(ValueError, match=f"cannot be dealt into {folds} folds"):
        dataset.splits(folds, number)
    assert len(dataset.splits(35, 35)[HELD_OUT]["sid"].unique()) == 1


# --- what the folds' models say


def answers(names, said, split="train", valid=True):
    about = {"sample_id": list(names), "split": split, "system": "allm", "seed": 1, "text": said, "raw": said, "valid": valid}
    frame = pd.DataFrame(about)
    return frame.assign(ranking=[[] for _ in frame.index], scores=[[] for _ in frame.index])


@pytest.fixture
def whole():
    parts = [answers(["t1", "t2", "t3"], "seen"), answers(["v1"], "new", "valid"), answers(["e1", "e2"], "new", "test")]
    return pd.concat(parts, ignore_index=True)


def test_training_answers_are_the_folds_and_all_others_the_whole_model_s(whole):
    found = cross_fitted(whole, [answers(["t3", "t1"], "held out"), answers(["t2"], "held out")])
    assert sorted(found["sample_id"]) == ["e1", "e2", "t1", "t2", "t3", "v1"]
    assert dict(zip(found["sample_id"], found["text"])) == dict.fromkeys(["t1", "t2", "t3"], "held out") | dict.fromkeys(["v1", "e1", "e2"], "new")
    assert set(found.columns) == set(whole.columns) and set(found.loc[found["text"] == "held out", "split"]) == {"train"}


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([["t1", "t2"], ["t2", "t3"]], "^t2: answered by two folds"),
        ([["t1", "t2", "t3"], ["t1", "t2", "t3"]], "^t1: answered by two folds"),
        ([["t1", "t3"]], "^t2: answered by no fold"),
        ([["t1", "t2"], ["t3", "t4"]], "^t4: answered by a fold, but not by the whole model"),
        ([["t1", "t2"], ["t3", "e1"]], "^e1: answered by a fold, but not by the whole model"),
    ],
)
def test_folds_that_do_not_answer_each_training_sample_once_are_refused(whole, folds, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted(whole, [answers(names, "held out") for names in folds])


# --- help withheld, and the gold item in its place


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_about_the_share_is_withheld_by_seed(share):
    given = answers([f"t{n}" for n in range(4000)], "said")
    lost = ~withhold(given, share, 1)["valid"]
    assert lost.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)
    assert lost.equals(~withhold(given, share, 1)["valid"]) and not lost.equals(~withhold(given, share, 2)["valid"])
    assert given["valid"].all(), "the predictions themselves stay"


def test_nothing_all_and_what_was_unusable_before():
    given = answers([f"t{n}" for n in range(100)], "said")
    assert withhold(given, 0.0, 1)["valid"].all() and not withhold(given, 1.0, 1)["valid"].any()
    assert not withhold(given.assign(valid=False), 0.5, 1)["valid"].any()


def helped_by(samples, usable, **settings):
    """The first candidate, or a text of its own, for every sample, usable where ``usable`` says so."""
    rankings = [list(candidates) for candidates in samples["candidates"]]
    said = samples[["sample_id"]].assign(text=[r[0] if r else "说" for r in rankings], ranking=rankings, valid=usable)
    return merge_assistant(samples, said, **settings)


def test_gold_stands_only_where_a_recommendation_is_missing(generated_samples):
    usable = np.arange(len(generated_samples)) % 3 > 0
    usual, published = helped_by(generated_samples, usable), helped_by(generated_samples, usable, fallback="gold")
    replaced = (~usable & (generated_samples["task"] == "recommend")).to_numpy()
    assert 0 < replaced.sum() < (~usable).sum()
    pd.testing.assert_frame_equal(published[~replaced], usual[~replaced])
    assert published.loc[replaced, "usable"].all() and not usual.loc[replaced, "usable"].any()
    gold = generated_samples.loc[replaced, "label"]
    assert list(published.loc[replaced, "text"]) == list(gold) and list(published.loc[replaced, "ranking"]) == [[item] for item in gold]
    missing = merge_assistant(generated_samples, answers([], []), fallback="gold")
    assert missing["usable"].equals(generated_samples["task"] == "recommend") and list(published.columns) == list(usual.columns)
    assert coverage(published).set_index("task").loc["recommend", "share"].eq(1).all()


def test_gold_is_given_to_nobody_who_does_not_ask(generated_samples):
    usual = helped_by(generated_samples, False)
    assert not usual["usable"].any() and set(usual["text"]) == {""} and not usual["ranking"].map(len).any()
    pd.testing.assert_frame_equal(usual, helped_by(generated_samples, False, fallback="nothing"))
    assert "label" not in usual.columns
    with pytest.raises(ValueError, match="fallback 'golden' is unknown; known: nothing, gold"):
        helped_by(generated_samples, False, fallback="golden")


def test_a_gold_item_reaches_an_llm_as_its_letter(generated_samples):
    samples = generated_samples[generated_samples["task"] == "recommend"].reset_index(drop=True)
    facts = {item: "" for candidates in samples["candidates"] for item in candidates}
    asked = to_alpaca(build_instructions(samples, facts, CHINESE, helped_by(samples, False, fallback="gold")), CHINESE)
    for record, candidates, gold in zip(asked, samples["candidates"], samples["label"], strict=True):
        assert f"\n{CHINESE.help['recommend']}{LETTERS[list(candidates).index(gold)]}\n" in record["input"]
