"""Tables 1-4 and the figure of the gains, from made-up scores."""

import html
import re

import made_up
import mistune
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from llmcrs_utils.evaluation.analysis_figures import gain_figure
from llmcrs_utils.evaluation.figures import save_figure
from llmcrs_utils.evaluation.metrics import METRICS
from llmcrs_utils.evaluation.tables import (
    TABLES,
    collaborations,
    gains,
    metrics_table,
    paper_numbers,
    summary_markdown,
    task_table,
    write_tables,
)
from llmcrs_utils.evaluation.wording import findings, grid
from llmcrs_utils.systems.registry import CATEGORIES, SYSTEMS, TASKS, register, system_of

PAPER = [key for key, system in SYSTEMS.items() if "mllm" not in key and system.family != "typical"]
NOTE = "Synthetic demo corpus, 100% made up"
CELL = ["system", "category", "metric"]


def scores_of(domains=CATEGORIES, without=(), systems=("trivial", *PAPER), dialogues=4):
    """Two seeds of random scores; ``without`` holds (task, domain) pairs that have no samples. A registered system answers its tasks."""
    rng = np.random.default_rng(0)
    rows = [
        {"system": system, "seed": seed, "sample_id": f"{domain}{i}{task}", "sid": f"{domain}{i}", "domain": domain, "task": task}
        | dict(zip(METRICS[task], rng.random(len(METRICS[task]))))
        for system in systems
        for seed in (1, 2)
        for task in (SYSTEMS[system].tasks if system in SYSTEMS else TASKS)
        for domain in domains
        if (task, domain) not in without
        for i in range(dialogues)
    ]
    return pd.DataFrame(rows).assign(valid=True)


def test_paper_numbers_are_the_papers():
    numbers = paper_numbers().set_index(["task", "name", "category", "metric"])["paper"]
    assert numbers["understand", "UniMIND(BART)", "All 5", "F1"] == 0.6978
    assert numbers["recommend", "ALLM-BCRS", "Phones", "Hit@5"] == 0.7681
    assert numbers["respond", "Chinese-Alpaca", "All 5", "Dist-1"] == 0.8927  # headed All 3 in the paper
    assert np.isnan(numbers["recommend", "Chinese-Alpaca", "Beauty", "MRR@5"])
    assert numbers.index.is_unique


@pytest.mark.parametrize("task", TASKS)
def test_the_twelve_systems_are_rows_of_the_paper(task):
    numbers = paper_numbers()
    assert len(PAPER) == 12
    assert {SYSTEMS[key].name for key in PAPER} <= set(numbers.loc[numbers["task"] == task, "name"])


def test_a_further_llm_has_its_rows_and_colours_without_a_word_elsewhere():
    register({"mllm": {"name": "Modern LLM", "family": "llm"}})
    systems = ("trivial", "bcrs", "mllm", "mllm-bcrs", "bcrs-mllm")
    scores = scores_of(systems=systems)
    assert [name for _, name in task_table("respond", metrics_table(scores)).index[2:]] == [
        "UniMIND(BART)", "Modern LLM", "MLLM-BCRS", "BCRS-MLLM",
    ]  # fmt: skip
    assert rows_of(gain_figure(gains(scores), NOTE)) == ["MLLM-BCRS", "BCRS-MLLM"]


def test_floor_is_the_first_row_and_ceiling_the_last():
    """Where a synthetic world knows its own probabilities, their row closes every table."""
    metrics = metrics_table(scores_of(systems=("oracle", "trivial", *SYSTEMS)))
    for task in TASKS:
        groups = list(dict.fromkeys(metrics.loc[metrics["task"] == task, "group"]))
        assert (groups[0], groups[-1]) == ("Floor", "Ceiling")
        assert task_table(task, metrics).index[-1] == ("Ceiling", "The world's own probabilities")


