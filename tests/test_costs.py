"""What training and answering took, beside the scores."""

import pandas as pd
import pytest

from llmcrs_utils.evaluation.costs import costs


def record(system: str, minutes: float, gib: float, answered: str = "a", made: str = "a") -> dict:
    return {"settings": {"system": system}, "wall_seconds": 60 * minutes, "peak_memory_mib": 1024 * gib, "git": {"commit": answered}, "model_made_at": {"commit": made}}


SCORES = pd.DataFrame({"system": ["bcrs", "bcrs", "bcrs-allm", "trivial"], "task": "elicit", "F1": [0.2, 0.4, 0.5, 0.1], "MRR@5": 0.0, "BLEU-2": 0.0})


def test_a_collaboration_costs_its_own_time_and_that_of_its_assistant():
    records = {"bcrs-allm": record("bcrs-allm", 30, 4), "bcrs": record("bcrs", 2, 1), "bcrs_seed2": record("bcrs", 4, 3)}
    table = costs(records, SCORES)
    assert list(table.index) == ["UniMIND(BART)", "BCRS-ALLM"]
    assert table.loc["UniMIND(BART)", ["seeds", "minutes", "in all", "memory (GiB)"]].tolist() == pytest.approx([2, 3, 3, 3])
    assert table.loc["BCRS-ALLM", ["seeds", "minutes", "in all", "memory (GiB)"]].tolist() == pytest.approx([1, 30, 33, 4])
    assert table["elicit (F1)"].tolist() == pytest.approx([0.3, 0.5])


def test_what_tells_of_a_part_only_is_not_counted():
    """Answers of a model that was there already, folds, cross-fitted runs, and a run's record of further dialogues."""
    further = {"run": "further", "git": {"commit": "a"}}
    records = {"allm": record("allm", 1, 1, answered="b"), "folds/bcrs_fold1": record("bcrs", 1, 1), "bcrs": record("bcrs", 5, 1), "further": further}
    table = costs(records, SCORES)
    assert list(table.index) == ["UniMIND(BART)"] and table["minutes"].item() == pytest.approx(5)
    assert costs({}, SCORES).empty
    assert pd.isna(costs({"bcrs-allm": record("bcrs-allm", 30, 4)}, SCORES)["in all"].item()), "its assistant's time is not known"
