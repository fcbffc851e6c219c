"""A linear-chain conditional random field (Lafferty et al. 2001) over tags that a network scores.

A sequence of tags weighs the exponential of the scores of its tags, of each step from one to the next, of its first and of its last.
Every step over time works on the whole batch at once, in float32 whatever the network computes in.
"""

import torch
from torch import Tensor, nn


class LinearChainCRF(nn.Module):
    """Scores of steps between ``n_tags`` tags, all 0 at first: where nothing was learned, each tag stands for itself.

    In all methods ``emissions`` [batch, length, n_tags] are the network's scores, ``mask`` [batch, length] (bool) says which
    positions are real; these come first in each row. A row without any is empty: its likelihood is 1.
    """

    def __init__(self, n_tags: int):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(n_tags))
        self.end = nn.Parameter(torch.zeros(n_tags))
        self.transitions = nn.Parameter(torch.zeros(n_tags, n_tags))  # [from, to]

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """[batch]: log-probability of ``tags`` [batch, length]; what stands behind the end does not count."""
        return self.score(emissions.float(), tags, mask) - self.log_partition(emissions.float(), mask)

    def score(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """[batch]: log-weight of one sequence of tags."""
        if not mask.shape[1]:
            return emissions.new_zeros(len(emissions))
        tags = tags.where(mask, 0)
        spoken = emissions.gather(2, tags[..., None]).squeeze(2).where(mask, 0).sum(dim=1)
        steps = self.transitions[tags[:, :-1], tags[:, 1:]].where(mask[:, 1:], 0).sum(dim=1)
        last = tags.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1)
        return (self.start[tags[:, 0]] + spoken + steps + self.end[last]).where(mask[:, 0], 0)

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """[batch]: log of the summed weight of all sequences of tags, by the forward algorithm."""
        if not mask.shape[1]:
            return emissions.new_zeros(len(emissions))
        reached = self.start + emissions[:, 0]  # [batch, n_tags]: of all ways that lead to this tag
        for step in range(1, mask.shape[1]):
            further = torch.logsumexp(reached[:, :, None] + self.transitions, dim=1) + emissions[:, step]
            reached = further.where(mask[:, step, None], reached)
        return torch.logsumexp(reached + self.end, dim=1).where(mask[:, 0], 0)

    def best_tags(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """[batch, length] int64: the likeliest sequence of tags (Viterbi), 0 behind its end."""
        if not mask.shape[1]:
            return mask.long()
        emissions = emissions.float()
        best = self.start + emissions[:, 0]
        stay = torch.arange(best.shape[1], device=best.device).expand_as(best)
        came_from = []  # of each step: [batch, n_tags], the tag before; behind the end the tag itself
        for step in range(1, mask.shape[1]):
            further, before = (best[:, :, None] + self.transitions).max(dim=1)
            real = mask[:, step, None]
            best = (further + emissions[:, step]).where(real, best)
            came_from.append(before.where(real, stay))
        tags = [(best + self.end).argmax(dim=1, keepdim=True)]
        for before in reversed(came_from):
            tags.append(before.gather(1, tags[-1]))
        return torch.cat(tags[::-1], dim=1).where(mask, 0)