def test_typical_systems_stand_between_floor_and_crs_in_their_own_table():
    metrics = metrics_table(scores_of(systems=("trivial", *SYSTEMS)))
    rows = {task: list(task_table(task, metrics).loc["Typical"].index) for task in TASKS}
    assert rows == {
        "understand": ["Bert", "Bert+CRF", "Bert+BiLSTM+CRF"],
        "elicit": ["DiaMultiClass", "DiaSeq"],
        "recommend": ["Bert", "SASRec", "TG-CRS"],
        "respond": ["GPT-2", "KBRD"],
    }
    paper = metrics[metrics["system"].isin(["bert", "bert_rec"]) & (metrics["category"] == "All 5")]
    numbers = paper.set_index(["system", "metric"])["paper"]
    assert (numbers["bert_rec", "Acc"], numbers["bert_rec", "MRR@5"]) == (0.0118, 0.0151) and numbers["bert", "F1"] > 0.5
    lines = [line for line in summary_markdown(metrics).splitlines() if line.startswith("| Bert |")]
    assert [[bool(cell.strip()) for cell in line.split("|")[2:-1]] for line in lines] == [
        [True, False, False, False, False, False], [False, False, True, True, False, False],
    ]  # fmt: skip


def test_rankings_of_the_catalogue_have_a_table_of_totals():
    found = scores_of(systems=("popular", "bcrs"))
    rng = np.random.default_rng(1)
    asked = found[found["task"] == "recommend"].drop(columns=[*METRICS["recommend"]])
    below = asked.assign(task="catalogue", **{name: rng.random(len(asked)) for name in METRICS["catalogue"]})
    table = task_table("catalogue", metrics_table(pd.concat([found, below])))
    assert list(table.columns.unique("category")) == ["All 5"]
    assert list(table.columns.unique("metric")) == ["Hit@10", "Hit@50", "MRR@50", "NDCG@10", "NDCG@50"]
    assert [name for _, name in table.index] == ["Samples", "Most popular in the shop", "UniMIND(BART)"]
    expected = below.loc[below["system"] == "bcrs", "MRR@50"].mean()
    assert table.loc[("No collaboration", "UniMIND(BART)"), ("All 5", "MRR@50")].startswith(f"{expected:.3f} [")


def test_values_are_means_over_samples_and_seeds():
    scores = scores_of()
    table = metrics_table(scores).set_index(["task", *CELL])
    chosen = scores[(scores["system"] == "bcrs") & (scores["task"] == "elicit")]
    total = table.loc[("elicit", "bcrs", "All 5", "F1")]
    assert total["value"] == pytest.approx(chosen["F1"].mean(), rel=1e-9)
    assert total["low"] < total["value"] < total["high"]
    assert (total["n"], total["paper"]) == (20, 0.3943)
    beauty = table.loc[("elicit", "bcrs", "Beauty", "F1")]
    assert beauty["value"] == pytest.approx(chosen.loc[chosen["domain"] == "美妆行业", "F1"].mean(), rel=1e-9)
    assert (beauty["n"], beauty["paper"]) == (4, 0.4518)
    assert np.isnan(table.loc[("elicit", "bcrs", "Fashion", "F1"), "paper"])


def test_metrics_table_holds_every_metric_once():
    table = metrics_table(scores_of())
    assert not table.duplicated(["task", *CELL]).any()
    for task, part in table.groupby("task"):
        assert set(part["metric"]) == set(METRICS[task])
        assert len(part) == 13 * 6 * len(METRICS[task])


def test_layout_is_the_papers():
    table = task_table("recommend", metrics_table(scores_of()))
    assert list(table.columns.unique("category")) == ["Beauty", "Shoes", "Phones", "Fashion", "Electronics", "All 5"]
    assert list(table.columns.unique("metric")) == ["Acc", "Hit@5", "MRR@5"]
    assert list(table.index) == [
        ("", "Samples"),
        ("Floor", "Most frequent / random"),
        ("No collaboration", "UniMIND(BART)"),
        ("No collaboration", "UniMIND(CPT)"),
        ("No collaboration", "ChatGLM"),
        ("No collaboration", "Chinese-Alpaca"),
        ("LLM assisting CRS", "CLLM-BCRS"),
        ("LLM assisting CRS", "CLLM-CCRS"),
        ("LLM assisting CRS", "ALLM-BCRS"),
        ("LLM assisting CRS", "ALLM-CCRS"),
        ("CRS assisting LLM", "BCRS-CLLM"),
        ("CRS assisting LLM", "CCRS-CLLM"),
        ("CRS assisting LLM", "BCRS-ALLM"),
        ("CRS assisting LLM", "CCRS-ALLM"),
    ]
    assert table.loc[("", "Samples"), ("Beauty", "Acc")] == "4"
    assert table.loc[("No collaboration", "UniMIND(BART)"), ("Beauty", "Acc")].endswith(" (0.215)")
    assert table.loc[("No collaboration", "Chinese-Alpaca"), ("Beauty", "Hit@5")].count("(") == 0
    total = table.loc[("LLM assisting CRS", "ALLM-BCRS"), ("All 5", "Acc")]
    assert total.count("[") == 1 and total.endswith("] (0.262)")


