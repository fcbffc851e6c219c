"""Training-free controls: what they make of two systems whose strengths are planted, and on what their parameters depend."""

import numpy as np
import pandas as pd
import pytest
from made_up import in_two_runs, scores_of

from llmcrs_utils.evaluation.analysis_figures import control_figure
from llmcrs_utils.evaluation.controls import (
    controls,
    error_correlation,
    fusion_curve,
    joined_sets,
    log_softmax,
    over_the_best_control,
    realised,
    reranked,
    sound,
)
from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.evaluation.tables import WITHOUT_TRAINING, summaries
from llmcrs_utils.evaluation.wording import pair_markdown, potential_used
from llmcrs_utils.systems.predictions import SCHEMA
from llmcrs_utils.systems.registry import control_name
from llmcrs_utils.text.prompts import CHINESE, ENGLISH
from llmcrs_utils.world.known_answer import readers_together

ITEMS = [f"i{place:02d}" for place in range(20)]
PAIR = [("bcrs", "allm")]
EACH = 120  # samples of a split
WORDS = "这款手机屏幕很大拍照清楚价格也便宜您看看喜欢什么颜色的呢亲"


def asked(task):
    """Samples of one task, two a dialogue, as many held out as for the test."""
    rng, rows = np.random.default_rng(7), []
    for split in ("valid", "test"):
        for place in range(EACH):
            label = {"recommend": str(rng.choice(ITEMS)), "respond": "".join(rng.permutation(list(WORDS))[:12]), "elicit": "颜色；尺码"}[task]
            rows.append({"sample_id": f"{split}{place}", "split": split, "task": task, "sid": f"{split}{place // 2}", "domain": "手机行业", "label": label})
    return pd.DataFrame(rows)


def ranks(samples, system, signal, seed):
    """Rankings by logits: noise, and ``signal`` (a number per sample) on the right item."""
    rng, rows = np.random.default_rng(seed), []
    for sample, strength in zip(samples.to_dict("records"), signal):
        logits = rng.normal(size=20) + strength * np.array([item == sample["label"] for item in ITEMS])
        order = np.argsort(-logits)
        rows.append(answer(system, sample, ITEMS[order[0]], [ITEMS[place] for place in order], logits[order].tolist(), None))
    return pd.DataFrame(rows, columns=SCHEMA.names)


def writes(samples, system, right, seed, confident=True):
    """Replies: the right one where ``right``, else another; ``confident`` says whether confidence tells which."""
    rng, rows = np.random.default_rng(seed), []
    for sample, knows in zip(samples.to_dict("records"), right):
        confidence = (-0.2 if knows else -1.5) + rng.normal() / 10 if confident else -0.5
        text = sample["label"] if knows else "".join(rng.permutation(list(WORDS))[:12])
        rows.append(answer(system, sample, text, [], [], confidence))
    return pd.DataFrame(rows, columns=SCHEMA.names)


def answer(system, sample, text, ranking, scores, confidence):
    return (system, 1, sample["split"], sample["sample_id"], text, ranking, scores, text, True, confidence)


def halves(samples):
    return np.arange(len(samples)) % 4 < 2


def made_of(samples, *answers, language="zh"):
    answers = pd.concat(answers, ignore_index=True)
    made = controls(samples, answers, answers[answers["split"] == "valid"], language)
    return made, score(samples, pd.concat([answers, made.predictions], ignore_index=True), language)


def found(samples, *answers):
    made, scores = made_of(samples, *answers)
    return realised(scores, PAIR).set_index("way"), made


# --- planted cases


def test_fusion_and_router_realise_the_potential_of_two_complementary_systems():
    samples = asked("recommend")
    knows = halves(samples)
    table, made = found(samples, ranks(samples, "bcrs", 6.0 * knows, 1), ranks(samples, "allm", 6.0 * ~knows, 2))
    assert table.loc["Fusion", "realised"] > 0.8 and table.loc["Router", "realised"] > 0.8
    assert table.loc["Fusion", "low"] > 0 and table.loc["Fusion", "potential"] > 0.3
    assert made.chosen.set_index("control").loc["fusion", "parameter"] in [f"share of the LLM {share}" for share in (0.3, 0.4, 0.5, 0.6, 0.7)]


