"""A synthetic pre-sales world: shops, shoppers and the dialogues they play. Invented data, for trying the study out."""

from llmcrs_utils.corpus.world.generate import generate

__all__ = ["generate"]
