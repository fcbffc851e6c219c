"""A synthetic pre-sales world: shops, shoppers and the dialogues they play. Invented data, for trying the study out."""

from llmcrs_utils.world.dialogues import Knobs
from llmcrs_utils.world.simulate import Truth, generate

__all__ = ["Knobs", "Truth", "generate"]
