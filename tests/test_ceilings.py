"""The world's true probabilities: they are what happens, and nobody scores better than who knows them."""

from itertools import combinations
from random import Random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from llmcrs_utils.evaluation.floors import matcher_predictions, trivial_predictions
from llmcrs_utils.evaluation.metrics import HEADLINE, METRICS, score
from llmcrs_utils.systems.predictions import SCHEMA
from llmcrs_utils.systems.registry import ORACLE, TASKS
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE, parse_needs
from llmcrs_utils.world import Knobs, ceilings, generate
from llmcrs_utils.world.categories import WORLD_CATEGORIES
from llmcrs_utils.world.ceilings import (
    best_set,
    ceiling_table,
    chosen_items,
    expected_scores,
    oracle_predictions,
    shares,
    true_labels,
)
from llmcrs_utils.world.dialogues import Choice

CERTAIN = ("understand", "elicit", "recommend")  # tasks of which all possible answers can be listed
REPLIES = 120  # of the replies, so many are looked at


@pytest.fixture(scope="module")
def world():
    """All samples, of ``respond`` a part, what the world knows of them, and the probabilities of their test labels."""
    corpus, truth = generate({"train": 100, "test": 600}, 2, 30, actions_per_dialogue=0.0)
    every = build_samples(corpus, build_catalogue(corpus, CHINESE), CHINESE)
    left_out = every.index[(every["task"] == "respond") & (every["split"] == "test")][REPLIES:]
    samples = every.drop(index=left_out).reset_index(drop=True)
    test = samples[samples["split"] == "test"]
    known = {"truth": truth, "labels": true_labels(test, truth), "oracle": oracle_predictions(samples, truth)}
    return SimpleNamespace(every=every, samples=samples, test=test, **known)


@pytest.fixture(scope="module")
def expected(world):
    """What the oracle is to be expected to score."""
    return expected_scores(world.samples, world.oracle, world.labels)


def test_readers_of_a_part_stay_below_who_knows_everything_and_text_helps_where_there_is_more(world):
    table = ceilings.reader_table(world.samples, world.truth)
    text, behaviour, everything = table.index
    assert (table.loc[[text, behaviour]] < table.loc[everything]).all(axis=None)
    recommend = world.test[world.test["task"] == "recommend"]
    scored = score(world.samples, world.oracle, "zh").query("task == 'recommend'")
    assert table.loc[everything, "Acc"] == pytest.approx(scored["Acc"].mean(), abs=0.03) and len(recommend) > 900

    def reads_with(tuples):
        corpus, truth = generate({"train": 1, "test": 150}, 2, 30, actions_per_dialogue=0.0, tuples_per_item=tuples)
        samples = build_samples(corpus, build_catalogue(corpus, CHINESE), CHINESE)
        return ceilings.reader_table(samples, truth), matcher_predictions(samples, corpus.knowledge, CHINESE), samples

    (little, *_), (much, matcher, samples) = reads_with(4.8), reads_with(9.0)
    assert much.loc[text, "Acc"] > little.loc[text, "Acc"] + 0.08 and much.loc[text, "Acc"] > 0.3
    assert much.loc[text, "MRR@5"] > score(samples, matcher, "zh")["MRR@5"].mean() + 0.1


def answers(system, samples, texts, rankings=None):
    """Predictions for ``samples``, which a ``system`` that is none of the study's made."""
    ranked = [[]] * len(samples) if rankings is None else rankings
    about = {"system": system, "seed": 1, "split": "test", "sample_id": samples["sample_id"].tolist(), "text": texts}
    scores = [[0.0] * len(one) for one in ranked]
    return pd.DataFrame({**about, "ranking": ranked, "scores": scores, "raw": texts, "valid": True})


def standard_error(numbers, groups):
    """Of the mean of ``numbers``, those of one group not being independent."""
    return np.sqrt((pd.Series(np.asarray(numbers)).groupby(np.asarray(groups)).sum() ** 2).sum()) / len(numbers)


# --- the probabilities


def test_every_sample_finds_its_turn(world):
    assert set(zip(world.every["sid"], world.every["seq_no"])) <= set(world.truth)
    for task, sid, seq_no, asked in zip(*(world.every[column] for column in ("task", "sid", "seq_no", "asked"))):
        turn = world.truth[sid, seq_no]
        assert bool(turn.questions) == (task == "elicit" or len(asked) > 0) or task == "understand"
        assert turn.choice is not None or task != "recommend"
        assert turn.reply is not None or task != "respond"


