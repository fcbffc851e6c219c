"""The synthetic world: its dialogues are exact, reproducible, consistent with its catalogue, and not noise."""

import random
from functools import cache

import pandas as pd
import pytest

from llmcrs_utils.corpus.schema import LINK_ONLY, SPLITS, read_behaviour, read_dialogues, read_knowledge, write_corpus
from llmcrs_utils.corpus.world import generate
from llmcrs_utils.corpus.world.categories import CATEGORIES
from llmcrs_utils.corpus.world.generate import best_items, scatter, stock

DOMAINS = {"美妆行业", "手机行业", "服装行业", "鞋类行业", "大家电行业"}
ACTS = {"用户需求", "系统提问", "用户回答", "系统推荐", "系统解释", "用户反馈"}
CATEGORY = {category.domain: category for category in CATEGORIES}
SMALL = {"train": 20, "valid": 5, "test": 10}


@pytest.fixture(scope="module")
def world():
    return generate()


@pytest.fixture(scope="module")
def small():
    return generate(SMALL)


@cache
def catalogue_values(domain, key):
    return dict((word, value) for value, words in CATEGORY[domain].attributes[key].words.items() for word in words)


def dialogues_of(corpus):
    return [dialogue for split in SPLITS for dialogue in corpus.dialogues[split]]


def utterances_of(corpus):
    return [(dialogue, utterance) for dialogue in dialogues_of(corpus) for utterance in dialogue.dialogue]


def dumped(dialogues):
    return [dialogue.model_dump() for dialogue in dialogues]


def facts_of(corpus):
    """item -> relation -> set of values, as the catalogue tells."""
    facts = {}
    for item, _, relation, cell in corpus.knowledge.itertuples(index=False):
        facts.setdefault(item, {}).setdefault(relation, set()).update(cell.split(","))
    return facts


def test_sizes_and_identifiers(world):
    assert {split: len(world.dialogues[split]) for split in SPLITS} == {"train": 320, "valid": 40, "test": 80}
    sids = [dialogue.sid for dialogue in dialogues_of(world)]
    assert len(set(sids)) == len(sids) and all(len(sid) == 32 and int(sid, 16) >= 0 for sid in sids)
    assert world.knowledge["item_id_encrypt"].nunique() == 5 * 3 * 40
    assert (world.knowledge.groupby("item_id_encrypt")["seller_id_encrypt"].nunique() == 1).all()
    assert world.knowledge.groupby("item_id_encrypt").size().between(3, 7).all()
    assert world.knowledge["value"].str.contains(",").any()


def test_all_domains_and_acts_occur_in_every_split(world):
    for split in SPLITS:
        assert {dialogue.domain for dialogue in world.dialogues[split]} == DOMAINS
        assert {u.act_tag for dialogue in world.dialogues[split] for u in dialogue.dialogue} == ACTS


def test_spans_are_exact_and_values_known(world):
    for dialogue, utterance in utterances_of(world):
        for attribute in utterance.attributes:
            assert attribute.key in CATEGORY[dialogue.domain].attributes
            if attribute.value == "":
                assert (attribute.start, attribute.exclusive_end) == (-1, -1) and utterance.act_tag == "系统提问"
            else:
                assert utterance.send_content[attribute.start : attribute.exclusive_end] == attribute.value
                assert attribute.value in catalogue_values(dialogue.domain, attribute.key)
        if utterance.act_tag.startswith("用户") or utterance.act_tag == "系统提问":
            assert utterance.attributes, utterance.send_content
        assert "{" not in utterance.send_content and utterance.send_content


def test_no_word_holds_a_separator():
    for category in CATEGORIES:
        for attribute in category.attributes.values():
            for value, words in attribute.words.items():
                assert not set("：；、，,") & set("".join([attribute.key, value, *words]))


def test_data_names_only_what_exists():
    for category in CATEGORIES:
        relations = {attribute.relation for attribute in category.attributes.values()}
        for product in category.products.values():
            assert set(product.keys) <= set(category.attributes) and len(set(product.keys)) == len(product.keys)
            assert set(product.only) <= relations
        for name, product in category.products.items():
            for relation, values in product.only.items():
                assert set(values) == set(category.values(name, relation)), (name, relation)
            for key in product.keys:
                assert len(category.values(name, category.attributes[key].relation)) > 1, (name, key)
        for theme in category.themes:
            for relation, values in theme.items():
                known = {v for a in category.attributes.values() if a.relation == relation for v in a.words}
                assert set(values) <= known
        for (key, value), follow_up in category.follow_ups.items():
            assert value in category.attributes[key].words and follow_up in category.attributes


