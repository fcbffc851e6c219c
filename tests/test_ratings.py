"""Human ratings: blind material, what comes back, and what is made of it."""

import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tiny

from llmcrs_utils.evaluation.analysis_figures import rating_figure
from llmcrs_utils.evaluation.ratings import (
    FOR_RATERS,
    KEY,
    KEY_COMPARISONS,
    KEY_ITEMS,
    KEY_SETTINGS,
    RatingsError,
    alpha,
    bradley_terry,
    comparisons_of,
    items_to_rate,
    preferences,
    rated_systems,
    rater_agreement,
    raters_of,
    rating_table,
    read_choices,
    read_key,
    read_ratings,
    simulated_ratings,
    write_material,
)

SYSTEMS = ("bcrs", "allm", "bcrs-allm")
DIALOGUES, SCALE, RATERS, EACH = 6, (1, 5), 4, 3


@pytest.fixture(scope="module")
def samples():
    every = tiny.dataset().samples
    return every[every["task"] == "respond"].assign(split="test").reset_index(drop=True)


@pytest.fixture(scope="module")
def predictions(samples):
    """Every system's reply names the question; the pair repeats the CRS in every other question."""
    parts = []
    for key in SYSTEMS:
        told = ["bcrs" if key == "bcrs-allm" and place % 2 else key for place in range(len(samples))]
        texts = [f"{sample_id} {word}" for sample_id, word in zip(samples["sample_id"], told)]
        parts.append(pd.DataFrame({"system": key, "seed": 1, "sample_id": samples["sample_id"], "text": texts, "valid": True}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def items(samples, predictions):
    return items_to_rate(samples, predictions, DIALOGUES, 1)


@pytest.fixture(scope="module")
def comparisons(items):
    return comparisons_of(items, [("bcrs-allm", "bcrs"), ("bcrs", "allm")], 1)


@pytest.fixture
def material(tmp_path, samples, items, comparisons):
    write_material(tmp_path / "rate", items, comparisons, samples, language="zh", scale=SCALE, raters=RATERS, each=EACH)
    return tmp_path / "rate"


def sheets(material):
    return sorted((material / FOR_RATERS).glob("rater_*.csv"))


def sheet_of(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


# --- material


def test_one_question_of_each_dialogue_is_drawn_by_the_seed(samples, predictions, items):
    assert items["sid"].nunique() == items["sample_id"].nunique() == DIALOGUES
    pd.testing.assert_frame_equal(items_to_rate(samples, predictions.sample(frac=1, random_state=3), DIALOGUES, 1), items)
    other_run = predictions[predictions["system"] != "allm"].assign(seed=2, text="another run")  # allm has one run, which counts with every seed
    again = items_to_rate(samples, pd.concat([predictions, other_run]), DIALOGUES, 2)
    assert set(again.loc[again["system"] != "allm", "reply"]) == {"another run"} and not again.loc[again["system"] == "allm", "reply"].eq("another run").any()
    assert set(items_to_rate(samples, predictions, DIALOGUES, 2)["sample_id"]) != set(items["sample_id"])


def test_equal_replies_are_one_item_and_names_say_nothing(items, predictions):
    of_item = items.groupby("item")["reply"].nunique()
    assert (of_item == 1).all() and (items.groupby(["sample_id", "reply"])["item"].nunique() == 1).all()
    assert len(of_item) < len(items) == DIALOGUES * len(SYSTEMS)
    first = {items.loc[items["item"].str.endswith("-01") & (items["system"] == key)].shape[0] for key in SYSTEMS}
    assert max(first) < DIALOGUES, "one system always comes first"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda given: given | {"dialogues": 10_000}, r"dialogues=10000: \d+ dialogues of test"),
        (lambda given: given | {"dialogues": 0}, "dialogues=0"),
        (lambda given: given | {"systems": ["bcrs", "typo"]}, "systems typo: no replies with seed 1; known: allm, bcrs, bcrs-allm"),
        (lambda given: given | {"predictions": given["predictions"].iloc[:0]}, "systems none: no replies"),
        (lambda given: given | {"predictions": given["predictions"].drop(given["predictions"].index[given["predictions"]["system"] == "allm"][1:])}, "allm: no reply to"),
        (lambda given: given | {"predictions": pd.concat([given["predictions"]] * 2)}, "give each run once"),
    ],
)
def test_replies_that_cannot_be_rated_are_refused(samples, predictions, change, message):
    with pytest.raises(ValueError, match=message):
        items_to_rate(**change({"samples": samples, "predictions": predictions, "dialogues": DIALOGUES, "seed": 1}))


