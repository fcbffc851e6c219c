"""The synthetic world as a corpus: shops, shoppers, dialogues, each from a random stream of its own.

Streams are named by strings, so that more draws from one stream leave the others unchanged, on any machine.
"""

import math
from collections.abc import Iterator
from random import Random

import pandas as pd

from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, SPLITS, TIME_TYPE, Corpus
from llmcrs_utils.corpus.u_need import DIALOGUES_BY_CATEGORY
from llmcrs_utils.world.categories import WORLD_CATEGORIES
from llmcrs_utils.world.dialogues import Knobs, TurnTruth, play
from llmcrs_utils.world.shoppers import browse, draw_shopper, moment_of_day, two_shops
from llmcrs_utils.world.shops import LARGEST_SHOP, Shop, catalogue, open_shop, scatter

TUPLES_PER_ITEM = 4.8  # facts of an item in the catalogue, on average, as in U-NEED
Truth = dict[tuple[str, int], TurnTruth]  # (sid, seq_no of a turn's first utterance) -> what the world knows of it


def check_sizes(dialogues: dict[str, int], sellers_per_category: int, items_per_seller: int, tuples_per_item: float, actions_per_dialogue: float) -> None:
    """Refuse impossible sizes of a world.

    Raises:
        ValueError: on an unknown split or an impossible size.
    """
    unknown = sorted(set(dialogues) - set(SPLITS))
    if unknown:
        raise ValueError(f"dialogues: unknown split {unknown[0]!r}; known: {', '.join(SPLITS)}")
    if min(dialogues.values(), default=0) < 0:
        raise ValueError(f"dialogues: {dialogues}; give no negative number")
    if sellers_per_category < 1:
        raise ValueError(f"sellers_per_category is {sellers_per_category}; give at least 1")
    if not 0 <= actions_per_dialogue < math.inf:
        raise ValueError(f"actions_per_dialogue is {actions_per_dialogue}; give 0 or more")
    if not 2 <= tuples_per_item < math.inf:
        raise ValueError(f"tuples_per_item is {tuples_per_item}; give 2 or more")
    if not 20 <= items_per_seller <= LARGEST_SHOP:
        raise ValueError(f"items_per_seller is {items_per_seller}; give 20, as many as a recommendation has candidates, to {LARGEST_SHOP}")


def generate(
    dialogues: dict[str, int],
    sellers_per_category: int,
    items_per_seller: int,
    tuples_per_item: float = TUPLES_PER_ITEM,
    actions_per_dialogue: float = 30.0,
    seed: int = 1,
    knobs: Knobs = Knobs(),
) -> tuple[Corpus, Truth]:
    """A corpus of ``dialogues`` per split over five categories, in U-NEED's proportions, and the truth of every turn.

    The catalogue lists ``tuples_per_item`` facts of an item on average. Shoppers without a dialogue browse until there are
    ``actions_per_dialogue`` actions for each dialogue, unless shoppers with one have more already. The same arguments give the
    same world on any machine.

    Raises:
        ValueError: on an unknown split, a size that cannot be, or a knob outside its range.
    """
    check_sizes(dialogues, sellers_per_category, items_per_seller, tuples_per_item, actions_per_dialogue)
    shops = {
        category.domain: [open_shop(category, number, items_per_seller, seed) for number in range(sellers_per_category)]
        for category in WORLD_CATEGORIES
    }
    every_shop = [shop for some in shops.values() for shop in some]
    knowledge, listed = catalogue(every_shop, round(tuples_per_item * len(every_shop) * items_per_seller), seed)
    described = {shop.seller_id: items for shop, items in zip(every_shop, listed)}
    talks: dict[str, list] = {split: [] for split in SPLITS}
    truth: Truth = {}
    done: list[tuple] = []
    for split in SPLITS:
        for number, category in zip(range(dialogues.get(split, 0)), categories_in_turn()):
            user = user_id(SPLITS.index(split), number, seed)
            dialogue, turns, own = play(shops[category.domain], described, user, f"{seed} {split} {number}", knobs)
            talks[split].append(dialogue)
            truth |= {(dialogue.sid, turn.seq_no): turn for turn in turns}
            done += own
    wanted = round(actions_per_dialogue * sum(dialogues.values()))
    for number, category in enumerate(categories_in_turn()):
        if len(done) >= wanted:
            break
        user = user_id(len(SPLITS), number, seed)
        done += stroll(Random(f"{seed} silent {number}"), shops[category.domain], user)[: wanted - len(done)]
    return Corpus(dialogues=talks, knowledge=knowledge, behaviour=behaviour_table(done)), truth


def categories_in_turn() -> Iterator:
    """The categories without end, each in proportion to its share: the next one is always the one furthest behind."""
    counts = dict.fromkeys(WORLD_CATEGORIES, 0)
    while True:
        category = min(WORLD_CATEGORIES, key=lambda c: (2 * counts[c] + 1) / DIALOGUES_BY_CATEGORY[c.domain])
        counts[category] += 1
        yield category


def stroll(rng: Random, shops: list[Shop], user: str) -> list[tuple]:
    """The actions of a shopper without a dialogue."""
    home, other = two_shops(rng, shops)
    shopper = draw_shopper(rng, home, user)
    return browse(rng, shopper, home, other, rng.randint(2, 16), moment_of_day(rng))


def behaviour_table(actions: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(actions, columns=BEHAVIOUR_COLUMNS)
    table["actime"] = table["actime"].astype(TIME_TYPE)
    for column in set(BEHAVIOUR_COLUMNS) - {"actime"}:
        table[column] = table[column].astype(str)
    return table.sort_values("actime", kind="stable", ignore_index=True)


def user_id(group: int, number: int, seed: int) -> str:
    return scatter(number * (len(SPLITS) + 1) + group, digits=13, first=2, seed=seed)
