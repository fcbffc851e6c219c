"""Who is right, what help wins and loses, who follows whom: from made-up scores and answers, by hand."""

import numpy as np
import pandas as pd
import pytest
from made_up import answers_of, in_two_runs, random_scores, scores_of

from llmcrs_utils.evaluation import claims, wording
from llmcrs_utils.evaluation.analysis_figures import lead_figure, pull_figure
from llmcrs_utils.evaluation.complementarity import (
    OUTCOMES,
    RIGHT_FROM,
    agreement,
    by_task,
    confirmed,
    following,
    headroom,
    help_and_harm,
    outcomes,
    outcomes_alone,
    over_others,
    over_the_better,
    pull,
    triples,
)
from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.evaluation.statistics import wide_scores
from llmcrs_utils.systems.registry import system_of

STUDY = ("bcrs", "ccrs", "allm", "allm-bcrs", "allm-ccrs", "bcrs-allm")


@pytest.fixture(scope="module")
def scores():
    """Two seeds of random scores in two tasks."""
    return pd.concat([random_scores(STUDY, "elicit"), random_scores(STUDY, "recommend", start=1)], ignore_index=True)


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


# --- towards the helper


def test_a_score_is_pulled_towards_the_helper_or_away_from_it():
    values = {"bcrs": [0.2] * 30, "allm": [0.6] * 30, "allm-bcrs": [0.3] * 15 + [0.4] * 15, "bcrs-allm": [0.7] * 15 + [0.8] * 15}
    table = pull(scores_of(in_two_runs(values))).set_index("system")
    assert table.loc["ALLM-BCRS", ["alone", "helper", "helped", "gain"]].tolist() == pytest.approx([0.2, 0.6, 0.35, 0.15])
    assert table.loc["BCRS-ALLM", ["alone", "helper", "helped", "gain"]].tolist() == pytest.approx([0.6, 0.2, 0.75, 0.15])
    assert table["towards"].to_dict() == {"ALLM-BCRS": True, "BCRS-ALLM": False} and table["clear"].all()
    assert claims.towards_the_helper(table) == "Help changes 2 of 2 scores significantly; 1 towards the helper's score"
    assert claims.towards_the_helper(table.assign(towards=True)) == "Help changes 2 of 2 scores significantly; both towards the helper's score, 1 past it"
    assert claims.towards_the_helper(table.assign(holds=False)) == "Help changes 0 of 2 scores significantly"
    three = pd.concat([table.loc[["ALLM-BCRS"]]] * 3)  # from 0.2 to 0.35, where the helper has 0.6
    assert claims.towards_the_helper(three) == "Help changes 3 of 3 scores significantly; all towards the helper's score"
    assert claims.towards_the_helper(three.assign(helper=0.35)).endswith("all towards the helper's score"), "level is not past"
    falls = three.assign(alone=0.6, helper=0.2, gain=-0.25)
    assert claims.towards_the_helper(falls).endswith("all towards the helper's score") and claims.towards_the_helper(falls.assign(helped=0.1)).endswith(", 3 past it")
    untested = table.assign(**{"p (Holm)": float("nan"), "holds": False})
    assert claims.towards_the_helper(untested) == "For 2 of 2 changes by help the uncorrected 95% interval excludes zero; 1 goes towards the helper's score"
    assert claims.towards_the_helper(untested.assign(towards=True)).endswith("excludes zero; all 2 go towards the helper's score")
    controls = pd.DataFrame({"system": ["ALLM-BCRS", "BCRS-ALLM"], "task": "elicit", "gain": [-0.25, 0.15], "sound": [True, False]})
    (axes,) = [axes for axes in pull_figure(table.reset_index(), "a corpus", controls).axes if axes.get_title()]
    points = {mark: [line.get_xdata()[0] for line in axes.lines if line.get_marker() == mark and len(line.get_xdata())] for mark in ("o", "|", "D")}
    assert points["o"] == pytest.approx([0.2, 0.35, 0.6, 0.75]) and points["|"] == pytest.approx([0.6, 0.2])
    assert points["D"][0] == pytest.approx(0.6) and np.isnan(points["D"][1])  # a control of a collapsed system is not drawn
    assert [label.get_text() for label in axes.get_yticklabels()] == ["UniMIND(BART)\nwith Chinese-Alpaca *", "Chinese-Alpaca\nwith UniMIND(BART) *"]


