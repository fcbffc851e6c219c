"""Hand-made dialogues, shops and a small generated corpus that several tests share."""

import gc
from pathlib import Path

import pandas as pd
import pytest

from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, KNOWLEDGE_COLUMNS, TIME_TYPE, Corpus, Dialogue
from llmcrs_utils.systems.registry import SYSTEMS
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import generate

gc.set_threshold(100_000)  # as start_notebook does

SHARED = Path(__file__).parents[2] / "shared" / "u_need_samples"
slow = pytest.mark.slow  # whole runs, several processes, and trainings that are repeated: `make test-slow` runs them
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the public U-NEED samples are not here")


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """Each Trainer collects garbage, and looks at every object of all imported libraries: 0.6 s, without this."""
    gc.collect()
    gc.freeze()


SEGMENTS = ["[user]", "[system]", "[understand]", "[elicit]", "[recommend]", "[LLM]"]


def said(act, text, needs=(), items=(), candidates=()):
    """One utterance, without its number and time."""
    return {
        "sender_type": "用户" if act.startswith("用户") else "客服",
        "send_content": text,
        "act_tag": act,
        "attributes": [{"key": key, "value": value, "start": -1, "exclusive_end": -1} for key, value in needs],
        "rec_item_id": list(items),
        "rec_item_info": [],
        "rec_item_candidates": [list(given) for given in candidates],
    }


def dialogue_of(*utterances, sid="s1", seller="shop", user="u1", domain="美妆行业"):
    """A dialogue whose utterance number n was said at 14:n."""
    numbered = [
        {**utterance, "seq_no": n, "time": f"2022-09-18 14:{n:02d}:00"} for n, utterance in enumerate(utterances, start=1)
    ]
    record = {"domain": domain, "sid": sid, "sellerid": seller, "userid": user, "ds": "20220918", "dialogue": numbered}
    return Dialogue.model_validate(record)


def shop_of(seller, items, category="1801"):
    """Product knowledge of a shop: each item has a top category, a brand and a price."""
    facts = [("一级类目", category), ("叶子类目", "50"), ("品牌", "某牌"), ("价格区间", "高")]
    return [(item, seller, relation, value) for item in items for relation, value in facts]


def corpus_of(*dialogues, knowledge=None, behaviour=(), valid=(), test=()):
    """A corpus; by default with a shop of 30 items i00..i29."""
    rows = shop_of("shop", [f"i{n:02d}" for n in range(30)]) if knowledge is None else knowledge
    actions = pd.DataFrame(list(behaviour), columns=BEHAVIOUR_COLUMNS)
    actions["actime"] = pd.to_datetime(actions["actime"]).astype(TIME_TYPE)
    splits = {"train": list(dialogues), "valid": list(valid), "test": list(test)}
    return Corpus(splits, pd.DataFrame(rows, columns=KNOWLEDGE_COLUMNS, dtype=str), actions)


def samples_of(corpus, prompts=CHINESE, **settings):
    return build_samples(corpus, build_catalogue(corpus, prompts), prompts, **settings)


@pytest.fixture(autouse=True)
def registered():
    """Models that a test registers are gone after it."""
    before = dict(SYSTEMS)
    yield
    SYSTEMS.clear()
    SYSTEMS.update(before)


@pytest.fixture(scope="session")
def generated():
    return generate({"train": 6, "valid": 2, "test": 2}, 1, 30)[0]


@pytest.fixture(scope="session")
def generated_samples(generated):
    return samples_of(generated)
