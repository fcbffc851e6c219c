"""The predictions table: one Parquet file per system, joined to the samples by ``sample_id``."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmcrs_utils.files.atomic import first_process
from llmcrs_utils.files.parquet import read_parquet, write_parquet

SCHEMA = pa.schema(
    {
        "system": pa.string(),
        "seed": pa.int64(),
        "split": pa.string(),
        "sample_id": pa.string(),
        "text": pa.string(),  # the answer as scored; for recommend the item ranked first
        "ranking": pa.list_(pa.string()),  # recommend: candidate item ids, best first
        "scores": pa.list_(pa.float32()),  # recommend: one per entry of ranking
        "raw": pa.string(),  # what the model wrote, untouched
        "valid": pa.bool_(),  # False where no usable answer could be read from it
    }
)
CATALOGUE = "catalogue"
IN_CATALOGUE = 50  # places of a ranking of the whole catalogue that are kept; no metric looks further than Hit@50
# A system that scores every item also has its ranking of the whole catalogue, in a folder CATALOGUE beside its predictions.
CATALOGUE_SCHEMA = pa.schema([*(SCHEMA.field(name) for name in ("system", "seed", "split", "sample_id", "ranking"))])


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    """Write one system's predictions, columns as in ``SCHEMA``. Rankings in a column ``catalogue`` go to ``catalogue_file``."""
    if first_process():
        catalogue_file(path).unlink(missing_ok=True)  # rankings of earlier predictions would pass for these
    ranked = frame[frame[CATALOGUE].map(len) > 0] if CATALOGUE in frame else frame[:0]
    if len(ranked):
        ranked = ranked.drop(columns="ranking").rename(columns={CATALOGUE: "ranking"})
        write_parquet(ranked[CATALOGUE_SCHEMA.names], catalogue_file(path), CATALOGUE_SCHEMA)
    write_parquet(frame[SCHEMA.names], path, SCHEMA)


def catalogue_file(path: str | Path) -> Path:
    """The file with the rankings of the whole catalogue that belong to the predictions in ``path``."""
    return Path(path).parent / CATALOGUE / Path(path).name


def label_run(predictions: pd.DataFrame, system: str, seed: int) -> pd.DataFrame:
    """Predictions of one run, labelled with its system and seed."""
    return predictions.reset_index(drop=True).assign(system=system, seed=seed)


def read_predictions(folder: Path) -> pd.DataFrame:
    """All systems' predictions of a folder, one row per (system, seed, sample)."""
    return read_all(folder, SCHEMA)


def read_catalogue_rankings(folder: Path) -> pd.DataFrame:
    """The rankings of the whole catalogue that belong to a folder's predictions."""
    return read_all(Path(folder) / CATALOGUE, CATALOGUE_SCHEMA)


def read_all(folder: Path, schema: pa.Schema) -> pd.DataFrame:
    files = sorted(path for path in Path(folder).glob("*.parquet") if pq.read_schema(path).equals(schema))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no predictions; run 03_train_crs and 04_tune_llm first")
    return pd.concat([read_parquet(path) for path in files], ignore_index=True)
