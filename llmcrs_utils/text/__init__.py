"""The text that a model reads: prompts, segments and instructions, cut to length and shielded from control tokens."""
