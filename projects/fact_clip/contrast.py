"""Symmetric contrastive loss between frames and the texts of classes.

Shapes: N frames (of all videos of a batch), C classes, E width, K candidate classes.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["T2V_MODES", "ContrastiveLoss", "infonce_contrastive_loss"]

TextToVideo = Literal["supcon", "exclude", "logsum"]
T2V_MODES: tuple[str, ...] = get_args(TextToVideo)

_LARGEST_SCALE = 100.0  # of the cosines, as CLIP caps a learnt one


def infonce_contrastive_loss(
    projected_embeddings: Tensor,
    text_embeddings: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 0.07,
    *,
    t2v_mode: str = "supcon",
    candidates: Tensor | None = None,
) -> Tensor:
    """Gives the mean of the video-to-text and the text-to-video loss.

    Video to text is the cross-entropy of each frame over the candidate classes. Text to video
    compares a class with all frames: it has many positive ones, whose mean stands outside the
    logarithm (``supcon``, Khosla et al., NeurIPS 2020), whose other positives leave the denominator
    (``exclude``), or whose shares are summed inside the logarithm (``logsum``). Each class that has
    frames weighs the same there, however long it lasts.

    Args:
        projected_embeddings: ``(N, E)`` or ``(T, B, E)``, of any length.
        text_embeddings: ``(C, E)``, of any length.
        labels: ``(N,)`` or ``(T, B)`` int64; negative ones are ignored.
        temperature: that the cosines are divided by.
        t2v_mode: ``supcon``, ``exclude`` or ``logsum``.
        candidates: ``(K,)`` classes that frames are compared with; frames of others are left out.
            None for all.

    Returns:
        A scalar; 0 with a graph if no frame counts.

    Raises:
        ValueError: if the mode is unknown or the shapes do not fit.
    """
    v2t, t2v = contrastive_terms(
        projected_embeddings,
        text_embeddings,
        labels,
        temperature,
        t2v_mode=t2v_mode,
        candidates=candidates,
    )
    return (v2t + t2v) / 2


def contrastive_terms(
    projected_embeddings: Tensor,
    text_embeddings: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
    *,
    t2v_mode: str = "supcon",
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gives both directions of ``infonce_contrastive_loss``: video to text, text to video."""
    if t2v_mode not in T2V_MODES:
        raise ValueError(f"t2v_mode is {t2v_mode!r}, expected one of {', '.join(T2V_MODES)}")
    frames = projected_embeddings.flatten(0, -2)
    labels = labels.reshape(-1)
    if len(labels) != len(frames):
        raise ValueError(f"{len(labels)} labels do not fit {len(frames)} frames")
    if frames.shape[-1] != text_embeddings.shape[-1]:
        raise ValueError(
            f"frames are {frames.shape[-1]} wide, but texts {text_embeddings.shape[-1]}"
        )
    columns, classes = _columns(labels, text_embeddings, candidates)
    kept = columns >= 0
    if not bool(kept.any()):
        nothing = projected_embeddings.sum() * 0.0
        return nothing, nothing
    frames, columns = frames[kept], columns[kept]
    # Cosines differ in their third digit, which mixed precision would round off.
    with torch.autocast(frames.device.type, enabled=False):
        texts = F.normalize(_at_least_float(classes), dim=-1, eps=1e-12)
        frames = F.normalize(_at_least_float(frames), dim=-1, eps=1e-12)
        logits = frames @ texts.t() / temperature
    own = logits.gather(1, columns[:, None])[:, 0]
    v2t = (logits.logsumexp(1) - own).mean()
    counts = columns.bincount(minlength=len(classes))
    per_class = _text_to_video(logits, own, columns, counts, t2v_mode)
    return v2t, per_class[counts > 0].mean()


def _at_least_float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _columns(
    labels: Tensor, text_embeddings: Tensor, candidates: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gives the column of each frame among the candidates, -1 if it does not count, and them."""
    num_classes = len(text_embeddings)
    if bool((labels >= num_classes).any()):
        raise ValueError(f"label {int(labels.max())} has no text; there are {num_classes}")
    if candidates is None:
        return labels, text_embeddings
    places = labels.new_full((num_classes,), -1)
    places[candidates] = torch.arange(len(candidates), device=labels.device)
    columns = torch.where(labels < 0, labels, places[labels.clamp(min=0)])
    return columns, text_embeddings[candidates]


def _text_to_video(
    logits: Tensor, own: Tensor, columns: Tensor, counts: Tensor, mode: str
) -> Tensor:
    """Gives the loss of every class, ``(K,)``; of those without frames it means nothing."""
    if mode == "supcon":
        return logits.logsumexp(0) - _class_means(own, columns, counts)
    if mode == "logsum":
        return logits.logsumexp(0) - _class_logsumexp(own, columns, counts)
    others = logits.scatter(1, columns[:, None], -torch.inf)
    # A class that all frames belong to is told from nothing.
    others = others.masked_fill(counts == len(columns), -1e4).logsumexp(0)
    return _class_means(F.softplus(others[columns] - own), columns, counts)


def _class_means(values: Tensor, columns: Tensor, counts: Tensor) -> Tensor:
    sums = values.new_zeros(len(counts)).index_add(0, columns, values)
    return sums / counts.clamp(min=1)


def _class_logsumexp(values: Tensor, columns: Tensor, counts: Tensor) -> Tensor:
    highest = values.new_full((len(counts),), -torch.inf)
    highest = highest.scatter_reduce(0, columns, values.detach(), "amax")
    highest = highest.masked_fill(counts == 0, 0.0)
    shares = (values - highest[columns]).exp()
    sums = values.new_zeros(len(counts)).index_add(0, columns, shares)
    return highest + sums.masked_fill(counts == 0, 1.0).log()


class ContrastiveLoss(nn.Module):
    """``infonce_contrastive_loss`` with its temperature, fixed or learnt.

    Args:
        temperature: at the start.
        is_learnt: learn ``log(1 / temperature)``; the scale of the cosines is capped at 100.
        t2v_mode: see ``infonce_contrastive_loss``.

    Raises:
        ValueError: if the temperature is not positive or the mode is unknown.
    """

    def __init__(
        self, temperature: float = 0.07, *, is_learnt: bool = False, t2v_mode: str = "supcon"
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected a positive number")
        if t2v_mode not in T2V_MODES:
            raise ValueError(f"t2v_mode is {t2v_mode!r}, expected one of {', '.join(T2V_MODES)}")
        self.t2v_mode = t2v_mode
        self._temperature = temperature
        self.logit_scale: nn.Parameter | None = None
        if is_learnt:
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    @property
    def temperature(self) -> float | Tensor:
        """What the cosines are divided by."""
        if self.logit_scale is None:
            return self._temperature
        return 1 / self.logit_scale.exp().clamp(max=_LARGEST_SCALE)

    def forward(
        self, projected: Tensor, texts: Tensor, labels: Tensor, candidates: Tensor | None = None
    ) -> Tensor:
        """Gives the loss, a scalar; see ``infonce_contrastive_loss``."""
        return infonce_contrastive_loss(
            projected,
            texts,
            labels,
            self.temperature,
            t2v_mode=self.t2v_mode,
            candidates=candidates,
        )