def test_a_fusion_s_curve_goes_from_the_one_to_the_other():
    samples = asked("recommend")
    knows = halves(samples)
    answers = pd.concat([ranks(samples, "bcrs", 6.0 * knows, 1), ranks(samples, "allm", 6.0 * ~knows, 2), ranks(samples, "matcher", 0.0 * knows, 3)])
    curve = fusion_curve(samples, answers, "bcrs", ["allm", "matcher"], "zh")
    # A floor has one run; it meets every run of a CRS, here a second one that knows nothing.
    second = pd.concat([ranks(samples, "bcrs", 0.0 * knows, 4), ranks(samples, "allm", 6.0 * ~knows, 2)]).assign(seed=7)
    of_both = fusion_curve(samples, pd.concat([answers, second]), "bcrs", ["allm", "matcher"], "zh")
    assert of_both.loc[0.0, ("matcher", "Acc")] == of_both.loc[0.0, ("allm", "Acc")] < curve.loc[0.0, ("allm", "Acc")] - 0.1
    alone = score(samples, answers, "zh").groupby("system")[["Acc", "MRR@5"]].mean()
    for metric in ("Acc", "MRR@5"):
        assert curve.loc[0.0, ("allm", metric)] == curve.loc[0.0, ("matcher", metric)] == pytest.approx(alone[metric]["bcrs"])
        assert [curve.loc[1.0, (other, metric)] for other in ("allm", "matcher")] == pytest.approx([alone[metric][other] for other in ("allm", "matcher")])
        assert curve["allm", metric].max() > alone[metric]["allm"] + 0.3 and curve["matcher", metric].idxmax() < 0.5


def test_the_crs_orders_what_the_llm_cannot_tell_apart():
    """The LLM gives the right item and four others one score, as if the catalogue described them alike."""
    samples = asked("recommend")
    crs, llm = ranks(samples, "bcrs", np.full(2 * EACH, 2.0), 1), ranks(samples, "allm", np.zeros(2 * EACH), 2)
    alike = [[label, *(item for item in ITEMS if item != label)][:5] for label in samples["label"]]
    rankings = [sorted(ITEMS, key=lambda item: (item not in some, -ITEMS.index(item))) for some in alike]
    tied = llm.assign(ranking=rankings, scores=[[0.0] * 5 + [-9.0] * 15] * len(llm), text=[ranking[0] for ranking in rankings])
    made, scores = made_of(samples, crs, tied)
    broken = made.predictions[made.predictions["system"] == "tiebreak:bcrs+allm"].set_index("sample_id")["ranking"]
    place = dict(zip(samples["sample_id"], alike))
    by_crs = crs.set_index("sample_id")["ranking"]
    assert all(ranking[:5] == [item for item in by_crs[name] if item in place[name]] for name, ranking in broken.items())
    reached = scores.groupby("system")["MRR@5"].mean()
    assert reached["tiebreak:bcrs+allm"] > max(reached["bcrs"], reached["allm"])
    without, _ = made_of(samples, crs, llm)
    assert "tiebreak" not in set(without.chosen["control"]) and not [note for note in without.notes if "equal" in note], "no scores are equal"


def test_a_router_of_replies_takes_the_confident_one():
    samples = asked("respond")
    knows = halves(samples)
    table, _ = found(samples, writes(samples, "bcrs", knows, 1), writes(samples, "allm", ~knows, 2))
    assert table.loc["Router", "realised"] > 0.95
    blind, _ = found(samples, writes(samples, "bcrs", knows, 1, confident=False), writes(samples, "allm", ~knows, 2, confident=False))
    assert blind.loc["Router", "realised"] < 0.1  # without anything to go by it takes the better one throughout


def test_confidence_on_another_scale_is_calibrated():
    samples = asked("respond")
    knows = halves(samples)
    other = writes(samples, "allm", ~knows, 2).assign(confidence=lambda table: 40 * table["confidence"] - 90)
    table, _ = found(samples, writes(samples, "bcrs", knows, 1), other)
    assert table.loc["Router", "realised"] > 0.95


def test_nothing_is_gained_from_two_equal_systems():
    samples = asked("recommend")
    one = ranks(samples, "bcrs", np.full(2 * EACH, 2.0), 1)
    table, _ = found(samples, one, one.assign(system="allm"))
    assert (table["potential"] == 0).all() and (table["gain"].abs() < 1e-12).all() and table["realised"].isna().all()


