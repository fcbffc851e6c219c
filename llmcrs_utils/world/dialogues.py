"""Pre-sales dialogues of the synthetic world, simulated move by move between a shopper and a shop's service desk.

Each dialogue has three random streams: for decisions, for wording, and for typing errors. So another vocabulary or more typing
errors change no decision. For every turn the world also keeps what it knows of it (``TurnTruth``): the true probabilities of the
desk's next question, of its choice, of its wording, and of an annotator's labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random

import numpy as np

from llmcrs_utils.corpus.schema import LINK_ONLY, Attribute, Dialogue, Utterance
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import language as say
from llmcrs_utils.world.category import KIND, KIND_RELATION, Category
from llmcrs_utils.world.language import Line, Mention, fill, spoken, word_for
from llmcrs_utils.world.shoppers import (
    BUY,
    CART,
    FAVOURITE,
    VIEW,
    Shopper,
    browse,
    draw_shopper,
    moment_of_day,
    spin,
    two_shops,
    whole,
)
from llmcrs_utils.world.shops import Facts, Shop, traits_of

SOFT, FIRM, LATEST, AVOIDED = 1, 2, 4, -2  # how much a need counts that an item meets; LATEST: a need named in reaction to another item
POPULARITY = 0.15  # weight of popularity in the desk's choice; needs and behaviour together have weight 1
TWO_ITEMS, TWO_STEPS = 0.12, 0.1  # how often the desk recommends two items at once, asks two things at once
ASK_ON = (0.93, 0.62, 0.3, 0.1)  # how often the desk asks a first, second, ... question before it recommends
MOST_ROUNDS = 3  # recommendations in a dialogue


@dataclass(frozen=True)
class Knobs:
    """The settings of the world. Each changes what its comment says and nothing else.

    The knobs of words (``vocabulary_gap``, ``typo_rate``) change no decision. The knobs of decisions change nothing before the first
    decision that they concern. No knob changes the catalogue or the behaviour of shoppers before their dialogue.
    """

    implicit_weight: float = 0.5  # 0..1: how far behaviour rather than spoken needs decides which item is recommended
    vocabulary_gap: float = 0.3  # 0..1: how often a shopper paraphrases instead of saying the catalogue's word
    choice_noise: float = 0.3  # > 0: how freely the desk chooses among items; near 0 it takes the best, so ceilings rise to 1
    elicitation_difficulty: float = 0.2  # 0..1: how often the desk skips the question that is due; at 1 it asks anything
    category_differences: float = 0.5  # 0..1: how far categories differ in the weight of behaviour
    typo_rate: float = 0.01  # 0..1: how often a character that can be mistyped is

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value <= 1 or (name == "choice_noise" and not value):
                raise ValueError(f"{name} is {value}; give a number from 0 to 1{', not 0' if name == 'choice_noise' else ''}")

    def implicit_weight_in(self, category: Category) -> float:
        """The weight of behaviour in one category; at 0 and at 1 there is no room for differences."""
        room = min(self.implicit_weight, 1 - self.implicit_weight)
        return self.implicit_weight + self.category_differences * category.lean * room


@dataclass(frozen=True, eq=False)
class Choice:
    """The basis on which the desk recommends ``count`` of a shop's ``n`` items; all arrays have the shape (n,).

    ``spoken`` counts the needs that an item meets, ``liked`` the traits that it shares with the items that the shopper viewed.
    ``allowed`` marks items that are in stock, of the wanted product type, and not shown before. ``written`` counts the needs that
    an item meets by what the catalogue says of it, and ``possible`` marks items that the catalogue and the dialogue do not rule out:
    what can be read.
    """

    item_ids: list[str]
    allowed: np.ndarray
    spoken: np.ndarray
    liked: np.ndarray
    popularity: np.ndarray
    implicit_weight: float
    noise: float
    count: int
    written: np.ndarray | None = None
    possible: np.ndarray | None = None

    def weights(self, implicit_weight: float | None = None) -> np.ndarray:
        """How often each item is chosen, as whole numbers; with another ``implicit_weight``, how that desk would choose."""
        share = self.implicit_weight if implicit_weight is None else implicit_weight
        appeal = (1 - share) * standardised(self.spoken, self.allowed) + share * standardised(self.liked, self.allowed)
        appeal = appeal + POPULARITY * standardised(self.popularity, self.allowed)
        best = appeal[self.allowed].max()
        return np.where(self.allowed, whole(np.where(self.allowed, appeal - best, 0) / self.noise), 0)


def standardised(numbers: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Whole numbers with mean 0 and standard deviation 1 ``among`` some of them; all 0 where these are equal."""
    part = numbers[among].astype(np.int64)
    count, total = len(part), int(part.sum())
    variance = count * int((part * part).sum()) - total * total
    return (count * numbers.astype(np.int64) - total) / np.sqrt(variance) if variance else np.zeros(len(numbers))


