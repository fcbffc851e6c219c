"""The page of all test questions: what it holds, and in a browser what it shows."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from llmcrs_utils.evaluation.explorer import explorer
from llmcrs_utils.evaluation.one_dialogue import displayed, name_of, turns_of_help
from llmcrs_utils.files.parquet import read_parquet
from llmcrs_utils.systems.registry import SYSTEMS, system_of
from llmcrs_utils.world.english import ATTRIBUTES, glossary
from workflow.figures import readers_beside

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "figures" / "explorer.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is here")


@pytest.fixture(scope="module")
def study():
    """Questions, answers and scores of the page. Its systems are registered while this module is tested."""
    usual = dict(SYSTEMS)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        yield readers_beside()
    SYSTEMS.clear()
    SYSTEMS.update(usual)


def held(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def opened(choice: str, page: Path = PAGE) -> str:
    """The page's HTML after a browser has run it with this choice in its address; a script that fails leaves a message."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", f"{page.as_uri()}#{choice}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr[-2000:]
    return done.stdout.partition('<script id="data"')[0]


def listed(shown: str) -> set[str]:
    found = re.findall(r'data-id="([^"]+)"', shown)
    assert f">{len(found)} question" in shown and len(set(found)) == len(found)
    return set(found)


def test_every_question_and_every_answer_is_there(study):
    dialogues, predictions, scores = study
    given = held(PAGE.read_text("utf-8"))
    task = dialogues.set_index("sample_id")["task"]
    assert {one["id"]: one["task"] for one in given["samples"]} == task.to_dict()
    shown = {(key, one["id"]): text for one in given["samples"] for key, (text, _) in one["answers"].items()}
    said = predictions.set_index(["system", "sample_id"])["text"].fillna("")
    assert shown == {(key, sample): displayed(text, task[sample], glossary()) for (key, sample), text in said.items()}
    replies = scores[scores["task"] == "respond"].set_index(["system", "sample_id"])["BLEU-2"]
    assert all(score == round(replies[key, one["id"]], 3) for one in given["samples"] if one["task"] == "respond" for key, (_, score) in one["answers"].items())


def test_the_page_is_small_and_fetches_nothing():
    before, _, after = PAGE.read_text("utf-8").partition('<script id="data"')
    assert PAGE.stat().st_size < 5e6 and "http" not in before + after.partition("</script>")[2]


def test_what_somebody_says_is_told_from_what_is_done(study):
    """A turn may begin with the question that is asked or the item that is recommended."""
    given = held(PAGE.read_text("utf-8"))
    turns = [turn for one in given["samples"] for turn in one["turns"]]
    done = [turn for turn in turns if any(note.startswith("[recommend]") for note in turn["notes"])]
    assert len(done) > 50 and not any(turn["said"].isdigit() for turn in done)
    assert not any(turn["said"].startswith("[") or any("[system]" in note or "[user]" in note for note in turn["notes"]) for turn in turns)


def test_wrong_input_is_refused(study):
    dialogues, predictions, scores = (table[table["sample_id"].isin(study[0]["sample_id"][:2])] for table in study)
    with pytest.raises(ValueError, match="two answers of one system"):
        explorer(dialogues, pd.concat([predictions, predictions.assign(seed=2)]), scores, {}, {}, "")
    first = dialogues["sample_id"].iloc[0]
    with pytest.raises(ValueError, match=f"{first}: no answer"):
        explorer(dialogues, predictions[predictions["sample_id"] != first], scores, {}, {}, "")


def test_every_attribute_of_the_study_has_an_english_name(study):
    named = {part.partition("：")[0] for label in study[0].query("task in ('understand', 'elicit')")["label"] for part in label.split("；")}
    assert named <= set(ATTRIBUTES) and len(named) > 20


def test_every_need_and_every_fact_has_an_english_name(study):
    needs = {part.partition("：")[2] for label in study[0].query("task == 'understand'")["label"] for part in label.split("；")} - {""}
    unnamed = needs - set(glossary())
    assert len(needs) > 100 and len(unnamed) < 0.01 * len(needs)  # the simulation's shoppers misspell a word now and then
    assert all(any(len(word) == len(need) and sum(a != b for a, b in zip(word, need)) == 1 for word in glossary()) for need in unnamed)
    facts = [fact for told in read_parquet(ROOT / "results" / "readers" / "items.parquet")["facts"] for fact in told.split("，")]
    assert len(facts) > 500 and [fact for fact in facts if not name_of(fact, glossary())] == []