def test_category_without_samples_is_a_dash(tmp_path):
    metrics = metrics_table(scores_of(without={("respond", "手机行业")}))
    table = task_table("respond", metrics)
    assert (table.loc[table.index[1:], "Phones"] == "–").all(axis=None)
    assert table.loc[("", "Samples"), ("Phones", "Dist-1")] == "0"
    assert table.loc[("", "Samples"), ("All 5", "Dist-1")] == "16"
    write_tables(metrics, tmp_path, NOTE)
    assert not [path.name for path in tmp_path.iterdir() if "nan" in path.read_text("utf-8")]


def test_task_without_samples_has_a_table_without_rows(tmp_path):
    metrics = metrics_table(scores_of(without={("elicit", domain) for domain in CATEGORIES}))
    assert list(task_table("elicit", metrics).index) == [("", "Samples")]
    write_tables(metrics, tmp_path, NOTE)
    assert pd.read_csv(tmp_path / "table2.csv").empty


def test_one_category():
    metrics = metrics_table(scores_of(["Fridges"]))
    assert list(task_table("elicit", metrics).columns.unique("category")) == ["Fridges", "All 1"]
    assert metrics["paper"].isna().all()


def test_many_categories_show_the_largest_and_count_all(tmp_path):
    scores = pd.concat([scores_of([f"shop {n}"], dialogues=2 + n) for n in range(8)])
    metrics = metrics_table(scores)
    shown = task_table("elicit", metrics)
    assert list(shown.columns.unique("category")) == ["shop 7", "shop 6", "shop 5", "shop 4", "shop 3", "All 8"]
    assert shown.loc[("", "Samples"), ("All 8", "P")] == str(sum(range(2, 10)))
    write_tables(metrics, tmp_path, NOTE)
    assert pd.read_csv(tmp_path / "table2.csv")["category"].nunique() == 9
    assert "3 smaller categories" in (tmp_path / "table2.md").read_text("utf-8")


def test_total_over_other_categories_is_not_compared():
    five_others = metrics_table(scores_of([*list(CATEGORIES)[:4], "Fridges"]))
    assert five_others.loc[five_others["category"] == "All 5", "paper"].isna().all()
    assert five_others.loc[five_others["category"] == "Beauty", "paper"].notna().any()


def test_a_system_that_nobody_registered_is_a_row_of_its_own_group():
    scores = scores_of(systems=("oracle", "trivial", "bcrs", "allm", "allm-bcrs", "gpt"))
    metrics = metrics_table(scores)
    for task in TASKS:
        assert list(task_table(task, metrics).index[-2:]) == [("Other systems", "gpt"), ("Ceiling", "The world's own probabilities")]
    row = metrics.set_index(["task", *CELL]).loc["elicit", "gpt", "All 5", "F1"]
    chosen = scores[(scores["system"] == "gpt") & (scores["task"] == "elicit")]
    assert row["value"] == pytest.approx(chosen["F1"].mean(), rel=1e-9) and row["low"] < row["value"] < row["high"]
    known = metrics_table(scores[scores["system"] != "gpt"])
    pd.testing.assert_frame_equal(metrics[metrics["system"] != "gpt"].reset_index(drop=True), known)
    assert "| gpt | " in summary_markdown(metrics)
    assert rows_of(gain_figure(gains(scores), NOTE)) == ["ALLM-BCRS"]  # a figure of collaborations does without the others


