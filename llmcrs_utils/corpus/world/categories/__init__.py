"""The five categories, in U-NEED's order, and how many of its dialogues each has."""

from llmcrs_utils.corpus.world.categories.beauty import BEAUTY
from llmcrs_utils.corpus.world.categories.electronics import ELECTRONICS
from llmcrs_utils.corpus.world.categories.fashion import FASHION
from llmcrs_utils.corpus.world.categories.phones import PHONES
from llmcrs_utils.corpus.world.categories.shoes import SHOES

CATEGORIES = (BEAUTY, PHONES, FASHION, SHOES, ELECTRONICS)
# Liu et al. (EMNLP 2023 Findings), section 4.1
SHARES = {"美妆行业": 1662, "手机行业": 1513, "服装行业": 1135, "鞋类行业": 1748, "大家电行业": 1640}
