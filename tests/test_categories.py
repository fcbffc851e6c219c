"""Where help helps and what goes with it: effects that made-up scores hold, and none where they hold none."""

import numpy as np
import pandas as pd
import pytest
from made_up import random_scores, scores_of
from scipy import stats

from llmcrs_utils.evaluation.analysis_figures import category_heatmap, category_slopes
from llmcrs_utils.evaluation.categories import (
    beside_vocabulary,
    better_assistant,
    category_gains,
    category_levels,
    disruption,
    trait_effects,
    varies,
)
from llmcrs_utils.evaluation.statistics import holm
from llmcrs_utils.evaluation.traits import TRAITS, sample_traits
from llmcrs_utils.text.prompts import CHINESE

BEAUTY, PHONES = "美妆行业", "手机行业"


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def gains_by_category(gain_of: dict, dialogues=30, noise=0.2, start=0, task="elicit"):
    """ALLM-BCRS over BCRS, two seeds: two samples a dialogue, and in each category the gain it is given, give or take ``noise``."""
    rng = np.random.default_rng(start)
    domains = np.repeat(list(gain_of), 2 * dialogues)
    base = rng.random(len(domains))
    pairs = [base + np.array([gain_of[domain] for domain in domains]) + noise * rng.normal(size=len(domains)) for _ in range(2)]
    sids = [f"d{place // 2:03d}" for place in range(len(domains))]
    return scores_of({"bcrs": [base] * 2, "allm": [base] * 2, "allm-bcrs": pairs}, task, dialogues=sids, domains=domains)


# --- gains of categories


def test_gain_of_a_category_is_that_of_its_samples():
    scores = gains_by_category({BEAUTY: 0.25, "Fridges": -0.125, PHONES: 0}, noise=0)
    table = category_gains(scores).set_index("category")
    assert list(table.index) == ["Beauty", "Phones", "Fridges", "All 3"] and set(table["group"]) == {"LLM assisting CRS"}
    assert list(table["gain"]) == exactly([0.25, 0, -0.125, 0.125 / 3]) and list(table["n"]) == [60, 60, 60, 180]
    assert list(table["p"][["Beauty", "Fridges"]]) == exactly([0, 0]) and table["p"]["Phones"] == 1


def test_the_heatmap_colours_what_is_clear_and_no_collapsed_row():
    scores = gains_by_category({BEAUTY: 0.25, "Fridges": 0, PHONES: 0})
    collapse = pd.DataFrame([{"system": "bcrs", "seed": 1, "task": "elicit", "collapsed": True}])
    for health, coloured, row in ((None, 2, "ALLM-BCRS"), (collapse, 0, "ALLM-BCRS †")):
        table = category_gains(scores, health)
        figure = category_heatmap(table, "a corpus")
        (axes,) = [axes for axes in figure.axes if axes.get_title()]
        assert [label.get_text() for label in axes.get_yticklabels()] == [row]
        grey = [text.get_text() for text in axes.texts if text.get_color() == "0.45"]
        assert len(axes.texts) == 4 and len(grey) == 4 - coloured
        single = coloured and 1  # of the two coloured cells one is the total, which does not count
        tried = 0 if health is not None else 3
        assert f"{single} of {tried} intervals of single categories exclude zero (coloured), chance alone would give {0.05 * tried:.1f}" in figure.get_suptitle().replace("\n", " ")
    assert "collapsed" in figure.get_suptitle()


def test_levels_leave_collapsed_collaborations_out():
    scores = pd.concat([gains_by_category({BEAUTY: 0.25}, noise=0), gains_by_category({BEAUTY: 0.5}, noise=0).replace({"system": {"allm": "cllm", "allm-bcrs": "cllm-bcrs"}}).query("system != 'bcrs'")])
    collapse = pd.DataFrame([{"system": "cllm", "seed": 1, "task": "elicit", "collapsed": True}])
    levels = [category_levels(scores, health) for health in (None, collapse, pd.concat([collapse, collapse.assign(system="bcrs")]))]
    assert [(table["helped"] - table["alone"]).item() for table in levels] == exactly([0.375, 0.25, 0.375])
    assert [table[["pairs", "of"]].iloc[0].tolist() for table in levels] == [[2, 2], [1, 2], [0, 2]]
    traits = pd.DataFrame({"sample_id": scores["sample_id"].unique(), "vocabulary": 3})
    columns = [beside_vocabulary(scores, traits, health)["LLM assisting CRS: elicit"].item() for health in (None, collapse)]
    assert columns == exactly([0.375, 0.25]), "a collapsed collaboration is left out here, too"
    titles = [category_slopes(table, "a corpus").axes[0].get_title() for table in levels]
    assert titles == ["elicit", "elicit\n1 of 2 pairs", "elicit\nall have collapsed"]


