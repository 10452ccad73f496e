"""What the model learns from passes over the training set: scale, codebooks, code statistics."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.collectives import world_size
from vidseg.errors import DataError

from .retrieval import CodeStatistics, collect_statistics
from .samples import cut_document, naming_document, read_sample

__all__ = ["Batches", "Fitting"]

logger = logging.getLogger(__name__)

Batches = Callable[[], Iterable[list[dict[str, Any]]]]

_VECTORS_PER_CODE = 20


class Fitting(nn.Module):
    """When what is fitted, and the statistics of codes, which travel in the checkpoint.

    The scale of the features is taken before the first step. Codebooks are initialised by k-means
    when the share of the schedule that goes without quantisation is over; later training is by
    moving averages. Statistics of the codes, which retrieval needs, follow k-means and the end.

    Args:
        codebooks: shape ``(Q, K, V)``.
        warmup_fraction: share of the schedule that goes without quantisation, in [0, 1].
        min_vectors: that k-means gets at least, if the training set has as many; 0 for 20 K.

    Raises:
        ValueError: if the share lies outside [0, 1].
    """

    mean: Tensor
    document_frequency: Tensor
    num_documents: Tensor
    num_windows: Tensor

    def __init__(
        self, codebooks: tuple[int, int, int], *, warmup_fraction: float, min_vectors: int
    ) -> None:
        super().__init__()
        num_levels, size, width = codebooks
        if not 0 <= warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction {warmup_fraction} lies outside 0 to 1")
        self.warmup_fraction = warmup_fraction
        self.min_vectors = min_vectors or _VECTORS_PER_CODE * size
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("document_frequency", torch.zeros(num_levels, size))
        self.register_buffer("num_documents", torch.tensor(0))
        self.register_buffer("num_windows", torch.tensor(0))

    @property
    def statistics(self) -> CodeStatistics:
        """The statistics of the codes of the training set; zeros before they are taken."""
        return CodeStatistics(self.mean, self.document_frequency, int(self.num_documents))

    @torch.no_grad()
    def at_iteration(self, model: Any, iteration: int, max_iter: int, batches: Batches) -> bool:
        """Fits what is due; see ``META_ARCH_REGISTRY``.

        Args:
            model: a ``DocumentRQVAE`` or alike, see ``prediction.predict``.
            iteration: the next step.
            max_iter: number of steps.
            batches: gives a pass over the training documents.

        Returns:
            Whether anything was fitted.
        """
        is_unscaled = not model.standardisation.is_fitted
        first_quantised = math.ceil(self.warmup_fraction * max_iter)
        is_warm = iteration >= first_quantised
        is_unquantised = is_warm and not bool(model.rvq.initialized)
        is_training = model.training
        model.eval()
        if is_unscaled:
            self._fit_scale(model, batches)
            if not is_warm and not bool(model.rvq.initialized):
                logger.info("the first %d steps train without quantisation", first_quantised)
        if is_unquantised:
            self._fit_codebooks(model, batches)
        if is_unquantised or iteration == max_iter:
            self._fit_statistics(model, batches)
        model.train(is_training)
        return is_unscaled or is_unquantised or iteration == max_iter

    def _fit_scale(self, model: Any, batches: Batches) -> None:
        num_windows = 0

        def documents() -> Iterator[tuple[Tensor, Tensor | None]]:
            nonlocal num_windows
            for sample, features, mask in _documents(model, batches):
                with naming_document(sample):
                    num_windows += model.grid.count(len(features))
                yield features, mask

        model.standardisation.fit(documents())
        total = torch.tensor(num_windows, device=self.mean.device)
        if world_size() > 1:
            torch.distributed.all_reduce(total)
        self.num_windows.copy_(total)

    def _fit_codebooks(self, model: Any, batches: Batches) -> None:
        vectors = [self.mean.new_zeros(0, len(self.mean))]
        num_seen = num_gathered = 0
        for sample, features, mask in _documents(model, batches):
            num_seen += model.grid.count(len(features))
            # Documents are taken evenly from the whole set, no more than are needed.
            if num_gathered * int(self.num_windows) >= self.min_vectors * num_seen:
                continue
            with naming_document(sample):
                z, window_mask = model.latents(features, mask)
            vectors.append(z[window_mask])
            num_gathered += len(vectors[-1])
        logger.info(
            "codebooks: k-means of %d vectors on this process; from here on features are "
            "quantised, so the loss rises at first",
            num_gathered,
        )
        try:
            model.rvq.initialize(torch.cat(vectors))
        except ValueError as error:
            raise DataError(
                f"k-means: {error}: not one window of the training documents has the valid frames "
                "that it needs (MODEL.RQVAE.MIN_VALID_FRAMES)"
            ) from error

    def _fit_statistics(self, model: Any, batches: Batches) -> None:
        def documents() -> Iterator[tuple[Tensor, Tensor]]:
            for sample, features, mask in _documents(model, batches):
                with naming_document(sample):
                    z, window_mask = model.latents(features, mask)
                yield model.rvq.encode(z, window_mask), window_mask

        found = collect_statistics(documents(), model.rvq.codebooks)
        self.mean.copy_(found.mean)
        self.document_frequency.copy_(found.document_frequency)
        self.num_documents.fill_(found.num_documents)


def _documents(
    model: Any, batches: Batches
) -> Iterator[tuple[dict[str, Any], Tensor, Tensor | None]]:
    device = model.device
    for samples in batches():
        for sample in samples:
            features, mask = cut_document(*read_sample(sample, model.input_dim, device))
            yield sample, features, mask
