"""Names that people chose are shown as they are, in figures, Markdown, LaTeX and HTML, whatever signs they are written with."""

import html
import re
import shutil
import subprocess

import made_up
import mistune
import pandas as pd
import pytest
from conftest import dialogue_of, said, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from test_hostile import STEADY

from llmcrs_utils.corpus.description import render_dialogue
from llmcrs_utils.evaluation import analysis_figures, claims, figures
from llmcrs_utils.evaluation.categories import category_gains, category_levels
from llmcrs_utils.evaluation.complementarity import headroom, help_and_harm, outcomes, pull
from llmcrs_utils.evaluation.diagram import crs_diagram, llm_diagram
from llmcrs_utils.evaluation.labels import figure_text, latex_text, markdown_text, shortened, width
from llmcrs_utils.evaluation.tables import gains, metrics_table, summary_markdown, task_table, write_tables
from llmcrs_utils.evaluation.wording import findings, markdown
from llmcrs_utils.systems.registry import TASKS
from llmcrs_utils.world.known_answer import known_answer_figure

NASTY = ["Deals $$", r"a_b^2 $\frac{", "_hidden", "**A** | B", "<b>C</b> & #1~\\"]  # as many as a table shows
NOTE = r"Our *own* $$ corpus_1 <b> $x_1$ & [50%](http://x) | ~~z~~ #"
SYSTEMS = ["bcrs", "allm", "allm-bcrs", "bcrs-allm", "trivial"]


@pytest.fixture(scope="module")
def scores():
    domains = [NASTY[place % len(NASTY)] for place in range(40) for _ in range(2)]
    parts = [made_up.random_scores(SYSTEMS, task, samples=80, start=n) for n, task in enumerate(TASKS)]
    return pd.concat([part.assign(domain=part["sample_id"].str[-3:].astype(int).map(dict(enumerate(domains)))) for part in parts])


def sizes() -> pd.DataFrame:
    """What ``figures.dialogues_curve`` draws: one system with two sizes in two tasks, better with the larger in one; another with one size."""
    rows = [("$$ A_", 200, "elicit", "F1", 0.3), ("$$ A_", 1000, "elicit", "F1", 0.4), ("$$ A_", 200, "respond", "BLEU-2", 0.2), ("$$ A_", 1000, "respond", "BLEU-2", 0.1), ("B", 200, "elicit", "F1", 0.2)]
    table = pd.DataFrame(rows, columns=["system", "dialogues", "task", "metric", "ours"])
    return table.assign(other="floor", theirs=0.1, gain=table["ours"] - 0.1, low=table["ours"] - 0.15, high=table["ours"] - 0.05)


def test_a_curve_over_sizes_says_in_how_many_tasks_more_dialogues_score_higher():
    assert claims.by_size(sizes()) == "$$ A_ scores higher in 1 of 2 tasks with 1,000 than with 200 dialogues (not tested)"
    up, down = (sizes().query("task == 'elicit'").assign(ours=scores) for scores in ([0.3, 0.4, 0.2], [0.4, 0.3, 0.2]))
    assert "in 1 of 1" in claims.by_size(up) and "in 0 of 1" in claims.by_size(down) and "in 0 of 1" in claims.by_size(up.assign(ours=0.3))
    assert "in 1 of 1" in claims.by_size(up[::-1]), "the order of the rows does not count"
    several = claims.by_size(pd.concat([sizes(), sizes().query("task == 'elicit'").assign(system="C", dialogues=[200, 500, 200])]))
    assert several.count("scores higher") == 2 and "C scores higher in 1 of 1 tasks with 500 than with 200 dialogues" in several
    assert claims.by_size(sizes().query("dialogues == 200")) == "Every system has one size"


