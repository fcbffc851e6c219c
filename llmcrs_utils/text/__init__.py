"""What a model reads: prompts, segments, instructions, and how long or hostile text is made to fit."""
