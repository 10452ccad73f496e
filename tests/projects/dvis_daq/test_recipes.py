"""The shipped recipes have the published values, key by key, and chain into one command."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.golden_utils import GOLDEN, flat, plain
from vidseg.config.load import _Builder
from vidseg.config.node import leaves
from vidseg.config.published import PUBLISHED
from vidseg.config.source import read_file
from vidseg.engine.chain import plan_stages

RECIPES = Path(__file__).resolve().parents[3] / "projects" / "dvis_daq" / "configs"
RESOLVED = GOLDEN / "dvis_daq_training" / "config_resolved"

# Recipe to the published file that it stands for.
COUNTERPARTS = {
    **{
        f"{data}/{backbone}/{stage}": f"dvis_Plus/{data}/{file}"
        for data in ("ovis", "ytvis19", "ytvis21")
        for backbone, stage, file in (
            ("r50", "segmenter", "MinVIS_R50.yaml"),
            ("r50", "ctvis", "CTVIS_R50.yaml"),
            ("vit_l", "segmenter", "vit_adapter/MinVIS_VitAdapterL.yaml"),
            ("vit_l", "ctvis", "vit_adapter/CTVIS_VitAdapterL.yaml"),
        )
    },
    **{
        f"{data}/{backbone}/{stage}": f"dvis_daq/{data}/{file}"
        for data in ("ovis", "ytvis19", "ytvis21")
        for backbone, stage, file in (
            ("r50", "online", "DAQ_Online_R50.yaml"),
            ("swin_l", "online", "DAQ_Online_SwinL.yaml"),
            ("vit_l", "online", "vit_adapter/DAQ_Online_VitAdapterL.yaml"),
            ("vit_l", "offline", "vit_adapter/DAQ_Offline_VitAdapterL.yaml"),
        )
    },
    "ovis/r50/offline": "dvis_daq/ovis/DAQ_Offline_R50.yaml",
}
# What has no published file is another cell of the table with the difference between two more.
DERIVED = {
    **{
        f"{data}/swin_l/segmenter": (
            f"dvis_Plus/{data}/MinVIS_R50.yaml",
            f"dvis_daq/{data}/DAQ_Online_R50.yaml",
            f"dvis_daq/{data}/DAQ_Online_SwinL.yaml",
        )
        for data in ("ovis", "ytvis19", "ytvis21")
    },
    **{
        f"{data}/{backbone}/offline": (
            f"dvis_daq/{data}/DAQ_Online_{name}.yaml",
            "dvis_daq/ytvis19/vit_adapter/DAQ_Online_VitAdapterL.yaml",
            "dvis_daq/ytvis19/vit_adapter/DAQ_Offline_VitAdapterL.yaml",
        )
        for data in ("ytvis19", "ytvis21")
        for backbone, name in (("r50", "R50"), ("swin_l", "SwinL"))
    },
    "ovis/swin_l/offline": (
        "dvis_daq/ovis/DAQ_Online_SwinL.yaml",
        "dvis_daq/ovis/DAQ_Online_R50.yaml",
        "dvis_daq/ovis/DAQ_Offline_R50.yaml",
    ),
}
ALLOWED = {
    "MODEL.DEVICE": "auto: the published default needs an accelerator",
    "OUTPUT_DIR": "one folder per recipe",
    "MODEL.VIT_ADAPTER.VIT_WEIGHT": "under the name that its authors host it by",
    "INPUT.LSJ_AUG.IMAGE_SIZE": "large-scale jitter is off",
}
ALLOWED_IN_STAGES = {
    "segmenter": ("MODEL.VIDEO_HEAD.", "a frame segmenter has no tracker that reads them"),
    "ctvis": ("MODEL.VIDEO_HEAD.", "a frame segmenter has no tracker that reads them"),
    "online": ("MODEL.WEIGHTS", "comes from the stage before"),
    "offline": ("MODEL.WEIGHTS", "comes from the stage before"),
}
READ_BY_BACKBONES = ("MODEL.SWIN.", "MODEL.VIT_ADAPTER.")


@cache
def published(name: str) -> dict[str, Any]:
    values = dict(flat(json.loads((RESOLVED / "defaults.json").read_text())))
    return values | dict(flat(json.loads((RESOLVED / "resolved.json").read_text())[name]))


def expected(recipe: str) -> dict[str, Any]:
    if recipe in COUNTERPARTS:
        return published(COUNTERPARTS[recipe])
    start, before, after = map(published, DERIVED[recipe])
    return start | {key: after[key] for key in after if after[key] != before[key]}


def ours(recipe: str) -> dict[str, Any]:
    builder = _Builder(["dvis_daq"])
    for item in read_file(RECIPES / f"{recipe}.yaml"):
        builder.assign(item)
    without_effect = {key: entry.default for key, entry in PUBLISHED.items()} | builder.ignored
    return {
        key: plain(v) for key, v in {**without_effect, **dict(leaves(builder.finish()))}.items()
    }


def recipes() -> list[str]:
    files = RECIPES.glob("*/*/*.yaml")
    return sorted(str(file.relative_to(RECIPES).with_suffix("")) for file in files)


def test_every_recipe_is_compared() -> None:
    assert recipes() == sorted([*COUNTERPARTS, *DERIVED])


@pytest.mark.parametrize("recipe", recipes())
def test_values_are_the_published_ones(recipe: str) -> None:
    values = ours(recipe)
    allowed, _ = ALLOWED_IN_STAGES[recipe.split("/")[-1]]
    for key, value in expected(recipe).items():
        unread = key in PUBLISHED and not key.startswith(READ_BY_BACKBONES)
        if key not in ALLOWED and not key.startswith(allowed) and not unread:
            assert values[key] == value, key


@pytest.mark.parametrize("recipe", [name for name in recipes() if name.endswith("/offline")])
def test_one_command_trains_all_stages(recipe: str) -> None:
    stages = plan_stages(str(RECIPES / f"{recipe}.yaml"))
    first = "segmenter" if "/swin_l/" in recipe else "ctvis"
    assert [stage.name for stage in stages] == [first, "online", "offline"]
    assert [bool(stage.cfg.MODEL.WEIGHTS) for stage in stages] == [True, False, False]
    folder = recipe.removesuffix("/offline")
    assert [str(s.output_dir) for s in stages] == [f"output/{folder}/{s.name}" for s in stages]