@dataclass(frozen=True, eq=False)
class TurnTruth:
    """What the world knows of one turn: consecutive utterances of one act; an explanation belongs to the turn of its link.

    Attributes:
        mentions: its annotated words, and the attributes under which each may be annotated.
        questions: the attributes the desk may ask next and the weight of each such question; empty where it does not ask.
        choice: the basis of the desk's recommendation; None where it does not recommend.
        reply: draws another wording of the desk's turn, one text per utterance; None for a shopper's turn.
    """

    seq_no: int
    mentions: list[Mention]
    questions: list[tuple[tuple[str, ...], int]]
    choice: Choice | None
    reply: Callable[[Random], list[str]] | None


@dataclass
class Scene:
    """The state of a dialogue in progress: its speakers, what is known so far, and all utterances and actions."""

    shop: Shop
    described: list[Facts]
    shopper: Shopper
    knobs: Knobs
    rng: Random  # decisions
    words: Random
    typos: Random
    clock: datetime
    profile: np.ndarray  # how often each trait occurred in what the shopper looked at
    wishes: dict[str, str]  # what the shopper would say of each attribute
    known: dict[str, str] = field(default_factory=dict)  # attribute -> catalogue value, in order of mention
    avoided: dict[str, str] = field(default_factory=dict)  # attribute -> catalogue value that the shopper does not want
    indifferent: set[str] = field(default_factory=set)
    shown: list[int] = field(default_factory=list)  # items of the shop, as rows
    actions: list[tuple] = field(default_factory=list)  # during the dialogue
    utterances: list[Utterance] = field(default_factory=list)
    turns: list[TurnTruth] = field(default_factory=list)

    @property
    def category(self) -> Category:
        return self.shop.category

    def turn(self, questions: Sequence = (), choice: Choice | None = None, reply: Callable | None = None) -> None:
        """Begin a turn with the next utterance."""
        self.turns.append(TurnTruth(len(self.utterances) + 1, [], list(questions), choice, reply))

    def say(self, act: str, line: Line, items: Sequence[int] = ()) -> None:
        """Add one utterance, its annotations where the mentions stand."""
        text, attributes = "", []
        for part in line:
            if isinstance(part, Mention):
                self.turns[-1].mentions.append(part)
                start, end = (len(text), len(text) + len(part.word)) if part.word else (-1, -1)
                attributes.append(Attribute(key=part.key, value=part.word, start=start, exclusive_end=end))
            text += part if isinstance(part, str) else part.word
        ids = [self.shop.item_ids[item] for item in items]
        self.utterances.append(
            Utterance(
                seq_no=len(self.utterances) + 1,
                time=self.clock,
                sender_type="客服" if act.startswith("系统") else "用户",
                send_content=text,
                act_tag=act,
                attributes=attributes,
                rec_item_id=ids,
                rec_item_info=[f"{item}@{self.category.top_category}" for item in ids],
            )
        )
        for item in items:
            if self.rng.random() < 0.6:  # the shopper opens the link
                self.look(item, self.clock + timedelta(seconds=self.rng.randint(1, 4)))
        self.clock += timedelta(seconds=self.rng.randint(5, 90))

    def look(self, item: int, moment: datetime) -> None:
        self.actions.append((self.shop.seller_id, self.shopper.user_id, self.shop.item_ids[item], moment, VIEW))
        self.profile += self.shop.traits[item]

    def shopper_says(self, act: str, lines: list[Line]) -> None:
        """The shopper's lines with fillers and typing errors, as one utterance or as one utterance per line."""
        self.turn()
        apart = len(lines) > 1 and self.rng.random() < 0.3
        together = say.joined(lines, self.words.choice(say.JOINTS))
        for line in lines if apart else [together]:
            self.say(act, say.with_slips(self.typos, say.as_shopper(self.words, line, act == "用户回答"), self.knobs.typo_rate))

    def desk_says(self, drawn: list[tuple[str, Line, Sequence[int]]]) -> None:
        for act, line, items in drawn:
            self.say(act, line, items)


