"""The losses of FACT: one match of tokens and segments per video, and what each block learns by it.

After Lu and Elhamifar, CVPR 2024. Shapes: T frames, M tokens, S segments, C classes (the null class
of tokens is index C), N rows of attention (frames in u blocks, predicted segments in U blocks).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, nearest

from .losses import MatchedFrames, a2f_loss, f2a_loss, frame_loss, smooth_loss, token_loss
from .matching import Match, match_cost, one_to_many, one_to_one, sequential
from .null_weight import null_weight, tokens_needed
from .targets import FrameRows, VideoTargets

__all__ = ["MATCHES", "BlockTensors", "LossSettings", "MatchCriterion", "loss_settings"]

logger = logging.getLogger(__name__)

MATCHES = ("o2o", "o2m", "seq")


class BlockTensors(Protocol):
    """What the losses read of a block's output."""

    frame_logits: Tensor  # (T, C)
    token_logits: Tensor  # (M, C + 1)
    a2f_logits: Tensor | None  # (N, M); None in blocks without cross-attention
    f2a_logits: Tensor | None  # (M, N)
    segment_logits: Tensor | None  # (N, C); None in blocks without segments

    @property
    def segment_index(self) -> Tensor | None:
        """The predicted segment of each frame, ``(T,)`` int64, in blocks that have them."""

    @property
    def a2f_attention(self) -> Tensor:
        """Attention of frames to tokens, ``(T, M)``, in blocks with cross-attention."""


@dataclass(frozen=True)
class LossSettings:
    """The keys of ``Loss``.

    Args:
        match: ``o2o`` (a token per segment), ``o2m`` (a token may serve several segments of its
            class) or ``seq`` (token k is segment k).
        pc: weight of the class probability in the cost of a match.
        a2fc: weight of the soft IoU of attention and segment.
        bgw: weight of background in the losses.
        nullw: weight of the null class of tokens; -1 if it follows from the training labels.
        sw: weight of the smoothing loss.
        published_weights: weigh the k-th matched pair by the k-th segment, as the published code
            does, instead of by its own; the same unless ``bgw`` differs from 1.

    Raises:
        ConfigError: if a value is unknown or out of range.
    """

    match: str = "o2o"
    pc: float = 1.0
    a2fc: float = 1.0
    bgw: float = 1.0
    nullw: float = -1.0
    sw: float = 0.0
    published_weights: bool = False

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            hint = ", ".join(nearest(self.match, MATCHES) or MATCHES)
            raise ConfigError(f"Loss.match is {self.match!r}; nearest: {hint}")
        for name in ("pc", "a2fc", "bgw", "sw"):
            value = getattr(self, name)
            if not value >= 0:
                raise ConfigError(f"Loss.{name} is {value}; it cannot be negative")
        if not (self.nullw >= 0 or self.nullw == -1):
            raise ConfigError(
                f"Loss.nullw is {self.nullw}; give a weight of 0 or more, or -1 for the one that "
                "follows from the training labels"
            )
        if self.match != "seq" and not self.pc and not self.a2fc:
            raise ConfigError(
                f"Loss.pc and Loss.a2fc are both 0: match {self.match} has nothing to go by"
            )


def loss_settings(cfg: CfgNode | LossSettings) -> LossSettings:
    """Reads ``Loss`` of a config, perhaps a published one; settings are given back as they are.

    Raises:
        ConfigError: if a value is unknown or out of range.
    """
    if isinstance(cfg, LossSettings):
        return cfg
    names = [field.name for field in fields(LossSettings) if field.name in cfg.Loss]
    return LossSettings(**{name: cfg.Loss[name] for name in names})