def test_probabilities_sum_to_one_and_each_label_is_listed_once(world):
    labels = world.labels.merge(world.test[["sample_id", "task"]], on="sample_id")
    assert set(labels["sample_id"]) == set(world.test["sample_id"])
    assert np.allclose(labels.groupby("sample_id")["probability"].sum(), 1, rtol=1e-9)
    assert labels["probability"].ge(0).all()
    certain = labels[labels["task"].isin(CERTAIN)]
    assert not certain.duplicated(["sample_id", "label"]).any()
    assert (certain[certain["task"] == "recommend"].groupby("sample_id").size() == 20).all()


@pytest.mark.parametrize("task", CERTAIN)
def test_labels_occur_as_often_as_the_world_says(world, task):
    """The label that occurred was possible, and had the probability p as often as p says: its mean is that of sum(p * p)."""
    test = world.test[world.test["task"] == task]
    possible = world.labels[world.labels["sample_id"].isin(test["sample_id"])]
    happened = test.merge(possible, on=["sample_id", "label"])
    assert len(happened) == len(test) and happened["probability"].gt(0).all()
    mean = (possible["probability"] ** 2).groupby(possible["sample_id"]).sum()
    surprise = happened["probability"] - happened["sample_id"].map(mean)
    open_cases = happened["sample_id"].map(possible["probability"].gt(1e-9).groupby(possible["sample_id"]).sum()) > 1
    assert open_cases.sum() > 60
    assert abs(surprise.mean()) < 4 * standard_error(surprise, happened["sid"]) < 0.05
    # and in each range of p: among labels called likely, many occur
    possible = possible.merge(test[["sample_id", "sid", "label"]], on="sample_id", suffixes=("", "_happened"))
    occurred = (possible["label"] == possible["label_happened"]) - possible["probability"]
    ranges = pd.cut(possible["probability"].where(possible["probability"] < 1 - 1e-9), [0, 0.05, 0.2, 0.5, 0.8, 1])
    for _, part in possible.groupby(ranges, observed=True):
        if len(part) > 40:
            assert abs(occurred[part.index].mean()) < 4 * standard_error(occurred[part.index], part["sid"]), task


def test_a_two_item_turn_hides_the_other_item_from_the_candidates(world):
    counts = {turn.choice.count for turn in world.truth.values() if turn.choice is not None}
    assert counts == {1, 2}
    recommended = world.test[world.test["task"] == "recommend"]
    several = [world.truth[sid, seq_no].choice.count > 1 for sid, seq_no in zip(recommended["sid"], recommended["seq_no"])]
    assert sum(several) > 100


def choice_of(weights, count):
    """A choice of which each item is drawn with the given whole number as its weight."""
    choice = Choice([f"i{n:02d}" for n in range(len(weights))], *[None] * 4, implicit_weight=0.5, noise=1.0, count=count)
    object.__setattr__(choice, "weights", lambda implicit_weight=None: np.array(weights))
    return choice


@pytest.mark.parametrize("count", [1, 2])
def test_chosen_items_agree_with_drawing_the_items_and_the_candidates(count):
    """Items are drawn by weight without replacement, then 19 others of the shop evenly, the other item barred; what is given
    is the candidates that came out most often."""
    weights = np.array([300, 250, *[1, 2, 3, 4, 5] * 3, 10, 5, 0, 0, 0])
    n, draws, rng = len(weights), 200_000, np.random.default_rng(0)
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + rng.gumbel(size=(draws, n))  # the highest ones are drawn by weight without replacement
    drawn = np.argsort(-keys, axis=1)[:, :count]
    gold = drawn[np.arange(draws), rng.integers(count, size=draws)]
    lots = rng.random((draws, n))  # the lowest 19 become candidates
    lots[np.arange(draws)[:, None], drawn] = 2.0
    lots[np.arange(draws), gold] = -1.0
    left_out = np.sort(np.argsort(lots, axis=1)[:, 20:], axis=1)
    most = pd.Series(map(tuple, left_out)).value_counts().index[0]
    here = (left_out == most).all(axis=1)
    candidates = [n for n in range(n) if n not in most]
    frequencies = np.bincount(gold[here], minlength=n)[candidates] / here.sum()
    said = dict(chosen_items(choice_of(weights, count), [f"i{n:02d}" for n in candidates]))
    told = np.array([said[f"i{n:02d}"] for n in candidates])
    assert here.sum() > 900
    assert (np.abs(frequencies - told) < 4 * np.sqrt(told * (1 - told) / here.sum()) + 1e-9).all()
    if count == 2:  # the correction matters: the weights alone are refuted
        naive = weights[candidates] / weights[candidates].sum()
        assert (np.abs(frequencies - naive) > 4 * np.sqrt(naive * (1 - naive) / here.sum()) + 1e-9).any()


