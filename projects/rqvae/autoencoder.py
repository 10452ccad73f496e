"""The autoencoder of documents: frames to the codes of windows, and codes back to frames.

Shapes: B documents, T frames, D input width, C latent width, V code width, N windows, Q codebooks,
K entries. Masks are bool, True = valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidseg.config import CfgNode
from vidseg.layers.padding import pad_sequences
from vidseg.modeling import META_ARCH_REGISTRY

from .documents import DocumentCodes
from .fitting import Batches
from .losses import cosine_loss, delta_loss, squared_error
from .network import DocumentNetwork
from .prediction import predict
from .samples import check_features, check_finite, cut_document, read_sample
from .settings import settings_of

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
class DocumentRQVAE(DocumentNetwork):
    """Codes documents by residual vector quantisation of their windows, and rebuilds them.

    For the arguments see ``DocumentNetwork``. Features come and go in their own scale; the model
    standardises them.

    A run from a config fits scale and codebooks by :meth:`at_iteration`. Another training loop
    needs neither: features are then taken as they are, and the codebooks start at random. To fit
    them, call ``standardisation.fit`` with the documents before the first step; for k-means build
    the model with ``quantizer={"kmeans_init": True}``, train a while without quantisation, and call
    ``rvq.initialize`` with the valid :meth:`latents` of many documents.
    """

    feature_dim_key = "MODEL.RQVAE.INPUT_DIM"

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.RQVAE``.

        Raises:
            ConfigError: if the values contradict each other.
        """
        return settings_of(cfg)

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
            ValueError: if the shapes do not fit, a valid frame holds NaN or infinity, or documents
                are too long (see ``max_seq_len``).
            DataError: if the features of a sample cannot be used; names the document.
        """
        if isinstance(x, list):
            return self._losses_of(x) if self.training else [predict(self, one) for one in x]
        x = self._checked(x, mask)
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
            ValueError: as ``forward``, or if there are not so many levels. Names the document by
                its number if there are several.
        """
        if isinstance(x, Tensor) and x.dim() == 2:
            return self._encode_one(x, mask, num_quantizers)
        tokens = []
        for number, features in enumerate(x):
            try:
                own = None if mask is None else mask[number]
                tokens.append(self._encode_one(features, own, num_quantizers))
            except ValueError as error:
                raise ValueError(f"document {number}: {error}") from error
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
        num = self.grid.count(tokens.num_frames)
        if len(tokens.codes) != num or len(tokens.window_mask) != num:
            raise ValueError(
                f"a document of {tokens.num_frames} frames has {num} windows here, not "
                f"{len(tokens.codes)}; was it coded by another model?"
            )
        z_q = self.rvq.decode(tokens.codes.to(self.device))
        window_mask = tokens.window_mask.to(self.device)
        y = self._decode(z_q[None], window_mask[None], tokens.num_frames)
        return self._rescaled(y, window_mask[None], None)[0]

    def at_iteration(self, iteration: int, max_iter: int, batches: Batches) -> bool:
        """Fits scale, codebooks and the statistics of codes when each is due; see ``Fitting``."""
        return self.fitting.at_iteration(self, iteration, max_iter, batches)

    def _encode_one(
        self, features: Tensor, mask: Tensor | None, num_quantizers: int | None
    ) -> DocumentCodes:
        x = self._checked(features[None], None if mask is None else mask[None])
        features, mask = cut_document(x[0], mask)
        z, window_mask = self.latents(features, mask)
        codes = self.rvq.encode(z, window_mask, num_quantizers)
        return DocumentCodes(codes, window_mask, len(features))

    def _checked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Gives ``(B, T, D)`` in the precision of the parameters."""
        check_features(x, mask, self.input_dim)
        check_finite(x, mask)
        return x.to(self.output_head.weight.dtype)

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
        num = self.grid.count(x.shape[1])
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

    def _losses_of(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        documents = [read_sample(sample, self.input_dim, self.device) for sample in samples]
        features, masks = zip(*documents, strict=True)
        x, mask = pad_sequences(features, masks=masks)
        is_whole = all(m is None and len(f) == x.shape[1] for f, m in documents)
        return self._train_batch(x, None if is_whole else mask).losses


def _lengths(mask: Tensor) -> Tensor:
    """Gives the frames up to the last valid one, ``(B,)``; all of them where there is none."""
    numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths = (numbers * mask).amax(1)
    return lengths.masked_fill(lengths == 0, mask.shape[1])


def _padded(x: Tensor, length: int, value: float = 0) -> Tensor:
    """Fills the first dimension up to a length."""
    return torch.cat([x, x.new_full((length - len(x), *x.shape[1:]), value)])