def test_comparisons_may_be_left_out_but_not_be_of_one_system(tmp_path, samples, items):
    none = comparisons_of(items, [], 1)
    write_material(tmp_path / "rate", items, none, samples, language="en", scale=(0, 2), raters=1, each=1)
    assert not list((tmp_path / "rate" / FOR_RATERS).glob("*comparisons*")) and read_key(tmp_path / "rate")[1].empty
    with pytest.raises(ValueError, match="bcrs, bcrs is no pair"):
        comparisons_of(items, [("bcrs", "bcrs")], 1)
    with pytest.raises(ValueError, match="typo: no reply to compare"):
        comparisons_of(items, [("bcrs", "typo")], 1)


def test_sides_of_a_comparison_are_drawn(comparisons):
    assert set(comparisons["left_system"]) == set(comparisons["right_system"]) == set(SYSTEMS)


@pytest.mark.parametrize("changes, message", [({"scale": (5, 1)}, "lowest and the highest"), ({"scale": (1,)}, "scale="), ({"language": "fr"}, "known are zh, en"), ({"each": 9}, "1 to 4 sheets")])
def test_settings_with_which_nobody_could_rate_are_refused(tmp_path, samples, items, comparisons, changes, message):
    with pytest.raises(ValueError, match=message):
        write_material(tmp_path / "rate", items, comparisons, samples, **{"language": "zh", "scale": SCALE, "raters": RATERS, "each": EACH} | changes)
    assert not (tmp_path / "rate").exists()


def test_raters_get_nothing_that_tells_systems_apart(material):
    for sheet in sheets(material):
        assert list(sheet_of(sheet)) == ["item", "dialogue", "reference", "reply", "relevance", "informativeness"]
    for kind, fields in (("ratings", {"item", "dialogue", "reference", "reply"}), ("comparisons", {"comparison", "dialogue", "left", "right"})):
        tasks = json.loads((material / FOR_RATERS / f"label_studio_{kind}.json").read_text("utf-8"))
        assert all(set(task) == {"data"} and set(task["data"]) == fields for task in tasks)
    assert {path.name for path in (material / KEY).iterdir()} == {KEY_ITEMS, KEY_COMPARISONS, KEY_SETTINGS}


def test_every_item_is_on_as_many_sheets_as_asked(material, items):
    seen = pd.concat([sheet_of(path) for path in sheets(material)])
    assert len(sheets(material)) == RATERS and (seen["item"].value_counts() == EACH).all() and set(seen["item"]) == set(items["item"])
    about = items.drop_duplicates("item").set_index("item")["reply"]
    assert all(row.reply == about[row.item] and row.dialogue and row.reference for row in seen.itertuples())


def test_what_may_be_filled_in_is_never_overwritten(material, samples, items, comparisons):
    sheet = filled(sheets(material)[0], 0).replace(sheets(material)[0])
    before, settings = sheet.read_bytes(), {"language": "zh", "scale": SCALE, "raters": RATERS, "each": EACH}
    assert write_material(material, items, comparisons, samples, **settings) is False
    others = items.assign(reply=items["reply"] + "!")
    for changed, of_changed, message in ((others, settings, "its items.csv would be others; choose another folder"), (items, settings | {"scale": (0, 2)}, "its settings.json")):
        with pytest.raises(RatingsError, match=message):
            write_material(material, changed, comparisons, samples, **of_changed)
    assert sheet.read_bytes() == before