def play(
    category_shops: list[Shop], described: dict[str, list[Facts]], user_id: str, stream: str, knobs: Knobs
) -> tuple[Dialogue, list[TurnTruth], list[tuple]]:
    """One shopper's dialogue with one of the shops, its truth, and all actions of the shopper before, during and after it."""
    rng = Random(stream)
    shop, other = two_shops(rng, category_shops)
    shopper = draw_shopper(rng, shop, user_id)
    start = moment_of_day(rng)
    count = rng.choice((0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20))
    before = browse(rng, shopper, shop, other, count, start)
    profile = np.zeros(shop.traits.shape[1], dtype=np.int32)
    rows = {place.seller_id: {item: row for row, item in enumerate(place.item_ids)} for place in (shop, other)}
    places = {place.seller_id: place for place in (shop, other)}
    for seller, _, item, *_ in before:
        profile += places[seller].traits[rows[seller][item]]
    sid = f"{rng.getrandbits(128):032x}"
    scene = Scene(
        shop=shop,
        described=described[shop.seller_id],
        shopper=shopper,
        knobs=knobs,
        rng=rng,
        words=Random(f"{stream} words"),
        typos=Random(f"{stream} typos"),
        clock=start,
        profile=profile,
        wishes=dict(shopper.wishes),
    )
    converse(scene)
    dialogue = Dialogue(
        domain=shop.category.domain,
        sid=sid,
        sellerid=shop.seller_id,
        userid=user_id,
        ds=f"{start:%Y%m%d}",
        dialogue=scene.utterances,
    )
    return dialogue, scene.turns, before + scene.actions + afterwards(Random(f"{stream} after"), scene, other)


def converse(scene: Scene) -> None:
    """Needs, questions and answers, then recommendations with reasons, each followed by feedback that accepts, refines or changes."""
    open_dialogue(scene)
    ask_on(scene, ASK_ON)
    for last in [False] * (MOST_ROUNDS - 1) + [True]:
        if not recommend(scene) or not give_feedback(scene, last):
            return
        ask_on(scene, (0.25,))


# --- the shopper's moves ---


def open_dialogue(scene: Scene) -> None:
    """The first need: mostly the product type, often with one or two more needs, sometimes with something unwanted."""
    rng, words = scene.rng, scene.words
    extras = [key for key in scene.wishes if key != KIND and scene.category.attributes[key].listed]
    rng.shuffle(extras)
    names_kind = rng.random() < 0.86
    extras = extras[: rng.choices((0, 1, 2), (45, 38, 17) if names_kind else (0, 75, 25))[0]]
    if names_kind or not extras:
        scene.known[KIND] = scene.wishes[KIND]
        opening = fill(words.choice(say.OPENINGS), mention(scene, KIND, scene.wishes[KIND]))
        lines = [opening, *[state(scene, key) for key in extras]]
    else:
        first, *others = [state(scene, key) for key in extras]
        bare = words.random() < 0.25  # a shopper may begin with a single word
        lines = [first if bare else fill(words.choice(say.OPENINGS_WITHOUT_KIND), first), *others]
    if rng.random() < 0.1:
        lines += refuse_something(scene, dict.fromkeys(scene.wishes))
    scene.shopper_says("用户需求", lines)


def state(scene: Scene, key: str) -> Line:
    """A clause in which the shopper states a wish. The desk knows it from then on."""
    attribute = scene.category.attributes[key]
    learn(scene, key, scene.wishes[key])
    return fill(scene.words.choice(attribute.tell), mention(scene, key, scene.wishes[key]))


