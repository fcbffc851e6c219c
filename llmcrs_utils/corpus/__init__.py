"""Input data in U-NEED's format (dialogues, product knowledge, behaviour), conversion of other sources, and checks for errors."""
