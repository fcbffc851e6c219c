"""Batches of similar length, limited by a number of examples or by a budget of tokens."""

import random
from collections.abc import Iterator

ROUNDED_TO = 16  # a batch's length is a multiple of this in training, so that memory and kernels see few shapes


def grouped(lengths: list[int], most: int = 0, tokens: int = 0) -> list[tuple[int, int]]:
    """(start, end) of each batch of examples that are sorted by length, the longest first.

    Args:
        most: most examples of a batch; 0: no limit.
        tokens: most tokens of a batch, padding included; 0: no limit. An example that is longer has a batch of its own.
    """
    batches, start = [], 0
    for place in range(1, len(lengths) + 1):
        count = place + 1 - start
        full = (most and count > most) or (tokens and count * rounded(lengths[start]) > tokens)
        if place == len(lengths) or full:
            batches.append((start, place))
            start = place
    return batches


def rounded(length: int) -> int:
    return -(-length // ROUNDED_TO) * ROUNDED_TO


class TokenBatchSampler:
    """Batches by a budget of tokens, in another order in every epoch; with several processes, this process's share of them.

    Examples of similar length share a batch; among those of one length the seed decides.
    """

    def __init__(self, lengths: list[int], tokens: int, seed: int, shuffled: bool, processes: int = 1, process: int = 0):
        order = list(range(len(lengths)))
        random.Random(seed).shuffle(order)
        order.sort(key=lambda place: -lengths[place])
        batches = [order[start:end] for start, end in grouped([lengths[place] for place in order], tokens=tokens)]
        while len(batches) % processes and max(map(len, batches)) > 1:  # every process needs as many
            largest = max(batches, key=len)
            batches.remove(largest)
            batches += [largest[::2], largest[1::2]]
        self.batches, self.seed, self.shuffled, self.processes, self.process, self.epoch = batches, seed, shuffled, processes, process, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches) // self.processes

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.batches)
        if self.shuffled:
            random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        yield from order[self.process :: self.processes][: len(self)]
