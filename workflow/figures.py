"""Make every committed table and figure again from results/: execute the notebooks that read it, in place, the picture of READMEs, and the tables in docs.

    python workflow/figures.py [FOLDER]    # into FOLDER instead, to compare

Two minutes, no model, no GPU; the same bytes on the same machine.
"""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import papermill
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from llmcrs_utils.evaluation.diagram import Partner, two_directions
from llmcrs_utils.evaluation.explorer import explorer
from llmcrs_utils.evaluation.figures import save_figure
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.tables import disliked_first, metrics_table, summary_markdown
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.world.english import ATTRIBUTES

STUDY = "study-cpu"
SCORES, HEALTH = "scores.parquet", "health.csv"  # of a run of which results/ holds no more
# The notebooks of saved predictions, and where each leaves its figures.
FROM_RESULTS = {
    "08_complementarity": STUDY, "09_categories": STUDY, "12_cross_fitting": STUDY, "07_tables": STUDY, "00_overview": STUDY,
    "13_known_answer": "known-answer", "14_controls": STUDY, "10_one_dialogue": STUDY,
}  # fmt: skip
# What is written by hand, and the tables in it.
PROSE = {
    "docs/findings.md": ("cross_fitting",),
    "docs/results.md": ("gains", "systems", "pscon_cn", "pscon_cn_disliked", "pscon_en", "pscon_readers"),
}
# The question of READMEs' picture.
EXAMPLE, SHOPPER = "03d8ec308f12205ccdff88eec6fa0f20:2:elicit", "Which cream would you\nrecommend? Not for repair."
# A line of a bar, an empty one, and two notices of the Trainer's that no reader can act on.
PROGRESS = re.compile(r"\d+%\|| \d+it \[|^(\x1b\[A)*$|^\[transformers\] (mtime may not|The tokenizer has new PAD)")