def learn(scene: Scene, key: str, value: str) -> None:
    """Note that the desk has learnt a value. Of two attributes of one relation the later one counts."""
    relation = scene.category.attributes[key].relation
    for other in [other for other in scene.known if scene.category.attributes[other].relation == relation]:
        if scene.known[other] != value:
            del scene.known[other]
    scene.known.pop(key, None)
    scene.known[key] = value


def mention(scene: Scene, key: str, value: str) -> Mention:
    """A shopper's word for a value, and the attribute under which an annotator puts it."""
    word = word_for(scene.words, scene.category.attributes[key], value, scene.knobs.vocabulary_gap)
    may_be = scene.category.ambiguous.get(word)
    chance = scene.words.random()  # drawn always, so that an ambiguous word moves no other draw
    filed = key if may_be is None else next(k for k, share in running(may_be) if chance < share)
    return Mention(filed, word, may_be)


def running(shares: dict[str, float]) -> list[tuple[str, float]]:
    """Running totals of shares that sum to 1."""
    keys, totals = list(shares), np.cumsum(list(shares.values()))
    return list(zip(keys, [*totals[:-1], 1.0]))


def refuse_something(scene: Scene, keys: Sequence[str], item: int | None = None) -> list[Line]:
    """A clause about a value that the shopper does not want, a value of ``item`` if given; empty if there is no such value."""
    category, columns = scene.category, traits_of(scene.category)
    choices = []
    for key in keys:
        attribute = category.attributes[key]
        if key not in category.products[scene.shopper.kind].keys or not attribute.avoid or not attribute.listed:
            continue
        values = category.values(scene.shopper.kind, attribute.relation)
        unwanted = [v for v in values if v in attribute.words and v not in (scene.wishes.get(key), scene.known.get(key))]
        if item is not None:
            unwanted = [value for value in unwanted if value in scene.shop.facts[item].get(attribute.relation, ())]
        if unwanted and key not in scene.avoided:
            worst = min(unwanted, key=lambda value: scene.shopper.taste[columns[attribute.relation, value]])
            choices.append((key, worst))
    if not choices:
        return []
    key, value = scene.rng.choice(choices)
    scene.avoided[key] = value
    attribute = category.attributes[key]
    word = scene.words.choice(attribute.avoid).format(attribute.words[value][0])
    return [[Mention(key, word)]]


def answer_questions(scene: Scene, keys: Sequence[str], offered: dict[str, str]) -> None:
    """The shopper's answer about the attributes ``keys``. ``offered`` holds the values named in yes-or-no questions."""
    rng, words = scene.rng, scene.words
    lines: list[Line] = []
    for key in keys:
        value = scene.wishes.get(key)
        free = scene.category.attributes[key].listed and not scene.category.attributes[key].firm and key != KIND
        if value is None or (rng.random() < 0.1 and free):
            scene.indifferent.add(key)
            lines.append([words.choice(say.INDIFFERENT)])
            continue
        plain = words.random() < 0.35  # the word alone, or a bare yes
        if offered.get(key) == value:
            learn(scene, key, value)
            lines.append([words.choice(say.YES_WORDS)] if plain else fill(words.choice(("嗯，{}", "嗯嗯，{}", "{}")), mention(scene, key, value)))
        else:
            clause = state(scene, key)
            clause = [part for part in clause if isinstance(part, Mention)] if plain else clause
            lines.append([words.choice(say.NO_WORDS), *clause] if key in offered else clause)
    due = steps_due(scene)
    if due and rng.random() < 0.15:  # some name the next need before the desk asks
        lines += [state(scene, key) for key in due[0] if key in scene.wishes]
    scene.shopper_says("用户回答", lines)


