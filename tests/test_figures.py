"""Committed tables and figures, and those in READMEs and docs, are those that results/ gives."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
COMPARED = [path for number in ("00", "07", "08", "09", "10", "12", "13", "14") for path in sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))]


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """A copy of the project in which nbval has executed the notebooks of saved predictions, which writes figures/ anew."""
    folder = tmp_path_factory.mktemp("again")
    for name in ("docs", "llmcrs_utils", "notebooks", "params", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "results").symlink_to(ROOT / "results")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    nbval = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--nbval-lax", *(f"notebooks/{path.name}" for path in COMPARED)]
    compared = subprocess.run(nbval, cwd=folder, env=environment, capture_output=True, text=True)
    prose = "from pathlib import Path; from workflow.figures import draw_directions, write_explorer, write_prose; draw_directions(Path()); write_explorer(Path()); write_prose(Path())"
    made = subprocess.run([sys.executable, "-c", prose], cwd=folder, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-3000:]
    return folder, compared


def test_notebooks_show_what_the_committed_predictions_give(again):
    """nbval compares the marked cells of each notebook with their committed outputs."""
    _, compared = again
    assert compared.returncode == 0, compared.stdout[-5000:]
    passed = int(re.search(r"(\d+) passed", compared.stdout)[1])
    assert passed >= sum(cell.cell_type == "code" for path in COMPARED for cell in nbformat.read(path, as_version=4).cells)


def files(folder):
    return {path.relative_to(folder) for path in (folder / "figures").rglob("*") if path.is_file()}


def test_no_table_or_figure_is_missing_or_left_over(again):
    assert files(again[0]) == files(ROOT)


def test_tables_are_those_of_the_committed_predictions(again):
    folder, _ = again
    tables = [name for name in files(folder) if name.suffix != ".png"]
    assert len(tables) > 20
    assert [str(name) for name in tables if (folder / name).read_bytes() != (ROOT / name).read_bytes()] == []


def test_figures_are_those_of_the_committed_predictions(again):
    figures = [name for name in files(again[0]) if name.suffix == ".png"]
    assert len(figures) > 8
    for name in figures:  # pixels, not bytes: compression may differ between machines
        made, committed = (matplotlib.image.imread(folder / name) for folder in (again[0], ROOT))
        assert made.shape == committed.shape, name
        assert np.abs(made - committed).mean() < 1e-3, name


@pytest.mark.parametrize("name", ["docs/findings.md", "docs/results.md"])
def test_prose_shows_the_committed_numbers(again, name):
    assert (again[0] / name).read_text("utf-8") == (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_compared_cells_carry_outputs(path):
    compared = [cell for cell in nbformat.read(path, as_version=4).cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert compared
    assert [cell.source for cell in compared if not cell.outputs] == []
