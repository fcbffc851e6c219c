"""One interface to the ten typical systems: train one, let it predict, and show one sample as it sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.systems.registry import system_of
from llmcrs_utils.tasks.dataset import Dataset, read_dataset
from llmcrs_utils.text.prompts import Prompts, prompts_of
from llmcrs_utils.typical.elicitation import answer_elicitation, seen_elicitation, train_elicitation
from llmcrs_utils.typical.kbrd import answer_kbrd, seen_kbrd, train_kbrd
from llmcrs_utils.typical.recommenders import answer_recommender, seen_recommender, train_recommender
from llmcrs_utils.typical.replies import answer_replies, seen_replies, train_replies
from llmcrs_utils.typical.tagging import answer_tagger, seen_tagger, train_tagger


class Steps(NamedTuple):
    """The functions that train a system, answer samples, and show a sample as the system sees it."""

    train: Callable[..., pd.DataFrame]
    answer: Callable[..., pd.DataFrame]
    seen: Callable[..., str]


TAGGER = Steps(train_tagger, answer_tagger, seen_tagger)
ELICITATION = Steps(train_elicitation, answer_elicitation, seen_elicitation)
RECOMMENDER = Steps(train_recommender, answer_recommender, seen_recommender)
STEPS = {
    "bert": TAGGER,
    "bert_crf": TAGGER,
    "bert_bilstm_crf": TAGGER,
    "dia_multiclass": ELICITATION,
    "dia_seq": ELICITATION,
    "bert_rec": RECOMMENDER,
    "sasrec": RECOMMENDER,
    "tg_crs": RECOMMENDER,
    "gpt2": Steps(train_replies, answer_replies, seen_replies),
    "kbrd": Steps(train_kbrd, answer_kbrd, seen_kbrd),
}
# Parameters of a run that its training function does not take.
NOT_FOR_TRAINING = ("system", "language", "dataset_dir", "eval_batch_size")


@dataclass(frozen=True)
class Material:
    """The data of a typical system. ``parameters`` are those of one run (``study.run.typical_run``)."""

    parameters: dict
    dataset: Dataset
    corpus: Corpus
    prompts: Prompts


def prepare(parameters: dict) -> Material:
    """Read the data."""
    folder = parameters["dataset_dir"]
    return Material(parameters, read_dataset(folder), read_corpus(f"{folder}/corpus"), prompts_of(parameters["language"]))


def train(material: Material, output_dir: str | Path) -> pd.DataFrame:
    """Train the system in ``output_dir``. Returns the training history."""
    options = {name: value for name, value in material.parameters.items() if name not in NOT_FOR_TRAINING}
    key = material.parameters["system"]
    return STEPS[key].train(key, material.dataset, material.corpus, material.prompts, output_dir=output_dir, **options)


def answer(material: Material, output_dir: str | Path, splits: list[str]) -> pd.DataFrame:
    """Predictions of the trained system for the samples of its task in these splits, without system and seed."""
    key, size = material.parameters["system"], material.parameters["eval_batch_size"]
    asked = [samples_for(material, split) for split in splits]
    return pd.concat(
        STEPS[key].answer(key, material.dataset, samples, material.prompts, output_dir=output_dir, batch_size=size)
        for samples in asked
        if len(samples)
    )


def samples_for(material: Material, split: str) -> pd.DataFrame:
    """The samples of a split that the system answers, numbered from 0."""
    samples = material.dataset.split(split)
    return samples[samples["task"].isin(system_of(material.parameters["system"]).tasks)].reset_index(drop=True)


def worked_example(material: Material, output_dir: str | Path, predictions: pd.DataFrame) -> str:
    """One test sample as text, the same for all systems of a task: the system's input, its answer, and the right answer."""
    samples, key = samples_for(material, "test"), material.parameters["system"]
    # The sample with the median number of earlier turns: an early turn would show too little.
    turns = samples["context"].map(len)
    sample = samples.loc[turns.sort_values(kind="stable").index[len(turns) // 2]].to_dict()
    answer = predictions.set_index("sample_id").loc[sample["sample_id"]]
    seen = STEPS[key].seen(key, material.dataset, sample, material.prompts, output_dir=output_dir)
    if sample["task"] != "recommend":
        return "\n".join(["SEES", seen, "", "ANSWERS", answer["text"] or "nothing", "", "RIGHT", sample["label"]])
    facts, right = material.dataset.facts, sample["label"]
    lines = {item: f"{item}: {facts[item] or 'nothing is known of it'}" for item in [*answer["ranking"], right]}
    ranked = [f"{place}. {lines[item]}" for place, item in enumerate(answer["ranking"][:3], start=1)]
    place = f"(place {answer['ranking'].index(right) + 1} of {len(answer['ranking'])})"
    return "\n".join(["SEES", seen, "", "ANSWERS", *ranked, "", "RIGHT", f"{lines[right]} {place}"])
