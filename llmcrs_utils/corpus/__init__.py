"""Input data: dialogues, product knowledge and behaviour in U-NEED's format, other sources converted to it, and checks for what can be wrong."""
