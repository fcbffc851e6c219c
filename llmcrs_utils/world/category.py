"""How a product category of the synthetic world is described: its products, the questions about them, and the words for both.

A template's ``{}`` marks where a word goes; the span of an annotation is found there.
"""

from dataclasses import dataclass, field
from functools import cached_property

KIND = "品类"  # the attribute for the product type ...
KIND_RELATION = "类目"  # ... and the relation under which the catalogue lists it
BUDGET = "价位"
BRAND = "品牌"


@dataclass(frozen=True)
class WorldAttribute:
    """One dialogue attribute, the catalogue relation behind it, and the words for both.

    ``words`` maps each catalogue value to the words that shoppers use for it. The catalogue's own word, or the nearest one, comes
    first; paraphrases follow, which a wide vocabulary gap makes common. ``desk`` holds the desk's own word where it differs from
    the catalogue's value. An attribute that is not ``listed`` (a shoe size) is no catalogue relation. ``several`` marks a relation
    of which one product may have two values. ``firm`` marks what a shopper never changes (a skin type). Two attributes may share
    a relation if their words differ (a skin trouble names the effect that is wanted).
    """

    key: str
    relation: str
    topic: str  # its name in a question about two attributes
    words: dict[str, tuple[str, ...]]
    ask: tuple[str, ...]  # open questions of the desk
    offer: tuple[str, ...]  # questions of the desk that name two values
    confirm: tuple[str, ...]  # yes-or-no questions of the desk that name one value
    tell: tuple[str, ...]  # clauses by which a shopper states a value
    react: tuple[str, ...] = ("有{}的吗", "有没有{}的", "想要{}的")  # clauses by which a shopper asks for another product
    inquire: tuple[str, ...] = ("这款是{}的吗", "这个是{}的吧")  # questions of a shopper whether a shown product fits
    avoid: tuple[str, ...] = ()  # what a shopper does not want; all of it is the annotated value
    explain: tuple[str, ...] = ()  # clauses by which the desk says that a product has the value
    lacks: tuple[str, ...] = ("不是{}的", "不属于{}的")  # clauses by which the desk says that a product does not have the value
    desk: dict[str, str] = field(default_factory=dict)
    listed: bool = True
    several: bool = False
    firm: bool = False


@dataclass(frozen=True)
class ProductType:
    """A product type: ``asks`` is the order in which the desk asks, each step one or two attributes at once.

    ``only`` restricts a relation to the values that make sense for this product; ``share`` is its weight in a shop.
    """

    words: tuple[str, ...]
    leaf: str  # its 叶子类目
    asks: tuple[tuple[str, ...], ...]
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    share: float = 1.0

    @property
    def keys(self) -> list[str]:
        return [key for step in self.asks for key in step]


@dataclass(frozen=True, eq=False)
class Category:
    """A product category.

    ``themes`` lists values that go together, both in products and in tastes. ``follow_ups`` maps an (attribute, catalogue value)
    that the desk has just learnt to the attribute that it asks about next. ``unspoken`` holds catalogue relations that matter to
    taste but are never mentioned. ``vague`` maps a question to the attributes that it may mean. ``ambiguous`` maps a shopper's word
    to the attributes under which it is annotated, with their shares. ``lean`` (-1..1) says how much more this category's choices
    depend on behaviour, rather than words, than those of the average category.
    """

    domain: str
    top_category: str
    products: dict[str, ProductType]
    attributes: dict[str, WorldAttribute]
    themes: tuple[dict[str, tuple[str, ...]], ...]
    follow_ups: dict[tuple[str, str], str]
    unspoken: dict[str, tuple[str, ...]]
    vague: dict[str, tuple[str, ...]]
    ambiguous: dict[str, dict[str, float]]
    lean: float

    def values(self, product: str, relation: str) -> tuple[str, ...]:
        """Catalogue values of ``relation`` that make sense for ``product``; empty where the product has no such relation."""
        return self._values[product].get(relation, ())

    @cached_property
    def _values(self) -> dict[str, dict[str, tuple[str, ...]]]:
        found = {}
        for name, product in self.products.items():
            known: dict[str, list[str]] = {}
            for key in [KIND, *product.keys]:
                known.setdefault(self.attributes[key].relation, []).extend(self.attributes[key].words)
            known |= {relation: list(values) for relation, values in self.unspoken.items()}
            allowed = {relation: product.only.get(relation, values) for relation, values in known.items()}
            found[name] = {
                relation: tuple(value for value in dict.fromkeys(values) if value in allowed[relation])
                for relation, values in known.items()
            }
        return found


