"""Class logits that ride on features: the last channels of a branch's output.

Shapes: N rows (frames, segments or tokens), H feature width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ClassHead"]


class ClassHead(nn.Module):
    """Reads the last C channels (C + 1 of tokens) of features as class logits.

    It has no weights; blocks of a network share one. Another head, e.g. of verbs and nouns, offers
    the same methods.

    Args:
        num_classes: C; the null class of tokens is index C.

    Source: FACT (Lu and Elhamifar, CVPR 2024) and its code, ``process_feature``.
    """

    class_mask: Tensor | None

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("class_mask", None, persistent=False)

    def frames(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the logits of frames or segments.

        Args:
            features: ``(N, H)``.

        Returns:
            Features ``(N, H)`` with probabilities in place of the logits, and logits ``(N, C)``,
            which are -inf where ``class_mask`` is False.
        """
        return self._split(features, self.class_mask)

    def tokens(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`frames`, of tokens: logits ``(N, C + 1)`` with the null class last."""
        mask = self.class_mask
        return self._split(
            features, None if mask is None else nn.functional.pad(mask, (0, 1), value=True), 1
        )

    def scores(self, features: Tensor) -> Tensor:
        """Gives the class probabilities ``(N, C)`` that features of frames ``(N, H)`` carry."""
        return features[:, -self.num_classes :]

    def _split(
        self, features: Tensor, mask: Tensor | None, extra: int = 0
    ) -> tuple[Tensor, Tensor]:
        width = features.shape[1] - self.num_classes - extra
        logits = features[:, width:]
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        probabilities = logits.float().softmax(-1).to(features.dtype)
        return torch.cat([features[:, :width], probabilities], 1), logits
