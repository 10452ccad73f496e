"""A plain multi-layer perceptron."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from .onednn import Linear

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear layers with a ReLU between them (none after the last).

    Args:
        in_dim: width of the input.
        hidden_dim: width of every inner layer.
        out_dim: width of the output.
        num_layers: number of linear layers, at least 1.

    Shape:
        - input ``(..., in_dim)``
        - output ``(..., out_dim)``

    Raises:
        ValueError: if ``num_layers`` is below 1.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"an MLP needs at least one layer, got num_layers={num_layers}")
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layers in order; see the class for shapes."""
        for layer in self.layers[:-1]:
            x = layer(x, relu=True)
        return self.layers[-1](x)
