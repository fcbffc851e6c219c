"""Take over a finished run of the grid as what the repository shows: results/, the executed notebooks and the READMEs' table.

    python workflow/publish.py
"""

import json
import re
import sys
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from llmcrs_utils.corpus.schema import write_atomically
from llmcrs_utils.evaluation.tables import summary_markdown
from llmcrs_utils.predictions import CATALOGUE, CATALOGUE_SCHEMA, SCHEMA, read_all, read_table, write_table

PROFILE = "grid"
RUN, RESULTS = Path("runs", PROFILE), Path("results", PROFILE)
# The notebook that is shown, and the job that shows it best.
SHOWN = {
    "01_build_data": "01_build_data",
    "02_prepare_backbones": "02_prepare_backbones_bart",
    "03_train_crs": "03_train_crs_bcrs",
    "04_tune_llm": "04_tune_llm_allm",
    "05_collaborate": "05_collaborate_allm-bcrs",
    "06_typical_systems": "06_typical_systems",
    "07_tables": "07_tables",
}
LABELS = ["sample_id", "split", "task", "sid", "domain", "label"]
PLACE = re.compile(rf"(<!-- {PROFILE}: .*? -->\n).*?(<!-- end of {PROFILE} -->)", re.DOTALL)
# A line of a bar, an empty one, and two notices of the Trainer's that no reader can act on.
PROGRESS = re.compile(r"\d+%\|| \d+it \[|^(\x1b\[A)*$|^\[transformers\] (mtime may not|The tokenizer has new PAD)")


def publish_results() -> None:
    """Test predictions of every system, the labels they are scored on, and what was run; of a clean checkout only."""
    records = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in RUN.glob("systems/*/provenance.json")}
    unclear = [system for system, record in records.items() if record["git"]["dirty"] is not False]
    if unclear:
        sys.exit(f"{', '.join(unclear)}: made with uncommitted changes; commit them and call make {PROFILE} again")
    for stale in [*RESULTS.rglob("*.parquet"), *RESULTS.glob("*.json")]:
        stale.unlink()
    for folder, schema in ((Path("predictions"), SCHEMA), (Path("predictions", CATALOGUE), CATALOGUE_SCHEMA)):
        for system, part in read_all(RUN / folder, schema).groupby("system"):
            write_table(part[part["split"] == "test"], RESULTS / folder / f"{system}.parquet", schema)
    for system, record in records.items():
        write_atomically(RESULTS / f"{system}.provenance.json", json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    samples = read_table(RUN / "data" / "samples.parquet")
    write_table(samples.loc[samples["split"] == "test", LABELS], RESULTS / "samples.parquet")


def publish_notebook(name: str, job: str) -> None:
    """The executed notebook without what papermill added; its code must be the repository's."""
    path = Path("notebooks") / f"{name}.ipynb"
    executed = nbformat.read(RUN / "notebooks" / f"{job}.ipynb", as_version=4)
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    current = nbformat.read(path, as_version=4)
    if [cell.source for cell in executed.cells] != [cell.source for cell in current.cells]:
        sys.exit(f"{path} has changed since the run; call make {PROFILE} again")
    executed, _ = CoalesceStreamsPreprocessor().preprocess(executed, {})
    for count, cell in enumerate((cell for cell in executed.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or not shows_progress(o.text)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    for cell in executed.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags" and value}
    executed.metadata = current.metadata
    write_atomically(path, nbformat.writes(executed) + "\n")


def shows_progress(text: str) -> bool:
    """Whether a stream tells of nothing but progress."""
    return all(PROGRESS.search(line.strip()) for line in re.split(r"[\r\n]", text))


def readmes() -> dict[Path, str]:
    """README -> its text, each with a place for the table."""
    texts = {path: path.read_text(encoding="utf-8") for path in (Path("README.md"), Path("README.zh-CN.md"))}
    for path, text in texts.items():
        if not PLACE.search(text):
            sys.exit(f"{path}: no place for the table; mark it with comments <!-- {PROFILE}: ... --> and <!-- end of {PROFILE} -->")
    return texts


def publish_readmes() -> None:
    table = summary_markdown(pd.read_csv(Path("figures", PROFILE, "metrics.csv")))
    for path, text in readmes().items():
        write_atomically(path, PLACE.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text))


if __name__ == "__main__":
    if not (RUN / "predictions").is_dir():
        sys.exit(f"{RUN}: no finished run here; call make {PROFILE} first")
    readmes()  # or nothing is touched
    publish_results()
    for name, job in SHOWN.items():
        publish_notebook(name, job)
    publish_readmes()
    print(f"{RESULTS}, {len(SHOWN)} notebooks and the READMEs' table")
