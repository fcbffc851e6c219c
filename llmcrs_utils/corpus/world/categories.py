"""The five categories of the synthetic world as data: what is sold, asked about, and how it is said.

A template's ``{}`` marks where a value goes; the span of the annotation is found there.
"""

from dataclasses import dataclass, field

KIND = "品类"  # what shoppers call the product type ...
KIND_RELATION = "类目"  # ... and where the catalogue keeps it
BUDGET = "价位"
BRAND = "品牌"


@dataclass(frozen=True)
class Attribute:
    """One dialogue attribute, the catalogue relation behind it, and the words for both.

    ``words`` maps each catalogue value to what shoppers call it, the commonest word first. ``desk`` holds the desk's own
    word where it differs from the catalogue's. An attribute that is not ``listed`` (a shoe size) is no catalogue relation.
    ``several`` marks a relation of which one product may have two values, ``firm`` what a shopper never changes (a skin type).
    """

    key: str
    relation: str
    topic: str  # its name in a question about two attributes
    words: dict[str, tuple[str, ...]]
    ask: tuple[str, ...]  # open questions
    offer: tuple[str, ...]  # questions that name two values
    tell: tuple[str, ...]  # clauses by which a shopper states a value
    react: tuple[str, ...] = ("有{}的吗", "有没有{}的", "想要{}的")  # what a shopper says of a recommendation
    explain: tuple[str, ...] = ()  # clauses by which the desk praises a product
    desk: dict[str, str] = field(default_factory=dict)
    listed: bool = True
    several: bool = False
    firm: bool = False


@dataclass(frozen=True)
class Product:
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


@dataclass(frozen=True)
class Category:
    """A product category. ``themes`` lists values that go together, in products and in tastes alike.

    ``follow_ups`` maps an (attribute, catalogue value) just learnt to the attribute that the desk asks about at once.
    """

    domain: str
    top_category: str
    products: dict[str, Product]
    attributes: dict[str, Attribute]
    themes: tuple[dict[str, tuple[str, ...]], ...]
    follow_ups: dict[tuple[str, str], str] = field(default_factory=dict)

    def values(self, product: str, relation: str) -> list[str]:
        """Catalogue values of ``relation`` that make sense for ``product``."""
        keys = [KIND, *self.products[product].keys]
        known = [v for key in keys if self.attributes[key].relation == relation for v in self.attributes[key].words]
        allowed = self.products[product].only.get(relation, known)
        return [value for value in dict.fromkeys(known) if value in allowed]


def category(
    domain: str,
    top_category: str,
    products: dict[str, Product],
    attributes: list[Attribute],
    themes: tuple[dict[str, tuple[str, ...]], ...],
    follow_ups: dict[tuple[str, str], str] | None = None,
) -> Category:
    """A category whose 品类 attribute is made from its products."""
    kind = Attribute(
        key=KIND,
        relation=KIND_RELATION,
        topic="品类",
        words={name: product.words for name, product in products.items()},
        ask=("您想看哪种产品呢", "请问想要什么品类呢", "想买什么呢"),
        offer=("您想看{}还是{}呢", "是要{}还是{}呢"),
        tell=("想要{}", "看看{}"),
        explain=("是{}",),
    )
    return Category(domain, top_category, products, {a.key: a for a in [kind, *attributes]}, themes, follow_ups or {})


def budget(low: tuple[str, ...], middle: tuple[str, ...], high: tuple[str, ...]) -> Attribute:
    """The 价位 attribute; every category has its own amounts."""
    return Attribute(
        key=BUDGET,
        relation="价格区间",
        topic="预算",
        words={"低": low, "中": middle, "高": high},
        ask=("预算大概多少呢", "您的心理价位是多少呢", "价位方面有要求吗", "想要什么价位的呢"),
        offer=("预算是{}还是{}呢", "价位{}还是{}呢"),
        tell=("{}的", "{}吧", "{}就行"),
        react=("有{}的吗", "想要{}的", "有没有{}的"),
        explain=("{}",),
        desk={"低": "价格很实惠", "中": "价格适中", "高": "是高端款"},
    )


