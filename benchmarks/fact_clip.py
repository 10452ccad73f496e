"""FACT at the size of the published Breakfast settings, against the published layers and losses.

The peer runs layer by layer (``fact_reference``, which a test holds to recorded values of the
published code). Both sides have the same weights, as a fresh network draws them; masking is off, so
that they also have the same losses. Features are noise: an untrained network cuts them into some
hundred segments, more than a trained one.
Shapes: T frames, D input channels, C classes, M tokens, S segments.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .case import Case, Run

if TYPE_CHECKING:
    from torch import Tensor

    from vidseg.config import CfgNode

__all__ = ["CASES"]

_INPUT_DIM, _CLASSES = 2048, 48
_SEGMENTS = 7  # of a Breakfast video, on average
_OVERRIDES = ("FACT.cmr", "0", "TM.use", "False", "Loss.nullw", "0.0235")
_RECIPE = Path(__file__).parents[1] / "projects/fact_clip/configs/breakfast.yaml"
_BACKGROUND = [0]


def _config() -> CfgNode:
    from vidseg.config import load_config

    return load_config(_RECIPE, list(_OVERRIDES))


def _video(num_frames: int, num_segments: int = _SEGMENTS) -> tuple[Tensor, Tensor]:
    """Makes features float32 ``(T, D)`` and labels int64 ``(T,)``."""
    import torch

    generator = torch.Generator().manual_seed(1)
    features = torch.randn(num_frames, _INPUT_DIM, generator=generator)
    return features, _labels(num_frames, num_segments)


def _labels(num_frames: int, num_segments: int) -> Tensor:
    """Makes equally long segments, no two neighbours of one class."""
    import torch

    return torch.arange(num_frames) * num_segments // num_frames * 5 % _CLASSES


def _their_model(cfg: CfgNode) -> Any:
    import torch

    from .fact_reference import ReferenceFACT

    torch.manual_seed(0)
    return ReferenceFACT(cfg, _INPUT_DIM, _CLASSES)


def _our_model(cfg: CfgNode) -> Any:
    """Builds ours with the weights that the peer draws."""
    from vidseg.checkpoint import load_weights
    from vidseg.projects.fact_clip.model import FACT

    model = FACT(cfg, _INPUT_DIM, _CLASSES)
    report = load_weights(model, _their_model(cfg).state_dict())
    if report.missing or report.unexpected or report.mismatched:
        raise AssertionError(f"the peer's weights are not ours: {report}")
    return model


def _ours_loss(model: Any, features: Tensor, labels: Tensor) -> Tensor:
    sample = {"features": features, "labels": labels, "video_id": "video", "length": len(labels)}
    losses: dict[str, Tensor] = model([sample])
    return sum(losses.values(), start=features.new_zeros(()))


def _theirs_loss(model: Any, features: Tensor, labels: Tensor) -> Tensor:
    from .fact_reference_losses import reference_loss

    return reference_loss(model(features), labels, _CLASSES, _BACKGROUND, _config().Loss)


def _train(num_frames: int, *, is_ours: bool, checks: bool = False) -> Run:
    import torch

    cfg = _config()
    video = _video(num_frames)
    model = (_our_model if is_ours else _their_model)(cfg).train()
    loss_of = _ours_loss if is_ours else _theirs_loss
    if checks and is_ours:
        with torch.no_grad():
            theirs = _theirs_loss(_their_model(cfg).train(), *video)
            torch.testing.assert_close(loss_of(model, *video), theirs, atol=0, rtol=1e-4)

    def run() -> object:
        model.zero_grad()
        loss = loss_of(model, *video)
        loss.backward()
        return loss

    return run


def _evaluate(num_frames: int, *, is_ours: bool) -> Run:
    import torch

    cfg = _config()
    features, _ = _video(num_frames)
    theirs = _their_model(cfg).eval()

    @torch.inference_mode()
    def run_theirs() -> Tensor:
        labels: Tensor = theirs.predict(features)
        return labels

    if not is_ours:
        return run_theirs
    ours = _our_model(cfg).eval()

    @torch.inference_mode()
    def run_ours() -> Tensor:
        (prediction,) = ours([{"features": features, "video_id": "video", "length": num_frames}])
        labels: Tensor = prediction.labels
        return labels

    # Noise leaves classes nearly equal here and there.
    agreed = (run_ours() == run_theirs()).float().mean()
    if agreed < 0.99:
        raise AssertionError(f"only {agreed:.1%} of the frames have the peer's class")
    return run_ours


def _criterion(num_frames: int, num_tokens: int, num_segments: int, *, is_ours: bool) -> Run:
    """Matching, losses and their gradients for given logits of one update block."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def logits(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    labels = _labels(num_frames, num_segments)
    leaves = {
        "frame": logits(num_frames, _CLASSES),
        "token": logits(num_tokens, _CLASSES + 1),
        "f2a": logits(num_tokens, num_frames),
        "a2f": logits(num_frames, num_tokens),
    }
    loss_of = _ours_criterion() if is_ours else _theirs_criterion

    def run() -> object:
        return torch.autograd.grad(loss_of(leaves, labels), list(leaves.values()))

    return run