def test_a_useless_system_gets_no_weight():
    samples = asked("recommend")
    good, useless = ranks(samples, "bcrs", np.full(2 * EACH, 4.0), 1), ranks(samples, "allm", np.zeros(2 * EACH), 2)
    table, made = found(samples, good, useless)
    assert made.chosen.set_index("control").loc["rerank", "parameter"] == "first 1"
    assert float(made.chosen.set_index("control").loc["fusion", "parameter"].split()[-1]) <= 0.2
    assert (table["gain"].abs() < 0.02).all()
    table, made = found(samples, useless.assign(system="bcrs"), good.assign(system="allm"))
    assert float(made.chosen.set_index("control").loc["fusion", "parameter"].split()[-1]) >= 0.8
    assert made.chosen.set_index("control").loc["rerank", "parameter"] == "first 20" and table.loc["Router", "gain"] > -0.02


def test_logits_and_log_probabilities_are_made_alike():
    """A CRS saves logits, an LLM log-probabilities. What is added to all logits of a sample changes neither order nor confidence."""
    samples = asked("recommend")
    ours, theirs = ranks(samples, "bcrs", np.full(2 * EACH, 2.0), 1), ranks(samples, "allm", np.full(2 * EACH, 2.0), 2)
    normal = theirs.assign(scores=[log_softmax(scores).tolist() for scores in theirs["scores"]])
    shifted = ours.assign(scores=[[value + 10 * (place % 7) for value in scores] for place, scores in enumerate(ours["scores"])])
    one, other = made_of(samples, ours, theirs)[0], made_of(samples, shifted, normal)[0]
    assert one.chosen["parameter"].equals(other.chosen["parameter"])
    assert one.predictions["text"].equals(other.predictions["text"])


def test_perfect_readers_of_the_world_fused_come_near_its_ceiling():
    table = readers_together({"valid": 60, "test": 60})
    share = table["of the planted potential"]
    assert share["fusion"] > 0.75 and share["fusion"] > share["router"] > 0.2
    assert table.index[-1] == "ceiling" and (table["MRR@5"] <= table.loc["ceiling", "MRR@5"]).all()


# --- what parameters depend on


def test_parameters_and_answers_do_not_depend_on_test_labels():
    samples = asked("recommend")
    answers = pd.concat([ranks(samples, "bcrs", np.full(2 * EACH, 1.5), 1), ranks(samples, "allm", np.full(2 * EACH, 2.5), 2)])
    other = samples.assign(label=samples["label"].mask(samples["split"] == "test", "i00"))
    one, two = (controls(table, answers, answers[answers["split"] == "valid"], "zh") for table in (samples, other))
    pd.testing.assert_frame_equal(one.chosen, two.chosen)
    pd.testing.assert_frame_equal(one.predictions, two.predictions)
    tuned = samples.assign(label=samples["label"].mask(samples["split"] == "valid", "i00"))
    assert not controls(tuned, answers, answers[answers["split"] == "valid"], "zh").chosen.equals(one.chosen)


def test_test_answers_among_the_held_out_ones_are_refused():
    samples = asked("recommend")
    answers = pd.concat([ranks(samples, system, np.ones(2 * EACH), 1) for system in ("bcrs", "allm")])
    with pytest.raises(ValueError, match="test0: a test sample among the held-out answers; choose parameters on validation answers only"):
        controls(samples, answers, answers, "zh")


def test_both_answers_come_from_the_same_seed():
    samples = asked("respond")
    seeds = [pd.concat([writes(samples, "bcrs", halves(samples), 1).assign(seed=seed), writes(samples, "allm", ~halves(samples), seed).assign(seed=seed)]) for seed in (1, 2)]
    made, scores = made_of(samples, *seeds)
    assert sorted(made.predictions.groupby("seed").size().unique()) == [3 * EACH]
    copies = scores[scores["system"] == "copy_llm:bcrs+allm"].merge(scores[scores["system"] == "allm"], on=["seed", "sample_id"])
    assert (copies["BLEU-2_x"] == copies["BLEU-2_y"]).all()


# --- what is missing is named


