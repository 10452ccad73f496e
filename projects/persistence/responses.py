"""Scale-space responses of blobs: ``-sigma^2 (L_xx + L_yy)``, L the image behind a Gaussian.

Source: Lindeberg, "Feature Detection with Automatic Scale Selection", IJCV 1998. The filters are
those of ``scipy.ndimage.gaussian_laplace``: kernels cut off at 4 sigma, images continued by
reflection.
Shapes: T frames of H x W pixels, S scales; B pixels of a tile, K of its support.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

__all__ = [
    "CosineResponses",
    "ScaleSpace",
    "TiledResponses",
    "exact_response",
    "kernel_radius",
    "scale_space",
]

_TRUNCATE = 4.0  # sigmas at which the kernels end
_TILE = 32  # pixels
_LARGEST_DENSE = 160  # pixels of an axis up to which the cosine basis is faster


class ScaleSpace(ABC):
    """Responses of frames of one size at several scales.

    Args:
        size: height and width of the frames in pixels.
        sigmas: of the Gaussians, in pixels, float64 ``(S,)``.
        device: where the frames are.
    """

    tolerance = 1e-5
    """Largest error of a response; ten times what the worst images are seen to give."""

    def __init__(self, size: tuple[int, int], sigmas: np.ndarray, device: torch.device) -> None:
        self.size, self.sigmas, self.device = size, sigmas, device
        # Products of float32 may be told to round their factors, and such errors would be seen.
        exact = torch.get_float32_matmul_precision() == "highest"
        self.dtype = torch.float32 if exact else torch.float64

    def __call__(self, grey: Tensor) -> Tensor:
        """Gives the responses.

        Args:
            grey: float32 ``(T, H, W)`` in [0, 1].

        Returns:
            float32 ``(T, S, H, W)``.
        """
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self._respond(grey.to(self.dtype)).float()

    @abstractmethod
    def _respond(self, grey: Tensor) -> Tensor:
        """Computes the responses in ``dtype``."""

    def _constant(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, self.dtype)


class CosineResponses(ScaleSpace):
    """Responses by the cosine basis of each axis (DCT-II), where reflecting filters are diagonal.

    One product with each basis leads there, S of them lead back, and a scale is a table of factors.
    """

    def __init__(self, size: tuple[int, int], sigmas: np.ndarray, device: torch.device) -> None:
        super().__init__(size, sigmas, device)
        self._rows, self._columns = (self._constant(_cosine_basis(length)) for length in size)
        self._factors = self._constant(_factors(size, sigmas))

    def _respond(self, grey: Tensor) -> Tensor:
        spectrum = self._rows @ grey @ self._columns.mT
        return self._rows.mT @ (spectrum[:, None] * self._factors) @ self._columns


class TiledResponses(ScaleSpace):
    """Responses by separable convolution, tile by tile, each a product with a banded matrix.

    The work per pixel does not grow with the frame; of small frames it is more than that of
    ``CosineResponses``.
    """

    def __init__(self, size: tuple[int, int], sigmas: np.ndarray, device: torch.device) -> None:
        super().__init__(size, sigmas, device)
        self._reach = kernel_radius(max(sigmas))
        continued = [
            np.pad(np.arange(length), (self._reach, self._reach - length % -_TILE), "symmetric")
            for length in size
        ]
        self._rows, self._columns = (torch.from_numpy(index).to(device) for index in continued)
        self._bands = [[self._constant(_band(k)) for k in _kernels(sigma)] for sigma in sigmas]

    def _respond(self, grey: Tensor) -> Tensor:
        padded = grey[:, self._rows][:, :, self._columns]
        height, width = self.size
        responses = grey.new_empty(len(grey), len(self.sigmas), height, width)
        for scale, (mean, curve) in enumerate(self._bands):
            support = mean.shape[1]
            trim = self._reach - (support - _TILE) // 2  # what smaller kernels need no margin for
            image = padded[:, trim : padded.shape[1] - trim, trim : padded.shape[2] - trim]
            tiles = image.unfold(2, support, _TILE).transpose(1, 2)  # (T, W / B, H', K)
            # A matrix for each tile, though all are the same, spares the copy of the tiles.
            bands = (band.mT.expand(*tiles.shape[:2], -1, -1) for band in (mean, curve))
            means, curves = (
                (tiles @ band).transpose(1, 2).flatten(2).unfold(1, support, _TILE).mT
                for band in bands
            )  # (T, H / B, K, W')
            response = (curve @ means + mean @ curves).flatten(1, 2)
            responses[:, scale] = response[:, :height, :width]
        return responses


def scale_space(size: tuple[int, int], sigmas: np.ndarray, device: torch.device) -> ScaleSpace:
    """Builds what is fastest for a size; for the arguments see ``ScaleSpace``."""
    kind = CosineResponses if max(size) <= _LARGEST_DENSE else TiledResponses
    return kind(size, sigmas, device)


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
    tables = []
    for sigma in sigmas:
        (mean_y, curve_y), (mean_x, curve_x) = (_spectra(length, sigma) for length in size)
        tables.append(np.outer(curve_y, mean_x) + np.outer(mean_y, curve_x))
    return np.stack(tables)


def _spectra(length: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gives the eigenvalues of the filters of ``_kernels``, float64 ``(length,)`` each."""
    radius = kernel_radius(sigma)
    angles = np.pi / length * np.outer(np.arange(length), np.arange(-radius, radius + 1))
    mean, curve = (np.cos(angles) @ kernel for kernel in _kernels(sigma))
    return mean, curve


def _kernels(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gives the Gaussian and ``-sigma^2`` times its second derivative, float64 ``(2 R + 1,)``."""
    radius = kernel_radius(sigma)
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    mean, curve = (
        ndimage.gaussian_filter1d(impulse, sigma, order=order, mode="constant", truncate=_TRUNCATE)
        for order in (0, 2)
    )
    return mean, -(sigma**2) * curve


def _band(kernel: np.ndarray) -> np.ndarray:
    """Gives the matrix that filters a tile from its support, float64 ``(B, K)``."""
    band = np.zeros((_TILE, _TILE + len(kernel) - 1))
    for row in range(_TILE):
        band[row, row : row + len(kernel)] = kernel
    return band
