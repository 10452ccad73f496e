"""The model from video to slots, masks and a reconstruction.

Shapes: B clips, T frames, K slots, D slot width, h x w token grid, N = h w, R decode size, H x W
pixels of a frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import DataError
from vidseg.modeling import META_ARCH_REGISTRY

from .clips_input import to_video
from .collapse import collapse_figures
from .criterion import SlotCriterion, SlotOutputs
from .decoders import BroadcastDecoder, PixelMLPDecoder
from .drawing import draw_slots
from .encoder import TokenHead, pad_to_stride, with_differences
from .frame_masking import draw_hidden, interpolate
from .initial_slots import InitialSlots
from .linking import link_slots, reorder_slots
from .settings import build_parts
from .slot_attention import SlotAttention
from .staging import at_rest, progress_of
from .streaming import StreamState
from .temporal_transformer import TemporalSlotTransformer
from .time_modes import run_independent, run_recurrent

__all__ = ["SlotBERT"]

Sample = dict[str, Any]


@META_ARCH_REGISTRY.register()
class SlotBERT(nn.Module):
    """Takes frames apart into slots that each stand for one object, without labels.

    Args:
        backbone: frames to features; the learning rate of its parameters is multiplied by
            ``SOLVER.BACKBONE_MULTIPLIER``.
        token_head: features to tokens.
        attention: tokens to slots.
        initial_slots: what slots start from.
        predictor: slots of a frame to the start of those of the next one; None hands them on.
        transformer: corrects slots by those of other frames.
        decoder: slots to what they draw.
        criterion: outputs to losses.
        recurrent: frames start from the slots of the frame before.
        iters_next: iterations of slot attention in the later frames then.
        eval_iters: iterations in evaluation; None for those of training.
        link: reorder slots by content in evaluation.
        use_transformer: whether the temporal transformer has a say.
        mask_ratio: share of what it has to predict in training.
        mask_unit: see ``frame_masking.MASK_UNITS``.
        warmup: fraction of the run in which the temporal transformer trains alone.
        mask_source: masks of the segmentation.
        subsample: share of the pixels that a training step decodes.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        token_head: TokenHead,
        attention: SlotAttention,
        initial_slots: InitialSlots,
        predictor: nn.Module | None,
        transformer: TemporalSlotTransformer,
        decoder: BroadcastDecoder | PixelMLPDecoder,
        criterion: SlotCriterion,
        recurrent: bool = False,
        iters_next: int = 1,
        eval_iters: int | None = None,
        link: bool = False,
        use_transformer: bool = False,
        mask_ratio: float = 0.2,
        mask_unit: str = "frame",
        warmup: float = 0.2,
        mask_source: str = "attn",
        subsample: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone, self.token_head = backbone, token_head
        self.attention, self.initial_slots = attention, initial_slots
        self.predictor, self.transformer = predictor, transformer
        self.decoder, self.criterion = decoder, criterion
        self.recurrent, self.iters_next, self.eval_iters = recurrent, iters_next, eval_iters
        self.link, self.use_transformer = link, use_transformer
        self.mask_ratio, self.mask_unit, self.warmup = mask_ratio, mask_unit, warmup
        self.mask_source, self.subsample = mask_source, subsample

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Builds the parts from ``MODEL.SLOT_BERT``.

        Raises:
            ConfigError: if values are out of range or contradict each other.
        """
        return build_parts(cfg)

    @property
    def device(self) -> torch.device:
        """Where the model lives and its inputs go."""
        return self.attention.to_q.weight.device

    @property
    def window(self) -> int:
        """Frames that the temporal transformer reads at once."""
        return self.transformer.window

    def forward(self, samples: list[Sample]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses of a batch of clips in training, one prediction per clip in eval.

        Args:
            samples: with ``frames``, see ``to_video``, of any length and size. Also ``boxes`` where
                slots start from them, see ``InitialSlots``, and in eval ``dropped``, bool ``(T,)``,
                for frames that are not to be looked at.

        Returns:
            In training the weighted losses, and figures for the log, whose names have a slash. In
            eval what ``infer`` gives of each clip, without B.

        Raises:
            DataError: if a clip cannot be used; names it.
        """
        if self.training:
            return self._losses(samples)
        return [self._predict(sample) for sample in samples]

    @torch.no_grad()
    def infer(
        self, video: Tensor, hidden: Tensor | None = None, *, boxes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Segments clips.

        Args:
            video: ``(B, T, 3, H, W)``, uint8, or float in [0, 1]; also grey or with alpha.
            hidden: bool ``(B, T)``, frames that are not looked at. The temporal transformer
                predicts their slots, and if it is off they are interpolated.
            boxes: ``(B, n, 4)``, where slots start from them.

        Returns:
            ``slots`` and ``slots_corrected`` ``(B, T, K, D)``, final and as slot attention gave
            them; ``attn`` ``(B, T, K, h, w)``, ``masks`` ``(B, T, K, H, W)`` and ``decoder_masks``
            ``(B, T, K, R, R)``, which sum to 1 over the slots; ``rgb_slots``
            ``(B, T, K, 3, R, R)``; ``reconstruction`` ``(B, T, 3, R, R)``; ``segmentation``, int64
            ``(B, T, H, W)``, the slot of each pixel. Where slots are hidden, so is attention: it
            is interpolated, and masks are those of the decoder if these were trained.

        Raises:
            DataError: if the video cannot be used, or all frames of a clip are hidden.
        """
        video = to_video(video.to(self.device))
        if hidden is None or not bool(hidden.any()):
            slots, attn, _ = self._perceive(video, boxes=boxes)
            return self._finish(video, *self._linked(slots, attn))
        hidden = hidden.to(self.device)
        if bool(hidden.all(1).any()):
            raise DataError("every frame of a clip is dropped, so there is nothing to see")
        clips = [
            self._perceive_some(clip[None], ~rows, None if boxes is None else boxes[row : row + 1])
            for row, (clip, rows) in enumerate(zip(video, hidden, strict=True))
        ]
        slots, attn = (torch.cat(parts) for parts in zip(*clips, strict=True))
        return self._finish(video, *self._linked(slots, attn), hidden)

    @torch.no_grad()
    def stream(
        self, frames: Tensor, state: StreamState | None = None, *, boxes: Tensor | None = None
    ) -> tuple[dict[str, Tensor], StreamState]:
        """Segments the next frames of a video, of which only a state is kept.

        The temporal transformer sees these frames and those of a window before them.

        Args:
            frames: ``(t, C, H, W)``, see ``to_video``.
            state: from the call for the frames before; None at the start of a video.
            boxes: ``(n, 4)`` of its first frame, where slots start from them.

        Returns:
            What ``infer`` gives of these frames, without B, and the state for those after them.

        Raises:
            DataError: if the frames cannot be used or their size differs from before.
        """
        video = to_video(frames.to(self.device))[None]
        if state is not None:
            state.check_size(video)
        slots, attn, carry = self._perceive(
            video, state=state, boxes=None if boxes is None else boxes[None]
        )
        link = None
        if self.link:
            order, link = link_slots(slots, attn.flatten(-2), state.link if state else None)
            slots, attn = reorder_slots(slots, order), reorder_slots(attn, order)
        context = slots if state is None else torch.cat([state.context, slots], 1)
        prediction = self._finish(video, slots, attn, context=context)
        kept = context[:, max(context.shape[1] - self.window + 1, 0) :]
        num_frames = video.shape[1] + (state.num_frames if state else 0)
        after = StreamState(num_frames, video[:, -1], carry, kept, link)
        return {name: x[0] for name, x in prediction.items()}, after

    def _predict(self, sample: Sample) -> dict[str, Tensor]:
        dropped, boxes = sample.get("dropped"), sample.get("boxes")
        with _naming(sample):
            prediction = self.infer(
                sample["frames"][None],
                None if dropped is None else torch.as_tensor(dropped)[None],
                boxes=None if boxes is None else boxes[None].to(self.device),
            )
        return {name: x[0].cpu() for name, x in prediction.items()}

    def _perceive(
        self, video: Tensor, *, state: StreamState | None = None, boxes: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gives the slots ``(B, T, K, D)``, attention ``(B, T, K, h, w)``, and the last slots."""
        if boxes is None and self.initial_slots.init == "boxes" and state is None:
            raise DataError(
                "slots start from boxes (MODEL.SLOT_BERT.ATTENTION.INIT), but the clip has no "
                "`boxes` of its first frame"
            )
        if getattr(self.backbone, "input_diff", False):
            video = with_differences(video, None if state is None else state.last_frame)
        padded = pad_to_stride(video, self.backbone.stride)
        features = self.backbone(padded.flatten(0, 1))
        tokens = self.token_head(features).unflatten(0, video.shape[:2])
        options: dict[str, Any] = {
            "iters": None if self.training else self.eval_iters,
            "boxes": boxes,
        }
        if self.recurrent:
            slots, attn, carry = run_recurrent(
                self.attention,
                self.initial_slots,
                self.predictor,
                tokens,
                iters_next=self.iters_next,
                carry=None if state is None else state.slots,
                **options,
            )
        else:
            first = 0 if state is None else state.num_frames
            slots, attn = run_independent(
                self.attention, self.initial_slots, tokens, first_frame=first, **options
            )
            carry = slots[:, -1]
        return slots.float(), attn.unflatten(-1, features.shape[-2:]), carry

    def _perceive_some(
        self, video: Tensor, visible: Tensor, boxes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Looks at the visible frames ``(T,)`` of one clip; others are interpolated."""
        hidden = ~visible[None, :, None]
        results = []
        for part in self._perceive(video[:, visible], boxes=boxes)[:2]:
            whole = part.new_zeros(1, len(visible), *part.shape[2:])
            whole[:, visible] = part
            filled = interpolate(whole.flatten(3), hidden.expand(whole.shape[:3]))
            results.append(filled.view(whole.shape))
        return results[0], results[1]

    def _linked(self, slots: Tensor, attn: Tensor) -> tuple[Tensor, Tensor]:
        if not self.link:
            return slots, attn
        order, _ = link_slots(slots, attn.flatten(-2))
        return reorder_slots(slots, order), reorder_slots(attn, order)

    def _finish(
        self,
        video: Tensor,
        corrected: Tensor,
        attn: Tensor,
        hidden: Tensor | None = None,
        *,
        context: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Lets the temporal transformer see the slots, and draws them.

        The context are the slots of earlier frames and of these.
        """
        slots = corrected
        if self.use_transformer:
            source = corrected if context is None else context
            entries = None if hidden is None else hidden[..., None].expand(source.shape[:3])
            slots = self.transformer(source, entries)[:, -corrected.shape[1] :]
        # Without training the decoder's masks would say nothing of frames that were not seen.
        has_masks = self.use_transformer or self.criterion.compose != "attn"
        height, width = video.shape[-2:]
        stride = self.backbone.stride
        drawn = draw_slots(
            self.decoder,
            slots,
            attn,
            (height, width),
            (attn.shape[-2] * stride, attn.shape[-1] * stride),
            composition=self.criterion.compose,
            mask_source=self.mask_source,
            guessed=hidden if has_masks else None,
        )
        return {"slots": slots, "slots_corrected": corrected, "attn": attn, **drawn}

    def _losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Averages over clips of one size, and over sizes by their number of frames."""
        groups: dict[tuple[int, ...], list[Sample]] = {}
        for sample in samples:
            groups.setdefault(tuple(sample["frames"].shape), []).append(sample)
        total = sum(len(sample["frames"]) for sample in samples)
        sums: dict[str, Tensor] = {}
        for shape, group in groups.items():
            share = len(group) * shape[0] / total
            for name, value in self._group_losses(group, progress_of(samples)).items():
                sums[name] = sums[name] + share * value if name in sums else share * value
        return sums

    def _group_losses(self, samples: list[Sample], progress: float | None) -> dict[str, Tensor]:
        with _naming(*samples):
            video = to_video(torch.stack([s["frames"] for s in samples]).to(self.device))
        boxes = None
        if self.initial_slots.init == "boxes" and all("boxes" in s for s in samples):
            boxes = torch.stack([s["boxes"] for s in samples]).to(self.device)
        is_alone = self.use_transformer and progress is not None and progress < self.warmup
        resting = [m for m in self.children() if m is not self.transformer] if is_alone else []
        with at_rest(resting, statistics=[self.backbone] if is_alone else []):
            outputs = self._train_step(video, boxes, progress or 0.0)
        padded = pad_to_stride(video, self.backbone.stride)
        losses, figures = self.criterion(outputs, padded, progress or 0.0)
        signs = collapse_figures(outputs.attn.flatten(-2), outputs.slots)
        return {**losses, **figures, **{f"slots/{name}": x for name, x in signs.items()}}

    def _train_step(self, video: Tensor, boxes: Tensor | None, progress: float) -> SlotOutputs:
        corrected, attn, _ = self._perceive(video, boxes=boxes)
        slots, hidden = corrected, None
        if self.use_transformer:
            hidden = draw_hidden(
                *(int(n) for n in corrected.shape[:3]), ratio=self.mask_ratio, unit=self.mask_unit
            ).to(self.device)
            slots = self.transformer(corrected, hidden)
        outputs = SlotOutputs(slots, corrected, attn, size=self.decoder.size, hidden=hidden)
        if self.criterion.draws(progress):
            drawn = slots.detach() if self.criterion.detach_decoder else slots
            outputs.rgb, outputs.logits, outputs.index = self._decode(drawn.flatten(0, 1))
        return outputs

    def _decode(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if not isinstance(self.decoder, PixelMLPDecoder):
            return *self.decoder(slots), None
        index = self.decoder.sample_pixels(self.subsample)
        return *self.decoder.decode_pixels(slots, index), index


@contextlib.contextmanager
def _naming(*samples: Sample) -> Iterator[None]:
    names = ", ".join(str(sample.get("video_id", "?")) for sample in samples)
    try:
        yield
    except DataError as error:
        raise DataError(f"clip {names}: {error}") from error
