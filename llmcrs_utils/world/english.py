"""English names of the world's attributes, for readers of pages and notebooks. No model reads them."""

ATTRIBUTES = {
    "人群": "for whom", "价位": "price", "使用场景": "occasion", "内存": "memory", "功效": "effect", "功能需求": "feature", "品牌": "brand",
    "品类": "product type", "季节": "season", "安装方式": "installation", "容量": "capacity", "屏幕尺寸": "screen size", "屏幕类型": "screen type",
    "年龄": "age", "性别": "men or women", "材质": "material", "款式": "style", "洗衣机类型": "washer type", "空调类型": "air conditioner type",
    "网络": "network", "肌肤问题": "skin problem", "肤质": "skin type", "能效": "energy class", "质地": "texture", "跑步强度": "running intensity",
    "鞋码": "shoe size", "颜色": "colour",
}  # fmt: skip