def test_slopes_of_all_panels_have_one_scale_that_shows_every_point():
    low, high = gains_by_category({BEAUTY: 0.25}, noise=0), gains_by_category({BEAUTY: 0.5}, noise=0).assign(task="respond")
    high["BLEU-2"] = high["F1"] + 0.4
    panels = category_slopes(category_levels(pd.concat([low.assign(F1=low["F1"] / 4), high])), "a corpus").axes
    assert len({panel.get_ylim() for panel in panels}) == 1 and panels[0].get_ylim()[0] == 0
    assert max(line.get_ydata().max() for panel in panels for line in panel.lines) < panels[0].get_ylim()[1]


def test_levels_of_one_direction_do_not_depend_on_a_collapse_in_the_other():
    one = gains_by_category({BEAUTY: 0.25}, noise=0)
    other = one[one["system"] == "allm-bcrs"].assign(system="bcrs-allm")
    collapse = pd.DataFrame([{"system": "allm-bcrs", "seed": 1, "task": "elicit", "collapsed": True}])
    table = category_levels(pd.concat([one, other]), collapse)
    assert dict(zip(table["direction"], table["pairs"])) == {"LLM assisting CRS": 0, "CRS assisting LLM": 1}


def test_gains_are_corrected_for_the_single_categories_only():
    scores = pd.concat([gains_by_category({BEAUTY: 0.05, PHONES: 0.02}), random_scores(["bcrs", "allm", "allm-bcrs"], "respond", seeds=2)])
    table = category_gains(scores)
    single = ~table["category"].str.startswith("All")
    assert table.loc[~single, "p (Holm)"].isna().all() and table.loc[~single, "p"].notna().all()
    assert list(table.loc[single, "p (Holm)"]) == exactly(list(holm(table.loc[single, "p"])))
    assert list(table.loc[table["task"] == "respond", "category"]) == ["Fridges", "All 3"]  # none of the other two


def test_levels_alone_and_helped():
    values = {"bcrs": [0.1, 0.3, 0.5, 0.7], "ccrs": [0.5] * 4, "allm": [0.4] * 4, "allm-bcrs": [0.2, 0.4, 0.6, 0.6], "allm-ccrs": [1.0] * 4}
    table = category_levels(scores_of(values, domains=["Fridges", "Fridges", BEAUTY, BEAUTY]))
    assert list(table["category"]) == ["Beauty", "Fridges"] and set(table["direction"]) == {"LLM assisting CRS"}
    assert list(table["alone"]) == exactly([(0.5 + 0.7 + 0.5 + 0.5) / 4, (0.1 + 0.3 + 0.5 + 0.5) / 4])
    assert list(table["helped"]) == exactly([(0.6 + 0.6 + 2) / 4, (0.2 + 0.4 + 2) / 4])


# --- do categories differ?


def test_a_planted_difference_of_categories_is_found():
    row = varies(gains_by_category({BEAUTY: 0.25, "Fridges": 0, PHONES: 0.125}, noise=0.1)).loc[0]
    assert row["p"] < 0.01 and row["highest"].startswith("Beauty +0.2") and row["lowest"].startswith("Fridges ")


def test_a_gain_that_is_the_same_in_all_categories_does_not_vary():
    p_values = [varies(gains_by_category(dict.fromkeys([BEAUTY, "Fridges", PHONES], 0.2), start=n)).loc[0, "p"] for n in range(20)]
    assert np.mean(np.array(p_values) < 0.1) < 0.1


def test_runs_that_disagree_about_a_category_show_no_difference():
    """A run may be better in one category by chance. Seen in one run of two, and reversed in the other, it says nothing of the system."""
    domains = np.repeat([BEAUTY, PHONES], 40)
    base, lucky = np.zeros(80), np.where(domains == BEAUTY, 0.5, 0.0) + np.random.default_rng(0).normal(0, 0.05, 80)
    unlucky = np.where(domains == BEAUTY, -0.1, 0.0) + np.random.default_rng(1).normal(0, 0.05, 80)
    scores = scores_of({"bcrs": [base] * 2, "allm": [base] * 2, "allm-bcrs": [lucky, unlucky]}, domains=domains)
    assert varies(scores).loc[0, "p"] > 0.2