@in_a_browser
def test_text_is_shown_and_never_run(study, tmp_path):
    dialogues, predictions, scores = (table[table["sample_id"] == study[0].query("task == 'recommend'")["sample_id"].iloc[0]] for table in study)
    nasty = "</script><img src=x onerror=alert(1)>"
    dialogues = dialogues.assign(label=nasty, current=[[f"[user]{nasty}", f"[understand]{nasty}"]], domain=nasty)
    page = tmp_path / "page.html"
    page.write_text(explorer(dialogues, predictions.assign(text=nasty), scores, {nasty: nasty}, {}, nasty), "utf-8")
    assert held(page.read_text("utf-8"))["note"] == nasty
    shown = opened("task=recommend", page)
    assert "<img" not in shown and shown.count("&lt;/script&gt;&lt;img") > 5


@in_a_browser
@pytest.mark.parametrize(
    ("key", "wanted", "outcome"),
    [("bcrs-gemma", "help", "help corrects"), ("gemma-bcrs", "harm", "help spoils"), ("bcrs1000-gemma1000", "help", "help corrects"), ("bcrs-gemma", "nobody", "nobody is right")],
)
def test_the_browser_counts_what_turns_of_help_counts(study, key, wanted, outcome):
    turned = turns_of_help(study[2], system_of(key))
    expected = turned.index[(turned["task"] == "elicit") & (turned["outcome"] == outcome)]
    assert listed(opened(f"task=elicit&pair={key}&outcome={wanted}")) == set(expected) and len(expected) > 3


@in_a_browser
@pytest.mark.parametrize(("wanted", "right", "wrong"), [("crs", "bcrs", "gemma"), ("llm", "gemma", "bcrs")])
def test_the_browser_finds_where_only_one_is_right_in_a_category(study, wanted, right, wrong):
    dialogues, _, scores = study
    first = scores[scores["task"] == "recommend"].pivot(index="sample_id", columns="system", values="Acc") == 1
    shoes = dialogues.loc[dialogues["domain"] == "鞋类行业", "sample_id"]
    expected = set(first.index[first[right] & ~first[wrong]]) & set(shoes)
    for key in ("gemma-bcrs", "bcrs-gemma"):  # whoever is helped
        assert listed(opened(f"task=recommend&category=鞋类行业&pair={key}&outcome={wanted}")) == expected


@in_a_browser
def test_words_are_looked_for_in_what_is_shown(study):
    dialogues, _, _ = study
    assert listed(opened("task=understand&words=bert")) == set()  # a system's key, no word
    product = listed(opened("task=elicit&words=SKIN type"))
    spoken = dialogues[(dialogues["task"] == "elicit") & (dialogues["label"] == "肤质")]
    assert set(spoken["sample_id"]) <= product < set(dialogues.loc[dialogues["task"] == "elicit", "sample_id"])


@in_a_browser
def test_a_link_opens_its_question_with_all_answers_whatever_else_it_says(study):
    dialogues, predictions, _ = study
    sample = dialogues[dialogues["task"] == "recommend"].iloc[7]
    for choice in ("", "task=elicit&pair=gone&outcome=help&category=none&"):
        shown = opened(f"{choice}pair=bcrs1000-gemma1000&id={sample['sample_id']}")
        if not choice:
            assert set(re.findall(r'data-system="([^"]+)" class="[^"]*chosen', shown) + re.findall(r'class="[^"]*chosen[^"]*" data-system="([^"]+)"', shown)) == {"bcrs1000", "gemma1000", "bcrs1000-gemma1000"}
        answers = predictions[predictions["sample_id"] == sample["sample_id"]]
        assert set(re.findall(r'data-system="([^"]+)"', shown)) == set(answers["system"])
        assert all(text in shown for text in answers["text"]) and sample["label"] in shown


@in_a_browser
def test_attributes_are_shown_with_their_english_names(study):
    dialogues, _, _ = study
    sample_id = dialogues.loc[(dialogues["task"] == "elicit") & (dialogues["label"] == "肤质"), "sample_id"].iloc[0]
    shown = opened(f"id={sample_id}")
    assert "<td>肤质 (skin type)</td>" in shown and re.search(r"\[understand\]品类 \(product type\)：", shown)
