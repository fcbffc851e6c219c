"""Play the synthetic world: stock the shops, let shoppers browse, and let them talk with the service desk.

Every shop, shopper and dialogue draws from a random stream of its own, named by a string, so that asking for
more of one leaves the others as they were, on any machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import pandas as pd

from llmcrs_utils.corpus.schema import (
    BEHAVIOUR_COLUMNS,
    KNOWLEDGE_COLUMNS,
    LINK_ONLY,
    SPLITS,
    TOP_CATEGORY,
    Attribute,
    Corpus,
    Dialogue,
    Utterance,
)
from llmcrs_utils.corpus.world.categories import (
    BRAND,
    CATEGORIES,
    COURTESIES,
    EXPLANATIONS,
    EXPLANATIONS_OF_TWO,
    KIND,
    KIND_RELATION,
    OPENINGS,
    OPENINGS_WITHOUT_KIND,
    PLAIN_EXPLANATIONS,
    PLAIN_EXPLANATIONS_OF_TWO,
    TWO_QUESTIONS,
    Category,
)

LEAF = "叶子类目"
VIEW, CART, FAVOURITE, BUY = "0", "1", "2", "3"
SILENT_PER_DIALOGUE = 2  # shoppers who only browse, for each one who talks
KINDS_PER_SHOP = 3
MOST_TUPLES = 7  # of one item
FIRST_DAY = datetime(2022, 9, 1)

# What the desk goes by when it picks an item.
NEED_WEIGHT = 1.0  # a spoken need that the item meets
FIRM_WEIGHT = 2.0  # the same where a miss makes the item useless, as with the wrong skin type
KIND_WEIGHT = 5.0  # the same for the product type: nobody is shown a cream who asked for a mask
BEHAVIOUR_WEIGHT = 2.2  # likeness to what the shopper looked at
POPULARITY_WEIGHT = 0.8
NOISE = 0.15

Facts = dict[str, tuple[str, ...]]  # relation -> values
Traits = frozenset[tuple[str, str]]  # the same as (relation, value) pairs, which compare fast


@dataclass(frozen=True)
class Item:
    """A product: all its facts, the part of them the catalogue describes, and its popularity (the best seller has 1)."""

    item_id: str
    kind: str
    facts: Facts
    described: Facts
    traits: Traits
    popularity: float


@dataclass(frozen=True)
class Seller:
    """A shop of one category."""

    seller_id: str
    category: Category
    items: list[Item]


@dataclass(frozen=True)
class Shopper:
    """A shopper: the product type wanted, and a value for every relation that matters (most are never spoken)."""

    user_id: str
    kind: str
    taste: Facts
    traits: Traits


def generate(
    dialogues: dict[str, int] = {"train": 320, "valid": 40, "test": 80},
    sellers_per_category: int = 3,
    items_per_seller: int = 40,
    seed: int = 1,
) -> Corpus:
    """A corpus of ``dialogues`` per split over five categories, the same for the same arguments on any machine.

    Raises:
        ValueError: on an unknown split, a negative size, or a shop too small to recommend from.
    """
    unknown = sorted(set(dialogues) - set(SPLITS))
    if unknown:
        raise ValueError(f"dialogues: unknown split {unknown[0]!r}; known: {', '.join(SPLITS)}")
    if min(dialogues.values(), default=0) < 0:
        raise ValueError(f"dialogues: {dialogues}; give no negative number")
    if sellers_per_category < 1:
        raise ValueError(f"sellers_per_category is {sellers_per_category}; give at least 1")
    if not 10 <= items_per_seller <= 10_000:
        raise ValueError(f"items_per_seller is {items_per_seller}; give 10 to 10000")

    shops = {
        category.domain: [stock(category, number, items_per_seller, seed) for number in range(sellers_per_category)]
        for category in CATEGORIES
    }
    talks, actions = {}, []
    for split in SPLITS:
        talks[split] = []
        for number in range(dialogues.get(split, 0)):
            category = CATEGORIES[number % len(CATEGORIES)]
            rng = Random(f"{seed} {split} dialogue {number}")
            dialogue, own_actions = visit(rng, category, shops[category.domain], user_id(split, number, 0, seed))
            talks[split].append(dialogue)
            actions += own_actions
            for silent in range(1, SILENT_PER_DIALOGUE + 1):
                rng = Random(f"{seed} {split} silent {number} {silent}")
                actions += stroll(rng, category, shops[category.domain], user_id(split, number, silent, seed))
    sellers = [seller for sellers in shops.values() for seller in sellers]
    return Corpus(dialogues=talks, knowledge=knowledge_table(sellers), behaviour=behaviour_table(actions))


# --- shops ---


def stock(category: Category, number: int, size: int, seed: int) -> Seller:
    """The ``number``-th shop of a category: some of its product types, ``size`` items of Zipf-like popularity."""
    counter = number * len(CATEGORIES) + CATEGORIES.index(category)
    rng = Random(f"{seed} seller {counter}")
    kinds = sorted(rng.sample(list(category.products), KINDS_PER_SHOP))
    brand = f"{chr(ord('A') + rng.randrange(6))}品牌"
    ranks = rng.sample(range(size), size)
    items = []
    for index in range(size):
        rng = Random(f"{seed} seller {counter} item {index}")
        kind = pick_kind(rng, category, kinds)
        facts = {KIND_RELATION: (kind,), **draw_facts(rng, category, kind)}
        facts.setdefault(BRAND, (brand,))
        items.append(
            Item(
                item_id=scatter(counter * 10_000 + index, digits=12, first=6, seed=seed),
                kind=kind,
                facts=facts,
                described=describe(rng, facts),
                traits=traits_of(facts),
                popularity=1 / (1 + ranks[index]),
            )
        )
    return Seller(scatter(counter, digits=10, first=2, seed=seed), category, items)


def pick_kind(rng: Random, category: Category, kinds: Sequence[str]) -> str:
    return rng.choices(kinds, [category.products[kind].share for kind in kinds])[0]


def draw_facts(rng: Random, category: Category, kind: str) -> Facts:
    """Values for every relation that matters for ``kind``, mostly those of one theme, so that they go together."""
    theme = rng.choice(category.themes)
    facts: Facts = {}
    for key in category.products[kind].keys:
        attribute = category.attributes[key]
        if attribute.relation in facts or not attribute.listed:
            continue
        allowed = category.values(kind, attribute.relation)
        typical = [value for value in theme.get(attribute.relation, ()) if value in allowed]
        value = rng.choice(typical if typical and rng.random() < 0.75 else allowed)
        others = [other for other in typical if other != value]
        second = (rng.choice(others),) if attribute.several and others and rng.random() < 0.3 else ()
        facts[attribute.relation] = (value, *second)
    return facts


def describe(rng: Random, facts: Facts) -> Facts:
    """The part of ``facts`` that the catalogue tells: often little, as in real catalogues."""
    count = rng.choices((1, 2, 3, 4), (15, 20, 40, 25))[0]
    relations = [relation for relation in facts if relation not in (KIND_RELATION, BRAND)]
    rng.shuffle(relations)
    if rng.random() < 0.85:
        relations.insert(0, KIND_RELATION)
    kept = {BRAND, *relations[:count]}
    return {relation: values for relation, values in facts.items() if relation in kept}


def knowledge_table(sellers: list[Seller]) -> pd.DataFrame:
    rows = []
    for seller in sellers:
        for item in seller.items:
            rng = Random(f"tuples {item.item_id}")
            facts = [(TOP_CATEGORY, seller.category.top_category)]
            for relation, values in item.described.items():
                # merchants now and then type two values into one field
                cells = [",".join(values)] if rng.random() < 0.3 else values
                facts += [(relation, cell) for cell in cells]
            if len(facts) < MOST_TUPLES and rng.random() < 0.3:
                facts.append((LEAF, seller.category.products[item.kind].leaf))
            rows += [(item.item_id, seller.seller_id, *fact) for fact in facts]
    return pd.DataFrame(rows, columns=KNOWLEDGE_COLUMNS, dtype=str)


# --- shoppers ---


def draw_shopper(rng: Random, category: Category, seller: Seller, user: str) -> Shopper:
    kinds = sorted({item.kind for item in seller.items})
    kind = pick_kind(rng, category, kinds)
    taste = {KIND_RELATION: (kind,), **{relation: values[:1] for relation, values in draw_facts(rng, category, kind).items()}}
    return Shopper(user, kind, taste, traits_of(taste))


def browse(rng: Random, shopper: Shopper, home: Seller, other: Seller, count: int, until: datetime) -> list[tuple]:
    """``count`` actions on the days before ``until``, mostly at ``home``, drawn to popular items of the shopper's taste."""
    weights = {
        seller.seller_id: [item.popularity * math.exp(6 * likeness(shopper.traits, item.traits)) for item in seller.items]
        for seller in (home, other)
    }
    actions, moment = [], until
    for _ in range(count):
        moment -= timedelta(seconds=rng.randrange(60, 36_000) if rng.random() < 0.3 else rng.randrange(20, 600))
        seller = home if rng.random() < 0.85 else other
        item = rng.choices(seller.items, weights[seller.seller_id])[0]
        action = rng.choices((VIEW, CART, FAVOURITE, BUY), (80, 9, 7, 4))[0]
        actions.append((seller.seller_id, shopper.user_id, item.item_id, moment, action))
    return actions[::-1]