def test_the_key_is_read_as_it_was_written(material, items, comparisons):
    kept, compared, scale = read_key(material)
    pd.testing.assert_frame_equal(kept, items, check_dtype=False)
    pd.testing.assert_frame_equal(compared, comparisons, check_dtype=False)
    assert scale == SCALE
    (material / KEY / KEY_SETTINGS).unlink()
    with pytest.raises(RatingsError, match=r"settings\.json: no such file"):
        read_key(material)


def test_label_studio_gets_a_field_for_every_name_in_its_settings(material):
    for kind, fields in (("ratings", {"relevance", "informativeness"}), ("comparisons", {"better"})):
        settings = ElementTree.fromstring((material / FOR_RATERS / f"label_studio_{kind}.xml").read_text("utf-8"))
        tasks = json.loads((material / FOR_RATERS / f"label_studio_{kind}.json").read_text("utf-8"))
        shown = {tag.get("value")[1:] for tag in settings.iter() if (tag.get("value") or "").startswith("$")}
        assert all(shown <= set(task["data"]) for task in tasks)
        assert {tag.get("name") for tag in settings.iter("Choices")} == fields
    assert [tag.get("alias") for tag in settings.iter("Choice")] == ["left", "right", "tie"]


# --- what comes back


def filled(path, number, **changes):
    """A sheet in which every rating is the item's place, and ``changes`` of its first row."""
    table = sheet_of(path)
    table["relevance"] = table["informativeness"] = [str(1 + int(item[-1]) % 5) for item in table["item"]]
    for field, value in changes.items():
        table.loc[0, field] = value
    table.to_csv(path.parent / f"filled_{number}.csv", index=False)
    return path.parent / f"filled_{number}.csv"


def test_filled_in_sheets_come_back(material, items):
    paths = [filled(path, number) for number, path in enumerate(sheets(material))]
    ratings = read_ratings(paths, items, SCALE)
    assert set(ratings["rater"]) == {f"filled_{number}" for number in range(RATERS)}
    assert len(ratings) == items["item"].nunique() * EACH * 2
    assert all(row.value == 1 + int(row.item[-1]) % 5 for row in ratings.itertuples())
    with pytest.raises(RatingsError, match="nothing is filled in in relevance, informativeness"):
        read_ratings(sheets(material), items, SCALE)


def test_sheets_as_other_programs_save_them(material, items):
    """Semicolons, tabs, blank rows at the end; another encoding is refused."""
    sheet = filled(sheets(material)[0], 0)
    usual = read_ratings([sheet], items, SCALE)
    table = sheet_of(sheet)
    for delimiter in ";\t":
        table.to_csv(sheet, index=False, sep=delimiter)
        sheet.write_text(sheet.read_text("utf-8") + delimiter * (len(table.columns) - 1) + "\n", "utf-8")
        pd.testing.assert_frame_equal(read_ratings([sheet], items, SCALE), usual)
    table.to_csv(sheet, index=False, encoding="gbk")
    with pytest.raises(RatingsError, match=r"filled_0\.csv: cannot be read as CSV in UTF-8 .* save the sheet as CSV UTF-8"):
        read_ratings([sheet], items, SCALE)


def test_sheets_of_comparisons_come_back_in_either_language(material, comparisons):
    paths = sorted((material / FOR_RATERS).glob("comparisons_*.csv"))
    table = sheet_of(paths[0]).assign(better="左边的回复")
    table.loc[0, "better"] = "tie"
    table.to_csv(paths[0].with_name("one.csv"), index=False)
    choices = read_choices([paths[0].with_name("one.csv")], comparisons)
    assert list(choices["better"]) == ["tie", *["left"] * (len(table) - 1)]
    asked = comparisons.loc[comparisons["comparison"] != "", "comparison"]
    seen = pd.concat([sheet_of(path) for path in paths])
    assert set(seen["comparison"]) == set(asked) and (seen["comparison"].value_counts() == EACH).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"relevance": "6"}, r"filled_0\.csv: line \d+, q\d{4}-\d\d by filled_0, relevance: '6' is not a whole number from 1 to 5"),
        ({"informativeness": "3.5"}, r"informativeness: '3\.5' is not a whole number"),
        ({"informativeness": "--3"}, r"informativeness: '--3' is not a whole number"),
        ({"item": "q9999-01"}, r"item 'q9999-01' is not in the key"),
    ],
)
def test_ratings_that_cannot_be_are_refused(material, items, changes, message):
    with pytest.raises(RatingsError, match=message):
        read_ratings([filled(sheets(material)[0], 0, **changes)], items, SCALE)


