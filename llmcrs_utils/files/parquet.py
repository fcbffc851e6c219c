"""Parquet tables: written atomically, read as plain Python lists and text."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmcrs_utils.files.atomic import first_process, replacing


def write_parquet(frame: pd.DataFrame, path: str | Path, schema: pa.Schema | None = None) -> None:
    """Write ``frame`` as Parquet, atomically. Of several processes only the first writes."""
    if first_process():
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a Parquet table. List columns become Python lists, and missing numbers NaN.

    Raises:
        FileNotFoundError: names the file and how to make it.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file; run the notebooks before this one first (`make demo` runs them all)")
    return plain_frame(pq.read_table(path))


def plain_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame of plain Python values: list columns as lists, missing numbers as NaN."""
    kinds = {field.name: float if pa.types.is_floating(field.type) else None for field in table.schema}
    return pd.DataFrame({name: pd.Series(table.column(name).to_pylist(), dtype=kind) for name, kind in kinds.items()})