class MatchCriterion(nn.Module):
    """Matches the tokens of the last block with the segments, and scores every block by that.

    The state dict is empty. With ``nullw`` -1 each video weighs the null class by its own number of
    segments until :attr:`null_weight` is set.

    Args:
        cfg: reads ``Loss``; or the settings.
        n_classes: C.
        bg_class: numbers of the background classes.

    Raises:
        ConfigError: if a value is unknown or out of range.
    """

    class_weight: Tensor

    def __init__(
        self, cfg: CfgNode | LossSettings, n_classes: int, bg_class: Iterable[int] = (0,)
    ) -> None:
        super().__init__()
        self.settings = loss_settings(cfg)
        self.num_classes = n_classes
        self.bg_class = tuple(bg_class)
        class_weight = torch.ones(n_classes)
        for number in self.bg_class:
            if not 0 <= number < n_classes:
                raise ConfigError(
                    f"bg_class {number} is not one of the {n_classes} classes, 0 to {n_classes - 1}"
                )
            class_weight[number] = self.settings.bgw
        self.register_buffer("class_weight", class_weight, persistent=False)
        self.null_weight = self.settings.nullw if self.settings.nullw >= 0 else None
        self.has_warned = False

    @property
    def null_classes(self) -> float:
        """Number of classes that the null class is to weigh as much as one of."""
        return self.num_classes

    def set_mean_matched(self, num_tokens: int, mean_matched: float) -> None:
        """Sets the weight of the null class by the tokens that a video needs on average."""
        self.null_weight = null_weight(num_tokens, mean_matched, self.null_classes)

    def extra_repr(self) -> str:
        """Shows the settings where the model is printed."""
        return f"{self.settings}, null_weight={self.null_weight}"

    def forward(
        self, blocks: Sequence[BlockTensors], targets: VideoTargets | Tensor
    ) -> dict[str, Tensor]:
        """Gives the losses of a video, weighted and as means over its blocks.

        Args:
            blocks: outputs of all blocks.
            targets: of the video; or its labels, ``(T,)`` int64, negative where a frame has none.

        Returns:
            ``loss_frame``, ``loss_token``, ``loss_a2f``, ``loss_f2a``, ``loss_segment`` and
            ``loss_smooth`` as far as there are blocks with them.
        """
        if isinstance(targets, Tensor):
            targets = VideoTargets.of(targets)
        return self.losses(blocks, targets, self.match_block(blocks[-1], targets))

    def losses(
        self, blocks: Sequence[BlockTensors], targets: VideoTargets, match: Match
    ) -> dict[str, Tensor]:
        """Gives what :meth:`forward` gives, of a video that is matched already."""
        matched = MatchedFrames.of(
            match,
            targets,
            self.class_weight[targets.transcript],
            published=self.settings.published_weights,
        )
        total: dict[str, Tensor] = {}
        for block in blocks:
            for name, value in self.block_losses(block, targets, match, matched).items():
                total[name] = total[name] + value if name in total else value
        return {name: value / len(blocks) for name, value in total.items()}

    @torch.no_grad()
    def match_block(self, block: BlockTensors, targets: VideoTargets) -> Match:
        """Matches by the output of a block that has cross-attention."""
        return self.match(self.token_probs(block), block.a2f_attention, targets)

    def token_probs(self, block: BlockTensors) -> Tensor:
        """Gives the class probabilities ``(M, C + 1)`` of a block's tokens."""
        return block.token_logits.detach().float().softmax(-1)

    @torch.no_grad()
    def match(self, class_probs: Tensor, attention: Tensor, targets: VideoTargets) -> Match:
        """Matches tokens and segments.

        With too few tokens those there are get the best matches; that is warned of once.

        Args:
            class_probs: of the tokens, ``(M, C + 1)``.
            attention: of the frames to the tokens, ``(T, M)``; each frame's adds up to 1.
            targets: of the video.
        """
        self._check_tokens(len(class_probs), targets)
        device = targets.transcript.device
        if self.settings.match == "seq":
            pairs = sequential(len(class_probs), len(targets.transcript))
            return Match.of(*pairs, device)
        cost = match_cost(
            class_probs,
            attention,
            targets,
            class_cost=self.settings.pc,
            overlap_cost=self.settings.a2fc,
        )
        if self.settings.match == "o2m":
            return Match.of(*one_to_many(cost, targets.transcript.cpu().numpy()), device)
        return Match.of(*one_to_one(cost), device)

    def block_losses(
        self, block: BlockTensors, targets: VideoTargets, match: Match, matched: MatchedFrames
    ) -> dict[str, Tensor]:
        """Gives the weighted losses of one block.

        Args:
            block: its output.
            targets: of the video.
            match: of the video.
            matched: the same, by frames.
        """
        losses = self.class_losses(block, targets, match)
        if block.a2f_logits is not None and block.f2a_logits is not None:
            rows = _rows_of(block, targets, len(block.a2f_logits))
            losses["loss_a2f"] = a2f_loss(block.a2f_logits, matched, rows)
            losses["loss_f2a"] = f2a_loss(block.f2a_logits, matched, rows)
        if self.settings.sw:
            losses["loss_smooth"] = self.settings.sw * self.smoothness(block)
        return losses

    def class_losses(
        self, block: BlockTensors, targets: VideoTargets, match: Match
    ) -> dict[str, Tensor]:
        """Gives the losses of a block's class logits: of frames, of segments and of tokens."""
        weights = self.class_weight[targets.labels]
        log_probs = F.log_softmax(block.frame_logits.float(), -1)
        loss = frame_loss(log_probs, targets.labels, weights, FrameRows.of_frames(targets))
        losses = {"loss_frame": loss}
        if block.segment_logits is not None:
            log_probs = F.log_softmax(block.segment_logits.float(), -1)
            rows = _rows_of(block, targets, len(log_probs))
            segment = frame_loss(log_probs, targets.labels, weights, rows)
            losses = {"loss_frame": loss / 2, "loss_segment": segment / 2}
        log_probs = F.log_softmax(block.token_logits.float(), -1)
        classes = self.token_classes(len(log_probs), targets, match)
        losses["loss_token"] = token_loss(log_probs, classes, self.token_weight(classes, targets))
        return losses

    def smoothness(self, block: BlockTensors) -> Tensor:
        """Gives the smoothing loss of frames, and of the attention if it is between frames."""
        loss = smooth_loss(block.frame_logits)
        if block.segment_index is None and block.a2f_logits is not None:
            assert block.f2a_logits is not None
            loss = loss + smooth_loss(block.a2f_logits) + smooth_loss(block.f2a_logits.T)
        return loss

    def token_classes(self, num_tokens: int, targets: VideoTargets, match: Match) -> Tensor:
        """Gives what each token is to be, ``(M,)`` int64: C where it is not matched."""
        classes = targets.transcript.new_full((num_tokens,), self.num_classes)
        classes[match.tokens] = targets.transcript[match.segments]
        return classes

    def token_weight(self, classes: Tensor, targets: VideoTargets) -> Tensor:
        """Gives the weight of each class of tokens, ``(C + 1,)``, the null class last.

        All are 0 for a video without labels: nothing is known of its tokens.
        """
        if not len(targets.frames):
            return self.class_weight.new_zeros(self.num_classes + 1)
        null = self.null_weight
        if null is None:
            needed = tokens_needed(targets, self.settings.match)
            null = null_weight(len(classes), needed, self.null_classes)
        return F.pad(self.class_weight, (0, 1), value=null)

    def _check_tokens(self, num_tokens: int, targets: VideoTargets) -> None:
        if self.has_warned or len(targets.transcript) <= num_tokens:
            return
        needed = tokens_needed(targets, self.settings.match)
        if needed > num_tokens:
            self.has_warned = True
            kind = "classes" if self.settings.match == "o2m" else "segments"
            logger.warning(
                "a video has %d %s, but there are %d action tokens: those beyond teach no token; "
                "set FACT.ntoken to %d or more (said once)",
                needed,
                kind,
                num_tokens,
                needed,
            )


def _rows_of(block: BlockTensors, targets: VideoTargets, num_rows: int) -> FrameRows:
    """Tells which row of logits of frames or of predicted segments each labelled frame reads."""
    if block.segment_index is None:
        return FrameRows.of_frames(targets)
    return FrameRows.of_segments(targets, block.segment_index, num_rows)
