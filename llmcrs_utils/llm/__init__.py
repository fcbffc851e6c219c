"""LLMs tuned with LoRA: their batches, training and answers."""
