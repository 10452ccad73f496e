"""From frames to slots: the encoder, and slot attention over time.

Shapes: B clips, T frames, K slots, D slot width, h x w token grid, N = h w, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vidseg.errors import DataError

from .encoder import TokenHead, pad_to_stride, with_differences
from .frame_masking import interpolate
from .grounding import NUM_MEANS, mean_looks, token_looks
from .initial_slots import InitialSlots
from .linking import LinkState, link_slots, reorder_slots
from .slot_attention import SlotAttention
from .time_modes import run_independent, run_recurrent

__all__ = ["FoundSlots", "PerceptionState", "SlotPerception"]


@dataclass(frozen=True)
class PerceptionState:
    """What the next frames of a video need of those before.

    Attributes:
        num_frames: seen so far.
        last_frame: ``(B, 3, H, W)`` in [0, 1].
        carry: what slot attention hands on to the next frame.
        link: for the order of the slots; None if they are not linked.
    """

    num_frames: int
    last_frame: Tensor
    carry: Any
    link: LinkState | None

    def check_size(self, video: Tensor) -> None:
        """Checks that frames ``(..., H, W)`` are as large as those before.

        Raises:
            DataError: if not.
        """
        before, now = self.last_frame.shape[-2:], video.shape[-2:]
        if before != now:
            raise DataError(
                f"frames of {now[1]}x{now[0]} come after frames of {before[1]}x{before[0]} pixels "
                "in one video"
            )


@dataclass(frozen=True)
class FoundSlots:
    """Slots of frames.

    Attributes:
        slots: ``(B, T, K, D)`` float32.
        attn: ``(B, T, K, h, w)`` float32, sum 1 over K; of padded frames.
        state: for the frames after these.
        seen: the part of the slots that says where and how they look, ``(B, T, K, D)``; None if
            attention does not know.
    """

    slots: Tensor
    attn: Tensor
    state: PerceptionState
    seen: Tensor | None = None


class SlotPerception(nn.Module):
    """Finds the slots of every frame.

    Where places or colours count in attention, slots need not carry them to compete. So the mean
    place and colour of what a slot attends to are then added to it, for those who read slots.

    Args:
        backbone: frames to features, with ``stride``, pixels from token to token, ``divisor``, what
            sizes must be multiples of, ``out_channels`` and ``input_diff``. Its parameters learn at
            ``SOLVER.BACKBONE_MULTIPLIER``.
        token_head: features to tokens.
        attention: tokens to slots.
        initial_slots: what slots start from.
        predictor: slots of a frame to the start of those of the next one; None hands them on.
        recurrent: frames start from the slots of the frame before.
        iters_next: iterations of slot attention in the later frames then.
        eval_iters: iterations in evaluation; None for those of training.
        link: reorder slots by content in evaluation.
        luma: weight of brightness beside chroma, where colours count in slot attention.
    """

    def __init__(
        self,
        backbone: nn.Module,
        token_head: TokenHead,
        attention: SlotAttention,
        initial_slots: InitialSlots,
        predictor: nn.Module | None = None,
        *,
        recurrent: bool = False,
        iters_next: int = 1,
        eval_iters: int | None = None,
        link: bool = False,
        luma: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.token_head, self.attention = token_head, attention
        self.initial_slots, self.predictor = initial_slots, predictor
        self.recurrent, self.iters_next = recurrent, iters_next
        self.eval_iters, self.link, self.luma = eval_iters, link, luma
        is_grounded = attention.grounding is not None
        self.describe = nn.Linear(NUM_MEANS, attention.slot_dim) if is_grounded else None

    def forward(
        self,
        video: Tensor,
        state: PerceptionState | None = None,
        *,
        boxes: Tensor | None = None,
        unseen: Tensor | None = None,
    ) -> FoundSlots:
        """Looks at frames.

        Args:
            video: ``(B, T, 3, H, W)`` in [0, 1].
            state: of the frames before; None at the start of a video.
            boxes: of its first frame, where slots start from them, see ``InitialSlots``.
            unseen: bool ``(B, T)``, frames of which others learn nothing.

        Raises:
            DataError: if slots start from boxes and there are none.
        """
        if boxes is None and self.initial_slots.init == "boxes" and state is None:
            raise DataError(
                "slots start from boxes (MODEL.SLOT_BERT.ATTENTION.INIT), but the clip has no "
                "`boxes` of its first frame"
            )
        last = None if state is None else state.last_frame
        tokens, grid = self.encode(video, last, unseen=unseen)
        first = 0 if state is None else state.num_frames
        iters = None if self.training else self.eval_iters
        looks = self.looks(video, grid)
        carry: Any = None
        if self.recurrent:
            slots, attn, carry = run_recurrent(
                self.attention,
                self.initial_slots,
                self.predictor,
                tokens,
                iters=iters,
                iters_next=self.iters_next,
                carry=None if state is None else state.carry,
                boxes=boxes,
                looks=looks,
                unseen=unseen,
            )
        else:
            slots, attn = run_independent(
                self.attention,
                self.initial_slots,
                tokens,
                iters=iters,
                first_frame=first,
                boxes=boxes,
                looks=looks,
            )
        seen = None
        if self.describe is not None and looks is not None:
            seen = self.describe(mean_looks(attn.detach(), looks))
            slots = slots + seen
        link = None
        if self.link and not self.training:
            order, link = link_slots(slots, attn, None if state is None else state.link)
            slots, attn = reorder_slots(slots, order), reorder_slots(attn, order)
        after = PerceptionState(first + video.shape[1], video[:, -1], carry, link)
        return FoundSlots(slots.float(), attn.unflatten(-1, grid), after, seen)

    def looks(self, video: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """Gives places and colours of the tokens if attention needs them, see ``token_looks``."""
        if self.attention.grounding is None:
            return None
        return token_looks(self.padded(video), grid, self.luma)

    def look_at_some(
        self, video: Tensor, visible: Tensor, *, boxes: Tensor | None = None
    ) -> FoundSlots:
        """Looks at the visible frames of a clip; slots and attention of others are interpolated.

        Args:
            video: ``(1, T, 3, H, W)``.
            visible: bool ``(T,)``, not all False.
            boxes: see ``forward``.
        """
        seen = self(video[:, visible], boxes=boxes)
        return FoundSlots(_spread(seen.slots, visible), _spread(seen.attn, visible), seen.state)

    def encode(
        self, video: Tensor, previous: Tensor | None = None, *, unseen: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Gives what slot attention reads.

        Args:
            video: ``(B, T, 3, H, W)`` in [0, 1].
            previous: the frame before the first one, ``(B, 3, H, W)``; None if there is none.
            unseen: see ``forward``.

        Returns:
            Tokens ``(B, T, N, dim)``, row by row, and the grid (h, w).
        """
        if self.backbone.input_diff:
            video = with_differences(video, previous, unseen)
        features = self.backbone(self.padded(video).flatten(0, 1))
        tokens: Tensor = self.token_head(features).unflatten(0, video.shape[:2])
        height, width = features.shape[-2:]
        return tokens, (height, width)

    def targets(self, video: Tensor) -> Tensor:
        """Gives the frozen features of frames, which the losses read.

        Args:
            video: ``(B, T, 3, H, W)`` in [0, 1].

        Returns:
            ``(B, T, C, h', w')``, see ``FrozenFeatures.targets``.
        """
        frames = self.padded(video).flatten(0, 1)
        features: Tensor = self.backbone.targets(frames).unflatten(0, video.shape[:2])
        return features

    def padded(self, video: Tensor) -> Tensor:
        """Mirrors frames at the lower and right border, up to what the encoder can divide."""
        return pad_to_stride(video, self.backbone.divisor)


def _spread(values: Tensor, visible: Tensor) -> Tensor:
    """Puts values of the visible frames at their places and fills the others."""
    num_slots = values.shape[2]
    whole = values.new_zeros(1, len(visible), *values.shape[2:])
    whole[:, visible] = values
    hidden = ~visible[None, :, None].expand(1, len(visible), num_slots)
    return interpolate(whole.flatten(3), hidden).view(whole.shape)
