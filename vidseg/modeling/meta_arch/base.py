"""What all models built on the frame segmenter share: preprocessing, segmenting, windows.

Shapes: B frames, T frames of a video, N objects, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.layers.recording import is_recorded
from vidseg.modeling.build import build_backbone, build_sem_seg_head
from vidseg.modeling.transformer_decoder import DecoderOutput
from vidseg.structures import VideoInstances

from .exporting import ExportOptions, ExportPart, segmenter_part
from .session import ResultPlace, VideoSession

__all__ = ["SegmenterBase"]

Sample = dict[str, Any]
Size = tuple[int, int]


class SegmenterBase(nn.Module):
    """A backbone and a head that segment frames one by one.

    Subclasses implement ``session`` (for one video) and ``losses`` (training).

    Args:
        backbone: frames to feature maps.
        sem_seg_head: feature maps to a ``DecoderOutput``.
        pixel_mean: per channel, in the order of ``channel_order``, for values 0 to 255.
        pixel_std: likewise.
        channel_order: ``"RGB"`` or ``"BGR"``, what the weights expect; frames always come as RGB.
        size_divisibility: frames are padded to multiples of it.
        window_size: frames that inference segments at once.

    Raises:
        ConfigError: for an unknown channel order or a window without frames.
    """

    streams_frames = True
    """In eval, ``sample["frames"]`` may be anything that has ``split`` into windows."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        channel_order: str = "RGB",
        size_divisibility: int = 32,
        window_size: int = 3,
    ) -> None:
        super().__init__()
        if channel_order not in ("RGB", "BGR"):
            raise ConfigError(f"INPUT.FORMAT {channel_order!r} is unknown; set RGB or BGR")
        if window_size < 1:
            raise ConfigError(
                f"MODEL.MASK_FORMER.TEST.WINDOW_SIZE is {window_size}; set 1 or more frames"
            )
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.channel_order = channel_order
        self.size_divisibility = size_divisibility
        self.window_size = window_size
        self._long_video: _LongVideo | None = None
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            if len(values) != 3:
                raise ConfigError(f"MODEL.{name.upper()} needs 3 values, got {len(values)}")
            tensor = torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    @classmethod
    def base_args(cls, cfg: CfgNode) -> dict[str, Any]:
        """Builds backbone and head; gives the arguments of this class.

        Raises:
            UserError: if a part is unknown or the task is not video instance segmentation.
        """
        mask_former = cfg.MODEL.MASK_FORMER
        if mask_former.TEST.TASK != "vis":
            raise ConfigError(
                f"MODEL.MASK_FORMER.TEST.TASK {mask_former.TEST.TASK!r} is not supported; set vis"
            )
        backbone: Any = build_backbone(cfg)
        divisibility = mask_former.SIZE_DIVISIBILITY
        if divisibility < 0:
            divisibility = backbone.size_divisibility
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "channel_order": cfg.INPUT.FORMAT,
            "size_divisibility": divisibility,
            "window_size": mask_former.TEST.WINDOW_SIZE,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lives and its inputs go."""
        return self.pixel_mean.device

    @property
    def num_classes(self) -> int:
        """Foreground classes K."""
        return int(self.sem_seg_head.predictor.num_classes)  # type: ignore

    def forward(self, samples: list[Sample]) -> dict[str, Tensor] | list[VideoInstances]:
        """Losses of a batch of clips in training, one ``VideoInstances`` per video in eval.

        In eval a sample may be one of the consecutive clips of a long video, by the published keys
        ``keep`` and ``long_video_start_fidx``; who can, holds a session and calls ``next_clip``.
        """
        if self.training:
            self.check_labels(samples)
            return self.losses(samples)
        return [self._run(sample) for sample in samples]

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Gives the weighted losses of a batch of clips; subclasses implement it."""
        raise NotImplementedError

    def start(
        self, *, output_size: Size | None = None, frame_indices: Sequence[int] | None = None
    ) -> VideoSession:
        """Opens a session for one video.

        Args:
            output_size: (height, width) of the predicted masks; that of the frames by default.
            frame_indices: positions of the frames in the video; counted from 0 by default.
        """
        return self.session(ResultPlace(output_size, frame_indices))

    def session(self, place: ResultPlace) -> VideoSession:
        """Makes the session of a model; subclasses implement it."""
        raise NotImplementedError

    def export_parts(self, options: ExportOptions) -> list[ExportPart]:
        """Gives what can be exported as a graph: here the frame segmenter."""
        return [segmenter_part(self, options)]

    def preprocess(self, frames: Tensor, *, size: Size | None = None) -> Tensor:
        """Normalises frames and pads them below and to the right with zeros.

        Args:
            frames: RGB of range 0 to 255, ``(B, 3, H, W)``, any dtype and device.
            size: (height, width) to pad to; by default the frames' own, rounded up.

        Returns:
            float32 ``(B, 3, Hp, Wp)`` on the model's device.
        """
        x = frames.to(self.device, non_blocking=True).float()
        if self.channel_order == "BGR":
            x = x.flip(1)
        height, width = x.shape[-2:]
        padded = size if size is not None else self.padded_size((height, width))
        x = (x - self.pixel_mean) / self.pixel_std
        return F.pad(x, (0, padded[1] - width, 0, padded[0] - height))

    def padded_size(self, *sizes: Size) -> Size:
        """The smallest allowed (height, width) that holds all of the sizes."""
        step = max(self.size_divisibility, 1)
        height, width = ((max(side) + step - 1) // step * step for side in zip(*sizes, strict=True))
        return height, width

    def segment(
        self, frames: Tensor, *, size: Size | None = None, keep_aux: bool | None = None
    ) -> DecoderOutput:
        """Segments frames independently.

        Args:
            frames: RGB uint8 ``(B, 3, H, W)``.
            size: as in ``preprocess``.
            keep_aux: whether to keep the predictions of earlier layers; by default in training.
        """
        features = self._features(self.preprocess(frames, size=size))
        return self.sem_seg_head(features, keep_aux=keep_aux)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of normalised frames ``(B, 3, Hp, Wp)``.

        On a CPU the rounding of a convolution can depend on the batch, and a threshold in the
        decoder or the tracker can turn rounding into another result: there frames go one by one,
        unless the backbone knows better, which keeps results apart from the window size.
        """
        is_alike = getattr(self.backbone, "is_batch_invariant", False)
        if is_alike or is_recorded() or self.training or x.device.type != "cpu" or len(x) <= 1:
            return self.backbone(x)
        frames = [self.backbone(frame) for frame in x.split(1)]
        return {name: torch.cat([f[name] for f in frames]) for name in frames[0]}

    def batch_frames(self, samples: Sequence[Sample]) -> tuple[Tensor, Size]:
        """Joins the frames of clips that may differ in length and size.

        Returns:
            Normalised frames ``(sum of T, 3, Hp, Wp)``, clip after clip, and (Hp, Wp): the batch
            maximum rounded up. Masks are padded to it with ``ClipInstances.pad_to``.
        """
        sizes = [(s["frames"].shape[-2], s["frames"].shape[-1]) for s in samples]
        size = self.padded_size(*sizes)
        return torch.cat([self.preprocess(s["frames"], size=size) for s in samples]), size

    def check_labels(self, samples: Sequence[Sample]) -> None:
        """Fails early and readably where a loss would index out of range.

        Raises:
            UserError: if a label has no class in this model.
        """
        for sample in samples:
            labels = sample["instances"].labels
            if not len(labels):
                continue
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                wrong = high if high >= self.num_classes else low
                raise UserError(
                    f"video {sample.get('video_id', '?')} has an object of label {wrong}, but "
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {self.num_classes}; set NUM_CLASSES to the "
                    "number of classes of the training data sets"
                )

    @torch.no_grad()
    def _run(self, sample: Sample) -> VideoInstances:
        session = self._session_of(sample)
        take = getattr(session, "feed", session.step)
        for window in sample["frames"].split(self.window_size):
            take(window)
        result = session.finish()
        if "keep" in sample or "long_video_start_fidx" in sample:
            self._long_video = _LongVideo.after(session, sample)
        return result

    def _session_of(self, sample: Sample) -> Any:
        """Opens the session of a video, or goes on with that of the clip before.

        The keys ``keep`` (go on) and ``long_video_start_fidx`` (position of the first frame), as
        published, make a sample a clip of a video too long for one result. Only then does the
        model remember anything between two calls.

        Raises:
            DataError: if there is no clip before, or it is of another video.
        """
        indices, first = sample.get("frame_indices"), sample.get("long_video_start_fidx")
        if indices is None and first is not None:
            indices = range(int(first), int(first) + len(sample["frames"]))
        before, self._long_video = self._long_video, None
        if sample.get("keep") and before is not None:
            before.check(sample)
            before.session.next_clip(indices)
            return before.session
        # Callers of the published code may say keep of the first clip, too.
        if sample.get("keep") and first:
            raise DataError(
                f"a clip from frame {first} on (long_video_start_fidx) goes on with the one before"
                " (keep), but there was none; give the clips of a video in order, each with keep"
                " or long_video_start_fidx"
            )
        return self.start(output_size=_output_size(sample), frame_indices=indices)


@dataclass(frozen=True)
class _LongVideo:
    """The video whose next clip may come: its session, its id if it has one, its size."""

    session: Any
    video_id: Any
    size: Size

    @classmethod
    def after(cls, session: Any, sample: Sample) -> _LongVideo | None:
        """Keeps what the next clip needs; a session that knows no clips cannot go on."""
        if not hasattr(session, "next_clip"):
            return None
        session.next_clip()  # drops what this clip alone needed
        return cls(session, sample.get("video_id"), _output_size(sample))

    def check(self, sample: Sample) -> None:
        """Refuses a clip that cannot be of this video."""
        video_id, size = sample.get("video_id"), _output_size(sample)
        if (video_id, size) != (self.video_id, self.size):
            raise DataError(
                f"a clip of video {video_id} ({size[1]}x{size[0]}) cannot go on with (keep) one of"
                f" video {self.video_id} ({self.size[1]}x{self.size[0]})"
            )


def _output_size(sample: Sample) -> Size:
    return int(sample["height"]), int(sample["width"])
