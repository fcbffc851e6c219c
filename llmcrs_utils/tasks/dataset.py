"""The data set that the data notebook writes and all others read: task samples and catalogue, as two Parquet tables."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llmcrs_utils.corpus.schema import SPLITS
from llmcrs_utils.files.parquet import read_parquet, write_parquet
from llmcrs_utils.tasks.folds import HELD_OUT, fold_numbers

SAMPLES, ITEMS = "samples.parquet", "items.parquet"


@dataclass(frozen=True)
class Dataset:
    """``samples`` as ``build_samples`` makes them, ``items`` as ``Catalogue`` holds them."""

    samples: pd.DataFrame
    items: pd.DataFrame

    @property
    def index(self) -> dict[str, int]:
        """Item id -> row of ``items``."""
        return {item: row for row, item in enumerate(self.items["item_id"])}

    @property
    def facts(self) -> dict[str, str]:
        """Item id -> the text that a model may read of it."""
        return dict(zip(self.items["item_id"], self.items["facts"], strict=True))

    def split(self, name: str) -> pd.DataFrame:
        """The samples of one split, numbered from 0."""
        return self.samples[self.samples["split"] == name].reset_index(drop=True)

    def splits(self, folds: int = 0, held_out_fold: int = 0) -> dict[str, pd.DataFrame]:
        """Split -> its samples.

        With ``folds`` parts of the training dialogues, part number ``held_out_fold`` (from 1; 0: none) becomes the split ``held_out``
        and leaves ``train``.

        Raises:
            ValueError: if there is no such part.
        """
        if not 0 <= held_out_fold <= folds:
            raise ValueError(f"held_out_fold {held_out_fold} is none of 1 to {folds} (folds), nor 0, which holds nothing out")
        splits = {name: self.split(name) for name in SPLITS}
        if held_out_fold:
            training = splits["train"]
            held_out = training["sid"].map(fold_numbers(training, folds)) == held_out_fold
            if held_out.all() or not held_out.any():
                raise ValueError(f"{training['sid'].nunique()} training dialogues cannot be dealt into {folds} folds; give 2 or more, and no more than dialogues")
            splits |= {"train": training[~held_out], HELD_OUT: training[held_out]}
        return {name: part.reset_index(drop=True) for name, part in splits.items()}


def write_dataset(dataset: Dataset, folder: str | Path) -> None:
    write_parquet(dataset.samples, Path(folder) / SAMPLES)
    write_parquet(dataset.items, Path(folder) / ITEMS)


def read_dataset(folder: str | Path) -> Dataset:
    return Dataset(read_parquet(Path(folder) / SAMPLES), read_parquet(Path(folder) / ITEMS))
