"""Every config key of the project is read by what is built of a config."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vidseg.config import CfgNode, load_config
from vidseg.config.node import leaves
from vidseg.data import Metadata
from vidseg.data.mappers import mapper_class
from vidseg.evaluation import EVALUATOR_REGISTRY
from vidseg.modeling import build_model

OVERRIDES = (
    *("FACT.input_dim", "4", "FACT.n_classes", "3", "MODEL.DEVICE", "cpu", "FACT.block", "iuU"),
    *("Bi.hid_dim", "16", "Bi.a_dim", "8", "Bi.a_nhead", "2", "Bi.f_dim", "8", "Bi.f_ngp", "1"),
    *("Bi.f_layers", "2", "Bi.a_layers", "1", "Bi.a_ffdim", "8", "TM.use", "True"),
)


class Watched(CfgNode):
    """Notes which values are asked for."""

    reads: ClassVar[set[str]] = set()

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if not isinstance(value, CfgNode):
            self.reads.add(f"{self.__dict__['_prefix']}{key}")
        return value

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def clone(self) -> Watched:
        return watched(self, self.__dict__["_prefix"])


def watched(node: CfgNode, prefix: str = "") -> Watched:
    copy = Watched()
    copy.__dict__["_prefix"] = prefix
    for key, value in node.items():
        is_group = isinstance(value, CfgNode)
        dict.__setitem__(copy, key, watched(value, f"{prefix}{key}.") if is_group else value)
    return copy


@pytest.fixture
def reads() -> Iterator[set[str]]:
    Watched.reads.clear()
    yield Watched.reads
    Watched.reads.clear()


def test_every_key_is_read(reads: set[str], tmp_path: Path) -> None:
    plain = load_config(None, OVERRIDES, ["fact_clip"])
    for architecture in ("FACT", "FACT_CLIP"):
        cfg = watched(plain)
        dict.__setitem__(cfg.MODEL, "META_ARCHITECTURE", architecture)
        build_model(cfg)
        for is_train in (True, False):
            mapper_class("action_frames").from_config(cfg, is_train=is_train)
    metadata = Metadata("some", classes=["a", "b", "c"])
    EVALUATOR_REGISTRY.get("action_segmentation").from_config(watched(plain), metadata, tmp_path)
    keys = {key for key, _ in leaves(plain) if not key.rpartition(".")[2].isupper()}
    assert len(keys) > 70
    # Read where a list of pairs is asked for, by FACTVerbNoun.
    assert keys - reads == {"FACT.verb_noun"}
