"""Folds of the training dialogues, for help from models that were not trained on them."""

import hashlib

import numpy as np
import pandas as pd

HELD_OUT = "held_out"


def fold_numbers(samples: pd.DataFrame, folds: int) -> pd.Series:
    """Dialogue (``sid``) -> its fold, 1 to ``folds``. Each category is spread evenly, in an order that depends on the ids alone."""
    dialogues = samples[["sid", "domain"]].drop_duplicates("sid")
    order = dialogues.assign(place=[hashlib.sha256(sid.encode()).hexdigest() for sid in dialogues["sid"]])
    dealt = order.sort_values(["domain", "place"])["sid"]
    return pd.Series(np.arange(len(dealt)) % folds + 1, index=dealt)
