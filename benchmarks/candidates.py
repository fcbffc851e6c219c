"""Candidates of a recommendation, samples/s: drawn from the catalogue's pools, against a scan of the knowledge table per item."""

import random
import statistics
import time

import pandas as pd

from llmcrs_utils.corpus.schema import Corpus
from llmcrs_utils.tasks.candidates import CANDIDATES, build_catalogue
from llmcrs_utils.tasks.samples import dialogue_samples
from llmcrs_utils.text.prompts import CHINESE
from llmcrs_utils.world import generate

SCANNED, DRAWN, REPEATS = 8, 800, 7  # samples of a chunk the slow way, the fast way; chunks
EXPECTED = 100


def full_size_corpus() -> Corpus:
    """A catalogue of U-NEED's size: 69,000 items in 345 shops. Few dialogues will do: no scan reads them."""
    return generate({"train": 800}, sellers_per_category=69, items_per_seller=200, actions_per_dialogue=0.0)[0]


def scan(knowledge: pd.DataFrame, gold: str, seller: str, generator: random.Random) -> list[str]:
    """As the published code finds them: of the whole table the rows of the shop, of these the items, but for the gold one."""
    items = knowledge[knowledge["seller_id_encrypt"] == seller]["item_id_encrypt"].unique().tolist()
    items.remove(gold)
    candidates = [gold, *generator.sample(items, CANDIDATES - 1)]
    generator.shuffle(candidates)
    return candidates


def per_sample(way, samples: list[dict]) -> float:
    """Seconds a sample takes."""
    start = time.perf_counter()
    answers = [way(sample) for sample in samples]
    seconds = time.perf_counter() - start
    for sample, answer in zip(samples, answers, strict=True):
        assert len(set(answer)) == CANDIDATES and sample["label"] in answer
    return seconds / len(samples)


def main() -> None:
    corpus = full_size_corpus()
    start = time.perf_counter()
    catalogue = build_catalogue(corpus, CHINESE)
    once = time.perf_counter() - start
    dialogues = [dialogue for split in corpus.dialogues.values() for dialogue in split]
    samples = [s for dialogue in dialogues for s in dialogue_samples(dialogue, CHINESE) if s["task"] == "recommend"]
    knowledge = corpus.knowledge.astype(object)  # Python strings, as the published code holds them
    generator = random.Random(1)

    def draw(sample: dict) -> list[str]:
        return catalogue.candidates(
            sample["sid"], sample["seq_no"], sample["label"], sample["seller_id"], sample["given"], sample["others"]
        )

    ways = {
        "from the pools": (draw, DRAWN),
        "a scan per item": (lambda sample: scan(knowledge, sample["label"], sample["seller_id"], generator), SCANNED),
    }
    print(f"{len(catalogue.items)} items, {len(corpus.knowledge)} tuples; the catalogue, made once, takes {once:.1f} s")
    seconds = {name: [] for name in ways}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets both
        for name, (way, count) in ways.items():
            seconds[name].append(per_sample(way, generator.sample(samples, count)))
    for name, taken in seconds.items():
        print(f"{name:18}{1 / statistics.median(taken):8.1f} samples/s")
    ratios = sorted(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"{'ratio':18}{statistics.median(ratios):8.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}), expected: at least {EXPECTED}")


if __name__ == "__main__":
    main()
