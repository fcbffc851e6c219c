"""Published checkpoints: checks before a run, loading, merging, tokenizers, and models that transformers lacks (ChatGLM, CPT)."""