def test_items_of_other_shops_are_never_the_chosen_one():
    candidates = ["i00", "elsewhere", "i02"]
    assert dict(chosen_items(choice_of([3, 5, 1], 1), candidates)) == {"i00": 0.75, "elsewhere": 0.0, "i02": 0.25}


def test_a_dialogue_of_another_world_is_refused(world):
    with pytest.raises(KeyError):
        true_labels(world.test.assign(sid="elsewhere").head(1), world.truth)


# --- the ceiling


def test_the_oracle_answers_every_test_sample_and_no_other(world):
    assert list(world.oracle["sample_id"]) == list(world.test["sample_id"])
    assert list(world.oracle.columns) == SCHEMA.names and set(world.oracle["system"]) == {ORACLE}


@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_scores_what_is_expected_of_it(world, expected, task):
    """On the answers that did occur, within 4 standard errors, by each metric."""
    came = score(world.samples, world.oracle, "zh")
    both = came[came["task"] == task].merge(expected, on="sample_id", suffixes=("", "_expected"), validate="one_to_one")
    assert len(both) == (world.test["task"] == task).sum()
    for metric in METRICS[task]:
        luck = both[metric] - both[f"{metric}_expected"]
        assert abs(luck.mean()) <= 4 * standard_error(luck, both["sid"]) + 1e-9, metric


def test_ceilings_leave_room_but_are_no_certainty(expected):
    table = ceiling_table(expected)
    assert list(table.index) == [f"{task} ({metric})" for task, metric in HEADLINE.items()]
    assert table.shape == (4, len(WORLD_CATEGORIES) + 1) and table.columns[-1] == "All 5"
    for task, metric in HEADLINE.items():
        mine = expected[expected["task"] == task]
        assert table.loc[f"{task} ({metric})", "All 5"] == pytest.approx(mine[metric].mean())
        shoes = mine.loc[mine["domain"] == "鞋类行业", metric].mean()
        assert table.loc[f"{task} ({metric})", "Shoes"] == pytest.approx(shoes)
    overall = table["All 5"]
    assert 0.97 < overall["understand (F1)"] < 1 and 0.7 < overall["elicit (F1)"] < 0.95
    assert 0.75 < overall["recommend (MRR@5)"] < 0.97 and 0.1 < overall["respond (BLEU-2)"] < 0.6


def drawn_answers(world):
    """One of the possible answers, drawn with its probability: who knows the truth and does not make the best of it."""
    rng, texts, rankings = Random(0), [], []
    labels = {name: (list(part["label"]), list(part["probability"])) for name, part in world.labels.groupby("sample_id")}
    for sample in world.test.itertuples():
        if sample.task == "respond":
            texts.append(" ".join(world.truth[sample.sid, sample.seq_no].reply(Random(f"{sample.sample_id} drawn"))) or "无")
        else:
            texts.append(rng.choices(*labels[sample.sample_id])[0])
        others = [item for item in sample.candidates if item != texts[-1]]
        rankings.append([texts[-1], *others] if sample.task == "recommend" else [])
    return answers("drawn", world.test, texts, rankings)


def item_readers(world):
    """Who ranks by one thing alone: needs, behaviour, popularity."""
    asked = world.test[world.test["task"] == "recommend"]
    choices = [world.truth[sid, seq_no].choice for sid, seq_no in zip(asked["sid"], asked["seq_no"])]
    for reader, weight in (("needs only", 0.0), ("behaviour only", 1.0)):
        likely = [dict(chosen_items(choice, one, weight)) for choice, one in zip(choices, asked["candidates"])]
        rankings = [sorted(one, key=one.get, reverse=True) for one in likely]
        yield answers(reader, asked, [ranking[0] for ranking in rankings], rankings)
    sold = [dict(zip(choice.item_ids, choice.popularity * choice.allowed)) for choice in choices]
    rankings = [sorted(one, key=lambda item: -known.get(item, 0)) for known, one in zip(sold, asked["candidates"])]
    yield answers("popularity", asked, [ranking[0] for ranking in rankings], rankings)