def test_a_stranger_that_bears_a_known_name_has_neither_its_paper_numbers_nor_its_gain(three_gains):
    scores = pd.concat([three_gains, three_gains[three_gains["system"] == "bcrs"].assign(system="ALLM-BCRS")])
    metrics = metrics_table(scores)
    stranger = metrics["system"] == "ALLM-BCRS"
    assert not metrics.loc[stranger, "better"].any() and metrics["better"].sum() == 1
    paper = metrics_table(scores_of(systems=("bcrs", "ChatGLM")))
    assert paper.loc[paper["system"] == "ChatGLM", "paper"].isna().all() and paper.loc[paper["system"] == "bcrs", "paper"].notna().any()


def test_a_name_is_text_and_no_markup(tmp_path):
    name = r"a|b *c* **d** _e_ <br> `f` [g](h) $i$ \* \| 50% &amp; ~~#"
    metrics = metrics_table(scores_of(["Fridges"], systems=("bcrs", name)))
    write_tables(metrics, tmp_path, NOTE)
    for text in ((tmp_path / "table2.md").read_text("utf-8"), summary_markdown(metrics)):
        shown = mistune.create_markdown(plugins=["table", "strikethrough"])(text)
        assert f"<td>{html.escape(name, quote=False)}</td>" in re.sub(r"<td[^>]*>", "<td>", shown) and r"\$i\$" in text
    latex = (tmp_path / "table2.tex").read_text("utf-8")
    assert "textbf" not in latex and r"*c* **d** \_e\_" in latex and "\ue000" not in latex
    assert name in set(pd.read_csv(tmp_path / "table2.csv")["name"])


def test_single_dialogue_has_no_interval():
    table = task_table("elicit", metrics_table(scores_of(["Fridges"], dialogues=1)))
    assert not table.apply(lambda column: column.str.contains(r"\[|nan")).any(axis=None)


def test_written_files(tmp_path):
    metrics = metrics_table(scores_of(["A & B_1|2", *CATEGORIES]))
    write_tables(metrics, tmp_path / "tables", NOTE)
    names = {f"table{n}.{ending}" for n in (1, 2, 3, "3b", 4) for ending in ("md", "tex", "csv")}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == names | {"metrics.csv"}

    for task, table in TABLES.items():
        stem = tmp_path / "tables" / f"table{table.number}"
        long = pd.read_csv(f"{stem}.csv")
        assert list(long.columns) == ["system", "name", "group", "category", "metric", "value", "low", "high", "paper", "n", "seeds", "collapsed", "below_floor", "better"]
        ours = metrics[(metrics["task"] == task) & metrics["metric"].isin(table.metrics)].drop(columns="task").astype({"collapsed": float})
        pd.testing.assert_frame_equal(long, ours.reset_index(drop=True), check_dtype=False, rtol=0, atol=6e-7)

        markdown = stem.with_suffix(".md").read_text("utf-8")
        assert markdown.startswith(f"# Table {table.number}: {table.title}\n\n{NOTE}. ")
        rows = [line for line in markdown.splitlines() if line.startswith("|")]
        assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1
        latex = stem.with_suffix(".tex").read_text("utf-8")
        assert r"100\% made up" in latex and latex.count(r"\toprule") == 1
        tabular = [line for line in latex.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in tabular[1:]}) == 1


# --- collapsed systems


def health_of(scores, collapsed=()):
    """Answer health of the runs in ``scores``; ``collapsed`` holds (system, task, seed)."""
    runs = scores[["system", "task", "seed"]].drop_duplicates()
    return runs.assign(collapsed=[run in collapsed for run in runs.itertuples(index=False, name=None)])


def written(scores, health, folder):
    """The text of Table 2 in its three formats, and of ``metrics.csv`` as a table."""
    write_tables(metrics_table(scores, health), folder, NOTE)
    return [(folder / f"table2.{ending}").read_text("utf-8") for ending in ("md", "tex")] + [
        pd.read_csv(folder / f"{name}.csv") for name in ("table2", "metrics")
    ]


