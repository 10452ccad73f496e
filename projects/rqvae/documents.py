"""What the model gives for a document: its codes, and how well they describe it.

Shapes: T frames, D input width, V code width, N windows, Q codebooks, K entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["DocumentCodes", "DocumentPrediction"]


@dataclass
class DocumentCodes:
    """A document as discrete codes.

    Args:
        codes: ``(N, Q)`` int64; -1 where a window is masked or a level unused.
        window_mask: ``(N,)`` bool, True where a window has enough valid frames.
        num_frames: length of the document, by which the decoder restores it.
        meta: what else is known, plain json, such as ``id``.
    """

    codes: Tensor
    window_mask: Tensor
    num_frames: int
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class DocumentPrediction:
    """Codes of a document with what an evaluation needs of it; all tensors are on the CPU.

    Errors and energies are of standardised features, in squared units summed over their width.

    Args:
        tokens: the codes.
        num_frames: valid frames.
        input_dim: D.
        frame_errors: ``(Q + 1, T)`` float32, squared error of every frame: row 0 without
            quantisation, row q with the first q levels. Zero where a frame is masked.
        frame_energy: ``(T,)`` float32, squared norm of every frame, zero where masked.
        feature_sum: ``(D,)`` float64, sum of the valid frames.
        latent_error: sum over valid windows of the squared distance of latent and code, and of
            latent and the mean latent of the training set.
        frame_mask: ``(T,)`` bool, True where a frame is valid.
        windows: ``(N, V)`` dequantised windows, zeros where masked.
        vectors: descriptors for retrieval by name of the method, see ``retrieval``.
    """

    tokens: DocumentCodes
    num_frames: int
    input_dim: int
    frame_errors: Tensor
    frame_energy: Tensor
    feature_sum: Tensor
    latent_error: tuple[float, float]
    frame_mask: Tensor
    windows: Tensor
    vectors: dict[str, Tensor] = field(default_factory=dict)
