"""Helpers of the LLM-CRS study. The notebooks are the way in; docs/code.md says what each room holds."""
