"""A run's executed notebooks as a site: a page each, and an index with the tables and figures.

    python workflow/report.py runs/demo    # writes runs/demo/report/index.html
"""

import html
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from tqdm import tqdm

from llmcrs_utils.files.atomic import write_atomically

STYLE = """body{max-width:1000px;margin:24px auto;padding:0 16px;font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;color:#222}
table{border-collapse:collapse}td,th{border:1px solid #ddd;padding:3px 8px}.scroll{overflow-x:auto}img{max-width:100%}
.scroll h1{font-size:20px}.anchor-link{display:none}"""


def title_of(notebook: nbformat.NotebookNode) -> str:
    """The heading of the first cell."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def page_of(notebook: nbformat.NotebookNode, pages: dict[str, str]) -> str:
    """The notebook as HTML, with links to the pages of this report instead of notebooks.

    Args:
        pages: number of a notebook, "04" -> file name of its first page here.
    """
    page, _ = HTMLExporter(preprocessors=[CoalesceStreamsPreprocessor(enabled=True)]).from_notebook_node(notebook)
    page = re.sub(r'href="(?:\.\./notebooks/)?(\d\d)_\w+\.ipynb(#[^"]*)?"', lambda link: f'href="{pages[link[1]]}"' if link[1] in pages else link[0], page)
    return re.sub("(<body[^>]*>)", r'\1<p style="margin:12px 16px"><a href="index.html" style="text-decoration:underline">all notebooks and tables of this run</a></p>', page, count=1)


def index_of(name: str, titles: dict[str, str], figures: Path) -> str:
    """The start page: the notebooks in order, then tables and figures."""
    lines = [f"<li><a href='{page}'>{html.escape(title)}</a> <small>{html.escape(Path(page).stem)}</small></li>" for page, title in titles.items()]
    tables = [f'<div class="scroll">{markdown2html(path.read_text(encoding="utf-8"))}</div>' for path in sorted(figures.glob("table*.md"))]
    pictures = [f'<p><img src="figures/{path.name}" alt="{path.stem}"></p>' for path in sorted(figures.glob("*.png"))]
    body = [f"<h1>Run {html.escape(name)}</h1><h2>Notebooks</h2><ol>", *lines, "</ol>"]
    body += ["<h2>Tables</h2>", *tables, "<h2>Figures</h2>", *pictures] if tables else ["<p>The run has no tables yet.</p>"]
    return f"<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(name)}</title><style>{STYLE}</style>{''.join(body)}"


def main(run: Path) -> None:
    notebooks = sorted((run / "notebooks").glob("*.ipynb"))
    if not notebooks:
        sys.exit(f"{run}/notebooks holds no executed notebook; run make run PROFILE={run.name} first")
    report, figures = run / "report", run / "figures"
    shutil.rmtree(report, ignore_errors=True)
    pages = {path.name[:2]: f"{path.stem}.html" for path in reversed(notebooks)}
    titles = {}
    for path in tqdm(notebooks, desc="pages"):
        notebook = nbformat.read(path, as_version=4)
        titles[f"{path.stem}.html"] = title_of(notebook)
        write_atomically(report / f"{path.stem}.html", page_of(notebook, pages))
    if figures.is_dir():
        shutil.copytree(figures, report / "figures")
    write_atomically(report / "index.html", index_of(run.name, titles, figures))
    print(f"{len(notebooks)} notebooks: open {report / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
