"""Configuration: keys with defaults, YAML files with ``_BASE_``, overrides; never imports torch."""

from vidseg.config.defaults import get_cfg
from vidseg.config.load import load_config
from vidseg.config.node import CfgNode

__all__ = ["CfgNode", "get_cfg", "load_config"]
