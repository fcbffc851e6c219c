"""The ten typical systems, built for one task each."""