def give_feedback(scene: Scene, last: bool) -> bool:
    """The shopper's feedback on the latest recommendation. Returns whether another one has to follow; after the ``last`` none does."""
    rng, words, category = scene.rng, scene.words, scene.category
    item = scene.shown[-1]
    facts = scene.shop.facts[item]
    listed = [key for key in scene.wishes if category.attributes[key].listed]
    pleasing = sum(scene.wishes[key] in facts.get(category.attributes[key].relation, ()) for key in listed) / len(listed)
    mood, act = rng.random(), "用户反馈"
    if mood < (0.5 if last else 0.15):
        return False
    if last or rng.random() < 0.75 * pleasing**2:
        scene.shopper_says(act, [[words.choice(say.ACCEPT)]])
        return False
    settled = {category.attributes[key].relation for key in scene.known} | {category.attributes[k].relation for k in scene.indifferent}
    silent = [key for key in listed if key != KIND and category.attributes[key].relation not in settled]
    soft = [key for key in scene.known if key in listed and key != KIND and not category.attributes[key].firm]
    move = rng.choices(("inquire", "refine", "refuse", "change", "another"), (30, 32, 14, 14, 10))[0]
    askable = [key for key in silent if category.attributes[key].inquire]
    if move == "inquire" and askable:
        key = rng.choice(askable)
        attribute, value = category.attributes[key], scene.wishes[key]
        learn(scene, key, value)
        scene.shopper_says(act, [fill(words.choice(attribute.inquire), mention(scene, key, value))])
        fits = value in facts.get(attribute.relation, ())
        tell = partial(inquiry_lines, category=category, key=key, value=value, fits=fits)
        scene.turn(reply=tell_texts(tell))
        scene.desk_says(tell(words))
        return not fits
    if move == "refuse":
        lines = refuse_something(scene, category.products[scene.shopper.kind].keys, item)
        if lines:
            scene.shopper_says(act, [fill(words.choice(("{}", "{}的", "{}哦", "换一款吧，{}的")), *lines)])
            return True
    if move == "change" and soft:
        key = rng.choice(soft)
        attribute = category.attributes[key]
        values = category.values(scene.shopper.kind, attribute.relation)
        others = [v for v in values if v in attribute.words and v not in (scene.known[key], scene.avoided.get(key))]
        if others:
            value = rng.choice(others)
            for other in [k for k in scene.wishes if category.attributes[k].relation == attribute.relation]:
                scene.wishes.pop(other)  # another attribute's word for it may not exist
            scene.wishes[key] = value
            learn(scene, key, value)
            scene.shopper_says(act, [fill(words.choice(attribute.react), mention(scene, key, value))])
            return True
    if silent and move != "another":
        lines = []
        for key in rng.sample(silent, min(len(silent), rng.choice((1, 1, 1, 2)))):
            learn(scene, key, scene.wishes[key])
            lines.append(fill(words.choice(category.attributes[key].react), mention(scene, key, scene.wishes[key])))
        scene.shopper_says(act, lines)
        return True
    scene.shopper_says(act, [[words.choice(say.ANOTHER)]])
    return True


def afterwards(rng: Random, scene: Scene, other: Shop) -> list[tuple]:
    """The shopper's actions after the dialogue: sometimes to keep or buy the last item, sometimes to look around again."""
    actions, end = [], scene.utterances[-1].time
    row = (scene.shop.seller_id, scene.shopper.user_id)
    if scene.shown and rng.random() < 0.5:
        moment = end + timedelta(seconds=rng.randint(30, 3600))
        actions.append((*row, scene.shop.item_ids[scene.shown[-1]], moment, rng.choice((CART, FAVOURITE, BUY))))
    if rng.random() < 0.4:
        later = end + timedelta(seconds=rng.randint(86_400, 200_000))
        again = browse(rng, scene.shopper, scene.shop, other, rng.randint(1, 3), later)
        actions += [action for action in again if action[3] > end]
    return actions


# --- the desk's moves ---


def ask_on(scene: Scene, chances: Sequence[float]) -> None:
    """Questions and answers, as long as something is open; the desk asks each further question with the next of ``chances``."""
    for chance in chances:
        if not steps_due(scene) or scene.rng.random() >= chance:
            return
        ask(scene)


def ask(scene: Scene) -> None:
    """One turn of questions by the desk, and the shopper's answer."""
    questions = question_policy(scene)
    wheel = np.cumsum([weight for _, weight in questions])
    steps = questions[spin(scene.rng, wheel)][0]
    draw = partial(
        question_lines,
        category=scene.category,
        kind=scene.shopper.kind,
        kinds=sorted(set(scene.shop.kinds)),
        known=dict(scene.known),
        steps=steps,
        questions=questions,
    )
    possible = [(tuple(key for step in option for key in step), weight) for option, weight in questions]
    scene.turn(questions=possible, reply=lambda rng: [spoken(line) for line in draw(rng)[0]])
    lines, offered = draw(scene.words)
    for line in lines:
        scene.say("系统提问", line)
    answer_questions(scene, [key for step in steps for key in step], offered)


