"""The model from video to slots, masks and a reconstruction.

Shapes: B clips, T frames, K slots, D slot width, h x w token grid, R decode size, H x W pixels of a
frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.config import CfgNode
from vidseg.errors import DataError
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.modeling.meta_arch import Recorder, ResultPlace, VideoSession

from .clips_input import to_clips
from .collapse import collapse_figures
from .criterion import SlotCriterion, SlotOutputs
from .decoders import BroadcastDecoder, PixelMLPDecoder
from .drawing import draw_slots
from .frame_masking import draw_hidden
from .perception import FoundSlots, PerceptionState, SlotPerception
from .session import SlotRecorder, SlotSession
from .settings import build_parts
from .staging import Staging, at_rest, progress_of
from .temporal_transformer import TemporalSlotTransformer

__all__ = ["SlotBERT", "StreamState"]

Sample = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class StreamState:
    """What the model keeps of a video; its size does not grow.

    Attributes:
        perception: for finding the slots of the next frames.
        context: slots of the frames that the temporal transformer still looks at, ``(1, t, K, D)``.
    """

    perception: PerceptionState
    context: Tensor


@META_ARCH_REGISTRY.register()
class SlotBERT(nn.Module):
    """Takes frames apart into slots that each stand for one object, without labels.

    Args:
        perception: frames to slots.
        transformer: corrects slots by those of other frames.
        decoder: slots to what they draw.
        criterion: outputs to losses.
        use_transformer: whether the temporal transformer has a say.
        mask_ratio: share of what it has to predict in training.
        mask_unit: see ``frame_masking.MASK_UNITS``.
        staging: when the temporal transformer trains.
        mask_source: masks of the segmentation.
        subsample: share of the pixels that a training step decodes.
        input_size: height and width that frames of a video are reduced to; (0, 0) leaves them.
        max_num: slots in the result of a video at most.
    """

    def __init__(
        self,
        *,
        perception: SlotPerception,
        transformer: TemporalSlotTransformer,
        decoder: BroadcastDecoder | PixelMLPDecoder,
        criterion: SlotCriterion,
        use_transformer: bool = False,
        mask_ratio: float = 0.2,
        mask_unit: str = "frame",
        staging: Staging = Staging(),  # noqa: B008 - frozen
        mask_source: str = "attn",
        subsample: float = 1.0,
        input_size: Size = (0, 0),
        max_num: int = 20,
    ) -> None:
        super().__init__()
        self.perception, self.transformer = perception, transformer
        self.decoder, self.criterion = decoder, criterion
        self.use_transformer = use_transformer
        self.mask_ratio, self.mask_unit, self.staging = mask_ratio, mask_unit, staging
        self.mask_source, self.subsample = mask_source, subsample
        self.input_size, self.max_num = input_size, max_num

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
        return self.transformer.output.weight.device

    @property
    def backbone(self) -> nn.Module:
        """The encoder, which ``MODEL.BACKBONE.WEIGHTS`` fills."""
        found: nn.Module = self.perception.backbone
        return found

    @property
    def num_slots(self) -> int:
        """K."""
        return self.perception.initial_slots.num_slots

    @property
    def window(self) -> int:
        """Frames that the temporal transformer reads at once."""
        return self.transformer.window

    def forward(self, samples: list[Sample]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses of a batch of clips in training, one prediction per clip in eval.

        Args:
            samples: with ``frames``, see ``to_clips``, of any length and size. Also ``boxes`` where
                slots start from them, see ``InitialSlots``, and in eval ``dropped``, bool ``(T,)``,
                for frames that are not to be looked at.

        Returns:
            In training the weighted losses, and figures for the log, whose names have a slash. In
            eval what ``infer`` gives of each clip, without B, on the CPU; of one with dropped
            frames also ``slots_seen``, what ``slots_corrected`` would be if they had been seen.

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
            ``(B, T, H, W)``, the slot of each pixel. In hidden frames attention is interpolated
            like slots, and masks are those of the decoder if these were trained.

        Raises:
            DataError: if the video or ``hidden`` cannot be used, or a clip is hidden whole.
        """
        video = to_clips(video.to(self.device))
        boxes = None if boxes is None else boxes.to(self.device)
        if hidden is None or not bool(hidden.any()):
            found = self.perception(video, boxes=boxes)
            return self._finish(video, found.slots, found.attn)
        if hidden.shape != video.shape[:2]:
            raise DataError(
                f"dropped frames of shape {tuple(hidden.shape)} do not belong to "
                f"{video.shape[0]} clips of {video.shape[1]} frames"
            )
        hidden = hidden.to(self.device, torch.bool)
        if bool(hidden.all(1).any()):
            raise DataError("every frame of a clip is dropped, so there is nothing to see")
        clips: list[FoundSlots] = [
            self.perception.look_at_some(
                video[row : row + 1],
                ~hidden[row],
                boxes=None if boxes is None else boxes[row : row + 1],
            )
            for row in range(len(video))
        ]
        slots, attn = (torch.cat([getattr(c, name) for c in clips]) for name in ("slots", "attn"))
        return self._finish(video, slots, attn, hidden)

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
        video = to_clips(frames.to(self.device)[None])
        if state is not None:
            state.perception.check_size(video)
        found = self.perception(
            video,
            None if state is None else state.perception,
            boxes=None if boxes is None else boxes[None].to(self.device),
        )
        context = found.slots if state is None else torch.cat([state.context, found.slots], 1)
        prediction = self._finish(video, context, found.attn)
        kept = context[:, max(context.shape[1] - self.window + 1, 0) :]
        return {name: x[0] for name, x in prediction.items()}, StreamState(found.state, kept)

    def start(
        self,
        *,
        output_size: Size | None = None,
        frame_indices: Sequence[int] | None = None,
    ) -> VideoSession:
        """Opens a session for one video.

        Args:
            output_size: height and width of the masks; those of the frames if left out.
            frame_indices: of the frames in the video, for the result; counted if left out.
        """
        place = ResultPlace(output_size, frame_indices)
        return SlotSession(self, place, size=self.input_size, max_num=self.max_num)

    def recorder(self, session: SlotSession) -> Recorder:
        """Watches a session and tells where its slots looked."""
        return SlotRecorder(self, size=self.input_size)

    def _predict(self, sample: Sample) -> dict[str, Tensor]:
        dropped, boxes = sample.get("dropped"), sample.get("boxes")
        hidden = None if dropped is None else torch.as_tensor(dropped)[None]
        boxes = None if boxes is None else boxes[None].to(self.device)
        with _naming(sample):
            prediction = self.infer(sample["frames"][None], hidden, boxes=boxes)
            if hidden is not None and bool(hidden.any()):
                video = to_clips(sample["frames"].to(self.device)[None])
                with torch.no_grad():
                    prediction["slots_seen"] = self.perception(video, boxes=boxes).slots
        return {name: x[0].cpu() for name, x in prediction.items()}

    def _finish(
        self, video: Tensor, corrected: Tensor, attn: Tensor, hidden: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Lets the temporal transformer see the slots and draws those of the video.

        There may be slots of earlier frames before them, which it also sees.
        """
        slots, num_frames = corrected, video.shape[1]
        if self.use_transformer:
            entries = None if hidden is None else hidden[..., None].expand(corrected.shape[:3])
            slots = self.transformer(corrected, entries)
        slots, corrected = slots[:, -num_frames:], corrected[:, -num_frames:]
        # Without training the decoder's masks would say nothing of frames that were not seen.
        has_masks = self.use_transformer or self.criterion.compose != "attn"
        height, width = video.shape[-2:]
        stride = self.perception.backbone.stride
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
        """Averages over clips of one shape, and over shapes by their number of frames."""
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
            video = to_clips(torch.stack([s["frames"] for s in samples]).to(self.device))
            boxes = None
            if all("boxes" in s for s in samples):
                boxes = torch.stack([s["boxes"] for s in samples]).to(self.device)
            is_alone = self.use_transformer and self.staging.is_alone(progress)
            resting = [self.perception, self.decoder] if is_alone else []
            with at_rest(resting, statistics=[self.backbone] if is_alone else []):
                outputs = self._train_step(video, boxes, progress)
        padded = self.perception.padded(video)
        losses, figures = self.criterion(outputs, padded, progress or 0.0)
        signs = collapse_figures(outputs.attn.flatten(-2), outputs.slots)
        return {**losses, **figures, **{f"slots/{name}": x for name, x in signs.items()}}

    def _train_step(
        self, video: Tensor, boxes: Tensor | None, progress: float | None
    ) -> SlotOutputs:
        hidden = unseen = None
        if self.use_transformer and self.staging.has_begun(progress):
            num_clips, num_frames = video.shape[:2]
            hidden = draw_hidden(
                num_clips, num_frames, self.num_slots, ratio=self.mask_ratio, unit=self.mask_unit
            ).to(self.device)
            # Slots that are handed on would tell the frames around what is to be guessed.
            unseen = hidden.all(-1)
        found = self.perception(video, boxes=boxes, unseen=unseen)
        slots = found.slots if hidden is None else self.transformer(found.slots, hidden)
        outputs = SlotOutputs(slots, found.slots, found.attn, size=self.decoder.size, hidden=hidden)
        if self.criterion.uses_features:
            outputs.features = self.perception.targets(video)
        if self.criterion.draws(progress or 0.0):
            drawn = slots
            if self.criterion.detach_decoder:
                # What slots say of their looks is for the decoder, and learns from it.
                own = 0.0 if found.seen is None else found.seen - found.seen.detach()
                drawn = slots.detach() + own
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