def question_readers(world):
    """Who always asks what the category's shops mostly ask, or mostly ask first."""
    asked = world.test[world.test["task"] == "elicit"]
    train = world.samples[(world.samples["split"] == "train") & (world.samples["task"] == "elicit")]
    for reader, questions in (("frequent question", train), ("frequent first question", train.drop_duplicates("sid"))):
        frequent = questions.groupby("domain")["label"].agg(lambda labels: labels.mode()[0])
        yield answers(reader, asked, asked["domain"].map(frequent).tolist())


def lexicon_reader(world):
    """Who files each word where the shop's own lists have it, and takes a vague question for the first of its attributes."""
    read = world.test[world.test["task"] == "understand"]
    attributes = [(category.domain, attribute) for category in WORLD_CATEGORIES for attribute in category.attributes.values()]
    listed = {(domain, word): a.key for domain, a in attributes for words in a.words.values() for word in words}
    texts = []
    for sample in read.itertuples():
        pairs = []
        for mention in world.truth[sample.sid, sample.seq_no].mentions:
            key = mention.key
            if mention.may_be:
                key = listed.get((sample.domain, mention.word), next(iter(mention.may_be)))
            pairs.append(f"{key}{CHINESE.pair}{mention.word}")
        texts.append(CHINESE.items.join(pairs))
    return answers("lexicon", read, texts)


def test_nobody_scores_better_than_the_oracle(world, expected):
    """By the headline metric: in no sample of the tasks whose answers can be listed, and clearly not on average.

    In ``understand`` little is open: most words can be filed in one way only.
    """
    trivial = trivial_predictions(world.samples)
    others = [trivial, drawn_answers(world), *item_readers(world), *question_readers(world), lexicon_reader(world)]
    theirs = expected_scores(world.samples, pd.concat(others, ignore_index=True), world.labels)
    compared = theirs.merge(expected, on=["sample_id", "task", "sid"], suffixes=("", "_oracle"))
    clear = {
        "understand": {"trivial"},
        "elicit": {"trivial", "drawn", "frequent question", "frequent first question"},
        "recommend": {"trivial", "drawn", "needs only", "behaviour only", "popularity"},
        "respond": {"trivial", "drawn"},
    }
    for task, metric in HEADLINE.items():
        part = compared[compared["task"] == task]
        assert set(part["system"]) == clear[task] | ({"drawn", "lexicon"} if task == "understand" else set())
        for system, its in part.groupby("system"):
            lead = its[f"{metric}_oracle"] - its[metric]
            assert lead.min() > -1e-9 or task == "respond", (task, system)
            if system in clear[task]:
                assert lead.mean() > 4 * standard_error(lead - lead.mean(), its["sid"]), (task, system)


def test_where_the_desk_asks_anything_the_most_urgent_question_is_not_the_best_answer():
    """At the default difficulty it mostly is; at the highest one a set of several attributes is expected to score more."""
    corpus, truth = generate({"test": 60}, 1, 20, actions_per_dialogue=0.0, knobs=Knobs(elicitation_difficulty=1.0))
    samples = build_samples(corpus, build_catalogue(corpus, CHINESE), CHINESE)
    asked = samples[samples["task"] == "elicit"]
    first = [CHINESE.items.join(truth[sid, seq_no].questions[0][0]) for sid, seq_no in zip(asked["sid"], asked["seq_no"])]
    both = pd.concat([answers("first", asked, first), oracle_predictions(asked, truth)])
    found = expected_scores(asked, both, true_labels(asked, truth)).pivot(index="sample_id", columns="system", values="F1")
    assert (found[ORACLE] - found["first"]).min() > -1e-9
    assert found[ORACLE].mean() > found["first"].mean() + 0.05


def f1(one, other):
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 0.0


@pytest.mark.parametrize("task", ["understand", "elicit"])
def test_no_set_has_a_higher_expected_f1_than_the_best(world, task):
    """Of all sets of possible members (any other can only do harm); to draw an answer with its probability is far worse."""
    test, leads = world.test[world.test["task"] == task], []
    for name, part in world.labels[world.labels["sample_id"].isin(test["sample_id"])].groupby("sample_id"):
        given = list(zip(part["label"], part["probability"]))
        labels = [(frozenset(parse_needs(label, CHINESE)), share) for label, share in given]
        members = sorted(frozenset.union(*[label for label, _ in labels]))
        if len(labels) < 2 or len(members) > 6 or len(leads) == 150:
            continue

        def worth(answer):
            return sum(share * f1(answer, label) for label, share in labels)

        others = [frozenset(some) for size in range(1, len(members) + 1) for some in combinations(members, size)]
        best = worth(frozenset(parse_needs(best_set(given), CHINESE)))
        assert best >= max(map(worth, others)) - 1e-12, name
        leads.append(best - sum(share * worth(label) for label, share in labels))
    assert len(leads) > 40 and min(leads) > -1e-12 and np.mean(leads) > 0.03