def steps_due(scene: Scene) -> list[tuple[str, ...]]:
    """What the desk may ask, most urgent first: the product type, then a follow-up on the latest need, then the product's own order."""
    category = scene.category
    if KIND not in scene.known:
        return [(KIND,)]
    product = category.products[scene.shopper.kind]
    settled = {category.attributes[key].relation for key in [*scene.known, *scene.indifferent]}
    steps = [tuple(key for key in step if category.attributes[key].relation not in settled) for step in product.asks]
    steps = [step for step in steps if step]
    follow_up = category.follow_ups.get(list(scene.known.items())[-1])
    if follow_up in product.keys and follow_up not in scene.known and follow_up not in scene.indifferent:
        return [(follow_up,), *[step for step in steps if follow_up not in step]]
    return steps


def question_policy(scene: Scene) -> list[tuple[tuple[tuple[str, ...], ...], int]]:
    """(steps, weight) of every turn of questions that the desk may take next; two steps make two utterances.

    The k-th most urgent step has ``elicitation_difficulty`` ** k times the first's weight.
    """
    steps = steps_due(scene)
    urgency = [round(scene.knobs.elicitation_difficulty**place * 1_000_000) for place in range(len(steps))]
    total, options = sum(urgency), {}
    pairs = TWO_STEPS if len(steps) > 1 else 0.0
    for place, step in enumerate(steps):
        options[(step,)] = (1 - pairs) * urgency[place] / total
        rest = total - urgency[place]
        for next_place, other in enumerate(steps if rest and pairs else ()):
            if next_place != place:
                options[step, other] = pairs * urgency[place] / total * urgency[next_place] / rest
    return [(steps, round(share * 1_000_000_000)) for steps, share in options.items() if share > 5e-10]


def question_lines(
    rng: Random,
    category: Category,
    kind: str,
    kinds: list[str],
    known: dict[str, str],
    steps: tuple[tuple[str, ...], ...],
    questions: list[tuple[tuple[tuple[str, ...], ...], int]],
) -> tuple[list[Line], dict[str, str]]:
    """The desk's words for a turn of questions, one line per step, and the values that it names in yes-or-no questions."""
    lines, offered = [], {}
    for step in steps:
        if len(step) > 1:
            line = fill(rng.choice(say.TWO_QUESTIONS), *[category.attributes[key].topic for key in step])
            line += [Mention(key) for key in step]
        else:
            (key,) = step
            attribute, words = category.attributes[key], words_to_name(category, key, kind, kinds, known)
            form = rng.random()
            vague = [text for text, keys in category.vague.items() if key in keys] if len(steps) == 1 else []
            if vague and form < 0.2:
                text = rng.choice(vague)
                line = [text, Mention(key, may_be=meanings(category, text, questions))]
            elif form < 0.5 and len(words) > 1 and attribute.listed:
                line = fill(rng.choice(attribute.offer), *[Mention(key, word) for _, word in rng.sample(words, 2)])
            elif form < 0.62 and attribute.listed:
                offered[key], word = rng.choice(words)
                line = fill(rng.choice(attribute.confirm), Mention(key, word))
            else:
                line = [rng.choice(attribute.ask), Mention(key)]
        lines.append(say.as_desk(rng, line, say.AFTER_QUESTION))
    return lines, offered


def meanings(category: Category, text: str, questions: list[tuple[tuple[tuple[str, ...], ...], int]]) -> dict[str, float]:
    """The meanings of a vague question: each attribute that it may mean, by the probability that the desk asks for it in this way."""
    weights = {}
    for steps, weight in questions:
        if len(steps) == 1 and len(steps[0]) == 1 and steps[0][0] in category.vague[text]:
            key = steps[0][0]
            weights[key] = weight / sum(key in keys for keys in category.vague.values())
    return {key: weight / sum(weights.values()) for key, weight in weights.items()}