def traits_of(facts: Facts) -> Traits:
    return frozenset((relation, value) for relation, values in facts.items() for value in values)


def likeness(one: Traits, other: Traits) -> float:
    """Share of the traits of ``one`` that ``other`` has too."""
    return len(one & other) / len(one)


def stroll(rng: Random, category: Category, sellers: list[Seller], user: str) -> list[tuple]:
    """The actions of a shopper who never talks."""
    home, other = rng.choice(sellers), rng.choice(sellers)
    shopper = draw_shopper(rng, category, home, user)
    return browse(rng, shopper, home, other, rng.randint(4, 14), moment_of_day(rng))


def behaviour_table(actions: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(actions, columns=BEHAVIOUR_COLUMNS)
    for column in BEHAVIOUR_COLUMNS:
        table[column] = table[column].astype(str)
    # the reader's own conversion, so that a corpus equals itself after writing and reading
    table["actime"] = pd.to_datetime(table["actime"], format="ISO8601")
    return table.sort_values("actime", kind="stable", ignore_index=True)


# --- dialogues ---


class Talk:
    """The dialogue so far, with its clock and its random stream."""

    def __init__(self, rng: Random, start: datetime):
        self.rng = rng
        self.clock = start
        self.utterances: list[Utterance] = []

    def say(self, act: str, parts: list, asked: Sequence[str] = (), items: Sequence[str] = (), info: Sequence[str] = ()) -> None:
        """Add one utterance; ``parts`` are texts and annotated (attribute, word) pairs, ``asked`` attributes without value."""
        text, attributes = "", []
        for part in parts:
            word = part if isinstance(part, str) else part[1]
            if not isinstance(part, str):
                attributes.append(Attribute(key=part[0], value=word, start=len(text), exclusive_end=len(text) + len(word)))
            text += word
        attributes += [Attribute(key=key, value="", start=-1, exclusive_end=-1) for key in asked]
        self.utterances.append(
            Utterance(
                seq_no=len(self.utterances) + 1,
                time=self.clock,
                sender_type="客服" if act.startswith("系统") else "用户",
                send_content=text,
                act_tag=act,
                attributes=attributes,
                rec_item_id=list(items),
                rec_item_info=list(info),
            )
        )
        self.clock += timedelta(seconds=self.rng.randint(5, 90))

    def politely(self, parts: list) -> list:
        before, after = self.rng.choice(COURTESIES)
        return [part for part in [before, *parts, after] if part]


def visit(rng: Random, category: Category, sellers: list[Seller], user: str) -> tuple[Dialogue, list[tuple]]:
    """One shopper's dialogue with a shop, and all that the shopper did before, during and after it."""
    seller, other = rng.choice(sellers), rng.choice(sellers)
    shopper = draw_shopper(rng, category, seller, user)
    start = moment_of_day(rng)
    before = browse(rng, shopper, seller, other, rng.randint(3, 12), start)
    if all(action[0] != seller.seller_id for action in before):  # who asks in a shop has looked around in it
        last = before[-1]
        before[-1] = (seller.seller_id, user, favourite(shopper, seller).item_id, *last[3:])
    sid = f"{rng.getrandbits(128):032x}"
    utterances = converse(rng, shopper, seller, before, start)
    dialogue = Dialogue(
        domain=category.domain,
        sid=sid,
        sellerid=seller.seller_id,
        userid=user,
        ds=f"{start:%Y%m%d}",
        dialogue=utterances,
    )
    return dialogue, before + react(rng, shopper, seller, utterances)


def favourite(shopper: Shopper, seller: Seller) -> Item:
    return max(seller.items, key=lambda item: (likeness(shopper.traits, item.traits), item.popularity))


def converse(rng: Random, shopper: Shopper, seller: Seller, before: list[tuple], start: datetime) -> list[Utterance]:
    """Needs, questions and answers, a recommendation with its reasons, and sometimes a second thought."""
    category = seller.category
    talk = Talk(rng, start)
    wishes = draw_wishes(rng, category, shopper)
    known: dict[str, str] = {}  # attribute -> catalogue value, in order of mention
    shown: list[str] = []

    open_dialogue(talk, category, shopper, wishes, known)
    rounds = rng.choices((1, 2), (55, 45))[0]
    for _ in range(rounds):
        ask_and_answer(talk, category, shopper.kind, sold_kinds(seller), wishes, known)
    recommend(talk, seller, known, before, shown)
    if rng.random() < 0.55:
        give_feedback(talk, category, shopper.kind, wishes, known)
        if rounds == 1 and rng.random() < 0.3:
            ask_and_answer(talk, category, shopper.kind, sold_kinds(seller), wishes, known)
        recommend(talk, seller, known, before, shown)
    return talk.utterances


def draw_wishes(rng: Random, category: Category, shopper: Shopper) -> dict[str, str]:
    """What the shopper would say of each attribute: the taste, or anything where the catalogue has no such relation."""
    wishes = {KIND: shopper.kind}
    for key in category.products[shopper.kind].keys:
        attribute = category.attributes[key]
        wishes[key] = shopper.taste[attribute.relation][0] if attribute.listed else rng.choice(list(attribute.words))
    return wishes


def sold_kinds(seller: Seller) -> list[str]:
    return sorted({item.kind for item in seller.items})


def open_dialogue(talk: Talk, category: Category, shopper: Shopper, wishes: dict[str, str], known: dict[str, str]) -> None:
    """The first need: mostly the product type, often with a second need, in one utterance or two."""
    rng = talk.rng
    extra = rng.choice([key for key in wishes if key != KIND and category.attributes[key].listed])
    if rng.random() < 0.12:
        template = rng.choice(OPENINGS_WITHOUT_KIND)
        talk.say("用户需求", fill(template, tell(rng, category, extra, wishes[extra])))
        known[extra] = wishes[extra]
        return
    opening = fill(rng.choice(OPENINGS), [(KIND, word_for(rng, category, KIND, shopper.kind))])
    known[KIND] = shopper.kind
    if rng.random() >= 0.45:
        talk.say("用户需求", opening)
        return
    clause = tell(rng, category, extra, wishes[extra])
    known[extra] = wishes[extra]
    if rng.random() < 0.3:
        talk.say("用户需求", opening)
        talk.say("用户需求", clause)
    else:
        talk.say("用户需求", [*opening, "，", *clause])


def ask_and_answer(
    talk: Talk, category: Category, kind: str, kinds: list[str], wishes: dict[str, str], known: dict[str, str]
) -> None:
    """The desk asks what it should know next, the shopper tells; nothing happens when all is known."""
    rng = talk.rng
    steps = open_questions(category, kind, known)
    if not steps:
        return
    keys = steps[1] if len(steps) > 1 and rng.random() < 0.1 else steps[0]  # a desk has its moods
    if len(keys) == 2:
        topics = [category.attributes[key].topic for key in keys]
        talk.say("系统提问", talk.politely([rng.choice(TWO_QUESTIONS).format(*topics)]), asked=keys)
    else:
        attribute = category.attributes[keys[0]]
        choice = words_to_offer(category, keys[0], kind, kinds, known)
        if rng.random() < 0.45 and len(choice) > 1:
            pairs = [[(keys[0], word)] for word in rng.sample(choice, 2)]
            talk.say("系统提问", talk.politely(fill(rng.choice(attribute.offer), *pairs)))
        else:
            talk.say("系统提问", talk.politely([rng.choice(attribute.ask)]), asked=keys)

    clauses = []
    for key in keys:
        bare = rng.random() < 0.4
        clauses.append([(key, word_for(rng, category, key, wishes[key]))] if bare else tell(rng, category, key, wishes[key]))
        known[key] = wishes[key]
    steps = open_questions(category, kind, known)
    if steps and rng.random() < 0.12:  # some tell the next thing before they are asked
        key = steps[0][0]
        clauses.append(tell(rng, category, key, wishes[key]))
        known[key] = wishes[key]
    if len(clauses) > 1 and rng.random() < 0.3:
        for clause in clauses:
            talk.say("用户回答", clause)
    else:
        talk.say("用户回答", [part for clause in clauses for part in ["，", *clause]][1:])


def open_questions(category: Category, kind: str, known: dict[str, str]) -> list[list[str]]:
    """What to ask, next first: the product type, then a follow-up on what was just said, then the product's own order."""
    if KIND not in known:
        return [[KIND]]
    product = category.products[kind]
    told = {category.attributes[key].relation for key in known}
    steps = [[key for key in step if category.attributes[key].relation not in told] for step in product.asks]
    steps = [step for step in steps if step]
    follow_up = category.follow_ups.get(list(known.items())[-1])
    if follow_up in product.keys and follow_up not in known:
        return [[follow_up], *[step for step in steps if follow_up not in step]]
    return steps


def words_to_offer(category: Category, key: str, kind: str, kinds: list[str], known: dict[str, str]) -> list[str]:
    """Words that a question may name: one per sensible value; in a follow-up, the finer words for the value just told."""
    attribute = category.attributes[key]
    if key == KIND:
        return [attribute.words[value][0] for value in kinds]
    if not attribute.listed:
        return [words[0] for words in attribute.words.values()]
    for other, value in known.items():
        if category.attributes[other].relation == attribute.relation:
            return list(attribute.words[value])
    sensible = category.values(kind, attribute.relation)
    return [words[0] for value, words in attribute.words.items() if value in sensible]


def recommend(talk: Talk, seller: Seller, known: dict[str, str], before: list[tuple], shown: list[str]) -> None:
    """Send one link, now and then two, and say why."""
    rng = talk.rng
    items = best_items(rng, seller, known, before, shown)
    count = 2 if rng.random() < 0.12 else 1
    chosen = items[:count]
    shown += [item.item_id for item in chosen]
    links = [chosen] if rng.random() < 0.6 else [[item] for item in chosen]
    for link in links:
        ids = [item.item_id for item in link]
        info = [f"{item_id}@{seller.category.top_category}" for item_id in ids]
        talk.say("系统推荐", [LINK_ONLY], items=ids, info=info)
    reasons = reasons_for(rng, seller.category, chosen, known)
    if not reasons:
        plain = PLAIN_EXPLANATIONS if count == 1 else PLAIN_EXPLANATIONS_OF_TWO
        talk.say("系统解释", talk.politely([rng.choice(plain)]))
    elif count == 2:
        talk.say("系统解释", talk.politely([rng.choice(EXPLANATIONS_OF_TWO).format(reasons[0])]))
    elif len(reasons) > 1 and rng.random() < 0.2:
        talk.say("系统解释", talk.politely([rng.choice(EXPLANATIONS).format(reasons[0])]))
        talk.say("系统解释", ["而且", reasons[1]])
    else:
        talk.say("系统解释", talk.politely([rng.choice(EXPLANATIONS).format("，".join(reasons))]))


def best_items(rng: Random, seller: Seller, known: dict[str, str], before: list[tuple], shown: list[str]) -> list[Item]:
    """The shop's items not yet shown, best first by spoken needs, likeness to what was looked at, popularity and chance."""
    category = seller.category
    traits = {item.item_id: item.traits for item in seller.items}
    looked_at = [traits[item_id] for seller_id, _, item_id, *_ in before if seller_id == seller.seller_id]
    needs, weights = {}, {}  # two attributes may speak of one relation: the later word counts
    for key, value in known.items():
        attribute = category.attributes[key]
        needs[attribute.relation] = value
        weights[attribute.relation] = KIND_WEIGHT if key == KIND else FIRM_WEIGHT if attribute.firm else NEED_WEIGHT
    rarest = math.log(len(seller.items))

    def score(item: Item) -> float:
        spoken = sum(weights[relation] for relation, value in needs.items() if value in item.facts.get(relation, ()))
        liked = sum(likeness(item.traits, other) for other in looked_at) / len(looked_at)
        popular = 1 + math.log(item.popularity) / rarest
        return spoken + BEHAVIOUR_WEIGHT * liked + POPULARITY_WEIGHT * popular + rng.gauss(0, NOISE)

    scores = {item.item_id: score(item) for item in seller.items}
    return sorted((item for item in seller.items if item.item_id not in shown), key=lambda item: -scores[item.item_id])


def reasons_for(rng: Random, category: Category, items: list[Item], known: dict[str, str]) -> list[str]:
    """One or two clauses true of all ``items``: the latest needs they meet, then what the catalogue says, then the type."""
    said = {}  # relation -> value to speak of, in this order
    needed = {category.attributes[key].relation for key in known}
    for key, value in reversed(known.items()):
        relation = category.attributes[key].relation
        if key != KIND and all(value in item.facts.get(relation, ()) for item in items):
            said.setdefault(relation, value)
    for relation, values in items[0].described.items():
        shared = [value for value in values if all(value in item.described.get(relation, ()) for item in items)]
        if shared and relation not in needed and relation != KIND_RELATION:  # an unmet need is passed over
            said.setdefault(relation, shared[0])
    if all(item.kind == items[0].kind for item in items):
        said.setdefault(KIND_RELATION, items[0].kind)

    voices = {}  # of the attributes that speak of one relation, this product's own
    for key in [KIND, *category.products[items[0].kind].keys]:
        if category.attributes[key].explain:
            voices.setdefault(category.attributes[key].relation, category.attributes[key])
    clauses = [
        rng.choice(voices[relation].explain).format(voices[relation].desk.get(value, value))
        for relation, value in said.items()
        if relation in voices
    ]
    return clauses[: rng.choice((1, 2, 2))]


def give_feedback(talk: Talk, category: Category, kind: str, wishes: dict[str, str], known: dict[str, str]) -> None:
    """A wish not yet spoken, or another value than the one spoken before; at times both."""
    rng = talk.rng
    silent = [key for key in wishes if key not in known and category.attributes[key].listed]
    spoken = [key for key in known if key != KIND and category.attributes[key].listed and not category.attributes[key].firm]
    keys = []
    if silent and (not spoken or rng.random() < 0.7):
        keys.append(rng.choice(silent))
    if spoken and (not keys or rng.random() < 0.15):
        keys.append(rng.choice(spoken))
    for key in keys:
        attribute = category.attributes[key]
        if key in known:
            others = [v for v in category.values(kind, attribute.relation) if v != known[key] and v in attribute.words]
            value = rng.choice(others)
            same = [other for other in wishes if category.attributes[other].relation == attribute.relation]
            wishes.update(dict.fromkeys(same, value))
            for other in same:
                known.pop(other, None)  # what was said of it no longer holds
        known[key] = wishes[key]
        template = rng.choice(attribute.react)
        talk.say("用户反馈", fill(template, [(key, word_for(rng, category, key, wishes[key]))]))


def react(rng: Random, shopper: Shopper, seller: Seller, utterances: list[Utterance]) -> list[tuple]:
    """What the shopper does with the links, each after it was sent, and after the dialogue."""
    actions = []
    for utterance in utterances:
        for item_id in utterance.rec_item_id:
            if rng.random() < 0.6:
                moment = utterance.time + timedelta(seconds=rng.randint(1, 4))
                actions.append((seller.seller_id, shopper.user_id, item_id, moment, VIEW))
    end = utterances[-1].time
    last_item = [item_id for utterance in utterances for item_id in utterance.rec_item_id][-1]
    if rng.random() < 0.5:
        moment = end + timedelta(seconds=rng.randint(30, 3600))
        actions.append((seller.seller_id, shopper.user_id, last_item, moment, rng.choice((CART, FAVOURITE, BUY))))
    if rng.random() < 0.5:
        later = end + timedelta(seconds=rng.randint(86_400, 200_000))
        count = rng.randint(1, 3)
        actions += [action for action in browse(rng, shopper, seller, seller, count, later) if action[3] > end]
    return actions


# --- words and numbers ---


def fill(template: str, *clauses: list) -> list:
    """The parts of ``template`` with ``clauses`` in the places of its ``{}``."""
    texts = template.split("{}")
    parts = [texts[0]]
    for clause, text in zip(clauses, texts[1:], strict=True):
        parts += [*clause, text]
    return [part for part in parts if part]


def tell(rng: Random, category: Category, key: str, value: str) -> list:
    """A clause by which a shopper states a value."""
    return fill(rng.choice(category.attributes[key].tell), [(key, word_for(rng, category, key, value))])


def word_for(rng: Random, category: Category, key: str, value: str) -> str:
    """A shopper's word for a catalogue value, the first being the commonest."""
    words = category.attributes[key].words[value]
    return rng.choices(words, [2, *[1] * (len(words) - 1)])[0]


def moment_of_day(rng: Random) -> datetime:
    return FIRST_DAY + timedelta(days=rng.randrange(28), hours=9, seconds=rng.randrange(12 * 3600))


def user_id(split: str, number: int, companion: int, seed: int) -> str:
    counter = (number * (SILENT_PER_DIALOGUE + 1) + companion) * len(SPLITS) + SPLITS.index(split)
    return scatter(counter, digits=13, first=2, seed=seed)


def scatter(counter: int, digits: int, first: int, seed: int) -> str:
    """A number with ``digits`` digits that looks arbitrary; different counters give different numbers."""
    size = 10 ** (digits - 1)
    # a multiplier without a common factor with ``size`` makes this a permutation
    return str(first * size + (counter * 61_803_398_749 + seed * 104_729 + 193_939) % size)
