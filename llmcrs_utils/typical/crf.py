"""A linear-chain conditional random field (Lafferty et al. 2001) over tags that a network scores.

The log-weight of a sequence of tags is a sum of scores: the network's score of each tag, and the chain's scores of the first tag,
of each transition and of the last tag. Every time step works on the whole batch at once, in float32 for any dtype of the network.
"""

import torch
from torch import Tensor, nn


class LinearChainCRF(nn.Module):
    """Scores of transitions between ``n_tags`` tags. All are 0 at first, so that tags are independent before training.

    In all methods ``emissions`` [batch, length, n_tags] are the network's scores, and ``mask`` [batch, length] (bool) is true for
    real positions, which come first in each row. A row without real positions is an empty sequence; its likelihood is 1.
    """

    def __init__(self, n_tags: int):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(n_tags))
        self.end = nn.Parameter(torch.zeros(n_tags))
        self.transitions = nn.Parameter(torch.zeros(n_tags, n_tags))  # [from, to]

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """[batch]: log-probability of ``tags`` [batch, length]. Tags after the end of a sequence are ignored."""
        return self.score(emissions.float(), tags, mask) - self.log_partition(emissions.float(), mask)

    def score(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """[batch]: log-weight of one sequence of tags per row."""
        if not mask.shape[1]:
            return emissions.new_zeros(len(emissions))
        tags = tags.where(mask, 0)
        emitted = emissions.gather(2, tags[..., None]).squeeze(2).where(mask, 0).sum(dim=1)
        steps = self.transitions[tags[:, :-1], tags[:, 1:]].where(mask[:, 1:], 0).sum(dim=1)
        last = tags.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1)
        return (self.start[tags[:, 0]] + emitted + steps + self.end[last]).where(mask[:, 0], 0)

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """[batch]: log of the sum of the weights of all sequences of tags, by the forward algorithm."""
        if not mask.shape[1]:
            return emissions.new_zeros(len(emissions))
        reached = self.start + emissions[:, 0]  # [batch, n_tags]: log-weight of all paths that end in this tag
        for step in range(1, mask.shape[1]):
            further = torch.logsumexp(reached[:, :, None] + self.transitions, dim=1) + emissions[:, step]
            reached = further.where(mask[:, step, None], reached)
        return torch.logsumexp(reached + self.end, dim=1).where(mask[:, 0], 0)

    def best_tags(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """[batch, length] int64: the most likely sequence of tags (Viterbi), 0 after its end."""
        if not mask.shape[1]:
            return mask.long()
        emissions = emissions.float()
        best = self.start + emissions[:, 0]
        stay = torch.arange(best.shape[1], device=best.device).expand_as(best)
        came_from = []  # per step [batch, n_tags]: the best tag before; after the end of a sequence, the tag itself
        for step in range(1, mask.shape[1]):
            further, before = (best[:, :, None] + self.transitions).max(dim=1)
            real = mask[:, step, None]
            best = (further + emissions[:, step]).where(real, best)
            came_from.append(before.where(real, stay))
        tags = [(best + self.end).argmax(dim=1, keepdim=True)]
        for before in reversed(came_from):
            tags.append(before.gather(1, tags[-1]))
        return torch.cat(tags[::-1], dim=1).where(mask, 0)
