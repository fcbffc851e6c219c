"""The text that a model reads: prompts, segments with the assistant's help, instructions, input cut to length, and typed text kept apart from control tokens."""