def test_best_set_may_be_larger_than_any_label_and_is_not_always_the_likeliest():
    assert set(best_set([("甲", 0.4), ("乙", 0.35), ("甲；乙", 0.25)]).split("；")) == {"甲", "乙"}
    assert best_set([("甲；乙", 0.4), ("甲；丙", 0.3), ("甲", 0.3)]).split("；")[0] == "甲"
    assert best_set([("价位：便宜；品类：面霜", 1.0)]) == "价位：便宜；品类：面霜"
    assert set(best_set([("颜色：", 0.5), ("材质：", 0.5)]).split("；")) <= {"颜色", "材质"}


def test_expected_scores_are_the_mean_over_possible_answers(world):
    """By hand, for one sample of each task."""
    for task in TASKS:
        one = world.samples[(world.samples["task"] == task) & (world.samples["split"] == "test")].iloc[[3]]
        labels = world.labels[world.labels["sample_id"] == one["sample_id"].iloc[0]]
        said = world.oracle[world.oracle["sample_id"] == one["sample_id"].iloc[0]]
        found = expected_scores(one, said, labels)
        by_hand = sum(
            share * score(one.assign(label=label), said, "zh")[HEADLINE[task]].iloc[0]
            for label, share in zip(labels["label"], labels["probability"])
        )
        assert len(found) == 1 and found[HEADLINE[task]].iloc[0] == pytest.approx(by_hand)
        elsewhere = {metric for other in TASKS for metric in METRICS[other]} - set(METRICS[task])
        assert found[sorted(elsewhere)].isna().all(axis=None)


def test_replies_are_drawn_as_the_desk_draws_them(world):
    """What was said is among what may be said: with enough draws, short replies come up again."""
    asked = world.test[world.test["task"] == "respond"]
    again = 0
    for sample in asked.head(60).itertuples():
        rng = Random(sample.sample_id)
        texts = {" ".join(world.truth[sample.sid, sample.seq_no].reply(rng)) for _ in range(60)}
        assert len(texts) > 1
        again += sample.label in texts
    assert again > 5


def test_twelve_wordings_are_enough_for_a_mean(world):
    """The expected score of the oracle's replies hardly depends on which wordings stand for all."""
    some = world.test[world.test["task"] == "respond"].head(80)
    said = world.oracle[world.oracle["sample_id"].isin(some["sample_id"])]
    means = []
    for salt in ("one", "other"):
        rows = [
            (sample.sample_id, text, 1 / ceilings.WORDINGS)
            for sample in some.itertuples()
            for text in ceilings.replies(world.truth[sample.sid, sample.seq_no], Random(f"{sample.sample_id} {salt}"))
        ]
        labels = pd.DataFrame(rows, columns=["sample_id", "label", "probability"])
        means.append(expected_scores(some, said, labels)["BLEU-2"].mean())
    assert abs(means[0] - means[1]) < 0.1 * means[0]


def test_without_noise_and_difficulty_the_ceiling_is_one():
    """The desk takes the best item and asks what is due."""
    sharp = Knobs(choice_noise=0.001, elicitation_difficulty=0.0)
    corpus, truth = generate({"test": 60}, 1, 25, actions_per_dialogue=0.0, knobs=sharp)
    samples = build_samples(corpus, build_catalogue(corpus, CHINESE), CHINESE)
    samples = samples[samples["task"].isin(("elicit", "recommend"))]
    best = expected_scores(samples, oracle_predictions(samples, truth), true_labels(samples, truth))
    elicit, recommend = (best[best["task"] == task] for task in ("elicit", "recommend"))
    assert elicit["F1"].min() == pytest.approx(1)
    places = [int(name.split(":")[1]) for name in recommend["sample_id"]]
    single = [truth[key].choice.count == 1 for key in zip(recommend["sid"], places)]
    assert recommend["Acc"][single].mean() > 0.97
    assert shares([("a", 3), ("b", 1)]) == [("a", 0.75), ("b", 0.25)]
