"""Make every committed table, figure and page again from results/.

The notebooks that read results/ are executed in place. Then come the tables in docs, the explorer and the READMEs' picture.

    python workflow/figures.py [FOLDER]    # into FOLDER instead, to compare

About 40 seconds on two idle cores, no model, no GPU; the same bytes on the same machine.
"""

import os
import re
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import papermill
from matplotlib.figure import Figure
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from llmcrs_utils.evaluation.complementarity import outcomes_alone, over_others, pull
from llmcrs_utils.evaluation.controls import controls
from llmcrs_utils.evaluation.diagram import Partner, two_directions
from llmcrs_utils.evaluation.explorer import explorer
from llmcrs_utils.evaluation.figures import save_figure
from llmcrs_utils.evaluation.health import DAGGER
from llmcrs_utils.evaluation.metrics import score
from llmcrs_utils.evaluation.statistics import SIGNIFICANT
from llmcrs_utils.evaluation.tables import BELOW_FLOOR, disliked_first, markdown_lines, metrics_table, summary_markdown
from llmcrs_utils.evaluation.wording import gain_text, markdown, pair_markdown, write_rounded
from llmcrs_utils.files.atomic import write_atomically
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.study.profile import load_profile
from llmcrs_utils.systems.predictions import read_predictions
from llmcrs_utils.systems.registry import register
from llmcrs_utils.world.english import ATTRIBUTES, glossary

STUDY, READERS, MORE = "study-cpu", "readers", "readers-1000"
SCORES, HEALTH = "scores.parquet", "health.csv"  # what results/ holds of a run on private dialogues
# These runs, and the place of each one's table in docs.
PRIVATE = {"pscon-cn": "pscon_cn", "pscon-cn-readers": "pscon_cn_readers", "pscon": "pscon_en", "pscon-readers": "pscon_readers"}
# The notebooks of saved predictions, and where each leaves its figures. The longest come first, so that both cores are busy to the end.
FROM_RESULTS = {
    "15_readers": READERS, "16_more_dialogues": MORE, "14_controls": STUDY, "09_categories": STUDY, "08_complementarity": STUDY, "12_cross_fitting": STUDY,
    "11_human_evaluation": STUDY, "00_overview": READERS, "07_tables": STUDY, "13_known_answer": "known-answer", "10_one_dialogue": MORE,
}  # fmt: skip
# What is written by hand, and the tables in it.
PROSE = {
    "README.md": ("answer",),
    "README.zh-CN.md": ("answer_zh",),
    "docs/findings.md": ("readers", "cross_fitted", "more_dialogues", "real"),
    "docs/results.md": ("costs", "gains", "systems", "cross_fitting", "pscon_cn", "pscon_cn_disliked", "pscon_cn_readers", "pscon_en", "pscon_readers"),
}
# The question of the READMEs' picture: what the shopper says, and the same in English.
EXAMPLE, SAID, IN_ENGLISH = "03d8ec308f12205ccdff88eec6fa0f20:2:elicit", "面霜有什么推荐的，不用修护", "Which cream would you\nrecommend? Not for repair."
# Systems of MORE, where they stand beside those of READERS, and the keys that they have there.
MORE_SYSTEMS = {"bcrs1000": {"name": "UniMIND(BART) (1,000)", "family": "crs"}, "gemma1000": {"name": "Gemma 3 270M (1,000)", "family": "llm"}}
MORE_KEYS = {"bcrs": "bcrs1000", "gemma": "gemma1000", "bcrs-gemma": "bcrs1000-gemma1000"}
# Words of the table in the READMEs.
IN_CHINESE = {
    "understand": "理解", "elicit": "引导", "recommend": "推荐", "respond": "回复", " alone": " 单独", " with help": " 得到协助",
    "training dialogues": "训练对话数", "control chosen on validation": "在验证集上选定的对照",
}  # fmt: skip
# A line of a bar, an empty one, and two notices of the Trainer's that no reader can act on.
PROGRESS = re.compile(r"\d+%\|| \d+it \[|^(\x1b\[A)*$|^\[transformers\] (mtime may not|The tokenizer has new PAD)")