@pytest.mark.parametrize("judge", [pull, over_the_better])
def test_only_what_is_significant_on_added_dialogues_too_is_confirmed(judge):
    """A large gain in the first half that is not there in the second is significant on the whole, and not confirmed."""
    helped = {"in both": [0.7] * 29 + [0.6] + [0.7] * 29 + [0.6], "in the first": [0.9] * 30 + [0.4] * 15 + [0.6] * 15}
    found = {}
    for name, values in helped.items():
        scores = scores_of(in_two_runs({"bcrs": [0.5] * 60, "allm": [0.2] * 60, "allm-bcrs": values}))
        added = scores["sid"] >= "d030"
        whole, both = judge(scores), confirmed(judge, scores, added)
        assert (whole["p (Holm)"] < 0.05).all() and (both["p (Holm)"] >= whole["p (Holm)"]).all() and (both["p"] >= whole["p"]).all()
        others = [column for column in whole if column not in ("p", "p (Holm)", "holds")]
        assert both[others].equals(whole[others]) and confirmed(judge, scores).equals(whole)
        found[name] = (both["p (Holm)"] < 0.05).tolist()
        assert "holds" not in both or both["holds"].tolist() == found[name]
    assert found == {"in both": [True], "in the first": [False]}
    few = confirmed(judge, scores, scores["sid"] >= "d055")  # five dialogues are too few for a test
    assert few["p (Holm)"].isna().all() and not few.get("holds", pd.Series(False)).any()
    for none in (scores["sid"] >= "d", scores["sid"] >= "e"):
        with pytest.raises(ValueError, match="of 360 scores were added after a first look: name the dialogues or seeds that were added"):
            confirmed(judge, scores, none)


def test_the_gain_is_drawn_by_the_helpers_lead_and_a_collapsed_case_is_left_out():
    values = {"bcrs": [0.2] * 30, "allm": [0.6] * 30, "allm-bcrs": [0.3] * 15 + [0.4] * 15, "bcrs-allm": [0.7] * 15 + [0.8] * 15}
    few, many = pull(scores_of(in_two_runs(values))), pull(scores_of(in_two_runs(values)), fallen_in("elicit", "allm-bcrs"))
    figure = lead_figure({"few": few, "many": many}, "a corpus")
    (axes,) = figure.axes
    points = [(*line.get_xydata()[0], line.get_markerfacecolor() == "white") for line in axes.lines if len(line.get_xdata()) == 1]
    assert np.array(points) == pytest.approx(np.array([(0.4, 0.15, True), (-0.4, 0.15, True), (-0.4, 0.15, False)]))
    assert figure.get_suptitle() == "Where the helper is ahead, help raises 1 of 1 scores; where it is behind, it lowers 0 of 2 (not tested)\na corpus"
    names = ["LLM assisting CRS", "CRS assisting LLM", "hollow: few", "filled: many", "as good as the helper"]
    assert [text.get_text() for text in figure.legends[0].texts] == names
    third = lead_figure({"few": few, "many": many, "real": few}, "a corpus")
    third.draw_without_rendering()
    places = [text.get_window_extent() for text in third.axes[0].texts]
    assert [text.get_text() for text in third.axes[0].texts] == ["elicit"] * 5
    assert not any(one.overlaps(other) for place, one in enumerate(places) for other in places[:place]), "no label covers another, even of the same point"
    edged = [line for line in third.axes[0].lines if len(line.get_xdata()) == 1 and line.get_markeredgecolor() == "black"]
    assert len(edged) == 2 and "black edge: real" in [text.get_text() for text in third.legends[0].texts]
    with pytest.raises(ValueError, match="4 studies: at most 3"):
        lead_figure(dict.fromkeys("abcd", few), "a corpus")


def test_what_only_the_first_seed_shows_is_not_confirmed_by_added_seeds():
    """Each seed has the scores of 30 dialogues; a single added seed cannot be tested."""
    alone = {"bcrs": [[0.5] * 30] * 3, "allm": [[0.2] * 30] * 3}
    all_gain = scores_of(alone | {"allm-bcrs": [[0.7] * 29 + [0.6], [0.7] * 28 + [0.6] * 2, [0.7] * 29 + [0.8]]})
    one_gains = scores_of(alone | {"allm-bcrs": [[0.9] * 29 + [0.8], [0.5] * 28 + [0.4, 0.6], [0.5] * 29 + [0.6]]})
    for scores, holds in ((all_gain, True), (one_gains, False)):
        assert confirmed(pull, scores, scores["seed"] > 1)["holds"].tolist() == [holds]
        alone_added = confirmed(pull, scores, scores["seed"] > 2)
        assert alone_added["p (Holm)"].isna().all() and not alone_added["holds"].any()
    assert pull(all_gain)["holds"].all()


