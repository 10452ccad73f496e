"""Recorded runs of FACT under ``tests/golden/fact``: configs, weights, tensors and tolerances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tests.golden_utils import GOLDEN, GoldenCase, flat, rule_state_dict
from vidseg.config import CfgNode, get_cfg
from vidseg.projects.fact_clip.config import add_config
from vidseg.projects.fact_clip.network import FactNetwork
from vidseg.projects.fact_clip.settings import settings_of

ATOL = 1e-4  # logits and attention, absolute
LOSS_RTOL = 1e-4
GRADIENT_RTOL = 2e-3
MODEL_CASES = ("iuUU_o2o", "iuU_mstcn_ln", "iuUU_o2m", "transcript_sca", "transcript_gru_om")

_UNUSED = ("TM.inplace",)  # in-place masking of features, which the project never does


@dataclass(frozen=True)
class FactCase(GoldenCase):
    """A folder of ``tests/golden/fact``."""

    @cached_property
    def cfg(self) -> CfgNode:
        """The recorded settings in the project's config."""
        return fact_cfg(self.config.read_text())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Numbers in the head of the recorded config: ``nclass``, ``in_dim``, ``bg_class``."""
        heads = (line[2:].partition(": ") for line in self.config.read_text().splitlines()[:3])
        return {name: yaml.safe_load(value) for name, _, value in heads}

    def features(self, video: int = 0) -> Tensor:
        """Features of a video, ``(T, D)``."""
        return self.inputs[f"v{video}_seq"]

    def labels(self, video: int = 0) -> Tensor:
        """Labels of a video, ``(T,)``."""
        return self.inputs[f"v{video}_label"]

    def transcript(self, video: int = 0) -> Tensor:
        """Classes of the video's segments, ``(S,)``."""
        return self.labels(video).unique_consecutive()

    def output(self, name: str, *, block: int | None = None, video: int = 0) -> Tensor:
        """A recorded tensor, e.g. ``frame_clogit`` of a block, or ``loss`` of a video."""
        part = "" if block is None else f"b{block}_"
        return self.outputs[f"v{video}_{part}{name}"]

    def network(self) -> FactNetwork:
        """The network of the recorded run with its weights, in evaluation mode."""
        settings = settings_of(self.cfg, self.facts["nclass"] + 1)
        network = FactNetwork(settings, self.facts["in_dim"], self.facts["nclass"])
        fill(network)
        return network.eval()


def load_fact_case(name: str) -> FactCase:
    """A case by its folder, e.g. ``"iuUU_o2o"``."""
    folder = GOLDEN / "fact" / name
    assert folder.is_dir(), f"no golden case {folder}"
    return FactCase(folder)


def fact_cfg(text: str | Path) -> CfgNode:
    """The defaults of the project, changed by the keys of a recorded config."""
    cfg = get_cfg()
    add_config(cfg)
    tree = yaml.safe_load(text.read_text() if isinstance(text, Path) else text)
    for key, value in flat(tree):
        if key not in _UNUSED:
            cfg.merge_from_list([key, value])
    return cfg


def fill(module: torch.nn.Module) -> None:
    """Gives every weight the value that follows from its name and shape."""
    named = [(name, tensor.shape) for name, tensor in module.state_dict().items()]
    module.load_state_dict(rule_state_dict(named), strict=True)
