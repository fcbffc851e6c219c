"""A synthetic world of U-NEED's size, generated, written, read back with all checks, made into samples and given candidates.

    .venv/bin/python benchmarks/full_size.py    # about 2 minutes

A quarter, a half and the whole of U-NEED's size, each in a process of its own on one thread: seconds of the processor's time,
peak memory, and the seconds per dialogue against those of the quarter, which stay near 1 where cost grows linearly.
"""

import multiprocessing
import resource
import tempfile
import time

import pandas as pd

from llmcrs_utils.corpus import description
from llmcrs_utils.corpus.faults import Report
from llmcrs_utils.corpus.schema import write_corpus
from llmcrs_utils.corpus.u_need import read_corpus
from llmcrs_utils.tasks.candidates import build_catalogue
from llmcrs_utils.tasks.samples import build_samples
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import generate

U_NEED = {"train": 6928, "valid": 385, "test": 385}  # 7,698 dialogues, 90/5/5
SELLERS, ITEMS = 69, 200  # of each category, of each seller: 69,000 items
TUPLES, ACTIONS = description.U_NEED["knowledge tuples"], description.U_NEED["actions"]
PARTS = (4, 2, 1)


def world_of_size(part: int) -> tuple:
    """A world of one ``part``-th of U-NEED's size."""
    dialogues = {split: count // part for split, count in U_NEED.items()}
    return generate(dialogues, round(SELLERS / part), ITEMS, TUPLES / (5 * SELLERS * ITEMS), ACTIONS / sum(U_NEED.values()))


def measure(part: int) -> dict:
    """Seconds of each stage and the peak memory of this process."""
    found, start = {}, time.process_time()

    def lap(stage: str) -> None:
        nonlocal start
        found[stage] = time.process_time() - start
        start = time.process_time()

    corpus, _ = world_of_size(part)
    lap("generate")
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(corpus, folder)
        lap("write")
        corpus = read_corpus(folder, report=Report())
        lap("read and check")
    catalogue = build_catalogue(corpus, CHINESE)
    samples = build_samples(corpus, catalogue, CHINESE)
    lap("samples, candidates included")
    asked = samples[samples["task"] == "recommend"]
    for sample in asked.itertuples():
        catalogue.candidates(sample.sid, sample.seq_no, sample.label, sample.seller_id, [], [])
    lap("candidates alone, once more")
    sizes = {
        "dialogues": sum(map(len, corpus.dialogues.values())),
        "items": corpus.knowledge["item_id_encrypt"].nunique(),
        "tuples": len(corpus.knowledge),
        "actions": len(corpus.behaviour),
        "samples": len(samples),
        "recommend samples": len(asked),
    }
    return {**sizes, **found, "peak memory (MiB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    rows = []
    for part in PARTS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (part,)))
    table = pd.DataFrame(rows, index=[f"1/{part}" if part > 1 else "U-NEED's size" for part in PARTS]).T
    print(table.map(lambda cell: f"{cell:.1f}" if cell % 1 else f"{cell:.0f}").to_string())
    stages = ["generate", "write", "read and check", "samples, candidates included", "candidates alone, once more"]
    per_dialogue = table.loc[stages] / table.loc["dialogues"]
    print("\nseconds per dialogue, the quarter's = 1")
    print(per_dialogue.div(per_dialogue.iloc[:, 0], axis=0).round(2).to_string())


if __name__ == "__main__":
    main()
