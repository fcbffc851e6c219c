"""Makes a small backbone: from parameters to a checkpoint folder."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.small.exercises import Shelf, make_shelf, pretrain_with_exercises
from llmcrs_utils.small.models import new_backbone, pretrain, pretraining_texts, prompt_texts, save_backbone, train_tokenizer
from llmcrs_utils.tasks.dataset import read_dataset
from llmcrs_utils.text.prompts import Prompts, prompts_of
from llmcrs_utils.training.folders import STAGES

TAKE_EXERCISES = ("llama", "chatglm")


@dataclass(frozen=True)
class Material:
    """A new backbone and its training data: ``texts``, and a ``shelf`` of products for exercises (``None``: no exercises)."""

    parameters: dict
    prompts: Prompts
    texts: list[str]
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    shelf: Shelf | None


def prepare(parameters: dict) -> Material:
    """Read the training text (no validation or test dialogue), train a tokenizer on it, and create the untrained model."""
    architecture, prompts = parameters["architecture"], prompts_of(parameters["language"])
    corpus = read_corpus(f"{parameters['dataset_dir']}/corpus")
    dialogues = corpus.dialogues["train"]
    texts = pretraining_texts(dialogues, read_dataset(parameters["dataset_dir"]).items["facts"].tolist(), prompts)
    tokenizer = train_tokenizer(texts + prompt_texts(prompts), architecture, parameters["vocab_size"])
    shape = {name: parameters[name] for name in ("hidden_size", "layers", "heads", "max_positions", "seed")}
    model = new_backbone(architecture, tokenizer, **shape)
    with_exercises = parameters["exercise_tokens"] > 0 and architecture in TAKE_EXERCISES
    shelf = make_shelf(corpus.knowledge, dialogues, prompts) if with_exercises else None
    return Material(parameters, prompts, texts, tokenizer, model, shelf)


def train(material: Material, output_dir: str | Path) -> pd.DataFrame:
    """Train the backbone and save it in ``output_dir`` as an ordinary checkpoint. Returns the training history."""
    parameters, model, tokenizer = material.parameters, material.model, material.tokenizer
    names = ("block_size", "seed", "num_train_epochs", "learning_rate", "per_device_train_batch_size")
    options = {name: parameters[name] for name in names}
    options |= {"warmup_steps": 0.05, "output_dir": Path(output_dir) / STAGES / "pretraining"}
    if material.shelf is None:
        history = pretrain(model, tokenizer, material.texts, **options)
    else:
        exercises = {"exercise_tokens": parameters["exercise_tokens"], **options}
        history = pretrain_with_exercises(model, tokenizer, material.texts, material.shelf, material.prompts, **exercises)
    save_backbone(model, tokenizer, output_dir)
    return history
