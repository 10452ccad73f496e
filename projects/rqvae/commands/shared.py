"""What the commands have in common: the trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidseg.commands import build_trained
from vidseg.errors import UserError

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["build"]


def build(cfg: CfgNode, weights: str) -> Any:
    """Builds the model of a config with trained weights, in eval mode.

    Raises:
        UserError: if there are no weights, they do not fit, or the model makes no codes.
    """

    def check(model: Any) -> None:
        if not hasattr(model, "rvq"):
            raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} makes no codes; give a config of rqvae")

    return build_trained(cfg, weights, check)
