"""One vector per document by attention over its windows, learned without labels (method C).

Two pieces of one document are to be nearer to each other than to the pieces of other documents
(InfoNCE, van den Oord et al., 2018, eq. 4). The codes are frozen: those of the whole training set
are computed once, and a step takes a hundred or so documents of them.

Shapes: B documents, N windows, V code width, Q codebooks.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import META_ARCH_REGISTRY

from .autoencoder import DocumentRQVAE
from .documents import DocumentPrediction
from .fitting import Batches
from .prediction import predict
from .retrieval import dequantize
from .samples import cut_document, naming_document, read_sample

_KEY_SCALE = 16.0  # of keys at the start: queries then find what to look for in a few hundred steps

__all__ = ["AttentionPooling", "DocumentRetriever", "contrastive_loss", "draw_crops"]

logger = logging.getLogger(__name__)


class AttentionPooling(nn.Module):
    """Weighs windows by learned queries: ``w = softmax_n(<q, W_k u_n> / sqrt(V))``.

    One query gives one mean. Several give as many, each of what its query looks for, which a linear
    map joins to one vector; a single mean of the windows loses what they have in common with those
    of other documents one by one. Before training all weights are uniform and the map keeps angles,
    so that documents compare as by the plain mean.

    Args:
        width: V.
        num_queries: P.
        output_dim: width of the vector, at least V; 0 leaves out the map and puts the means side
            by side.

    Raises:
        ValueError: if ``output_dim`` is too small.
    """

    def __init__(self, width: int, *, num_queries: int = 1, output_dim: int = 0) -> None:
        super().__init__()
        if 0 < output_dim < width:
            raise ValueError(f"vectors of {output_dim} cannot hold means of {width}")
        self.query = nn.Parameter(torch.zeros(num_queries, width))
        self.key = nn.Linear(width, num_queries * width, bias=False)
        nn.init.normal_(self.key.weight, std=_KEY_SCALE * width**-0.5)
        self.projection: nn.Linear | nn.Identity = nn.Identity()
        if output_dim:
            self.projection = nn.Linear(num_queries * width, output_dim, bias=False)
            with torch.no_grad():
                maps = self.projection.weight.unflatten(1, (num_queries, width))
                kept = nn.init.orthogonal_(torch.empty(output_dim, width))
                maps += ((kept - maps.sum(1)) / num_queries).unsqueeze(1)

    @property
    def output_dim(self) -> int:
        """Width of the vector of a document."""
        if isinstance(self.projection, nn.Linear):
            return self.projection.out_features
        return self.query.numel()

    def pool(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gives the weighted means of windows.

        Args:
            windows: ``(..., N, V)`` dequantised.
            mask: ``(..., N)``, True = valid; None if all are. Without any valid window the weights
                are uniform.

        Returns:
            ``(..., P, V)``.
        """
        keys = self.key(windows).unflatten(-1, self.query.shape)  # (..., N, P, V)
        logits = (keys * self.query).sum(-1) / windows.shape[-1] ** 0.5  # (..., N, P)
        if mask is not None:
            logits = logits.masked_fill(~mask.unsqueeze(-1), torch.finfo(logits.dtype).min)
        return logits.softmax(-2).mT @ windows

    def project(self, means: Tensor) -> Tensor:
        """Joins centred means ``(..., P, V)`` to the vector by which documents are compared."""
        return self.projection(means.flatten(-2))


