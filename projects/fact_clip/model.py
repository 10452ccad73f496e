"""FACT, frame-action cross-attention for action segmentation (Lu and Elhamifar, CVPR 2024).

Shapes: D input width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidseg.config import CfgNode
from vidseg.modeling import META_ARCH_REGISTRY

from .background import background_classes
from .criterion import MatchCriterion
from .segmenter import ActionSegmenter
from .settings import settings_of

__all__ = ["FACT"]


@META_ARCH_REGISTRY.register()
class FACT(ActionSegmenter):
    """Segments videos into actions by a frame branch and action tokens; see ``ActionSegmenter``.

    Args:
        cfg: reads ``FACT``, ``Bi``, ``Bu``, ``BU``, ``Loss``, ``TM``, ``bg_class`` and
            ``average_transcript_len``; left as it is.
        input_dim: D.
        n_classes: C, background included.
        classes: names of the classes, if they are known.

    Raises:
        ConfigError: if values are out of range or contradict each other.
    """

    def __init__(
        self, cfg: CfgNode, input_dim: int, n_classes: int, *, classes: Sequence[str] = ()
    ) -> None:
        background = background_classes(cfg.bg_class, classes or list(map(str, range(n_classes))))
        super().__init__(
            settings_of(cfg, n_classes + 1),
            input_dim,
            n_classes,
            criterion=MatchCriterion(cfg, n_classes, background),
            classes=classes,
            standardize=cfg.FACT.standardize,
            mean_matched=cfg.average_transcript_len,
        )
