"""What the data notebook leaves for all others: the task samples and the catalogue, as two Parquet tables."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llmcrs_utils.predictions import read_table, write_table

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
        """Item id -> what may be read of it."""
        return dict(zip(self.items["item_id"], self.items["facts"], strict=True))

    def split(self, name: str) -> pd.DataFrame:
        """The samples of one split, numbered from 0."""
        return self.samples[self.samples["split"] == name].reset_index(drop=True)


def write_dataset(dataset: Dataset, folder: str | Path) -> None:
    write_table(dataset.samples, Path(folder) / SAMPLES)
    write_table(dataset.items, Path(folder) / ITEMS)


def read_dataset(folder: str | Path) -> Dataset:
    return Dataset(read_table(Path(folder) / SAMPLES), read_table(Path(folder) / ITEMS))


def dataset_files(folder: str | Path) -> list[Path]:
    return [Path(folder) / SAMPLES, Path(folder) / ITEMS]