def test_a_collapsed_system_is_marked_and_never_bold_though_its_score_is_best(three_gains, tmp_path):
    markdown, latex, csv, metrics = written(three_gains, health_of(three_gains, {("allm-bcrs", "elicit", 1)}), tmp_path)
    (row,) = [line for line in markdown.splitlines() if line.startswith("| ALLM-BCRS |")]
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert len(cells) == 9 and all(re.match(r"0\.\d{3}†", cell) for cell in cells) and "**" not in row
    assert "† Collapsed: " in markdown and "(ALLM-BCRS: elicit 1 of 2)" in markdown
    others = [line for line in markdown.splitlines() if line.startswith("|") and line != row]
    assert not any("†" in line for line in others)
    tabular = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert [line.count(r"$^{\dagger}$") for line in tabular if "ALLM-BCRS" in line] == [9] and r"\textbf" not in latex
    assert r"$^{\dagger}$ Collapsed: " in latex and "†" not in latex
    assert set(csv.loc[csv["system"] == "allm-bcrs", "collapsed"]) == {1} and set(csv.loc[csv["system"] != "allm-bcrs", "collapsed"]) == {0}
    assert not metrics["better"].any()
    counted = metrics[metrics["collapsed"] > 0]
    assert set(zip(counted["system"], counted["task"], counted["collapsed"], counted["seeds"])) == {("allm-bcrs", "elicit", 1, 2)}
    summary = summary_markdown(metrics)
    assert summary.count("†") == 2 and "(ALLM-BCRS: elicit 1 of 2)" in summary


def test_a_total_below_the_best_floor_s_is_marked(tmp_path):
    """Of a task's headline metric alone; the floors themselves are never marked, and other numbers of the system are not either."""
    scores = scores_of(systems=("trivial", "dictionary", "bcrs", "allm"))
    for system, value in (("trivial", 0.2), ("dictionary", 0.5), ("bcrs", 0.4), ("allm", 0.6)):
        scores.loc[(scores["system"] == system) & (scores["task"] == "understand"), "F1"] = value
    scores.loc[scores["task"] != "understand", METRICS["elicit"]] = 0.5
    scores = scores[scores["task"].isin(["understand", "elicit"])]
    metrics = metrics_table(scores, health_of(scores))
    marked = metrics[metrics["below_floor"].fillna(False)]
    assert marked[["task", "system", "category", "metric"]].values.tolist() == [["understand", "bcrs", "All 5", "F1"]]
    write_tables(metrics, tmp_path, NOTE)
    for text, mark in (((tmp_path / "table1.md").read_text("utf-8"), "‡"), ((tmp_path / "table1.tex").read_text("utf-8"), r"$^{\ddagger}$")):
        assert text.count(mark) == 2 and f"0.400{mark} [" in text and f"{mark} The task's main metric, in total, is lower than the best floor's." in text
    assert "‡" not in (tmp_path / "table2.md").read_text("utf-8")
    summary = summary_markdown(metrics)
    assert summary.count("‡") == 2 and "0.400‡<br>" in summary
    without = metrics_table(scores[~scores["system"].isin(["trivial", "dictionary"])])
    assert without["below_floor"].isna().all() and "‡" not in summary_markdown(without)


def test_who_answers_as_the_best_floor_does_is_not_below_it():
    """Means over one seed and over two seeds of equal scores can differ in their last bit."""
    scores = scores_of(systems=("trivial", "bcrs"))
    scores = scores[scores["task"] == "understand"].sort_values(["system", "seed", "sample_id"])
    given = np.random.default_rng(1).random(len(scores[(scores["system"] == "bcrs") & (scores["seed"] == 1)])) / 3
    scores.loc[scores["system"] == "bcrs", "F1"] = [*given, *given]
    scores.loc[scores["system"] == "trivial", "F1"] = [*(given + 1e-12), *given]
    assert not metrics_table(scores)["below_floor"].any()


@pytest.mark.parametrize(("fallen", "name"), [("allm-bcrs", "ALLM-BCRS"), ("bcrs", "UniMIND(BART)"), ("allm", "Chinese-Alpaca")])
def test_a_gain_is_not_tested_where_the_pair_its_base_or_its_assistant_has_collapsed(three_gains, fallen, name):
    healthy, table = (gains(three_gains, health_of(three_gains, runs)).set_index("task") for runs in ((), {(fallen, "elicit", 1)}))
    assert table["collapsed"].to_dict() == {"understand": "", "elicit": name, "respond": ""}
    assert healthy.loc["elicit", "holds"] and not table.loc["elicit", "holds"] and np.isnan(table.loc["elicit", "p (Holm)"])
    assert table.loc["elicit", "p"] == healthy.loc["elicit", "p"]
    assert table.loc["respond", "p (Holm)"] == pytest.approx(2 / 3 * healthy.loc["respond", "p (Holm)"])  # one of two tests, no more of three
    shown = grid(table.reset_index(), "gain", "low", "high", "p (Holm)")
    assert re.match(r"\+0\.\d{3}† \[", shown.loc["ALLM-BCRS", "elicit (F1)"]) and "†" not in shown.loc["ALLM-BCRS", "respond (BLEU-2)"]
    said = findings(table.reset_index())
    assert "**1 of 2** comparisons is significant" in said and "1 more is not tested (†)" in said and "in elicit" not in said
    assert not metrics_table(three_gains, health_of(three_gains, {(fallen, "elicit", 1)}))["better"].any()