def words_to_name(category: Category, key: str, kind: str, kinds: list[str], known: dict[str, str]) -> list[tuple[str, str]]:
    """(value, word) of all values that a question may name; in a follow-up question the finer words for the known value."""
    attribute = category.attributes[key]
    values = list(attribute.words)
    if key == KIND:  # only types for which the needs known so far make sense
        needs = [(category.attributes[other].relation, value) for other, value in known.items()]
        fitting = [name for name in kinds if all(value in category.values(name, relation) for relation, value in needs)]
        return [(name, attribute.words[name][0]) for name in fitting or kinds]
    if attribute.listed:
        values = [value for value in category.values(kind, attribute.relation) if value in attribute.words]
        named = {known[other] for other in known if category.attributes[other].relation == attribute.relation}
        values = [value for value in values if value in named] or values
    if len(values) == 1:
        return [(values[0], word) for word in attribute.words[values[0]]]
    return [(value, attribute.words[value][0]) for value in values]


def recommend(scene: Scene) -> bool:
    """The desk sends one link, sometimes two, and mostly says why. Returns False where no item is left to show."""
    rng = scene.rng
    choice = weigh(scene, 2 if rng.random() < TWO_ITEMS else 1)
    if choice is None:
        return False
    weights, chosen = choice.weights(), []
    for _ in range(choice.count):
        chosen.append(spin(rng, np.cumsum(weights)))
        weights[chosen[-1]] = 0
    draw = partial(
        recommendation_lines,
        category=scene.category,
        kinds=[scene.shop.kinds[item] for item in chosen],
        facts=[scene.shop.facts[item] for item in chosen],
        described=[scene.described[item] for item in chosen],
        items=chosen,
        known=dict(scene.known),
        avoided={(scene.category.attributes[key].relation, value) for key, value in scene.avoided.items()},
        explains=rng.random() < 0.85,
        apart=rng.random() < 0.4,
    )
    scene.turn(choice=choice, reply=tell_texts(draw))
    scene.shown += chosen
    scene.desk_says(draw(scene.words))
    return True


def weigh(scene: Scene, count: int) -> Choice | None:
    """The basis of the desk's next recommendation: spoken needs, similarity to viewed items, popularity and stock."""
    shop, columns = scene.shop, traits_of(scene.category)
    allowed = shop.in_stock.copy()
    allowed[scene.shown] = False
    if KIND in scene.known and (allowed & shop.items_of(scene.known[KIND])).any():
        allowed &= shop.items_of(scene.known[KIND])
    if not allowed.any():
        return None
    possible = np.ones(len(allowed), dtype=bool)
    possible[scene.shown] = False
    if KIND in scene.known:
        of_kind, kinds = scene.known[KIND], [facts.get(KIND_RELATION) for facts in scene.described]
        possible &= np.array([kind is None or of_kind in kind for kind in kinds])
    spoken_for, written = np.zeros(len(allowed), dtype=np.int32), np.zeros(len(allowed), dtype=np.int32)
    attributes = scene.category.attributes
    weights = {}  # of two attributes that say the same, one counts
    for key, value in scene.known.items():
        weights[attributes[key].relation, value] = FIRM if attributes[key].firm else SOFT
    if scene.shown and scene.known:
        key, value = list(scene.known.items())[-1]
        weights[attributes[key].relation, value] = LATEST
    weights |= {(attributes[key].relation, value): AVOIDED for key, value in scene.avoided.items()}
    for pair, weight in weights.items():
        if pair in columns and pair[0] != KIND_RELATION:
            spoken_for += weight * shop.traits[:, columns[pair]]
            if pair[0] not in CHINESE.hidden_relations:
                written += weight * np.array([pair[1] in facts.get(pair[0], ()) for facts in scene.described])
    return Choice(
        item_ids=shop.item_ids,
        allowed=allowed,
        spoken=spoken_for.astype(np.int16),
        liked=(shop.traits @ scene.profile).astype(np.int16),
        popularity=shop.popularity,
        implicit_weight=scene.knobs.implicit_weight_in(scene.category),
        noise=scene.knobs.choice_noise,
        count=min(count, int(allowed.sum())),
        written=written.astype(np.int16),
        possible=possible,
    )


