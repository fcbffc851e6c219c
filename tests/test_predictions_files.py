"""Predictions files of other columns or types: converted, or refused by one clear line, never left out."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmcrs_utils.systems.predictions import SCHEMA, read_catalogue_rankings, read_predictions, write_predictions


def answers(system="bcrs", **columns):
    rows = {"system": system, "seed": 1, "split": "test", "sample_id": ["d:1:understand", "d:2:recommend:i1"], "text": ["颜色：黑", "1"],
            "ranking": [[], ["1", "2"]], "scores": [[], [0.5, 0.25]], "raw": ["颜色：黑", ""], "valid": True}  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


@pytest.fixture
def folder(tmp_path):
    write_predictions(answers(), tmp_path / "bcrs.parquet")
    return tmp_path


def written(frame, path, **types):
    """A file as somebody else's code writes it: pandas' own types, save those named."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name, kind in types.items():
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    pq.write_table(table, path)


def test_other_types_and_columns_are_converted(folder):
    other = answers("other").assign(note="kept by somebody else")
    text = {name: pa.large_string() for name in ("system", "text")}
    written(other, folder / "other.parquet", seed=pa.int32(), split=pa.dictionary(pa.int8(), pa.string()), **text)
    read = read_predictions(folder)
    assert list(read.columns) == SCHEMA.names
    expected = answers("other").assign(confidence=float("nan"))[SCHEMA.names]
    pd.testing.assert_frame_equal(read[read["system"] == "other"].reset_index(drop=True), expected, check_dtype=False)


def test_files_with_and_without_confidence_are_read_together(folder):
    """Files of before have no such column. A run that knows it for some answers leaves the others empty."""
    written(answers("before"), folder / "before.parquet")
    write_predictions(answers("now", confidence=[-0.25, None]), folder / "now.parquet")
    read = read_predictions(folder).set_index("system")["confidence"]
    assert read["before"].isna().all() and read["bcrs"].isna().all() and read.dtype == float
    assert read["now"].iloc[0] == -0.25 and pd.isna(read["now"].iloc[1])


def test_item_numbers_become_names_and_scores_and_raw_may_be_missing(folder):
    written(answers("other", ranking=[[], [1, 2]]).drop(columns=["scores", "raw"]), folder / "other.parquet")
    row = read_predictions(folder).iloc[-1]
    assert row["ranking"] == ["1", "2"] and row["scores"] == [] and row["raw"] == "1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="split"), "has no column split; predictions have system, seed, split"),
        (lambda frame: frame.rename(columns={"sample_id": "id"}), "has no column sample_id"),
        (lambda frame: frame.assign(seed="first"), "column seed is .*string and cannot be converted"),
        (lambda frame: frame.assign(ranking="1；2"), "column ranking is .*string and cannot be converted"),
        (lambda frame: frame.assign(ranking=[[], [1.5, 2.0]]), "column ranking holds numbers with a point"),
        (lambda frame: frame.assign(system=[None, "other"]), "column system holds nothing in 1 rows"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_file_column_and_remedy(folder, change, message):
    written(change(answers("other")), folder / "other.parquet")
    with pytest.raises(ValueError, match=rf"other\.parquet: {message}") as error:
        read_predictions(folder)
    assert "\n" not in str(error.value) and "move the file elsewhere" in str(error.value)


def test_a_file_that_was_cut_short_is_named(folder):
    (folder / "other.parquet").write_bytes((folder / "bcrs.parquet").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"other\.parquet: no readable Parquet file"):
        read_predictions(folder)


def test_what_a_mac_leaves_beside_a_file_is_none(folder):
    (folder / "._bcrs.parquet").write_bytes(b"\0\5\26\7")
    assert set(read_predictions(folder)["system"]) == {"bcrs"}


def test_rankings_of_the_catalogue_are_held_to_their_own_columns(folder):
    write_predictions(answers("tg_crs", catalogue=[[], ["1", "3"]]), folder / "tg_crs.parquet")
    assert read_catalogue_rankings(folder)["ranking"].tolist() == [["1", "3"]]
    assert set(read_predictions(folder)["system"]) == {"bcrs", "tg_crs"}
    written(answers("popular")[["system", "sample_id"]], folder / "catalogue" / "popular.parquet")
    with pytest.raises(ValueError, match=r"popular\.parquet: has no column seed"):
        read_catalogue_rankings(folder)