def brands(*names: str) -> Attribute:
    """The 品牌 attribute, of categories whose shops carry several brands."""
    return Attribute(
        key=BRAND,
        relation=BRAND,
        topic="品牌",
        words={name: (name,) for name in names},
        ask=("有喜欢的品牌吗", "品牌有要求吗", "想要哪个品牌的呢"),
        offer=("喜欢{}还是{}呢", "{}和{}更喜欢哪个呢"),
        tell=("要{}的", "喜欢{}"),
        explain=("是{}的",),
    )


def gender() -> Attribute:
    """The 性别 attribute of what is worn."""
    return Attribute(
        key="性别",
        relation="性别",
        topic="男女款",
        words={"男": ("男款", "男士"), "女": ("女款", "女士")},
        ask=("请问是给谁穿的呢", "是谁穿的呢"),
        offer=("要{}还是{}呢", "请问看{}还是{}呢"),
        tell=("要{}的", "{}的"),
        explain=("是{}",),
        desk={"男": "男款", "女": "女款"},
        firm=True,
    )


BEAUTY = category(
    "美妆行业",
    "1801",
    products={
        "水乳": Product(("水乳", "护肤套装"), "水乳套装", (("功效",), ("肤质",), (BUDGET,), ("人群",), ("肌肤问题",))),
        "面霜": Product(("面霜", "保湿霜"), "乳液面霜", (("肤质",), ("功效",), ("人群", BUDGET))),
        "面膜": Product(("面膜",), "贴片面膜", (("功效",), ("肤质", BUDGET), ("人群",), ("肌肤问题",))),
        "精华": Product(("精华", "精华液"), "面部精华", (("肌肤问题",), ("肤质",), ("人群",), (BUDGET,))),
        "洗面奶": Product(
            ("洗面奶", "洁面"), "洁面", (("肤质",), ("功效",), (BUDGET,)), only={"功效": ("补水", "祛痘", "控油", "修护")}
        ),
    },
    attributes=[
        Attribute(
            key="功效",
            relation="功效",
            topic="功效",
            words={
                "补水": ("补水", "保湿"),
                "美白": ("美白", "提亮"),
                "祛痘": ("祛痘", "去痘"),
                "抗皱": ("抗皱", "抗老"),
                "修护": ("修护", "舒缓"),
                "控油": ("控油",),
            },
            ask=("您想要什么功效的呢", "主要想要什么效果呢", "功效方面有什么需求呢"),
            offer=("是想{}还是{}呢", "您更需要{}还是{}呢"),
            tell=("想要{}的", "主要想{}", "{}的"),
            explain=("主打{}", "{}效果很好"),
            several=True,
        ),
        Attribute(
            key="肤质",
            relation="肤质",
            topic="肤质",
            words={
                "油性": ("油皮", "油性皮肤"),
                "干性": ("干皮", "干性皮肤"),
                "混合": ("混合皮", "混油皮"),
                "敏感": ("敏感肌", "敏感皮"),
            },
            ask=("请问您是什么肤质呢", "您的肤质是怎样的呢", "方便说下肤质吗"),
            offer=("您是{}还是{}呢", "肤质是{}还是{}呢"),
            tell=("我是{}", "{}", "{}的"),
            react=("我是{}，这个能用吗", "{}能用吗", "有适合{}的吗"),
            explain=("适合{}", "{}可以放心用"),
            desk={"油性": "油性肌肤", "干性": "干性肌肤", "混合": "混合肌肤", "敏感": "敏感肌肤"},
            firm=True,
        ),
        Attribute(
            key="肌肤问题",
            relation="功效",
            topic="肌肤问题",
            words={
                "补水": ("干纹", "起皮"),
                "美白": ("暗沉", "色斑"),
                "祛痘": ("痘痘", "闭口", "痘印"),
                "抗皱": ("细纹", "皱纹"),
                "修护": ("泛红", "红血丝"),
                "控油": ("黑头", "毛孔粗大"),
            },
            ask=("您想改善什么肌肤问题呢", "目前皮肤有什么困扰呢", "主要想解决什么问题呢"),
            offer=("是想解决{}还是{}呢", "脸上有{}或者{}的情况吗"),
            tell=("脸上有点{}", "有{}", "最近{}比较明显"),
            react=("脸上有{}能用吗", "有{}可以用吗"),
            explain=("主打{}", "{}效果很好"),
        ),
        Attribute(
            key="人群",
            relation="使用人群",
            firm=True,
            topic="使用人群",
            words={
                "学生": ("学生", "学生党"),
                "妈妈": ("妈妈", "婆婆"),
                "孕妇": ("孕妇", "孕妈"),
                "男士": ("男朋友", "老公"),
            },
            ask=("请问是给谁用呢", "是您自己用还是送人呢"),
            offer=("是{}用还是{}用呢", "给{}还是{}用呢"),
            tell=("给{}用的", "{}用"),
            react=("{}能用吗", "有适合{}的吗", "给{}用可以吗"),
            explain=("很适合{}", "{}也能用"),
        ),
        budget(("一百以内", "便宜点", "平价点"), ("两百左右", "两三百"), ("五百以上", "高端点")),
    ],
    themes=(
        {"功效": ("祛痘", "控油"), "肤质": ("油性",), "使用人群": ("学生",), "价格区间": ("低",)},
        {"功效": ("抗皱", "补水"), "肤质": ("干性",), "使用人群": ("妈妈",), "价格区间": ("高",)},
        {"功效": ("修护", "补水"), "肤质": ("敏感",), "使用人群": ("孕妇",), "价格区间": ("中",)},
        {"功效": ("控油", "美白"), "肤质": ("混合", "油性"), "使用人群": ("男士",), "价格区间": ("中",)},
    ),
    follow_ups={("功效", "祛痘"): "肌肤问题", ("功效", "修护"): "肌肤问题"},
)

