"""Published architectures: checks before a run, loading, merging, tokenizers, and the two models that transformers does not have (ChatGLM, CPT)."""
