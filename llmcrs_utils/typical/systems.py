"""The ten typical systems one like the other: train, answer, and show one sample as a system sees it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.evaluation.metrics import HEADLINE, score
from llmcrs_utils.evaluation.tables import category_name
from llmcrs_utils.files.atomic import file_hash, first_process
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.provenance import write_provenance
from llmcrs_utils.systems.predictions import label_run, write_predictions
from llmcrs_utils.systems.registry import FLOORS, TYPICAL, system_of
from llmcrs_utils.tasks.dataset import Dataset, dataset_files, read_dataset
from llmcrs_utils.text.prompts import Prompts, prompts_of
from llmcrs_utils.training.trainer import finished, mark_finished
from llmcrs_utils.typical.elicitation import answer_elicitation, seen_elicitation, train_elicitation
from llmcrs_utils.typical.kbrd import answer_kbrd, seen_kbrd, train_kbrd
from llmcrs_utils.typical.recommenders import answer_recommender, seen_recommender, train_recommender
from llmcrs_utils.typical.replies import answer_replies, seen_replies, train_replies
from llmcrs_utils.typical.tagging import answer_tagger, seen_tagger, train_tagger

SPLITS = ["valid", "test"]  # a typical system assists nobody, so nobody reads its answers to training samples


class Parts(NamedTuple):
    """How a system is trained, answers, and what it sees of a sample."""

    train: Callable[..., pd.DataFrame]
    answer: Callable[..., pd.DataFrame]
    seen: Callable[..., str]


TAGGER = Parts(train_tagger, answer_tagger, seen_tagger)
ELICITATION = Parts(train_elicitation, answer_elicitation, seen_elicitation)
RECOMMENDER = Parts(train_recommender, answer_recommender, seen_recommender)
PARTS = {
    "bert": TAGGER,
    "bert_crf": TAGGER,
    "bert_bilstm_crf": TAGGER,
    "dia_multiclass": ELICITATION,
    "dia_seq": ELICITATION,
    "bert_rec": RECOMMENDER,
    "sasrec": RECOMMENDER,
    "tg_crs": RECOMMENDER,
    "gpt2": Parts(train_replies, answer_replies, seen_replies),
    "kbrd": Parts(train_kbrd, answer_kbrd, seen_kbrd),
}


class Study(NamedTuple):
    """What all ten share in one run; ``settings`` are the notebook's parameters."""

    settings: dict
    dataset: Dataset
    corpus: Corpus
    prompts: Prompts

    def folder(self, key: str) -> Path:
        return Path(self.settings["output_dir"]) / key

    def predictions_file(self, key: str) -> Path:
        return Path(self.settings["predictions_dir"]) / f"{key}.parquet"


def open_study(settings: dict) -> Study:
    """The data that the notebook's ``settings`` name."""
    folder = settings["dataset_dir"]
    return Study(settings, read_dataset(folder), read_corpus(f"{folder}/corpus"), prompts_of(settings["language"]))


def train_and_answer(study: Study, key: str) -> pd.DataFrame | None:
    """Train one system (a finished one is left as it is), write its answers and provenance, and tell how it went.

    The notebook's parameter of the system's name holds what ``Parts.train`` takes from it.

    Returns:
        The training history, or ``None`` where ``systems`` does not name the system.
    """
    shared = study.settings
    if key not in shared["systems"]:
        print(f"{key} is not among this run's systems")
        return None
    system = system_of(key)
    backbone = system.backbone and shared[f"{system.backbone}_model_name_or_path"]
    own = {"system": key, "model_name_or_path": backbone, **shared[key]}
    own |= {name: shared[name] for name in ("seed", "warmup_steps", "weight_decay", "report_to", "language")}
    inputs = [*dataset_files(shared["dataset_dir"]), *sorted(Path(shared["dataset_dir"], "corpus").iterdir())]
    # Among other notebooks' parameters some are of decoding alone; here a system's are taken as a whole.
    run = {**own, "own": shared[key], "data": [file_hash(path) for path in inputs]}
    history = finished(study.folder(key), run)
    if history is None:
        options = {name: value for name, value in own.items() if name not in ("system", "language")}
        history = PARTS[key].train(
            key, study.dataset, study.corpus, study.prompts, output_dir=study.folder(key), settings=run, **options
        )
        if first_process():
            mark_finished(study.folder(key), run, history)
    predictions = label_run(pd.concat([answers_of(study, key, split) for split in SPLITS if len(asked(study, key, split))]), key, shared["seed"])
    write_predictions(predictions, study.predictions_file(key))
    write_provenance(study.folder(key) / "provenance.json", own, inputs)
    (task,) = system.tasks
    scores = score(study.dataset.samples, predictions, shared["language"])
    usable = predictions.loc[predictions["split"] == "test", "valid"].mean()
    print(f"{system.name}: {HEADLINE[task]} {scores[HEADLINE[task]].mean():.3f} on {len(scores)} test samples, {usable:.0%} of them answered")
    return history.assign(stage=history["stage"].map(category_name)) if "stage" in history else history


def asked(study: Study, key: str, split: str) -> pd.DataFrame:
    """The samples of a split that a system answers, numbered from 0."""
    samples = study.dataset.split(split)
    return samples[samples["task"].isin(system_of(key).tasks)].reset_index(drop=True)


def answers_of(study: Study, key: str, split: str) -> pd.DataFrame:
    return PARTS[key].answer(
        key, study.dataset, asked(study, key, split), study.prompts,
        output_dir=study.folder(key), batch_size=study.settings["eval_batch_size"],
    )  # fmt: skip


def worked_example(study: Study, key: str) -> str:
    """One test sample, the same for all systems of a task: what the system sees, its answer, and the right one."""
    if key not in study.settings["systems"]:
        return f"{key} is not among this run's systems"
    samples = asked(study, key, "test")
    # An early turn says too little to learn from; the sample with the median number of turns before it shows more.
    turns = samples["context"].map(len)
    sample = samples.loc[turns.sort_values(kind="stable").index[len(turns) // 2]].to_dict()
    predictions = read_parquet(study.predictions_file(key)).set_index("sample_id")
    answer = predictions.loc[sample["sample_id"]]
    lines = ["SEES", PARTS[key].seen(key, study.dataset, sample, study.prompts, output_dir=study.folder(key)), "", "ANSWERS"]
    if sample["task"] == "recommend":
        facts = study.dataset.facts
        lines += [f"{place}. {item}: {facts[item] or 'nothing is known of it'}" for place, item in enumerate(answer["ranking"][:3], start=1)]
        place = answer["ranking"].index(sample["label"]) + 1
        lines += ["", "RIGHT", f"{sample['label']}: {facts[sample['label']] or 'nothing is known of it'} (place {place} of {len(answer['ranking'])})"]
    else:
        lines += [answer["text"] or "nothing", "", "RIGHT", sample["label"]]
    return "\n".join(lines)


def beside_the_floors(study: Study) -> pd.DataFrame:
    """Headline metric on the test split: the floors of each task first, then this run's systems."""
    names = FLOORS | {system.key: system.name for system in TYPICAL}
    files = [study.predictions_file(key) for key in (*FLOORS, *study.settings["systems"])]
    scores = score(study.dataset.samples, pd.concat([read_parquet(path) for path in files]), study.settings["language"])
    rows = [
        {"task": task, "system": names[key], "metric": metric, "value": part.loc[part["system"] == key, metric].mean()}
        for task, metric in HEADLINE.items()
        for part in [scores[scores["task"] == task]]
        for key in names
        if (part["system"] == key).any()
    ]
    return pd.DataFrame(rows).round(3)
