"""What ``CLIP`` of a config says of the text alignment, checked before anything is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidseg.errors import ConfigError, nearest

from .class_split import UNSEEN_MODES
from .contrast import T2V_MODES
from .text_matching import SMOOTHINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidseg.config import CfgNode

__all__ = ["AlignmentSettings"]

_CHOICES = {
    "feature": ("frame", "frame_noprob"),
    "t2v_mode": T2V_MODES,
    "unseen_mode": UNSEEN_MODES,
    "smoothing": SMOOTHINGS,
}


@dataclass(frozen=True)
class AlignmentSettings:
    """How frames are brought to text; for the fields see ``CLIP`` in ``config.py``.

    Attributes:
        blocks: numbers of blocks, counted from 0; the last one predicts.
        gamma: None: what was chosen in training, else 0.
    """

    proj_hidden: int = 512
    proj_dropout: float = 0.1
    feature: str = "frame_noprob"
    blocks: tuple[int, ...] = (0,)
    temperature: float = 0.07
    learn_temperature: bool = False
    weight: float = 1.0
    t2v_mode: str = "supcon"
    ignore_bg: bool = False
    unseen_mode: str = "mask"
    gamma: float | None = None
    smoothing: str = "none"
    min_duration: int = 1

    @classmethod
    def from_config(cls, cfg: CfgNode, num_blocks: int) -> AlignmentSettings:
        """Reads ``CLIP``.

        Args:
            cfg: of the run.
            num_blocks: of the network.

        Raises:
            ConfigError: if a value makes no sense; names the key.
        """
        node = cfg.CLIP
        for key, choices in _CHOICES.items():
            if node[key] not in choices:
                close = nearest(str(node[key]), choices) or list(choices)
                raise ConfigError(
                    f"CLIP.{key} is {node[key]!r}, expected one of {', '.join(choices)}; nearest: "
                    f"{close[0]}"
                )
        _check(node.proj_hidden >= 1, "proj_hidden", node, "set 1 or more")
        _check(0 <= node.proj_dropout < 1, "proj_dropout", node, "set a share in [0, 1)")
        _check(
            0 < node.temperature < math.inf, "temperature", node, "set a positive number, e.g. 0.07"
        )
        _check(node.weight >= 0, "weight", node, "set 0 or more")
        is_number = isinstance(node.gamma, int | float) and math.isfinite(node.gamma)
        _check(
            node.gamma is None or is_number,
            "gamma",
            node,
            "set a number, e.g. 0.2, or None for the one that was chosen in training",
        )
        _check(node.min_duration >= 1, "min_duration", node, "set 1 frame or more")
        _check(
            node.min_duration > 1 or node.smoothing not in ("median", "viterbi"),
            "min_duration",
            node,
            f"CLIP.smoothing {node.smoothing} changes nothing then: set 2 frames or more",
        )
        return cls(
            proj_hidden=node.proj_hidden,
            proj_dropout=node.proj_dropout,
            feature=node.feature,
            blocks=_block_numbers(node.blocks, num_blocks),
            temperature=node.temperature,
            learn_temperature=node.learn_temperature,
            weight=node.weight,
            t2v_mode=node.t2v_mode,
            ignore_bg=node.ignore_bg,
            unseen_mode=node.unseen_mode,
            gamma=None if node.gamma is None else float(node.gamma),
            smoothing=node.smoothing,
            min_duration=node.min_duration,
        )


def _check(holds: bool, key: str, node: CfgNode, way_out: str) -> None:
    if not holds:
        raise ConfigError(f"CLIP.{key} is {node[key]}; {way_out}")


def _block_numbers(blocks: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    for block in blocks:
        if not -num_blocks <= block < num_blocks:
            raise ConfigError(
                f"CLIP.blocks names block {block}, but FACT.block has {num_blocks}: 0 to "
                f"{num_blocks - 1}, or -1 for the last"
            )
    numbers = tuple(block % num_blocks for block in blocks)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"CLIP.blocks is {list(blocks)}; name one block or several different ones"
        )
    return numbers
