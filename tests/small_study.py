"""A study of a few dialogues that tests make up: samples and two systems' answers, no model."""

from pathlib import Path

import pandas as pd

from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.systems.predictions import write_predictions
from llmcrs_utils.systems.registry import TASKS

LABELS = {"understand": "颜色：黑", "elicit": "颜色；尺码", "recommend": "i3", "respond": "要什么颜色的呢"}
CANDIDATES = [f"i{n}" for n in range(20)]
WRONG = {"understand": "颜色：白", "elicit": "品牌", "recommend": CANDIDATES[::-1], "respond": "你好"}


def study_in(folder: Path, known_order: bool = True, dialogues: int = 6) -> pd.DataFrame:
    """A study with one test sample of each task in each dialogue, a train sample, and the systems bcrs (two seeds) and trivial."""
    rows = [
        {"sample_id": f"d{n}:{task}", "split": "test", "task": task, "sid": f"d{n}", "domain": "鞋类行业" if n % 2 else "美妆行业",
         "label": LABELS[task], "candidates": CANDIDATES if task == "recommend" else [], "current": ["[user]想要黑的"]}
        for n in range(dialogues) for task in TASKS
    ]  # fmt: skip
    samples = pd.DataFrame([*rows, {**rows[0], "sample_id": "t0:understand", "split": "train", "sid": "t0"}])
    if known_order:
        write_parquet(samples, folder / "data" / "samples.parquet")
    else:
        write_parquet(samples.drop(columns=["candidates", "current"]), folder / "samples.parquet")
    asked = samples[samples["split"] == "test"]
    for system, seeds, right in (("bcrs", (1, 2), 3), ("trivial", (1,), 1)):
        for seed in seeds:
            said = [LABELS[row.task] if int(row.sid[1:]) < right + seed - 1 else WRONG[row.task] for row in asked.itertuples()]
            rankings = [(one if isinstance(one, list) else [one, *(i for i in CANDIDATES if i != one)]) if task == "recommend" else []
                        for one, task in zip(said, asked["task"])]  # fmt: skip
            text = [ranking[0] if ranking else one for one, ranking in zip(said, rankings)]
            frame = asked[["split", "sample_id"]].assign(system=system, seed=seed, text=text, ranking=rankings, raw="", valid=True)
            frame["scores"] = [[] for _ in rankings]
            write_predictions(frame.reset_index(drop=True), folder / "predictions" / f"{system}_seed{seed}.parquet")
    return samples


def samples_of(study: Path) -> pd.DataFrame:
    return read_parquet(study / "data" / "samples.parquet")
