"""Checkpoints on disk and on the hub: checking them before a run, loading, merging adapters, tokenizers, and the two architectures that transformers lacks (ChatGLM, CPT)."""