def draw_crops(
    lengths: Tensor,
    num_windows: int,
    *,
    shares: tuple[float, float],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws two runs of windows from each document, which have no window in common.

    Pieces that overlap are told by the windows they share; disjoint ones only by what they are
    about, such as the voice.

    Args:
        lengths: ``(B,)`` windows of each document, at least 2.
        num_windows: N of the padded documents.
        shares: smallest and largest part of a document that a piece may be, at most 0.5.
        generator: of the draws; None takes torch's own, which training seeds for every step.

    Returns:
        Two masks ``(B, N)``.
    """
    low, high = shares
    drawn = low + (high - low) * torch.rand(2, len(lengths), generator=generator)
    sizes = (drawn * lengths).long().clamp_min(1)
    sizes = torch.minimum(sizes, lengths // 2)
    # What is left over goes before, between and after the two pieces.
    slack = lengths - sizes.sum(0)
    cuts = torch.rand(2, len(lengths), generator=generator).sort(0).values * (slack + 1)
    before, between = cuts.long()
    first = _runs(before, sizes[0], num_windows)
    return first, _runs(between + sizes[0], sizes[1], num_windows)


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Gives the mean cross entropy of finding the other piece of a document, both ways.

    Args:
        first: ``(B, V)`` unit vectors of the first pieces.
        second: ``(B, V)`` of the second ones; row i belongs to row i.
        temperature: divides the cosines.
    """
    logits = (first @ second.T).float() / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@META_ARCH_REGISTRY.register()
class DocumentRetriever(DocumentRQVAE):
    """A trained ``DocumentRQVAE``, frozen, with a head that learns to tell documents apart.

    Its parameters keep their names, so the weights of a ``DocumentRQVAE`` are its own. A training
    step draws documents from the codes of the whole training set, which are computed once; the
    samples that it is given only set the pace.

    Args:
        temperature: of the contrastive loss.
        documents_per_step: that are told apart in a step.
        crop_shares: smallest and largest part of a document that a piece may be.
        num_queries: see ``AttentionPooling``, as the next.
        output_dim: see there.
        settings: arguments of ``DocumentRQVAE``.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        documents_per_step: int = 128,
        crop_shares: tuple[float, float] = (0.05, 0.3),
        num_queries: int = 16,
        output_dim: int = 256,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.requires_grad_(False)
        self.temperature = temperature
        self.documents_per_step = documents_per_step
        self.crop_shares = crop_shares
        self.head = AttentionPooling(
            self.rvq.codebooks.shape[-1], num_queries=num_queries, output_dim=output_dim
        )
        self._codes: list[Tensor] = []

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.RQVAE``.

        Raises:
            ConfigError: if the values contradict each other.
        """
        node = cfg.MODEL.RQVAE.RETRIEVAL
        low, high = node.MIN_CROP, node.MAX_CROP
        if not 0 < low <= high <= 0.5:
            raise ConfigError(
                f"MODEL.RQVAE.RETRIEVAL.MIN_CROP is {low} and MAX_CROP {high}; both are parts of a "
                "document, above 0 and not above 0.5, the smaller one first"
            )
        if node.TEMPERATURE <= 0 or node.DOCUMENTS_PER_STEP < 2:
            raise ConfigError(
                f"MODEL.RQVAE.RETRIEVAL.TEMPERATURE is {node.TEMPERATURE} and DOCUMENTS_PER_STEP "
                f"{node.DOCUMENTS_PER_STEP}; they must be above 0 and at least 2"
            )
        width = cfg.MODEL.RQVAE.CODE_DIM or cfg.MODEL.RQVAE.LATENT_DIM
        if node.NUM_QUERIES < 1 or 0 < node.DIM < width or node.DIM < 0:
            raise ConfigError(
                f"MODEL.RQVAE.RETRIEVAL.NUM_QUERIES is {node.NUM_QUERIES} and DIM {node.DIM}; set "
                f"at least 1 query and DIM to 0 or at least {width}, the width of the codes"
            )
        return {
            "temperature": node.TEMPERATURE,
            "documents_per_step": node.DOCUMENTS_PER_STEP,
            "crop_shares": (low, high),
            "num_queries": node.NUM_QUERIES,
            "output_dim": node.DIM,
            **super().from_config(cfg),
        }

    @property
    def is_fitted(self) -> bool:
        """Whether the codes of the training set are there; a checkpoint does not hold them."""
        return bool(self._codes)

    def at_iteration(self, iteration: int, max_iter: int, batches: Batches) -> bool:
        """Computes the codes of the training set if they are not there.

        Raises:
            ConfigError: if the autoencoder is not trained.
            DataError: if there are no two documents of two windows.
        """
        if not self.standardisation.is_fitted or not self.code_statistics.num_documents:
            raise ConfigError(
                "META_ARCH DocumentRetriever trains a head on the codes of a trained DocumentRQVAE:"
                " give its config in SOLVER.INIT_FROM or its weights in MODEL.WEIGHTS"
            )
        if not self._codes and iteration < max_iter:
            self._codes = self._encode_all(batches)
        return False

    def train(self, mode: bool = True) -> DocumentRetriever:
        """Puts the head alone into training mode: what is frozen keeps its codebooks too."""
        super().train(False)
        self.training = mode
        self.head.train(mode)
        return self

    def forward(self, x: Any, mask: Tensor | None = None, *, details: bool = False) -> Any:
        """Gives the contrastive loss in training, and in eval what ``DocumentRQVAE`` gives.

        Args:
            x: as there.
            mask: as there.
            details: as there.
        """
        if not isinstance(x, list):
            return super().forward(x, mask, details=details)
        if self.training:
            return {"loss_contrastive": self._contrastive_loss()}
        return [self._predict(sample) for sample in x]

    def _predict(self, sample: dict[str, Any]) -> DocumentPrediction:
        return predict(self, sample, head=self.head)

    @torch.no_grad()
    def _encode_all(self, batches: Batches) -> list[Tensor]:
        """Gives the codes ``(N, Q)`` of the valid windows of this rank's training documents."""
        device = self.standardisation.mean.device
        found = []
        for samples in batches():
            for sample in samples:
                features, mask = cut_document(*read_sample(sample, self.input_dim, device))
                with naming_document(sample):
                    z, window_mask = self.latents(features, mask)
                codes = self.rvq.encode(z, window_mask)[window_mask]
                found.append(codes.to("cpu", torch.int32))
        usable = [codes for codes in found if len(codes) > 1]
        if len(usable) < 2:
            raise DataError(
                f"DATASETS.TRAIN has {len(usable)} documents of at least two windows on this "
                "process; to tell documents apart takes two (with MODEL.RQVAE.POOLING_TYPE global "
                "a document is one window)"
            )
        logger.info("codes of %d documents, %d too short", len(usable), len(found) - len(usable))
        return usable

    def _contrastive_loss(self) -> Tensor:
        codebooks = self.rvq.codebooks
        chosen = torch.randperm(len(self._codes))[: self.documents_per_step]
        codes = [self._codes[index] for index in chosen]
        lengths = torch.tensor([len(one) for one in codes])
        padded = pad_sequence(codes, batch_first=True, padding_value=-1).to(codebooks.device)
        windows = dequantize(padded.long(), codebooks)
        masks = draw_crops(lengths, windows.shape[1], shares=self.crop_shares)
        first, second = (self._vectors(windows, mask.to(windows.device)) for mask in masks)
        return contrastive_loss(first, second, self.temperature)

    def _vectors(self, windows: Tensor, mask: Tensor) -> Tensor:
        head = self.head
        pooled = head.pool(windows, mask) - self.code_statistics.mean
        return F.normalize(head.project(pooled), dim=-1)


def _runs(starts: Tensor, sizes: Tensor, num_windows: int) -> Tensor:
    """Gives a mask ``(B, N)`` that is True from each start for as many windows as the size."""
    places = torch.arange(num_windows)
    return (places >= starts[:, None]) & (places < (starts + sizes)[:, None])
