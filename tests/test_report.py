"""A run's report: pages that link to each other, and an index with tables and figures."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]


def report(run: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "workflow/report.py", run], cwd=run.parent, capture_output=True, text=True)


def test_pages_link_to_each_other_and_to_an_index_with_tables(tmp_path):
    run = tmp_path / "runs <b>"
    for folder in ("notebooks", "figures", "report"):
        (run / folder).mkdir(parents=True)
    (run / "report" / "03_old.html").write_text("of an earlier run")
    first = new_notebook(cells=[new_markdown_cell("# 1. The data\n\nThen [the CRS](03_train_crs.ipynb#loss), [the tables](07_tables.ipynb), [a module](../llmcrs_utils/x.py), [a page](https://example.org).")])
    table = new_output("display_data", {"text/html": "<progress value='1'></progress> Training Loss"})
    folded = new_code_cell("import hidden_module", metadata={"jupyter": {"source_hidden": True}})
    crs = new_notebook(cells=[new_markdown_cell("# 3. A CRS & more"), folded, new_code_cell("1 + 1", outputs=[table, new_output("stream", text="kept 1 of 2\n")])])
    told = new_output("display_data", {"text/markdown": "**Takeaway.** Help changes **0 of 8** scores."})
    tables = new_notebook(cells=[new_markdown_cell("# 7. Tables\n\n**Takeaway.** Of somebody else."), new_code_cell("x", outputs=[told])])
    crs.cells[-1].outputs.append(new_output("display_data", {"text/markdown": "**Takeaway.** A CRS reads."}))
    for name, notebook in (("01_build_data", first), ("03_train_crs_bcrs", crs), ("03_train_crs_ccrs", crs), ("07_tables", tables)):
        nbformat.write(notebook, run / "notebooks" / f"{name}.ipynb")
    (run / "figures" / "table1.md").write_text("# Table 1\n\n| a | b |\n|---|---|\n| x<y | 0.5 |\n")
    (run / "figures" / "gains.png").write_bytes(b"png")
    done = report(run)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (run / "report").iterdir()} == {"index.html", "figures", "01_build_data.html", "03_train_crs_bcrs.html", "03_train_crs_ccrs.html", "07_tables.html"}
    page = (run / "report" / "01_build_data.html").read_text("utf-8")
    links = set(re.findall(r'<a[^>]* href="([^"#]+[^"]*)"', page))
    assert links == {"03_train_crs_bcrs.html#loss", "07_tables.html", "index.html", "https://example.org"} and "a module" in page
    assert "<title>1. The data</title>" in page and not re.search(r'<(script|link|img)[^>]*(src|href)="http', page)
    trained = (run / "report" / "03_train_crs_bcrs.html").read_text("utf-8")
    assert "kept 1 of 2" in trained and "Training Loss" not in trained and "hidden_module" not in trained, "imports are folded, and the Trainer's table of losses is left out, as in the repository"
    index = (run / "report" / "index.html").read_text("utf-8")
    assert '<a href="03_train_crs_ccrs.html">3. A CRS &amp; more</a>' in index and "<h1>Run runs &lt;b&gt;</h1>" in index
    before, after = index.split("<h2>Notebooks</h2>")
    assert '<a href="07_tables.html">7. Tables</a>' in before and "Help changes <strong>0 of 8</strong> scores." in before, "the page begins with what was found"
    assert "A CRS reads" not in index and "somebody else" not in index and "07_tables.html" in after
    assert "<td>0.5</td>" in index and 'src="figures/gains.png"' in index and (run / "report/figures/gains.png").exists()


def test_a_notebook_that_failed_or_has_no_heading_and_figures_without_tables_are_shown(tmp_path):
    for folder in ("notebooks", "figures"):
        (tmp_path / folder).mkdir()
    broken = new_code_cell("1 / 0", outputs=[new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])])
    nbformat.write(new_notebook(cells=[new_markdown_cell('<span style="color:red">An Exception was encountered</span>'), new_markdown_cell("# 4. An LLM"), broken]), tmp_path / "notebooks/04_x.ipynb")
    nbformat.write(new_notebook(), tmp_path / "notebooks/05_y.ipynb")
    (tmp_path / "figures" / "gains.png").write_bytes(b"png")
    assert report(tmp_path).returncode == 0
    index = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert ">FAILED: 4. An LLM</a>" in index and ">05_y</a>" in index and 'src="figures/gains.png"' in index and "None yet." in index and "Nothing yet" in index


def test_a_run_without_notebooks_says_what_to_do(tmp_path):
    done = report(tmp_path)
    assert done.returncode == 1 and done.stderr == f"{tmp_path}/notebooks holds no executed notebook; run make run PROFILE={tmp_path.name} first\n"