def test_a_control_without_confidence_scores_or_held_out_answers_is_left_out_and_named():
    replies, items = asked("respond"), asked("recommend")
    items = items.assign(sample_id="r" + items["sample_id"])
    samples = pd.concat([replies, items])
    known = [writes(replies, system, halves(replies), 1) for system in ("bcrs", "allm")]
    rankings = [ranks(items, system, np.ones(2 * EACH), 1) for system in ("bcrs", "allm")]
    unsure, bare = known[1].assign(confidence=np.nan), rankings[0].assign(scores=[[] for _ in range(2 * EACH)])
    made, _ = made_of(samples, known[0], unsure, bare, rankings[1])
    assert made.notes == [
        "Router of UniMIND(BART) and Chinese-Alpaca, recommend: left out, the CRS's held-out answers have no scores",
        "Fusion of UniMIND(BART) and Chinese-Alpaca, recommend: left out, the CRS's held-out answers have no scores",
        "UniMIND(BART) reranked by Chinese-Alpaca, recommend: left out, the CRS's held-out answers have no scores",
        "Router of UniMIND(BART) and Chinese-Alpaca, respond: left out, the LLM's held-out answers have no confidence",
    ]
    assert set(made.chosen["control"]) == {"copy_crs", "copy_llm"}
    answers = pd.concat([*known, *rankings])
    made = controls(samples, answers, answers[:0], "zh")
    assert made.predictions.empty and len(made.notes) == 3 + 5 and all("no held-out answers of both systems" in note for note in made.notes)


def test_an_unusable_ranking_gives_way_to_the_other():
    samples = asked("recommend")
    ours, theirs = ranks(samples, "bcrs", np.full(2 * EACH, 3.0), 1), ranks(samples, "allm", np.full(2 * EACH, 3.0), 2)
    lost = ours["sample_id"] == "test5"
    ours = ours.assign(ranking=[[] if gone else own for gone, own in zip(lost, ours["ranking"])], scores=[[] if gone else own for gone, own in zip(lost, ours["scores"])], valid=~lost)
    made, _ = made_of(samples, ours, theirs)
    given = made.predictions[made.predictions["sample_id"] == "test5"].set_index(made.predictions.loc[made.predictions["sample_id"] == "test5", "system"].str.partition(":")[0])
    for kind in ("router", "fusion", "rerank"):
        assert given.loc[kind, "ranking"] == theirs.set_index("sample_id").loc["test5", "ranking"] and given.loc[kind, "valid"]


# --- single controls, by hand


@pytest.mark.parametrize(
    ("kind", "expected"), [("union", "颜色：黑；尺码：43；颜色：白；鞋底"), ("intersection", "尺码：43")]
)
def test_sets_are_joined_by_members(kind, expected):
    assert joined_sets(kind, "颜色：黑；尺码：43；颜色：黑", "颜色：白；尺码：43；鞋底", CHINESE) == expected
    assert joined_sets("intersection", "颜色：黑", "颜色：白", CHINESE) == "" and joined_sets("union", "", "颜色", CHINESE) == "颜色"


def test_sets_keep_their_language_s_signs():
    assert joined_sets("union", f"Color{ENGLISH.pair}black", "Size", ENGLISH) == f"Color{ENGLISH.pair}black{ENGLISH.items}Size"


def test_the_first_are_reranked_and_the_others_stay():
    assert reranked(list("abcde"), list("edcba"), [], 3)[0] == list("cbade")
    assert reranked(list("abcde"), list("edcba"), [], 1)[0] == list("abcde") and reranked(list("abcde"), [], [], 3)[0] == list("abcde")


# --- potential, errors, and the best control


def test_the_potential_and_its_realised_share_by_hand():
    values = {"bcrs": [1, 1, 0, 0, 1, 1, 0, 1], "allm": [0, 0, 1, 1, 0, 0, 0, 0], "allm-bcrs": [1, 1, 1, 0, 1, 1, 0, 1], "union:bcrs+allm": [1, 1, 1, 1, 1, 1, 0, 1]}
    table = realised(scores_of(values), PAIR).set_index("system")
    assert set(table["better"]) == {"bcrs"} and table["potential"].tolist() == pytest.approx([2 / 8] * 2)
    assert table.loc["allm-bcrs", "realised"] == pytest.approx(0.5) and table.loc["union:bcrs+allm", "realised"] == pytest.approx(1)
    assert table.loc["allm-bcrs", "realised low"] < 0.5 < table.loc["allm-bcrs", "realised high"]
    assert table.loc["allm-bcrs", "low"] < 1 / 8 < table.loc["allm-bcrs", "high"]


