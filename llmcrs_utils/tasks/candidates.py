"""The catalogue, and the 20 candidates of a recommendation: the gold item and 19 others (paper section 3.2)."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from llmcrs_utils.corpus.schema import TOP_CATEGORY, Corpus, CorpusError
from llmcrs_utils.text.prompts import LETTERS, Prompts

CANDIDATES = len(LETTERS)


@dataclass(frozen=True)
class Catalogue:
    """All items that product knowledge or dialogues name.

    Attributes:
        items: one row per item, sorted by id: ``item_id, seller_id, category, facts`` (the text that a model may read of it) and
            ``listed`` (False for an item that only dialogues name).
        index: item id -> row.
        pools: sorted ids of the listed items of a seller, ``("seller", id, described)``, of a top category (一级类目),
            ``("category", id, described)``, and of all, ``("all", "", described)``; ``described`` says whether the items have
            facts.
        kinds: item id -> its top category, and whether it has facts.
    """

    items: pd.DataFrame
    index: dict[str, int]
    pools: dict[tuple[str, str, bool], list[str]]
    kinds: dict[str, tuple[str, bool]]

    def candidates(
        self, sid: str, seq_no: int, gold: str, seller: str, given: list[str], others: list[str], disliked: Sequence[str] = ()
    ) -> list[str]:
        """20 item ids in random order, the gold item among them. The random generator depends on (sid, seq_no, gold) alone.

        What the shopper disliked comes first, then candidates that the corpus gives,
        then the seller's items, then items of the gold item's top category, then any.
        Only listed items are drawn, so that a new dialogue does not change the candidates of others. They have facts if the gold
        item has facts, and none if it has none: otherwise the one item without facts would be the answer. If too few remain, all
        items may be drawn. Other items recommended in the same turn are right answers too and are never drawn as wrong ones.
        """
        generator = random.Random(f"{sid}|{seq_no}|{gold}")
        chosen, barred = [gold, *disliked], {gold, *others, *disliked}
        for pool in self.pools_for(gold, seller, given):
            missing = CANDIDATES - len(chosen)
            # Some drawn items may be barred, so draw a few more than needed. That avoids a pass over a large pool.
            drawn = generator.sample(pool, min(len(pool), missing + len(barred)))
            fresh = [item for item in dict.fromkeys(drawn) if item not in barred][:missing]
            chosen += fresh
            barred.update(fresh)
            if len(chosen) == CANDIDATES:
                break
        if len(chosen) < CANDIDATES:
            raise CorpusError(
                f"dialogue {sid}, item {gold}: the catalogue holds only {len(chosen)} items to choose among, "
                f"a recommendation needs {CANDIDATES}; add product knowledge (item_kg.txt) for more items"
            )
        generator.shuffle(chosen)
        return chosen

    def pools_for(self, gold: str, seller: str, given: list[str]) -> Iterator[list[str]]:
        """The pools from which candidates are drawn, the best first; one at a time, since the last pools are long and seldom needed."""
        category, described = self.kinds[gold]
        yield given
        for state in (described, not described):
            for name in (("seller", seller), ("category", category), ("all", "")):
                yield self.pools.get((*name, state), [])
        yield list(self.index)


def catalogue_from_items(items: pd.DataFrame) -> Catalogue:
    """The catalogue of an ``items`` table as ``build_catalogue`` makes it (also read back from disk)."""
    pools: dict[tuple[str, str, bool], list[str]] = {}
    columns = [items[name].to_numpy(object) for name in ("item_id", "seller_id", "category", "facts", "listed")]
    kinds = {}
    for item, seller, category, facts, listed in zip(*columns, strict=True):
        kinds[item] = category, bool(facts)
        for name in (("seller", seller), ("category", category), ("all", "")):
            if listed and name != ("category", ""):
                pools.setdefault((*name, bool(facts)), []).append(item)
    return Catalogue(items, {item: row for row, item in enumerate(kinds)}, pools, kinds)


def build_catalogue(corpus: Corpus, prompts: Prompts) -> Catalogue:
    """The catalogue of a corpus: items of the product knowledge, and items that only a dialogue names."""
    knowledge = corpus.knowledge
    first = knowledge.drop_duplicates("item_id_encrypt")
    sellers = dict(zip(first["item_id_encrypt"].tolist(), first["seller_id_encrypt"].tolist(), strict=True))
    listed = set(sellers)
    top = knowledge[knowledge["relation_name"] == TOP_CATEGORY].drop_duplicates("item_id_encrypt")
    categories = dict(zip(top["item_id_encrypt"].tolist(), top["value"].tolist(), strict=True))
    for dialogues in corpus.dialogues.values():
        for dialogue in dialogues:
            for utterance in dialogue.dialogue:
                for item in utterance.rec_item_id:
                    sellers.setdefault(item, dialogue.sellerid)
                for given in utterance.rec_item_candidates:
                    for item in given:
                        sellers.setdefault(item, dialogue.sellerid)
    facts = item_facts(knowledge, prompts)
    names = sorted(sellers)
    items = pd.DataFrame({"item_id": names}, dtype=str)
    items["seller_id"] = [sellers[item] for item in names]
    items["category"] = [categories.get(item, "") for item in names]
    items["listed"] = [item in listed for item in names]
    items["facts"] = [facts.get(item, "") for item in names]
    return catalogue_from_items(items)


def item_facts(knowledge: pd.DataFrame, prompts: Prompts) -> dict[str, str]:
    """Item id -> the text that a model may read of it, for example ``价格区间是高，材质是冰丝、棉质`` (paper Table 7)."""
    shown = knowledge[~knowledge["relation_name"].isin(prompts.hidden_relations)]
    columns = (shown[name].to_numpy(object) for name in ("item_id_encrypt", "relation_name", "value"))
    values: dict[str, dict[str, list[str]]] = {}
    for item, relation, value in zip(*columns, strict=True):
        values.setdefault(item, {}).setdefault(relation, []).append(value)
    return {
        item: prompts.facts.join(
            prompts.fact.format(attribute=relation, values=prompts.values.join(of_relation))
            for relation, of_relation in relations.items()
        )
        for item, relations in values.items()
    }
