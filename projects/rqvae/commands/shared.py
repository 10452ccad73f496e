"""What the commands have in common: the trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["build"]


def build(cfg: CfgNode, weights: str) -> Any:
    """Builds the model of a config with trained weights, in eval mode.

    Raises:
        UserError: if there are no weights, they do not fit, or the model makes no codes.
    """
    from vidseg.checkpoint import check_complete, find_run_weights, load_weights
    from vidseg.errors import UserError
    from vidseg.modeling import build_model

    file = find_run_weights(weights or cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    model: Any = build_model(cfg)
    if not hasattr(model, "rvq"):
        raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} makes no codes; give a config of rqvae")
    check_complete(load_weights(model, file), model, file)
    return model.eval()
