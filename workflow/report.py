"""A run's executed notebooks as a site: a page each, and an index with what they found, the tables and the figures.

    python workflow/report.py runs/demo    # writes runs/demo/report/index.html
"""

import html
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from tqdm import tqdm

from figures import shows_progress
from llmcrs_utils.files.atomic import write_atomically

# Without these addresses a page fetches nothing; the notebooks have neither widgets nor formulas.
EXPORTER = HTMLExporter(preprocessors=[CoalesceStreamsPreprocessor(enabled=True)], require_js_url="", jquery_url="", mathjax_url="", mermaid_js_url="")
TAKEAWAY = "**Takeaway.** "
ANALYSES = ("00", "07", "08", "09", "12", "14")  # numbers of the notebooks of saved predictions
STYLE = """body{max-width:1000px;margin:24px auto;padding:0 16px;font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;color:#222}
table{border-collapse:collapse}td,th{border:1px solid #ddd;padding:3px 8px}img{max-width:100%}
.scroll table{display:block;overflow-x:auto}.scroll :is(td,th):first-child{position:sticky;left:-1px;background:#fff}.scroll td{white-space:nowrap}
.scroll h1{font-size:20px}.anchor-link{display:none}"""


def title_of(notebook: nbformat.NotebookNode, name: str) -> str:
    """The first heading, or the notebook's name; a notebook that failed is called so."""
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    title = next((line.lstrip("# ") for line in lines if line.startswith("# ")), name)
    failed = any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))
    return f"FAILED: {title}" if failed else title


def page_of(notebook: nbformat.NotebookNode, title: str, pages: dict[str, str]) -> str:
    """The notebook as HTML that fetches nothing. Links go to the pages of this report; what has none here loses its link.

    Args:
        pages: number of a notebook, "04" -> file name of its first page here.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":  # the learning curve draws what the Trainer's table of losses says
            cell.outputs = [output for output in cell.outputs if not shows_progress(output)]
            cell.metadata["transient"] = {"remove_source": cell.metadata.get("jupyter", {}).get("source_hidden", False)}  # imports
    page, _ = EXPORTER.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    page = re.sub(r'<a href="(?![a-z]+:|#)([^"#]*)(#[^"]*)?"[^>]*>(.*?)</a>', lambda link: relinked(*link.groups(default=""), pages), page, flags=re.DOTALL)
    back = '<p style="margin:12px 16px"><a href="index.html" style="text-decoration:underline">all notebooks and tables of this run</a></p>'
    return re.sub("(<body[^>]*>)", rf"\1{back}", page, count=1)


def relinked(target: str, anchor: str, text: str, pages: dict[str, str]) -> str:
    page = pages.get(Path(target).name[:2]) if target.endswith(".ipynb") else None
    return f'<a href="{quote(page)}{anchor}">{text}</a>' if page else text


def takeaway_of(notebook: nbformat.NotebookNode) -> str:
    """What the notebook computed as its takeaway, as Markdown; empty if it computed none."""
    texts = [output.get("data", {}).get("text/markdown", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    return next((text.removeprefix(TAKEAWAY) for text in texts if text.startswith(TAKEAWAY)), "")


def index_of(name: str, titles: dict[str, str], takeaways: dict[str, str], figures: Path) -> str:
    """The start page: what the notebooks of saved predictions found, the notebooks in order, then tables and figures.

    Args:
        titles, takeaways: page -> title of its notebook, and its takeaway as Markdown.
    """
    found = [f'<h3><a href="{quote(page)}">{html.escape(titles[page])}</a></h3>{markdown2html(text)}' for page, text in takeaways.items() if text and page[:2] in ANALYSES]
    lines = [f'<li><a href="{quote(page)}">{html.escape(title)}</a> <small>{html.escape(Path(page).stem)}</small></li>' for page, title in titles.items()]
    tables = [f'<div class="scroll">{markdown2html(path.read_text(encoding="utf-8"))}</div>' for path in sorted(figures.glob("table*.md"))]
    pictures = [f'<h3>{html.escape(path.stem)}</h3><p><a href="figures/{quote(path.name)}"><img src="figures/{quote(path.name)}" alt="{html.escape(path.stem)}"></a></p>' for path in sorted(figures.glob("*.png"))]
    parts = [("What this run found", found or ["<p>Nothing yet: the notebooks of saved predictions have not run.</p>"]), ("Notebooks", ["<ol>", *lines, "</ol>"]), ("Tables", tables or ["<p>None yet.</p>"]), ("Figures", pictures or ["<p>None yet.</p>"])]
    body = "".join(f"<h2>{heading}</h2>{''.join(content)}" for heading, content in parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(name)}</title><style>{STYLE}</style>'
    return f"<!doctype html>{head}<h1>Run {html.escape(name)}</h1>{body}"


def main(run: Path) -> None:
    notebooks = sorted((run / "notebooks").glob("*.ipynb"))
    if not notebooks:
        sys.exit(f"{run}/notebooks holds no executed notebook; run make run PROFILE={run.name} first")
    report, figures = run / "report", run / "figures"
    shutil.rmtree(report, ignore_errors=True)
    pages = {path.name[:2]: f"{path.stem}.html" for path in reversed(notebooks)}
    titles, takeaways = {}, {}
    for path in tqdm(notebooks, desc="pages"):
        notebook = nbformat.read(path, as_version=4)
        titles[f"{path.stem}.html"], takeaways[f"{path.stem}.html"] = title_of(notebook, path.stem), takeaway_of(notebook)
        write_atomically(report / f"{path.stem}.html", page_of(notebook, titles[f"{path.stem}.html"], pages))
    if figures.is_dir():
        shutil.copytree(figures, report / "figures")
    write_atomically(report / "index.html", index_of(run.name, titles, takeaways, figures))
    print(f"{len(notebooks)} notebooks: open {report / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
