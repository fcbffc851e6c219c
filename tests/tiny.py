"""A toy corpus and untrained models for it, made once per test run."""

import tempfile
from functools import cache

import numpy as np
import pandas as pd
import torch

from llmcrs_utils.checkpoints.loading import load_tokenizer
from llmcrs_utils.crs.batches import encode_samples
from llmcrs_utils.crs.unimind import UniMind, new_unimind
from llmcrs_utils.small.models import new_backbone, pretraining_texts, prompt_texts, save_backbone, train_tokenizer
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.dataset import Dataset
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import generate

FOLDER = tempfile.TemporaryDirectory(prefix="llmcrs-tiny-")  # removed when Python ends


@cache
def corpus():
    return generate({"train": 6, "valid": 2, "test": 2}, sellers_per_category=1, items_per_seller=25)[0]


@cache
def dataset() -> Dataset:
    catalogue = build_catalogue(corpus(), CHINESE)
    return Dataset(build_samples(corpus(), catalogue, CHINESE), catalogue.items)


def some_samples(per_task: int) -> pd.DataFrame:
    """The same number of samples of each task."""
    return dataset().samples.groupby("task").head(per_task).reset_index(drop=True)


@cache
def texts() -> list[str]:
    return pretraining_texts(corpus().dialogues["train"], dataset().items["facts"].tolist(), CHINESE)


@cache
def backbone(architecture: str) -> str:
    """A checkpoint folder of an untrained one-layer model."""
    spoken = ["价位：一百", "价位：两百"]  # what tests let an assistant say
    tokenizer = train_tokenizer(texts() + prompt_texts(CHINESE) + spoken, architecture, 2000)
    model = new_backbone(architecture, tokenizer, hidden_size=64, layers=1, heads=2, max_positions=1024, seed=1)
    folder = f"{FOLDER.name}/{architecture}"
    save_backbone(model, tokenizer, folder)
    return folder


@cache
def crs_tokenizer():
    """BART's, which is CPT's too: both are trained on the same text."""
    return load_tokenizer(backbone("bart"), segments=True)


def unimind(recommend_loss_reaches_backbone: bool = False, seed: int = 1, architecture: str = "bart") -> UniMind:
    """A UniMIND over the toy catalogue, in evaluation mode."""
    vectors = torch.full((len(dataset().items), 16), torch.nan)
    return new_unimind(backbone(architecture), len(crs_tokenizer()), vectors, 50, recommend_loss_reaches_backbone, seed).eval()


def crs_examples(samples: pd.DataFrame, helped: pd.DataFrame | None = None, cutoff_len: int = 512) -> list[dict]:
    return encode_samples(samples, crs_tokenizer(), CHINESE, dataset().index, cutoff_len, 16, helped)[0]


def help_for(samples: pd.DataFrame, usable: bool = True, text: str = "价位：两百") -> pd.DataFrame:
    """What ``merge_assistant`` gives: for recommend the ranking starts with the third candidate."""
    rankings = [[*c[2:], *c[:2]] if usable and len(c) else [] for c in samples["candidates"]]
    return samples[["sample_id", "split", "task"]].assign(usable=usable, text=text if usable else "", ranking=rankings)


def assert_same_answers(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Texts and rankings equal, scores and confidence up to rounding."""
    rounded = ["scores", "confidence"]
    pd.testing.assert_frame_equal(one.drop(columns=rounded), other.drop(columns=rounded))
    np.testing.assert_allclose(one["confidence"].astype(float), other["confidence"].astype(float), rtol=1e-4)
    for scores, others in zip(one["scores"], other["scores"], strict=True):
        np.testing.assert_allclose(scores, others, rtol=1e-4, atol=1e-5)
