"""How every model is trained and answers: one trainer, one module of collators, decoding in batches, work shared by several processes."""
