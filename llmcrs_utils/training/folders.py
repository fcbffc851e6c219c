"""Names of what training writes to a run's folder. This module does not import torch."""

STAGES = "stages"  # folder of the stages before the last; no longer needed when the run has finished
HISTORY = "history.json"  # the losses per epoch, beside a trained model; written last