def test_same_seed_same_world_other_seed_another(small):
    again, other = generate(SMALL), generate(SMALL, seed=2)
    assert dumped(dialogues_of(small)) == dumped(dialogues_of(again))
    pd.testing.assert_frame_equal(small.knowledge, again.knowledge)
    pd.testing.assert_frame_equal(small.behaviour, again.behaviour)
    assert dumped(dialogues_of(small)) != dumped(dialogues_of(other))


def test_one_dialogue_is_pinned(small):
    """The world must not depend on the machine: a change of this text is a change of the data."""
    texts = [utterance.send_content for utterance in small.dialogues["train"][0].dialogue]
    assert small.dialogues["train"][0].sid == "74be93c67f317fcc8b722ed373607d50"
    assert texts == [
        "帮我推荐一款精华，我是干性皮肤",
        "主要想解决什么问题呢/:065",
        "脸上有点细纹",
        "仅发送商品链接",
        "这款抗皱效果很好，干性肌肤可以放心用呢亲",
        "有暗沉可以用吗",
        "仅发送商品链接",
        "亲亲，这款干性肌肤可以放心用呢",
        "而且价格很实惠",
    ]


def test_more_dialogues_leave_the_first_as_they_were(world, small):
    for split in SPLITS:
        assert dumped(world.dialogues[split])[: SMALL[split]] == dumped(small.dialogues[split])
    pd.testing.assert_frame_equal(world.knowledge, small.knowledge)
    users = set(small.behaviour["user_id_encrypt"])
    kept = world.behaviour[world.behaviour["user_id_encrypt"].isin(users)]
    columns = list(kept.columns)
    pd.testing.assert_frame_equal(
        kept.sort_values(columns, ignore_index=True), small.behaviour.sort_values(columns, ignore_index=True)
    )


def test_more_sellers_or_items_leave_the_first_shops_items_findable(small):
    larger = generate({"train": 0}, sellers_per_category=4)
    assert set(small.knowledge["item_id_encrypt"]) < set(larger.knowledge["item_id_encrypt"])


def test_recommended_items_are_the_sellers_own_and_never_repeated(world):
    seller_of = dict(zip(world.knowledge["item_id_encrypt"], world.knowledge["seller_id_encrypt"], strict=True))
    for dialogue in dialogues_of(world):
        items = [item for utterance in dialogue.dialogue for item in utterance.rec_item_id]
        assert items and len(set(items)) == len(items)
        assert {seller_of[item] for item in items} == {dialogue.sellerid}
        top = CATEGORY[dialogue.domain].top_category
        for utterance in dialogue.dialogue:
            assert (utterance.act_tag == "系统推荐") == bool(utterance.rec_item_id) == (utterance.send_content == LINK_ONLY)
            assert utterance.rec_item_info == [f"{item}@{top}" for item in utterance.rec_item_id]
            assert utterance.rec_item_candidates == []


def test_time_runs_forward(world):
    for dialogue in dialogues_of(world):
        times = [utterance.time for utterance in dialogue.dialogue]
        assert all(before < after for before, after in zip(times, times[1:]))
        assert [utterance.seq_no for utterance in dialogue.dialogue] == list(range(1, len(times) + 1))
        assert dialogue.ds == f"{times[0]:%Y%m%d}"


def test_behaviour_precedes_each_dialogue_and_links_are_followed_only_once_sent(world):
    by_user = dict(list(world.behaviour.groupby("user_id_encrypt")))
    sellers = set(world.knowledge["seller_id_encrypt"])
    assert set(world.behaviour["seller_id_encrypt"]) <= sellers
    for dialogue in dialogues_of(world):
        actions = by_user[dialogue.userid]
        before = actions[actions["actime"] < dialogue.dialogue[0].time]
        assert 3 <= len(before) <= 12 and dialogue.sellerid in set(before["seller_id_encrypt"])
        sent = [(u.time, item) for u in dialogue.dialogue for item in u.rec_item_id]
        during = actions[actions["actime"].between(dialogue.dialogue[0].time, dialogue.dialogue[-1].time)]
        for moment, item in zip(during["actime"], during["item_id_encrypt"], strict=True):
            assert any(time < moment and item == link for time, link in sent)
    assert len(by_user) == 3 * len(dialogues_of(world))  # two silent shoppers for each who talks


def test_written_and_read_back_equal(small, tmp_path):
    write_corpus(small, tmp_path)
    for split in SPLITS:
        assert dumped(read_dialogues(tmp_path / f"{split}_dialogue.json")) == dumped(small.dialogues[split])
    pd.testing.assert_frame_equal(read_knowledge(tmp_path / "item_kg.txt"), small.knowledge)
    pd.testing.assert_frame_equal(read_behaviour(tmp_path / "user_action.txt"), small.behaviour)


def test_popularity_is_long_tailed(world):
    counts = world.behaviour.groupby(["seller_id_encrypt", "item_id_encrypt"]).size()
    for _, shop in counts.groupby(level=0):
        shop = shop.sort_values(ascending=False)
        assert shop.iloc[:8].sum() > 0.4 * shop.sum()  # a fifth of the items has far more than a fifth of the views