PHONES = category(
    "手机行业",
    "1512",
    products={
        "手机": Product(
            ("手机", "智能手机"),
            "智能手机",
            (("使用场景",), (BUDGET,), ("功能需求",), ("屏幕类型", BRAND), ("人群",)),
            only={
                "功能需求": ("长续航", "高像素", "运行流畅", "快充", "耐摔"),
                "使用场景": ("打游戏", "拍照", "看视频", "办公"),
            },
            share=2.0,
        ),
        "老人机": Product(
            ("老人机", "老年机"), "老年机", (("功能需求",), (BRAND,), (BUDGET,)), only={"功能需求": ("长续航", "大音量", "耐摔")}
        ),
        "平板": Product(
            ("平板", "平板电脑"),
            "平板电脑",
            (("人群",), ("使用场景", BUDGET), ("功能需求",), (BRAND,)),
            only={"功能需求": ("长续航", "运行流畅", "快充"), "使用场景": ("打游戏", "看视频", "上网课", "办公")},
        ),
    },
    attributes=[
        Attribute(
            key="使用场景",
            relation="使用场景",
            topic="用途",
            words={
                "打游戏": ("打游戏", "玩游戏"),
                "拍照": ("拍照", "拍视频"),
                "看视频": ("看视频", "追剧"),
                "上网课": ("上网课", "学习"),
                "办公": ("办公", "工作"),
            },
            ask=("平时主要用来做什么呢", "主要什么用途呢", "一般在什么场景下用呢"),
            offer=("平常{}比较多还是{}比较多呢", "主要是{}还是{}呢"),
            tell=("主要是{}", "平时{}", "{}用"),
            react=("{}怎么样", "有适合{}的吗", "想{}用"),
            explain=("{}很合适", "适合{}"),
        ),
        Attribute(
            key="功能需求",
            relation="功能需求",
            topic="功能",
            words={
                "长续航": ("续航久", "电池耐用"),
                "高像素": ("像素高", "像素好"),
                "运行流畅": ("流畅", "不卡"),
                "快充": ("充电快", "快充"),
                "耐摔": ("耐摔", "结实"),
                "大音量": ("声音大", "铃声大"),
            },
            ask=("功能上有什么要求呢", "您比较看重什么功能呢", "配置方面有什么需求呢"),
            offer=("要{}还是{}的呢", "更看重{}还是{}呢"),
            tell=("要{}的", "希望{}", "{}的"),
            explain=("主打{}", "{}方面很出色"),
            several=True,
        ),
        Attribute(
            key="屏幕类型",
            relation="屏幕类型",
            topic="屏幕",
            words={"直屏": ("直屏", "平面屏"), "曲屏": ("曲屏", "曲面屏"), "折叠屏": ("折叠屏",)},
            ask=("屏幕有什么要求呢", "喜欢什么样的屏幕呢"),
            offer=("喜欢{}还是{}呢", "要{}还是{}的呢"),
            tell=("要{}的", "喜欢{}"),
            explain=("是{}手机", "采用{}"),
        ),
        Attribute(
            key="人群",
            relation="使用人群",
            firm=True,
            topic="使用人群",
            words={
                "学生": ("学生", "孩子"),
                "老人": ("老人", "爸妈", "长辈"),
                "女生": ("女朋友", "女生"),
                "商务": ("商务人士", "领导"),
            },
            ask=("请问是给谁用呢", "是您自己用还是送人呢"),
            offer=("是给{}还是{}用呢", "{}用还是{}用呢"),
            tell=("给{}用的", "{}用"),
            react=("有适合{}的吗", "给{}用可以吗", "{}用合适吗"),
            explain=("很适合{}", "{}用很方便"),
            desk={"商务": "商务人士"},
        ),
        budget(("一千左右", "便宜点", "千元以内"), ("两千左右", "两三千"), ("五千以上", "高端点")),
        brands("A品牌", "B品牌", "C品牌"),
    ],
    themes=(
        {
            "使用场景": ("打游戏",), "功能需求": ("运行流畅", "快充"), "屏幕类型": ("直屏",), "使用人群": ("学生",),
            "价格区间": ("中",), "品牌": ("A品牌",),
        },
        {
            "使用场景": ("拍照",), "功能需求": ("高像素",), "屏幕类型": ("曲屏",), "使用人群": ("女生",),
            "价格区间": ("高", "中"), "品牌": ("B品牌",),
        },
        {
            "使用场景": ("看视频",), "功能需求": ("耐摔", "大音量", "长续航"), "屏幕类型": ("直屏",), "使用人群": ("老人",),
            "价格区间": ("低",), "品牌": ("C品牌",),
        },
        {
            "使用场景": ("办公",), "功能需求": ("长续航", "快充"), "屏幕类型": ("折叠屏",), "使用人群": ("商务",),
            "价格区间": ("高",), "品牌": ("A品牌", "B品牌"),
        },
    ),
    follow_ups={("使用场景", "打游戏"): "功能需求"},
)

