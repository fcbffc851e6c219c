"""Ranking a whole catalogue, samples/s: a batch at once with the 50 best picked, against sample by sample with a full sort."""

import random
import statistics
import time

import torch

from llmcrs_utils.systems.predictions import IN_CATALOGUE
from llmcrs_utils.tasks.answers import ranked, ranked_answer
from llmcrs_utils.tasks.candidates import CANDIDATES

ITEMS, SAMPLES, DIM, BATCH, REPEATS = 69_000, 1_000, 300, 64, 7  # U-NEED's items and test samples, UniMIND's embeddings
ONE_BY_ONE = 50  # samples of a repeat the slow way
EXPECTED = 5

Answers = list[dict]


def in_batches(users: torch.Tensor, catalogue: torch.Tensor, rows: list[dict], items: dict[str, int]) -> Answers:
    """As the systems do: one matrix product for the batch, the best of each row picked."""
    starts = range(0, len(rows), BATCH)
    return [answer for i in starts for answer in ranked(users[i : i + BATCH] @ catalogue.T, rows[i : i + BATCH], items)]


def one_by_one(users: torch.Tensor, catalogue: torch.Tensor, rows: list[dict], items: dict[str, int]) -> Answers:
    """Each sample by itself, all items sorted."""
    names, answers = list(items), []
    for user, row in zip(users, rows, strict=True):
        scores = catalogue @ user
        best = scores.sort(descending=True, stable=True).indices[:IN_CATALOGUE]
        own = scores[[items[item] for item in row["candidates"]]].sort(descending=True, stable=True)
        told = [names[column] for column in best.tolist()]
        answers.append(ranked_answer(row["candidates"], own.indices.tolist(), own.values.tolist(), "", told))
    return answers


def main(items: int = ITEMS, samples: int = SAMPLES) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    users, catalogue = torch.randn(samples, DIM), torch.randn(items, DIM)
    index = {f"item{number}": number for number in range(items)}
    names, generator = list(index), random.Random(1)
    rows = [{"candidates": generator.sample(names, CANDIDATES)} for _ in range(samples)]
    few = min(ONE_BY_ONE, samples)
    pairs = zip(in_batches(users[:few], catalogue, rows[:few], index), one_by_one(users[:few], catalogue, rows[:few], index), strict=True)
    agreeing = sum(one["catalogue"] == other["catalogue"] for one, other in pairs)
    assert agreeing >= 0.8 * few  # where two scores are all but equal, rounding may swap their items
    ways = {"in batches": (in_batches, samples), "one by one, sorted": (one_by_one, few)}
    seconds = {name: [] for name in ways}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets both
        for name, (way, count) in ways.items():
            start = time.perf_counter()
            way(users[:count], catalogue, rows[:count], index)
            seconds[name].append((time.perf_counter() - start) / count)
    print(f"{items} items, {samples} samples, in batches of {BATCH}: {samples * statistics.median(seconds['in batches']):.1f} s")
    for name, taken in seconds.items():
        print(f"{name:20}{1 / statistics.median(taken):8.1f} samples/s")
    ratios = sorted(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"{'ratio':20}{statistics.median(ratios):8.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}), expected: at least {EXPECTED}")


if __name__ == "__main__":
    main()
