"""A synthetic pre-sales world: shops, shoppers and the dialogues they play. Invented data, for trying the study out."""

from llmcrs_utils.corpus.world.dialogues import Knobs
from llmcrs_utils.corpus.world.simulate import Truth, generate

__all__ = ["Knobs", "Truth", "generate"]