def test_dialogues_not_samples_are_dealt_out():
    # Ten samples of a dialogue say the same: few dialogues that differ by chance must not look like many.
    found = []
    for start in range(15):
        rng = np.random.default_rng(start)
        gain = np.repeat(rng.normal(size=24), 10)
        sids, domains = [f"d{place // 10:02d}" for place in range(240)], np.repeat([BEAUTY, PHONES], 120)
        scores = scores_of({"bcrs": [gain * 0] * 2, "allm": [gain * 0] * 2, "allm-bcrs": [gain] * 2}, dialogues=sids, domains=domains)
        found.append(varies(scores).loc[0, "p"] < 0.05)
    assert np.mean(found) < 0.2


def test_two_categories_are_compared_by_a_t_test_corrected_for_two():
    # One sample a dialogue, the same in both runs: 20 dialogues each, as far apart as their noise is wide.
    noise = np.random.default_rng(3).normal(size=40)
    gain, zero = noise + np.repeat([0.0, 1.0], 20), np.zeros(40)
    scores = scores_of({"bcrs": [zero] * 2, "allm": [zero] * 2, "allm-bcrs": [gain] * 2}, domains=np.repeat([BEAUTY, PHONES], 20))
    row = varies(scores).loc[0]
    assert 1 <= row["p"] / (2 * stats.ttest_ind(gain[:20], gain[20:]).pvalue) < 2  # as sure as the smaller side alone
    assert row["lowest"].startswith("Beauty") and row["highest"].startswith("Phones")


def test_a_category_of_few_dialogues_is_not_tested():
    few = scores_of({"bcrs": np.zeros((2, 19)), "allm": np.zeros((2, 19)), "allm-bcrs": np.ones((2, 19))}, domains=[BEAUTY] * 10 + [PHONES] * 9)
    assert np.isnan(varies(few).loc[0, "p"])


def test_one_category_cannot_vary():
    assert np.isnan(varies(gains_by_category({BEAUTY: 0.5})).loc[0, ["p", "p (Holm)"]].astype(float)).all()


def test_several_tests_are_corrected():
    table = varies(pd.concat([gains_by_category({BEAUTY: 0.1, PHONES: 0}, task=task, start=1) for task in ("elicit", "respond")]))
    assert list(table["task"]) == ["elicit", "respond"] and 0.0001 < table["p"][0] < 0.5
    assert list(table["p (Holm)"]) == exactly(list(holm(table["p"]))) and (table["p (Holm)"] > table["p"]).all()


# --- do better assistants help more?


def test_of_two_assistants_the_better_one_is_compared_with_the_other():
    base = np.tile(np.linspace(0, 0.5, 20), (2, 1))
    values = {"bcrs": base, "allm": base + 0.1, "cllm": base + 0.3, "allm-bcrs": base + 0.25, "cllm-bcrs": base + 0.125}
    rows = better_assistant(scores_of(values))
    assert len(rows) == 1
    row = rows.loc[0]
    assert (row["base"], row["better"], row["worse"]) == ("UniMIND(BART)", "ChatGLM", "Chinese-Alpaca")
    assert tuple(row[["lead", "lead of its pair", "low", "high"]]) == exactly((0.2, -0.125, -0.125, -0.125)) and row["p"] == exactly(0)


def test_assistants_are_compared_within_their_base_only():
    keys = ["bcrs", "ccrs", "allm", "cllm", "allm-bcrs", "cllm-bcrs", "allm-ccrs", "bcrs-allm", "ccrs-allm"]
    table = better_assistant(random_scores(keys))
    assert sorted(table["base"]) == ["Chinese-Alpaca", "UniMIND(BART)"] and (table["lead"] >= 0).all()
    alone = random_scores(keys).groupby("system")["F1"].mean()
    names = {"UniMIND(BART)": "bcrs", "UniMIND(CPT)": "ccrs", "ChatGLM": "cllm", "Chinese-Alpaca": "allm"}
    for row in table.itertuples():
        assert row.lead == exactly(alone[names[row.better]] - alone[names[row.worse]])
    assert better_assistant(random_scores(keys[:5])[lambda scores: scores["system"] != "cllm-bcrs"]).empty


# --- does a worse assistant disrupt?