def test_the_known_answer_s_figure_counts_the_scores_above_the_floor():
    scores = {"bcrs": (0.3, 0.1), "allm": (0.15, 0.2), "last_viewed": (0.2, 0.2), "oracle": (0.8, 0.8)}
    rows = [("choice_noise", value, key, "recommend", "Acc", score, score, score) for key, pair in scores.items() for value, score in zip((0.05, 0.3), pair)]
    table = pd.DataFrame(rows, columns=["knob", "value", "system", "task", "metric", "score", "low", "high"])
    planted = pd.DataFrame([("choice_noise", 0.3, "recommend: ceiling", 0.5)], columns=["knob", "value", "measure", "score"])
    knobs = {"choice_noise": "recommend"}
    assert "1 of 4 scores of trained systems are above the floor's (not tested)" in known_answer_figure(table, planted, knobs, NOTE).get_suptitle()
    assert "0 of 0 scores" in known_answer_figure(table.query("system != 'last_viewed'"), planted, knobs, NOTE).get_suptitle(), "nothing is compared with a floor that is not there"
    again = table.query("value == 0.3").assign(knob="implicit_weight", value=0.5)  # the same world, at the default of both knobs
    assert "1 of 4 scores" in known_answer_figure(pd.concat([table, again]), planted, knobs | {"implicit_weight": "recommend"}, NOTE).get_suptitle()


def shown(figure) -> list[str]:
    """All texts of a figure as they are drawn; drawing fails where a label is taken for a formula that is none."""
    figure.draw_without_rendering()
    found = []
    for text in figure.findobj(Text):
        drawn, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula, drawn
        found.append(drawn)
    return found


def test_every_figure_shows_names_as_they_are(scores):
    made = {
        "gains": analysis_figures.gain_figure(gains(scores), NOTE),
        "pull": analysis_figures.pull_figure(pull(scores), NOTE),
        "lead": analysis_figures.lead_figure({"$$ _few": pull(scores), "many": pull(scores)}, NOTE),
        "heatmap": analysis_figures.category_heatmap(category_gains(scores), NOTE),
        "slopes": analysis_figures.category_slopes(category_levels(scores), NOTE),
        "headroom": analysis_figures.headroom_figure(headroom(scores), NOTE),
        "help": analysis_figures.help_and_harm_figure(help_and_harm(scores), NOTE),
        "outcomes": analysis_figures.outcome_figure(outcomes(scores).assign(crs="$$ one_", llm="_two $x$"), NOTE),
        "known answer": known_answer_figure(
            pd.DataFrame([("choice_noise", 0.3, key, "recommend", "MRR@5", 0.3, 0.2, 0.4) for key in ("bcrs", "oracle")],
                         columns=["knob", "value", "system", "task", "metric", "score", "low", "high"]),
            pd.DataFrame([("choice_noise", 0.3, "recommend: ceiling", 0.5)], columns=["knob", "value", "measure", "score"]),
            {"choice_noise": "recommend"},
            NOTE,
        ),
        "sizes": figures.dialogues_curve(sizes(), NOTE),
    }  # fmt: skip
    for name, figure in made.items():
        texts = shown(figure)
        assert any(NOTE in text for text in texts), name
        if name in ("heatmap", "slopes"):
            most = {"heatmap": 14, "slopes": 24}[name]
            for category in shortened(NASTY, most):
                assert any(text.partition("\n")[0] == category for text in texts), (name, category)
        if name == "outcomes":
            assert "$$ one_\n_two $x$" in texts
    for figure in (
        crs_diagram("Deals $$ $x_"), llm_diagram("Deals $$ $x_"),
        figures.learning_curve(pd.DataFrame({"epoch": [1], "train_loss": [1.0], "valid_loss": [1.0]}), "Deals $$ $x_"),
        figures.lookup_curve(pd.DataFrame({"exercise_tokens": [1], "accuracy_4": [0.5]}), "Deals $$ $x_"),
        figures.help_figure(pd.DataFrame({"metric": ["F1"], "training": [0.5], "test": [0.4]}, index=["elicit"]), "Deals $$ $x_"),
    ):
        assert any("Deals $$ $x_" in text for text in shown(figure))