CLOTHES = category(
    "服装行业",
    "1625",
    products={
        "T恤": Product(
            ("T恤", "短袖"), "T恤", (("性别",), ("材质",), ("款式",), (BUDGET,), ("功能需求",)),
            only={"材质": ("棉", "冰丝", "莫代尔"), "款式": ("宽松", "修身", "圆领"), "功能需求": ("透气", "舒适", "显瘦")},
        ),
        "连衣裙": Product(
            ("连衣裙", "裙子"), "连衣裙", (("季节",), ("款式", "材质"), ("功能需求",), (BUDGET,)),
            only={
                "季节": ("春", "夏", "秋"), "材质": ("棉", "雪纺", "冰丝"), "款式": ("宽松", "修身", "长款", "短款"),
                "功能需求": ("透气", "舒适", "显瘦"),
            },
        ),
        "毛衣": Product(
            ("毛衣", "针织衫"), "毛衣", (("款式",), ("性别",), ("材质",), (BUDGET,)),
            only={"材质": ("棉", "羊毛"), "款式": ("宽松", "修身", "圆领")},
        ),
        "羽绒服": Product(
            ("羽绒服", "羽绒衣"), "羽绒服", (("性别",), ("款式", BUDGET), ("功能需求",)),
            only={"款式": ("宽松", "连帽", "长款", "短款"), "功能需求": ("保暖", "舒适", "显瘦")},
        ),
        "睡衣": Product(
            ("睡衣", "家居服"), "睡衣套装", (("季节",), ("性别", "材质"), ("功能需求",), (BUDGET,)),
            only={"材质": ("棉", "冰丝", "莫代尔"), "功能需求": ("保暖", "透气", "舒适")},
        ),
    },
    attributes=[
        gender(),
        Attribute(
            key="季节",
            relation="季节",
            topic="季节",
            words={"春": ("春天", "春季"), "夏": ("夏天", "夏季"), "秋": ("秋天", "秋季"), "冬": ("冬天", "冬季")},
            ask=("想要哪个季节穿的呢", "请问什么季节穿呢"),
            offer=("是{}还是{}穿呢", "要{}穿还是{}穿的呢"),
            tell=("{}穿的", "{}穿"),
            react=("{}穿哪款好点", "有{}穿的吗", "想{}穿"),
            explain=("适合{}穿",),
            desk={"春": "春天", "夏": "夏天", "秋": "秋天", "冬": "冬天"},
        ),
        Attribute(
            key="材质",
            relation="材质",
            topic="材质",
            words={
                "棉": ("纯棉", "棉质"),
                "冰丝": ("冰丝",),
                "莫代尔": ("莫代尔",),
                "羊毛": ("羊毛", "羊绒"),
                "雪纺": ("雪纺",),
            },
            ask=("要什么材质的呢", "面料有什么要求呢", "喜欢什么面料的呢"),
            offer=("要{}还是{}的呢", "喜欢{}还是{}面料呢"),
            tell=("要{}的", "{}的那种", "喜欢{}的"),
            explain=("是{}的", "{}面料很亲肤"),
            desk={"棉": "棉质"},
            several=True,
        ),
        Attribute(
            key="款式",
            relation="款式",
            topic="款式",
            words={
                "宽松": ("宽松", "大码"),
                "修身": ("修身", "收腰"),
                "圆领": ("圆领",),
                "连帽": ("连帽", "带帽子"),
                "短款": ("短款",),
                "长款": ("长款", "过膝"),
            },
            ask=("喜欢什么款式的呢", "款式上有什么要求呢", "想要什么版型的呢"),
            offer=("喜欢{}还是{}的呢", "想要{}的还是{}的呢"),
            tell=("要{}的", "喜欢{}的", "{}的"),
            explain=("是{}的款式", "款式是{}的"),
        ),
        Attribute(
            key="功能需求",
            relation="功能需求",
            topic="功能需求",
            words={
                "保暖": ("保暖", "暖和"),
                "透气": ("透气", "凉快"),
                "舒适": ("舒服", "舒适"),
                "显瘦": ("显瘦", "遮肉"),
            },
            ask=("穿着上有什么要求呢", "您更看重哪方面呢"),
            offer=("想要{}的还是{}的呢", "更看重{}还是{}呢"),
            tell=("要{}的", "想穿着{}", "{}点的"),
            react=("有{}点的吗", "这个{}吗", "要{}一点的"),
            explain=("很{}", "穿着{}"),
            several=True,
        ),
        budget(("一百以内", "便宜点", "平价点"), ("两百左右", "一两百"), ("五百以上", "高档点")),
    ],
    themes=(
        {"性别": ("女",), "季节": ("夏",), "材质": ("雪纺", "冰丝"), "款式": ("修身", "短款"), "功能需求": ("显瘦", "透气"), "价格区间": ("中",)},
        {"性别": ("男",), "季节": ("冬",), "材质": ("羊毛",), "款式": ("连帽", "圆领"), "功能需求": ("保暖",), "价格区间": ("高",)},
        {"性别": ("女",), "季节": ("秋", "冬"), "材质": ("棉", "羊毛"), "款式": ("长款", "宽松"), "功能需求": ("舒适", "保暖"), "价格区间": ("低",)},
        {"性别": ("男",), "季节": ("夏", "春"), "材质": ("莫代尔", "棉"), "款式": ("宽松", "圆领"), "功能需求": ("透气", "舒适"), "价格区间": ("低", "中")},
    ),
    follow_ups={("季节", "冬"): "功能需求", ("季节", "夏"): "材质"},
)

