"""The paper's ten typical systems: baselines that solve one task each."""