def test_only_changes_that_are_clear_count_as_pulled():
    """With equal scores nothing is pulled; a change that may be chance, or that of a collapsed system, is not counted."""
    even = pull(scores_of(in_two_runs({"bcrs": [0.2] * 30, "allm": [0.2] * 30, "allm-bcrs": [0.2] * 30})))
    assert not even["towards"].any() and not even["clear"].any()
    unsure = pull(scores_of(in_two_runs({"bcrs": [0, 1] * 15, "allm": [1] * 30, "allm-bcrs": [1, 0] * 14 + [1, 1]})))
    assert unsure["towards"].all() and not unsure["clear"].any() and claims.towards_the_helper(unsure) == "Help changes 0 of 1 scores significantly"
    values = in_two_runs({"bcrs": [0.2] * 30, "allm": [0.6] * 30, "allm-bcrs": [0.3] * 15 + [0.4] * 15})
    assert pull(scores_of(values))["clear"].all() and not pull(scores_of(values), fallen_in("elicit", "allm"))["clear"].any()


def fallen_in(task: str, *systems: str) -> pd.DataFrame:
    """The health of answers in which these systems have collapsed."""
    return pd.DataFrame([{"system": system, "seed": 1, "task": task, "collapsed": True} for system in systems])


def test_titles_count_what_the_tables_say_and_no_collapsed_row():
    table = pd.DataFrame({"gain": [0.2, -0.1, 0.3, 0.1], "p (Holm)": [0.01, 0.04, 0.2, np.nan]})
    assert claims.changes(table, "scores") == "Of 3 scores, help raises 1 and lowers 1 significantly"
    assert claims.changes(table[2:], "scores") == "Help changes none of 1 scores significantly"
    assert claims.changes(table[3:], "scores") == "None of the changes of 1 scores by help can be tested"
    beaten = table.assign(sound=[True, True, True, False])
    assert claims.controls_suffice(beaten) == "Of 3 comparisons with the best control, collaborations are significantly better in 1 and worse in 1"
    assert claims.controls_suffice(beaten.assign(**{"p (Holm)": np.nan})) == "A collaboration scores higher than the best control in 2 of 3 cases (not tested)"
    assert claims.controls_suffice(beaten[3:]) == claims.ALL_COLLAPSED
    values = {"bcrs": [1, 1, 1, 0, 0, 0, 0, 0], "allm": [1, 0, 0, 1, 0, 0, 0, 0], "allm-bcrs": [1, 0, 0, 1, 1, 0, 0, 0], "bcrs-allm": [1, 1, 1, 0, 0, 0, 0, 0]}
    scores, collapse = scores_of(values), fallen_in("elicit", "bcrs-allm")
    made = {health is None: [outcomes(scores, health=health), headroom(scores, health), help_and_harm(scores, health=health)] for health in (None, collapse)}
    right, room, turned = made[True]
    assert claims.only_one_is_right(right) == "Only one of the two is right in 38% of the questions"
    assert claims.headroom_left(room).endswith("in 1 of 2 cases")  # gains of 0 and 1/8, headrooms of 1/8 and 2/8: shares of 0 and 1/2
    assert claims.corrected_and_spoiled(turned).endswith("in 1 of 2 cases")  # 2 corrected and 2 spoiled; 2 corrected and 1 spoiled
    right, room, turned = made[False]
    assert claims.only_one_is_right(right) == "Only one of the two is right in 38% of the questions"  # the two alone answer
    assert claims.headroom_left(room).endswith("in 1 of 1 cases") and claims.corrected_and_spoiled(turned).endswith("in 0 of 1 cases")
    both = fallen_in("elicit", "bcrs")
    assert {claims.only_one_is_right(outcomes(scores, health=both)), claims.corrected_and_spoiled(help_and_harm(scores, health=both))} == {claims.ALL_COLLAPSED}
    assert "in 1 of 3 combinations" in claims.categories_raised(pd.DataFrame({"alone": [0.1, 0.2, 0.3], "helped": [0.2, 0.2, 0.1]}))
    crossed = pd.DataFrame({"change": [-0.1, 0.1, -0.2, -0.3], "collapsed": ["", "", "", "ChatGLM"], "change p (Holm)": float("nan")})
    assert claims.cross_fitting_changes(crossed).endswith("in 2 of 3 cases")
    tested = crossed.assign(**{"change p (Holm)": [0.3, 0.01, 0.02, float("nan")]})
    assert claims.cross_fitting_changes(tested) == "Cross-fitted instead of in-sample help: 1 of 3 scores significantly higher, 1 lower"
    assert claims.following_the_helper(pd.DataFrame({"moved": [0.1, -0.1, 0.2], "collapsed": ["", "", "ChatGLM"]})).endswith("in 1 of 2 cases")


