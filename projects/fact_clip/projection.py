"""Frame features to unit vectors in the space of the text embeddings."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FeatureProjection"]


class FeatureProjection(nn.Module):
    """Linear, layer norm, ReLU, drop-out, linear, L2 norm.

    Args:
        input_dim: width of the frame features.
        embed_dim: E, width of the text embeddings.
        hidden_dim: inner width.
        dropout: share of the inner channels that are dropped in training, in [0, 1).
    """

    def __init__(
        self, input_dim: int, embed_dim: int, *, hidden_dim: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Projects ``(..., input_dim)`` to unit vectors ``(..., E)``."""
        hidden = self.dropout(F.relu(self.norm(self.fc1(x))))
        return F.normalize(self.fc2(hidden), dim=-1, eps=1e-12)
