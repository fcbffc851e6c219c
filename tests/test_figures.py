"""Committed tables and figures, and those in READMEs and docs, are those that results/ gives."""

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
COMPARED = [path for number in ("00", "07", "08", "09", "12", "13", "14") for path in sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))]


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """A folder with everything that `make figures` makes."""
    folder = tmp_path_factory.mktemp("again")
    made = subprocess.run([sys.executable, "workflow/figures.py", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


def files(folder):
    return {path.relative_to(folder) for path in (folder / "figures").rglob("*") if path.is_file()}


def test_no_table_or_figure_is_missing_or_left_over(again):
    assert files(again) == files(ROOT)


def test_tables_are_those_of_the_committed_predictions(again):
    tables = [name for name in files(again) if name.suffix != ".png"]
    assert len(tables) > 20
    assert [str(name) for name in tables if (again / name).read_bytes() != (ROOT / name).read_bytes()] == []


def test_figures_are_those_of_the_committed_predictions(again):
    figures = [name for name in files(again) if name.suffix == ".png"]
    assert len(figures) > 8
    for name in figures:  # pixels, not bytes: compression may differ between machines
        made, committed = (matplotlib.image.imread(folder / name) for folder in (again, ROOT))
        assert made.shape == committed.shape, name
        assert np.abs(made - committed).mean() < 1e-3, name


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/findings.md", "docs/results.md"])
def test_prose_shows_the_committed_numbers(again, name):
    assert (again / name).read_text("utf-8") == (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_compared_cells_carry_outputs(path):
    compared = [cell for cell in nbformat.read(path, as_version=4).cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert compared
    assert [cell.source for cell in compared if not cell.outputs] == []