def test_takeaways_name_the_split_the_collapse_and_the_largest_difference():
    reached = pd.DataFrame({"metric": ["F1", "BLEU-2"], "value": [0.5, 0.25]}, index=["elicit", "respond"])
    health = pd.DataFrame({"task": ["elicit", "respond"], "collapsed": [False, True]})
    assert wording.scored("A|B", reached, "test", health) == "**Takeaway.** On the test dialogues A|B scores F1 0.500 in elicit, BLEU-2 0.250 in respond. It has collapsed in respond, so its score there says nothing."
    assert "On the held-out dialogues" in wording.scored("A", reached, "held_out", health) and "collapsed" not in wording.scored("A", reached, "test", health[:1])
    quality = pd.DataFrame({"metric": ["F1", "BLEU-2"], "training": [0.9, 0.3], "test": [0.4, 0.25]}, index=["elicit", "respond"])
    said = wording.help_in_words("A", quality)
    assert "in 2 of 2 tasks" in said and "largest in elicit (F1 0.900 against 0.400)" in said
    assert wording.help_in_words("A", quality.assign(training=0.1)).endswith("in 0 of 2 tasks.")


def test_the_takeaway_of_a_run_says_how_many_are_better_than_the_better_of_the_two():
    values = {"bcrs": [0.2] * 30, "allm": [0.6] * 30, "allm-bcrs": [0.3] * 15 + [0.4] * 15, "bcrs-allm": [0.7] * 15 + [0.8] * 15}
    scores = scores_of(in_two_runs(values))
    said = wording.overview(pull(scores), over_the_better(scores))
    assert "Help changes 2 of 2 scores significantly; 1 towards" in said and "**2 of 2** changes by help are significant after Holm's correction: above zero" in said and "**1 of 2** collaborations are significantly better than the better" in said
    assert "**2 of 2** changes by help are significant twice:" in wording.overview(pull(scores), over_the_better(scores), "twice")
    alone = scores[scores["seed"] == 1]
    said = wording.overview(pull(alone), over_the_better(alone))
    assert said.count("tested") == 1 and "Nothing can be tested here (one seed" in said, "it is said once"


# --- who is right


def test_outcomes_by_hand():
    #      right: both, both, CRS, CRS, CRS, LLM, neither, neither; half of the F1 is right, less is not
    values = {"bcrs": [1, 0.5, 1, 0.7, 1, 0.49, 0, 0.2], "allm": [0.5, 1, 0, 0.4, 0.1, 1, 0, 0.1], "allm-bcrs": [0] * 8}
    table = outcomes(scores_of(values))
    assert set(table["crs"]) == {"UniMIND(BART)"} and set(table["llm"]) == {"Chinese-Alpaca"} and set(table["task"]) == {"elicit"}
    assert dict(zip(table["outcome"], table["share"])) == {"both": 2 / 8, "only CRS": 3 / 8, "only LLM": 1 / 8, "neither": 2 / 8}
    assert (table["low"] < table["share"]).all() and (table["share"] < table["high"]).all() and table["low"].min() >= 0


def test_the_four_outcomes_of_a_crs_and_an_llm_add_up_to_1(scores):
    table = outcomes(scores)
    assert len(table) == 2 * 2 * 4 and set(table["crs"]) == {"UniMIND(BART)", "UniMIND(CPT)"}
    for _, part in table.groupby(["crs", "llm", "task"]):
        assert tuple(part["outcome"]) == OUTCOMES and part["share"].sum() == exactly(1)
    assert table[["low", "high"]].stack().between(0, 1).all()


def test_outcomes_follow_the_threshold():
    scores = scores_of({"bcrs": [0.3, 0.6], "allm": [0.6, 0.3], "allm-bcrs": [0, 0]})
    share = lambda right_from: list(outcomes(scores, right_from)["share"])  # noqa: E731
    assert share({"elicit": 0.3}) == [1, 0, 0, 0]
    assert share({"elicit": 0.5}) == [0, 0.5, 0.5, 0]
    assert share({"elicit": 0.7}) == [0, 0, 0, 1]


def test_who_is_right_can_be_asked_of_two_that_do_not_collaborate(scores):
    alone = outcomes_alone(scores[scores["system"].isin(["bcrs", "allm"])], [("bcrs", "allm")])
    pd.testing.assert_frame_equal(alone, outcomes(scores[scores["system"].isin(["bcrs", "allm", "allm-bcrs"])]))


