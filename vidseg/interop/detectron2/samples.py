"""vidseg's models behind detectron2's interface: ``list[dict]`` in, losses or predictions out.

Two kinds of dicts go in. A video, as the video systems that are built on detectron2 feed it, has a
list of frames under ``image`` and a list of ``Instances`` under ``instances``; an image, as
detectron2's own mapper makes it, has one of each. vidseg's own samples pass as they are.

Shapes: T frames, C channels, H W pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidseg.errors import ConfigError, DataError
from vidseg.modeling.meta_arch import SegmenterBase
from vidseg.structures import VideoInstances

from .structures import (
    from_clip_instances,
    to_clip_instances,
    to_frame_instances,
    to_video_output,
)
from .wrapping import Wrapping

__all__ = ["AdaptedModel", "adapt_model", "from_sample", "to_sample"]

Sample = dict[str, Any]

# Keys of a video that mean the same in both worlds.
_SHARED = ("video_id", "length", "keep", "long_video_start_fidx")


def adapt_model(
    model: nn.Module, *, image_format: str | None = None, max_iter: int = 0
) -> AdaptedModel:
    """Gives a vidseg model the interface of detectron2's.

    Args:
        model: a meta-architecture of frames; one that was adapted already comes back as it is.
        image_format: order of the channels that the dicts hold, ``"RGB"`` or ``"BGR"``; that of the
            model by default, since detectron2's mappers read the same ``INPUT.FORMAT``.
        max_iter: length of the run (``SOLVER.MAX_ITER``), for models whose losses depend on how
            much of it is done; detectron2's trainer tells where it is, but not how far it goes.

    Raises:
        ConfigError: if the model reads sequences of features, or the order is unknown.
    """
    if isinstance(model, AdaptedModel):
        return model
    return AdaptedModel(model, image_format=image_format, max_iter=max_iter)


class AdaptedModel(Wrapping):
    """A vidseg model that takes and gives what detectron2's trainer and evaluators know.

    Its weights are those of the model, under the same names: files of either world fit.

    In training it returns the losses, and puts what a model only reports (names with a slash, as
    ``slots/used``) into the open ``EventStorage``, if there is one. In eval it returns a list with
    one prediction per input: ``{"instances": Instances}`` of an image, the dict of
    ``to_video_output`` of a video, or ``VideoInstances`` of a vidseg sample. Of a single video it
    returns the dict alone, which evaluators of the video systems expect. What a model predicts
    besides tracks passes as it is.

    Args:
        model: the meta-architecture.
        image_format: see ``adapt_model``.
        max_iter: likewise.
    """

    def __init__(
        self, model: nn.Module, *, image_format: str | None = None, max_iter: int = 0
    ) -> None:
        super().__init__(model)
        if getattr(model, "feature_dim_key", None):
            raise ConfigError(
                f"{type(model).__name__} reads sequences of features, which detectron2 does not "
                "have; train it with tools/train_net.py"
            )
        order = image_format or getattr(model, "channel_order", "RGB")
        if order not in ("RGB", "BGR"):
            raise ConfigError(f"INPUT.FORMAT {order!r} is unknown; set RGB or BGR")
        self.image_format = order
        self.max_iter = max_iter

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, inputs: Sequence[Mapping[str, Any]]) -> Any:
        """Runs the model on a batch; see the class.

        Raises:
            DataError: if an input holds nothing to run on, or its frames differ in size.
        """
        if self.training:
            return _losses(self.wrapped([self._sample(item) for item in inputs]))
        # Ground truth of test dicts is nobody's concern, whatever it lacks.
        bare = [{key: item[key] for key in item if key != "instances"} for item in inputs]
        predictions = self.wrapped([self._sample(item) for item in bare])
        outputs = [_output(*pair) for pair in zip(inputs, predictions, strict=True)]
        return outputs[0] if len(inputs) == 1 and _is_video(inputs[0]) else outputs

    def _sample(self, item: Mapping[str, Any]) -> Sample:
        sample = to_sample(item, image_format=self.image_format)
        if not self.training:
            return sample
        if "instances" not in sample and isinstance(self.wrapped, SegmenterBase):
            raise DataError(
                f"video {sample['video_id']} has no instances to train on; give what a mapper with "
                "is_train=True returns"
            )
        storage = _event_storage()
        if storage is not None:
            sample.setdefault("iteration", storage.iter)
        if self.max_iter:
            sample.setdefault("max_iter", self.max_iter)
        return sample


def to_sample(item: Mapping[str, Any], *, image_format: str) -> Sample:
    """Gives a dict of detectron2 as a vidseg sample; one that is a sample already stays.

    Args:
        item: of a video or an image. ``height`` and ``width``, of the original, are those of the
            frames by default.
        image_format: order of the channels in it, ``"RGB"`` or ``"BGR"``.

    Raises:
        DataError: if there is no image, or frames differ in size.
    """
    if "frames" in item:
        return dict(item)
    frames = _frames(item)
    if image_format == "BGR":
        frames = frames.flip(1)
    num, _, height, width = frames.shape
    names = item.get("file_names", [item["file_name"]] if "file_name" in item else [])
    sample: Sample = {
        "frames": frames,
        "height": int(item.get("height", height)),
        "width": int(item.get("width", width)),
        "video_id": item.get("image_id", 0),
        "frame_indices": list(item.get("frame_idx", range(num))),
        "length": num,
        "file_names": list(names),
    }
    sample.update({key: item[key] for key in _SHARED if key in item})
    if "long_video_start_fidx" in sample and "frame_idx" not in item:
        del sample["frame_indices"]  # the model counts on from there
    if "instances" in item:
        instances = item["instances"]
        # A test dict of the video systems has an empty list here.
        parts = instances if isinstance(instances, list | tuple) else [instances]
        if parts:
            sample["instances"] = to_clip_instances(parts)
    return sample


def from_sample(sample: Mapping[str, Any], *, image_format: str) -> dict[str, Any]:
    """Gives a vidseg sample as the dict of a video.

    Keys: ``image`` (T frames ``(3, H, W)``), ``instances`` (T ``Instances``, empty without ground
    truth), ``height``, ``width``, ``length`` and ``video_len``, ``video_id``, ``frame_idx`` and
    ``file_names``.

    Args:
        sample: of a clip or a whole video.
        image_format: order of the channels to give, ``"RGB"`` or ``"BGR"``.
    """
    frames: Tensor = sample["frames"]
    if image_format == "BGR":
        frames = frames.flip(1)
    instances = sample.get("instances")
    length = sample.get("length", len(frames))
    return {
        "image": list(frames),
        "instances": from_clip_instances(instances) if instances is not None else [],
        "height": sample["height"],
        "width": sample["width"],
        "length": length,
        "video_len": length,
        "video_id": sample["video_id"],
        "frame_idx": list(sample.get("frame_indices", range(len(frames)))),
        "file_names": list(sample.get("file_names", [])),
    }


def _frames(item: Mapping[str, Any]) -> Tensor:
    """Gives the frames of a dict, ``(T, 3, H, W)``, in its own order of channels."""
    image = item.get("image")
    if image is None:
        raise DataError(
            f"an input has no image; it has {', '.join(item) or 'nothing'}. Give what a mapper of "
            "detectron2 returns"
        )
    frames = list(image) if _is_video(item) else [image]
    if not frames:
        raise DataError(f"video {item.get('video_id', '?')} has no frames")
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise DataError(
            f"the frames of video {item.get('video_id', '?')} differ in size: {sorted(shapes)}; "
            "augment all frames of a clip alike"
        )
    shape = shapes.pop()
    if len(shape) != 3 or shape[0] != 3:
        raise DataError(f"an image has shape {shape}, expected (3, H, W)")
    return torch.stack(frames)


def _is_video(item: Mapping[str, Any]) -> bool:
    image = item.get("image")
    return isinstance(image, list | tuple) or (isinstance(image, Tensor) and image.ndim == 4)


def _output(item: Mapping[str, Any], prediction: Any) -> Any:
    if "frames" in item or not isinstance(prediction, VideoInstances):
        return prediction
    if _is_video(item):
        return to_video_output(prediction)
    return {"instances": to_frame_instances(prediction)[0]}


def _losses(reported: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parts losses from what is only logged, which detectron2's trainers would add to their sum.

    Outside of these trainers all of it stays, as vidseg's own trainer has it.
    """
    storage = _event_storage()
    if storage is None:
        return dict(reported)
    losses = {}
    for name, value in reported.items():
        if "/" in name:
            storage.put_scalar(name, float(value))
        else:
            losses[name] = value
    return losses


def _event_storage() -> Any:
    """Gives the storage that a trainer of detectron2 has open, if any."""
    events = sys.modules.get("detectron2.utils.events")  # none is open before its import
    return events.get_event_storage() if events is not None and events.has_event_storage() else None
