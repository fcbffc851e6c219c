"""LoRA-tuned language models: their batches, training and answers."""
