"""Take over a finished run as what the repository shows: results/, the READMEs' table and, of the demo, the executed notebooks.

    python workflow/publish.py demo|grid
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
from llmcrs_utils.predictions import read_predictions, read_table, write_predictions, write_table

# The notebook that is shown, and the job of the demo that shows it best.
SHOWN = {
    "01_build_data": "01_build_data",
    "02_prepare_backbones": "02_prepare_backbones_bart",
    "03_train_crs": "03_train_crs_bcrs",
    "04_tune_llm": "04_tune_llm_allm",
    "05_collaborate": "05_collaborate_allm-bcrs",
    "07_tables": "07_tables",
}
LABELS = ["sample_id", "split", "task", "sid", "domain", "label"]
PROGRESS = re.compile(r"(.*\d+%\|.*\|.*\n?|\s)*")  # bars that ran to their end, and blank lines


def publish_results(profile: str) -> None:
    """Test predictions of every system, the labels they are scored on, and what was run; of a clean checkout only."""
    run, results = Path("runs", profile), Path("results", profile)
    records = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in run.glob("systems/*/provenance.json")}
    unclear = [system for system, record in records.items() if record["git"]["dirty"] is not False]
    if unclear:
        sys.exit(f"{', '.join(unclear)}: made with uncommitted changes; commit them and call make {profile} again")
    for stale in [*results.rglob("*.parquet"), *results.glob("*.json")]:
        stale.unlink()
    for system, predictions in read_predictions(run / "predictions").groupby("system"):
        write_predictions(predictions[predictions["split"] == "test"], results / "predictions" / f"{system}.parquet")
        if system in records:
            record = json.dumps(records[system], ensure_ascii=False, indent=1)
            write_atomically(results / f"{system}.provenance.json", record + "\n")
    samples = read_table(run / "data" / "samples.parquet")
    write_table(samples.loc[samples["split"] == "test", LABELS], results / "samples.parquet")


def publish_notebook(name: str, job: str) -> None:
    """The executed notebook without what papermill added; its code must be the repository's."""
    path = Path("notebooks") / f"{name}.ipynb"
    executed = nbformat.read(Path("runs/demo/notebooks") / f"{job}.ipynb", as_version=4)
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    current = nbformat.read(path, as_version=4)
    if [cell.source for cell in executed.cells] != [cell.source for cell in current.cells]:
        sys.exit(f"{path} has changed since the run; call make demo again")
    executed, _ = CoalesceStreamsPreprocessor().preprocess(executed, {})
    for count, cell in enumerate((cell for cell in executed.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or not PROGRESS.fullmatch(o.text)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    for cell in executed.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags" and value}
    executed.metadata = current.metadata
    write_atomically(path, nbformat.writes(executed) + "\n")


def places(profile: str) -> dict[str, str]:
    """README -> its text, each with a place for the profile's table."""
    texts = {name: Path(name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")}
    for name, text in texts.items():
        if not place_of(profile).search(text):
            sys.exit(f"{name}: no place for the table; mark it with comments <!-- {profile}: ... --> and <!-- end of {profile} -->")
    return texts


def place_of(profile: str) -> re.Pattern:
    return re.compile(rf"(<!-- {re.escape(profile)}: .*? -->\n).*?(<!-- end of {re.escape(profile)} -->)", re.DOTALL)


def publish_readmes(profile: str) -> None:
    table = summary_markdown(pd.read_csv(Path("figures", profile, "metrics.csv")))
    place = place_of(profile)
    for name, text in places(profile).items():
        write_atomically(Path(name), place.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path("runs", sys.argv[1], "predictions").is_dir():
        sys.exit("usage: python workflow/publish.py PROFILE, the name of a finished run under runs/")
    profile = sys.argv[1]
    places(profile)  # or nothing is touched
    publish_results(profile)
    if profile == "demo":
        for name, job in SHOWN.items():
            publish_notebook(name, job)
    publish_readmes(profile)
    print(f"results/{profile}, the READMEs' table" + (f" and {len(SHOWN)} notebooks" if profile == "demo" else ""))