def test_a_healthy_study_has_no_mark(three_gains, tmp_path):
    markdown, latex, csv, metrics = written(three_gains, health_of(three_gains), tmp_path)
    assert "†" not in markdown + summary_markdown(metrics) and "dagger" not in latex and "**" in markdown
    assert set(csv["collapsed"]) == {0}
    assert "left out" not in findings(gains(three_gains, health_of(three_gains)))


def test_without_answers_a_table_says_that_it_does_not_know(three_gains, tmp_path):
    markdown, latex, csv, metrics = written(three_gains, None, tmp_path)
    assert csv["collapsed"].isna().all() and "†" not in markdown
    assert all("Whether a run has collapsed is not known" in text for text in (markdown, latex, summary_markdown(metrics)))


def test_a_ranking_of_the_catalogue_is_marked_where_that_of_the_candidates_is():
    found = scores_of(systems=("popular", "bcrs"))
    asked = found[found["task"] == "recommend"].drop(columns=[*METRICS["recommend"]])
    below = asked.assign(task="catalogue", **dict.fromkeys(METRICS["catalogue"], 0.5))
    metrics = metrics_table(pd.concat([found, below]), health_of(found, {("bcrs", "recommend", 2)}))
    marked = metrics[metrics["collapsed"] > 0]
    assert set(zip(marked["system"], marked["task"])) == {("bcrs", "recommend"), ("bcrs", "catalogue")}


# --- gains beyond doubt


@pytest.fixture(scope="module")
def three_gains():
    """ALLM-BCRS over BCRS: in elicit clearly better, in understand perhaps, in respond clearly worse."""
    rng = np.random.default_rng(0)
    base, noise = rng.random(60) / 2, rng.normal(size=60)
    gain_of = {"elicit": 0.25 + 0.1 * noise, "understand": 0.02 + 0.3 * (noise - noise.mean()), "respond": -0.125 + 0 * noise}
    about = {"dialogues": [f"d{place // 2:02d}" for place in range(60)], "domains": np.repeat(["Fridges", "Ovens"], 30)}
    values = {task: made_up.in_two_runs({"bcrs": base, "allm": base, "allm-bcrs": base + gain}) for task, gain in gain_of.items()}
    return pd.concat([made_up.scores_of(systems, task, **about) for task, systems in values.items()], ignore_index=True)


def test_gains_hold_where_the_corrected_p_value_says_so(three_gains):
    table = gains(three_gains).set_index("task")
    assert list(table.index) == ["understand", "elicit", "respond"] and list(table["metric"]) == ["F1", "F1", "BLEU-2"]
    assert set(table["system"]) == {"ALLM-BCRS"} and set(table["over"]) == {"UniMIND(BART)"} and set(table["direction"]) == {"LLM assisting CRS"}
    means = three_gains.groupby(["task", "system"])["F1"].mean()
    assert table.loc["elicit", "gain"] == pytest.approx(means["elicit", "allm-bcrs"] - means["elicit", "bcrs"])
    assert table["holds"].to_dict() == {"understand": False, "elicit": True, "respond": True}
    assert (table["p"] <= table["p (Holm)"]).all() and table.loc["respond", "high"] < 0 and table.loc["elicit", "low"] > 0
    assert table["p (Holm)"].tolist() == pytest.approx([table["p"].iloc[0], *(factor * p for factor, p in zip((2, 3), table["p"].iloc[1:]))])