def test_a_second_rating_of_one_item_and_a_foreign_table_are_refused(material, items, tmp_path):
    sheet = filled(sheets(material)[0], 0)
    with pytest.raises(RatingsError, match="rated before .*line"):
        read_ratings([sheet, sheet], items, SCALE)
    pd.DataFrame({"item": ["q0001-01"]}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(RatingsError, match="no column informativeness"):
        read_ratings([tmp_path / "other.csv"], items, SCALE)
    for text in ('[{"id": 1}]', '[{"id": 1, "annotations": [7]}]', "{", '{"a": 1}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(RatingsError, match="not an export of Label Studio"):
            read_ratings([tmp_path / "other.json"], items, SCALE)
    with pytest.raises(RatingsError, match="no such file"):
        read_ratings([tmp_path / "none.csv"], items, SCALE)


def exported(task, user, given, **more):
    result = [{"from_name": name, "to_name": "reply", "type": "choices", "value": {"choices": [value]}} for name, value in given.items()]
    return task | {"annotations": [{"completed_by": user, "result": result, **more}]}


def test_an_export_of_label_studio_comes_back(material, items, comparisons, tmp_path):
    tasks = [{"id": number, **task} for number, task in enumerate(json.loads((material / FOR_RATERS / "label_studio_ratings.json").read_text("utf-8")))]
    twice = exported(tasks[0], 7, {"relevance": 4})
    twice["annotations"] += exported(tasks[0], 9, {"relevance": "3"})["annotations"]
    answers = [twice, exported(tasks[1], {"id": 8}, {"relevance": "2", "informativeness": "5"}), exported(tasks[2], 7, {"relevance": "1"}, was_cancelled=True)]
    (tmp_path / "export.json").write_text(json.dumps(answers))
    ratings = read_ratings([tmp_path / "export.json"], items, SCALE)
    assert list(ratings.itertuples(index=False, name=None)) == [
        ("user 7", tasks[0]["data"]["item"], "relevance", 4.0), ("user 9", tasks[0]["data"]["item"], "relevance", 3.0), ("user 8", tasks[1]["data"]["item"], "relevance", 2.0), ("user 8", tasks[1]["data"]["item"], "informativeness", 5.0),
    ]  # fmt: skip
    pairs = json.loads((material / FOR_RATERS / "label_studio_comparisons.json").read_text("utf-8"))
    (tmp_path / "pairs.json").write_text(json.dumps([exported({"id": 1, **pairs[0]}, 7, {"better": "left"})]))
    choices = read_choices([tmp_path / "pairs.json"], comparisons)
    assert list(choices.itertuples(index=False, name=None)) == [("user 7", pairs[0]["data"]["comparison"], "left")]
    (tmp_path / "pairs.json").write_text(json.dumps([exported({"id": 1, **pairs[0]}, 7, {"better": "both"})]))
    with pytest.raises(RatingsError, match="'both' is none of left, right, tie"):
        read_choices([tmp_path / "pairs.json"], comparisons)


# --- what is made of it


def test_alpha_is_krippendorffs():
    """The example of Krippendorff (2011): four observers, twelve units; alpha for interval data 0.849."""
    gap = None
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]
    ratings = pd.DataFrame([(rater, unit, value) for rater, row in enumerate(table) for unit, value in enumerate(row) if value], columns=["rater", "item", "value"])
    assert alpha(ratings) == pytest.approx(0.849, abs=0.0005)
    assert np.isnan(alpha(ratings.assign(value=3)))


def test_raters_who_agree_and_raters_who_guess(items):
    quality = pd.Series(np.linspace(0, 1, items["item"].nunique()), index=items["item"].unique())
    good = simulated_ratings(items, quality, SCALE, RATERS, EACH, 1)
    found = rater_agreement(good).set_index("question")
    assert (found["alpha"] > 0.6).all() and (found["low"] < found["alpha"]).all() and (found["raters"] == RATERS).all() and (found["items"] == items["item"].nunique()).all()
    guess = good.assign(value=np.random.default_rng(5).integers(1, 6, len(good)).astype(float))
    of_guess = rater_agreement(guess).set_index("question")
    assert (of_guess["alpha"].abs() < 0.3).all() and (of_guess["low"] < 0).all() and (of_guess["high"] > 0).all()


def test_means_of_systems_by_hand(items):
    """Over raters first: an item that many have rated counts as much as one that few have."""
    value = items["system"].map({"bcrs": 5.0, "allm": 2.0, "bcrs-allm": 3.0}).groupby(items["item"]).max()  # an item shared with the CRS gets its rating
    raters = {item: (0, 1, 2, 3) if place % 3 == 0 else (2,) for place, item in enumerate(value.index)}
    leaning = (-1.5, -0.5, 0.0, 2.0)  # zero in the mean of the four, and of the one
    ratings = pd.DataFrame([(rater, item, "relevance", value[item] + leaning[rater]) for item in value.index for rater in raters[item]], columns=["rater", "item", "question", "value"])
    ratings.loc[ratings["rater"] == 2, "value"] -= 0.3 * (ratings["item"].map(raters).map(len) == 1)[ratings["rater"] == 2]
    table = rated_systems(ratings, items, SCALE).set_index("system")
    single = items["item"].map(raters).map(len).eq(1)
    for key, name, score in (("bcrs", "UniMIND(BART)", 5.0), ("allm", "Chinese-Alpaca", 2.0)):
        assert table.loc[name, "value"] == pytest.approx(score - 0.3 * single[items["system"] == key].mean())
    assert (table["n"] == DIALOGUES).all() and table.loc["UniMIND(BART)", "paper"] == pytest.approx(3.7911) and list(table.index)[0] == "UniMIND(BART)"
    assert rated_systems(ratings, items, (0, 2))["paper"].isna().all(), "the paper's numbers are on another scale"
    partly = rating_table(rated_systems(ratings, items, SCALE))
    assert list(partly.columns) == ["relevance", "informativeness", "dialogues"] and (partly["informativeness"] == "–").all()
    (axes,) = rating_figure(rated_systems(ratings, items, SCALE), "claim", "note").axes
    assert len(axes.get_yticklabels()) == len(SYSTEMS)


def test_many_dialogues_keep_their_names_apart():
    items = [f"q{number:04d}-01" for number in (100, 1000)]
    assert raters_of(items[0], 7, 3) != raters_of(items[1], 7, 3)
    table = pd.DataFrame([(rater, item, "relevance", float(1 + (rater + place) % 3)) for place, item in enumerate(items) for rater in (0, 1)], columns=["rater", "item", "question", "value"])
    assert np.isfinite(rater_agreement(table)["low"]).all(), "two questions can be left out in turn"


def test_the_jackknife_s_interval_by_hand():
    """Ten questions, three raters: the interval is alpha plus and minus t(9) times the jackknife's standard error."""
    draw = np.random.default_rng(3)
    table = pd.DataFrame([(rater, f"q{question:04d}-01", "relevance", float(np.clip(question % 5 + draw.integers(0, 2), 0, 4))) for question in range(10) for rater in range(3)], columns=["rater", "item", "question", "value"])
    left_out = np.array([alpha(table[table["item"] != item]) for item in table["item"].unique()])
    error = np.sqrt(9 / 10 * ((left_out - left_out.mean()) ** 2).sum())
    found = rater_agreement(table).iloc[0]
    assert found["alpha"] - found["low"] == pytest.approx(2.262157 * error, rel=1e-5)


def judged(comparisons, better):
    """Choices by which the system that comes first in ``better`` wins."""
    asked = comparisons[comparisons["comparison"] != ""]
    side = ["left" if better.index(row.left_system) < better.index(row.right_system) else "right" for row in asked.itertuples()]
    return pd.DataFrame({"rater": "r", "comparison": asked["comparison"], "better": side})


def test_the_preferred_system_is_the_strongest(comparisons):
    order = ["bcrs-allm", "bcrs", "allm"]
    preferred = preferences(judged(comparisons, order), comparisons)
    ties = (comparisons["comparison"] == "").sum()
    assert len(preferred) == len(comparisons) and (preferred["share"] == 0.5).sum() == ties > 0
    some = preferences(judged(comparisons, order).iloc[:2], comparisons)
    assert len(some) == 2 and (some["share"] != 0.5).all(), "ties that nobody judged do not count while others wait"
    table = bradley_terry(preferred)
    assert list(table["system"]) == ["BCRS-ALLM", "UniMIND(BART)", "Chinese-Alpaca"]
    assert table["strength"].sum() == pytest.approx(0, abs=1e-9) and np.isfinite(table[["low", "high"]]).all(axis=None)
    turned = bradley_terry(preferred.assign(share=1 - preferred["share"]))
    assert list(turned["system"]) == list(table["system"])[::-1] and turned["strength"].to_numpy() == pytest.approx(-table["strength"].to_numpy()[::-1], rel=1e-6)


def test_strengths_that_are_known_are_found():
    """Three systems of strengths 1, 0, -1, each pair judged in 3,000 dialogues."""
    draw, strength = np.random.default_rng(1), {"bcrs": 1.0, "allm": 0.0, "ccrs": -1.0}
    rows = []
    for one, other in (("bcrs", "allm"), ("allm", "ccrs"), ("ccrs", "bcrs")):
        chance = 1 / (1 + np.exp(strength[other] - strength[one]))
        rows += [(f"d{number}", one, other, float(draw.random() < chance)) for number in range(3000)]
    table = bradley_terry(pd.DataFrame(rows, columns=["sid", "one", "other", "share"]))
    assert table["strength"].to_numpy() == pytest.approx([1, 0, -1], abs=0.06)
    assert ((table["low"] < [1, 0, -1]) & (table["high"] > [1, 0, -1])).all() and table["chance"].iloc[0] == pytest.approx(0.731, abs=0.02)


def test_systems_that_never_met_have_no_strengths():
    apart = pd.DataFrame([("a", "bcrs", "allm", 1.0), ("b", "ccrs", "cllm", 0.0)], columns=["sid", "one", "other", "share"])
    with pytest.raises(ValueError, match="never compared"):
        bradley_terry(apart)


def test_a_dialogue_is_rated_by_as_many_as_asked():
    found = [raters_of(f"{number:03d}-01", 4, 3) for number in range(1, 9)]
    assert all(len(raters) == 3 for raters in found) and {sum(rater in raters for raters in found) for rater in range(4)} == {6}


def test_the_figure_has_a_row_per_system_best_first(items):
    quality = pd.Series({item: 0.2 + 0.6 * (system == "allm") for item, system in zip(items["item"], items["system"])})
    rated = rated_systems(simulated_ratings(items, quality, SCALE, RATERS, EACH, 1), items, SCALE)
    (axes,) = rating_figure(rated, "claim", "note").axes
    assert [label.get_text() for label in axes.get_yticklabels()][0] == "Chinese-Alpaca" and len(axes.get_yticklabels()) == len(SYSTEMS)
    drawn = {line.get_label(): sorted(line.get_xdata()) for line in axes.lines}
    assert drawn["relevance"] == sorted(rated.loc[rated["question"] == "relevance", "value"])
    assert rating_table(rated).index[0] == "Chinese-Alpaca"


def test_judgements_of_one_dialogue_count_as_one():
    """Ten judgements in each of 30 dialogues, all alike within a dialogue: the interval is that of 30, not of 300."""
    won = [float(number % 3 > 0) for number in range(30)]
    once = bradley_terry(pd.DataFrame([(f"d{number}", "bcrs", "allm", share) for number, share in enumerate(won)], columns=["sid", "one", "other", "share"]))
    often = bradley_terry(pd.DataFrame([(f"d{number}", "bcrs", "allm", share) for number, share in enumerate(won) for _ in range(10)], columns=["sid", "one", "other", "share"]))
    widths = [(table["high"] - table["low"]).iloc[0] for table in (once, often)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