def test_a_system_is_compared_with_another_and_in_each_seed_with_a_floor():
    scores = scores_of({"bcrs": [[0.0, 0.5, 1.0, 0.5], [0.0] * 4], "allm": [[0.5, 0.5, 1.0, 1.0], [1.0] * 4]})
    floor = scores_of({"trivial": [0.25, 0.25, 0.0, 0.0]})
    table = over_others(pd.concat([scores, floor]), "allm", {"elicit": ["bcrs", "trivial"]})
    assert list(table["other"]) == ["UniMIND(BART)", "Most frequent / random"] and set(table["metric"]) == {"F1"}
    assert list(table["ours"]) == [0.875, 0.875] and list(table["theirs"]) == [0.25, 0.125] and list(table["gain"]) == [0.625, 0.75]


def test_a_recommendation_is_right_where_its_first_item_is():
    scores = scores_of({"bcrs": [1, 0], "allm": [1, 1], "allm-bcrs": [1, 1]}, "recommend")
    scores["MRR@5"] = 0.5
    assert list(outcomes(scores)["share"]) == [0.5, 0, 0.5, 0]
    assert RIGHT_FROM["recommend"] == 1 and list(headroom(scores)["headroom"]) == [0]


def test_order_of_rows_does_not_matter(scores):
    shuffled = scores.sample(frac=1, random_state=1, ignore_index=True)
    for analysis in (outcomes, headroom, help_and_harm):
        pd.testing.assert_frame_equal(analysis(shuffled), analysis(scores), rtol=1e-9)


def test_triples_stand_on_the_same_sample_and_seed(scores):
    system = system_of("bcrs-allm")
    asked = scores[scores["task"] == "elicit"]
    values = triples(wide_scores(asked, "F1"), system).set_index(["seed", "sample_id"])
    part = asked.set_index(["system", "seed", "sample_id"])["F1"]
    assert len(values) == 60
    for (seed, sample), row in values.iterrows():
        assert (row["pair"], row["base"], row["assistant"]) == tuple(part[key, seed, sample] for key in ("bcrs-allm", "allm", "bcrs"))
    with pytest.raises(ValueError, match="same samples and seeds"):
        triples(wide_scores(asked.drop(index=asked.index[asked["system"] == "bcrs"][0]), "F1"), system)


def test_tasks_are_those_that_a_collaboration_was_scored_on(scores):
    found = {task: [system.key for system, _ in parts] for task, parts in by_task(scores, HEADLINE)}
    assert found == dict.fromkeys(["elicit", "recommend"], ["allm-bcrs", "allm-ccrs", "bcrs-allm"])
    fewer = scores[(scores["task"] == "elicit") | ~scores["system"].isin(["allm-bcrs", "bcrs-allm"])]
    assert [[system.key for system, _ in parts] for _, parts in by_task(fewer, HEADLINE)] == [found["elicit"], ["allm-ccrs"]]


# --- what the better answer would gain


def test_oracle_is_no_worse_than_either_and_headroom_what_it_adds(scores):
    table = headroom(scores)
    assert len(table) == 3 * 2
    assert (table["oracle"] >= table[["base", "assistant"]].max(axis=1)).all()
    assert list(table["oracle"] - table["base"]) == exactly(list(table["headroom"]))
    assert list(table["gain"] / table["headroom"]) == exactly(list(table["realised"]))


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_where_there_is_headroom_the_share_of_it_has_an_interval(seeds):
    table = headroom(random_scores(STUDY, seeds=seeds, samples=160))
    assert (table["headroom"] > 0.15).all()
    assert (table["low"] < table["realised"]).all() and (table["realised"] < table["high"]).all()


def test_headroom_is_a_mean_over_samples(scores):
    table = headroom(scores).set_index(["system", "task"])
    for task in ("elicit", "recommend"):
        values = triples(wide_scores(scores[scores["task"] == task], HEADLINE[task]), system_of("allm-ccrs"))
        best = [max(base, other) for base, other in zip(values["base"], values["assistant"])]
        row = table.loc[("ALLM-CCRS", task)]
        assert row["oracle"] == exactly(sum(best) / len(best)) and row["metric"] == HEADLINE[task]
        assert (row["base"], row["assistant"]) == (exactly(values["base"].mean()), exactly(values["assistant"].mean()))
        assert row["gain"] == exactly((values["pair"] - values["base"]).mean())


def test_a_collaboration_like_its_base_gains_nothing_and_one_like_the_oracle_all():
    base, other = np.arange(40) / 40, np.arange(40)[::-1] / 40
    scores = scores_of({"bcrs": base, "allm": other, "allm-bcrs": base, "bcrs-allm": np.maximum(base, other)})
    table = headroom(scores).set_index("system")
    assert tuple(table.loc["ALLM-BCRS", ["gain", "realised", "low", "high"]]) == (0, 0, 0, 0)
    assert tuple(table.loc["BCRS-ALLM", ["realised", "low", "high"]]) == exactly((1, 1, 1))
    assert table["luck"].isna().all()  # one seed


