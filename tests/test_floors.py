"""What needs no training, on hand-made shops and dialogues."""

import pandas as pd
import pytest
from conftest import corpus_of, dialogue_of, said, samples_of, shop_of
from test_metrics import ITEMS
from test_metrics import samples_of as asked

from llmcrs_utils.corpus.schema import KNOWLEDGE_COLUMNS
from llmcrs_utils.evaluation.floors import (
    dictionary_predictions,
    floor_predictions,
    last_viewed_predictions,
    matcher_predictions,
    popular_predictions,
    trivial_predictions,
    with_clicks,
)
from llmcrs_utils.evaluation.metrics import score, score_catalogue
from llmcrs_utils.systems.predictions import catalogue_file, read_catalogue_rankings, read_predictions, write_predictions
from llmcrs_utils.systems.registry import FLOORS, RANKING_FLOORS, TASKS
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.text.prompts import CHINESE, ENGLISH

ASKING = dialogue_of(
    said("用户需求", "有面霜吗", needs=[("品类", "面霜")]), said("系统提问", "预算呢", needs=[("价位", "")]),
    said("系统推荐", "这款", items=["i07"]), sid="t1", user="u1",
)  # fmt: skip
BEHAVIOUR = [
    ("shop", "u2", "i03", "2022-09-18 13:00:00", "0"),
    ("shop", "u3", "i03", "2022-09-18 13:01:00", "0"),
    ("shop", "u1", "i07", "2022-09-18 13:02:00", "0"),
    ("shop", "u1", "i09", "2022-09-18 13:03:00", "0"),
    ("shop", "u1", "i07", "2022-09-18 13:04:00", "0"),
    ("shop", "u1", "i05", "2022-09-18 13:05:00", "0"),
    ("elsewhere", "u9", "i04", "2022-09-18 13:00:00", "0"),
    ("elsewhere", "u9", "i04", "2022-09-18 13:00:01", "0"),
    ("elsewhere", "u9", "i04", "2022-09-18 13:00:02", "0"),
    *[("shop", "u4", "i01", f"2022-09-18 15:00:{n:02d}", "0") for n in range(9)],  # after the turn
]


@pytest.fixture
def corpus():
    learnt = dialogue_of(
        said("用户需求", "有水吗", needs=[("品类", "水")]), said("系统提问", "预算呢", needs=[("价位", "")]),
        said("系统推荐", "这款", items=["i11"]), sid="s1", user="u8",
    )  # fmt: skip
    return corpus_of(learnt, test=[ASKING], behaviour=BEHAVIOUR, knowledge=shop_of("shop", [f"i{n:02d}" for n in range(20)]))


def of_test(samples, task):
    return samples[(samples["split"] == "test") & (samples["task"] == task)].iloc[0]


def test_popular_counts_the_shops_actions_before_the_turn_then_training_recommendations(corpus):
    samples = samples_of(corpus)
    (answer,) = popular_predictions(samples, build_catalogue(corpus, CHINESE).items, corpus.behaviour).to_dict("records")
    candidates = of_test(samples, "recommend")["candidates"]
    alike = [item for item in candidates if item in ("i05", "i09")]
    others = [item for item in candidates if item not in ("i03", "i05", "i07", "i09", "i11")]
    assert set(answer["ranking"][:2]) == {"i03", "i07"} and answer["scores"][:2] == [2, 2]
    assert answer["ranking"][2:] == [*alike, "i11", *others]  # ties stay in the order given
    assert answer["catalogue"][:5] == ["i03", "i07", "i05", "i09", "i11"] and len(answer["catalogue"]) == 20


def test_last_viewed_goes_back_in_time_and_on_by_popularity(corpus):
    samples = samples_of(corpus)
    popular = popular_predictions(samples, build_catalogue(corpus, CHINESE).items, corpus.behaviour)
    (answer,) = last_viewed_predictions(samples, popular).to_dict("records")
    assert answer["ranking"][:5] == answer["catalogue"][:5] == ["i05", "i07", "i09", "i03", "i11"]
    rest = [item for item in popular["ranking"][0] if item not in answer["ranking"][:3]]
    assert answer["ranking"][3:] == rest and len(set(answer["catalogue"])) == 20


