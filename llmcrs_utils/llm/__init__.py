"""LoRA-tuned language models: how they encode instructions, train, write replies and rank candidates by their letters."""
