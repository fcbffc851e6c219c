"""The metrics against values worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from llmcrs_utils.evaluation.metrics import CUTOFFS, DISLIKED_FIRST, METRICS, score, score_catalogue
from llmcrs_utils.evaluation.tables import disliked_first
from llmcrs_utils.systems.registry import TASKS

ITEMS = [f"i{n}" for n in range(20)]
LABELS = {"understand": "颜色：红；尺码：40", "elicit": "颜色；尺码", "recommend": "i3", "respond": "你好你好吗"}


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=0)


def samples_of(labels, split="test"):
    """One sample per (task, label), each in its own dialogue."""
    rows = [
        {"sample_id": f"{split}-{i}", "split": split, "task": task, "sid": f"{split}-d{i}", "domain": "鞋类行业", "label": label,
         "candidates": ITEMS if task == "recommend" else None}
        for i, (task, label) in enumerate(labels)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def predictions_of(samples, answers, system="bcrs", seed=1, valid=True):
    """An answer is a text, or a ranking for ``recommend``."""
    rows = [
        {"system": system, "seed": seed, "split": sample.split, "sample_id": sample.sample_id,
         "text": answer if isinstance(answer, str) else "", "ranking": None if isinstance(answer, str) else answer,
         "scores": None, "raw": "", "valid": valid}
        for sample, answer in zip(samples.itertuples(), answers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def score_one(task, label, answer, language="zh", valid=True):
    samples = samples_of([(task, label)])
    return score(samples, predictions_of(samples, [answer], valid=valid), language).iloc[0]


@pytest.mark.parametrize(
    "task, label, answer, expected",
    [
        ("understand", "颜色：红；尺码：40", "颜色：红；尺码：41；品类：鞋", (1 / 3, 1 / 2, 2 / 5)),
        ("understand", "颜色：红；尺码：40", "颜色：红", (1, 1 / 2, 2 / 3)),
        ("understand", "功效：", "功效：", (1, 1, 1)),
        ("understand", "功效：", "功效：补水", (0, 0, 0)),
        ("understand", "颜色：红", "颜色：红；颜色：红", (1, 1, 1)),
        ("understand", "颜色：红", "", (0, 0, 0)),
        ("elicit", "颜色；尺码；价格", "价格：便宜；颜色", (1, 2 / 3, 4 / 5)),
        ("elicit", "颜色", "尺码", (0, 0, 0)),
    ],
)
def test_sets(task, label, answer, expected):
    scored = score_one(task, label, answer)
    assert tuple(scored[["P", "R", "F1"]]) == tuple(exactly(value) for value in expected)


def test_english_sets():
    scored = score_one("understand", "color: dark red; size: 40", "size: 41; color:  dark red", "en")
    assert tuple(scored[["P", "R", "F1"]]) == (0.5, 0.5, 0.5)


def test_sets_are_averaged_over_samples():
    samples = samples_of([("elicit", "a；b；c；d"), ("elicit", "a")])
    scores = score(samples, predictions_of(samples, ["a", "a；b"]), "zh")
    assert scores["P"].mean() == exactly((1 + 1 / 2) / 2)
    assert scores["R"].mean() == exactly((1 / 4 + 1) / 2)
    assert scores["F1"].mean() == exactly((2 / 5 + 2 / 3) / 2)


@pytest.mark.parametrize("place", range(20))
def test_ranking(place):
    ranking = [item for item in ITEMS if item != "i3"]
    ranking.insert(place, "i3")
    scored = score_one("recommend", "i3", ranking)
    for k in CUTOFFS:
        inside = place < k
        assert scored[f"Hit@{k}"] == inside
        assert scored[f"MRR@{k}"] == exactly(1 / (place + 1) if inside else 0)
        assert scored[f"NDCG@{k}"] == exactly(math.log(2) / math.log(place + 2) if inside else 0)
    assert scored["Acc"] == scored["Hit@1"]
    hits = [scored[f"Hit@{k}"] for k in CUTOFFS]
    assert hits == sorted(hits)


@pytest.mark.parametrize("ranking, valid", [([], True), (None, True), (["i3"], False)])
def test_no_ranking_scores_zero(ranking, valid):
    scored = score_one("recommend", "i3", ranking, valid=valid)
    assert (scored[list(METRICS["recommend"])] == 0).all()


def test_a_disliked_item_that_comes_first_is_counted_where_there_is_one():
    samples = samples_of([("recommend", "i3")] * 4).assign(disliked=[["i1", "i2"], ["i1"], [], ["i1"]])
    rankings = [["i2", "i3", "i1"], ["i3", "i1"], ["i1"], ["i1", "i3"]]
    answers = predictions_of(samples, rankings)
    answers.loc[3, "valid"] = False
    assert score(samples, answers, "zh")[DISLIKED_FIRST].tolist()[:2] == [1.0, 0.0]
    assert score(samples, answers, "zh")[DISLIKED_FIRST].isna().tolist() == [False, False, True, False]
    assert score(samples, answers, "zh")[DISLIKED_FIRST].tolist()[3] == 0.0  # no usable answer puts nothing first
    assert DISLIKED_FIRST not in score(samples.drop(columns="disliked"), answers, "zh")
    (row,) = disliked_first(score(samples, answers, "zh")).to_dict("records")
    assert (row["value"], row["n"]) == (exactly(1 / 3), 3)
    assert disliked_first(score(samples.drop(columns="disliked"), answers, "zh")).empty


@pytest.mark.parametrize("task", ["understand", "elicit", "respond"])
def test_invalid_answer_scores_as_an_empty_one(task):
    scored = score_one(task, LABELS[task], LABELS[task], valid=False)
    assert not scored["valid"]
    assert (scored[list(METRICS[task])] == 0).all()


def test_distinct_and_bleu_by_characters():
    # 5 characters each, the blank is none, so no brevity penalty. All 5 characters occur in the reference, of the 4 pairs all
    # but 好你, of the 3 triples 你好吗 alone, of the 2 fours none.
    scored = score_one("respond", "你好吗你好", "你好 你好吗")
    assert [scored[f"Dist-{n}"] for n in (1, 2, 3, 4)] == [exactly(3 / 5), exactly(3 / 4), 1, 1]
    assert [scored[f"BLEU-{n} (published)"] for n in (1, 2, 3, 4)] == [1, exactly(3 / 4), exactly(1 / 3), 0]
    cumulative = [1, exactly((3 / 4) ** (1 / 2)), exactly((3 / 4 / 3) ** (1 / 3)), 0]
    assert [scored[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == cumulative


def test_bleu_by_words_with_brevity_penalty():
    # 4 words against 6: penalty exp(1 - 6/4). All words occur in the reference, of the pairs "the cat" and "cat sat" but not
    # "sat mat", of the triples "the cat sat" but not "cat sat mat".
    scored = score_one("respond", "the cat sat on the mat", "the cat sat mat", "en")
    penalty = math.exp(1 - 6 / 4)
    published = [penalty, penalty * 2 / 3, penalty * 1 / 2, 0]
    assert [scored[f"BLEU-{n} (published)"] for n in (1, 2, 3, 4)] == [exactly(value) for value in published]
    cumulative = [penalty, penalty * (2 / 3) ** (1 / 2), penalty * (2 / 3 / 2) ** (1 / 3), 0]
    assert [scored[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == [exactly(value) for value in cumulative]
    assert scored["Dist-1"] == 1


def test_bleu_clips_repetition():
    scored = score_one("respond", "the cat sat", "the the the", "en")
    assert scored["BLEU-1"] == exactly(1 / 3)
    assert scored["Dist-1"] == exactly(1 / 3)


def test_short_reply_has_no_long_grams():
    scored = score_one("respond", "好的", "好的")
    assert [scored[f"Dist-{n}"] for n in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert [scored[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == [1, 1, 0, 0]


def test_perfect_answers_score_one():
    samples = samples_of(list(LABELS.items()))
    scores = score(samples, predictions_of(samples, [*list(LABELS.values())[:2], ["i3", "i1"], LABELS["respond"]]), "zh")
    for row in scores.itertuples():
        for metric in METRICS[row.task]:
            expected = 3 / 5 if metric == "Dist-1" else 3 / 4 if metric == "Dist-2" else 1  # 你好你好吗 repeats itself
            assert scores.loc[row.Index, metric] == exactly(expected)


@pytest.fixture
def study():
    """Two systems, two seeds, all tasks, answers of every quality."""
    rng = np.random.default_rng(0)
    samples = samples_of([(task, LABELS[task]) for task in TASKS for _ in range(6)])
    parts = []
    for system in ("bcrs", "allm"):
        for seed in (1, 2):
            answers = [
                list(rng.permutation(ITEMS)) if task == "recommend" else "".join(rng.permutation(list(label))[: rng.integers(9)])
                for task, label in zip(samples["task"], samples["label"])
            ]
            parts.append(predictions_of(samples, answers, system, seed))
    return samples, pd.concat(parts, ignore_index=True)


def test_scores_lie_within_bounds_and_beside_their_task(study):
    scores = score(*study, "zh")
    assert len(scores) == 2 * 2 * len(study[0])
    for task, part in scores.groupby("task"):
        assert part[list(METRICS[task])].apply(lambda column: column.between(0, 1)).all(axis=None)
        foreign = {metric for other in TASKS for metric in METRICS[other]} - set(METRICS[task])
        assert part[list(foreign)].isna().all(axis=None)


def test_order_of_rows_does_not_matter(study):
    samples, predictions = study
    shuffled = score(samples.sample(frac=1, random_state=1), predictions.sample(frac=1, random_state=2), "zh")
    pd.testing.assert_frame_equal(shuffled, score(samples, predictions, "zh"), check_exact=True)


def test_only_the_split_is_scored(study):
    samples, predictions = study
    train = samples_of([("elicit", "a")], split="train")
    both = score(pd.concat([samples, train]), pd.concat([predictions, predictions_of(train, ["a"])]), "zh")
    pd.testing.assert_frame_equal(both, score(samples, predictions, "zh"))


def test_missing_prediction_raises(study):
    samples, predictions = study
    gone = predictions.drop(index=predictions.index[(predictions.system == "allm") & (predictions.sample_id == "test-7")][1:])
    with pytest.raises(ValueError, match=r"test-7: a sample of elicit, which allm \(seed 2\) did not predict$"):
        score(samples, gone, "zh")


def test_seed_without_a_whole_task_raises(study):
    samples, predictions = study
    elicit = predictions["sample_id"].isin(samples.loc[samples["task"] == "elicit", "sample_id"])
    with pytest.raises(ValueError, match=r"which bcrs \(seed 1\) did not predict \(6 such rows\)"):
        score(samples, predictions[~(elicit & (predictions.system == "bcrs") & (predictions.seed == 1))], "zh")


def test_a_system_may_leave_a_task_out(study):
    samples, predictions = study
    elicit = predictions["sample_id"].isin(samples.loc[samples["task"] == "elicit", "sample_id"])
    scores = score(samples, predictions[~(elicit & (predictions.system == "bcrs"))], "zh")
    assert set(scores.loc[scores["task"] == "elicit", "system"]) == {"allm"}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s, p: (s.drop(index=3), p), "test-3: predicted by bcrs .* but no sample"),
        (lambda s, p: (s, pd.concat([p, p.iloc[[5]]])), "test-5: predicted twice by bcrs, seed 1"),
        (lambda s, p: (pd.concat([s, s.iloc[[2]]]), p), "test-2: two samples"),
        (lambda s, p: (s, p.assign(split="valid")), "test-0: a test sample, which bcrs predicted as valid"),
        (lambda s, p: (s, p.iloc[:0]), "no prediction for any sample"),
    ],
)
def test_tables_that_do_not_fit_raise(study, spoil, message):
    with pytest.raises(ValueError, match=message):
        score(*spoil(*study), "zh")


def test_rankings_of_the_catalogue_are_scored_to_their_fiftieth_place():
    samples = samples_of([("recommend", "i3"), ("recommend", "i4"), ("recommend", "i5"), ("elicit", "a")])
    places = {0: 1, 1: 12, 2: None}  # of the gold item
    rankings = [[f"x{n}" for n in range(50)] for _ in places]
    for row, place in places.items():
        if place:
            rankings[row][place - 1] = samples["label"][row]
    frame = predictions_of(samples[:3], rankings)[["system", "seed", "split", "sample_id", "ranking"]]
    scores = score_catalogue(samples, frame).set_index("sample_id")
    assert set(scores["task"]) == {"catalogue"} and set(METRICS["catalogue"]) < set(scores.columns)
    assert list(scores["Hit@10"]) == [1, 0, 0] and list(scores["Hit@50"]) == [1, 1, 0]
    assert list(scores["MRR@50"]) == exactly([1, 1 / 12, 0])
    assert list(scores["NDCG@50"]) == exactly([1, 1 / math.log2(13), 0]) and list(scores["NDCG@10"]) == [1, 0, 0]
    with pytest.raises(ValueError, match="test-2: a sample of recommend, which bcrs .* did not predict"):
        score_catalogue(samples, frame[:2])
