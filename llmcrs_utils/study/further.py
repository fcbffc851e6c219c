"""A run's trained systems answer further test dialogues, without training: a larger test part for the same models.

    python -m llmcrs_utils.study.further runs/readers runs/readers-more

The second folder is where ``01_build_data`` put the larger data set: ``data/``, and the floors' ``predictions/``. Its catalogue must be the run's, and
questions that are in both must be the same. Answers that the run has given are copied, and the CRSs, LLMs and collaborations answer what is left of the test
part, each with the help of its own assistant. A call after a kill goes on with the first system that has not answered everything.

Beside the answers, ``further/made/`` says of each file by which model and to which questions they were given. If the model, a question or the help has changed,
the system is asked all further questions again.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.files.atomic import read_json_or_none, write_json
from llmcrs_utils.files.locks import Busy, held
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.study.parameters import ParameterError, hide_notices
from llmcrs_utils.study.plan import FOLDS
from llmcrs_utils.study.profile import TRAINED_BY, check_profile
from llmcrs_utils.study.provenance import device_name, git_state
from llmcrs_utils.study.run import FINISHED, KEY_FILE, PROVENANCE, Run, digest, family_of, run_name, run_of
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
        Busy: if another process does the same.
        ParameterError: if the run has no trained system, or if ``larger`` is not a data set with the same catalogue and the same questions, and more of them.
    """
    folder, larger = Path(folder), Path(larger)
    runs = trained_runs(folder)
    new = further_questions(folder, larger)
    counts = []
    with held(larger / ".further.lock", f"{larger} is being answered"):
        for run in tqdm(runs, desc="systems"):
            own, path, asked = with_catalogue(Path(run.predictions_file)), larger / answers_file(run, folder), identity(run, new, larger)
            known = is_answered(run, folder, larger, asked)
            if known:
                earlier = with_catalogue(path)
                further = earlier[earlier["sample_id"].isin(new.samples["sample_id"])]
            else:
                further = answers_of(run, new, larger)
            write_predictions(pd.concat([own, further], ignore_index=True), path)
            if not known:
                write_json(record_file(run, folder, larger), asked | {"of": str(folder), "git": git_state(), "device": device_name()})
            counts.append((path.relative_to(larger).with_suffix(""), len(own) + len(further) * known, len(further) * (not known)))
    return pd.DataFrame(counts, columns=["run", "copied", "answered"])


def identity(run: Run, new: Dataset, larger: Path) -> dict[str, str]:
    """Of which ``model``, with which settings of decoding, and to which ``questions``, with which help, answers are: twelve hexadecimal digits each."""
    key = json.loads((Path(run.output_dir) / KEY_FILE).read_text(encoding="utf-8"))
    decoding = {name: run.parameters[name] for name in ("num_beams", "candidate_orders") if name in run.parameters}  # not in the key
    rows, file = new.samples.astype(str).to_dict("records"), help_file(run, larger)
    if file and file.is_file():
        rows += given_answers(new.samples, file)[["sample_id", "text", "ranking"]].astype(str).to_dict("records")
    return {"model": digest([key, decoding]), "questions": digest(rows)}


def is_answered(run: Run, folder: Path, larger: Path, asked: dict[str, str]) -> bool:
    """Whether the answers below ``larger`` are those of this very model to these very questions."""
    made = read_json_or_none(record_file(run, folder, larger)) or {}
    return (larger / answers_file(run, folder)).is_file() and made.items() >= asked.items()


def unanswered(folder: str | Path, larger: str | Path) -> list[str]:
    """The runs in ``folder`` whose systems have not answered every further question below ``larger``, by their answers files."""
    folder, larger = Path(folder), Path(larger)
    new = further_questions(folder, larger)
    return [str(answers_file(run, folder)) for run in trained_runs(folder) if not is_answered(run, folder, larger, identity(run, new, larger))]


def records_of(folder: str | Path, larger: str | Path) -> dict[str, dict]:
    """Answers file without ending -> by which commit, on which device and by which run's model its further answers were given."""
    pairs = [(run, record_file(run, Path(folder), Path(larger))) for run in trained_runs(Path(folder))]
    records = {str(answers_file(run, Path(folder)).with_suffix("")): json.loads(file.read_text(encoding="utf-8")) for run, file in pairs if file.is_file()}
    return {name: {part: value for part, value in record.items() if part != "questions"} for name, record in records.items()}


def help_file(run: Run, larger: Path) -> Path | None:
    """Where the answers of the run's assistant are; None for a system that works alone."""
    assistant = system_of(run.system).assistant
    return larger / "predictions" / f"{run_name(assistant, run.seed)}.parquet" if assistant else None


def given_answers(samples: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The answers in a file to these samples."""
    given = read_parquet(file)
    return given[given["sample_id"].isin(samples["sample_id"])]


def answers_file(run: Run, folder: Path) -> Path:
    """Where the run's answers are, below its own folder and below the larger one."""
    return Path(run.predictions_file).relative_to(folder)


def record_file(run: Run, folder: Path, larger: Path) -> Path:
    return larger / NEW / "made" / answers_file(run, folder).with_suffix(".json")


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
    unknown = next((record["settings"]["system"] for record in records if record["settings"]["system"] not in SYSTEMS), None)
    if unknown:
        raise ParameterError(f"{folder}: system {unknown} is trained there, but profile.json does not name it; name it under models again, or move its folder away")
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


def further_questions(folder: Path, larger: Path) -> Dataset:
    """The test samples of the data set in ``larger`` that the one in ``folder`` has not.

    Raises:
        ParameterError: if the catalogues differ, if a question that is in both differs, if there is no further one, or if its shopper's clicks may have been learned.
    """
    known, larger = folder / "data", larger / "data"
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
    # A CRS leaves the shoppers of its own validation and test dialogues out of what it learns, but cannot know those of later ones.
    held_out = before.samples.loc[before.samples["split"] != "train", "user_id"]
    seen = set(read_corpus(known / "corpus").behaviour["user_id_encrypt"]) - set(held_out)
    learned = further[further["user_id"].isin(seen)].drop_duplicates("sid")
    if len(learned):
        first = learned.iloc[0]
        raise ParameterError(
            f"{known / 'corpus'}: holds clicks of {first['user_id']}, the shopper of dialogue {first['sid']}, from which the systems may have learned "
            f"({len(learned)} such dialogues); leave them out of the larger data set"
        )
    return Dataset(further.reset_index(drop=True), after.items)


def answers_of(run: Run, asked: Dataset, larger: Path) -> pd.DataFrame:
    """Predictions of a trained system for the samples ``asked``. Its assistant's answers must be below ``larger`` already."""
    place = larger / NEW
    write_dataset(asked, place / "data")
    assistance, file = "", help_file(run, larger)
    if file:
        assistance = str(place / "assistance" / f"{run.name}.parquet")
        write_parquet(merge_assistant(asked.samples, given_answers(asked.samples, file)), assistance)
    return predicted(run, place / "data", assistance)


def predicted(run: Run, data: Path, assistance_file: str = "") -> pd.DataFrame:
    """Predictions of a trained system for the test samples of a data folder, with the help of a file or without any."""
    family = family_of(run)
    material = family.prepare(run.parameters | {"dataset_dir": str(data), "assistance_file": assistance_file})
    return label_run(family.answer(material, run.output_dir, ["test"]), run.system, run.seed)


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
    except (ParameterError, Busy, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
