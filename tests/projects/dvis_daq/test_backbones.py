"""Whole models on a Swin and on a ViT adapter: they train, and predict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vidseg.config import CfgNode
from vidseg.engine.build import build_initial_model
from vidseg.errors import DataError
from vidseg.modeling import build_model
from vidseg.modeling.backbone.dinov2 import DinoVisionTransformer
from vidseg.modeling.backbone.vit_adapter import VITS
from vidseg.structures import ClipInstances, VideoInstances

SWIN = (
    *("MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.SWIN.EMBED_DIM", 8),
    *("MODEL.SWIN.DEPTHS", [2, 2, 2, 2], "MODEL.SWIN.NUM_HEADS", [1, 2, 4, 8]),
    *("MODEL.SWIN.WINDOW_SIZE", 4),
)
VIT = (
    *("MODEL.BACKBONE.NAME", "D2VitAdapterDinoV2", "MODEL.VIT_ADAPTER.NAME", "toy"),
    *("MODEL.VIT_ADAPTER.VIT_WEIGHT", ""),
)


def clip(num_frames: int) -> dict[str, Any]:
    masks = torch.zeros(2, num_frames, 48, 70, dtype=torch.bool)
    masks[0, :, 4:20, 6:30] = masks[1, :, 20:40, 40:60] = True
    present = torch.ones(2, num_frames, dtype=torch.bool)
    return {
        "frames": torch.randint(0, 256, (num_frames, 3, 48, 70), dtype=torch.uint8),
        "height": 48,
        "width": 70,
        "video_id": 1,
        "instances": ClipInstances(masks, torch.tensor([0, 3]), present),
    }


@pytest.mark.parametrize("keys", [SWIN, VIT], ids=["swin", "vit"])
@pytest.mark.parametrize("stage", ["segmenter", "online", "offline"])
def test_one_step_and_a_prediction(
    stage: str,
    keys: tuple[Any, ...],
    tiny_cfg: Callable[..., CfgNode],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(VITS, "toy", {"width": 24, "depth": 4, "num_heads": 2})
    cfg = tiny_cfg("dvis_daq", stage, *keys)
    model = build_model(cfg).train()
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert any(n.startswith("backbone.") for n in learning) == (stage == "segmenter")
    losses = model([clip(1 if stage == "segmenter" else 3)])
    sum(losses.values()).backward()
    for name, parameter in learning.items():
        if name.startswith("backbone."):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert any(p.grad is not None and p.grad.any() for p in learning.values())
    before = {n: p.detach().clone() for n, p in learning.items()}
    torch.optim.AdamW(learning.values(), lr=1e-3).step()
    assert any(not torch.equal(p, before[n]) for n, p in learning.items())
    (found,) = model.eval()([clip(4)])
    assert isinstance(found, VideoInstances)
    assert found.masks_tensor().shape[1:] == (4, 48, 70)


def toy_vit_cfg(
    tiny_cfg: Callable[..., CfgNode], monkeypatch: pytest.MonkeyPatch, vit_file: Path
) -> CfgNode:
    monkeypatch.setitem(VITS, "toy", {"width": 24, "depth": 4, "num_heads": 2})
    vit = DinoVisionTransformer(24, 4, 2, patch_size=14)
    torch.save({n: torch.full_like(w, 0.5) for n, w in vit.state_dict().items()}, vit_file)
    return tiny_cfg("dvis_daq", "segmenter", *VIT, "MODEL.VIT_ADAPTER.VIT_WEIGHT", str(vit_file))


def test_training_from_nothing_starts_from_the_file_of_the_vit(
    tiny_cfg: Callable[..., CfgNode], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cfg = toy_vit_cfg(tiny_cfg, monkeypatch, tmp_path / "vit.pth")
    assert (build_initial_model(cfg).backbone.vit_module.cls_token == 0.5).all()
    # Weights of a segmenter with another backbone leave the ViT to its own file.
    other = tiny_cfg("dvis_daq", "segmenter", *SWIN)
    torch.save(build_model(other).state_dict(), tmp_path / "other.pth")
    model = build_initial_model(cfg, tmp_path / "other.pth")
    assert (model.backbone.vit_module.cls_token == 0.5).all()


def test_a_complete_checkpoint_needs_no_file_of_the_vit(
    tiny_cfg: Callable[..., CfgNode],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vit_file = tmp_path / "vit.pth"
    cfg = toy_vit_cfg(tiny_cfg, monkeypatch, vit_file)
    torch.save(build_model(cfg).state_dict(), tmp_path / "whole.pth")
    for content in (None, b"damaged"):
        vit_file.unlink() if content is None else vit_file.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            model = build_initial_model(cfg, tmp_path / "whole.pth", complete=True)
        assert not caplog.records
        assert not (model.backbone.vit_module.cls_token == 0.5).any()
    with pytest.raises(DataError, match=r"vit\.pth is damaged"):
        build_initial_model(cfg)
