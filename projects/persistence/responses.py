"""Scale-space responses of blobs: ``-sigma^2 (L_xx + L_yy)``, L the image behind a Gaussian.

Source: Lindeberg, "Feature Detection with Automatic Scale Selection", IJCV 1998. The filters are
those of ``scipy.ndimage.gaussian_laplace``: kernels cut off at 4 sigma, images continued by
reflection.
Shapes: T frames of H x W pixels, S scales.

Reflection makes every such filter diagonal in the cosine basis of an axis (DCT-II), so one product
with the basis of each axis leads there, S of them lead back, and a scale is a table of factors.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

__all__ = ["ScaleSpace", "exact_response", "kernel_radius"]

_TRUNCATE = 4.0  # sigmas at which the kernels end


class ScaleSpace:
    """Responses of frames of one size at several scales.

    Args:
        size: height and width of the frames in pixels.
        sigmas: of the Gaussians, in pixels.
        device: where the frames are.
    """

    def __init__(self, size: tuple[int, int], sigmas: np.ndarray, device: torch.device) -> None:
        self.size, self.sigmas = size, sigmas
        bases = [_cosine_basis(length) for length in size]
        factors = _factors(size, sigmas)
        self._rows, self._columns = (torch.from_numpy(b).float().to(device) for b in bases)
        self._factors = torch.from_numpy(factors).float().to(device)

    def __call__(self, grey: Tensor) -> Tensor:
        """Gives the responses.

        Args:
            grey: float32 ``(T, H, W)`` in [0, 1].

        Returns:
            float32 ``(T, S, H, W)``, within ``tolerance`` of those in exact arithmetic.
        """
        spectrum = self._rows @ grey @ self._columns.mT
        return self._rows.mT @ (spectrum[:, None] * self._factors) @ self._columns

    @property
    def tolerance(self) -> float:
        """Largest error of a response."""
        return 1e-5


def exact_response(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gives the response of one scale as ``blob_log`` computes it, to the last bit.

    Args:
        image: float64 ``(H, W)``.
        sigma: in pixels.

    Returns:
        float64 ``(H, W)``.
    """
    return -ndimage.gaussian_laplace(image, sigma, truncate=_TRUNCATE) * sigma**2


def kernel_radius(sigma: float) -> int:
    """Gives how far the kernel of a scale reaches, in pixels."""
    return int(_TRUNCATE * sigma + 0.5)


def _cosine_basis(length: int) -> np.ndarray:
    """Gives the orthonormal DCT-II, float64 ``(length, length)``, a row per frequency."""
    angles = np.pi / length * np.outer(np.arange(length), np.arange(length) + 0.5)
    basis = np.cos(angles) * np.sqrt(2 / length)
    basis[0] /= np.sqrt(2)
    return basis


def _factors(size: tuple[int, int], sigmas: np.ndarray) -> np.ndarray:
    """Gives what each scale multiplies the frequencies by, float64 ``(S, H, W)``."""
    rows, columns = ([_spectra(length, sigma) for sigma in sigmas] for length in size)
    return np.stack(
        [
            -(sigma**2) * (np.outer(curve_y, mean_x) + np.outer(mean_y, curve_x))
            for sigma, (mean_y, curve_y), (mean_x, curve_x) in zip(
                sigmas, rows, columns, strict=True
            )
        ]
    )


def _spectra(length: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gives the eigenvalues of Gaussian and second derivative, float64 ``(length,)`` each."""
    radius = kernel_radius(sigma)
    offsets = np.arange(-radius, radius + 1)
    impulse = (offsets == 0).astype(np.float64)
    angles = np.pi / length * np.outer(np.arange(length), offsets)
    kernels = (
        ndimage.gaussian_filter1d(impulse, sigma, order=order, mode="constant", truncate=_TRUNCATE)
        for order in (0, 2)
    )
    mean, curve = (np.cos(angles) @ kernel for kernel in kernels)
    return mean, curve
