"""What a training leaves in a run's folder; said here once, for those who do not load torch too."""

STAGES = "stages"  # folder of the stages before the last; of no use once the run has finished
HISTORY = "history.json"  # beside a trained model, written last: how training went