def test_errors_of_the_same_other_and_opposite_samples():
    one = [1, 0] * 20
    for other, expected in ((one, 1), ([1, 1, 0, 0] * 10, 0), ([0, 1] * 20, -1)):
        (row,) = error_correlation(scores_of({"bcrs": one, "allm": other, "allm-bcrs": one}), PAIR).to_dict("records")
        assert (row["correlation"], row["phi"]) == pytest.approx((expected, expected), abs=1e-9)
        assert row["low"] - 1e-9 <= expected <= row["high"] + 1e-9
    (row,) = error_correlation(scores_of({"bcrs": one, "allm": [0] * 40, "allm-bcrs": one}), PAIR).to_dict("records")
    assert np.isnan([row["correlation"], row["phi"], row["low"]]).all()


def health_of(*collapsed):
    return pd.DataFrame({"system": [*collapsed, "x"], "task": "elicit", "collapsed": [True] * len(collapsed) + [False]})


def test_the_best_control_is_the_best_on_held_out_answers_and_not_on_the_test():
    values = {"bcrs": [0.0] * 30, "allm": [0.0] * 30, "allm-bcrs": [0.5] * 15 + [0.4] * 15, "union:bcrs+allm": [0.1] * 30, "router:bcrs+allm": [0.9] * 30}
    chosen = pd.DataFrame({"crs": "bcrs", "llm": "allm", "task": "elicit", "system": ["union:bcrs+allm", "router:bcrs+allm"], "held_out": [0.3, 0.2]})
    (row,) = over_the_best_control(scores_of(in_two_runs(values)), chosen, health_of()).to_dict("records")
    assert row["control"] == "Union of UniMIND(BART) and Chinese-Alpaca" and row["gain"] == pytest.approx(0.35) and row["p (Holm)"] < 0.05
    for system in ("bcrs", "allm", "allm-bcrs"):
        (row,) = over_the_best_control(scores_of(values), chosen, health_of(system)).to_dict("records")
        assert not row["sound"] and np.isnan(row["p (Holm)"])


def test_collapsed_systems_carry_no_finding():
    values = {"bcrs": [1, 0] * 10, "allm": [0, 1] * 10, "allm-bcrs": [1] * 20, "union:bcrs+allm": [1] * 20}
    table = realised(scores_of(values), PAIR)
    assert sound(table, health_of()).all() and not sound(table, health_of("bcrs")).any()
    assert sound(table, health_of("allm-bcrs")).tolist() == [True, False] and sound(table, health_of("union:bcrs+allm")).tolist() == [False, True]
    assert "every pair has a system that has collapsed" in potential_used(table.assign(sound=False))
    told = potential_used(table.assign(sound=[True, False]))
    assert "union for UniMIND(BART) and Chinese-Alpaca, gains +0.500, 100% of it" in told and "1 of 2 ways" in told
    beaten = pd.DataFrame({"gain": [-0.1, 0.0, 0.2, -0.3], "sound": [True, True, True, False], "p (Holm)": np.nan})
    beaten = beaten.assign(key="allm-bcrs", task=["elicit", "understand", "recommend", "respond"], control=[control_name("union:bcrs+allm"), *["Copy of A (beside B)"] * 3])
    figure = control_figure(table.assign(sound=[True, False]), beaten, "a corpus")
    assert "higher than the best control in 1 of 3 cases" in figure.get_suptitle() and "pale: a system behind it has collapsed" in figure.get_suptitle()
    (axes,) = [axes for axes in figure.axes if axes.get_title()]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["potential: the better answer", "Union", "LLM assisting CRS"]
    rings = [line.get_xydata().tolist() for line in axes.lines if line.get_markersize() == 11 and len(line.get_xdata())]
    assert rings == [[[0.5, 1.0]]], "the union is the best control of this pair"
    assert "best control on held-out answers" in figure.legends[0].texts[-1].get_text()
    ranked = realised(scores_of({"bcrs": [1, 0] * 10, "allm": [0, 1] * 10, "rerank:bcrs+allm": [1] * 20}, "recommend"), PAIR)
    best = beaten[2:3].assign(control=control_name("rerank:bcrs+allm"))
    (axes,) = [axes for axes in control_figure(ranked.assign(sound=True), best, "a corpus").axes if axes.get_title()]
    assert any(line.get_markersize() == 11 and len(line.get_xdata()) for line in axes.lines), "whatever the control is called"
    assert "pale" not in control_figure(table.assign(sound=True), beaten, "a corpus").get_suptitle()


