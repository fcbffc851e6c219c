"""Shops of the synthetic world: their items, and the facts of these items that the catalogue lists."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random

import numpy as np
import pandas as pd

from llmcrs_utils.corpus.schema import KNOWLEDGE_COLUMNS, TOP_CATEGORY
from llmcrs_utils.world.categories import WORLD_CATEGORIES
from llmcrs_utils.world.category import BRAND, KIND_RELATION, Category

LEAF = "叶子类目"
HOUSE_BRANDS = tuple(f"{letter}品牌" for letter in "ABCDEFGHIJ")  # of shops in categories without a brand attribute
KINDS_PER_SHOP = 4
FITS_THEME = 0.75  # how often a fact comes from the item's theme, where the theme has one for the relation
SOLD_OUT = 0.1
LARGEST_SHOP = 10_000

Facts = dict[str, tuple[str, ...]]  # relation -> values


@dataclass(frozen=True, eq=False)
class Shop:
    """A seller with ``n`` items of one category.

    Attributes:
        item_ids, kinds, facts: of each item its id, its product type and all that is true of it.
        traits: (n, len(traits_of(category))) of 0 and 1, the facts as numbers.
        popularity: (n,) whole numbers, the best seller's 10,000, then falling as 1 / rank.
        in_stock: (n,) booleans; an item that is sold out may have been viewed but is never recommended.
    """

    seller_id: str
    category: Category
    item_ids: list[str]
    kinds: list[str]
    facts: list[Facts]
    traits: np.ndarray
    popularity: np.ndarray
    in_stock: np.ndarray

    @cached_property
    def main_kinds(self) -> list[str]:
        """The product type of every item in stock. Types with fewer than four items are left out, unless all have fewer."""
        kinds = [kind for kind, here in zip(self.kinds, self.in_stock) if here]
        counts = Counter(kinds)
        return [kind for kind in kinds if counts[kind] >= 4] or kinds or self.kinds

    def items_of(self, kind: str) -> np.ndarray:
        """(n,) booleans: which items are of a product type."""
        return self.traits[:, traits_of(self.category)[KIND_RELATION, kind]] > 0


def open_shop(category: Category, number: int, size: int, seed: int) -> Shop:
    """The ``number``-th shop of a category, with some product types, two favourite themes and ``size`` items."""
    counter = number * len(WORLD_CATEGORIES) + WORLD_CATEGORIES.index(category)
    rng = Random(f"{seed} shop {counter}")
    kinds = rng.sample(list(category.products), min(KINDS_PER_SHOP, len(category.products)))
    shares = [category.products[kind].share for kind in kinds]
    themes = rng.sample(category.themes, 2) * 2 + list(category.themes)
    house_brand = rng.choice(HOUSE_BRANDS)
    ranks = np.array(rng.sample(range(size), size))
    sold, facts = [], []
    for index in range(size):
        rng = Random(f"{seed} shop {counter} item {index}")
        kind = rng.choices(kinds, shares)[0]
        sold.append(kind)
        facts.append(draw_facts(rng, category, kind, rng.choice(themes), house_brand))
    in_stock = np.array([Random(f"{seed} shop {counter} stock {index}").random() >= SOLD_OUT for index in range(size)])
    return Shop(
        seller_id=scatter(counter, digits=10, first=2, seed=seed),
        category=category,
        item_ids=[scatter(counter * LARGEST_SHOP + index, digits=12, first=6, seed=seed) for index in range(size)],
        kinds=sold,
        facts=facts,
        traits=trait_matrix(category, facts),
        popularity=10_000 // (1 + ranks),
        in_stock=in_stock,
    )


def draw_facts(rng: Random, category: Category, kind: str, theme: dict[str, tuple[str, ...]], house_brand: str) -> Facts:
    """One value, sometimes two, for every relation of a product type. Most come from the theme, so that they go together."""
    facts: Facts = {KIND_RELATION: (kind,)}
    doubles = several_valued(category)
    for relation in listed_relations(category, kind):
        allowed = category.values(kind, relation)
        typical = [value for value in theme.get(relation, ()) if value in allowed]
        value = rng.choice(typical) if typical and rng.random() < FITS_THEME else rng.choice(allowed)
        others = [other for other in typical if other != value]
        second = (rng.choice(others),) if relation in doubles and others and rng.random() < 0.3 else ()
        facts[relation] = (value, *second)
    facts.setdefault(BRAND, (house_brand,))
    return facts


def listed_relations(category: Category, kind: str) -> list[str]:
    """The catalogue relations of a product type besides the type itself, spoken of or not."""
    spoken = [category.attributes[key] for key in category.products[kind].keys]
    return list(dict.fromkeys([a.relation for a in spoken if a.listed] + list(category.unspoken)))


@cache
def several_valued(category: Category) -> frozenset[str]:
    return frozenset(attribute.relation for attribute in category.attributes.values() if attribute.several)


@cache
def traits_of(category: Category) -> dict[tuple[str, str], int]:
    """(relation, value) -> column, of every fact that an item of the category may have."""
    pairs = [(KIND_RELATION, kind) for kind in category.products]
    for kind in category.products:
        pairs += [(relation, v) for relation in listed_relations(category, kind) for v in category.values(kind, relation)]
    pairs += [(BRAND, brand) for brand in HOUSE_BRANDS]
    return {pair: column for column, pair in enumerate(dict.fromkeys(pairs))}


def trait_matrix(category: Category, facts: Sequence[Facts]) -> np.ndarray:
    columns = traits_of(category)
    matrix = np.zeros((len(facts), len(columns)), dtype=np.int32)
    for row, fact in enumerate(facts):
        matrix[row, [columns[relation, value] for relation, values in fact.items() for value in values]] = 1
    return matrix


def catalogue(shops: list[Shop], tuples: int, seed: int) -> tuple[pd.DataFrame, list[list[Facts]]]:
    """The catalogue with ``tuples`` facts, and the same facts per shop and item as ``Facts``.

    The catalogue lists the top category of every item and one more relation, mostly the product type. The other tuples are spread
    very unevenly over the items: some are described in full, many hardly at all, as in real shops.

    Raises:
        ValueError: if the number of tuples is too small or too large for the items.
    """
    rows, ranks, homes = [], [], []  # a rank of -1: listed in any case
    for number, shop in enumerate(shops):
        for index, item in enumerate(shop.item_ids):
            rng = Random(f"{seed} describe {item}")
            optional = [relation for relation in shop.facts[index] if relation not in (KIND_RELATION, BRAND)]
            first = KIND_RELATION if rng.random() < 0.85 or not optional else rng.choice(optional)
            care = rng.random() ** 2  # how little the merchant wrote: squared, since most write little or all
            cells = [(TOP_CATEGORY, shop.category.top_category, -1.0)]
            for relation, values in shop.facts[index].items():
                # merchants now and then type two values into one field
                fields = [",".join(values)] if rng.random() < 0.3 else values
                for place, cell in enumerate(fields):
                    cells.append((relation, cell, -1.0 if relation == first and not place else rng.random() + 2 * care))
            cells.append((LEAF, shop.category.products[shop.kinds[index]].leaf, rng.random() + 2 * care + 0.5))
            rows += [(item, shop.seller_id, relation, cell) for relation, cell, _ in cells]
            ranks += [rank for *_, rank in cells]
            homes += [(number, index)] * len(cells)
    needed = sum(rank < 0 for rank in ranks)
    if not needed <= tuples <= len(rows):
        items = needed // 2
        raise ValueError(f"tuples_per_item is {tuples / items:.2f}; these items have 2 to {len(rows) / items:.2f}")
    chosen = sorted(np.argsort(np.array(ranks), kind="stable")[:tuples].tolist())
    described: list[list[Facts]] = [[{} for _ in shop.item_ids] for shop in shops]
    for row in chosen:
        _, _, relation, cell = rows[row]
        number, index = homes[row]
        facts = described[number][index]
        facts[relation] = (*facts.get(relation, ()), *cell.split(","))
    return pd.DataFrame([rows[row] for row in chosen], columns=KNOWLEDGE_COLUMNS, dtype=str), described


def scatter(counter: int, digits: int, first: int, seed: int) -> str:
    """A number of ``digits`` digits that looks arbitrary. Different counters give different numbers."""
    size = 10 ** (digits - 1)
    # a multiplier without a common factor with ``size`` makes this a permutation
    return str(first * size + (counter * 61_803_398_749 + seed * 104_729 + 193_939) % size)
