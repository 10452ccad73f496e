"""A linear codec at the same code rate: what the autoencoder has to beat.

Shapes: T frames, D input width, S frames of a block, N blocks, V code width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from vidseg.collectives import world_size
from vidseg.config import CfgNode
from vidseg.errors import ConfigError
from vidseg.layers import onednn
from vidseg.layers.standardisation import Standardisation
from vidseg.modeling import META_ARCH_REGISTRY

from .fitting import Batches, Fitting
from .pieces import Piece, cut_into_pieces
from .prediction import predict
from .quantizer import ResidualVectorQuantizerEMA
from .retrieval import CodeStatistics
from .samples import cut_document, naming_document, read_sample
from .settings import quantizer_settings, settings_of
from .window_grid import WindowGrid
from .windows import window_validity

__all__ = ["LinearCodec"]

logger = logging.getLogger(__name__)

# Of the subspace iteration: directions beyond those wanted, and passes over the training set.
_EXTRA, _PASSES = 16, 5


@META_ARCH_REGISTRY.register()
class LinearCodec(nn.Module):
    """Codes blocks of frames by their principal components, and these by residual quantisation.

    Blocks are windows of S frames every S. Their principal components and the codebooks are fitted
    before the first step; training moves the codebooks alone, unless the learning rate is above 0:
    then it moves the components as well.

    Args:
        input_dim: D.
        block: S.
        code_dim: V, number of components.
        codebook_size: K.
        num_codebooks: Q.
        commitment_cost: see ``ResidualVectorQuantizerEMA``, as the next.
        decay: see there.
        max_seq_len: frames that are decoded at once.
        min_valid_frames: with which a block counts.
        kmeans_min_vectors: that k-means gathers, of the whole training set if it has fewer.
        quantizer: further arguments of ``ResidualVectorQuantizerEMA``.
        bag_levels: levels that count in the bag of codes, for retrieval.

    Raises:
        ValueError: if a block has fewer values than components are wanted.
    """

    mean: Tensor
    is_fitted: Tensor

    feature_dim_key = "MODEL.RQVAE.INPUT_DIM"
    window_mode = "same"
    is_global = False

    def __init__(
        self,
        input_dim: int,
        block: int,
        code_dim: int,
        codebook_size: int,
        num_codebooks: int,
        commitment_cost: float = 0.25,
        decay: float = 0.9,
        *,
        max_seq_len: int = 512,
        min_valid_frames: int = 1,
        kmeans_min_vectors: int = 0,
        quantizer: dict[str, Any] | None = None,
        bag_levels: int = 2,
    ) -> None:
        super().__init__()
        if not 1 <= code_dim <= block * input_dim:
            raise ValueError(
                f"code_dim {code_dim}: blocks of {block} frames have 1 to {block * input_dim} "
                "components"
            )
        self.input_dim, self.max_seq_len, self.bag_levels = input_dim, max_seq_len, bag_levels
        self.grid = WindowGrid(block, block)
        self.window_size = self.window_stride = block
        self.min_valid_frames = min_valid_frames
        self.standardisation = Standardisation(input_dim)
        self.components = nn.Parameter(torch.zeros(code_dim, block * input_dim))
        self.register_buffer("mean", torch.zeros(block * input_dim))
        self.register_buffer("is_fitted", torch.tensor(False))
        self.rvq = ResidualVectorQuantizerEMA(
            codebook_size,
            code_dim,
            num_codebooks,
            commitment_cost,
            decay,
            **{"kmeans_init": True, **(quantizer or {})},
        )
        self.fitting = Fitting(
            (num_codebooks, codebook_size, code_dim),
            warmup_fraction=0.0,
            min_vectors=kmeans_min_vectors,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.RQVAE``.

        Raises:
            ConfigError: if the values contradict each other.
        """
        settings_of(cfg)
        node = cfg.MODEL.RQVAE
        is_plain = node.POOLING_TYPE == "sliding_window" and node.WINDOW_MODE == "same"
        if not is_plain or node.WINDOW_SIZE != node.WINDOW_STRIDE:
            raise ConfigError(
                "the linear codec cuts documents into blocks side by side: set "
                'MODEL.RQVAE.POOLING_TYPE "sliding_window", WINDOW_MODE "same" and WINDOW_SIZE to '
                f"WINDOW_STRIDE ({node.WINDOW_STRIDE})"
            )
        most = node.WINDOW_STRIDE * node.INPUT_DIM
        if not 1 <= node.CODE_DIM <= most:
            raise ConfigError(
                f"MODEL.RQVAE.CODE_DIM is {node.CODE_DIM}; blocks have 1 to {most} components"
            )
        return {
            "input_dim": node.INPUT_DIM,
            "block": node.WINDOW_STRIDE,
            "code_dim": node.CODE_DIM,
            "codebook_size": node.CODEBOOK_SIZE,
            "num_codebooks": node.NUM_CODEBOOKS,
            "commitment_cost": node.COMMITMENT_COST,
            "decay": node.DECAY,
            "max_seq_len": node.MAX_SEQ_LEN,
            "min_valid_frames": node.MIN_VALID_FRAMES,
            "kmeans_min_vectors": node.KMEANS_MIN_VECTORS,
            "quantizer": quantizer_settings(cfg),
            "bag_levels": node.RETRIEVAL.BAG_LEVELS,
        }

    @property
    def code_statistics(self) -> CodeStatistics:
        """How often codes occur in the training set, for retrieval."""
        return self.fitting.statistics

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.components.device

    def forward(self, samples: list[dict[str, Any]]) -> Any:
        """Gives losses in training and one ``DocumentPrediction`` per sample in eval.

        Args:
            samples: with ``features`` ``(T, D)`` and perhaps ``mask`` ``(T,)``.

        Raises:
            DataError: if the features of a sample cannot be used; names the document.
        """
        if not self.training:
            return [predict(self, sample) for sample in samples]
        parts = [self._blocks(*self._read(sample)) for sample in samples]
        blocks = torch.cat([part[valid] for part, valid, _ in parts])
        weights = torch.cat([frames[valid] for _, valid, frames in parts])  # (M, S)
        z_q, commitment, _ = self.rvq(self._project(blocks))
        errors = (self._rebuild(z_q) - blocks).unflatten(1, (self.window_size, -1)).square()
        total = (errors.sum(2) * weights).sum()
        loss = total / (weights.sum() * self.input_dim).clamp(min=1)
        return {"loss_reconstruction": loss, "loss_commitment": commitment}

    def at_iteration(self, iteration: int, max_iter: int, batches: Batches) -> bool:
        """Fits scale, components and codebooks before the first step; see ``Fitting``."""
        is_new = not bool(self.is_fitted)
        if is_new:
            # Before any iteration there is the scale alone to fit.
            self.fitting.at_iteration(self, -1, max_iter, batches)
            self._fit_components(batches)
        return self.fitting.at_iteration(self, iteration, max_iter, batches) or is_new

    def latents(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gives the components of the blocks of one document.

        Args:
            features: ``(T, D)``, up to the last valid frame.
            mask: ``(T,)``; None if all frames are valid.

        Returns:
            ``(N, V)``, zeros where a block is masked, and the mask of blocks ``(N,)``.

        Raises:
            ValueError: if there are no frames.
        """
        blocks, valid, _ = self._blocks(features, mask)
        return self._project(blocks).masked_fill(~valid.unsqueeze(1), 0.0), valid

    def decoded_pieces(
        self, z_q: Tensor, window_mask: Tensor, num_frames: int
    ) -> Iterator[tuple[Piece, Tensor]]:
        """Rebuilds standardised frames; of a long document, one piece after the other.

        Args:
            z_q: ``(B, N, V)``.
            window_mask: ``(B, N)``.
            num_frames: T.

        Yields:
            A piece and its frames ``(B, stop - start, D)``.
        """
        size = self.window_size
        for piece in cut_into_pieces(num_frames, max(self.max_seq_len, size), 0, size):
            own = slice(piece.start // size, -(-piece.stop // size))
            blocks = self._rebuild(z_q[:, own]).masked_fill(~window_mask[:, own, None], 0.0)
            frames = blocks.unflatten(2, (size, -1)).flatten(1, 2)
            yield piece, frames[:, : piece.stop - piece.start]

    def _blocks(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Gives blocks ``(N, S * D)``, their mask ``(N,)`` and that of their frames ``(N, S)``."""
        padding = self.grid.count(len(features)) * self.window_size - len(features)
        x = F.pad(self.standardisation(features, mask), (0, 0, 0, padding))
        frames = features.new_ones(len(features), dtype=torch.bool) if mask is None else mask
        size = self.window_size
        of_blocks, valid = window_validity(frames[None], size, size, "same", self.min_valid_frames)
        return x.view(-1, size * self.input_dim), valid[0], of_blocks[0]

    def _project(self, blocks: Tensor) -> Tensor:
        return onednn.linear(blocks - self.mean, self.components)

    def _rebuild(self, z_q: Tensor) -> Tensor:
        return onednn.linear(z_q, self.components.t(), self.mean)

    @torch.no_grad()
    def _fit_components(self, batches: Batches) -> None:
        """Finds the principal components of all blocks by passes over them.

        Subspace iteration (Halko et al., 2011, algorithm 4.4): no matrix is larger than V + 16
        blocks or than the blocks of a document.
        """
        width = self.components.shape[1]
        rank = min(len(self.components) + _EXTRA, width)
        # Every process has to start from the same directions.
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(width, rank, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(basis.to(self.mean.device))[0]

        def blocks() -> Iterator[Tensor]:
            for features, mask in self._documents(batches):
                found, valid, _ = self._blocks(features, mask)
                yield found[valid]

        count, mean = _mean(blocks, self.mean)
        for _ in range(_PASSES):
            image = torch.zeros_like(basis)
            directions = basis.to(self.mean)
            for part in blocks():
                centred = part - mean
                image += centred.t() @ (centred @ directions)
            _add_over_processes(image)
            basis = torch.linalg.svd(image, full_matrices=False)[0]
        self.components.copy_(basis[:, : len(self.components)].t())
        self.mean.copy_(mean)
        self.is_fitted.fill_(True)
        logger.info(
            "linear codec: %d components of %d blocks of %d values",
            len(self.components),
            count,
            width,
        )

    def _read(self, sample: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        return cut_document(*read_sample(sample, self.input_dim, self.device))

    def _documents(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor | None]]:
        for samples in batches():
            for sample in samples:
                with naming_document(sample):
                    yield self._read(sample)


def _mean(blocks: Callable[[], Iterator[Tensor]], like: Tensor) -> tuple[int, Tensor]:
    """Gives the number of blocks and their mean, over all processes."""
    sums = torch.zeros(len(like) + 1, dtype=torch.float64, device=like.device)
    for part in blocks():
        sums[0] += len(part)
        sums[1:] += part.sum(0, dtype=torch.float64)
    _add_over_processes(sums)
    return int(sums[0]), (sums[1:] / sums[0].clamp(min=1)).to(like)


def _add_over_processes(values: Tensor) -> None:
    if world_size() > 1:
        distributed.all_reduce(values)
