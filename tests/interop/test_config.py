"""Configs there and back, against a small stand-in for detectron2."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop import fake_package
from vidseg.config import CfgNode, get_cfg
from vidseg.config.node import leaves
from vidseg.errors import ConfigError
from vidseg.interop import detectron2 as d2


@pytest.fixture(autouse=True)
def _fake() -> Iterator[None]:
    with fake_package.installed():
        yield


def theirs() -> Any:
    from detectron2.config import get_cfg as theirs

    return theirs()


def typed(cfg: Any) -> dict[str, Any]:
    return {key: (type(value), value) for key, value in leaves(cfg)}


def test_a_project_config_comes_back_as_it_was(tiny_cfg: Callable[..., CfgNode]) -> None:
    cfg = tiny_cfg("dvis_daq", "offline")
    there = d2.to_d2_config(cfg)
    assert typed(cfg).items() <= typed(there).items()
    assert there.MODEL.RPN.POST_NMS_TOPK_TEST == 1000  # detectron2's own stays
    back = d2.from_d2_config(there)
    assert type(back) is CfgNode
    assert typed(back) == typed(cfg)


def test_nodes_are_detectron2s_own_and_closed(tiny_cfg: Callable[..., CfgNode]) -> None:
    there = d2.to_d2_config(tiny_cfg("dvis_daq"))
    kind = type(theirs())
    assert isinstance(there.MODEL.TRACKER, kind)
    with pytest.raises(AssertionError, match="Non-existent key"):
        there.merge_from_list(["MODEL.TRACKER.NO_SUCH_KEY", 1])


def test_values_are_not_shared() -> None:
    cfg = get_cfg()
    d2.to_d2_config(cfg).MODEL.RESNETS.OUT_FEATURES.append("res5")
    assert cfg.MODEL.RESNETS.OUT_FEATURES == ["res4"]


def test_auto_becomes_the_device_that_is_there() -> None:
    there = d2.to_d2_config(get_cfg())
    assert there.MODEL.DEVICE.partition(":")[0] in ("cpu", "cuda", "mps")
    assert d2.from_d2_config(there).MODEL.DEVICE == there.MODEL.DEVICE


def test_keys_of_others_survive_the_way_there_and_back(caplog: pytest.LogCaptureFixture) -> None:
    before = theirs()
    before.MODEL.RPN.POST_NMS_TOPK_TEST = 7
    before.MODEL.MY_IDEA = type(before)({"SIZE": 3, "NAMES": ("a",), "DEEP": {"ER": None}})
    before.DATASETS.TRAIN = ("mine",)
    with caplog.at_level(logging.WARNING):
        ours = d2.from_d2_config(before)
    assert "without effect: MODEL.RPN.POST_NMS_TOPK_TEST" in caplog.text
    assert ours.MODEL.MY_IDEA.DEEP.ER is None
    assert isinstance(ours.MODEL.MY_IDEA, CfgNode)
    assert ours.DATASETS.TRAIN == ("mine",)
    assert typed(before).items() <= typed(d2.to_d2_config(ours)).items()


def test_defaults_of_box_detectors_do_not_come_along() -> None:
    ours = d2.from_d2_config(theirs())
    assert set(dict(leaves(ours))) == set(dict(leaves(get_cfg())))
    assert ours.SEED == -1
    assert ours.SOLVER.STEPS == (30000,)


def test_a_value_that_does_not_fit_is_named() -> None:
    wrong = theirs()
    wrong.MODEL.RESNETS.DEPTH = "fifty"
    with pytest.raises(ConfigError, match=r"DEPTH wants int, got 'fifty' \(detectron2's config\)"):
        d2.from_d2_config(wrong)


def test_configs_of_vidseg_pass() -> None:
    cfg = get_cfg()
    assert d2.from_d2_config(cfg) is cfg
