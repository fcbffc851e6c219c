"""Shoppers of the synthetic world: their hidden tastes, and the behaviour that these tastes lead to."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import numpy as np

from llmcrs_utils.world.category import KIND, KIND_RELATION
from llmcrs_utils.world.shops import Shop, traits_of

VIEW, CART, FAVOURITE, BUY = "0", "1", "2", "3"
THEME, WANTED = 250, 500  # added to a taste for the shopper's theme and for the wanted product type; the random part of a taste is 0..255
PULL = 0.8  # an item with one more liked trait is viewed exp(PULL) times as often
FIRST_DAY = datetime(2022, 9, 1)
MILLION = 1 << 20


@dataclass(frozen=True, eq=False)
class Shopper:
    """A shopper who wants a product type. Most of ``taste`` (a number per trait of the category, 0..1005) is never mentioned."""

    user_id: str
    kind: str
    taste: np.ndarray
    wishes: dict[str, str]  # attribute -> the catalogue value the shopper would name


def draw_shopper(rng: Random, shop: Shop, user_id: str) -> Shopper:
    """A shopper who wants a product type of which ``shop`` has several in stock, and whose taste favours one theme."""
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
    """``count`` actions on the days before ``until``, mostly at ``home`` and on popular items of the shopper's taste."""
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
    """(n,) whole numbers: how often the shopper views each item of a shop of the category, relative to the others."""
    appeal = shop.traits @ shopper.taste
    return whole(PULL * (appeal - appeal.max()) / 256, np.sqrt(shop.popularity))


def whole(powers: np.ndarray, factors: np.ndarray | float = 1.0) -> np.ndarray:
    """exp(``powers``) times ``factors`` as whole numbers of millionths, so that draws do not depend on a machine's rounding."""
    return np.rint(np.exp(powers) * factors * MILLION).astype(np.int64) + 1


def spin(rng: Random, wheel: np.ndarray) -> int:
    """An index drawn in proportion to the steps of ``wheel``, a cumulative sum of whole numbers."""
    return int(np.searchsorted(wheel, rng.randrange(int(wheel[-1])), side="right"))


def moment_of_day(rng: Random) -> datetime:
    return FIRST_DAY + timedelta(days=rng.randrange(28), hours=9, seconds=rng.randrange(12 * 3600))


def two_shops(rng: Random, shops: list[Shop]) -> tuple[Shop, Shop]:
    """The shop that a shopper visits, and another shop; the same shop twice where there is only one."""
    home = rng.randrange(len(shops))
    return shops[home], shops[(home + rng.randrange(1, len(shops))) % len(shops) if len(shops) > 1 else home]