def test_a_gain_that_correction_takes_does_not_hold():
    base, gain = np.random.default_rng(3).normal(size=(2, 60))
    gain = 0.09 + 0.3 * (gain - gain.mean()) / gain.std()  # t = 2.3
    values = made_up.in_two_runs({"bcrs": base, "allm": base, "allm-bcrs": base + gain})
    alone = gains(made_up.scores_of(values))
    assert alone["p"][0] == alone["p (Holm)"][0] and 0.01 < alone["p"][0] < 0.05 and alone["holds"][0]
    several = gains(pd.concat([made_up.scores_of(values, task) for task in TASKS]))
    assert several["p"][1] == alone["p"][0] and not several["holds"].any()


def test_only_a_clear_gain_is_bold(three_gains, tmp_path):
    metrics = metrics_table(three_gains)
    bold = metrics[metrics["better"]]
    assert bold[["task", "system", "category", "metric"]].to_numpy().tolist() == [["elicit", "allm-bcrs", "All 2", "F1"]]
    write_tables(metrics, tmp_path, NOTE)
    value = f"{bold['value'].iloc[0]:.3f}"
    for number, count in ((1, 0), (2, 1), (4, 0)):
        markdown, latex = ((tmp_path / f"table{number}.{kind}").read_text("utf-8") for kind in ("md", "tex"))
        table = [line for line in markdown.splitlines() if line.startswith("|")]
        assert sum(line.count("**") for line in table) == 2 * count and latex.count(r"\textbf{") == count
        assert "**" not in latex
    assert f" **{value}** [" in (tmp_path / "table2.md").read_text("utf-8")
    assert rf" \textbf{{{value}}} [" in (tmp_path / "table2.tex").read_text("utf-8")


def test_collaborations_come_in_the_order_of_the_rows():
    scores = made_up.random_scores(["bcrs-allm", "allm-bcrs", "allm", "bcrs", "trivial", "oracle"])
    assert collaborations(scores) == [system_of("allm-bcrs"), system_of("bcrs-allm")]
    assert gains(scores[~scores["system"].isin(["bcrs-allm", "allm-bcrs"])]).empty


def test_files_are_the_same_every_time(tmp_path):
    for folder in ("a", "b"):
        write_tables(metrics_table(scores_of()), tmp_path / folder, NOTE)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def rows_of(figure) -> list[str]:
    """The labels of a figure's rows, which all its panels share."""
    (rows,) = {tuple(label.get_text() for label in axes.get_yticklabels()) for axes in figure.axes}
    return list(rows)


def test_figure_shows_the_gain_of_each_collaboration_on_one_scale():
    scores = scores_of(dialogues=12)
    figure = gain_figure(gains(scores), NOTE)
    assert [axes.get_title() for axes in figure.axes] == list(TASKS)
    assert NOTE in figure.get_suptitle() and "none of 32 scores" in figure.get_suptitle()
    assert rows_of(figure) == [system.name for system in collaborations(scores)] and len({axes.get_xlim() for axes in figure.axes}) == 1
    means = scores[scores["task"] == "elicit"].groupby("system")["F1"].mean()
    marks = [line for line in figure.axes[1].lines if line.get_marker() in ("o", "s") and len(line.get_xdata()) == 1]
    place = rows_of(figure).index("ALLM-BCRS")
    (shown,) = [line for line in marks if line.get_ydata()[0] == place]
    assert shown.get_xdata()[0] == pytest.approx(means["allm-bcrs"] - means["bcrs"], rel=1e-9)
    colours = {line.get_color() for line in marks}
    assert len(colours) == 2 and len({line.get_color() for line in marks if system_of(rows_of(figure)[line.get_ydata()[0]].lower()).family == "crs"}) == 1
    assert len(figure.legends[0].get_texts()) < 6


def test_saved_figure_is_the_same_every_time(tmp_path):
    for name in ("a.png", "b.png"):
        save_figure(gain_figure(gains(scores_of(systems=("bcrs", "allm", "allm-bcrs"))), NOTE), tmp_path / "figures" / name)
    first, second = ((tmp_path / "figures" / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second and len(first) > 10_000
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_two_programs_may_save_one_figure_at_once(tmp_path):
    class Interrupted(Figure):
        def savefig(self, *args, **kwargs):
            super().savefig(*args, **kwargs)
            save_figure(Figure(), tmp_path / "a.png")  # the other program, done before this one is

    save_figure(Interrupted(figsize=(1, 1)), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
