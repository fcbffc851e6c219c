"""The 20 candidates of a recommendation: the right ones, drawn the same way every time, giving the gold item no place."""

from collections import Counter

import pytest
from conftest import corpus_of, dialogue_of, said, samples_of, shop_of

from llmcrs_utils.corpus.schema import CorpusError
from llmcrs_utils.tasks.candidates import CANDIDATES, build_catalogue
from llmcrs_utils.text.prompts import CHINESE, LETTERS

BIG = [f"big{n:02d}" for n in range(40)]
SMALL = [f"small{n}" for n in range(8)]
TINY = [f"tiny{n}" for n in range(3)]
SHOPS = [*shop_of("big", BIG, "1801"), *shop_of("small", SMALL, "1801"), *shop_of("tiny", TINY, "50"), ("bare", "x", "颜色", "白")]


@pytest.fixture(scope="module")
def catalogue():
    return build_catalogue(corpus_of(knowledge=SHOPS), CHINESE)


def recommended(*items, sid="s1", seller="big", candidates=()):
    return dialogue_of(said("用户需求", "面霜"), said("系统推荐", "看", [], items, candidates), sid=sid, seller=seller)


def candidates_by_id(corpus):
    samples = samples_of(corpus)
    samples = samples[samples["task"] == "recommend"]
    return dict(zip(samples["sample_id"], samples["candidates"], strict=True))


def test_twenty_distinct_items_the_gold_one_among_them(generated_samples):
    recommend = generated_samples[generated_samples["task"] == "recommend"]
    assert len(recommend) > 5
    for gold, candidates in zip(recommend["label"], recommend["candidates"], strict=True):
        assert len(candidates) == len(set(candidates)) == CANDIDATES == 20 and gold in candidates


def test_a_big_shop_gives_all_candidates(catalogue):
    assert set(catalogue.candidates("s", 1, "big07", "big", [], [])) <= set(BIG)


def test_a_small_shop_gives_all_it_has_and_the_rest_come_from_its_top_category(catalogue):
    drawn = set(catalogue.candidates("s", 1, "small3", "small", [], []))
    assert set(SMALL) <= drawn and len(drawn & set(BIG)) == 12


def test_a_small_category_gives_all_it_has_and_the_rest_are_any():
    knowledge = [*SHOPS, *shop_of("tiny2", ["cousin1", "cousin2"], "50")]
    drawn = set(build_catalogue(corpus_of(knowledge=knowledge), CHINESE).candidates("s", 1, "tiny1", "tiny", [], []))
    assert {*TINY, "cousin1", "cousin2"} <= drawn and len(drawn) == 20


def test_an_item_without_category_takes_others_of_any(catalogue):
    assert len(set(catalogue.candidates("s", 1, "bare", "x", [], []))) == 20


def test_other_items_of_the_same_turn_never_serve_as_wrong_ones():
    items = [*SMALL[:3], *BIG[:15]]
    drawn = candidates_by_id(corpus_of(recommended(*items), knowledge=SHOPS))
    assert len(drawn) == len(items)
    for gold, candidates in zip(items, drawn.values(), strict=True):
        assert set(candidates) & set(items) == {gold} and len(set(candidates)) == 20


def test_candidates_of_the_corpus_are_used_as_they_are():
    given = [*SMALL, *TINY, *BIG[:9]]
    (drawn,) = candidates_by_id(corpus_of(recommended("small2", candidates=[given]), knowledge=SHOPS)).values()
    assert set(drawn) == set(given)


def test_each_item_of_a_turn_has_its_own_given_candidates_without_the_other_gold_items():
    lists = [[*BIG[:19], "small0"], [*BIG[20:39], "small1", "small0"]]
    first, second = candidates_by_id(corpus_of(recommended("small0", "small1", candidates=lists), knowledge=SHOPS)).values()
    assert set(first) == set(lists[0])
    assert set(second) == {*BIG[20:39], "small1"}


def test_given_candidates_are_filled_from_the_shop_up_to_twenty():
    given = [*TINY, "big00", "big01"]
    (drawn,) = candidates_by_id(corpus_of(recommended("big00", candidates=[given]), knowledge=SHOPS)).values()
    assert set(given) <= set(drawn) <= {*given, *BIG} and len(set(drawn)) == 20


def test_too_many_given_candidates_are_cut_and_a_forgotten_gold_item_is_added():
    given = BIG[:30]
    (drawn,) = candidates_by_id(corpus_of(recommended("small0", candidates=[given]), knowledge=SHOPS)).values()
    assert "small0" in drawn and len(set(drawn) & set(given)) == 19


