"""Configuration: keys with defaults, YAML files with ``_BASE_``, overrides; never imports torch."""

from vidseg.config.defaults import get_cfg
from vidseg.config.load import as_config, load_config
from vidseg.config.node import CfgNode

__all__ = ["CfgNode", "as_config", "get_cfg", "load_config"]
