"""Training and decoding for all models: one trainer, one module of collators, decoding in batches, work shared by processes."""
