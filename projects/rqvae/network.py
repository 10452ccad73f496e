"""The network of the autoencoder: standardised frames to latents of windows, and back to frames.

Shapes: B documents, T frames, D input width, C latent width, V code width, N windows, Q codebooks,
K entries. Masks are bool, True = valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.layers.onednn import Linear
from vidseg.layers.standardisation import Standardisation

from .decoder import MultiWindowDecoder, OverlapAdd
from .encoder import POSITION_SCALE, DocumentEncoder, PositionalQueries, sinusoidal_positions
from .fitting import Fitting
from .pieces import Piece, cut_into_pieces
from .pooling import AttentiveStatisticsPooling, SlidingWindowStatsPooling
from .quantizer import ResidualVectorQuantizerEMA
from .retrieval import CodeStatistics
from .settings import POOLING_TYPES
from .window_grid import WindowGrid
from .window_projection import WindowProjection

__all__ = ["DocumentNetwork"]


class DocumentNetwork(nn.Module):
    """Takes documents to the latents of their windows, and windows back to frames.

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
        min_valid_frames: with which a window counts; a whole document, if it is the window.
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
        is_global = pooling_type == "global"
        if is_global and (window_projection or position_bias or local_memory or overlap_add):
            raise ValueError(
                "window_projection, position_bias, local_memory and overlap_add need windows of "
                'one size; turn them off, or set pooling_type "sliding_window"'
            )
        self.grid = WindowGrid(window_size, window_stride, window_mode, allow_gaps, is_global)
        self.window_size, self.window_stride = window_size, window_stride
        self.window_mode, self.is_global = window_mode, is_global
        self.max_seq_len = max_seq_len
        self.loss_cosine, self.loss_delta = loss_cosine, loss_delta
        self.bag_levels, self.min_valid_frames = bag_levels, min_valid_frames
        width = code_dim or latent_dim
        windows: dict[str, Any] = {
            "window": window_size,
            "stride": window_stride,
            "mode": window_mode,
        }

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
        if is_global:
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
        self.positional_queries = PositionalQueries(max_seq_len, latent_dim)
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

    @property
    def input_dim(self) -> int:
        """Width of the features, D."""
        return self.output_head.out_features

    @property
    def code_statistics(self) -> CodeStatistics:
        """How often codes occur in the training set, for retrieval."""
        return self.fitting.statistics

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.output_head.weight.device

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
        grid, num = self.grid, z_q.shape[1]
        centres = clock + grid.centres(num, num_frames, lengths).to(z_q.device)
        overlap = grid.size + grid.stride + (self.decoder.reach or 0)
        for piece in self._pieces(num_frames, overlap):
            own = grid.around(piece, num_frames, num)
            times = torch.arange(piece.low, piece.high, device=z_q.device)
            queries = self.positional_queries(clock + times, num_frames).expand(len(z_q), -1, -1)
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
                centres[..., own],
                window_mask=window_mask[:, own],
                frame_mask=None if lengths is None else times < lengths[:, None],
                first_frame=clock + piece.low,
            )
            yield piece, self.output_head(h[:, piece.kept])

    def _latents(
        self, x: Tensor, mask: Tensor | None, clock: Tensor | int = 0
    ) -> tuple[Tensor, Tensor]:
        """Gives what is quantised of documents, ``(B, N, V)`` float32, and ``(B, N)``."""
        frames = self._encode(x, mask, clock)  # (B, T, C)
        if self.is_global:
            pooled = self.pooling(frames, mask)[:, None]
            valid = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
            window_mask = valid.sum(1, keepdim=True) >= max(self.min_valid_frames, 1)
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
            h = h + POSITION_SCALE * sinusoidal_positions(times, h.shape[-1]).to(h.dtype)
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
        stride = 1 if self.is_global else self.grid.stride
        return cut_into_pieces(num_frames, self.max_seq_len, overlap, stride)