SHOES = category(
    "鞋类行业",
    "1650",
    products={
        "跑步鞋": Product(
            ("跑步鞋", "跑鞋"), "跑步鞋", (("跑步强度",), ("鞋码",), ("功能需求",), ("性别", BUDGET)),
            only={"功能需求": ("减震", "轻便", "透气", "防滑")}, share=1.5,
        ),
        "休闲鞋": Product(
            ("休闲鞋", "板鞋"), "休闲鞋", (("性别",), ("材质",), (BUDGET,), ("功能需求",)),
            only={"材质": ("皮面", "网面", "帆布"), "功能需求": ("轻便", "透气", "防滑")},
        ),
        "篮球鞋": Product(
            ("篮球鞋", "球鞋"), "篮球鞋", (("功能需求",), ("鞋码", BUDGET), ("材质",)),
            only={"材质": ("皮面", "网面"), "功能需求": ("减震", "防滑", "轻便")},
        ),
        "靴子": Product(
            ("靴子", "马丁靴"), "靴子", (("性别",), ("功能需求", "材质"), ("鞋码",), (BUDGET,)),
            only={"材质": ("皮面", "绒面"), "功能需求": ("保暖", "防滑", "增高")},
        ),
    },
    attributes=[
        gender(),
        Attribute(
            key="跑步强度",
            relation="跑步强度",
            topic="跑步强度",
            words={
                "慢跑": ("慢跑", "偶尔跑跑"),
                "长跑": ("长跑", "十公里"),
                "竞速": ("马拉松", "竞速"),
            },
            ask=("平时跑步的强度怎么样呢", "一般跑多少公里呢", "跑步量大概多少呢"),
            offer=("主要是{}还是{}呢", "平时{}还是{}呢"),
            tell=("主要是{}", "平时{}", "{}用"),
            react=("{}能穿吗", "有适合{}的吗"),
            explain=("适合{}", "{}穿很合适"),
        ),
        Attribute(
            key="鞋码",
            relation="鞋码",
            topic="鞋码",
            words={"38": ("38码", "38的"), "39": ("39码", "39的"), "40": ("40码", "40的"), "41": ("41码", "41的")},
            ask=("平时穿多大码呢", "请问您的鞋码是多少呢", "穿多大的鞋呢"),
            offer=("穿{}还是{}呢", "平时是{}还是{}呢"),
            tell=("穿{}", "我穿{}", "一般是{}"),
            listed=False,
        ),
        Attribute(
            key="功能需求",
            relation="功能需求",
            topic="功能",
            words={
                "减震": ("减震", "软弹"),
                "轻便": ("轻便", "轻一点"),
                "透气": ("透气", "不捂脚"),
                "防滑": ("防滑", "抓地"),
                "保暖": ("保暖", "加绒"),
                "增高": ("增高", "厚底"),
            },
            ask=("功能上有什么要求呢", "您更看重哪方面呢", "对脚感有什么要求呢"),
            offer=("要{}的还是{}的呢", "更看重{}还是{}呢"),
            tell=("要{}的", "希望{}", "{}的"),
            explain=("{}效果很好", "主打{}"),
            several=True,
        ),
        Attribute(
            key="材质",
            relation="材质",
            topic="材质",
            words={"皮面": ("皮面", "真皮"), "网面": ("网面", "网布"), "帆布": ("帆布",), "绒面": ("绒面", "磨砂")},
            ask=("要什么材质的呢", "鞋面材质有要求吗"),
            offer=("要{}还是{}的呢", "喜欢{}还是{}呢"),
            tell=("要{}的", "喜欢{}的", "{}的那种"),
            explain=("鞋面是{}的", "{}的，很有质感"),
        ),
        budget(("两百以内", "便宜点", "平价点"), ("三百左右", "三四百"), ("六百以上", "高端点")),
    ],
    themes=(
        {"性别": ("男",), "跑步强度": ("竞速", "长跑"), "功能需求": ("轻便", "减震"), "材质": ("网面",), "价格区间": ("高",)},
        {"性别": ("女",), "跑步强度": ("慢跑",), "功能需求": ("透气", "轻便", "增高"), "材质": ("帆布", "网面"), "价格区间": ("低",)},
        {"性别": ("男",), "跑步强度": ("长跑",), "功能需求": ("防滑", "减震"), "材质": ("皮面",), "价格区间": ("中",)},
        {"性别": ("女",), "跑步强度": ("慢跑",), "功能需求": ("保暖", "增高", "防滑"), "材质": ("绒面", "皮面"), "价格区间": ("中",)},
    ),
    follow_ups={("跑步强度", "竞速"): "功能需求"},
)

