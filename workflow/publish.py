"""Take over finished runs as what the repository shows: results/ and the executed notebooks; `make figures` makes all else from them.

    python workflow/publish.py                 # of study-cpu (with the executed notebooks), known-answer and fallback
    python workflow/publish.py study-cpu       # of one of them
    python workflow/publish.py readers     # of a run on a synthetic corpus, answers; with adapters and learning curves of real LLMs
    python workflow/publish.py known-answer-readers    # of runs on worlds whose answer is known: answers, and what was planted
    python workflow/publish.py pscon-cn    # of a run on dialogues that are not ours to publish: scores of every sample, and adapters of real LLMs
"""

import json
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
from safetensors.torch import load_file, save_file

from figures import HEALTH, SCORES, STUDY, cleaned
from llmcrs_utils.checkpoints.checks import ADAPTER_WEIGHTS
from llmcrs_utils.evaluation.controls import controls, over_the_best_control
from llmcrs_utils.evaluation.cross_fitting import reliance
from llmcrs_utils.evaluation.health import answer_health
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.tables import collaborations
from llmcrs_utils.evaluation.wording import write_rounded
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.llm.system import CURVE, read_curve
from llmcrs_utils.study.further import NEW, records_of, unanswered
from llmcrs_utils.study.parameters import ParameterError, with_defaults
from llmcrs_utils.study.profile import check_profile
from llmcrs_utils.study.run import PROVENANCE, USUAL_SEED
from llmcrs_utils.systems.predictions import CATALOGUE, CATALOGUE_SCHEMA, SCHEMA, read_all, read_predictions
from llmcrs_utils.systems.registry import working_alone

RUNS, RESULTS = Path("runs"), Path("results")
ADAPTER, _ = ADAPTER_WEIGHTS
# The notebook that is shown, and the job that shows it best.
SHOWN = {
    "01_build_data": "01_build_data",
    "02_prepare_backbones": "02_prepare_backbones_bart",
    "03_train_crs": "03_train_crs_bcrs",
    "04_tune_llm": "04_tune_llm_allm",
    "05_collaborate": "05_collaborate_allm-bcrs",
    "06_typical_systems": "06_typical_systems",
}
LARGER = "-more"  # end of the name of a run in which `make further` had another's systems answer more test dialogues
OVER_CONTROLS, RELIANCE = "over_controls.csv", "reliance.csv"  # of a run on private dialogues
LABELS = ["sample_id", "split", "task", "sid", "domain", "label"]


def provenance(run: Path) -> dict[str, dict]:
    """What was run, a record per trained model; of clean checkouts only."""
    records = {str(path.parent.relative_to(run)): path for path in sorted(run.rglob(f"systems/*/{PROVENANCE}"))}
    records = {name.replace("systems/", ""): json.loads(path.read_text(encoding="utf-8")) for name, path in records.items()}
    check_clean(run, records)
    return records


def check_clean(run: Path, records: dict[str, dict]) -> None:
    unclear = [name for name, record in records.items() if record["git"]["dirty"] is not False or record.get("model_made_at", record["git"])["dirty"] is not False]
    if unclear:
        sys.exit(f"{run}: {', '.join(unclear)}: made with uncommitted changes; commit them and run it again")


def larger(run: Path) -> Path:
    """Where the answers of a run's systems are: in the run beside it with more test dialogues, if there is one, which all of them must have answered."""
    more = run.with_name(run.name + LARGER)
    if not (more / "data").is_dir():
        return run
    try:
        missing = unanswered(run, more)
    except ParameterError as error:
        sys.exit(str(error))
    if missing:
        sys.exit(f"{more}: lacks further answers, or has outdated ones, in {', '.join(missing)}; call make further PROFILE={run.name} LARGER={more}, or move the folder away")
    return more


def publish_split(source: Path, target: Path, split: str, schema=SCHEMA, systems=None) -> None:
    """One file per system (of ``systems``, if they are named) with its answers to one split, all seeds."""
    answers = read_all(source, schema)  # what may fail comes first
    for stale in target.glob("*.parquet"):
        stale.unlink()
    for system, part in answers.groupby("system"):
        chosen = part[part["split"] == split].sort_values(["seed", "sample_id"], kind="stable", ignore_index=True)
        if len(chosen) and (systems is None or system in systems):
            write_parquet(chosen, target / f"{system}.parquet", schema)


