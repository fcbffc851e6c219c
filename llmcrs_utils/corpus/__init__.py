"""Dialogues, product knowledge and behaviour as they come: U-NEED's format, other sources converted to it, and all that can be wrong with them."""
