"""What the rest of the model may expect of a backbone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from vidseg.structures import ShapeSpec

from .weights import load_backbone_weights, match_names

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """Base of feature extractors.

    Subclasses fill ``_shapes`` in their init and return a map for each of its names.
    """

    _shapes: dict[str, ShapeSpec]

    def train(self, mode: bool = True) -> Backbone:
        """Switches the learning parts; frozen ones keep running as in evaluation."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def frozen_parts(self) -> list[nn.Module]:
        """Gives the parts that do not train; they stay in eval mode."""
        return []

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Maps normalised frames ``(B, 3, H, W)`` to named maps, finest first."""
        raise NotImplementedError

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every map, finest first."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """What height and width must be divisible by; 0 for any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """More that detectron2's models may need to know of the size; nothing by default."""
        return {}

    @property
    def is_batch_invariant(self) -> bool:
        """Whether inference on a CPU gives a frame the same bits in every batch."""
        return False

    @property
    def unpublished(self) -> tuple[str, ...]:
        """Beginnings of names that files of this network alone do not hold."""
        return ()

    def match_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Brings weights of another framework into the names and shapes used here.

        Unknown names stay as they are.
        """
        return self.fit_pretrained(match_names(state, self.state_dict()))

    def fit_pretrained(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Brings weights of the right names into the shapes of this backbone, where that is sound.

        Args:
            state: of a file, already renamed.
        """
        return state

    def fill_missing(self, missing: Collection[str]) -> None:
        """Loads weights that this backbone's own keys name, for what no other file gave.

        Args:
            missing: names of parameters and buffers that are still as initialised.

        Raises:
            DataError: if a file is unusable or belongs to another network.
        """

    def load_pretrained(self, path: str | Path) -> list[str]:
        """Loads the weights of ``MODEL.BACKBONE.WEIGHTS``.

        Returns:
            Names in the file that this backbone does not have.

        Raises:
            DataError: if the file is unusable or belongs to another network.
        """
        return load_backbone_weights(self, path)