def test_given_candidates_belong_to_their_own_turn_though_the_item_is_recommended_again():
    first, second = [*BIG[:19], "small0"], [*BIG[20:39], "small0"]
    dialogue = dialogue_of(
        said("系统推荐", "看", [], ["small0"], [first]), said("用户反馈", "嗯"), said("系统推荐", "看", [], ["small0"], [second])
    )
    assert [set(c) for c in candidates_by_id(corpus_of(dialogue, knowledge=SHOPS)).values()] == [set(first), set(second)]


def test_adding_dialogues_changes_no_candidates_of_others():
    alone = candidates_by_id(corpus_of(recommended("big00"), recommended("small0", sid="s2", seller="small"), knowledge=SHOPS))
    more = corpus_of(
        recommended("big33", sid="s0"), recommended("small0", sid="s2", seller="small"), recommended("big00", "big05", sid="s9"),
        knowledge=SHOPS, test=[recommended("big00")],
    )
    drawn = candidates_by_id(more)
    assert len(alone) == 2 and {name: drawn[name] for name in alone} == alone


def test_candidates_are_drawn_anew_for_each_dialogue_turn_and_item(catalogue):
    draws = [
        tuple(catalogue.candidates(sid, seq_no, gold, "big", [], []))
        for sid, seq_no, gold in [("s", 1, "big00"), ("t", 1, "big00"), ("s", 2, "big00"), ("s", 1, "big01")]
    ]
    assert len(set(draws)) == 4
    assert tuple(catalogue.candidates("s", 1, "big00", "big", [], [])) == draws[0]


@pytest.mark.parametrize(("gold", "seller", "given"), [("big00", "big", []), ("small1", "small", []), ("big03", "big", BIG[:20])])
def test_gold_item_is_as_likely_at_every_letter(catalogue, gold, seller, given):
    places = Counter(catalogue.candidates(f"s{n}", 3, gold, seller, given, []).index(gold) for n in range(2000))
    assert set(places) == set(range(len(LETTERS)))
    assert 60 < min(places.values()) and max(places.values()) < 140  # 100 expected, standard deviation 9.7


def test_negatives_are_drawn_evenly_from_the_shop(catalogue):
    drawn = Counter(item for n in range(1000) for item in catalogue.candidates(f"s{n}", 1, "big00", "big", [], []))
    assert drawn.pop("big00") == 1000
    assert set(drawn) == set(BIG[1:]) and 400 < min(drawn.values()) and max(drawn.values()) < 575  # 487 expected


def test_a_catalogue_under_twenty_items_is_a_clear_error():
    corpus = corpus_of(recommended("small0", seller="small"), knowledge=shop_of("small", SMALL))
    with pytest.raises(CorpusError, match=r"dialogue s1, item small0: .*only 8 items.*20; add product knowledge"):
        samples_of(corpus)


def test_exactly_twenty_items_are_enough():
    corpus = corpus_of(recommended("big00"), knowledge=shop_of("big", BIG[:20]))
    (drawn,) = candidates_by_id(corpus).values()
    assert set(drawn) == set(BIG[:20])


def test_items_that_only_a_dialogue_names_belong_to_its_shop():
    catalogue = build_catalogue(corpus_of(recommended("new", candidates=[["new", "newer"]]), knowledge=SHOPS), CHINESE)
    assert catalogue.items.iloc[catalogue.index["new"]].to_dict() == {
        "item_id": "new", "seller_id": "big", "category": "", "listed": False, "facts": "",
    }
    assert "newer" in catalogue.index and catalogue.items["item_id"].is_monotonic_increasing


def test_facts_join_values_of_a_relation_and_leave_out_brand_and_categories():
    rows = [*shop_of("big", ["big00"]), ("big00", "big", "材质", "冰丝"), ("big00", "big", "材质", "棉质"), ("b1", "big", "品牌", "某牌")]
    items = build_catalogue(corpus_of(knowledge=rows), CHINESE).items.set_index("item_id")
    assert items["facts"].to_dict() == {"big00": "价格区间是高，材质是冰丝、棉质", "b1": ""}
    assert items["category"].to_dict() == {"big00": "1801", "b1": ""}


def test_a_gold_item_nothing_is_known_of_is_not_the_only_such_candidate():
    bare = [(f"bare{k:02}", "big", "品牌", "某牌") for k in range(25)]  # a brand is never shown
    for gold, described in (("bare03", False), ("big03", True)):
        catalogue = build_catalogue(corpus_of(recommended(gold), knowledge=[*shop_of("big", [f"big{k:02}" for k in range(25)]), *bare]), CHINESE)
        facts = dict(zip(catalogue.items["item_id"], catalogue.items["facts"], strict=True))
        candidates = catalogue.candidates("sid", 1, gold, "big", [], [])
        assert {bool(facts[item]) for item in candidates} == {described}