def test_without_headroom_no_share_of_it():
    table = headroom(scores_of({"bcrs": [1, 1, 1], "allm": [0, 1, 0], "allm-bcrs": [1, 0, 1]}))
    assert table.loc[0, ["realised", "low", "high"]].isna().all() and table.loc[0, "gain"] == exactly(-1 / 3)


def test_luck_of_two_seeds_by_hand():
    # Seed 2 would add 1/2 and 0 and 0 to seed 1, seed 1 would add 0 and 1/4 and 0 to seed 2: 1/6 and 1/12.
    base = [[0.5, 0.5, 1], [1, 0.25, 1]]
    scores = scores_of({"bcrs": base, "allm": [[0, 0, 0]] * 2, "allm-bcrs": base})
    assert headroom(scores)["luck"][0] == exactly((1 / 6 + 1 / 12) / 2)


def test_a_pair_is_compared_with_the_better_of_its_two():
    base = np.arange(20) / 64
    scores = scores_of(in_two_runs({"bcrs": base, "allm": base + 0.25, "allm-bcrs": base + 0.125, "bcrs-allm": base + 0.5}))
    table = over_the_better(scores)
    assert list(table["system"]) == ["ALLM-BCRS", "BCRS-ALLM"] and set(table["better"]) == {"Chinese-Alpaca"}
    assert table[["gain", "low", "high"]].to_numpy().tolist() == [[-0.125] * 3, [0.25] * 3]
    assert (table["p (Holm)"] < 0.001).all()


# --- what help wins and loses


def test_help_and_harm_by_hand():
    #                        won with and without the assistant being right, lost by and against it; unchanged
    values = {
        "bcrs": [0, 0, 0, 1, 1, 1, 0, 1, 0, 0],
        "allm": [1, 1, 0, 0, 0, 1, 1, 1, 0, 0],
        "allm-bcrs": [1, 1, 1, 0, 0, 0, 0, 1, 0, 1],
    }
    row = help_and_harm(scores_of(values)).loc[0]
    assert (row["help"], row["help, assistant right"]) == (0.4, 0.2)
    assert (row["harm"], row["harm, assistant wrong"]) == (exactly(0.3), 0.2)
    assert row["gain"] == exactly(0.1) and row["low"] < 0.1 < row["high"] and np.isnan(row["churn"])


def test_gain_is_help_less_harm(scores):
    table = help_and_harm(scores).set_index(["system", "task"])
    assert list(table["gain"]) == exactly(list(table["help"] - table["harm"]))
    assert (table["help"] >= table["help, assistant right"]).all() and (table["harm"] >= table["harm, assistant wrong"]).all()
    right = scores[scores["task"] == "elicit"].assign(right=scores["F1"] >= 0.5).groupby("system")["right"].mean()
    assert table.loc[("ALLM-BCRS", "elicit"), "gain"] == exactly(right["allm-bcrs"] - right["bcrs"])


def test_churn_is_how_often_another_seed_gets_wrong_what_one_got_right():
    # From seed 1 to 2 one of four turns wrong, from 2 to 1 two.
    base = [[1, 0, 0, 1], [0, 1, 1, 1]]
    table = help_and_harm(scores_of({"bcrs": base, "allm": base, "allm-bcrs": base}))
    assert (table["churn"][0], table["help"][0], table["harm"][0]) == ((1 / 4 + 2 / 4) / 2, 0, 0)


# --- who follows whom

SAMPLES = pd.DataFrame(
    {"sample_id": ["e1", "e2", "r1", "r2"], "task": ["elicit", "elicit", "recommend", "recommend"], "sid": ["d1", "d2", "d1", "d2"]}
).assign(split="test", domain="Fridges", label="what nobody should look at")
SAID = {"e1": "颜色", "e2": "价格", "r1": ["i1", "i2"], "r2": ["i1", "i2"]}
OTHER = {"e1": "颜色；尺码", "e2": "品牌", "r1": ["i2", "i1"], "r2": ["i1", "i2"]}


def followed(pair, base=SAID, other=OTHER, **unusable):
    """What ``following`` says of ALLM-BCRS by task; ``unusable``: system -> sample ids."""
    given = {"bcrs": base, "allm": other, "allm-bcrs": pair}
    predictions = [answers_of(key, texts, unusable=unusable.get(key.replace("-", "_"), ())) for key, texts in given.items()]
    return following(SAMPLES, pd.concat(predictions), "zh").set_index("task")