def publish_run(name: str, validation: bool = False, answered: Path | None = None) -> Path:
    """Test answers of a run, the labels they are scored on and what was run; returns the folder they are in. ``answered``: the run with more test dialogues.

    With ``validation`` also the answers of systems that work alone to the validation dialogues, on which notebooks 14 to 16 choose parameters, and the answers
    of assistants to training dialogues.
    """
    run, results = RUNS / name, RESULTS / name
    answered, records = answered or run, provenance(run)
    if answered != run:
        records[NEW] = records_of(run, answered)
        check_clean(answered, records[NEW])
    results.mkdir(parents=True, exist_ok=True)
    publish_split(answered / "predictions", results / "predictions", "test")
    write_atomically(results / "provenance.json", json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    samples = read_parquet(answered / "data" / "samples.parquet")
    kept = samples["split"].isin(["train", "valid", "test"] if validation else ["test"])
    write_parquet(samples.loc[kept, LABELS].reset_index(drop=True), results / "samples.parquet")
    if answered != run:  # the dialogues that were added after a first look at the others
        first = set(read_parquet(run / "data" / "samples.parquet")["sid"])
        added = samples.loc[(samples["split"] == "test") & ~samples["sid"].isin(first), ["sid"]].drop_duplicates()
        write_atomically(results / "added.csv", added.to_csv(index=False, lineterminator="\n"))
    if validation:
        alone = {system.key for family in ("crs", "llm") for system in working_alone(family)}
        publish_split(run / "predictions", results / "validation", "valid", systems=alone)
        publish_split(run / "predictions", results / "training", "train")
    return results


def publish_study() -> None:
    """The reference study, and the executed notebooks of some of its jobs."""
    notebooks = [shown(name, job) for name, job in SHOWN.items()]
    run, results = RUNS / STUDY, publish_run(STUDY, validation=True)
    publish_split(run / "predictions" / CATALOGUE, results / "predictions" / CATALOGUE, "test", CATALOGUE_SCHEMA)
    publish_cross_fitting(run, results)
    publish_dialogues(run, results)
    traits = read_parquet(run / "data" / "traits.parquet")
    write_parquet(traits[traits["split"] == "test"].reset_index(drop=True), results / "traits.parquet")
    for path, text in notebooks:
        write_atomically(path, text)


def publish_cross_fitting(run: Path, results: Path, answered: Path | None = None) -> None:
    """Test answers with cross-fitted help, and the answers of the folds' assistants to the training dialogues that were left out."""
    publish_split((answered or run) / "cross_fitted" / "predictions", results / "cross_fitted" / "predictions", "test")
    publish_split(run / "folds" / "predictions", results / "folds" / "predictions", "train")


def publish_dialogues(run: Path, results: Path) -> None:
    """The test questions with all that may be read of them, and what the catalogue says of their candidates. Of synthetic dialogues only."""
    samples, items = (read_parquet(run / "data" / name) for name in ("samples.parquet", "items.parquet"))
    test = samples[samples["split"] == "test"].reset_index(drop=True)
    write_parquet(test, results / "dialogues.parquet")
    asked = {item for candidates in test["candidates"] for item in candidates}
    write_parquet(items.loc[items["item_id"].isin(asked), ["item_id", "facts"]].reset_index(drop=True), results / "items.parquet")


def publish_fallback() -> None:
    """The run with the published fallback and its control, and for which test samples the gold item stood in."""
    run = RUNS / "fallback"
    given = read_parquet(run / "assistance" / "allm-bcrs.parquet")
    given = given[(given["split"] == "test") & (given["task"] == "recommend")]
    labels = read_parquet(run / "data" / "samples.parquet").set_index("sample_id")["label"]
    # One item alone is a ranking that no LLM gives: it stands where the answer was missing.
    given = given.assign(replaced=[len(ranking) == 1 for ranking in given["ranking"]])
    wrong = given[given["replaced"] & (given["text"] != given["sample_id"].map(labels))]
    if len(wrong):
        sys.exit(
            f"{run}: {wrong['sample_id'].iloc[0]}: a missing answer was not replaced by the gold item; run make fallback again"
        )
    publish_run("withheld")
    write_parquet(given[["sample_id", "replaced"]], publish_run("fallback") / "assistance.parquet")


def publish_readers(name: str) -> None:
    """Answers of a run with real LLMs on a synthetic corpus, their adapters, and the learning curves that were measured."""
    run, records = RUNS / name, provenance(RUNS / name)
    check_profile(profile_of(run), name)  # registers the profile's LLMs
    answered = larger(run)
    results = publish_run(name, validation=True, answered=answered)
    if (run / "cross_fitted").is_dir():
        publish_cross_fitting(run, results, answered)
    publish_dialogues(answered, results)
    publish_adapters(run, results, records)
    curves = [read_curve(path.parent).assign(system=path.parent.name) for path in sorted(run.glob(f"systems/*/{CURVE}"))]
    if curves:
        write_rounded(pd.concat(curves), results / "learning_curve.csv")


def publish_scores(name: str) -> None:
    """The score of every answer to the test split, how varied the answers are, what collaborations gain over the best control, how far they follow their helpers, and adapters of LLMs.

    No word of a dialogue is copied: an id names conversation, turn and right item.
    """
    run, results = RUNS / name, RESULTS / name
    records, language = provenance(run), built(run)["language"]
    check_profile(profile_of(run), name)  # registers the profile's LLMs
    samples, predictions = read_parquet(run / "data" / "samples.parquet"), read_predictions(run / "predictions")
    scores, health = score(samples, predictions, language), answer_health(samples, predictions, language)
    results.mkdir(parents=True, exist_ok=True)
    write_parquet(scores, results / SCORES)
    write_rounded(health, results / HEALTH)
    if collaborations(scores):
        made = controls(samples, predictions, predictions.query("split == 'valid'"), language)
        every = pd.concat([scores, score(samples, made.predictions, language)])
        write_rounded(over_the_best_control(every, made.chosen, health), results / OVER_CONTROLS)
        write_rounded(reliance(samples, predictions.query("split == 'test'"), predictions.query("split == 'train'"), language, health), results / RELIANCE)
    publish_adapters(run, results, records)
    write_atomically(results / "provenance.json", json.dumps(records, ensure_ascii=False, indent=1) + "\n")


def profile_of(run: Path) -> dict:
    return json.loads((run / "profile.json").read_text(encoding="utf-8"))


def built(run: Path) -> dict:
    """The parameters with which the data of a run were built."""
    return with_defaults("01_build_data", profile_of(run)["01_build_data"])


def publish_adapters(run: Path, results: Path, records: dict[str, dict]) -> None:
    """The adapters of a run's tuned LLMs (of seed 1), in bfloat16, if everybody can have the base: enough to answer without tuning (docs/llms.md).

    Left out is what ``adapter_name_or_path`` cannot take: layers that were trained whole, and rankings by scores of candidates.
    """
    shutil.rmtree(results / "adapters", ignore_errors=True)
    for name, settings in ((name, record["settings"]) for name, record in records.items()):
        source, target = run / "systems" / name, results / "adapters" / name
        whole = settings.get("modules_to_save") or settings.get("ranking") == "candidates"
        first = settings.get("seed") == USUAL_SEED
        if first and settings.get("num_train_epochs") and (source / ADAPTER).is_file() and not whole and run not in Path(settings["model_name_or_path"]).parents:
            target.mkdir(parents=True)
            save_file({key: tensor.bfloat16() for key, tensor in load_file(source / ADAPTER).items()}, target / ADAPTER, {"format": "pt"})
            shutil.copy(source / "adapter_config.json", target)


def publish_worlds(name: str) -> None:
    """The runs on worlds whose answer is known: a folder per world, with what was planted in it."""
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    for world in worlds_run(name):
        results = publish_run(f"{name}/{world.name}")
        write_atomically(results / "planted.csv", (world / "data" / "planted.csv").read_text(encoding="utf-8"))


def worlds_run(name: str) -> list[Path]:
    return sorted(path for path in (RUNS / name).glob("*-*") if (path / "profile.json").is_file())


def shown(name: str, job: str) -> tuple[Path, str]:
    """Where a notebook is, and its text with the outputs of a job; the job's code must be the repository's."""
    path = Path("notebooks") / f"{name}.ipynb"
    executed = nbformat.read(RUNS / STUDY / "notebooks" / f"{job}.ipynb", as_version=4)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in ran] != [cell.source for cell in code]:
        sys.exit(f"{path} has changed since the run; call make {STUDY} again")
    for cell, seen in zip(code, ran):
        cell.outputs = seen.outputs
    return path, cleaned(notebook, notebook.metadata)


def publish(name: str) -> None:
    """Take over one run, in the way of its kind."""
    if name == STUDY:
        publish_study()
    elif name == "fallback":
        publish_fallback()
    elif worlds_run(name):
        publish_worlds(name)
    elif built(RUNS / name)["corpus"] == "generated":
        publish_readers(name)
    else:
        publish_scores(name)


if __name__ == "__main__":
    names = sys.argv[1:] or [STUDY, "known-answer", "fallback"]
    needed = [*names, *(["withheld"] if "fallback" in names else [])]
    missing = [name for name in needed if not (RUNS / name / "profile.json").is_file() and not worlds_run(name)]
    if missing:
        sys.exit(f"{RUNS}: no run of {', '.join(missing)}; make it first (docs/results.md has the commands)")
    for run in (run for name in needed for run in worlds_run(name) or [RUNS / name]):
        provenance(run)  # what may fail comes first, of all runs
    for name in names:
        publish(name)
    size = sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file())
    print(f"{RESULTS}: {size / 1e6:.1f} MB. Now make figures.")