APPLIANCES = category(
    "大家电行业",
    "1607",
    products={
        "洗衣机": Product(
            ("洗衣机",), "洗衣机", (("洗衣机类型",), (BUDGET,), ("功能需求",), ("人群", BRAND)),
            only={"功能需求": ("静音", "除菌", "烘干", "易操作")}, share=1.5,
        ),
        "冰箱": Product(
            ("冰箱", "电冰箱"), "冰箱", (("人群",), ("款式",), (BUDGET, BRAND), ("功能需求",)),
            only={"功能需求": ("静音", "节能", "除菌")},
        ),
        "空调": Product(
            ("空调",), "空调", (("空调类型",), ("功能需求",), (BRAND,), (BUDGET,)),
            only={"功能需求": ("静音", "节能", "智能")},
        ),
        "电视": Product(
            ("电视", "电视机"), "平板电视", (("屏幕尺寸", BUDGET), ("功能需求",), ("人群",), (BRAND,)),
            only={"功能需求": ("节能", "智能", "易操作")},
        ),
    },
    attributes=[
        Attribute(
            key="洗衣机类型",
            relation="款式",
            topic="洗衣机类型",
            words={"滚筒": ("滚筒",), "波轮": ("波轮",)},
            ask=("想要什么类型的洗衣机呢", "洗衣机类型有要求吗"),
            offer=("{}还是{}呢", "您要{}还是{}的呢"),
            tell=("{}的", "要{}的"),
            explain=("是{}洗衣机",),
        ),
        Attribute(
            key="款式",
            relation="款式",
            topic="款式",
            words={"对开门": ("对开门", "双开门"), "十字门": ("十字门", "四开门"), "三门": ("三门", "三开门")},
            ask=("想要几开门的呢", "喜欢什么款式的呢"),
            offer=("要{}还是{}的呢", "喜欢{}还是{}呢"),
            tell=("{}的", "要{}的"),
            explain=("是{}款式",),
        ),
        Attribute(
            key="空调类型",
            relation="款式",
            topic="空调类型",
            words={"挂机": ("挂机", "壁挂"), "柜机": ("柜机", "立式")},
            ask=("想要什么类型的空调呢", "空调要什么类型的呢"),
            offer=("要{}还是{}呢", "{}还是{}呢"),
            tell=("{}的", "要{}的"),
            explain=("是{}空调",),
        ),
        Attribute(
            key="屏幕尺寸",
            relation="屏幕尺寸",
            topic="尺寸",
            words={"55寸": ("55寸",), "65寸": ("65寸",), "75寸": ("75寸",)},
            ask=("想要多大尺寸的呢", "尺寸有要求吗"),
            offer=("要{}还是{}的呢", "看{}还是{}呢"),
            tell=("{}的", "要{}的"),
            explain=("是{}大屏",),
        ),
        Attribute(
            key="功能需求",
            relation="功能需求",
            topic="功能",
            words={
                "静音": ("静音", "声音小"),
                "节能": ("省电", "节能"),
                "除菌": ("除菌", "杀菌"),
                "烘干": ("带烘干", "能烘干"),
                "智能": ("智能", "手机控制"),
                "易操作": ("操作简单", "功能简单"),
            },
            ask=("功能上有什么要求呢", "需要什么功能呢", "您比较看重哪些功能呢"),
            offer=("要{}的还是{}的呢", "更看重{}还是{}呢"),
            tell=("要{}的", "希望{}", "{}的"),
            explain=("主打{}", "{}做得很好"),
            several=True,
        ),
        Attribute(
            key="人群",
            relation="使用人群",
            firm=True,
            topic="使用人群",
            words={
                "小家庭": ("两个人", "两口人"),
                "三口之家": ("三口人", "三个人"),
                "大家庭": ("五口人", "一大家子"),
                "老人": ("老人", "爸妈"),
            },
            ask=("家里几口人用呢", "请问是给谁用呢"),
            offer=("家里{}还是{}用呢", "是{}还是{}用呢"),
            tell=("家里{}用", "给{}用的"),
            react=("家里{}用合适吗", "{}用可以吗"),
            explain=("适合{}用", "{}用很合适"),
        ),
        budget(("两千以内", "便宜点", "性价比高"), ("三千左右", "三四千"), ("五千以上", "高端点")),
        brands("A品牌", "B品牌", "C品牌"),
    ],
    themes=(
        {
            "款式": ("滚筒", "十字门", "柜机"), "屏幕尺寸": ("75寸",), "功能需求": ("智能", "烘干"), "使用人群": ("大家庭",),
            "价格区间": ("高",), "品牌": ("A品牌",),
        },
        {
            "款式": ("波轮", "三门", "挂机"), "屏幕尺寸": ("55寸",), "功能需求": ("易操作", "节能"), "使用人群": ("老人",),
            "价格区间": ("低",), "品牌": ("B品牌",),
        },
        {
            "款式": ("滚筒", "对开门", "挂机"), "屏幕尺寸": ("65寸",), "功能需求": ("除菌", "静音"), "使用人群": ("三口之家",),
            "价格区间": ("中",), "品牌": ("C品牌", "A品牌"),
        },
        {
            "款式": ("波轮", "三门", "挂机"), "屏幕尺寸": ("55寸", "65寸"), "功能需求": ("静音", "节能"), "使用人群": ("小家庭",),
            "价格区间": ("低", "中"), "品牌": ("C品牌",),
        },
    ),
    follow_ups={("洗衣机类型", "滚筒"): "功能需求"},
)

