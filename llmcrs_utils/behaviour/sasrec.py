"""Causal self-attention over a shopper's behaviour (Kang and McAuley 2018). Every system that reads behaviour uses it."""

import torch
from torch import Tensor, nn


class SASRec(nn.Module):
    """Computes a shopper's state after the last action. Its input is embedded items, so that systems can share the embeddings."""

    def __init__(self, dim: int, max_history: int, layers: int = 2, heads: int = 2, dropout: float = 0.2):
        super().__init__()
        self.positions = nn.Embedding(max_history, dim)
        nn.init.normal_(self.positions.weight, std=0.02)  # torch's default of 1.0 would dominate the items
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            dim, heads, dim_feedforward=dim, dropout=dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            embedded: [batch, slots, dim], oldest action first, padded on the right.
            lengths: [batch], number of real actions.

        Returns:
            [batch, dim]: the state after the last real action; zeros for a shopper without behaviour.
        """
        batch, slots, _ = embedded.shape
        if slots == 0:
            return embedded.new_zeros(batch, embedded.shape[-1])
        states = self.states(embedded)
        last = states[torch.arange(batch, device=states.device), (lengths - 1).clamp(min=0)]
        return torch.where((lengths > 0)[:, None], last, torch.zeros_like(last))

    def states(self, embedded: Tensor) -> Tensor:
        """[batch, slots, dim]: the state after each action. ``embedded`` is as for ``forward``, with at least one slot."""
        slots = embedded.shape[1]
        # Real slots come first, so with a causal mask none of them sees padding.
        future = torch.ones(slots, slots, dtype=torch.bool, device=embedded.device).triu(1)
        states = self.norm(embedded + self.positions.weight[:slots])
        return self.layers(self.dropout(states), mask=future)
