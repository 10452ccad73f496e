"""MyIdea: its loss, and that a model of its config trains and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vidseg.projects.my_idea as project
from vidseg.config import load_config
from vidseg.modeling import build_model
from vidseg.projects.my_idea.model import steady_loss
from vidseg.structures import ClipInstances, VideoInstances

CONFIG = Path(project.__file__).with_name("my_idea.yaml")


def make_model(*overrides: object) -> Any:
    return build_model(load_config(CONFIG, ["MODEL.DEVICE", "cpu", *overrides]))


def make_clip(frames: Tensor) -> dict[str, Any]:
    """Gives a clip ``(T, 3, H, W)`` with one object at rest."""
    masks = torch.zeros(1, len(frames), *frames.shape[-2:], dtype=torch.bool)
    masks[..., 8:24, 8:24] = True
    instances = ClipInstances(
        masks, torch.tensor([2]), torch.ones(1, len(frames), dtype=torch.bool)
    )
    height, width = frames.shape[-2:]
    return {"frames": frames, "instances": instances, "height": height, "width": width}


def noise(num_frames: int) -> Tensor:
    return torch.randint(0, 256, (num_frames, 3, 32, 64), dtype=torch.uint8)


def test_the_loss_follows_the_links() -> None:
    logits, embeds = torch.randn(1, 4, 3), torch.eye(4)[None]
    order = torch.tensor([2, 0, 3, 1])
    logits = torch.cat([logits, logits[:, order]])
    assert steady_loss(logits, torch.cat([embeds, embeds[:, order]])) == 0
    assert steady_loss(logits, torch.cat([embeds, embeds])) > 0
    assert steady_loss(logits[:1], embeds) == 0


def test_the_loss_counts_links() -> None:
    sure = torch.tensor([[[50.0, 0.0]], [[0.0, 50.0]]])
    assert float(steady_loss(sure, torch.ones(2, 1, 3))) == pytest.approx(2)
    assert float(steady_loss(torch.cat([sure, sure[1:]]), torch.ones(3, 1, 3))) == pytest.approx(1)


def test_it_trains() -> None:
    model = make_model()
    losses = model([make_clip(noise(2)), make_clip(noise(1))])
    assert losses["loss_steady"] > 0
    sum(losses.values()).backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None]
    assert not [name for name in missing if name.startswith("backbone")]
    assert all(torch.isfinite(v.grad).all() for v in model.parameters() if v.grad is not None)


def test_without_its_weight_the_loss_is_left_out() -> None:
    model = make_model("MODEL.MY_IDEA.STEADY_WEIGHT", 0.0)
    assert "loss_steady" not in model([make_clip(noise(2))])


def test_it_predicts_at_the_size_asked_for() -> None:
    model = make_model().eval()
    (result,) = model([{"frames": noise(3), "height": 48, "width": 96}])
    assert isinstance(result, VideoInstances)
    assert (result.num_frames, result.image_size) == (3, (48, 96))
