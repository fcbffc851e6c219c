"""Helpers of the LLM-CRS study; the notebooks in ``notebooks/`` are the way in."""
