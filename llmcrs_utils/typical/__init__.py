"""The ten typical systems. Each is built for one task."""
