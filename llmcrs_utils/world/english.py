"""English names of the world's attributes and values, for readers of pages and notebooks. No model reads them."""

from functools import cache

from llmcrs_utils.world.categories import WORLD_CATEGORIES

ATTRIBUTES = {
    "人群": "for whom", "价位": "price", "使用场景": "occasion", "内存": "memory", "功效": "effect", "功能需求": "feature", "品牌": "brand",
    "品类": "product type", "季节": "season", "安装方式": "installation", "容量": "capacity", "屏幕尺寸": "screen size", "屏幕类型": "screen type",
    "年龄": "age", "性别": "men or women", "材质": "material", "款式": "style", "洗衣机类型": "washer type", "空调类型": "air conditioner type",
    "网络": "network", "肌肤问题": "skin problem", "肤质": "skin type", "能效": "energy class", "质地": "texture", "跑步强度": "running intensity",
    "鞋码": "shoe size", "颜色": "colour",
}  # fmt: skip
# The catalogue's relations, where they have another name than the attribute.
RELATIONS = {
    "使用人群": "for whom", "价格区间": "price", "类目": "product type", "内存容量": "memory", "能效等级": "energy class", "网络类型": "network", "香型": "scent",
    "规格": "package", "产地": "origin", "机身颜色": "colour", "外观风格": "look", "保修期限": "warranty", "服装厚度": "thickness", "图案": "pattern", "风格": "style",
    "机身重量": "weight", "套餐类型": "set", "鞋底材质": "sole",
}  # fmt: skip
# Product types and values as the catalogue writes them.
VALUES = {
    "水乳": "toner and lotion", "面霜": "cream", "面膜": "face mask", "精华": "serum", "洗面奶": "cleanser", "防晒霜": "sunscreen", "口红": "lipstick",
    "粉底液": "foundation", "补水": "hydrating", "美白": "whitening", "祛痘": "against acne", "抗皱": "anti-wrinkle", "修护": "repairing",
    "控油": "oil control", "清洁": "cleansing", "油性": "oily", "干性": "dry", "混合性": "combination", "中性": "normal", "敏感性": "sensitive",
    "20岁以下": "under 20", "20-30岁": "20 to 30", "30-40岁": "30 to 40", "40岁以上": "over 40", "学生": "student", "妈妈": "mother",
    "孕妇": "pregnant woman", "男士": "men", "女士": "women", "低": "low", "中": "medium", "高": "high", "清爽": "light", "滋润": "rich", "哑光": "matte",
    "水光": "dewy", "丝绒": "velvet", "通勤": "commuting", "户外": "outdoors", "海边": "seaside", "军训": "military training", "约会": "date", "聚会": "party",
    "持久": "long-lasting", "遮瑕": "concealing", "显白": "brightening", "防水": "waterproof", "轻薄": "thin", "温和": "mild", "泡沫丰富": "rich foam",
    "正红": "true red", "豆沙": "dusty rose", "橘调": "orange tone", "裸色": "nude", "象牙白": "ivory", "自然色": "natural tone", "小麦色": "tan",
    "洗衣机": "washing machine", "冰箱": "fridge", "空调": "air conditioner", "电视": "TV", "热水器": "water heater", "油烟机": "range hood",
    "洗碗机": "dishwasher", "滚筒": "front loader", "波轮": "top loader", "洗烘一体": "washer-dryer", "双缸": "twin tub", "迷你": "mini", "挂机": "wall unit",
    "柜机": "floor unit", "风管机": "ducted", "移动式": "portable", "单门": "one door", "三门": "three doors", "对开门": "side-by-side", "十字门": "four doors",
    "法式多门": "French doors", "顶吸": "top extraction", "侧吸": "side extraction", "43寸": "43 inches", "55寸": "55 inches", "65寸": "65 inches",
    "75寸": "75 inches", "85寸": "85 inches", "小容量": "small capacity", "中容量": "medium capacity", "大容量": "large capacity", "超大号": "extra large",
    "一级能效": "energy class 1", "二级能效": "energy class 2", "三级能效": "energy class 3", "嵌入式": "built-in", "独立式": "freestanding",
    "壁挂式": "wall-mounted", "台式": "countertop", "座架式": "on a stand", "静音": "quiet", "除菌": "disinfecting", "智能": "smart", "操作简单": "easy to use",
    "经济耐用": "economical and durable", "高效": "efficient", "画质清晰": "sharp picture", "单身": "single", "小两口": "couple", "三口之家": "family of three",
    "大家庭": "large family", "老人": "the elderly", "出租房": "rented flat", "A品牌": "brand A", "B品牌": "brand B", "C品牌": "brand C", "D品牌": "brand D",
    "E品牌": "brand E", "T恤": "T-shirt", "连衣裙": "dress", "毛衣": "sweater", "羽绒服": "down jacket", "睡衣": "pyjamas", "保暖套装": "thermal set",
    "内裤": "underwear", "牛仔裤": "jeans", "男": "men", "女": "women", "春": "spring", "夏": "summer", "秋": "autumn", "冬": "winter", "棉质": "cotton",
    "冰丝": "ice silk", "莫代尔": "modal", "羊毛": "wool", "雪纺": "chiffon", "德绒": "brushed fleece", "涤纶": "polyester", "宽松": "loose", "修身": "slim fit",
    "圆领": "crew neck", "V领": "V-neck", "长款": "long", "短款": "short", "高腰": "high waist", "黑色": "black", "白色": "white", "红色": "red", "蓝色": "blue",
    "粉色": "pink", "灰色": "grey", "卡其色": "khaki", "不起球": "no pilling", "保暖": "warm", "透气": "breathable", "舒适": "comfortable", "显瘦": "slimming",
    "不变形": "keeps its shape", "上班": "work", "居家": "home", "运动": "sports", "出游": "travel", "孩子": "child", "爸爸": "father", "手机": "phone",
    "老人机": "phone for the elderly", "学生机": "phone for students", "平板": "tablet", "智能手表": "smartwatch", "儿童手表": "children's watch",
    "蓝牙耳机": "Bluetooth earphones", "打游戏": "gaming", "拍照": "taking pictures", "看视频": "watching videos", "上网课": "online classes",
    "办公": "office work", "打电话": "calls", "长续航": "long battery life", "高像素": "high resolution", "运行流畅": "runs smoothly", "耐摔": "drop-proof",
    "大音量": "loud", "精准定位": "precise positioning", "降噪": "noise cancelling", "直屏": "flat screen", "曲屏": "curved screen", "折叠屏": "folding screen",
    "小屏": "small screen", "标准屏": "standard screen", "大屏": "large screen", "全网通": "all networks", "仅WiFi": "WiFi only", "入耳式": "in-ear",
    "头戴式": "over-ear", "挂脖式": "neckband", "圆表盘": "round face", "方表盘": "square face", "直板": "bar", "翻盖": "flip", "女生": "young women", "商务": "business",
    "儿童": "children", "跑步鞋": "running shoes", "休闲鞋": "casual shoes", "篮球鞋": "basketball shoes", "靴子": "boots", "凉鞋": "sandals",
    "童鞋": "children's shoes", "登山鞋": "hiking shoes", "健步鞋": "walking shoes", "健走": "walking", "慢跑": "jogging", "日常跑": "daily running",
    "长跑": "long-distance running", "竞速": "racing", "减震": "cushioned", "轻便": "light", "防滑": "non-slip", "耐磨": "hard-wearing", "皮面": "leather",
    "网面": "mesh", "帆布": "canvas", "绒面": "suede", "软胶": "soft rubber", "健身": "workout", "逛街": "shopping", "上学": "school", "室内球场": "indoor court",
    "室外球场": "outdoor court", "高帮": "high-top", "低帮": "low-top", "一脚蹬": "slip-on", "魔术贴": "hook-and-loop", "系带": "lace-up", "厚底": "thick sole",
    "平底": "flat sole", "幼儿": "toddler", "青少年": "teenager", "中年人": "middle-aged", "无香": "unscented", "花香": "floral", "果香": "fruity",
    "草本香": "herbal", "便携装": "travel size", "标准装": "standard size", "大容量装": "large size", "国产": "made in China", "日韩": "from Japan or Korea",
    "欧美": "from Europe or America", "银色": "silver", "简约": "plain", "轻奢": "affordable luxury", "复古": "retro", "一年": "one year",
    "三年": "three years", "十年": "ten years", "薄款": "thin", "常规": "regular", "厚款": "thick", "纯色": "plain colour", "条纹": "striped",
    "格子": "checked", "印花": "printed", "卡通": "cartoon", "甜美": "sweet", "金色": "gold", "轻巧": "light", "适中": "medium weight", "厚重": "heavy",
    "官方标配": "official set", "配件套餐": "set with accessories", "延保套餐": "set with longer warranty", "拼色": "colour-blocked", "橡胶底": "rubber sole",
    "牛筋底": "gum sole", "发泡底": "foam sole", "潮流": "trendy", "可爱": "cute", "37": "size 37", "38": "size 38", "39": "size 39", "40": "size 40",
    "41": "size 41", "42": "size 42", "43": "size 43", "64G": "64 GB", "128G": "128 GB", "256G": "256 GB", "512G": "512 GB", "4G": "4G",
    "5G": "5G",
}  # fmt: skip


# What a shopper complains of, by the effect that helps against it. The catalogue has the effects only.
SKIN_PROBLEMS = {
    "补水": "dryness", "美白": "dullness", "祛痘": "acne", "抗皱": "wrinkles", "修护": "redness or sensitivity", "控油": "oiliness", "清洁": "blackheads or pores",
}  # fmt: skip


@cache
def glossary() -> dict[str, str]:
    """Every word of the world -> its English name: attributes, relations, values, and what shoppers say for a value or to refuse it.

    A word of several values has all their names.
    """
    meant = {word: {name: None} for word, name in VALUES.items()}
    for category in WORLD_CATEGORIES:
        said = [(VALUES[name], product.words) for name, product in category.products.items()]
        for attribute in category.attributes.values():
            names = SKIN_PROBLEMS if attribute.key == "肌肤问题" else VALUES
            for value, words in attribute.words.items():
                refused = [frame.format(word) for word in words for frame in attribute.avoid]
                said += [(names[value], words), (f"not {names[value]}", refused)]
        for name, words in said:
            for word in words:
                meant.setdefault(word, {})[name] = None
    return {word: " / ".join(names) for word, names in meant.items()} | RELATIONS | ATTRIBUTES