def test_identical_answers_agree():
    table = followed(SAID, other=SAID)
    assert list(table.index) == ["elicit", "recommend"] and set(table["system"]) == {"ALLM-BCRS"}
    assert (table[["before", "after", "kept"]] == 1).all(axis=None) and (table[["moved", "low", "high"]] == 0).all(axis=None)


def test_who_takes_over_all_has_moved_as_far_as_there_was_to_go():
    # Before, one attribute of two (F1 2/3) and none of one are the assistant's; of two items one.
    table = followed(OTHER)
    assert list(table["before"]) == exactly([1 / 3, 1 / 2]) and list(table["after"]) == [1, 1]
    assert list(table["moved"]) == exactly([2 / 3, 1 / 2]) and list(table["kept"]) == exactly([1 / 3, 1 / 2])
    assert table.loc["elicit", "low"] < 0 and table.loc["elicit", "high"] > 1  # two dialogues make nothing sure


def test_who_turns_away_moves_below_zero():
    table = followed(SAID | {"e1": "产地"})
    assert table.loc["elicit", "moved"] == exactly(-1 / 3) and table.loc["elicit", "kept"] == 0.5


def test_an_unusable_answer_agrees_with_nothing_not_even_with_another():
    every = list(SAID)
    table = followed(SAID, other=SAID, bcrs=every)
    assert list(table["before"]) == [0, 0] and list(table["after"]) == [1, 1] and list(table["kept"]) == [0, 0]
    table = followed(SAID, other=SAID, bcrs=every, allm=every, allm_bcrs=every)
    assert (table[["before", "after", "kept", "moved"]] == 0).all(axis=None)


def test_agreement_is_with_the_same_seed():
    ours = pd.concat([answers_of("bcrs", {"e1": text}, seed) for seed, text in ((1, "颜色"), (2, "尺码"))])
    same = pd.concat([answers_of("allm", {"e1": text}, seed) for seed, text in ((1, "颜色"), (2, "尺码"))])
    assert list(agreement(SAMPLES, ours, same, "zh")["F1"]) == [1, 1]
    assert list(agreement(SAMPLES, ours, same.assign(seed=3 - same["seed"]), "zh")["F1"]) == [0, 0]


def test_only_test_answers_are_compared():
    trained = answers_of("allm", {"e1": "产地"}, split="train")
    given = {"bcrs": SAID, "allm": SAID, "allm-bcrs": SAID}
    predictions = pd.concat([*(answers_of(key, texts) for key, texts in given.items()), trained])
    assert (following(SAMPLES, predictions, "zh")["after"] == 1).all()


# --- in words


def test_findings_name_what_is_beyond_doubt():
    rows = [("A", "elicit", 0.2, 0.01), ("B", "elicit", -0.1, 0.04), ("C", "respond", 0.3, 0.05), ("D", "respond", 0.3, float("nan"))]
    table = pd.DataFrame(rows, columns=["system", "task", "gain", "p (Holm)"])
    said = wording.findings(table)
    assert said == "**2 of 3** comparisons are significant after Holm's correction: above zero A in elicit (+0.200); below zero B in elicit (-0.100). 1 cannot be tested" + wording.WHY_NOT + "."
    assert wording.findings(table[:1], what="gains", rule="twice") == "**1 of 1** gains is significant twice: above zero A in elicit (+0.200)."
    assert "**None of 1** comparisons is significant" in wording.findings(table[2:])
    assert wording.how_many(table[3:], "gains vary").endswith("in every case there is one seed, there are too few dialogues or a system has collapsed.")
    assert wording.how_many(table[3:].assign(sure=False), "gains vary").endswith("a system has collapsed or it is not certain which helper is better.")
    assert wording.findings(table[2:], what="gains") == "**None of 1** gains is significant after Holm's correction. 1 cannot be tested" + wording.WHY_NOT + "."


def test_a_grid_has_a_star_where_the_gain_is_sure():
    about = {"system": ["A", "A", "B"], "task": ["respond", "elicit", "elicit"], "gain": [0.1, -0.2, 0.3]}
    table = pd.DataFrame(about | {"low": [0.0, -0.3, 0.1], "high": [0.2, -0.1, 0.5], "p (Holm)": [0.05, 0.01, 0.049]})
    shown = wording.grid(table, "gain", "low", "high", "p (Holm)")
    assert list(shown.columns) == ["elicit", "respond"] and list(shown.index) == ["A", "B"]
    assert list(shown["elicit"]) == ["-0.200* [-0.300, -0.100]", "+0.300* [+0.100, +0.500]"]
    assert list(shown["respond"]) == ["+0.100 [+0.000, +0.200]", "–"]
    assert "*" not in "".join(wording.grid(table, "gain", "low", "high")["elicit"])