def test_disruption_by_hand():
    # Seen from the base's other seed, the assistant is worse in the first two samples of seed 1 and in the first of seed 2. There, the pair
    # gains -0.5, 0 and -0.25; elsewhere 0.5, 1, 0.5, 0.5 and 1.
    base = [[1, 1, 0.5, 0], [0.75, 0.5, 0.5, 0]]
    values = {"bcrs": base, "allm": [[0, 0, 1, 1], [0, 1, 1, 1]], "allm-bcrs": [[0.5, 1, 1, 1], [0.5, 1, 1, 1]]}
    row = disruption(scores_of(values)).loc[0]
    assert (row["worse"], row["gain where worse"], row["gain elsewhere"]) == (3 / 8, exactly(-0.25), exactly(0.7))
    assert row[["another alone", "beyond it", "low", "high", "p"]].isna().all()  # without a control nothing is said


def test_no_disruption_where_nobody_listens():
    """A pair that is its base, or its base trained anew, is not disrupted, however lucky the base was."""
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    runs = {key: [(rng.random(400) > hard).astype(float) for _ in range(3)] for key in ("bcrs", "allm", "allm-bcrs", "ccrs")}
    row = disruption(scores_of(runs)).loc[0]
    assert row["p"] > 0.05 and row["low"] < 0 < row["high"]
    assert disruption(scores_of(runs | {"allm-bcrs": runs["bcrs"]})).loc[0, "gain where worse"] == 0


def test_losing_what_any_other_system_loses_there_is_no_disruption():
    """Base and assistant are good at different samples. A pair that is no better than another system loses where the base was good."""
    rng = np.random.default_rng(0)
    easy = rng.random(400) < 0.5
    runs = {
        "bcrs": [easy + rng.normal(0, 0.1, 400) for _ in range(3)],
        "allm": [~easy + rng.normal(0, 0.1, 400) for _ in range(3)],
        **{key: [0.5 + rng.normal(0, 0.1, 400) for _ in range(3)] for key in ("allm-bcrs", "ccrs")},
    }
    row = disruption(scores_of(runs)).loc[0]
    assert row["gain where worse"] < -0.4 and row["another alone"] < -0.4 and row["p"] > 0.05
    row = disruption(scores_of(runs | {"allm-bcrs": runs["allm"]})).loc[0]
    assert row["beyond it"] < -0.4 and row["p (Holm)"] < 0.01


def test_a_pair_that_repeats_its_assistant_is_disrupted():
    rng = np.random.default_rng(0)
    base, other = rng.random((3, 100)), rng.random((3, 100)) * 0.5
    row = disruption(scores_of({"bcrs": base, "allm": other, "allm-bcrs": other, "ccrs": base - 0.1})).loc[0]
    assert row["gain where worse"] < -0.1 and row["high"] < 0 and row["p (Holm)"] < 0.05


def test_another_system_alone_is_the_control():
    base = [[1, 1, 0.5, 0], [0.75, 0.5, 0.5, 0]]
    values = {"bcrs": base, "allm": [[0, 0, 1, 1], [0, 1, 1, 1]], "allm-bcrs": base, "ccrs": [[0.5, 0.5, 1, 1], [0.25, 1, 1, 1]]}
    row = disruption(scores_of(values)).loc[0]
    assert row["another alone"] == exactly(-0.5) and row["beyond it"] == exactly(0.5)  # -0.5, -0.5 and -0.5 against nothing lost


def test_disruption_needs_a_second_seed_and_a_worse_assistant():
    for values in ({"bcrs": [1, 1], "allm": [0, 0], "allm-bcrs": [0, 1]}, {key: [[1, 0]] * 2 for key in ("bcrs", "allm", "allm-bcrs")}):
        assert disruption(scores_of(values)).loc[0, ["worse", "gain where worse", "low", "high", "p"]].isna().all()


# --- traits


def traits_of(task="elicit", **columns):
    size = len(next(iter(columns.values())))
    about = pd.DataFrame({"sample_id": [f"{task}-{place:03d}" for place in range(size)], "split": "test", "task": task})
    return about.assign(**dict.fromkeys(TRAITS, np.nan) | columns)


def test_a_planted_difference_is_found_and_a_constant_trait_left_out():
    turns = np.tile([1.0, 2.0, 3.0, 4.0], 20)
    base = np.linspace(0, 0.5, 80)
    scores = scores_of({"bcrs": [base] * 2, "allm": [base] * 2, "allm-bcrs": [base + 0.25 * (turns > 2), base + 0.5 * (turns > 2)]})
    table = trait_effects(scores, traits_of(turns=turns, vocabulary=np.ones(80), needs=np.arange(80) % 2.0))
    assert list(table["trait"]) == ["turns", "needs"]
    turns, needs = table.loc[0], table.loc[1]
    assert tuple(turns[["where low", "where high", "difference"]]) == exactly((0, 0.375, 0.375))
    assert turns["p"] > 0.05 and needs["difference"] == exactly(0) and needs["p"] > 0.5
    assert turns["p (Holm)"] == exactly(2 * turns["p"])