def test_the_matcher_counts_values_that_were_said_and_reads_no_annotation(corpus):
    facts = {"i02": [("材质", "棉麻、真丝"), ("颜色", "Navy blue"), ("尺码", "大")], "i05": [("材质", "真丝")], "i07": [("风格", "通勤")], "i09": [("品牌", "真丝")]}
    knowledge = shop_of("shop", [f"i{n:02d}" for n in range(30)])
    knowledge += [(item, "shop", relation, value) for item, pairs in facts.items() for relation, value in pairs]
    samples = samples_of(corpus_of(*corpus.dialogues["train"], test=[ASKING], knowledge=knowledge))
    recommend = samples[(samples["split"] == "test") & (samples["task"] == "recommend")].copy()
    candidates = [f"i{n:02d}" for n in range(20)]
    turn = ["[user]要真丝的，navy BLUE，大的", "[understand]风格：通勤"]
    recommend["candidates"], recommend["context"], recommend["current"] = [candidates] * len(recommend), [[turn]] * len(recommend), [["[system]好的"]] * len(recommend)
    (answer,) = matcher_predictions(recommend, pd.DataFrame(knowledge, columns=KNOWLEDGE_COLUMNS), CHINESE).to_dict("records")
    assert answer["ranking"] == ["i02", "i05", *[item for item in candidates if item not in ("i02", "i05")]]
    assert answer["scores"] == [2, 1, *[0] * 18]


def test_in_english_the_matcher_finds_words_not_parts_of_words(corpus):
    knowledge = [("i01", "shop", "colour", "red"), ("i02", "shop", "material", "Faux fur, wool")]
    samples = samples_of(corpus)
    recommend = samples[(samples["split"] == "test") & (samples["task"] == "recommend")].copy()
    recommend["candidates"] = [["i00", "i01", "i02"]] * len(recommend)
    recommend["context"], recommend["current"] = [[["[user]I am tired, no faux fur!"]]] * len(recommend), [["[system]Sure."]] * len(recommend)
    answer = matcher_predictions(recommend, pd.DataFrame(knowledge, columns=KNOWLEDGE_COLUMNS), ENGLISH).iloc[0]
    assert answer["ranking"] == ["i02", "i00", "i01"] and answer["scores"] == [1, 0, 0]


def test_without_any_behaviour_the_order_is_the_given_one(corpus):
    bare = corpus_of(*corpus.dialogues["train"], test=[ASKING], knowledge=shop_of("shop", [f"i{n:02d}" for n in range(20)]))
    samples = samples_of(bare)
    candidates = of_test(samples, "recommend")["candidates"]
    popular = popular_predictions(samples, build_catalogue(bare, CHINESE).items, bare.behaviour)
    assert popular["ranking"][0] == ["i11", *[item for item in candidates if item != "i11"]]
    assert last_viewed_predictions(samples, popular)["ranking"][0] == popular["ranking"][0]


def test_actions_on_items_that_only_dialogues_name_tell_nothing(corpus):
    asked_for = ASKING.model_copy(deep=True)
    asked_for.dialogue[2].rec_item_id[:] = ["new"]
    acting = [*BEHAVIOUR, *[("shop", "u5", "new", "2022-09-18 12:00:00", "0")] * 9]
    told = corpus_of(*corpus.dialogues["train"], test=[asked_for], behaviour=acting)
    (answer,) = popular_predictions(samples_of(told), build_catalogue(told, CHINESE).items, told.behaviour).to_dict("records")
    assert answer["scores"][answer["ranking"].index("new")] == 0 and max(answer["scores"]) > 0


KNOWLEDGE = pd.DataFrame(
    [("1", "s", "功效", "补水,保湿"), ("2", "s", "适合肤质", "干性"), ("3", "s", "功效", "干性"), ("4", "s", "功效", "干性"), ("4", "s", "功效", "干性肌肤"),
     ("5", "s", "质地", "水"), ("6", "s", "品牌", "某牌"), ("7", "s", "screen size", "large screen"), ("8", "s", "colour", "Red"),
     ("9", "s", "type", "T-Shirt"), ("9", "s", "for", "Men's")],
    columns=["item_id_encrypt", "seller_id_encrypt", "relation_name", "value"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "prompts", "found"),
    [
        ("[user]想要保湿的，干性皮肤", CHINESE, "功效：保湿；功效：干性"),  # of two relations the more frequent
        ("[user]干性肌肤，干性", CHINESE, "功效：干性肌肤；功效：干性"),  # the longest word
        ("[system]质地和功效呢", CHINESE, "质地：；功效："),
        ("[user]某牌的水，[user]补水补水", CHINESE, "功效：补水"),  # no brand, no single character; nothing twice
        ("[user]a red one, Large Screen", ENGLISH, "colour: red; screen size: Large Screen"),
        ("[user]a T-shirt for men's feet", ENGLISH, "type: T-shirt; for: ; for: men's"),
        ("[user]reddish", ENGLISH, ""),
    ],
)
def test_the_dictionary_finds_words_of_the_catalogue(text, prompts, found):
    samples = asked([("understand", "x")]).assign(current=[[text]])
    (answer,) = dictionary_predictions(samples, KNOWLEDGE, prompts).to_dict("records")
    assert (answer["text"], answer["valid"]) == (found, bool(found))


