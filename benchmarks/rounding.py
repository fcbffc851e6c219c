"""What bfloat16 changes in a tuned LLM's answers: the same test questions, asked with a base in float32 and in bfloat16.

    .venv/bin/python benchmarks/rounding.py --run runs/readers/systems/gemma

The adapter is the same, and float32 both times. Without a device that computes in bfloat16 it is emulated: the answers are similar, the seconds mean nothing.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from llmcrs_utils.llm import system as llm
from llmcrs_utils.study.run import PROVENANCE


def compared(asked: pd.DataFrame, exact: pd.DataFrame, rounded: pd.DataFrame) -> pd.DataFrame:
    """A row per task: the share of equal answers; of rankings those with the same first item, and how far the right item moves.

    Args:
        asked: ``task, label`` of the questions; all three tables have the same order.
    """
    rows = []
    for task, part in asked.groupby("task", sort=False):
        one, other = exact.loc[part.index], rounded.loc[part.index]
        row = {"task": task, "answers": len(part), "equal": (one["text"] == other["text"]).mean()}
        if task == "recommend":
            pairs = list(zip(one["ranking"].map(list), other["ranking"].map(list), part["label"], strict=True))
            row["equal"] = sum(before[0] == after[0] for before, after, _ in pairs) / len(pairs)
            moved = pd.Series([abs(before.index(right) - after.index(right)) for before, after, right in pairs])
            row |= {"right item stays": (moved == 0).mean(), "moves at most": moved.max()}
        rows.append(row)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="folder of a tuned LLM in a run, such as runs/readers/systems/gemma")
    parser.add_argument("--per-task", type=int, default=50, help="test questions of each task (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    folder = Path(chosen.run)
    material = llm.prepare(json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["settings"])
    asked = material.splits["test"].groupby("task").head(chosen.per_task)
    cut = {"splits": {"test": asked.reset_index(drop=True)}}
    cut |= {name: {"test": [getattr(material, name)["test"][place] for place in asked.index]} for name in ("examples", "reversed_examples") if getattr(material, name)}
    exact, rounded = (
        llm.answer(replace(material, parameters=material.parameters | {"dtype": dtype, "merge_adapter": False}, **cut), folder, ["test"]) for dtype in ("float32", "bfloat16")
    )
    print(compared(cut["splits"]["test"], exact, rounded).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
