"""Running the study: profiles, runs and their resume, checks before a run, starting jobs, and the commands that score and compare predictions."""
