"""A CRS from parameters to answers: its data, training and predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from llmcrs_utils.behaviour.item2vec import item2vec
from llmcrs_utils.checkpoints.loading import device, load_tokenizer
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.crs.predict import predict
from llmcrs_utils.crs.tuning import train_two_stages
from llmcrs_utils.crs.unimind import UniMind, new_unimind
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.tasks.dataset import Dataset, read_dataset
from llmcrs_utils.text.prompts import Prompts, prompts_of


@dataclass(frozen=True)
class Material:
    """The data of a CRS: samples to train on and to answer, and their encoding.

    Attributes:
        parameters: parameters of ``03_train_crs``.
        helped: the assistant's help, one row per sample; ``None`` without an assistant.
        splits: split -> its samples; ``held_out`` holds those of the held-out fold.
        examples: split -> the model's inputs, one per sample.
        fits: split -> the report of ``text.fitting.fit``.
    """

    parameters: dict
    dataset: Dataset
    prompts: Prompts
    tokenizer: PreTrainedTokenizerBase
    helped: pd.DataFrame | None
    splits: dict[str, pd.DataFrame]
    examples: dict[str, list[dict]]
    fits: dict[str, pd.DataFrame]


def prepare(parameters: dict) -> Material:
    """Read the data and encode every sample."""
    prompts, dataset = prompts_of(parameters["language"]), read_dataset(parameters["dataset_dir"])
    helped = read_parquet(parameters["assistance_file"]) if parameters["assistance_file"] else None
    tokenizer = load_tokenizer(parameters["model_name_or_path"], segments=True)
    splits = {name: part for name, part in dataset.splits(parameters["folds"], parameters["held_out_fold"]).items() if len(part)}
    limits = parameters["cutoff_len"], parameters["max_target_len"]
    encoded = {name: encode_samples(part, tokenizer, prompts, dataset.index, *limits, helped) for name, part in splits.items()}
    examples, fits = ({name: pair[place] for name, pair in encoded.items()} for place in (0, 1))
    return Material(parameters, dataset, prompts, tokenizer, helped, splits, examples, fits)


def initial_item_vectors(material: Material) -> torch.Tensor:
    """[n_items, item_dim]: item2vec on the behaviour of all shoppers, except those of dialogues outside the training split.

    Rows of items without behaviour are NaN.
    """
    corpus, parameters = read_corpus(f"{material.parameters['dataset_dir']}/corpus"), material.parameters
    unseen = {sid for name, samples in material.splits.items() if name != "train" for sid in samples["sid"]}
    excluded = {dialogue.userid for part in corpus.dialogues.values() for dialogue in part if dialogue.sid in unseen}
    return item2vec(corpus.behaviour, excluded, material.dataset.index, parameters["item_dim"], seed=parameters["seed"])


def train(material: Material, output_dir: str | Path) -> pd.DataFrame:
    """Train UniMIND in ``output_dir``. Returns the history of both stages."""
    parameters, token_type = material.parameters, material.parameters["generation_token_type"]
    model = new_unimind(
        parameters["model_name_or_path"], len(material.tokenizer), initial_item_vectors(material), parameters["max_history"],
        parameters["recommend_loss_reaches_backbone"], parameters["seed"], token_type if token_type >= 0 else None,
    ).to(device())  # fmt: skip
    names = (
        "stage_one_epochs", "stage_one_learning_rate", "stage_two_epochs", "stage_two_learning_rate", "per_device_train_batch_size",
        "gradient_accumulation_steps", "warmup_steps", "weight_decay", "max_grad_norm", "report_to", "seed",
    )  # fmt: skip
    return train_two_stages(
        model, material.examples["train"], material.examples["valid"], material.tokenizer, output_dir=output_dir,
        **{name: parameters[name] for name in names},
    )  # fmt: skip


def answer(material: Material, output_dir: str | Path, splits: list[str]) -> pd.DataFrame:
    """Predictions of the trained model for these splits, without system and seed."""
    parameters, model = material.parameters, UniMind.from_pretrained(output_dir).to(device())
    return pd.concat(
        predict(
            model, material.tokenizer, material.splits[name], material.examples[name], material.dataset.index, material.prompts,
            num_beams=parameters["num_beams"], max_target_len=parameters["max_target_len"],
            batch_size=parameters["eval_batch_size"],
        )
        for name in splits
    )  # fmt: skip


def asked_live(parameters: dict) -> Callable[[pd.DataFrame, pd.DataFrame | None], pd.DataFrame]:
    """A function that answers samples which are made while it is being asked: ``(samples, helped) -> predictions`` without system and seed.

    The model in ``output_dir`` is loaded once.
    """
    prompts, items = prompts_of(parameters["language"]), read_dataset(parameters["dataset_dir"]).index
    tokenizer = load_tokenizer(parameters["model_name_or_path"], segments=True)
    model = UniMind.from_pretrained(parameters["output_dir"]).to(device())

    def ask(samples: pd.DataFrame, helped: pd.DataFrame | None) -> pd.DataFrame:
        examples, _ = encode_samples(samples, tokenizer, prompts, items, parameters["cutoff_len"], parameters["max_target_len"], helped)
        return predict(
            model, tokenizer, samples, examples, items, prompts,
            num_beams=parameters["num_beams"], max_target_len=parameters["max_target_len"], batch_size=len(samples),
        )  # fmt: skip

    return ask
