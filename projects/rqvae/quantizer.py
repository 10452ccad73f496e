"""Residual vector quantisation with codebooks that follow the data by moving averages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import zip_longest

import torch
from torch import Generator, Tensor, distributed, nn

from vidseg.collectives import is_main, world_size

from .gradients import commitment, rotate
from .kmeans import draw, kmeans
from .nearest import nearest
from .rows import gather_rows, place

__all__ = ["GRADIENTS", "ResidualVectorQuantizerEMA"]

logger = logging.getLogger(__name__)

GRADIENTS = ("straight_through", "rotation")
# Of noise around repeated vectors: of their size, and at least of the size of what is quantised.
_NOISE, _LEAST_NOISE = 0.1, 1e-3
_LEAST_VECTORS_PER_CODE = 3
_LOOKS_PER_LINE = 20  # for dead codes, between two log lines


class ResidualVectorQuantizerEMA(nn.Module):
    """Quantises vectors level by level, each level what the levels before it left over.

    Codebooks are no parameters but moving averages of the vectors that chose their entries (van den
    Oord et al., 2017, appendix A.1; in levels: Zeghidour et al., SoundStream, 2021). They and
    whether they are initialised travel with the checkpoint. While they are not, which is so with
    ``kmeans_init`` until :meth:`initialize`, nothing is quantised: vectors pass as they are, with a
    loss of 0 and codes -1.

    A vector's codes do not depend on the others of its batch. Everything is computed in the dtype
    of the codebooks, float32 or, after ``.double()``, float64, under autocast as well. With several
    processes the codebooks follow the vectors of all and stay the same in each.

    Args:
        num_embeddings: K, entries of a codebook.
        embedding_dim: V, width of the vectors.
        num_layers: Q, levels.
        commitment_cost: weight of the loss that keeps vectors near their quantised ones.
        decay: of the moving averages.
        kmeans_init: wait for :meth:`initialize`; otherwise start from random normal entries, which
            revival replaces by vectors of the data where they are not used.
        kmeans_iters: steps of k-means.
        revive_every: training steps between revivals of dead codes; 0 for never.
        revive_threshold: a code is dead below this share of its level's mean usage.
        gradient: ``"straight_through"``, or ``"rotation"`` (Fifty et al., 2024), which turns and
            scales the gradient as the vector has to be turned and scaled to the quantised one.
        dropout: how often a training batch is quantised by a random number of levels only.
        eps: of the Laplace smoothing of the entries' usage.

    Raises:
        ValueError: if a setting is out of its range.
    """

    codebooks: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    initialized: Tensor
    num_updates: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        num_layers: int,
        commitment_cost: float = 0.25,
        decay: float = 0.9,
        *,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        revive_every: int = 20,
        revive_threshold: float = 0.1,
        gradient: str = "straight_through",
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if min(num_embeddings, embedding_dim, num_layers) < 1:
            raise ValueError(
                f"{num_layers} codebooks of {num_embeddings} entries of width {embedding_dim}: "
                "each number must be 1 or more"
            )
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of the codebooks is {decay}; it must be in [0, 1)")
        if not 0 <= dropout <= 1:
            raise ValueError(f"the quantiser's dropout is {dropout}; it must be in [0, 1]")
        if gradient not in GRADIENTS:
            raise ValueError(f"there is no gradient {gradient!r}; choose of {', '.join(GRADIENTS)}")
        self.commitment_cost = commitment_cost
        self.decay = decay
        self.kmeans_iters = kmeans_iters
        self.revive_every = revive_every
        self.revive_threshold = revive_threshold
        self.gradient = gradient
        self.dropout = dropout
        self.eps = eps
        self.num_revived = 0
        self._revived_of_late: list[int] = []
        self._next_told = 0
        self._is_decay_checked = False
        shape = (num_layers, num_embeddings, embedding_dim)
        entries = torch.zeros(shape) if kmeans_init else torch.randn(shape)
        self.register_buffer("codebooks", entries)
        self.register_buffer("cluster_size", torch.ones(shape[:2]))
        self.register_buffer("cluster_sum", entries.clone())
        self.register_buffer("initialized", torch.tensor(not kmeans_init))
        self.register_buffer("num_updates", torch.tensor(0))

    @property
    def usage(self) -> Tensor:
        """Each entry's share of its level's vectors of late, ``(Q, K)``."""
        return self.cluster_size / self.cluster_size.sum(1, keepdim=True)

    def extra_repr(self) -> str:
        """Names the sizes when the module is printed."""
        levels, entries, width = self.codebooks.shape
        return f"num_embeddings={entries}, embedding_dim={width}, num_layers={levels}"

    def forward(
        self, z: Tensor, mask: Tensor | None = None, num_quantizers: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantises vectors; in training the codebooks follow them afterwards.

        Args:
            z: ``(..., V)``.
            mask: ``(...)`` bool, True for the vectors that count; None for all.
            num_quantizers: how many levels to use; None for all, less the dropout in training.

        Returns:
            ``(z_q, loss, codes)``: quantised vectors ``(..., V)``, zeros where masked; the
            commitment loss times its weight; codes ``(..., Q)`` int64, -1 where masked or of a
            level that is not used.

        Raises:
            ValueError: if there are not so many levels, or the shapes do not fit.
        """
        levels = self._draw_levels() if num_quantizers is None else self._check(num_quantizers)
        rows = self._rows(z, mask)
        codes = torch.full((len(rows), len(self.codebooks)), -1, dtype=torch.int64, device=z.device)
        if not self.initialized:
            return place(rows, z, mask, 0), rows.new_zeros(()), place(codes, z, mask, -1)
        with torch.autocast(z.device.type, enabled=False):
            quantized, residuals = torch.zeros_like(rows), [rows.detach()]
            for level, (found, entries, residual) in enumerate(self._descend(rows, levels)):
                codes[:, level] = found
                quantized += entries
                residuals.append(residual)
            loss = self.commitment_cost * commitment(rows, residuals[1:])
            if self.training:
                self._follow(residuals[:-1], codes[:, :levels].t().contiguous())
            if torch.is_grad_enabled() and rows.requires_grad:
                moved = rows if self.gradient == "straight_through" else rotate(rows, quantized)
                # The value is the quantised vector bit by bit, the gradient that of ``moved``.
                quantized = quantized + (moved - moved.detach())
        return place(quantized, z, mask, 0), loss, place(codes, z, mask, -1)

    @torch.no_grad()
    def encode(
        self, z: Tensor, mask: Tensor | None = None, num_quantizers: int | None = None
    ) -> Tensor:
        """Gives the codes of vectors, of all levels unless a number is given.

        Args:
            z: ``(..., V)``.
            mask: ``(...)`` bool, True for the vectors that count; None for all.
            num_quantizers: how many levels to use; None for all.

        Returns:
            ``(..., Q)`` int64, -1 where masked or of a level that is not used.

        Raises:
            ValueError: if there are not so many levels, or the shapes do not fit.
        """
        num_levels = len(self.codebooks)
        levels = self._check(num_levels if num_quantizers is None else num_quantizers)
        rows = self._rows(z, mask)
        codes = torch.full((len(rows), num_levels), -1, dtype=torch.int64, device=z.device)
        if self.initialized:
            with torch.autocast(z.device.type, enabled=False):
                for level, (found, _, _) in enumerate(self._descend(rows, levels)):
                    codes[:, level] = found
        return place(codes, z, mask, -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Gives the vectors that codes stand for, bit by bit those of :meth:`forward`.

        Args:
            codes: ``(..., L)`` integers of the first L levels; a code of -1 adds nothing.

        Returns:
            ``(..., V)``.

        Raises:
            ValueError: if there are more levels or larger codes than the codebooks have.
        """
        levels, num_entries, width = self.codebooks.shape
        if codes.shape[-1] > levels:
            raise ValueError(f"codes of {codes.shape[-1]} levels; there are {levels} codebooks")
        if codes.numel() and int(codes.max()) >= num_entries:
            raise ValueError(f"code {int(codes.max())}; a codebook has {num_entries} entries")
        rows = codes.reshape(-1, codes.shape[-1]).long()
        quantized = self.codebooks.new_zeros(len(rows), width)
        for level, found in enumerate(rows.unbind(1)):
            entries = self.codebooks[level].index_select(0, found.clamp(min=0))
            quantized += entries.masked_fill_((found < 0).unsqueeze(1), 0)
        return quantized.view(*codes.shape[:-1], width)

    @torch.no_grad()
    def initialize(self, vectors: Tensor, generator: Generator | None = None) -> None:
        """Sets the codebooks by k-means, each on what the codebooks before it leave over.

        With several processes each gives its own vectors and all get the codebooks of the joined
        ones.

        Args:
            vectors: ``(M, V)``, those of the whole training set or a large part of it.
            generator: of a CPU; torch's global one if None.

        Raises:
            ValueError: if there are no vectors, or of another width.
        """
        vectors = gather_rows(self._rows(vectors.to(self.codebooks)))
        if is_main():
            self._cluster(vectors, generator)
        if world_size() > 1:
            packed = torch.cat([self.codebooks, self.cluster_size.unsqueeze(2)], 2)
            distributed.broadcast(packed, 0)
            self.codebooks.copy_(packed[..., :-1])
            self.cluster_size.copy_(packed[..., -1])
        self.cluster_sum.copy_(self.codebooks * self._smoothed_size().unsqueeze(2))
        self.num_updates.zero_()
        self.initialized.fill_(True)

    def _cluster(self, vectors: Tensor, generator: Generator | None) -> None:
        num_entries = self.codebooks.shape[1]
        if len(vectors) < num_entries:
            logger.warning(
                "%d vectors for codebooks of %d entries: the rest repeats them with noise; use "
                "more data or smaller codebooks",
                len(vectors),
                num_entries,
            )
        residuals, least = vectors, _LEAST_NOISE * _size(vectors)
        for level in range(len(self.codebooks)):
            centroids, counts = kmeans(
                residuals,
                num_entries,
                self.kmeans_iters,
                noise=max(_NOISE * _size(residuals), least),
                generator=generator,
            )
            self.codebooks[level] = centroids
            sizes = counts.clamp(min=1).to(centroids)
            self.cluster_size[level] = sizes / sizes.mean()
            residuals = residuals - centroids[nearest(residuals, centroids)]

    @torch.no_grad()
    def _descend(self, rows: Tensor, levels: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Gives the codes ``(M,)``, entries ``(M, V)`` and what they leave over, by level."""
        for codebook in self.codebooks[:levels]:
            found = nearest(rows, codebook)
            entries = codebook.index_select(0, found)
            rows = rows - entries
            yield found, entries, rows

    @torch.no_grad()
    def _follow(self, residuals: list[Tensor], codes: Tensor) -> None:
        """Moves the codebooks after the vectors ``(M, V)`` of each level, codes ``(L, M)``."""
        levels, num_entries = len(codes), self.codebooks.shape[1]
        self.num_updates += 1
        if not residuals[0].sum().isfinite():
            # The step is going to be skipped; averages would never get rid of a NaN.
            residuals, codes = [rows[:0] for rows in residuals], codes[:, :0]
        places = codes + num_entries * torch.arange(levels, device=codes.device).unsqueeze(1)
        counts = torch.bincount(places.flatten(), minlength=levels * num_entries)
        counts = counts.view(levels, num_entries).to(self.cluster_size)
        share = 1 - self.decay
        if world_size() > 1:
            packed = torch.cat([torch.zeros_like(self.codebooks[:levels]), counts.unsqueeze(2)], 2)
            for level in range(levels):
                packed[level, :, :-1].index_add_(0, codes[level], residuals[level])
            distributed.all_reduce(packed)
            sums, counts = packed.split([self.codebooks.shape[2], 1], 2)
            counts = counts.squeeze(2)
        if not counts.any():
            return
        self._check_decay(counts)
        size, total = self.cluster_size[:levels], self.cluster_sum[:levels]
        size.lerp_(counts, share)
        total.mul_(self.decay)
        if world_size() > 1:
            total.add_(sums, alpha=share)
        else:
            for level in range(levels):
                total[level].index_add_(0, codes[level], residuals[level], alpha=share)
        torch.div(total, self._smoothed_size()[:levels].unsqueeze(2), out=self.codebooks[:levels])
        if self.revive_every and int(self.num_updates) % self.revive_every == 0:
            self._revive(residuals)

    def _revive(self, residuals: list[Tensor]) -> None:
        """Puts random residuals of the batch in place of the codes that are hardly used."""
        size = self.cluster_size[: len(residuals)]
        mean = size.mean(1, keepdim=True)
        dead = size < self.revive_threshold * mean
        numbers = dead.sum(1).tolist()
        if not sum(numbers):
            return
        fresh = self.codebooks[: len(residuals)][dead]
        # Without vectors of its own, the first process gives the old entries another try.
        if is_main() and len(residuals[0]):
            drawn = [
                draw(rows, number, noise=_NOISE * _size(rows))
                for rows, number in zip(residuals, numbers, strict=True)
            ]
            fresh = torch.cat(drawn)
        if world_size() > 1:
            distributed.broadcast(fresh, 0)
        self.codebooks[: len(residuals)][dead] = fresh
        size[dead] = mean.expand_as(size)[dead]
        smoothed = self._smoothed_size()[: len(residuals)][dead]
        self.cluster_sum[: len(residuals)][dead] = fresh * smoothed.unsqueeze(1)
        self.num_revived += sum(numbers)
        self._revived_of_late = [
            a + b for a, b in zip_longest(self._revived_of_late, numbers, fillvalue=0)
        ]
        if int(self.num_updates) >= self._next_told and is_main():
            told = ", ".join(map(str, self._revived_of_late))
            logger.info("revived dead codes, by level: %s", told)
            self._revived_of_late = []
            self._next_told = int(self.num_updates) + _LOOKS_PER_LINE * self.revive_every

    def _smoothed_size(self) -> Tensor:
        """Usage after Laplace smoothing, ``(Q, K)``, of the same sum."""
        total = self.cluster_size.sum(1, keepdim=True)
        num_entries = self.cluster_size.shape[1]
        return (self.cluster_size + self.eps) / (total + num_entries * self.eps) * total

    def _check_decay(self, counts: Tensor) -> None:
        if self._is_decay_checked:
            return
        self._is_decay_checked = True
        num_entries = self.codebooks.shape[1]
        seen = float(counts[0].sum()) / (num_entries * (1 - self.decay))
        if seen < _LEAST_VECTORS_PER_CODE and is_main():
            logger.warning(
                "the moving averages see %.2g vectors per code (%d a step, %d codes, decay %g), "
                "fewer than %d: raise the decay or the batch size",
                seen,
                counts[0].sum(),
                num_entries,
                self.decay,
                _LEAST_VECTORS_PER_CODE,
            )

    def _draw_levels(self) -> int:
        """Draws how many levels a batch uses, the same number in every process."""
        levels = len(self.codebooks)
        if not self.training or not self.dropout:
            return levels
        number = torch.randint(1, levels + 1, ()) if torch.rand(()) < self.dropout else levels
        drawn = torch.as_tensor(number, device=self.codebooks.device)
        if world_size() > 1:
            distributed.broadcast(drawn, 0)
        return int(drawn)

    def _rows(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gives the vectors that count, ``(M, V)`` in the dtype of the codebooks."""
        width = self.codebooks.shape[2]
        if z.shape[-1:] != (width,):
            raise ValueError(f"vectors {tuple(z.shape)}; those of the codebooks are {width} wide")
        if mask is None:
            return z.reshape(-1, width).to(self.codebooks.dtype)
        if mask.dtype != torch.bool or mask.shape != z.shape[:-1]:
            raise ValueError(
                f"the mask of vectors {tuple(z.shape)} is bool {tuple(z.shape[:-1])}, got "
                f"{mask.dtype} {tuple(mask.shape)}"
            )
        return z[mask].to(self.codebooks.dtype)

    def _check(self, levels: int) -> int:
        if not 1 <= levels <= len(self.codebooks):
            raise ValueError(f"{levels} levels of codes; there are {len(self.codebooks)} codebooks")
        return levels


def _size(vectors: Tensor) -> float:
    return float(vectors.square().mean().sqrt())
