"""What the model is trained on: decisions, attention, durations and likeness of tokens.

Every loss of a configured part is there in every step, 0 with gradients where a batch has nothing
to say about it: processes that train together then agree on what takes part.

Shapes: B clips, N tokens, C channels, S labelled tokens of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .object_queries import query_losses
from .transformer import TransformerOutput, received

__all__ = [
    "CONTRASTS",
    "PersistenceCriterion",
    "TokenTargets",
    "attention_losses",
    "balanced_bce",
    "contrastive_loss",
    "duration_loss",
]

CONTRASTS = ("object", "class")
_TINY = 1e-8


@dataclass
class TokenTargets:
    """What is known of the tokens of a batch.

    Attributes:
        labels: int64 ``(B, N)``: 1 persistent, 0 transient, -1 unknown and in the padding.
        object_ids: int64 ``(B, N)``, object of the clip, -1 for none.
        durations: float32 ``(B, N)``, visible share of the clip, -1 where unknown.
        objects: of each clip ``labels (M,)``, ``presence (M, T)`` bool and ``durations (M,)``; for
            object queries only.
    """

    labels: Tensor
    object_ids: Tensor
    durations: Tensor
    objects: list[dict[str, Tensor]]


class PersistenceCriterion(nn.Module):
    """The weighted losses of a batch.

    Args:
        class_balance: give both classes of a batch the same mass.
        duration_weight: of :func:`duration_loss`.
        attention_weight: of :func:`attention_losses`.
        contrastive_weight: of :func:`contrastive_loss`.
        contrastive: tokens of one ``"object"`` are to be alike, or those of one ``"class"``.
        temperature: of the contrastive loss.
        query_weight: of the losses of object queries.

    Raises:
        ValueError: for an unknown ``contrastive``.
    """

    def __init__(
        self,
        *,
        class_balance: bool = True,
        duration_weight: float = 0.0,
        attention_weight: float = 0.0,
        contrastive_weight: float = 0.0,
        contrastive: str = "object",
        temperature: float = 0.1,
        query_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if contrastive not in CONTRASTS:
            raise ValueError(f"contrastive {contrastive!r} is none of {', '.join(CONTRASTS)}")
        self.class_balance, self.contrastive = class_balance, contrastive
        self.duration_weight, self.attention_weight = duration_weight, attention_weight
        self.contrastive_weight, self.temperature = contrastive_weight, temperature
        self.query_weight = query_weight

    @property
    def needs_attention(self) -> bool:
        """Whether the losses read the weights of the last layer."""
        return self.attention_weight > 0

    def forward(
        self, output: TransformerOutput, padding_mask: Tensor, targets: TokenTargets
    ) -> dict[str, Tensor]:
        """Gives the weighted losses by name, those with a weight above 0."""
        losses = {
            "loss_token": balanced_bce(output.logits, targets.labels, balance=self.class_balance)
        }
        if self.attention_weight:
            last = received(output.weights[-1], padding_mask)
            for name, value in attention_losses(last, output.summary, targets.labels).items():
                losses[name] = self.attention_weight * value
        if output.durations is not None:
            value = duration_loss(output.durations, targets.durations)
            losses["loss_duration"] = self.duration_weight * value
        if output.contrast is not None:
            value = self._contrastive_loss(output.contrast, targets)
            losses["loss_contrastive"] = self.contrastive_weight * value
        if output.queries is not None:
            for name, value in query_losses(output.queries, targets.objects).items():
                losses[name] = self.query_weight * value
        return losses

    def _contrastive_loss(self, contrast: Tensor, targets: TokenTargets) -> Tensor:
        if self.contrastive == "class":
            groups = targets.labels
        else:
            clip = torch.arange(len(contrast), device=contrast.device)[:, None]
            ids = targets.object_ids
            groups = (clip * (ids.max() + 1) + ids).where(ids >= 0, -1)
        is_known = groups >= 0
        return contrastive_loss(contrast[is_known], groups[is_known], self.temperature)


def balanced_bce(logits: Tensor, labels: Tensor, *, balance: bool = True) -> Tensor:
    """Binary cross entropy over labelled tokens.

    Args:
        logits: ``(B, N)``.
        labels: ``(B, N)``, 1, 0, or -1 for tokens that do not count.
        balance: mean of the means of both classes, instead of the mean of all tokens.
    """
    errors = F.binary_cross_entropy_with_logits(
        logits.float(), labels.clamp(min=0).float(), reduction="none"
    )
    if not balance:
        return _mean(errors, labels >= 0)
    return (_mean(errors, labels == 1) + _mean(errors, labels == 0)) / 2


def attention_losses(last: Tensor, summary: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
    """Draws attention to persistent tokens, over clips that have both classes.

    Args:
        last: ``(B, N)``, what tokens receive in the last layer, sum 1.
        summary: ``(B, N)``, attention of the summary query, sum 1; None without it.
        labels: ``(B, N)``, 1, 0 or -1.

    Returns:
        ``loss_attention_last``, minus the logarithm of the attention on persistent tokens, and
        ``loss_attention_summary``, the cross entropy with the uniform distribution over them.
    """
    is_persistent = labels == 1
    has_both = is_persistent.any(1) & (labels == 0).any(1)
    mass = (last.float() * is_persistent).sum(1)
    losses = {"loss_attention_last": _mean(-mass.clamp(min=_TINY).log(), has_both)}
    if summary is not None:
        logs = -summary.float().clamp(min=_TINY).log() * is_persistent
        per_clip = logs.sum(1) / is_persistent.sum(1).clamp(min=1)
        losses["loss_attention_summary"] = _mean(per_clip, has_both)
    return losses


def duration_loss(durations: Tensor, targets: Tensor) -> Tensor:
    """Smooth L1 between shares of the clip ``(B, N)``, where the target is not negative."""
    errors = F.smooth_l1_loss(durations.float(), targets, reduction="none", beta=0.1)
    return _mean(errors, targets >= 0)


def contrastive_loss(vectors: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Supervised InfoNCE (Khosla et al., NeurIPS 2020, equation 2).

    Args:
        vectors: ``(S, C)`` of length 1.
        groups: int64 ``(S,)``; tokens of one group are positives of each other.
        temperature: of the softmax over all other tokens.

    Returns:
        Mean over the tokens that have a positive; 0 with gradients if none has.
    """
    if len(vectors) < 2:
        return vectors.sum() * 0.0
    is_self = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    with torch.autocast(vectors.device.type, enabled=False):
        logits = vectors.float() @ vectors.float().T / temperature
    log_shares = logits - logits.masked_fill(is_self, -torch.inf).logsumexp(1, keepdim=True)
    is_positive = (groups[:, None] == groups) & ~is_self
    count = is_positive.sum(1)
    per_token = -(log_shares * is_positive).sum(1) / count.clamp(min=1)
    return _mean(per_token, count > 0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean where the mask is True; 0 with gradients if that is nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