def category(
    domain: str,
    top_category: str,
    products: dict[str, ProductType],
    attributes: list[WorldAttribute],
    themes: tuple[dict[str, tuple[str, ...]], ...],
    follow_ups: dict[tuple[str, str], str] | None = None,
    unspoken: dict[str, tuple[str, ...]] | None = None,
    vague: dict[str, tuple[str, ...]] | None = None,
    ambiguous: dict[str, dict[str, float]] | None = None,
    lean: float = 0.0,
) -> Category:
    """A category whose 品类 attribute is made from its products."""
    kind = WorldAttribute(
        key=KIND,
        relation=KIND_RELATION,
        topic="品类",
        words={name: product.words for name, product in products.items()},
        ask=("您想看哪种产品呢", "请问想要什么品类呢", "想买什么呢", "您看的是哪一类呢", "请问您需要什么产品呢"),
        offer=("您想看{}还是{}呢", "是要{}还是{}呢", "请问是{}还是{}呢"),
        confirm=("是要{}吗", "您是想看{}吗", "{}吗亲亲"),
        tell=("想要{}", "看看{}", "{}", "想买{}"),
        react=("有{}吗", "有没有{}", "想看看{}"),
        inquire=("这个是{}吗",),
        explain=("是{}",),
        lacks=("不是{}",),
    )
    named = {attribute.key: attribute for attribute in [kind, *attributes]}
    return Category(
        domain, top_category, products, named, themes, follow_ups or {}, unspoken or {}, vague or {}, ambiguous or {}, lean
    )


def budget(low: tuple[str, ...], middle: tuple[str, ...], high: tuple[str, ...]) -> WorldAttribute:
    """The 价位 attribute; every category has its own amounts, the nearest to the catalogue's 低, 中, 高 first."""
    return WorldAttribute(
        key=BUDGET,
        relation="价格区间",
        topic="预算",
        words={"低": low, "中": middle, "高": high},
        ask=("预算大概多少呢", "您的心理价位是多少呢", "价位方面有要求吗", "想要什么价位的呢", "预算多少呢亲", "您想看什么价格范围的呢"),
        offer=("您想看{}的还是{}的呢", "要{}的还是{}的呢"),
        confirm=("{}的可以吗", "看{}的吗", "{}的能接受吗"),
        tell=("{}的", "{}吧", "{}就行", "想要{}的", "{}的就可以", "{}"),
        react=("有{}的吗", "想要{}的", "有没有{}的", "还有{}的吗", "想看看{}的"),
        inquire=(),
        explain=("{}",),
        lacks=("不是这个价位的", "不在这个价位"),
        desk={"低": "价格很实惠", "中": "价格适中", "高": "是高端款"},
    )


def brands(*names: str) -> WorldAttribute:
    """The 品牌 attribute, of categories whose shops carry several brands."""
    return WorldAttribute(
        key=BRAND,
        relation=BRAND,
        topic="品牌",
        words={name: (name, name.replace("品牌", "牌"), f"{name[0]}家") for name in names},
        ask=("有喜欢的品牌吗", "品牌有要求吗", "想要哪个品牌的呢", "对品牌有偏好吗"),
        offer=("喜欢{}还是{}呢", "{}和{}更喜欢哪个呢", "看{}还是{}呢"),
        confirm=("{}的可以吗", "看{}的吗", "{}能接受吗"),
        tell=("要{}的", "喜欢{}", "想看{}的", "{}的", "{}"),
        react=("有{}的吗", "有没有{}的", "想看{}的", "我一直用{}的"),
        inquire=("这个是{}的吗", "这款是{}的吧"),
        avoid=("不要{}", "不考虑{}"),
        explain=("是{}的", "是{}的正品"),
        lacks=("不是{}的",),
    )


def gender() -> WorldAttribute:
    """The 性别 attribute of clothes and shoes."""
    return WorldAttribute(
        key="性别",
        relation="性别",
        topic="男女款",
        words={"男": ("男款", "男士", "男式", "男生款"), "女": ("女款", "女士", "女式", "女生款")},
        ask=("男女款有要求吗", "男女款方便说下吗", "请问男女款怎么选呢"),
        offer=("要{}还是{}呢", "请问看{}还是{}呢", "是{}还是{}呢"),
        confirm=("是{}吗", "看{}对吗"),
        tell=("要{}的", "{}的", "{}"),
        react=("有{}的吗", "有没有{}的"),
        inquire=("这个是{}的吗", "这款是{}吗"),
        explain=("是{}",),
        lacks=("不是{}",),
        desk={"男": "男款", "女": "女款"},
        firm=True,
    )
