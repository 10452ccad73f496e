"""Blocks of FACT: input block, update block, and update block over segments (FACT, section 3.2).

Shapes: T frames, M tokens, S segments, H feature width, F and A inner widths of the branches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vidseg.layers.onednn import Linear, linear

from .action_branch import SADecoder, SCADecoder, TranscriptGRU
from .cross_attention import CrossAttention
from .filters import filter_frames
from .frame_branch import MSTCN, MSTCN2
from .heads import ClassHead
from .segments import Segments, find_segments
from .settings import BlockSettings
from .taps import PointwiseTaps

__all__ = [
    "BlockOutput",
    "InputBlock",
    "InputBlockTDU",
    "UpdateBlock",
    "UpdateBlockTDU",
    "build_block",
]


_INPUT_GRU_LAYERS = 2  # of block I, whatever the settings say, as published


@dataclass
class BlockOutput:
    """What a block gives: to the next block, to the losses and to the prediction.

    Args:
        frame_features: ``(T, H)``, probabilities in the last channels.
        token_features: ``(M, H)``, likewise.
        frame_logits: ``(T, C)``.
        token_logits: ``(M, C + 1)``, the null class last.
        f2a_logits: ``(M, N)`` of the attention that brings frames to tokens; N is T in an update
            block, S in one over segments; None in an input block.
        a2f_logits: ``(N, M)`` of the attention that brings tokens to frames.
        f2a_weights: ``(M, N)``, the soft-max over N of ``f2a_logits``.
        a2f_weights: ``(N, M)``, the soft-max over M of ``a2f_logits``.
        segments: the predicted segments of a block that has them.
        segment_logits: ``(S, C)``.
    """

    frame_features: Tensor
    token_features: Tensor
    frame_logits: Tensor
    token_logits: Tensor
    f2a_logits: Tensor | None = None
    a2f_logits: Tensor | None = None
    f2a_weights: Tensor | None = None
    a2f_weights: Tensor | None = None
    segments: Segments | None = None
    segment_logits: Tensor | None = None

    @property
    def segment_index(self) -> Tensor | None:
        """The predicted segment of each frame ``(T,)`` int64, of a block over segments."""
        return None if self.segments is None else self.segments.index

    @property
    def f2a_attention(self) -> Tensor:
        """Attention of tokens to frames ``(M, T)``; segments give theirs to each of their frames.

        Raises:
            ValueError: if the block is an input block.
        """
        weights = _present(self.f2a_weights)
        return weights if self.segments is None else self.segments.to_frames(weights, 1)

    @property
    def a2f_attention(self) -> Tensor:
        """Attention of frames to tokens ``(T, M)``.

        Raises:
            ValueError: if the block is an input block.
        """
        weights = _present(self.a2f_weights)
        return weights if self.segments is None else self.segments.to_frames(weights)


class InputBlock(nn.Module):
    """Block ``i``: frames from the raw features, then tokens that read them.

    Args:
        settings: of the block.
        input_dim: width of the raw features.
        head: reads the class logits.
    """

    def __init__(self, settings: BlockSettings, input_dim: int, head: ClassHead) -> None:
        super().__init__()
        self.frame_branch = _frame_branch(settings, input_dim)
        self.action_branch = _input_action_branch(settings)
        self.head = head

    def forward(
        self, frames: Tensor, tokens: Tensor, frame_pos: Tensor | None, token_pos: Tensor | None
    ) -> BlockOutput:
        """Runs the block on frames ``(T, D)`` and tokens ``(M, A)`` with their positions."""
        frames, frame_logits = self.head.frames(self.frame_branch(frames))
        tokens = self.action_branch(tokens, frames, frame_pos=frame_pos, token_pos=token_pos)
        tokens, token_logits = self.head.tokens(tokens)
        return BlockOutput(frames, tokens, frame_logits, token_logits)


class UpdateBlock(nn.Module):
    """Block ``u``: tokens gather from frames, and frames from tokens.

    Args:
        settings: of the block.
        head: reads the class logits.
    """

    def __init__(self, settings: BlockSettings, head: ClassHead) -> None:
        super().__init__()
        self.frame_branch = _frame_branch(settings)
        self.f2a_layer = _cross_attention(settings, settings.a_dim)
        self.action_branch = _update_action_branch(settings)
        self.a2f_layer = _cross_attention(settings, settings.f_dim)
        self.head = head

    def forward(
        self, frames: Tensor, tokens: Tensor, frame_pos: Tensor | None, token_pos: Tensor | None
    ) -> BlockOutput:
        """Runs the block on frames ``(T, H)`` and tokens ``(M, H)`` with their positions."""
        tokens, f2a_logits, f2a = self.f2a_layer(frames, tokens, x_pos=frame_pos, y_pos=token_pos)
        tokens = self.action_branch(tokens, token_pos=token_pos)
        tokens, token_logits = self.head.tokens(tokens)
        frames, a2f_logits, a2f = self.a2f_layer(tokens, frames, x_pos=token_pos, y_pos=frame_pos)
        frames, frame_logits = self.head.frames(self.frame_branch(frames))
        return BlockOutput(
            frames, tokens, frame_logits, token_logits, f2a_logits, a2f_logits, f2a, a2f
        )


class _SegmentPooling(nn.Module):
    """What blocks over segments share: from frames to the features of predicted segments.

    Args:
        hid_dim: H, even.
        num_layers: of the GRU over segments.
        head: reads the class logits.
    """

    def __init__(self, hid_dim: int, num_layers: int, head: ClassHead) -> None:
        super().__init__()
        self.seg_update = nn.GRU(hid_dim, hid_dim // 2, num_layers, bidirectional=True)
        self.seg_combine = Linear(hid_dim, hid_dim)
        self.head = head

    def pool(self, frames: Tensor) -> tuple[Segments, Tensor, Tensor]:
        """Pools frames over the segments that their probabilities predict.

        Args:
            frames: ``(T, H)``.

        Returns:
            The segments, their features ``(S, H)`` and logits ``(S, C)``.
        """
        segments = find_segments(self.head.scores(frames.detach()).argmax(1))
        pooled = self.seg_combine(self.seg_update(segments.mean(frames))[0].relu())
        return segments, *self.head.frames(pooled)


class InputBlockTDU(_SegmentPooling):
    """Block ``I``: an input block whose tokens read predicted segments instead of frames.

    Args:
        settings: of the block.
        input_dim: width of the raw features.
        head: reads the class logits.
    """

    def __init__(self, settings: BlockSettings, input_dim: int, head: ClassHead) -> None:
        super().__init__(settings.hid_dim, _INPUT_GRU_LAYERS, head)
        self.frame_branch = _frame_branch(settings, input_dim)
        self.action_branch = _input_action_branch(settings)

    def forward(
        self, frames: Tensor, tokens: Tensor, frame_pos: Tensor | None, token_pos: Tensor | None
    ) -> BlockOutput:
        """Runs the block on frames ``(T, D)`` and tokens ``(M, A)`` with their positions."""
        frames, frame_logits = self.head.frames(self.frame_branch(frames))
        segments, pooled, segment_logits = self.pool(frames)
        seg_pos = None if frame_pos is None else frame_pos[segments.centres]
        tokens = self.action_branch(tokens, pooled, frame_pos=seg_pos, token_pos=token_pos)
        tokens, token_logits = self.head.tokens(tokens)
        return BlockOutput(
            frames,
            tokens,
            frame_logits,
            token_logits,
            segments=segments,
            segment_logits=segment_logits,
        )


class UpdateBlockTDU(_SegmentPooling):
    """Block ``U``: an update block whose branches meet over predicted segments.

    Args:
        settings: of the block.
        head: reads the class logits.

    Source: temporal down- and upsampling of FACT, section 3.4.
    """

    def __init__(self, settings: BlockSettings, head: ClassHead) -> None:
        super().__init__(settings.hid_dim, settings.s_layers, head)
        self.frame_branch = _frame_branch(settings)
        self.f2a_layer = _cross_attention(settings, settings.a_dim)
        self.action_branch = _update_action_branch(settings)
        self.a2f_layer = _cross_attention(settings, settings.f_dim)
        merged = Linear(settings.hid_dim + settings.f_dim, settings.f_dim)
        self.sf_merge = nn.Sequential(merged, nn.ReLU())

    def forward(
        self, frames: Tensor, tokens: Tensor, frame_pos: Tensor | None, token_pos: Tensor | None
    ) -> BlockOutput:
        """Runs the block on frames ``(T, H)`` and tokens ``(M, H)`` with their positions."""
        segments, pooled, segment_logits = self.pool(frames)
        seg_pos = None if frame_pos is None else frame_pos[segments.centres]
        tokens, f2a_logits, f2a = self.f2a_layer(pooled, tokens, x_pos=seg_pos, y_pos=token_pos)
        tokens = self.action_branch(tokens, token_pos=token_pos)
        tokens, token_logits = self.head.tokens(tokens)
        pooled, a2f_logits, a2f = self.a2f_layer(tokens, pooled, x_pos=token_pos, y_pos=seg_pos)
        frames = self._merge(segments, pooled, frames)
        frames, frame_logits = self.head.frames(self.frame_branch(frames))
        return BlockOutput(
            frames,
            tokens,
            frame_logits,
            token_logits,
            f2a_logits,
            a2f_logits,
            f2a,
            a2f,
            segments,
            segment_logits,
        )

    def _merge(self, segments: Segments, pooled: Tensor, frames: Tensor) -> Tensor:
        """Maps ``[segment of the frame | frame]`` to F; segments are mapped before copying."""
        merge: Any = self.sf_merge[0]
        pooled_weight, frame_weight = merge.weight.split([pooled.shape[1], frames.shape[1]], 1)
        copied = segments.to_frames(linear(pooled, pooled_weight))
        weights = (frame_weight, merge.bias)
        return filter_frames(frames, PointwiseTaps(), weights, residual=copied).relu()


def build_block(settings: BlockSettings, input_dim: int, head: ClassHead) -> nn.Module:
    """Builds the block of a letter.

    Args:
        settings: with the letter as ``kind``.
        input_dim: width of the raw features, for an input block.
        head: reads the class logits.
    """
    builders: dict[str, Callable[[], nn.Module]] = {
        "i": lambda: InputBlock(settings, input_dim, head),
        "I": lambda: InputBlockTDU(settings, input_dim, head),
        "u": lambda: UpdateBlock(settings, head),
        "U": lambda: UpdateBlockTDU(settings, head),
    }
    return builders[settings.kind]()


def _present(weights: Tensor | None) -> Tensor:
    if weights is None:
        raise ValueError("an input block has no attention between the branches")
    return weights


def _frame_branch(settings: BlockSettings, input_dim: int | None = None) -> nn.Module:
    sizes = (input_dim or settings.f_dim, settings.f_dim, settings.hid_dim)
    if settings.f == "m2":
        return MSTCN2(
            *sizes,
            num_layers=settings.f_layers,
            dropout=settings.dropout,
            groups=settings.f_ngp,
            in_map=input_dim is not None,
        )
    return MSTCN(
        *sizes,
        num_layers=settings.f_layers,
        dropout=settings.dropout,
        norm=settings.f_ln,
        groups=settings.f_ngp,
        in_map=input_dim is not None,
    )


def _input_action_branch(settings: BlockSettings) -> nn.Module:
    if settings.a == "sca":
        return SCADecoder(
            settings.a_dim,
            settings.hid_dim,
            settings.hid_dim,
            num_layers=settings.a_layers,
            num_heads=settings.a_nhead,
            ff_dim=settings.a_ffdim,
            dropout=settings.dropout,
        )
    return TranscriptGRU(
        settings.a_dim,
        settings.hid_dim,
        num_layers=settings.a_layers,
        dropout=settings.dropout,
        out_map=settings.a == "gru_om",
    )


def _update_action_branch(settings: BlockSettings) -> nn.Module:
    return SADecoder(
        settings.a_dim,
        settings.hid_dim,
        num_layers=settings.a_layers,
        num_heads=settings.a_nhead,
        ff_dim=settings.a_ffdim,
        dropout=settings.dropout,
    )


def _cross_attention(settings: BlockSettings, out_dim: int) -> CrossAttention:
    width = settings.hid_dim
    return CrossAttention(width, width, out_dim, head_dim=width, dropout=settings.dropout)
