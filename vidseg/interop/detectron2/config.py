"""Configs of vidseg as detectron2's, and back.

Names, types and meanings of shared keys are the same in both: nothing is converted but the device.
"""

from __future__ import annotations

import copy
from typing import Any

from vidseg.config import CfgNode
from vidseg.config.load import adopt_config
from vidseg.config.node import leaves
from vidseg.modeling import resolve_device

from .available import require

__all__ = ["from_d2_config", "to_d2_config"]


def to_d2_config(cfg: CfgNode) -> Any:
    """Gives a config of detectron2 with the values of a vidseg config.

    Args:
        cfg: of vidseg, with the keys of any projects, which are kept.

    Returns:
        A detectron2 ``CfgNode``: its defaults where vidseg has no such key. Unknown keys are errors
        in it, as in any. ``MODEL.DEVICE auto`` becomes the device that is there.

    Raises:
        ImportError: if detectron2 is absent.
    """
    theirs = require("config").get_cfg()
    for key, value in leaves(cfg):
        _put(theirs, key, value)
    if cfg.MODEL.DEVICE == "auto":
        theirs.MODEL.DEVICE = str(resolve_device(cfg))
    return theirs


def from_d2_config(cfg: Any) -> CfgNode:
    """Gives a vidseg config with the values of a config of detectron2.

    Args:
        cfg: of detectron2, with whatever keys its projects added; one of vidseg stays as it is.

    Returns:
        The core's keys and those of the projects whose keys are there. What vidseg does not read
        is in the tree, too, if it is not as detectron2 has it by default: ``to_d2_config`` gives
        all of ``cfg`` back. What was set and has no effect is logged.

    Raises:
        ConfigError: if a value does not fit its key.
        ImportError: if detectron2 is absent.
    """
    if isinstance(cfg, CfgNode):
        return cfg
    values = dict(leaves(cfg))
    ours = adopt_config(values, source="detectron2's config")
    defaults = dict(leaves(require("config").get_cfg()))
    for key, value in values.items():
        if not ours.has(key) and (key not in defaults or defaults[key] != value):
            _put(ours, key, value)
    return ours


def _put(cfg: Any, key: str, value: Any) -> None:
    *groups, name = key.split(".")
    node = cfg
    for group in groups:
        if group not in node:
            node[group] = type(cfg)()
        node = node[group]
    value = copy.deepcopy(value)
    if isinstance(node.get(name), list | tuple) and isinstance(value, list | tuple):
        value = type(node[name])(value)
    node[name] = value
