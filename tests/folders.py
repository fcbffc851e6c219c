"""A small corpus folder in perfect order, for tests to read, damage and mend."""

import copy
import json
from pathlib import Path

from llmcrs_utils.corpus.schema import BEHAVIOUR_COLUMNS, KNOWLEDGE_COLUMNS, SPLITS
from llmcrs_utils.corpus.u_need import DIALOGUE_NAMES, KNOWLEDGE_NAMES

KNOWLEDGE = [("11", "7", "功效", "补水,保湿"), ("12", "7", "一级类目", "1801")]
BEHAVIOUR = [("7", "u1", "12", "2022-09-18 14:00:00", "0"), ("7", "u1", "11", "2022-09-18 00:00:00", "2")]


def dialogue(sid: str = "s1", **changes) -> dict:
    asked = {"key": "功效", "value": "", "start": -1, "exclusive_end": -1}
    said = {"key": "品类", "value": "水", "start": 2, "exclusive_end": 3}
    turns = [
        ("用户", "有化水吗", "用户需求", [said], []),
        ("客服", "功效？", "系统提问", [asked], []),
        ("客服", "这款", "系统推荐", [], ["11"]),
    ]
    record = {
        "domain": "美妆行业",
        "sid": sid,
        "sellerid": "7",
        "userid": "u1",
        "ds": "20220918",
        "dialogue": [
            {
                "seq_no": number,
                "time": f"2022-09-18 14:0{number}:00",
                "sender_type": sender,
                "send_content": text,
                "act_tag": act,
                "attributes": copy.deepcopy(attributes),
                "rec_item_id": items,
                "rec_item_info": [],
                "rec_item_candidates": [["11", "12"] for _ in items],
            }
            for number, (sender, text, act, attributes, items) in enumerate(turns, start=1)
        ],
    }
    return {**record, **changes}


def dialogues_text(*records: dict) -> str:
    return json.dumps(list(records), ensure_ascii=False)


def csv_text(columns, rows) -> str:
    return "\n".join(",".join(row) for row in [columns, *rows])


def write_folder(folder: Path, own_names: bool = False, behaviour_name: str = "user_action.txt") -> Path:
    """Two dialogues a split, named ``train0`` ..., two items, two actions."""
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        text = dialogues_text(dialogue(f"{split}0"), dialogue(f"{split}1"))
        (folder / DIALOGUE_NAMES[split][own_names]).write_text(text, "utf-8")
    (folder / KNOWLEDGE_NAMES[own_names]).write_text(csv_text(KNOWLEDGE_COLUMNS, KNOWLEDGE), "utf-8")
    (folder / behaviour_name).write_text(csv_text(BEHAVIOUR_COLUMNS, BEHAVIOUR), "utf-8")
    return folder


def set_aside(path: Path) -> list[dict]:
    """The lines of a ``set_aside.jsonl``; splitlines would also cut at rarer characters."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
