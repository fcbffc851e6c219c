"""The study as a whole: profiles, the run as its unit, checks before a run, starting jobs, scoring and comparing what was said."""
