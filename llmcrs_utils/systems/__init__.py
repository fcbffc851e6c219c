"""Who takes part and what they said: the registry of systems, and the table of predictions that all parts agree on."""
