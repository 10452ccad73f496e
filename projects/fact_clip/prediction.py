"""From the last block's output to labels of frames (FACT, section 3.5).

Shapes: T frames, M tokens, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .blocks import BlockOutput

if TYPE_CHECKING:
    from .text_matching import ZeroShot

__all__ = ["ActionPrediction", "merge_branches", "merge_with_transcript", "predict"]


@dataclass
class ActionPrediction:
    """What a model says of a video, on the CPU.

    Args:
        labels: ``(T,)`` int64, of both branches together.
        probabilities: ``(T, C)`` float32, whose largest is the label.
        frame_labels: ``(T,)`` int64, of the frame branch alone.
        action_labels: ``(T,)`` int64, of the action branch alone; -1 if all tokens are null.
        token_labels: ``(M,)`` int64, class of each token; C is the null class.
        attention: ``(T, M)`` float16, of frames to tokens.
        zero_shot: labels by text, of a model that gives them.
    """

    labels: Tensor
    probabilities: Tensor
    frame_labels: Tensor
    action_labels: Tensor
    token_labels: Tensor
    attention: Tensor
    zero_shot: ZeroShot | None = None


@torch.no_grad()
def predict(output: BlockOutput, mwt: float, transcript: Tensor | None = None) -> ActionPrediction:
    """Merges the branches of a block.

    Args:
        output: of the last block.
        mwt: weight of the frame branch.
        transcript: ``(S,)`` int64, if it was an input; the tokens are then its segments.
    """
    frames = output.frame_logits.float().softmax(-1)
    tokens = output.token_logits.float().softmax(-1)
    attention = output.a2f_attention.float()
    if transcript is None:
        return merge_branches(frames, tokens, attention, mwt)
    return merge_with_transcript(frames, tokens, attention, mwt, transcript)


def merge_branches(
    frames: Tensor, tokens: Tensor, attention: Tensor, mwt: float
) -> ActionPrediction:
    """Lets every frame take the class probabilities of the token that it attends to most.

    Args:
        frames: ``(T, C)``, class probabilities of the frame branch.
        tokens: ``(M, C + 1)``, of the action branch, null class last. Tokens that are null most
            likely are left out; the others share out the null class's part.
        attention: ``(T, M)``.
        mwt: weight of the frame branch. Without any token left it alone decides.
    """
    token_labels = tokens.argmax(1)
    kept = (token_labels < frames.shape[1]).nonzero()[:, 0]
    if len(kept) == 0:
        merged = frames
        action_labels = token_labels.new_full((len(frames),), -1)
    else:
        named = tokens[kept, :-1]
        named = named / named.sum(1, keepdim=True)
        actions = named[attention[:, kept].argmax(1)]  # (T, C)
        action_labels = actions.argmax(1)
        merged = (1 - mwt) * actions + mwt * frames
    return _on_cpu(merged.argmax(1), merged, frames, action_labels, token_labels, attention)


def merge_with_transcript(
    frames: Tensor, tokens: Tensor, attention: Tensor, mwt: float, transcript: Tensor
) -> ActionPrediction:
    """Lets every frame choose a segment of the transcript.

    Args:
        frames: ``(T, C)``, class probabilities of the frame branch.
        tokens: ``(M, C + 1)``, of the action branch; they decide nothing here.
        attention: ``(T, M)``, M >= S.
        mwt: weight of the frame branch.
        transcript: ``(S,)`` int64.

    Returns:
        The prediction; a class has the probability of its best segment.
    """
    actions = attention[:, : len(transcript)].softmax(-1)  # of probabilities, as published
    merged = (1 - mwt) * actions + mwt * frames[:, transcript]  # (T, S)
    columns = transcript.expand(len(merged), -1)
    probabilities = torch.zeros_like(frames).scatter_reduce(1, columns, merged, "amax")
    labels = transcript[merged.argmax(1)]
    action_labels = transcript[actions.argmax(1)]
    return _on_cpu(labels, probabilities, frames, action_labels, tokens.argmax(1), attention)


def _on_cpu(
    labels: Tensor,
    probabilities: Tensor,
    frames: Tensor,
    action_labels: Tensor,
    token_labels: Tensor,
    attention: Tensor,
) -> ActionPrediction:
    return ActionPrediction(
        labels=labels.cpu(),
        probabilities=probabilities.float().cpu(),
        frame_labels=frames.argmax(1).cpu(),
        action_labels=action_labels.cpu(),
        token_labels=token_labels.cpu(),
        attention=attention.half().cpu(),
    )
