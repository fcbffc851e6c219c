"""The product categories of the synthetic world, a module each, in the order of U-NEED's categories."""

from llmcrs_utils.world.categories.beauty import BEAUTY
from llmcrs_utils.world.categories.electronics import ELECTRONICS
from llmcrs_utils.world.categories.fashion import FASHION
from llmcrs_utils.world.categories.phones import PHONES
from llmcrs_utils.world.categories.shoes import SHOES

WORLD_CATEGORIES = (BEAUTY, PHONES, FASHION, SHOES, ELECTRONICS)