def test_every_floor_answers_its_tasks_and_is_stored_with_its_rankings(corpus, tmp_path):
    samples = samples_of(corpus)
    floors = floor_predictions(samples, build_catalogue(corpus, CHINESE).items, corpus, CHINESE)
    assert list(floors) == list(FLOORS)
    for key, answers in floors.items():
        assert set(answers["system"]) == {key}
        write_predictions(answers, tmp_path / f"{key}.parquet")
    scored = score(samples, read_predictions(tmp_path), "zh")
    tasks = {key: set(part["task"]) for key, part in scored.groupby("system")}
    recommend = {"recommend"}
    assert tasks == {"trivial": set(TASKS), "dictionary": {"understand"}, "popular": recommend, "last_viewed": recommend, "matcher": recommend}
    assert set(read_catalogue_rankings(tmp_path)["system"]) == set(RANKING_FLOORS)
    assert not catalogue_file(tmp_path / "trivial.parquet").exists()


def test_a_shopper_without_behaviour_counts_in_the_catalogue_too(corpus, tmp_path):
    guest = ASKING.model_copy(update={"sid": "t2", "userid": "nobody"})
    told = corpus_of(*corpus.dialogues["train"], test=[ASKING, guest], behaviour=BEHAVIOUR)
    samples, items = samples_of(told), build_catalogue(told, CHINESE).items
    write_predictions(floor_predictions(samples, items, told, CHINESE)["last_viewed"], tmp_path / "last_viewed.parquet")
    assert dict(score_catalogue(samples, read_catalogue_rankings(tmp_path)).set_index("sid")["Hit@10"]) == {"t1": 1.0, "t2": 1.0}


def test_predictions_without_rankings_leave_none_of_others_behind(corpus, tmp_path):
    floors = floor_predictions(samples_of(corpus), build_catalogue(corpus, CHINESE).items, corpus, CHINESE)
    write_predictions(floors["popular"], tmp_path / "x.parquet")
    assert catalogue_file(tmp_path / "x.parquet").exists()
    write_predictions(floors["trivial"], tmp_path / "x.parquet")
    assert not catalogue_file(tmp_path / "x.parquet").exists()


def test_no_floor_reads_a_label_of_the_test_split(corpus):
    samples, items = samples_of(corpus), build_catalogue(corpus, CHINESE).items
    blind = samples.assign(label=samples["label"].where(samples["split"] == "train", "x"))
    for one, other in zip(*(floor_predictions(s, items, corpus, CHINESE).values() for s in (samples, blind)), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_trivial_predictions(tmp_path):
    train = asked([("elicit", "b"), ("elicit", "a"), ("elicit", "b"), ("respond", "y"), ("respond", "x")], split="train")
    test = asked([("elicit", "a"), ("respond", "x"), ("recommend", "i3"), ("recommend", "i4")])
    samples = pd.concat([train, test], ignore_index=True)
    trivial = trivial_predictions(samples)
    assert list(trivial["sample_id"]) == list(test["sample_id"])
    assert list(trivial["text"][:2]) == ["b", "x"]  # x and y are as frequent
    assert [sorted(ranking) for ranking in trivial["ranking"][2:]] == [sorted(ITEMS)] * 2
    assert trivial["ranking"][2] != trivial["ranking"][3]
    assert trivial["text"][2] == trivial["ranking"][2][0]

    # A sample's order depends on no other sample, and the seed matters.
    fewer = trivial_predictions(samples.drop(index=samples.index[samples["sample_id"] == "test-2"]))
    assert fewer["ranking"].iloc[-1] == trivial["ranking"].iloc[-1]
    assert trivial_predictions(samples, seed=2)["ranking"].iloc[-1] != trivial["ranking"].iloc[-1]

    write_predictions(trivial, tmp_path / "trivial.parquet")
    stored = score(samples, read_predictions(tmp_path), "zh")
    pd.testing.assert_frame_equal(stored, score(samples, trivial, "zh"), check_dtype=False)


def test_trivial_needs_train_samples():
    with pytest.raises(ValueError, match="'elicit' has test samples but no train samples"):
        trivial_predictions(asked([("elicit", "a")]))


def test_a_click_counts_as_much_as_a_word():
    matcher = pd.DataFrame({"sample_id": ["r1", "r2"], "ranking": [["a", "b", "c"], ["a", "b", "c"]], "scores": [[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]], "text": ["a", "a"]})
    samples = pd.DataFrame({"sample_id": ["r2", "r1"], "history": [["z", "b"], ["c", "b", "c"]]})
    found = with_clicks(matcher, samples)
    assert found["ranking"].tolist() == [["a", "b", "c"], ["b", "a", "c"]] and found["scores"].tolist() == [[2, 2, 2], [1, 0, 0]], "a second click counts no more, and equals stay in order"
    assert found["text"].tolist() == ["a", "b"] and matcher["text"].tolist() == ["a", "a"]
