"""The runs of the typical systems for notebook 6: one after the other, each with a worked example, then all beside the floors."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from llmcrs_utils.evaluation.health import health_by_split
from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.evaluation.tables import category_name
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.run import Run, conduct, typical_run
from llmcrs_utils.systems.registry import FLOORS, TYPICAL, system_of
from llmcrs_utils.typical import systems as typical


class Study(NamedTuple):
    """The runs of the requested systems, and the data, which are read once for all of them."""

    settings: dict
    runs: dict[str, Run]
    data: typical.Material

    def material(self, key: str) -> typical.Material:
        return typical.Material(self.runs[key].parameters, self.data.dataset, self.data.corpus, self.data.prompts)


def open_study(settings: dict) -> Study:
    """The runs that the notebook's ``settings`` request, and their data."""
    data = typical.prepare(settings)
    return Study(settings, {key: typical_run(settings, key) for key in settings["systems"]}, data)


def train_and_answer(study: Study, key: str) -> pd.DataFrame | None:
    """Conduct one system's run and print its result. Returns the training history, or ``None`` if it was not requested."""
    if key not in study.runs:
        print(f"{key} is not among this run's systems")
        return None
    history, predictions = conduct(study.runs[key], study.material(key))
    system = system_of(key)
    (task,) = system.tasks
    scores = score(study.data.dataset.samples, predictions, study.settings["language"])
    usable = predictions.loc[predictions["split"] == "test", "valid"].mean()
    print(f"{system.name}: {HEADLINE[task]} {scores[HEADLINE[task]].mean():.3f} on {len(scores)} test samples, {usable:.0%} of them answered")
    return history.assign(stage=history["stage"].map(category_name)) if "stage" in history else history


OWN_STAGES = ("all categories", "all", "reply")  # of systems trained in stages: on their own task, with all data


def loss_histories(histories: dict[str, pd.DataFrame | None]) -> pd.DataFrame:
    """The training histories of several systems as one, a ``stage`` per system; of one trained in stages the one of ``OWN_STAGES``."""
    parts = []
    for key, history in histories.items():
        if history is not None:
            own = history[history["stage"].isin(OWN_STAGES)] if "stage" in history else history
            parts.append(own.assign(stage=key))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["stage", "epoch", "train_loss", "valid_loss"])


def worked_example(study: Study, key: str) -> str:
    """One test sample as text: the system's input, its answer, and the right answer."""
    if key not in study.runs:
        return f"{key} is not among this run's systems"
    run = study.runs[key]
    return typical.worked_example(study.material(key), run.output_dir, read_parquet(run.predictions_file))


def beside_the_floors(study: Study) -> pd.DataFrame:
    """Headline metrics on the test split: for each task the floors, then this run's systems."""
    names = FLOORS | {system.key: system.name for system in TYPICAL}
    files = [Path(study.settings["predictions_dir"]) / f"{key}.parquet" for key in (*FLOORS, *study.runs)]
    scores = score(study.data.dataset.samples, pd.concat([read_parquet(path) for path in files]), study.settings["language"])
    rows = [
        {"task": task, "system": names[key], "metric": metric, "value": part.loc[part["system"] == key, metric].mean()}
        for task, metric in HEADLINE.items()
        for part in [scores[scores["task"] == task]]
        for key in names
        if (part["system"] == key).any()
    ]
    return pd.DataFrame(rows).round(3)


def health_of_answers(study: Study) -> pd.DataFrame:
    """How varied the answers of this run's systems are: what ``health.health_by_split`` returns."""
    predictions = pd.concat([read_parquet(run.predictions_file) for run in study.runs.values()])
    return health_by_split(study.data.dataset.samples, predictions, study.settings["language"])
