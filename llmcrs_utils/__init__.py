"""Helpers of the LLM-CRS study. The notebooks are the way in; the README's map of the code says what each room holds."""
