"""The text that a model reads: prompts, segments and instructions, input cut to length, and data that must not pass for control tokens."""
