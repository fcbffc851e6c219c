"""Committed tables, figures and pages, and the tables in docs, are those that results/ gives."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from workflow import figures

ROOT = Path(__file__).parents[1]
COMPARED = [ROOT / "notebooks" / f"{name}.ipynb" for name in sorted(figures.FROM_RESULTS)]


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """A copy of the project in which nbval has executed the notebooks of saved predictions, which writes figures/ anew."""
    folder = tmp_path_factory.mktemp("again")
    for name in ("docs", "llmcrs_utils", "notebooks", "params", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "README.zh-CN.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "results").symlink_to(ROOT / "results")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    nbval = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--nbval-lax", *(f"notebooks/{path.name}" for path in COMPARED)]
    compared = subprocess.run(nbval, cwd=folder, env=environment, capture_output=True, text=True)
    pages = "from pathlib import Path; from workflow.figures import write_pages; write_pages(Path())"
    made = subprocess.run([sys.executable, "-c", pages], cwd=folder, env=environment, capture_output=True, text=True)
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
    pictures = [name for name in files(again[0]) if name.suffix == ".png"]
    assert len(pictures) > 8
    for name in pictures:  # pixels, not bytes: compression may differ between machines
        made, committed = (matplotlib.image.imread(folder / name) for folder in (again[0], ROOT))
        assert made.shape == committed.shape, name
        assert np.abs(made - committed).mean() < 1e-3, name


@pytest.mark.parametrize("name", sorted(figures.PROSE))
def test_prose_shows_the_committed_numbers(again, name):
    assert (again[0] / name).read_text("utf-8") == (ROOT / name).read_text("utf-8")


QUOTED = re.compile(r"([+-]\d\.\d{3})[*†]* \[([+-]\d\.\d{3}), ([+-]\d\.\d{3})\]")


def written_in(path: Path) -> str:
    """The text of a page without the tables that make figures writes, or of a notebook without its outputs."""
    if path.suffix == ".ipynb":
        return "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    return re.sub(r"<!-- (\w+): .*?<!-- end of \1 -->", "", path.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize(("name", "least"), [("docs/findings.md", 20), ("notebooks/15_readers.ipynb", 6), ("notebooks/16_more_dialogues.ipynb", 5), ("notebooks/07_tables.ipynb", 1)])
def test_a_gain_that_is_quoted_is_in_a_committed_table(name, least):
    """Gain, low and high stand side by side there."""
    known = set()
    for path in [*(ROOT / "figures").rglob("*.csv"), *(ROOT / "results").rglob("over_controls.csv")]:
        for row in pd.read_csv(path).select_dtypes("number").to_numpy():
            said = [f"{value:+.3f}" for value in row]
            known |= set(zip(said, said[1:], said[2:]))
    quoted = set(QUOTED.findall(written_in(ROOT / name)))
    assert len(quoted) >= least and quoted <= known, sorted(quoted - known)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_numbers_with_which_a_notebook_begins_are_among_its_results(path):
    notebook = nbformat.read(path, as_version=4)
    _, lead, *_ = notebook.cells[0].source.split("\n\n")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [text for output in outputs for kind, text in {"text": output.get("text", ""), **output.get("data", {})}.items() if kind in ("text", "text/plain", "text/markdown")]
    shown += [csv.read_text("utf-8") for csv in (ROOT / "figures" / figures.FROM_RESULTS.get(path.stem, figures.STUDY)).glob("*.csv")]
    known = [abs(float(number)) for number in re.findall(r"\d+(?:\.\d+)?", " ".join(shown))]
    told = re.findall(r"\d+\.\d+|\d+%|\d+(?= of )|(?<= of )\d+", lead.replace(",", ""))
    digits = {number: len(number.partition(".")[2]) for number in told}
    assert [number for number in told if not any(f"{value:.{digits[number]}f}" == number.rstrip("%") for value in known)] == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_a_score_that_the_readme_quotes_is_in_a_committed_table(name):
    """Before the part on how to start, whose scores are of runs that are not committed."""
    known = {f"{abs(value):.3f}" for path in (ROOT / "figures").rglob("*.csv") for value in np.ravel(pd.read_csv(path).select_dtypes("number").to_numpy())}
    quoted = set(re.findall(r"\b0\.\d{3}\b", written_in(ROOT / name).split("make smoke")[0]))
    assert len(quoted) >= 6 and quoted <= known, sorted(quoted - known)


def test_the_answer_has_a_row_for_each_task_and_number_of_training_dialogues():
    rows = [("200 training dialogues", "elicit", 0.3, 0.1, 0.2, 0.31, True), ("200 training dialogues", "respond", 0.1, 0.2, 0.15, 0.2, False),
            ("1,000 training dialogues", "elicit", 0.4, 0.4, 0.5, 0.39, False), ("1,000 training dialogues", "respond", 0.1, 0.2, 0.3, 0.25, False)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["world", "task", "helper", "alone", "helped", "control score", "holds"]).assign(metric="F1", **{"best floor": 0.15})
    shown = figures.answer_markdown(table)
    assert shown.splitlines()[2:] == [
        "| elicit (F1) | 200 | **0.300** | 0.100‡ | 0.200* | 0.310 |", "|  | 1,000 | **0.400** | **0.400** | 0.500 | 0.390 |",
        "| respond (F1) | 200 | 0.100‡ | **0.200** | 0.150 | 0.200 |", "|  | 1,000 | 0.100‡ | **0.200** | 0.300 | 0.250 |",
    ]  # fmt: skip
    assert figures.translated(shown, figures.IN_CHINESE).splitlines()[0] == "|  | 训练对话数 | UniMIND(BART) 单独 | Gemma 单独 | Gemma 得到协助 | 在验证集上选定的对照 |"


def test_gains_below_the_level_have_a_star_in_the_table_of_more_dialogues():
    both = pd.DataFrame({"task": ["elicit", "elicit"], "metric": "F1", "helper": [0.1, 0.3], "alone": 0.2, "helped": 0.4, "control score": 0.45})
    gains = pd.DataFrame({"compared": ["over one", "over other"], "task": "elicit", "gain": [0.2, 0.1], "low": [0.1, 0.01], "high": [0.3, 0.19], "p (Holm)": [0.049, 0.051]})
    shown = figures.more_markdown(both, gains).splitlines()
    assert shown[-1] == "| elicit (F1) | 0.300 | 0.200 | 0.400 | 0.450 | +0.200* [+0.100, +0.300] | +0.100 [+0.010, +0.190] |"


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_compared_cells_carry_outputs(path):
    compared = [cell for cell in nbformat.read(path, as_version=4).cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert compared
    assert [cell.source for cell in compared if not cell.outputs] == []


def test_a_committed_notebook_has_no_progress_and_its_imports_are_folded():
    bar, table = "tuning:  50%|#####     | 3/6\n", "<div><progress value='2' max='4'></progress></div><table></table>"
    outputs = [nbformat.v4.new_output("stream", text=bar), nbformat.v4.new_output("display_data", {"text/html": table}),
               nbformat.v4.new_output("display_data", {"text/html": "<table>kept</table>"}), nbformat.v4.new_output("stream", text="kept\n")]  # fmt: skip
    cells = [nbformat.v4.new_code_cell("start_notebook()\nimport json"), nbformat.v4.new_code_cell("train()", outputs=outputs, metadata={"papermill": {"duration": 3}})]
    notebook = nbformat.reads(figures.cleaned(nbformat.v4.new_notebook(cells=cells), {}), as_version=4)
    assert [cell.metadata for cell in notebook.cells] == [{"jupyter": {"source_hidden": True}}, {}]
    assert ["kept" in str(output) for output in notebook.cells[1].outputs] == [True, True]


def test_the_picture_of_the_two_directions_says_what_was_answered_and_counted(monkeypatch, tmp_path):
    """Other words change too few pixels to be seen by comparing pictures."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(ROOT / "figures" / "readers", tmp_path / "figures" / "readers")
    questions, predictions, _ = figures.readers_beside()
    texts = {text.get_text() for text in figures.draw_directions(tmp_path, questions, predictions).findobj(Text)}
    turned = pd.read_csv(ROOT / "figures/readers/help_and_harm.csv").query("task == 'elicit'").set_index("system")
    for pair, beginning in (("BCRS-GEMMA", "A CRS helps an LLM"), ("GEMMA-BCRS", "An LLM helps a CRS")):
        assert f"{beginning}: help corrects {turned['help'][pair]:.0%} of the answers in elicitation and spoils {turned['harm'][pair]:.0%} (synthetic)" in texts
    assert {"Ask for the\nskin type", "Ask for the\nproduct type", "Ask for the\neffect", "alone it says:\nAsk for the product type", "the desk: Ask for the skin type"} <= texts
    changed = predictions.assign(text=predictions["text"].mask((predictions["system"] == "bcrs-gemma") & (predictions["sample_id"] == figures.EXAMPLE), "品类"))
    with pytest.raises(SystemExit, match="no longer those that the READMEs describe"):
        figures.draw_directions(tmp_path, questions, changed)
