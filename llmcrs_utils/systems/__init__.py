"""The systems of the study and their answers: the registry of systems, and the predictions table that all rooms share."""