def _ours_criterion() -> Any:
    from vidseg.projects.fact_clip.blocks import BlockOutput
    from vidseg.projects.fact_clip.criterion import MatchCriterion

    criterion = MatchCriterion(_config(), _CLASSES, _BACKGROUND)

    def loss_of(leaves: dict[str, Tensor], labels: Tensor) -> Tensor:
        block = BlockOutput(
            frame_features=leaves["frame"],
            token_features=leaves["token"],
            frame_logits=leaves["frame"],
            token_logits=leaves["token"],
            f2a_logits=leaves["f2a"],
            a2f_logits=leaves["a2f"],
            f2a_weights=leaves["f2a"].softmax(-1),
            a2f_weights=leaves["a2f"].softmax(-1),
        )
        losses: dict[str, Tensor] = criterion([block], labels)
        return sum(losses.values(), start=leaves["frame"].new_zeros(()))

    return loss_of


def _theirs_criterion(leaves: dict[str, Tensor], labels: Tensor) -> Tensor:
    from .fact_reference_losses import reference_loss

    block = {
        "frame_clogit": leaves["frame"][:, None],
        "action_clogit": leaves["token"][:, None],
        "f2a_attn_logit": leaves["f2a"][None],
        "a2f_attn_logit": leaves["a2f"][None],
        "a2f_attn": leaves["a2f"].softmax(-1)[None],
    }
    return reference_loss([block], labels, _CLASSES, _BACKGROUND, _config().Loss)


def _train_case(name: str, num_frames: int, bars: dict[str, float], repeats: int) -> Case:
    # The check would be part of the peak.
    side = functools.partial(_train, num_frames, checks="peak" not in bars)
    return Case(
        name=name,
        about=f"forward, losses and backward of one video of {num_frames} frames of {_INPUT_DIM}, "
        f"blocks iuUU, 512 wide, 60 tokens, {_CLASSES} classes",
        peer="the published layers and losses, one after the other; the same weights",
        bars=bars,
        ours=functools.partial(side, is_ours=True),
        theirs=functools.partial(side, is_ours=False),
        repeats=repeats,
    )


_LONG = (20000, 300, 300)
_EPIC = (5000, 300, 165)

CASES = (
    _train_case("fact_train", 3000, {"cpu": 1.5, "peak": 0.7}, 3),
    _train_case("fact_train_short", 300, {"cpu": 1.0}, 7),
    Case(
        name="fact_eval",
        about=f"prediction of a video of 3000 frames of {_INPUT_DIM}, the same network",
        peer="the published layers; the same weights and classes",
        bars={"cpu": 1.5},
        ours=lambda: _evaluate(3000, is_ours=True),
        theirs=lambda: _evaluate(3000, is_ours=False),
        repeats=5,
    ),
    Case(
        name="fact_criterion",
        about="matching, losses and their gradients, {} frames, {} tokens, {} segments".format(
            *_EPIC
        ),
        peer="the published losses, with an array of frames x tokens x segments",
        bars={"cpu": 5.0, "peak": 0.35},
        ours=lambda: _criterion(*_EPIC, is_ours=True),
        theirs=lambda: _criterion(*_EPIC, is_ours=False),
        repeats=3,
    ),
    Case(
        name="fact_criterion_growth",
        about="matching, losses and their gradients, {} frames, {} tokens, {} segments".format(
            *_LONG
        ),
        peer="the same with 3 segments",
        # An array of all three would be ten times both.
        bars={"peak": 1.1},
        ours=lambda: _criterion(*_LONG, is_ours=True),
        theirs=lambda: _criterion(*_LONG[:2], 3, is_ours=True),
        repeats=1,
        warmups=0,
    ),
)
