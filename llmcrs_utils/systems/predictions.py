"""The predictions table: one Parquet file per system, joined to the samples by ``sample_id``."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmcrs_utils.files.atomic import first_process
from llmcrs_utils.files.parquet import plain_frame, write_parquet

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
        "confidence": pa.float32(),  # of a generated text: its mean log-probability per token, in nats; null where unknown
    }
)
CATALOGUE = "catalogue"
IN_CATALOGUE = 50  # places of a ranking of the whole catalogue that are kept; no metric looks further than Hit@50
# A system that scores every item also has its ranking of the whole catalogue, in a folder CATALOGUE beside its predictions.
CATALOGUE_SCHEMA = pa.schema([*(SCHEMA.field(name) for name in ("system", "seed", "split", "sample_id", "ranking"))])


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    """Write one system's predictions, columns as in ``SCHEMA``, ``confidence`` null where it is missing.

    Rankings in a column ``catalogue`` go to ``catalogue_file``.
    """
    if first_process():
        catalogue_file(path).unlink(missing_ok=True)  # rankings of earlier predictions would pass for these
    ranked = frame[frame[CATALOGUE].map(len) > 0] if CATALOGUE in frame else frame[:0]
    if len(ranked):
        ranked = ranked.drop(columns="ranking").rename(columns={CATALOGUE: "ranking"})
        write_parquet(ranked[CATALOGUE_SCHEMA.names], catalogue_file(path), CATALOGUE_SCHEMA)
    write_parquet((frame if "confidence" in frame else frame.assign(confidence=None))[SCHEMA.names], path, SCHEMA)


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
    """All predictions of a folder, columns as in ``schema``; files that a Mac leaves beside others (``._name``) are none.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: for the first file that does not hold such a table (``conformed``).
    """
    files = sorted(path for path in Path(folder).glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"{folder}: holds no predictions; run 03_train_crs and 04_tune_llm first")
    return pd.concat([plain_frame(conformed(read_arrow(path), schema, path)) for path in files], ignore_index=True)


def read_arrow(path: Path) -> pa.Table:
    """A Parquet file as it is.

    Raises:
        ValueError: naming the file, if it is none or was cut short.
    """
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: no readable Parquet file ({str(error).splitlines()[0]}); write it again or remove it") from None


def conformed(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """``table`` with the columns and types of ``schema``: further columns are left out, other types converted without loss.

    A missing ``scores`` is empty, a missing ``raw`` is the text, and a missing ``confidence`` is null.

    Raises:
        ValueError: naming the file, the column and the remedy, if a column is missing, holds nothing in a row that needs it, or
            cannot be converted.
    """
    if table.schema.equals(schema):
        return table
    optional = {"scores": pa.nulls(len(table), pa.list_(pa.float32())), "raw": table["text"] if "text" in table.column_names else None}
    optional["confidence"] = pa.chunked_array([pa.nulls(len(table), pa.float32())])
    columns = {}
    for field in schema:
        given = table[field.name] if field.name in table.column_names else optional.get(field.name)
        if given is None:
            raise ValueError(
                f"{path}: has no column {field.name}; predictions have {', '.join(schema.names)}: add it, convert the table by "
                "python -m llmcrs_utils.study.score FILE --output FOLDER, or move the file elsewhere"
            )
        columns[field.name] = _converted(given, field, path)
    return pa.table(columns, schema=schema)


def _converted(column: pa.ChunkedArray, field: pa.Field, path: Path) -> pa.ChunkedArray:
    remedy = f"write the column as {field.type}, or move the file elsewhere"
    if field.name in ("system", "seed", "split", "sample_id", "valid") and column.null_count:
        raise ValueError(f"{path}: column {field.name} holds nothing in {column.null_count} rows; {remedy}")
    if pa.types.is_floating(_value_type(column.type)) and pa.types.is_string(_value_type(field.type)):
        raise ValueError(f"{path}: column {field.name} holds numbers with a point ({column.type}), no names; {remedy}")
    try:
        column = column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: column {field.name} is {column.type} and cannot be converted ({reason}); {remedy}") from None
    if column.null_count and pa.types.is_list(field.type):  # nothing is an empty list
        return pa.chunked_array([pa.array([value or [] for value in column.to_pylist()], field.type)])
    return column


def _value_type(kind: pa.DataType) -> pa.DataType:
    """What a column, or each list in it, holds."""
    return kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