CATEGORIES = (BEAUTY, PHONES, CLOTHES, SHOES, APPLIANCES)

# What both sides say around the values, whatever the category.
OPENINGS = ("有{}推荐吗", "想买{}", "{}有什么推荐的", "帮我推荐一款{}", "你们店有{}吗", "想看看{}")
OPENINGS_WITHOUT_KIND = ("{}，有什么推荐吗", "{}，推荐一款", "推荐一款，{}")
TWO_QUESTIONS = ("请问{}和{}有什么要求呢", "方便说下{}和{}吗", "您对{}和{}有要求吗")
COURTESIES = (("", ""), ("", ""), ("亲，", ""), ("亲亲，", ""), ("", "亲"), ("", "/:065"), ("亲，", "/:065"), ("", "~"))
EXPLANATIONS = ("这款{}哦", "这款{}呢", "您看看这款，{}呢", "推荐这款，{}哦")
EXPLANATIONS_OF_TWO = ("这两款都{}哦", "您看看这两款，都{}呢")
PLAIN_EXPLANATIONS = ("这款是店里的热卖款哦", "这款卖得很好呢", "您看看这款喜欢吗", "这款很多顾客回购呢")
PLAIN_EXPLANATIONS_OF_TWO = ("这两款您都可以看看哦", "这两款卖得都很好呢")