def test_sentences_hold_the_tables_numbers():
    base = [[1, 0, 0, 1], [0, 1, 1, 1]]
    values = {"bcrs": base, "allm": [[1, 1, 0, 0], [1, 1, 0, 0]], "allm-bcrs": [[1, 1, 0, 1], [1, 1, 1, 1]]}
    scores = scores_of(values)
    assert "only the CRS is right on 38% of the samples, only the LLM on 25%, both on 25%, neither on 12%" in wording.who_is_right(outcomes(scores))
    used = wording.headroom_used(headroom(scores))
    assert "worth 0.250 (another seed of the base: 0.375)" in used and "ALLM-BCRS, being 100% of its headroom" in used
    level = headroom(scores).assign(headroom=0.375)
    assert "In 0 of 1 cases" in wording.headroom_used(level) and "In 1 of 1 cases" in wording.headroom_used(pd.concat([level.assign(headroom=0.4), level.assign(headroom=0.4, collapsed="A")]))
    assert used.endswith("In 0 of 1 cases the headroom is larger than that of another seed of the base.")
    won = wording.turned_by_help(help_and_harm(scores))
    assert "corrects 25% of the answers and spoils 0%; training a base again with another seed corrects and spoils 38% each" in won
    assert "In 2 of 2 cases" in wording.who_follows(followed(OTHER).reset_index())
    assert "In 1 of 2 cases" in wording.who_follows(followed(SAID | {"r1": ["i2", "i1"], "e1": "产地"}).reset_index().assign(moved=[-0.1, 0.2]))
    assert claims.span(pd.Series([0.101, 0.104])) == "10%" and claims.span(pd.Series([0.1, 0.2])) == "10% to 20%"


def test_sentences_leave_out_who_has_collapsed_and_say_so():
    table = pd.DataFrame({
        "system": ["A", "B"], "crs": ["a", "b"], "llm": ["c", "d"], "task": "elicit", "metric": "F1", "collapsed": ["", "B"], "outcome": "both", "share": [0.25, 0.5],
        "headroom": [0.2, 0.4], "luck": [0.1, 0.3], "gain": [0.05, 0.3], "realised": [0.25, 0.75], "before": [0.2, 0.1], "after": [0.4, 0.9], "moved": [0.2, 0.8],
        "help": [0.1, 0.6], "harm": [0.05, 0.7], "churn": [0.02, 0.9],
    })  # fmt: skip
    others = pd.DataFrame({"outcome": ["only CRS", "only LLM", "neither"], "crs": "a", "llm": "c", "task": "elicit", "collapsed": "", "share": 0.25})
    said = [wording.headroom_used(table), wording.who_follows(table), wording.turned_by_help(table), wording.who_is_right(pd.concat([table, others]))]
    assert all(text.endswith("\n\nCases in which a system has collapsed (†) are left out.") for text in said)
    assert "worth 0.200 (another seed of the base: 0.100)" in said[0] and "the best of them, A, being 25%" in said[0]
    assert "In 1 of 1 cases" in said[1] and "of A in elicit" in said[1] and "corrects 10% of the answers and spoils 5%" in said[2] and "both on 25%, neither" in said[3]
    assert "left out" not in wording.headroom_used(table[:1])


def test_p_values_are_shown_as_far_as_they_say_something():
    table = pd.DataFrame({"n": [7], "gain": [0.12345], "p": [0.0002], "change p (Holm)": [0.00099], "low": [float("nan")]})
    assert wording.p_text(table).iloc[0].tolist() == [7, "0.123", "<0.001", "<0.001", "–"]


def test_alone_and_bounds_take_the_best_floor_and_the_ceiling():
    scores = scores_of({"trivial": [0.1, 0.1], "popular": [0.2, 0.4], "bcrs": [0.5, 0.5], "allm": [0.6, 0.5], "oracle": [0.9, 0.9], "allm-bcrs": [1, 1]})
    table = wording.alone_and_bounds(scores)["elicit (F1)"]
    assert table.to_dict() == {"best floor": 0.3, "UniMIND(BART)": 0.5, "Chinese-Alpaca": 0.55, "ceiling": 0.9}
    assert wording.markdown(table.to_frame()[:1]).splitlines()[-1] == "| best floor | 0.3 |"


def test_written_numbers_have_six_digits(tmp_path):
    wording.write_rounded(pd.DataFrame({"task": ["elicit"], "gain": [1 / 3]}), tmp_path / "new" / "gains.csv")
    assert (tmp_path / "new" / "gains.csv").read_text("utf-8") == "task,gain\nelicit,0.333333\n"
