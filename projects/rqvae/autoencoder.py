"""The autoencoder of documents: frames to the codes of windows, and codes back to frames.

Shapes: B documents, T frames, D input width, C latent width, V code width, N windows, Q codebooks,
K entries. Masks are bool, True = valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.layers.onednn import Linear
from vidseg.layers.padding import pad_sequences
from vidseg.modeling import META_ARCH_REGISTRY

from .decoder import MultiWindowDecoder, OverlapAdd
from .documents import DocumentCodes
from .encoder import DocumentEncoder, sinusoidal_positions
from .fitting import Batches, Fitting
from .losses import cosine_loss, delta_loss, squared_error
from .pieces import Piece, cut_into_pieces
from .pooling import AttentiveStatisticsPooling, SlidingWindowStatsPooling
from .prediction import predict
from .quantizer import ResidualVectorQuantizerEMA
from .retrieval import CodeStatistics
from .samples import check_features, cut_document, read_sample
from .settings import POOLING_TYPES, settings_of
from .standardisation import Standardisation
from .window_projection import WindowProjection
from .windows import first_start, num_windows, window_centres

__all__ = ["DocumentRQVAE", "Reconstruction"]


@dataclass
class Reconstruction:
    """What the autoencoder makes of a batch.

    Args:
        x_recon: ``(B, T, D)`` in the scale of the features; zeros beyond the end of a document.
        loss: the sum of ``losses``.
        codes: ``(B, N, Q)`` int64, -1 where masked or a level is unused.
        losses: every loss by name, weighted.
        z: ``(B, N, V)`` float32, what is quantised.
        z_q: ``(B, N, V)`` float32, what is decoded.
        window_mask: ``(B, N)``.
    """

    x_recon: Tensor
    loss: Tensor
    codes: Tensor
    losses: dict[str, Tensor]
    z: Tensor
    z_q: Tensor
    window_mask: Tensor


@META_ARCH_REGISTRY.register()
class DocumentRQVAE(nn.Module):
    """Codes documents by residual vector quantisation of their windows.

    Global pooling is the same model with a single window over the whole document.

    Args:
        input_dim: D.
        latent_dim: C.
        codebook_size: K.
        num_codebooks: Q.
        window_size: W, frames of a window.
        window_stride: S, frames from one window to the next.
        max_seq_len: frames that are processed at once, and length of the table of positions.
        num_encoder_layers: blocks of the encoder.
        num_decoder_layers: twice the blocks of the decoder.
        nhead: attention heads.
        dropout: in encoder and decoder.
        commitment_cost: factor on the commitment loss.
        decay: of the codebooks' moving averages.
        pooling_type: ``"sliding_window"`` or ``"global"``.
        code_dim: V; 0 quantises the pooled vectors as they are, C wide.
        window_mode: see ``windows.MODES``.
        allow_gaps: whether S may exceed W.
        min_valid_frames: with which a window counts.
        pooling_hidden_dim: see the poolings, as the next two.
        heads: see there.
        position_bias: see there.
        window_projection: add a linear map of the window's frames to what is pooled.
        dim_feedforward: inner width of the feed-forward networks; 0 for 4 C.
        encoder_context: frames to each side that a layer of the encoder sees; 0 for all.
        decoder_context: frames to each side that the decoder's self-attention sees; 0 for all.
        memory_positions: tell the decoder where windows are.
        local_memory: let a frame read only the windows within W + S of it.
        overlap_add: start the decoder from frames laid out by the windows.
        overlap_add_dim: width of these frames.
        loss_cosine: factor on the cosine loss.
        loss_delta: factor on the loss of first differences.
        warmup_fraction: share of the schedule without quantisation.
        kmeans_min_vectors: that k-means gathers, of the whole training set if it has fewer.
        quantizer: further arguments of ``ResidualVectorQuantizerEMA``.
        bag_levels: levels that count in the bag of codes, for retrieval.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        codebook_size: int,
        num_codebooks: int,
        window_size: int = 25,
        window_stride: int = 12,
        max_seq_len: int = 512,
        num_encoder_layers: int = 4,
        num_decoder_layers: int = 4,
        nhead: int = 8,
        dropout: float = 0.1,
        commitment_cost: float = 0.25,
        decay: float = 0.9,
        pooling_type: str = "sliding_window",
        *,
        code_dim: int = 64,
        window_mode: str = "same",
        allow_gaps: bool = False,
        min_valid_frames: int = 1,
        pooling_hidden_dim: int = 128,
        heads: int = 1,
        position_bias: bool = False,
        window_projection: bool = False,
        dim_feedforward: int = 0,
        encoder_context: int = 0,
        decoder_context: int = 0,
        memory_positions: bool = True,
        local_memory: bool = False,
        overlap_add: bool = False,
        overlap_add_dim: int = 64,
        loss_cosine: float = 0.0,
        loss_delta: float = 0.0,
        warmup_fraction: float = 0.35,
        kmeans_min_vectors: int = 0,
        quantizer: dict[str, Any] | None = None,
        bag_levels: int = 2,
    ) -> None:
        super().__init__()
        if pooling_type not in POOLING_TYPES:
            raise ValueError(f"pooling_type {pooling_type!r} is none of {', '.join(POOLING_TYPES)}")
        if latent_dim % nhead or latent_dim % 2:
            raise ValueError(
                f"latent_dim {latent_dim} must be even and a multiple of nhead {nhead}"
            )
        self.is_global = pooling_type == "global"
        if self.is_global and (window_projection or position_bias or local_memory or overlap_add):
            raise ValueError(
                "window_projection, position_bias, local_memory and overlap_add need windows of "
                'one size; turn them off, or set pooling_type "sliding_window"'
            )
        self.window_size, self.window_stride = window_size, window_stride
        self.window_mode, self.max_seq_len = window_mode, max_seq_len
        self.allow_gaps = allow_gaps
        self.loss_cosine, self.loss_delta = loss_cosine, loss_delta
        self.bag_levels = bag_levels
        width = code_dim or latent_dim
        windows = {"window": window_size, "stride": window_stride, "mode": window_mode}

        self.standardisation = Standardisation(input_dim)
        self.input_proj = Linear(input_dim, latent_dim)
        self.input_norm = nn.LayerNorm(latent_dim)
        self.encoder_transformer = DocumentEncoder(
            latent_dim,
            num_encoder_layers,
            nhead,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
            context=encoder_context,
        )
        self.feature_norm = nn.LayerNorm(latent_dim)
        self.pooling: nn.Module
        if self.is_global:
            self.pooling = AttentiveStatisticsPooling(latent_dim, pooling_hidden_dim, heads=heads)
        else:
            self.pooling = SlidingWindowStatsPooling(
                latent_dim,
                window_size,
                window_stride,
                pooling_hidden_dim,
                mode=window_mode,
                heads=heads,
                position_bias=position_bias,
                min_valid_frames=min_valid_frames,
                allow_gaps=allow_gaps,
            )
        self.window_projection = (
            WindowProjection(latent_dim, width, **windows) if window_projection else None
        )
        self.code_in = Linear(latent_dim, width) if code_dim else None
        self.rvq = ResidualVectorQuantizerEMA(
            codebook_size, width, num_codebooks, commitment_cost, decay, **(quantizer or {})
        )
        self.code_out = Linear(width, latent_dim) if code_dim else nn.Identity()
        self.positional_queries = nn.Parameter(torch.empty(1, max_seq_len, latent_dim))
        nn.init.trunc_normal_(self.positional_queries, std=0.02)
        self.overlap_add = (
            OverlapAdd(width, latent_dim, frame_dim=overlap_add_dim, **windows)
            if overlap_add
            else None
        )
        self.decoder = MultiWindowDecoder(
            latent_dim,
            num_decoder_layers,
            nhead,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
            context=decoder_context,
            memory_positions=memory_positions,
            memory_reach=window_size + window_stride if local_memory else 0,
        )
        self.output_head = Linear(latent_dim, input_dim)
        self.fitting = Fitting(
            (num_codebooks, codebook_size, width),
            warmup_fraction=warmup_fraction,
            min_vectors=kmeans_min_vectors,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.RQVAE``.

        Raises:
            ConfigError: if the values contradict each other.
        """
        return settings_of(cfg)

    @property
    def input_dim(self) -> int:
        """Width of the features, D."""
        return self.output_head.out_features

    @property
    def code_statistics(self) -> CodeStatistics:
        """How often codes occur in the training set, for retrieval."""
        return self.fitting.statistics

    def forward(
        self, x: Tensor | list[dict[str, Any]], mask: Tensor | None = None, *, details: bool = False
    ) -> Any:
        """Codes and rebuilds documents.

        In eval every document is computed by itself and without gradients: its codes and frames
        have the same bits in whatever batch it stands, and those of ``decode(encode(x))``.

        Args:
            x: ``(B, T, D)``. Or a list of samples with ``features``: then the result is a dict of
                losses in training, and one ``DocumentPrediction`` per sample in eval.
            mask: ``(B, T)``, True = valid frame; None if all are.
            details: give a ``Reconstruction`` instead.

        Returns:
            ``(x_recon (B, T, D), loss, codes (B, N, Q))``.

        Raises:
            ValueError: if the shapes do not fit, or documents are too long (see ``max_seq_len``).
            DataError: if the features of a sample cannot be used; names the document.
        """
        if isinstance(x, list):
            return self._losses_of(x) if self.training else [predict(self, one) for one in x]
        check_features(x, mask, self.input_dim)
        found = self._train_batch(x, mask) if self.training else self._eval_batch(x, mask)
        return found if details else (found.x_recon, found.loss, found.codes)

    @torch.no_grad()
    def encode(
        self,
        x: Tensor | Sequence[Tensor],
        mask: Tensor | None = None,
        num_quantizers: int | None = None,
    ) -> Any:
        """Gives the codes of documents.

        Args:
            x: ``(T, D)`` of one document, or ``(B, T, D)`` or a sequence of ``(T_i, D)``.
            mask: ``(T,)`` or ``(B, T)``, True = valid frame; None if all are.
            num_quantizers: how many levels to use; None for all.

        Returns:
            One ``DocumentCodes`` or a list of them. A document ends with its last valid frame; one
            without any has its full length, and masked windows only.

        Raises:
            ValueError: as ``forward``, or if there are not so many levels.
        """
        if isinstance(x, Tensor) and x.dim() == 2:
            return self.encode(x[None], None if mask is None else mask[None], num_quantizers)[0]
        tokens = []
        for number, features in enumerate(x):
            own = None if mask is None else mask[number]
            check_features(features[None], None if own is None else own[None], self.input_dim)
            features, own = cut_document(features, own)
            z, window_mask = self.latents(features, own)
            codes = self.rvq.encode(z, window_mask, num_quantizers)
            tokens.append(DocumentCodes(codes, window_mask, len(features)))
        return tokens

    @torch.no_grad()
    def decode(self, tokens: Any) -> Any:
        """Rebuilds documents from their codes, of any number of the first levels.

        Args:
            tokens: one ``DocumentCodes`` or a sequence of them.

        Returns:
            ``(T, D)`` in the scale of the features, or a list of them; zeros for a document
            without valid windows.

        Raises:
            ValueError: if a code is beyond the codebooks, or the windows do not fit the frames.
        """
        if not isinstance(tokens, DocumentCodes):
            return [self.decode(one) for one in tokens]
        num = self.count_windows(tokens.num_frames)
        if len(tokens.codes) != num or len(tokens.window_mask) != num:
            raise ValueError(
                f"a document of {tokens.num_frames} frames has {num} windows here, not "
                f"{len(tokens.codes)}; was it coded by another model?"
            )
        device = self.positional_queries.device
        z_q, window_mask = self.rvq.decode(tokens.codes.to(device)), tokens.window_mask.to(device)
        y = self._decode(z_q[None], window_mask[None], tokens.num_frames)
        return self._rescaled(y, window_mask[None], None)[0]

    def at_iteration(self, iteration: int, max_iter: int, batches: Batches) -> bool:
        """Fits scale, codebooks and the statistics of codes when each is due; see ``Fitting``."""
        return self.fitting.at_iteration(self, iteration, max_iter, batches)

    def count_windows(self, num_frames: int) -> int:
        """Gives the number of windows of a document.

        Raises:
            ValueError: if it has no frames, or fewer than a window in mode ``drop``.
        """
        if self.is_global and num_frames > 0:
            return 1
        size, stride, mode = self.window_size, self.window_stride, self.window_mode
        return num_windows(num_frames, size, stride, mode, allow_gaps=self.allow_gaps)

    def latents(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gives what is quantised of one document.

        Args:
            features: ``(T, D)``, up to the last valid frame.
            mask: ``(T,)``; None if all frames are valid.

        Returns:
            ``(N, V)`` float32, zeros where a window is masked, and the window mask ``(N,)``.
        """
        z, window_mask = self._latents(features[None], None if mask is None else mask[None])
        return z[0], window_mask[0]

    def decoded_pieces(
        self,
        z_q: Tensor,
        window_mask: Tensor,
        num_frames: int,
        lengths: Tensor | None = None,
        clock: Tensor | int = 0,
    ) -> Iterator[tuple[Piece, Tensor]]:
        """Rebuilds standardised frames; of a long document, one piece after the other.

        Args:
            z_q: ``(B, N, V)``.
            window_mask: ``(B, N)``.
            num_frames: T.
            lengths: ``(B,)`` of the documents of a padded batch; None if all have T frames.
            clock: time of the first frame.

        Yields:
            A piece and its frames ``(B, stop - start, D)``.
        """
        memory = self.code_out(z_q)
        overlap = self.window_size + self.window_stride + (self.decoder.reach or 0)
        for piece in self._pieces(num_frames, overlap):
            own = self._windows_around(piece, num_frames, z_q.shape[1])
            times = torch.arange(piece.low, piece.high, device=z_q.device)
            queries = self._queries(clock + times, num_frames).expand(len(z_q), -1, -1)
            if self.overlap_add is not None:
                queries = queries + self.overlap_add(
                    z_q[:, own],
                    window_mask[:, own],
                    first_window=own.start,
                    start=piece.low,
                    stop=piece.high,
                )
            h = self.decoder(
                queries,
                memory[:, own],
                clock + self._centres(z_q, num_frames, lengths)[..., own],
                window_mask=window_mask[:, own],
                frame_mask=None if lengths is None else times < lengths[:, None],
                first_frame=clock + piece.low,
            )
            yield piece, self.output_head(h[:, piece.kept])

    def _train_batch(self, x: Tensor, mask: Tensor | None) -> Reconstruction:
        # Crops may stem from anywhere: all of the clock is trained, not its beginning alone.
        clock = torch.randint(max(self.max_seq_len - x.shape[1], 0) + 1, ()).to(x.device)
        z, window_mask = self._latents(x, mask, clock)
        z_q, commitment, codes = self.rvq(z, window_mask)
        lengths = None if mask is None else _lengths(mask)
        y = self._decode(z_q, window_mask, x.shape[1], lengths, clock)
        return self._compare(x, mask, y, lengths, commitment, (codes, z, z_q, window_mask))

    @torch.no_grad()
    def _eval_batch(self, x: Tensor, mask: Tensor | None) -> Reconstruction:
        coded, documents = [], []
        for number, features in enumerate(x):
            features, own = cut_document(features, None if mask is None else mask[number])
            z, window_mask = self.latents(features, own)
            codes = self.rvq.encode(z, window_mask)
            z_q = self.rvq.decode(codes)
            documents.append(self._decode(z_q[None], window_mask[None], len(features))[0])
            coded.append((codes, z, z_q, window_mask))
        num = self.count_windows(x.shape[1])
        codes, z, z_q, window_mask = (
            torch.stack([_padded(part, num, value) for part in parts])
            for parts, value in zip(zip(*coded, strict=True), (-1, 0, 0, 0), strict=True)
        )
        y = torch.stack([_padded(document, x.shape[1]) for document in documents])
        lengths = torch.tensor([len(document) for document in documents], device=x.device)
        _, commitment, _ = self.rvq(z, window_mask)
        return self._compare(x, mask, y, lengths, commitment, (codes, z, z_q, window_mask))

    def _compare(
        self,
        x: Tensor,
        mask: Tensor | None,
        y: Tensor,
        lengths: Tensor | None,
        commitment: Tensor,
        coded: tuple[Tensor, ...],
    ) -> Reconstruction:
        """Scores a standardised reconstruction ``(B, T, D)`` and takes it to its own scale."""
        codes, z, z_q, window_mask = coded
        target = self.standardisation(x, mask)
        losses = {"loss_reconstruction": squared_error(target, y, mask)}
        if self.loss_cosine:
            losses["loss_cosine"] = self.loss_cosine * cosine_loss(target, y, mask)
        if self.loss_delta:
            losses["loss_delta"] = self.loss_delta * delta_loss(target, y, mask)
        losses["loss_commitment"] = commitment
        loss = torch.stack(list(losses.values())).sum()
        x_recon = self._rescaled(y, window_mask, lengths)
        return Reconstruction(x_recon, loss, codes, losses, z, z_q, window_mask)

    def _rescaled(self, y: Tensor, window_mask: Tensor, lengths: Tensor | None) -> Tensor:
        """Takes standardised frames to their own scale; there are none without valid windows."""
        kept = window_mask.any(1, keepdim=True)
        if lengths is not None:
            kept = kept & (torch.arange(y.shape[1], device=y.device) < lengths[:, None])
        return self.standardisation.undo(y).masked_fill(~kept[..., None], 0.0)

    def _latents(
        self, x: Tensor, mask: Tensor | None, clock: Tensor | int = 0
    ) -> tuple[Tensor, Tensor]:
        """Gives what is quantised of documents, ``(B, N, V)`` float32, and ``(B, N)``."""
        frames = self._encode(x, mask, clock)  # (B, T, C)
        if self.is_global:
            pooled = self.pooling(frames, mask)[:, None]
            window_mask = x.new_ones(len(x), 1, dtype=torch.bool)
            window_mask = window_mask if mask is None else mask.any(1, keepdim=True)
        else:
            pooled, window_mask = self.pooling(frames, mask)
        z = pooled if self.code_in is None else self.code_in(pooled)
        if self.window_projection is not None:
            z = z + self.window_projection(frames, z.shape[1])
        z = z.float()
        if self.code_in is not None:
            z = F.layer_norm(z, z.shape[-1:])
        return z.masked_fill(~window_mask[..., None], 0.0), window_mask

    def _encode(self, x: Tensor, mask: Tensor | None, clock: Tensor | int) -> Tensor:
        """Gives the latent of every frame, ``(B, T, C)``, zeros where masked.

        The clock is the time of the first frame.
        """
        encoder = self.encoder_transformer
        if x.shape[1] > self.max_seq_len and encoder.reach is None:
            raise ValueError(
                f"{x.shape[1]} frames are more than max_seq_len {self.max_seq_len}; longer "
                "documents are coded piece by piece if encoder_context is set (config: "
                "MODEL.RQVAE.ENCODER_CONTEXT), else raise max_seq_len (MAX_SEQ_LEN)"
            )
        parts = []
        for piece in self._pieces(x.shape[1], encoder.reach or 0):
            own = None if mask is None else mask[:, piece.low : piece.high]
            h = self.standardisation(x[:, piece.low : piece.high], own)
            h = self.input_norm(self.input_proj(h))
            times = clock + torch.arange(piece.low, piece.high, device=x.device)
            h = h + sinusoidal_positions(times, h.shape[-1]).to(h.dtype)
            h = self.feature_norm(encoder(h, own))
            h = h if own is None else h.masked_fill(~own[..., None], 0.0)
            parts.append(h[:, piece.kept])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _decode(
        self,
        z_q: Tensor,
        window_mask: Tensor,
        num_frames: int,
        lengths: Tensor | None = None,
        clock: Tensor | int = 0,
    ) -> Tensor:
        """Gives the pieces of :meth:`decoded_pieces` in one, ``(B, T, D)`` float32."""
        parts = [y for _, y in self.decoded_pieces(z_q, window_mask, num_frames, lengths, clock)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).float()

    def _pieces(self, num_frames: int, overlap: int) -> list[Piece]:
        stride = 1 if self.is_global else self.window_stride
        return cut_into_pieces(num_frames, self.max_seq_len, overlap, stride)

    def _windows_around(self, piece: Piece, num_frames: int, num: int) -> slice:
        """Gives the windows that share a frame with a piece, or all of a single piece."""
        if self.is_global or piece.stop - piece.start == num_frames:
            return slice(0, num)
        first = first_start(self.window_size, self.window_stride, self.window_mode)
        start = (piece.low - first - self.window_size) // self.window_stride + 1
        stop = (piece.high - 1 - first) // self.window_stride + 1
        return slice(min(max(start, 0), num - 1), max(min(stop, num), 1))

    def _centres(self, z_q: Tensor, num_frames: int, lengths: Tensor | None) -> Tensor:
        """Gives the middles of all windows in frames, ``(N,)`` or ``(B, N)``."""
        if not self.is_global:
            size, stride, mode = self.window_size, self.window_stride, self.window_mode
            return window_centres(z_q.shape[1], size, stride, mode).to(z_q.device)
        ends = z_q.new_tensor([num_frames]) if lengths is None else lengths[:, None].float()
        return (ends - 1) / 2

    def _queries(self, times: Tensor, num_frames: int) -> Tensor:
        """Gives the positional queries of frames, ``(1, T, C)``."""
        table = self.positional_queries
        channels = table.shape[-1]
        if num_frames <= self.max_seq_len:
            learned = table[:, times]
        else:
            place = ((times + 0.5) * (self.max_seq_len / num_frames) - 0.5).clamp_min(0)
            before = place.long()
            after = (before + 1).clamp_max(self.max_seq_len - 1)
            learned = torch.lerp(table[:, before], table[:, after], (place - before)[:, None])
        return learned + sinusoidal_positions(times, channels)

    def _losses_of(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        device = self.positional_queries.device
        documents = [read_sample(sample, self.input_dim, device) for sample in samples]
        features, masks = zip(*documents, strict=True)
        x, mask = pad_sequences(features, masks=masks)
        is_whole = all(m is None and len(f) == x.shape[1] for f, m in documents)
        found: Reconstruction = self(x, None if is_whole else mask, details=True)
        return found.losses


def _lengths(mask: Tensor) -> Tensor:
    """Gives the frames up to the last valid one, ``(B,)``; all of them where there is none."""
    numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths = (numbers * mask).amax(1)
    return lengths.masked_fill(lengths == 0, mask.shape[1])


def _padded(x: Tensor, length: int, value: float = 0) -> Tensor:
    """Fills the first dimension up to a length."""
    return torch.cat([x, x.new_full((length - len(x), *x.shape[1:]), value)])