def cleaned(executed: nbformat.NotebookNode, metadata: dict) -> str:
    """An executed notebook as it is committed: without progress, times and injected parameters, with cells counted from 1."""
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    executed, _ = CoalesceStreamsPreprocessor().preprocess(executed, {})
    for count, cell in enumerate((cell for cell in executed.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if not shows_progress(output)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    for cell in executed.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags" and value}
        if cell.cell_type == "code" and "start_notebook()" in cell.source:
            cell.metadata["jupyter"] = {"source_hidden": True}  # imports are folded
    executed.metadata = metadata
    return nbformat.writes(executed) + "\n"


def shows_progress(output: nbformat.NotebookNode) -> bool:
    """Whether an output tells of nothing but progress: lines of a bar, or the Trainer's table of losses, which the learning curve draws."""
    if output.output_type == "stream":
        return all(PROGRESS.search(line.strip()) for line in re.split(r"[\r\n]", output.text))
    return "<progress" in output.get("data", {}).get("text/html", "")


def execute(name: str, root: Path) -> None:
    """Run one notebook from results/ (in a process of its own) and write it, and what it makes, below ``root``."""
    source = Path("notebooks") / f"{name}.ipynb"
    figures = root / "figures" / FROM_RESULTS[name]
    executed = papermill.execute_notebook(source, None, {"output_dir": str(figures)}, kernel_name="python3", progress_bar=False)
    (root / "notebooks").mkdir(parents=True, exist_ok=True)
    write_atomically(root / "notebooks" / source.name, cleaned(executed, nbformat.read(source, as_version=4).metadata))


def tables_in_prose(figures: Path) -> dict[str, str]:
    """Name of a place in docs -> the Markdown that belongs there."""
    pulled, beaten, both, added, beaten_cross_fitted = (
        pd.read_csv(figures / READERS / f"{name}.csv") for name in ("pull", "over_controls", "cross_fitting", "cross_fitting_added", "over_controls_cross_fitted")
    )
    more = pd.read_csv(figures / MORE / "both.csv")
    for name in ("pscon-cn-readers", "pscon-readers"):
        load_profile(f"params/{name}.yaml")  # names its LLMs
    private = {name: (read_parquet(f"results/{name}/{SCORES}"), pd.read_csv(f"results/{name}/{HEALTH}")) for name in PRIVATE}
    return {
        "systems": summary_markdown(pd.read_csv(figures / STUDY / "metrics.csv")),
        "gains": (figures / STUDY / "gains.md").read_text("utf-8").strip(),
        "cross_fitting": (figures / STUDY / "cross_fitting.md").read_text("utf-8").strip(),
        "answer": answer_markdown(more),
        "answer_zh": translated(answer_markdown(more), IN_CHINESE),
        "readers": pair_markdown(pulled, beaten),
        "cross_fitted": textwrap.indent(cross_fitting_markdown(both, added, beaten_cross_fitted), "   "),
        "real": gains_beside(
            {
                "synthetic, Gemma 3 270M": pulled[pulled["direction"] == "CRS assisting LLM"],
                "PSCon Chinese, Gemma 3 270M": pd.read_csv(figures / "pscon-cn-readers" / "pull.csv"),
                "PSCon English, SmolLM2-135M": pull(*private["pscon-readers"]),
            }
        ),
        "more_dialogues": more_markdown(more, pd.read_csv(figures / MORE / "gains.csv")),
        "costs": costs_markdown(pd.read_csv(figures / READERS / "costs.csv", index_col="system")),
        "pscon_cn_disliked": disliked_markdown(private["pscon-cn"][0]),
    } | {place: summary_markdown(metrics_table(*private[name])) for name, place in PRIVATE.items()}


def translated(text: str, words: dict[str, str]) -> str:
    for english, other in words.items():
        text = text.replace(english, other)
    return text


def costs_markdown(table: pd.DataFrame) -> str:
    """What each system took, and its scores, as Markdown; ``table``: what ``costs.costs`` returns."""
    digits = {"minutes": 0, "in all": 0, "memory (GiB)": 1}
    shown = {name: ["–" if pd.isna(value) else f"{value:.{digits.get(name, 3)}f}" for value in table[name]] for name in table if name != "seeds"}
    return markdown(pd.DataFrame(shown, index=table.index))


def gains_beside(studies: dict[str, pd.DataFrame]) -> str:
    """The gain of one collaboration over its base in several studies, as Markdown; heading -> what ``complementarity.pull`` returns, a row per task."""
    cells = {}
    for heading, table in studies.items():
        rows = table.assign(collapsed=table["collapsed"].astype(object).fillna("")).itertuples()
        cells[heading] = {f"{row.task} ({row.metric})": gain_text(row.gain, row.low, row.high, "*" * int(row.holds == True) + DAGGER * bool(row.collapsed)) for row in rows}  # noqa: E712 - NaN is no star
    return markdown(pd.DataFrame(cells, index=list(dict.fromkeys(name for column in cells.values() for name in column))).fillna("–"))


def cross_fitting_markdown(both: pd.DataFrame, added: pd.DataFrame, beaten: pd.DataFrame) -> str:
    """One collaboration with in-sample and with cross-fitted help, as Markdown: a column per task.

    Args:
        both, added: what ``cross_fitting.both_gains`` returns, for all dialogues and for those that were added later; what is significant in both has a star.
        beaten: ``controls.over_the_best_control`` with cross-fitted help; significant rows have a star.
    """
    heads = [f"{task} ({metric})" for task, metric in zip(both["task"], both["metric"])]
    added, beaten = added.set_index("task").loc[both["task"]], beaten.set_index("task").loc[both["task"]]
    rows = {}
    for name, kind, value in (("gain, in-sample help", "in-sample", "in-sample gain"), ("gain, cross-fitted help", "cross-fitted", "cross-fitted gain"), ("cross-fitted minus in-sample", "change", "change")):
        stars = (both[f"{kind} p (Holm)"].to_numpy() < SIGNIFICANT) & (added[f"{kind} p (Holm)"].to_numpy() < SIGNIFICANT)
        rows[name] = [gain_text(*numbers, "*" * int(star)) for *numbers, star in zip(both[value], both[f"{kind} low"], both[f"{kind} high"], stars)]
    rows["cross-fitted minus control"] = [gain_text(row.gain, row.low, row.high, "*" * int(row.p < SIGNIFICANT)) for row in beaten.drop(columns="p").rename(columns={"p (Holm)": "p"}).itertuples()]
    return markdown(pd.DataFrame(rows, index=heads).T, f"{both['over'].iloc[0]} with help")


def answer_markdown(both: pd.DataFrame) -> str:
    """The LLM with the help of a CRS with few and with many training dialogues, as Markdown: a row per task and number. The better of the two alone is
    bold, a star says that help changes the score significantly, and ``BELOW_FLOOR`` stands beside a score below the best floor's.

    Args:
        both: ``both.csv`` of 16_more_dialogues.
    """
    lines, heads = [], ["training dialogues", "UniMIND(BART) alone", "Gemma alone", "Gemma with help", "control chosen on validation"]
    for _, part in both.groupby("task", sort=False):
        for place, row in enumerate(part.itertuples()):
            floor, control = (part[name].iloc[place] for name in ("best floor", "control score"))
            best = max(row.helper, row.alone)
            alone = [(f"**{one:.3f}**" if one == best else f"{one:.3f}") + below_mark(one, floor) for one in (row.helper, row.alone)]
            helped = f"{row.helped:.3f}{'*' if row.holds else ''}{below_mark(row.helped, floor)}"
            lines.append(["" if place else f"{row.task} ({row.metric})", row.world.split()[0], *alone, helped, f"{control:.3f}"])
    return "\n".join(markdown_lines("", heads, lines))


def below_mark(value: float, floor: float) -> str:
    """``BELOW_FLOOR`` if a score is below the floor's, as both are shown."""
    return BELOW_FLOOR if round(value, 3) < round(floor, 3) else ""


def more_markdown(both: pd.DataFrame, gains: pd.DataFrame) -> str:
    """The pair with more training dialogues, as Markdown: a row per task. A star: ``p (Holm)`` in ``gains.csv`` is below 0.05.

    Args:
        both: ``both.csv`` of 16_more_dialogues, of which the last study of each task is shown; ``gains``: its ``gains.csv``.
    """
    last = both.drop_duplicates("task", keep="last").set_index("task")
    columns = {"UniMIND(BART) alone": last["helper"], "Gemma alone": last["alone"], "Gemma with help": last["helped"], "control chosen on validation": last["control score"]}
    shown = pd.DataFrame({name: values.map("{:.3f}".format) for name, values in columns.items()})
    for compared, part in gains.groupby("compared", sort=False):
        rows = part.rename(columns={"p (Holm)": "p"}).set_index("task").loc[last.index].itertuples()
        shown[f"with help {compared}"] = [gain_text(row.gain, row.low, row.high, "*" * int(row.p < SIGNIFICANT)) for row in rows]
    return markdown(shown.set_axis([f"{task} ({metric})" for task, metric in last["metric"].items()]))


def disliked_markdown(scores: pd.DataFrame) -> str:
    """How often a system puts an item first that its shopper disliked, as Markdown."""
    lines = [f"| {row.name} | {row.value:.3f} | {row.low:.3f}–{row.high:.3f} |" for row in disliked_first(scores).itertuples(index=False)]
    return "\n".join(["| | disliked item first | 95% |", "| :--- | ---: | ---: |", *lines])


def readers_beside() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The test questions of the pair that reads, the answers of seed 1 to them, and their scores: with few and, as systems of their own, with many training
    dialogues, and what combines two saved answers without training. Floors are those of few."""
    load_profile(f"params/{READERS}.yaml")  # names its LLM
    register(MORE_SYSTEMS)
    questions, answers = read_parquet(f"results/{READERS}/dialogues.parquet"), []
    for folder, keys in ((READERS, {}), (MORE, MORE_KEYS)):
        trained, held_out = (read_predictions(f"results/{folder}/{part}").query("seed == 1").replace({"system": keys}) for part in ("predictions", "validation"))
        made = controls(read_parquet(f"results/{folder}/samples.parquet"), trained, held_out, "zh")
        answers += [trained, made.without_copies]
    predictions = pd.concat(answers).drop_duplicates(["system", "sample_id"])
    return questions, predictions, score(questions, predictions, "zh")


def draw_directions(root: Path, questions: pd.DataFrame, predictions: pd.DataFrame) -> Figure:
    """The picture of the two directions, with what seed 1 of the pair that reads answered to the example."""
    answers = predictions[predictions["sample_id"] == EXAMPLE].set_index("system")["text"].to_dict()
    asked = questions[questions["sample_id"] == EXAMPLE]
    said_as_told = [list(current)[:1] for current in asked["current"]] == [[f"[user]{SAID}"]]
    answers["desk"] = asked["label"].item() if said_as_told else None
    as_described = said_as_told and answers["bcrs-gemma"] == answers["desk"] == answers["bcrs"] and answers["desk"] not in (answers["gemma"], answers["gemma-bcrs"])
    if not as_described or not {answers[key] for key in ("desk", "gemma", "gemma-bcrs")} <= set(ATTRIBUTES):
        sys.exit(f"{EXAMPLE}: the answers are no longer those that the READMEs describe ({answers}); choose another EXAMPLE in workflow/figures.py, and describe it there")
    said = {key: f"Ask for the\n{ATTRIBUTES[answers[key]]}" for key in ("desk", "bcrs", "gemma", "bcrs-gemma", "gemma-bcrs")}
    crs = Partner("CRS", "reads dialogue\nand noted needs", said["bcrs"], said["gemma-bcrs"])
    llm = Partner("LLM", "reads dialogue", said["gemma"], said["bcrs-gemma"])
    turned = pd.read_csv(root / "figures" / READERS / "help_and_harm.csv").query("task == 'elicit'").set_index("system")
    counts = [f"help corrects {turned['help'][pair]:.0%} of the answers in elicitation and spoils {turned['harm'][pair]:.0%} (synthetic)" for pair in ("BCRS-GEMMA", "GEMMA-BCRS")]
    figure = two_directions(IN_ENGLISH, said["desk"], crs, llm, counts)
    save_figure(figure, root / "figures" / "two_directions.png")
    return figure


def write_explorer(root: Path, questions: pd.DataFrame, predictions: pd.DataFrame, scores: pd.DataFrame) -> None:
    """The page of all test questions and the answers of seed 1."""
    items = read_parquet(f"results/{READERS}/items.parquet").set_index("item_id")["facts"].to_dict()
    note = (
        "Gemma 3 270M, an LLM that reads, and UniMIND(BART), seed 1. Both learned from 200 dialogues, those marked (1,000) from 1,000; floors are those of 200. "
        "Dialogues, products and shoppers are invented by a simulation (synthetic)."
    )
    write_atomically(root / "figures" / "explorer.html", explorer(questions, predictions, scores, items, glossary(), note))


def write_pages(root: Path) -> None:
    """All that is made without a notebook: tables in docs, the explorer, the READMEs' picture."""
    write_real_comparison(root)
    write_prose(root)
    questions, predictions, scores = readers_beside()
    write_explorer(root, questions, predictions, scores)
    draw_directions(root, questions, predictions)


def write_real_comparison(root: Path) -> None:
    """On PSCon's Chinese conversations: what Gemma has over the CRS and over floors, and what the CRS's help changes."""
    load_profile("params/pscon-cn-readers.yaml")  # names its LLM
    scores, health = read_parquet(f"results/pscon-cn-readers/{SCORES}"), pd.read_csv(f"results/pscon-cn-readers/{HEALTH}")
    compared = {"understand": ["bcrs", "trivial"], "recommend": ["bcrs", "matcher"], "respond": ["bcrs", "trivial"]}
    folder = root / "figures" / "pscon-cn-readers"
    write_rounded(over_others(scores, "gemma", compared), folder / "over_others.csv")
    write_rounded(outcomes_alone(scores, [("bcrs", "gemma")]), folder / "outcomes.csv")
    write_rounded(pull(scores, health), folder / "pull.csv")


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
    write_pages(root)
    made = sorted(path for path in (root / "figures").rglob("*") if path.is_file())
    print(f"{len(FROM_RESULTS)} notebooks, {len(made)} tables and figures in {root / 'figures'}, the tables in docs")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