def test_collapsed_cases_are_marked_and_the_title_explains_the_mark(scores):
    fallen = pd.DataFrame([{"system": "allm-bcrs", "seed": 1, "task": "elicit", "collapsed": True}])
    figures_of = {
        analysis_figures.headroom_figure: headroom,
        analysis_figures.help_and_harm_figure: lambda table, health: help_and_harm(table, health=health),
        analysis_figures.gain_figure: gains,
        analysis_figures.following_figure: lambda table, health: pd.DataFrame({"system": ["ALLM-BCRS"], "task": "elicit", "collapsed": ["A" if health is not None else ""], "before": 0.1, "after": 0.2, "moved": 0.1}),
    }
    for draw, table_of in figures_of.items():
        for health, marked in ((None, False), (fallen, True)):
            texts = shown(draw(table_of(scores, health), NOTE))
            assert ("ALLM-BCRS †" in texts) is marked and any("†: a system has collapsed, not counted" in " ".join(text.split()) for text in texts) is marked


def test_the_picture_of_an_llm_says_what_is_trained():
    default, whole, untuned, served = (" ".join(shown(llm_diagram(**given))) for given in ({}, {"whole": ["lm_head"]}, {"tuned": False}, {"tuned": False, "served": True}))
    assert "LoRA" in default and "in full" not in default and "in full: lm_head" in whole and "all other weights frozen" in whole.replace("\n", " ")
    assert "LoRA" not in untuned and "frozen" in untuned and "LoRA" not in served and "at an address" in served and "frozen" not in served
    assert not any("helper chose" in text for text in shown(crs_diagram())) and any("helper chose" in text for text in shown(crs_diagram("Gemma")))


@slow
def test_long_names_stay_different_in_the_figures(scores):
    """Neither Chinese, which has no blanks, nor a common beginning makes two categories one."""
    long = [
        "家用电器与智能厨房小家电专区甲",
        "家用电器与智能厨房小家电专区乙",
        "Kitchen and dining, part one",
        "Kitchen and dining, part two",
        "A",
    ]
    renamed = scores.assign(domain=scores["domain"].map(dict(zip(NASTY, long))))
    for make, table, most in (
        (analysis_figures.category_heatmap, category_gains(renamed), 14),
        (analysis_figures.category_slopes, category_levels(renamed), 24),
    ):
        texts = {text.partition("\n")[0] for text in shown(make(table, "ours"))}
        kept = [text for text in texts if "…" in text or text == "A"]
        assert len(kept) == 5 and max(map(width, kept)) <= most
        assert not {"…", "..."} & texts


@settings(max_examples=200, **STEADY)
@given(st.lists(st.text(st.sampled_from("ab中文$_… "), max_size=30), max_size=12), st.integers(6, 24))
def test_shortened_names_fit_and_are_as_different_as_before(names, most):
    short = shortened(names, most)
    assert len(short) == len(names) and len(set(short)) == len(set(names)) and all(width(name) <= most for name in short)
    assert {
        name: kept for name, kept in zip(names, short) if width(name) <= most and names.count(name) == 1 and kept != name
    } == {}


ANY = st.text(
    st.one_of(st.sampled_from(r"$_^&%#|*<>[]()!`~\{}.-+=:/ 1"), st.characters(exclude_categories=["Cs", "Cc"])),
    min_size=1,
    max_size=12,
)
RENDER = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "math"])