def test_collaborations_of_a_direction_are_taken_together():
    turns, base = np.tile([1.0, 2.0], 20), np.zeros(40)
    values = {"bcrs": base, "ccrs": base, "allm": base, "allm-bcrs": turns, "allm-ccrs": base, "bcrs-allm": -turns}
    table = trait_effects(scores_of(values), traits_of(turns=turns)).set_index("direction")["difference"]
    assert table.to_dict() == {"LLM assisting CRS": exactly(0.5), "CRS assisting LLM": exactly(-1)}


@pytest.mark.parametrize("rare, tested", [(1, False), (9, False), (10, True)])
def test_a_trait_of_few_dialogues_is_left_out(rare, tested):
    gain = np.concatenate([np.full(rare, 0.5), np.linspace(-0.1, 0.1, 31)])
    table = trait_effects(scores_of({"bcrs": gain * 0, "allm": gain * 0, "allm-bcrs": gain}), traits_of(cold=(gain == 0.5) * 1.0))
    assert list(table["difference"]) == (exactly([0.5]) if tested else [])


def test_a_trait_of_categories_is_no_trait_of_samples():
    gain = np.repeat([0.0, 0.5], 20)
    traits = traits_of(vocabulary=np.repeat([100.0, 200.0], 20))
    assert trait_effects(scores_of({"bcrs": gain * 0, "allm": gain * 0, "allm-bcrs": gain}), traits).empty


def test_traits_are_of_the_sample():
    turns = np.random.default_rng(0).permutation(40).astype(float)
    scores = scores_of({"bcrs": turns * 0, "allm": turns * 0, "allm-bcrs": turns > 19})
    shuffled = traits_of(turns=turns).sample(frac=1, random_state=1)
    assert trait_effects(scores, shuffled)["difference"][0] == 1


def test_traits_by_hand():
    def sample(split, task, domain, label, context=(), history=()):
        name = f"{split}-{task}-{label}-{len(context)}"
        about = {"sample_id": name, "split": split, "task": task, "domain": domain, "label": label}
        return about | {"context": list(context), "history": list(history)}

    turn, other = ["[user]红色四十码", "[understand]颜色：红；尺码：40"], ["[system]什么价格", "[understand]价格：", "[elicit]价格"]
    samples = pd.DataFrame(
        [
            sample("train", "understand", "鞋", "颜色：红；尺码：40"),
            sample("train", "understand", "鞋", "颜色：红；颜色：蓝"),
            sample("train", "understand", "机", "内存：大"),
            sample("train", "recommend", "鞋", "i1"),
            sample("train", "recommend", "鞋", "i1", [turn]),
            sample("test", "understand", "鞋", "材质：皮", [turn, other]),
            sample("test", "recommend", "鞋", "i1", [turn, other, turn], ["i9", "i8"]),
            sample("test", "recommend", "机", "i2"),
            sample("test", "elicit", "帽", "颜色", [other]),
        ]
    )
    traits = sample_traits(samples, CHINESE)[5:].reset_index(drop=True)
    assert list(traits["vocabulary"]) == [3, 3, 1, 0] and list(traits["turns"]) == [2, 3, 0, 1]
    assert list(traits["needs"]) == [2, 4, 0, 0]  # an attribute without a value is a question
    nan = np.nan
    np.testing.assert_array_equal(traits[["behaviour", "popularity", "cold"]], [[nan] * 3, [2, 2, 0], [0, 0, 1], [nan] * 3])


def test_traits_of_a_corpus(generated_samples):
    traits = sample_traits(generated_samples, CHINESE)
    assert list(traits["sample_id"]) == list(generated_samples["sample_id"]) and set(TRAITS) < set(traits.columns)
    chosen = traits["task"] == "recommend"
    assert traits.loc[chosen, list(TRAITS)].notna().all(axis=None) and traits.loc[~chosen, ["behaviour", "popularity", "cold"]].isna().all(axis=None)
    assert traits["needs"].max() > 1 and traits["vocabulary"].min() > 0
