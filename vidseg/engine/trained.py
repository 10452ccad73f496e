"""The trained model of a config, for whoever only uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vidseg.checkpoint import check_complete, find_run_weights, load_weights
from vidseg.config import CfgNode, load_config
from vidseg.errors import ConfigError
from vidseg.modeling import build_model

__all__ = ["load_trained", "loaded_config"]


def loaded_config(
    config: str | Path | CfgNode, overrides: Sequence[Any] = (), plugins: Sequence[str] = ()
) -> CfgNode:
    """Gives a config that may be loaded already.

    Args:
        config: yaml file, or a config already loaded.
        overrides: ``[KEY, VALUE, ...]``; they do not apply to a config already loaded.
        plugins: to load besides the config's own; likewise.

    Raises:
        UserError: if the config is wrong.
    """
    if not isinstance(config, CfgNode):
        return load_config(config, list(overrides), list(plugins))
    if overrides or plugins:
        raise ConfigError("overrides and plugins need a config file, not a loaded config")
    return config


def load_trained(cfg: CfgNode, weights: str | Path | None = None) -> nn.Module:
    """Builds the model of a config and loads its weights.

    Args:
        cfg: the config.
        weights: file; by default ``MODEL.WEIGHTS``, else what training with this config left in
            ``OUTPUT_DIR``.

    Raises:
        UserError: if there are no weights for a part of the model.
    """
    file = find_run_weights(weights or cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    model = build_model(cfg)
    check_complete(load_weights(model, file), model, file)
    return model
