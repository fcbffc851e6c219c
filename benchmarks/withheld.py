"""How does a helped LLM answer when the help that it was trained with is withheld?

    python benchmarks/withheld.py runs/readers runs/readers-more/data bcrs-gemma --task understand

Each seed of the pair, trained with in-sample and, if the run has it, with cross-fitted help, answers the test questions of one task as they are put to its base
alone. Prints mean scores, and each one's gain over the base with a 95% interval over dialogues and seeds. Nothing is written to the run. Four minutes a run for Gemma 3 270M on two cores.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.evaluation.statistics import PAIRED_BY, paired_gains
from llmcrs_utils.evaluation.wording import gain_text
from llmcrs_utils.study.further import answers_file, given_answers, predicted, trained_runs
from llmcrs_utils.study.run import Run, run_name
from llmcrs_utils.systems.registry import system_of
from llmcrs_utils.tasks.dataset import Dataset, read_dataset, write_dataset


def main(folder: Path, data: Path, pair: str, task: str) -> None:
    runs = [run for run in trained_runs(folder) if run.system == pair]
    dataset = read_dataset(data)
    asked = Dataset(dataset.samples[(dataset.samples["split"] == "test") & (dataset.samples["task"] == task)].reset_index(drop=True), dataset.items)
    scores = [scored(asked, given_answers(asked.samples, alone_file(run, data)), "alone", run) for run in runs if not cross_fitted(run)]
    with tempfile.TemporaryDirectory() as place:
        write_dataset(asked, Path(place))
        for run in tqdm(runs, desc="runs"):
            kind = "cross-fitted" if cross_fitted(run) else "in-sample"
            given = given_answers(asked.samples, data.parent / answers_file(run, folder))
            scores += [scored(asked, given, f"{kind} help", run), scored(asked, predicted(run, Path(place)), f"{kind} help, withheld", run)]
    every, metric = pd.concat(scores), HEADLINE[task]
    names = [name for name in every["system"].unique() if name != "alone"]
    print(f"{pair}, {task}, {asked.samples['sid'].nunique()} test dialogues, {every['seed'].nunique()} seeds; {metric} alone {every.loc[every['system'] == 'alone', metric].mean():.3f}")
    for name, (gain, low, high, p) in zip(names, paired_gains(every[[*PAIRED_BY, metric]], [(name, "alone") for name in names], metric), strict=True):
        print(f"{name:30} {every.loc[every['system'] == name, metric].mean():.3f}  {gain_text(gain, low, high)}  p {p:.4f}")


def cross_fitted(run: Run) -> bool:
    return "cross_fitted" in Path(run.predictions_file).parts


def alone_file(run: Run, data: Path) -> Path:
    """Where the answers of the run's base alone are."""
    return data.parent / "predictions" / f"{run_name(system_of(run.system).base, run.seed)}.parquet"


def scored(asked: Dataset, answers: pd.DataFrame, name: str, run: Run) -> pd.DataFrame:
    """Scores of answers under another name."""
    return score(asked.samples, answers, run.parameters["language"]).assign(system=name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("data", type=Path, help="data folder with the questions; the answers with help are beside it")
    parser.add_argument("pair", help="key of a collaboration")
    parser.add_argument("--task", default="understand", choices=list(HEADLINE))
    chosen = parser.parse_args()
    main(chosen.folder, chosen.data, chosen.pair, chosen.task)