def test_controls_are_rows_of_the_tables_in_a_block_of_their_own():
    samples = asked("recommend")
    _, scores = made_of(samples, ranks(samples, "bcrs", np.ones(2 * EACH), 1), ranks(samples, "allm", np.ones(2 * EACH), 2))
    rows = summaries(scores, detailed=()).drop_duplicates("system").set_index("system")
    assert rows.loc["fusion:bcrs+allm", ["group", "name"]].tolist() == [WITHOUT_TRAINING, "Fusion of UniMIND(BART) and Chinese-Alpaca"]
    assert rows["group"].tolist() == ["No collaboration"] * 2 + [WITHOUT_TRAINING] * 5
    assert control_name("mine:or+theirs") is None and control_name("fusion") is None


def test_every_control_s_headline_is_the_one_of_its_task():
    samples = asked("elicit")
    answers = [writes(samples, system, halves(samples), seed) for system, seed in (("bcrs", 1), ("allm", 2))]
    made, scores = made_of(samples, *answers)
    assert set(made.chosen["control"]) == {"copy_crs", "copy_llm", "router", "union", "intersection"}
    told = made.chosen.set_index("control")["held_out"]
    assert told["copy_crs"] == pytest.approx(score(samples, pd.concat(answers), "zh", "valid").query("system == 'bcrs'")[HEADLINE["elicit"]].mean())


def test_a_pair_in_one_table_says_what_each_scores_alone_with_help_and_what_needs_no_training():
    rows = [
        ("ALLM-BCRS", "UniMIND(BART)", "LLM assisting CRS", "elicit", 0.31, 0.21, -0.10, False),
        ("BCRS-ALLM", "Chinese-Alpaca", "CRS assisting LLM", "elicit", 0.11, 0.33, 0.22, True),
        ("ALLM-BCRS", "UniMIND(BART)", "LLM assisting CRS", "respond", 0.15, 0.16, 0.01, False),
        ("BCRS-ALLM", "Chinese-Alpaca", "CRS assisting LLM", "respond", 0.19, 0.17, -0.02, False),
    ]
    pulled = pd.DataFrame(rows, columns=["system", "over", "direction", "task", "alone", "helped", "gain", "holds"])
    pulled = pulled.assign(low=pulled["gain"] - 0.05, high=pulled["gain"] + 0.05, metric=pulled["task"].map({"elicit": "F1", "respond": "BLEU-2"}), collapsed="")
    ways = {"elicit": "Copy of UniMIND(BART) (beside Chinese-Alpaca)", "respond": "Router of UniMIND(BART) and Chinese-Alpaca"}
    beaten = pulled[["system", "task"]].assign(control=pulled["task"].map(ways), gain=[-0.10, 0.02, -0.03, -0.02])
    header, _, elicit, respond = pair_markdown(pulled, beaten).splitlines()
    assert header == "|  | UniMIND(BART) alone | Chinese-Alpaca alone | Chinese-Alpaca with help | UniMIND(BART) with help | control chosen on validation |"
    assert elicit == "| elicit (F1) | **0.310** | 0.110 | 0.330 (+0.220* [+0.170, +0.270]) | 0.210 (-0.100 [-0.150, -0.050]) | 0.310 (copy of UniMIND(BART)) |"
    assert respond == "| respond (BLEU-2) | 0.150 | **0.190** | 0.170 (-0.020 [-0.070, +0.030]) | 0.160 (+0.010 [-0.040, +0.060]) | 0.190 (router) |"
    kinds = {"{llm}, equal scores ordered by {crs}": "tiebreak", "{crs} reranked by {llm}": "rerank", "Copy of {llm} (beside {crs})": "copy of Chinese-Alpaca"}
    for name, said in ((kind.format(crs="UniMIND(BART)", llm="Chinese-Alpaca"), f"({way})") for kind, way in kinds.items()):
        assert said in pair_markdown(pulled, beaten.assign(control=name)).splitlines()[2]
    fallen = pulled.assign(collapsed=["", "Chinese-Alpaca", "", ""])
    assert "(+0.220*† [" in pair_markdown(fallen, beaten).splitlines()[2]
    with pytest.raises(ValueError, match="ALLM-BCRS: give the two collaborations of one CRS and one LLM"):
        pair_markdown(pulled[pulled["system"] == "ALLM-BCRS"], beaten)
