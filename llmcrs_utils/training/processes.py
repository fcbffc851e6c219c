"""One notebook run by several processes at once (``accelerate launch``): who writes, and who does which share."""

from collections.abc import Callable
from typing import Any


def share_out(positions: list[int], work: Callable[[list[int]], list[Any]]) -> list[Any]:
    """``work(positions)``, one result per position and in their order; of n processes each works on every n-th position."""
    from accelerate import PartialState  # needs torch, which those who only write files do not
    from accelerate.utils import gather_object

    state = PartialState()
    mine = positions[state.process_index :: state.num_processes]
    done = list(zip(mine, work(mine), strict=True))
    if state.num_processes > 1:
        done = gather_object(done)
    results = dict(done)
    return [results[position] for position in positions]


def loss_weights(counts: list[int], device) -> list[float]:
    """What this process's means count for, so that the mean over processes is the mean over all that was counted; 1 alone."""
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [1.0] * len(counts)
    totals = torch.tensor(counts, dtype=torch.float64, device=device)
    distributed.all_reduce(totals)
    share = [count / total if total else 0.0 for count, total in zip(counts, totals.tolist(), strict=True)]
    return [distributed.get_world_size() * part for part in share]
