"""Matching and losses of FACT as published: one-hot labels, and an array of T x M x S for the IoU.

Source: Lu and Elhamifar, CVPR 2024. Labels become one-hot matrices, the overlap of tokens and true
segments is computed frame by frame in one array, and a pair is weighed by its own segment.
Shapes: T frames, C classes, M tokens, S true segments, P predicted segments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from .fact_reference import Outputs, runs_of

__all__ = ["reference_loss", "reference_match"]


class Labels:
    """True labels of a video in the forms that the losses want.

    Args:
        labels: int64 ``(T,)``.
        n_classes: C.
        bg_class: background classes.
        loss: section ``Loss`` of the config.
    """

    def __init__(self, labels: Tensor, n_classes: int, bg_class: list[int], loss: Any) -> None:
        self.transcript, self.segment_of_frame = runs_of(labels)
        self.onehot_class = F.one_hot(labels, n_classes).float()
        self.onehot_segment = F.one_hot(self.segment_of_frame, len(self.transcript)).float()
        self.class_weight = torch.ones(n_classes + 1)
        self.class_weight[bg_class] = loss.bgw
        self.class_weight[-1] = loss.nullw
        self.segment_weight = self.class_weight[self.transcript]


def reference_loss(
    outputs: list[Outputs], labels: Tensor, n_classes: int, bg_class: list[int], loss: Any
) -> Tensor:
    """Gives the loss of a video, the mean over blocks, with one-to-one matching.

    Args:
        outputs: of every block.
        labels: int64 ``(T,)``.
        n_classes: C.
        bg_class: background classes.
        loss: section ``Loss`` of the config; ``nullw`` is a weight.
    """
    truth = Labels(labels, n_classes, bg_class, loss)
    match = reference_match(outputs[-1], truth, loss)
    total = sum(_block_loss(block, truth, match, loss.sw) for block in outputs)
    return torch.as_tensor(total / len(outputs))


def reference_match(last: Outputs, truth: Labels, loss: Any) -> tuple[Tensor, Tensor]:
    """Gives the matched tokens and their segments, int64 of one length."""
    prob = last["action_clogit"].detach().squeeze(1).softmax(-1)
    attn = last["a2f_attn"].detach()[0].numpy()[:, :, None]
    onehot = truth.onehot_segment.numpy()[:, None]
    overlap = np.einsum("tax,txs->as", attn, onehot)
    iou = overlap / np.minimum(attn + onehot, 1.0).sum(0)
    cost = -loss.pc * prob[:, truth.transcript].numpy() - loss.a2fc * iou
    tokens, segments = linear_sum_assignment(cost)
    return torch.as_tensor(tokens), torch.as_tensor(segments)


def _block_loss(
    block: Outputs, truth: Labels, match: tuple[Tensor, Tensor], smooth_weight: float
) -> Tensor:
    frame_clogit = block["frame_clogit"].squeeze(1)
    frame = _class_loss(frame_clogit, truth.onehot_class, truth)
    smooth = _smooth_loss(frame_clogit)
    token = _token_loss(block["action_clogit"].squeeze(1), truth, match)
    if "a2f_attn_logit" not in block:
        return frame + token + smooth_weight * smooth
    f2a, a2f = block["f2a_attn_logit"][0].transpose(0, 1), block["a2f_attn_logit"][0]
    segment_target = truth.onehot_segment
    if "seg_clogit" in block:
        of_frame = block["segment_of_frame"]
        class_target = _mean_of_runs(truth.onehot_class, of_frame)
        frame = (frame + _class_loss(block["seg_clogit"].squeeze(1), class_target, truth)) / 2
        segment_target = _mean_of_runs(segment_target, of_frame)
    else:
        smooth = smooth + _smooth_loss(a2f) + _smooth_loss(f2a)
    attention = sum(
        _attention_loss(logit, segment_target, truth, match, dim)
        for logit, dim in ((f2a, 0), (a2f, 1))
    )
    return frame + token + attention + smooth_weight * smooth


def _class_loss(logit: Tensor, target: Tensor, truth: Labels) -> Tensor:
    weighted = -logit.log_softmax(-1) * target * truth.class_weight[:-1]
    return weighted.sum() / target.sum()


def _token_loss(logit: Tensor, truth: Labels, match: tuple[Tensor, Tensor]) -> Tensor:
    tokens, segments = match
    target = torch.full((len(logit),), logit.shape[1] - 1)
    target[tokens] = truth.transcript[segments]
    return F.cross_entropy(logit, target, weight=truth.class_weight)


def _attention_loss(
    logit: Tensor, target: Tensor, truth: Labels, match: tuple[Tensor, Tensor], dim: int
) -> Tensor:
    tokens, segments = match
    logp = logit[:, tokens].log_softmax(dim)
    weighted = -logp * target[:, segments] * truth.segment_weight[segments]
    return weighted.sum() / target.sum()


def _smooth_loss(logit: Tensor) -> Tensor:
    logp = logit.log_softmax(-1)
    return ((logp[1:] - logp[:-1]) ** 2).clamp(0, 16).mean()


def _mean_of_runs(target: Tensor, of_frame: Tensor) -> Tensor:
    lengths = torch.bincount(of_frame)
    sums = target.new_zeros(len(lengths), target.shape[1]).index_add_(0, of_frame, target)
    return sums / lengths[:, None]
