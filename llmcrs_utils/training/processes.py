"""Work shared by the processes that run one notebook together (``accelerate launch``)."""

from collections.abc import Callable
from typing import Any


def share_out(positions: list[int], work: Callable[[list[int]], list[Any]]) -> list[Any]:
    """The results of ``work(positions)``, one per position and in order. Each of n processes works on every n-th position."""
    from accelerate import PartialState  # imported here, because it loads torch
    from accelerate.utils import gather_object

    state = PartialState()
    share = positions[state.process_index :: state.num_processes]
    pairs = list(zip(share, work(share), strict=True))
    if state.num_processes > 1:
        pairs = gather_object(pairs)
    results = dict(pairs)
    return [results[position] for position in positions]


def loss_weights(counts: list[int], device) -> list[float]:
    """Weights that make the mean of the processes' mean losses equal to the overall mean loss; 1.0 each in a single process.

    Args:
        counts: per loss, how many terms this process averages.
    """
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [1.0] * len(counts)
    totals = torch.tensor(counts, dtype=torch.float64, device=device)
    distributed.all_reduce(totals)
    share = [count / total if total else 0.0 for count, total in zip(counts, totals.tolist(), strict=True)]
    return [distributed.get_world_size() * part for part in share]
