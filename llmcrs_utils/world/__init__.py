"""The synthetic world: shops, shoppers and their dialogues, all invented, and every module that knows the world's truth.

Generation (``simulate``, ``shops``, ``shoppers``, ``dialogues``, ``language``, ``categories``), the best possible scores (``ceilings``),
the effect of each knob (``knobs``), and the comparison of what was planted with what was measured (``known_answer``).
"""

from llmcrs_utils.world.dialogues import Knobs
from llmcrs_utils.world.simulate import Truth, generate

__all__ = ["Knobs", "Truth", "generate"]