def read_back(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@settings(max_examples=300, **STEADY)
@given(ANY.filter(lambda text: text == text.strip() and not re.search(r"\s", text.replace(" ", ""))))
def test_any_name_reads_back_from_markdown(name):
    assert read_back(RENDER(markdown_text(name))).strip() == name
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", RENDER(markdown(pd.DataFrame({name: ["1"]}, index=[name]), name)), re.DOTALL)
    assert [read_back(cell).strip() for cell in cells] == [name, name, name, "1"]


def test_tables_in_markdown_show_names_and_no_markup_of_theirs(scores, tmp_path):
    metrics = metrics_table(scores)
    write_tables(metrics, tmp_path, NOTE)
    page = RENDER((tmp_path / "table2.md").read_text("utf-8"))
    header, *rows = [
        [read_back(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in page.split("<tr>")[1:]
    ]
    assert {len(row) for row in rows} == {len(header)}
    wide = task_table("elicit", metrics)
    assert header == ["System", *(f"{category}{metric}" for category, metric in wide.columns)]
    assert set(NASTY) < {category for category, _ in wide.columns}
    assert NOTE in read_back(page) and "<em>own" not in page and "<del>" not in page and "<a " not in page
    found = pd.DataFrame({"system": ["**A** <b>"], "task": "elicit", "gain": 1.0, "p (Holm)": 0.0})
    assert "**A** <b> in elicit (+1.000)" in read_back(RENDER(findings(found)))
    renamed = metrics.assign(name="a|b_*c*")
    assert summary_markdown(metrics).count("\n") == summary_markdown(renamed).count("\n")


@pytest.mark.parametrize("name", [*NASTY, NOTE, "50% {x}", "line\nbreak"])
def test_no_sign_of_a_name_is_a_command_of_latex(name):
    text = latex_text(name)
    assert "\n" not in text
    plain = text.replace(r"\textbackslash{}", "").replace(r"\textasciitilde{}", "").replace(r"\textasciicircum{}", "")
    assert not re.search(r"(?<!\\)[&%$#_{}]|[\\](?![&%$#_{}])|[~^]", plain)


def test_tables_in_latex_are_whole(scores, tmp_path):
    metrics = metrics_table(scores)
    write_tables(metrics, tmp_path, NOTE)
    text = (tmp_path / "table2.tex").read_text("utf-8")
    assert r"\textbf{A}" not in text and r"**A** | B" in text and r"\_hidden" in text and r"Deals \$\$" in text
    assert (
        r"a\_b\textasciicircum{}2 \$\textbackslash{}frac\{" in text
        and r"<b>C</b> \& \#1\textasciitilde{}\textbackslash{}" in text
    )
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in rows[1:]}) == 1
    if shutil.which("pdflatex"):
        page = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}" + text + "\\end{document}"
        (tmp_path / "page.tex").write_text(page, "utf-8")
        assert subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", "page.tex"], cwd=tmp_path).returncode == 0


def test_a_category_that_is_called_like_the_total_is_another_one(scores):
    renamed = scores.assign(domain=scores["domain"].replace({NASTY[0]: "All 5"}))
    wide = task_table("elicit", metrics_table(renamed))
    assert wide.columns.is_unique and {"All 5 (category)", "All 5"} < set(wide.columns.get_level_values("category"))


def test_a_page_of_a_dialogue_shows_signs_as_they_are():
    need = said("用户需求", "from $25 to $50 <b>&", [("<i>$a$", "$25 to $50")], items=["<u>$1$"])
    need["attributes"][0] |= {"start": 5, "exclusive_end": 15}
    page = render_dialogue(dialogue_of(need, domain="Deals $$ <b>"), "a $note$")
    text = re.sub(r"<span>\$</span>", "$", page)
    assert "$" not in page.replace("<span>$</span>", "")  # a notebook takes two of them in one text for a formula
    assert "<b>" not in page and "<i>" not in page and "<u>" not in page
    for whole in ("Deals $$ <b> · a $note$", "<i>$a$", "▶ <u>$1$", "from $25 to $50 <i>$a$ <b>&"):
        assert whole in read_back(text)


def test_figure_text_is_drawn_as_it_was():
    for text in ("a", "$", "$$", r"\$", r"a\$b$", r"\\$$", "$x_1$"):
        assert Text(text=figure_text(text))._preprocess_math(figure_text(text)) == (text, False)
