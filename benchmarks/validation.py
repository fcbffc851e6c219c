"""What each system of a run reaches on its validation dialogues, alone, beside the floors: is it good enough to be compared?

    python benchmarks/validation.py runs/readers
    python benchmarks/validation.py runs/levers-200 runs/levers-500 runs/levers-1000 --csv results/levers.csv    # the effect of more dialogues (README.md)

Prints each system's gain over each floor of its tasks with a 95% interval over dialogues and seeds. Half a minute a run.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.sources import read_source
from llmcrs_utils.evaluation.complementarity import over_others
from llmcrs_utils.evaluation.floors import floor_predictions
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.wording import write_rounded
from llmcrs_utils.study.parameters import with_defaults
from llmcrs_utils.study.profile import check_profile
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import FLOORS, working_alone
from llmcrs_utils.tasks.dataset import read_dataset
from llmcrs_utils.text.prompts import prompts_of


def validated(run: Path) -> pd.DataFrame:
    """The rows of ``over_others`` for every system of a run that works alone, over every floor of its tasks, with ``system, dialogues, validation_dialogues``."""
    profile = json.loads((run / "profile.json").read_text(encoding="utf-8"))
    check_profile(profile, run.name)  # registers the profile's models
    language = with_defaults("01_build_data", profile["01_build_data"])["language"]
    dataset = read_dataset(run / "data")
    samples = dataset.samples
    answers = read_predictions(run / "predictions").query("split == 'valid'")
    # The floors answer the split that is called test.
    asked = samples[samples["split"] != "test"].replace({"split": {"valid": "test"}})
    corpus = read_source("u_need", run / "data" / "corpus", report=Report("stop", run / "set_aside.jsonl"))
    floors = pd.concat(floor_predictions(asked, dataset.items, corpus, prompts_of(language)).values())
    scores = pd.concat([score(samples, answers, language, "valid"), score(asked, floors, language)])
    floors_of = {task: [key for key in FLOORS if key in set(part["system"])] for task, part in scores.groupby("task")}
    trained, asked_about = (samples.loc[samples["split"] == split, "sid"].nunique() for split in ("train", "valid"))
    tables = []
    for system in (*working_alone("crs"), *working_alone("llm"), *working_alone("typical")):
        answered = scores[scores["system"] == system.key]
        if len(answered):
            compared = over_others(scores, system.key, {task: floors_of[task] for task in answered["task"].unique()})
            tables.append(compared.assign(system=system.name, dialogues=trained, validation_dialogues=asked_about))
    if not tables:
        raise SystemExit(f"{run}: none of its systems that work alone has answered the validation dialogues ({run / 'predictions'}); run its profile to the end")
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, such as runs/readers")
    parser.add_argument("--csv", help="write the rows of all runs to this file, too")
    chosen = parser.parse_args()
    every = []
    for run in chosen.runs:
        table = validated(run)
        every.append(table)
        print(f"\n{run}: {table['dialogues'].iloc[0]} training dialogues, {table['validation_dialogues'].iloc[0]} validation dialogues")
        for name, part in table.groupby("system", sort=False):
            print(f"\n{name}\n{part.drop(columns=['system', 'dialogues', 'validation_dialogues']).round(3).to_string(index=False)}")
    if chosen.csv:
        write_rounded(pd.concat(every, ignore_index=True), chosen.csv)
