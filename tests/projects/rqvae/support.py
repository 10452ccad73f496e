"""Small models and documents for the tests of RQ-VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vidseg.projects.rqvae import DocumentRQVAE

WIDTH = 12

FULL: dict[str, Any] = {
    "heads": 2,
    "position_bias": True,
    "window_projection": True,
    "overlap_add": True,
    "overlap_add_dim": 8,
    "local_memory": True,
    "encoder_context": 6,
    "decoder_context": 6,
}
"""What the shipped presets turn on; the plain module has none of it."""

GLOBAL: dict[str, Any] = {"pooling_type": "global"}


def build(*, fitted: bool = True, **settings: Any) -> DocumentRQVAE:
    """Builds a small model in eval mode, the same for the same settings."""
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "input_dim": WIDTH,
        "latent_dim": 32,
        "codebook_size": 16,
        "num_codebooks": 8,
        "window_size": 10,
        "window_stride": 4,
        "max_seq_len": 128,
        "num_encoder_layers": 2,
        "num_decoder_layers": 4,
        "nhead": 4,
        "dropout": 0.0,
        "code_dim": 8,
        "quantizer": {"kmeans_init": True},
    }
    model = DocumentRQVAE(**{**given, **settings})
    if fitted:
        model.standardisation.fit([(3 * torch.randn(500, WIDTH) + 5, None)])
        model.rvq.initialize(torch.randn(400, model.rvq.codebooks.shape[2]))
    return model.eval()


def document(length: int, seed: int = 0) -> Tensor:
    """Gives ``(length, WIDTH)`` features away from mean 0 and variance 1."""
    rng = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(length, WIDTH, generator=rng) + 5


def padded(documents: list[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Puts documents into a batch of a length; what stands in the padding is not zero."""
    x = torch.full((len(documents), length, WIDTH), 7.0)
    mask = torch.zeros(len(documents), length, dtype=torch.bool)
    for row, one in enumerate(documents):
        x[row, : len(one)] = one
        mask[row, : len(one)] = True
    return x, mask
