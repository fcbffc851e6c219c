"""Shoppers of the synthetic world: hidden tastes, and the traces these leave in what a shopper looks at."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import numpy as np

from llmcrs_utils.world.category import KIND, KIND_RELATION
from llmcrs_utils.world.shops import Shop, traits_of

VIEW, CART, FAVOURITE, BUY = "0", "1", "2", "3"
THEME, WANTED = 250, 500  # what the own theme and the wanted product type add to a taste, whose random part is 0..255
PULL = 0.8  # how much more often an item with one trait more to one's taste is looked at, as a power of e
FIRST_DAY = datetime(2022, 9, 1)
MILLION = 1 << 20


@dataclass(frozen=True, eq=False)
class Shopper:
    """A shopper who wants a product type; ``taste`` (one number per trait of the category, 0..1005) is mostly never spoken."""

    user_id: str
    kind: str
    taste: np.ndarray
    wishes: dict[str, str]  # attribute -> the catalogue value the shopper would name


def draw_shopper(rng: Random, shop: Shop, user_id: str) -> Shopper:
    """Somebody who wants a product type of which ``shop`` has several in stock, and whose taste leans towards one theme."""
    category, columns = shop.category, traits_of(shop.category)
    kind = rng.choice(shop.main_kinds)
    taste = np.frombuffer(rng.randbytes(len(columns)), dtype=np.uint8).astype(np.int32)
    for relation, values in rng.choice(category.themes).items():
        taste[[columns[relation, value] for value in values if (relation, value) in columns]] += THEME
    taste[columns[KIND_RELATION, kind]] += WANTED
    wishes = {KIND: kind}
    for key in category.products[kind].keys:
        attribute = category.attributes[key]
        if attribute.listed:
            wishes[key] = max(category.values(kind, attribute.relation), key=lambda v: taste[columns[attribute.relation, v]])
            if wishes[key] not in attribute.words:  # another attribute of the same relation has the word for it
                del wishes[key]
        else:
            wishes[key] = rng.choice(list(attribute.words))
    return Shopper(user_id, kind, taste, wishes)


def browse(rng: Random, shopper: Shopper, home: Shop, other: Shop, count: int, until: datetime) -> list[tuple]:
    """``count`` actions on the days before ``until``, mostly at ``home``, drawn to popular items of the shopper's taste."""
    shops, wheels = (home, other), {}
    actions, moment = [], until
    for _ in range(count):
        moment -= timedelta(seconds=rng.randrange(3_600, 90_000) if rng.random() < 0.2 else rng.randrange(15, 600))
        here = int(rng.random() >= 0.8)
        if here not in wheels:
            wheels[here] = np.cumsum(attraction(shopper, shops[here]))
        shop = shops[here]
        item = shop.item_ids[spin(rng, wheels[here])]
        actions.append((shop.seller_id, shopper.user_id, item, moment, rng.choices((VIEW, CART, FAVOURITE, BUY), (80, 9, 7, 4))[0]))
    return actions[::-1]


def attraction(shopper: Shopper, shop: Shop) -> np.ndarray:
    """(n,) whole numbers: how often the shopper would look at each item of a shop of the category."""
    appeal = shop.traits @ shopper.taste
    return whole(PULL * (appeal - appeal.max()) / 256, np.sqrt(shop.popularity))


def whole(powers: np.ndarray, factors: np.ndarray | float = 1.0) -> np.ndarray:
    """exp(``powers``) times ``factors`` as whole numbers of millionths, so that no machine's last digit decides a draw."""
    return np.rint(np.exp(powers) * factors * MILLION).astype(np.int64) + 1


def spin(rng: Random, wheel: np.ndarray) -> int:
    """An index drawn in proportion to the steps of ``wheel``, a cumulative sum of whole numbers."""
    return int(np.searchsorted(wheel, rng.randrange(int(wheel[-1])), side="right"))


def moment_of_day(rng: Random) -> datetime:
    return FIRST_DAY + timedelta(days=rng.randrange(28), hours=9, seconds=rng.randrange(12 * 3600))


def two_shops(rng: Random, shops: list[Shop]) -> tuple[Shop, Shop]:
    """The shop somebody goes to, and another one, unless there is none."""
    home = rng.randrange(len(shops))
    return shops[home], shops[(home + rng.randrange(1, len(shops))) % len(shops) if len(shops) > 1 else home]
