"""Residual quantisation, against ``ResidualVQ`` of vector-quantize-pytorch.

Both sides start from the same codebooks; that they give the same codes is checked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .case import Case, Package, Run

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CASES"]

_DOCUMENTS, _WINDOWS, _LEVELS, _ENTRIES = 8, 42, 8, 512
_DECAY, _COMMITMENT = 0.9, 0.25
# A run of narrow vectors is over in a few milliseconds.
_CALLS = {1024: 2, 64: 10}

_PEER = Package("vector_quantize_pytorch", "pip install vector-quantize-pytorch")


def _prepare(width: int) -> tuple[Any, Any, Tensor]:
    """Makes our quantiser, the peer's with its codebooks, and vectors."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    from vidseg.projects.rqvae.quantizer import ResidualVectorQuantizerEMA

    ours = ResidualVectorQuantizerEMA(
        _ENTRIES, width, _LEVELS, _COMMITMENT, _DECAY, kmeans_init=False, revive_every=0
    ).eval()
    theirs: Any = ResidualVQ(
        dim=width,
        num_quantizers=_LEVELS,
        codebook_size=_ENTRIES,
        decay=_DECAY,
        commitment_weight=_COMMITMENT,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    ).eval()
    z = torch.randn(_DOCUMENTS, _WINDOWS, width)
    with torch.no_grad():
        for level, layer in enumerate(theirs.layers):
            # Levels shrink, as they do when they are trained.
            ours.codebooks[level] *= 0.8**level
            ours.cluster_sum[level] *= 0.8**level
            layer.codebook = ours.codebooks[level]
            layer._codebook.embed_avg.copy_(ours.cluster_sum[level])
            layer._codebook.cluster_size.fill_(1)
        z_q, _, codes = ours(z)
        their_z_q, their_codes, _ = theirs(z)
    if not torch.equal(codes, their_codes):
        raise AssertionError("the same codebooks give other codes than the peer's")
    torch.testing.assert_close(z_q, their_z_q, atol=1e-5, rtol=1e-5)
    return ours, theirs, z


def _quantize(width: int, *, is_ours: bool) -> Run:
    import torch

    ours, theirs, z = _prepare(width)
    module = ours if is_ours else theirs

    @torch.inference_mode()
    def run() -> object:
        return [module(z) for _ in range(_CALLS[width])]

    return run


def _train(width: int, *, is_ours: bool) -> Run:
    import torch

    ours, theirs, z = _prepare(width)
    module = (ours if is_ours else theirs).train()
    gradient = torch.randn_like(z)
    z.requires_grad_()

    def run() -> object:
        for _ in range(_CALLS[width]):
            z_q, *others = module(z)
            loss = next(value.sum() for value in others if value.is_floating_point())
            torch.autograd.grad([z_q, loss], z, [gradient, torch.ones(())])
        return None

    return run


def _cases(width: int, *, training: float, inference: float) -> tuple[Case, ...]:
    size = f"{_DOCUMENTS} x {_WINDOWS} vectors of {width}, {_LEVELS} codebooks of {_ENTRIES}"
    common: dict[str, Any] = {
        "peer": "ResidualVQ of vector-quantize-pytorch, same codebooks, same codes",
        "needs": (_PEER,),
        "repeats": 25,
        "warmups": 2,
    }
    return (
        Case(
            name=f"quantizer_{width}",
            about=f"training step with moving averages, {size}",
            bars={"cpu": training},
            ours=lambda: _train(width, is_ours=True),
            theirs=lambda: _train(width, is_ours=False),
            **common,
        ),
        Case(
            name=f"quantizer_{width}_eval",
            about=f"evaluation, {size}",
            bars={"cpu": inference},
            ours=lambda: _quantize(width, is_ours=True),
            theirs=lambda: _quantize(width, is_ours=False),
            **common,
        ),
    )


CASES = (
    *_cases(1024, training=2.0, inference=1.4),
    *_cases(64, training=2.4, inference=2.4),
)