def cleaned(executed: nbformat.NotebookNode, metadata: dict) -> str:
    """An executed notebook as it is committed: without progress, times and injected parameters, with cells counted from 1."""
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    executed, _ = CoalesceStreamsPreprocessor().preprocess(executed, {})
    for count, cell in enumerate((cell for cell in executed.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or not shows_progress(o.text)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    for cell in executed.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags" and value}
    executed.metadata = metadata
    return nbformat.writes(executed) + "\n"


def shows_progress(text: str) -> bool:
    """Whether a stream tells of nothing but progress."""
    return all(PROGRESS.search(line.strip()) for line in re.split(r"[\r\n]", text))


def execute(name: str, root: Path) -> None:
    """Run one notebook from results/ (in a process of its own) and write it, and what it makes, below ``root``."""
    source = Path("notebooks") / f"{name}.ipynb"
    figures = root / "figures" / FROM_RESULTS[name]
    executed = papermill.execute_notebook(source, None, {"output_dir": str(figures)}, kernel_name="python3", progress_bar=False)
    (root / "notebooks").mkdir(parents=True, exist_ok=True)
    write_atomically(root / "notebooks" / source.name, cleaned(executed, nbformat.read(source, as_version=4).metadata))


def tables_in_prose(figures: Path) -> dict[str, str]:
    """Name of a place in READMEs and docs -> the Markdown that belongs there."""
    chinese, english, readers = (read_parquet(f"results/{name}/{SCORES}") for name in ("pscon-cn", "pscon", "pscon-readers"))
    load_profile("params/pscon-readers.yaml")  # names its LLMs
    return {
        "systems": summary_markdown(pd.read_csv(figures / STUDY / "metrics.csv")),
        "gains": (figures / STUDY / "gains.md").read_text("utf-8").strip(),
        "cross_fitting": (figures / STUDY / "cross_fitting.md").read_text("utf-8").strip(),
        "pscon_cn": summary_markdown(metrics_table(chinese, pd.read_csv(f"results/pscon-cn/{HEALTH}"))),
        "pscon_cn_disliked": disliked_markdown(chinese),
        "pscon_readers": summary_markdown(metrics_table(readers, pd.read_csv(f"results/pscon-readers/{HEALTH}"))),
        "pscon_en": summary_markdown(metrics_table(english, pd.read_csv(f"results/pscon/{HEALTH}"))),
    }


def disliked_markdown(scores: pd.DataFrame) -> str:
    """How often a system puts an item first that its shopper disliked, as Markdown."""
    lines = [f"| {row.name} | {row.value:.3f} | {row.low:.3f}–{row.high:.3f} |" for row in disliked_first(scores).itertuples(index=False)]
    return "\n".join(["| | disliked item first | 95% |", "| :--- | ---: | ---: |", *lines])


def draw_directions(root: Path) -> None:
    """The picture of the two directions, with what seed 1 of the study answered to the example."""
    results, said = Path(f"results/{STUDY}"), {}
    samples, predictions = read_parquet(results / "samples.parquet"), read_predictions(results / "predictions").query("seed == 1")
    answers = predictions[predictions["sample_id"] == EXAMPLE].set_index("system")["text"].to_dict()
    answers["desk"] = samples.set_index("sample_id")["label"][EXAMPLE]
    for system in ("bcrs", "allm", "bcrs-allm", "allm-bcrs", "desk"):
        if answers[system] not in ATTRIBUTES:
            sys.exit(f"{system} answers {EXAMPLE} with {answers[system]!r}, which is not one attribute; choose another EXAMPLE")
        said[system] = f"Ask for the\n{ATTRIBUTES[answers[system]]}"
    crs = Partner("CRS", "reads dialogue\nand noted needs", said["bcrs"], said["allm-bcrs"])
    llm = Partner("LLM", "reads dialogue", said["allm"], said["bcrs-allm"])
    turned = pd.read_csv(root / "figures" / STUDY / "help_and_harm.csv").query("task == 'elicit'").set_index("system")
    counts = [f"of such questions help corrects {turned['help'][pair]:.0%}, and spoils {turned['harm'][pair]:.0%}" for pair in ("BCRS-ALLM", "ALLM-BCRS")]
    save_figure(two_directions(SHOPPER, said["desk"], crs, llm, counts), root / "figures" / "two_directions.png")


def write_explorer(root: Path) -> None:
    """The page of all test questions and the answers of seed 1."""
    results = Path(f"results/{STUDY}")
    samples, predictions = read_parquet(results / "samples.parquet"), read_predictions(results / "predictions").query("seed == 1")
    dialogues = read_parquet(results / "dialogues.parquet")
    items = read_parquet(results / "items.parquet").set_index("item_id")["facts"].to_dict()
    note = "The reference study on its synthetic corpus, seed 1. Dialogues, products and shoppers are invented by a simulation."
    page = explorer(dialogues, predictions, score(samples, predictions, "zh"), items, ATTRIBUTES, note)
    write_atomically(root / "figures" / "explorer.html", page)


def write_prose(root: Path) -> None:
    """Findings and results with their tables, each between ``<!-- NAME: ... -->`` and ``<!-- end of NAME -->``."""
    tables = tables_in_prose(root / "figures")
    for name, places in PROSE.items():
        text = Path(name).read_text(encoding="utf-8")
        for place in places:
            table = tables[place]
            between = re.compile(rf"(<!-- {place}: .*? -->\n).*?(<!-- end of {place} -->)", re.DOTALL)
            if not between.search(text):
                sys.exit(
                    f"{name}: no place for the table; mark it with comments <!-- {place}: ... --> and <!-- end of {place} -->"
                )
            text = between.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(root / name, text)


def main(root: Path) -> None:
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda name: execute(name, root), FROM_RESULTS))
    write_prose(root)
    write_explorer(root)
    draw_directions(root)
    made = sorted(path for folder in set(FROM_RESULTS.values()) for path in (root / "figures" / folder).iterdir())
    print(f"{len(FROM_RESULTS)} notebooks, {len(made)} tables and figures in {root / 'figures'}, the tables in docs")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
