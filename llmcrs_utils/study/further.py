"""A run's trained systems answer further test dialogues, without training: a larger test part for the same models.

    python -m llmcrs_utils.study.further runs/readers runs/readers-more

The second folder is where ``01_build_data`` put the larger data set: ``data/``, and the floors' ``predictions/``. Its catalogue must be the run's, and
questions that are in both must be the same. Answers that the run has given are copied, and the systems answer what is left of the test part, each with the
help of its own assistant. The second folder then holds what a run holds that is read by the notebooks of saved predictions. A call after a kill goes on with
the first system that has not answered everything.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from llmcrs_utils.files.atomic import write_json
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.study.parameters import ParameterError, hide_notices
from llmcrs_utils.study.plan import FOLDS
from llmcrs_utils.study.profile import TRAINED_BY, check_profile
from llmcrs_utils.study.provenance import device_name, git_state
from llmcrs_utils.study.run import FINISHED, PROVENANCE, Run, family_of, run_name, run_of
from llmcrs_utils.systems.predictions import CATALOGUE, catalogue_file, label_run, write_predictions
from llmcrs_utils.systems.registry import SYSTEMS, system_of
from llmcrs_utils.tasks.collaboration import merge_assistant
from llmcrs_utils.tasks.dataset import ITEMS, SAMPLES, Dataset, read_dataset, write_dataset

NEW = "further"  # subfolder with the questions that are asked, and with the help for them


def answer_further(folder: str | Path, larger: str | Path) -> pd.DataFrame:
    """Write the answers of all trained CRSs, LLMs and collaborations of the run in ``folder`` below ``larger``.

    Returns:
        Per run of a system: ``run, copied, answered`` (numbers of answers).

    Raises:
        ParameterError: if the run has no trained system, or if ``larger`` is not a data set with the same catalogue and the same questions, and more of them.
    """
    folder, larger = Path(folder), Path(larger)
    runs = trained_runs(folder)
    new = further_questions(folder / "data", larger / "data")
    counts = []
    for run in tqdm(runs, desc="systems"):
        path = larger / Path(run.predictions_file).relative_to(folder)
        given = with_catalogue(Path(run.predictions_file))
        earlier = with_catalogue(path) if path.is_file() else given[:0]
        given = pd.concat([given, earlier[earlier["sample_id"].isin(new.samples["sample_id"])]], ignore_index=True)
        asked = Dataset(new.samples[~new.samples["sample_id"].isin(given["sample_id"])].reset_index(drop=True), new.items)
        counts.append((path.relative_to(larger).with_suffix(""), len(given), len(asked.samples)))
        if len(asked.samples):
            (larger / NEW / PROVENANCE).unlink(missing_ok=True)
            write_predictions(pd.concat([given, answers_of(run, asked, larger)], ignore_index=True), path)
    if not (larger / NEW / PROVENANCE).is_file():
        write_json(larger / NEW / PROVENANCE, {"run": NEW, "of": str(folder), "git": git_state(), "device": device_name()})
    return pd.DataFrame(counts, columns=["run", "copied", "answered"])


def trained_runs(folder: Path) -> list[Run]:
    """The runs of CRSs and LLMs that are finished in ``folder``, assistants before those they help; models of folds are left out.

    Raises:
        ParameterError: if there is none, if answers or files of one are missing, or if help was withheld or replaced.
    """
    if not (folder / "profile.json").is_file():
        raise ParameterError(f"{folder}: no run; give the folder of a finished one, such as runs/demo after `make demo`")
    profile = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    check_profile(profile, folder / "profile.json")  # registers its models
    if profile.get("05_collaborate", {}).keys() & {"fallback", "withheld"}:
        raise ParameterError(f"{folder}: its help was changed (fallback, withheld of 05_collaborate), which is not done again here; run its profile on the larger data set instead")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob(f"systems/*/{PROVENANCE}")) if folder / FOLDS not in path.parents]
    settings = [record["settings"] for record in records if SYSTEMS[record["settings"]["system"]].family in ("crs", "llm")]
    runs = [run_of(TRAINED_BY[SYSTEMS[own["system"]].family], own) for own in sorted(settings, key=lambda own: bool(own["assistance_file"]))]
    for run in runs:
        if not Path(run.predictions_file).is_relative_to(folder):
            raise ParameterError(f"{folder}: its models are those of {Path(run.predictions_file).parents[1]}; give that folder, from the project's root")
        if run.parameters.get("served"):
            raise ParameterError(f"{run.name}: answers from a server; run its profile on the larger data set instead")
        missing = next((path for path in (Path(run.output_dir) / FINISHED, Path(run.predictions_file)) if not path.is_file()), None)
        if missing:
            raise ParameterError(f"{missing}: no such file, so {run.name} is not finished; run the profile of {folder} to its end")
    if not runs:
        raise ParameterError(f"{folder}: no trained CRS or LLM; run its profile first")
    return runs


def further_questions(known: Path, larger: Path) -> Dataset:
    """The test samples of the second data set that the first has not.

    Raises:
        ParameterError: if the catalogues differ, if a question that is in both differs, or if there is no further one.
    """
    for name in (SAMPLES, ITEMS):
        if not (larger / name).is_file():
            raise ParameterError(f"{larger / name}: no such file; build the larger data set there with 01_build_data")
    before, after = read_dataset(known), read_dataset(larger)
    if not before.items.equals(after.items):
        raise ParameterError(f"{larger / ITEMS}: differs from {known / ITEMS}; the systems know the products of the run's catalogue only, so build both from one")
    columns = [name for name in before.samples if name in after.samples]
    both = after.samples.set_index("sample_id", drop=False).reindex(before.samples["sample_id"]).reset_index(drop=True)[columns]
    same = (both.astype(str) == before.samples[columns].astype(str)).all(axis=1)
    if not same.all():
        raise ParameterError(
            f"{larger / SAMPLES}: sample {before.samples.loc[~same, 'sample_id'].iloc[0]} differs from that of {known / SAMPLES}, or is missing; "
            "build both with the same settings, only with more test dialogues"
        )
    further = after.samples[(after.samples["split"] == "test") & ~after.samples["sample_id"].isin(before.samples["sample_id"])]
    if further.empty:
        raise ParameterError(f"{larger / SAMPLES}: no test question that {known / SAMPLES} has not; build it with more test dialogues")
    return Dataset(further.reset_index(drop=True), after.items)


def answers_of(run: Run, asked: Dataset, larger: Path) -> pd.DataFrame:
    """Predictions of a trained system for the samples ``asked``. Its assistant's answers must be below ``larger`` already."""
    place = larger / NEW
    write_dataset(asked, place / "data")
    own = run.parameters | {"dataset_dir": str(place / "data"), "assistance_file": ""}
    assistant = system_of(run.system).assistant
    if assistant:
        own["assistance_file"] = str(place / "assistance" / f"{run.name}.parquet")
        said = read_parquet(larger / "predictions" / f"{run_name(assistant, run.seed)}.parquet")
        write_parquet(merge_assistant(asked.samples, said[said["sample_id"].isin(asked.samples["sample_id"])]), own["assistance_file"])
    family = family_of(run)
    return label_run(family.answer(family.prepare(own), run.output_dir, ["test"]), run.system, run.seed)


def with_catalogue(path: Path) -> pd.DataFrame:
    """The predictions of a file, with their rankings of the whole catalogue as the column ``CATALOGUE``; empty where there is none."""
    predictions, rankings = read_parquet(path), catalogue_file(path)
    ranked = dict(read_parquet(rankings)[["sample_id", "ranking"]].itertuples(index=False)) if rankings.is_file() else {}
    return predictions.assign(**{CATALOGUE: [ranked.get(sample, []) for sample in predictions["sample_id"]]})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmcrs_utils.study.further", description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="of a finished run, such as runs/readers")
    parser.add_argument("larger", help="folder where 01_build_data put a larger data set, such as runs/readers-more")
    chosen = parser.parse_args(arguments)
    hide_notices()
    disable_progress_bar()  # of the loading of weights
    try:
        print(answer_further(chosen.folder, chosen.larger).to_string(index=False))
    except (ParameterError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
