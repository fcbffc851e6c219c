"""What training and answering took, beside the scores."""

import pandas as pd

from llmcrs_utils.evaluation.metrics import HEADLINE
from llmcrs_utils.systems.registry import SYSTEMS


def costs(records: dict[str, dict], scores: pd.DataFrame) -> pd.DataFrame:
    """Time and memory of each system, mean over the seeds whose model and answers were made at the same commit, and its score on each task.

    Args:
        records: name of a run -> its provenance (``study.provenance``). A record tells of the last process of a run only, so a run that was
            stopped and went on counts too little. Runs whose model is of another commit than their answers surely did, and are left out, as are cross-fitted ones
            and folds, whose names have a folder before them.
        scores: what ``metrics.score`` returns.

    Returns:
        A row per CRS, LLM and collaboration, named in the index: ``seeds`` that are counted, ``minutes`` for all its training and answers, ``in all`` with
        those of its assistant, ``memory (GiB)`` at most, and a column per task and ``HEADLINE`` metric.
    """
    rows = [
        {"system": record["settings"]["system"], "minutes": record["wall_seconds"] / 60, "memory": record["peak_memory_mib"] / 1024}
        for name, record in records.items()
        if "/" not in name and "settings" in record and record.get("model_made_at", {}).get("commit") == record["git"]["commit"] and record["settings"]["system"] in SYSTEMS
    ]
    told = pd.DataFrame(rows, columns=["system", "minutes", "memory"]).groupby("system").agg(seeds=("minutes", "size"), minutes=("minutes", "mean"), memory=("memory", "max"))
    told = told.loc[[key for key in SYSTEMS if key in told.index and SYSTEMS[key].family != "typical"]]
    of_helper = [told["minutes"].get(SYSTEMS[key].assistant, float("nan")) if SYSTEMS[key].assistant else 0.0 for key in told.index]
    table = told.rename(columns={"memory": "memory (GiB)"})
    table.insert(2, "in all", told["minutes"] + of_helper)
    for task, metric in HEADLINE.items():
        table[f"{task} ({metric})"] = scores[scores["task"] == task].groupby("system")[metric].mean().reindex(table.index)
    return table.rename(index=lambda key: SYSTEMS[key].name).rename_axis(None)
