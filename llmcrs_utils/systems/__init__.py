"""What all parts agree on: the registry of systems, the format of the predictions table, and the version numbers of training recipes."""