def test_one_shoppers_items_are_alike(world):
    """Co-occurrence must tell something: what one shopper views shares a product type more often than a shop's items do."""
    facts = facts_of(world)
    kind = {item: next(iter(fact["类目"])) for item, fact in facts.items() if "类目" in fact}
    shops = {seller: sorted(set(rows)) for seller, rows in world.knowledge.groupby("seller_id_encrypt")["item_id_encrypt"]}
    rng, viewed, chance = random.Random(0), [], []
    for (_, seller), items in world.behaviour.groupby(["user_id_encrypt", "seller_id_encrypt"])["item_id_encrypt"]:
        for one, other in zip(items, items[1:]):
            stranger = rng.choice(shops[seller])
            if one != other and one in kind and other in kind and stranger in kind:
                viewed.append(kind[one] == kind[other])
                chance.append(kind[one] == kind[stranger])
    assert sum(viewed) / len(viewed) > sum(chance) / len(chance) + 0.1


def test_spoken_needs_and_behaviour_shape_the_recommendation(world):
    """A recommended item meets the needs spoken so far, and was viewed before, far oftener than a random one of the shop."""
    facts = facts_of(world)
    shops = {seller: sorted(set(rows)) for seller, rows in world.knowledge.groupby("seller_id_encrypt")["item_id_encrypt"]}
    rng, met, met_by_chance, viewed, viewed_by_chance, kinds = random.Random(0), [], [], [], [], []
    by_user = dict(list(world.behaviour.groupby("user_id_encrypt")))
    for dialogue in dialogues_of(world):
        needs = {}
        actions = by_user[dialogue.userid]
        seen = set(actions[actions["actime"] < dialogue.dialogue[0].time]["item_id_encrypt"])
        for utterance in dialogue.dialogue:
            if utterance.sender_type == "用户":
                for attribute in utterance.attributes:
                    relation = CATEGORY[dialogue.domain].attributes[attribute.key].relation
                    needs[relation] = catalogue_values(dialogue.domain, attribute.key)[attribute.value]
            for item in utterance.rec_item_id:
                stranger = rng.choice(shops[dialogue.sellerid])
                for relation, value in needs.items():
                    if relation in facts[item]:
                        met.append(value in facts[item][relation])
                        kinds += [value in facts[item][relation]] if relation == "类目" else []
                    if relation in facts[stranger]:
                        met_by_chance.append(value in facts[stranger][relation])
                viewed.append(item in seen)
                viewed_by_chance.append(stranger in seen)
    assert sum(met) / len(met) > sum(met_by_chance) / len(met_by_chance) + 0.3
    assert sum(viewed) / len(viewed) > sum(viewed_by_chance) / len(viewed_by_chance) + 0.2
    assert all(kinds)  # nobody is shown another product type than the one asked for


def test_what_was_looked_at_lifts_an_item():
    """With no need spoken, the items viewed rise; what was viewed in another shop says nothing."""
    seller, gains = stock(CATEGORIES[0], 0, 40, seed=1), []
    for item in seller.items:
        ranks = []
        for viewed in (seller.items[0], item):
            before = [(seller.seller_id, "1", viewed.item_id), ("another", "1", "9")]
            ranks.append([i.item_id for i in best_items(random.Random(0), seller, {}, before, [])].index(item.item_id))
        gains.append(ranks[0] - ranks[1])
    assert sum(gains) / len(gains) > 5


def test_scattered_numbers_never_collide():
    assert len({scatter(counter, digits=4, first=2, seed=3) for counter in range(1000)}) == 1000


def test_explanations_deny_no_need(world):
    """An explanation names no value of a relation on which the shopper wants another."""
    for dialogue in dialogues_of(world):
        category, wanted = CATEGORY[dialogue.domain], {}
        for utterance in dialogue.dialogue:
            for attribute in utterance.attributes if utterance.sender_type == "用户" else []:
                wanted[attribute.key] = catalogue_values(dialogue.domain, attribute.key)[attribute.value]
            if utterance.act_tag == "系统解释":
                for key in {"性别", "肤质", "价位", "空调类型", "洗衣机类型"} & set(wanted):
                    desk = category.attributes[key].desk
                    others = [desk.get(v, v) for v in category.attributes[key].words if v != wanted[key]]
                    assert not any(other in utterance.send_content for other in others), utterance.send_content


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"dialogues": {"dev": 3}}, "dev"),
        ({"dialogues": {"train": -1}}, "negative"),
        ({"sellers_per_category": 0}, "sellers_per_category"),
        ({"items_per_seller": 3}, "items_per_seller"),
    ],
)
def test_bad_sizes_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        generate(**arguments)
