"""MyIdea: its maps, and that a model of its config trains and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vidseg.projects.my_idea as project
from vidseg.config import load_config
from vidseg.errors import ConfigError
from vidseg.modeling import build_model
from vidseg.projects.my_idea.backbone import MyIdea
from vidseg.structures import ClipInstances

CONFIG = Path(project.__file__).with_name("my_idea.yaml")


def test_maps_are_as_promised() -> None:
    backbone = MyIdea(width=6, depth=1)
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert list(maps) == list(backbone.output_shape())
    for name, shape in backbone.output_shape().items():
        size = (64 // shape.stride, 96 // shape.stride)
        assert maps[name].shape == (2, shape.channels, *size)


def test_a_pixel_reaches_only_what_is_near() -> None:
    """Before the blocks, which look around, a stage cuts the picture into squares."""
    backbone = MyIdea(width=4, depth=1)
    frames = torch.zeros(1, 3, 64, 64)
    changed = frames.clone()
    changed[..., 5, 9] = 1
    cut = backbone.stages[0][0]
    where = (cut(changed) - cut(frames)).abs().sum(1)[0].nonzero()
    assert where.tolist() == [[1, 2]]


@pytest.mark.parametrize("key", ["WIDTH", "DEPTH"])
def test_sizes_below_one_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"MY_IDEA\.{key} is 0; set 1 or more"):
        MyIdea(**{key.lower(): 0})


def test_a_model_of_the_config_trains_and_predicts() -> None:
    model: Any = build_model(load_config(CONFIG, ["MODEL.DEVICE", "cpu"]))
    frames = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    masks[..., 16:40, 16:40] = True
    instances = ClipInstances(masks, torch.tensor([1]), torch.ones(1, 1, dtype=torch.bool))
    sample = {"frames": frames, "height": 64, "width": 64, "instances": instances}
    losses = model([sample])
    sum(losses.values()).backward()
    grads = [value.grad for value in model.backbone.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    (result,) = model.eval()([{"frames": frames, "height": 60, "width": 50}])
    assert (result.num_frames, result.image_size) == (1, (60, 50))