def recommendation_lines(
    rng: Random,
    category: Category,
    kinds: list[str],
    facts: list[Facts],
    described: list[Facts],
    items: list[int],
    known: dict[str, str],
    avoided: set[tuple[str, str]],
    explains: bool,
    apart: bool,
) -> list[tuple[str, Line, Sequence[int]]]:
    """The lines of a recommendation: the links, mostly without further words, and the desk's reasons."""
    found: list[tuple[str, Line, Sequence[int]]] = []
    for link in [[item] for item in items] if apart else [items]:
        texts = say.LINK_TEXTS if len(link) == 1 else say.LINK_TEXTS_OF_TWO
        worded = rng.choice(texts) if rng.random() < 0.12 else LINK_ONLY
        found.append(("系统推荐", [worded], link))
    if not explains:
        return found
    reasons, as_asked = reasons_for(rng, category, kinds, facts, described, known, avoided)
    two = len(items) > 1
    if not reasons:
        lines = [rng.choice(say.PLAIN_EXPLANATIONS_OF_TWO if two else say.PLAIN_EXPLANATIONS)]
    else:
        frames = say.EXPLANATIONS_OF_TWO if two else say.EXPLANATIONS + (say.AS_ASKED if as_asked else ())
        frame = rng.choice(frames)
        split = len(reasons) > 1 and rng.random() < 0.25
        lines = [frame.format(reasons[0] if split or two else "，".join(reasons))]
        lines += [rng.choice(say.FURTHER).format(reasons[1])] if split and not two else []
    lines = [say.as_desk(rng, [line], say.AFTER_STATEMENT, greets=line is lines[0]) for line in lines]
    return found + [("系统解释", line, ()) for line in lines]


def reasons_for(
    rng: Random,
    category: Category,
    kinds: list[str],
    facts: list[Facts],
    described: list[Facts],
    known: dict[str, str],
    avoided: set[tuple[str, str]],
) -> tuple[list[str], bool]:
    """One to three clauses that are true of all items, and whether the first one is about the latest need.

    The latest needs that the items meet come first, then facts of the catalogue. Unwanted values (``avoided``) are never praised.
    """
    topics: dict[str, str] = {}  # relation -> value to speak of, in this order
    needed = {category.attributes[key].relation for key in known}
    for key, value in reversed(known.items()):
        relation = category.attributes[key].relation
        if key != KIND and all(value in fact.get(relation, ()) for fact in facts):
            topics.setdefault(relation, value)
    for relation, values in described[0].items():
        shared = [value for value in values if all(value in other.get(relation, ()) for other in described)]
        if shared and relation not in needed and relation != KIND_RELATION:  # a need that the items do not meet is not mentioned
            topics.setdefault(relation, shared[0])
    voices = {}  # of the attributes that speak of one relation, this product's own
    for key in [KIND, *category.products[kinds[0]].keys]:
        if category.attributes[key].explain:
            voices.setdefault(category.attributes[key].relation, category.attributes[key])
    topics = {relation: value for relation, value in topics.items() if relation in voices and (relation, value) not in avoided}
    clauses = [
        rng.choice(voices[relation].explain).format(voices[relation].desk.get(value, value))
        for relation, value in topics.items()
    ]
    latest = category.attributes[list(known)[-1]].relation if known else None
    return clauses[: rng.choice((1, 2, 2, 3))], next(iter(topics), None) == latest


def inquiry_lines(rng: Random, category: Category, key: str, value: str, fits: bool) -> list[tuple[str, Line, Sequence[int]]]:
    """The desk's answer to a question about the item shown."""
    attribute = category.attributes[key]
    clauses, frames = (attribute.explain, say.CONFIRMED) if fits else (attribute.lacks, say.DENIED)
    if fits and not clauses:
        return [("系统解释", [rng.choice(("是的亲", "可以的亲", "对的亲亲", "是的呢"))], ())]
    clause = rng.choice(clauses).format(attribute.desk.get(value, value))
    line = [rng.choice(frames).format(clause)]
    return [("系统解释", say.as_desk(rng, line, say.AFTER_STATEMENT if fits else ("",), greets=fits), ())]


def tell_texts(draw: Callable) -> Callable[[Random], list[str]]:
    """A function that draws the same lines as ``draw`` and returns only their texts, as a turn's text holds them."""
    return lambda rng: [spoken(line).replace(LINK_ONLY, "") for _, line, _ in draw(rng)]
