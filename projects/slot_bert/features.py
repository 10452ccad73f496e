"""Features of a frozen backbone: what slots read, and what they are trained to explain.

Pixels of real video say little about objects; features of a network that was trained on images do
(Seitzer et al., ICLR 2023, DINOSAUR).

Shapes: M frames, H x W pixels, D features, h x w their grid, C features of the target.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, UserError, nearest
from vidseg.modeling import build_backbone
from vidseg.modeling.backbone import Backbone

from .composition import resize_maps
from .encoder import pad_to_stride

__all__ = ["ConvWithTargets", "FeatureCache", "FrozenFeatures", "build_features"]

_KEY = "MODEL.SLOT_BERT.FEATURES"
_MIB = 2**20


class FeatureCache:
    """Keeps the latest results for frames that come again, as in every epoch of a short recording.

    Args:
        max_bytes: what the results may take; the ones that were not used for longest go first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._results: OrderedDict[bytes, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._results)

    @staticmethod
    def key(frame: Tensor) -> bytes:
        """Gives what a frame is found by: a digest of its size and all of its values."""
        values = frame.detach().cpu().contiguous()
        size = repr((tuple(values.shape), values.dtype)).encode()
        return hashlib.blake2b(values.numpy().tobytes(), key=size[:64], digest_size=16).digest()

    def get(self, key: bytes) -> Tensor | None:
        """Gives the result of a frame, or None."""
        if key in self._results:
            self._results.move_to_end(key)
        return self._results.get(key)

    def put(self, key: bytes, result: Tensor) -> None:
        """Keeps a result; one that is larger than all the room is not kept."""
        size = result.numel() * result.element_size()
        if key in self._results or size > self.max_bytes:
            return
        self._results[key] = result
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            _, oldest = self._results.popitem(last=False)
            self.num_bytes -= oldest.numel() * oldest.element_size()


class FrozenFeatures(nn.Module):
    """Maps of a backbone that does not learn, next to each other at the finest grid among them.

    Args:
        backbone: any of ``BACKBONE_REGISTRY``.
        maps: names of its maps.
        scale: factor by which frames are enlarged before, for finer maps.
        stride: pixels of a frame from one place of the grid to the next, to which all maps are
            resized; 0 for that of the finest map.
        pixel_mean: per channel, in the order of ``channel_order``, for values 0 to 255.
        pixel_std: likewise.
        channel_order: that the backbone expects, ``"RGB"`` or ``"BGR"``.
        dim: width of a learned linear map to what slots read; 0 for the features themselves.
        cache_bytes: of results kept in training.

    Shape:
        - input ``(M, 3, H, W)``, RGB in [0, 1], H and W multiples of ``divisor``
        - output ``(M, D, h, w)``

    Raises:
        ValueError: if there is no such map, or strides do not divide each other.
    """

    input_diff = False
    pixel_mean: Tensor
    pixel_std: Tensor
    map_weights: Tensor
    is_loaded: Tensor

    def __init__(
        self,
        backbone: Backbone,
        maps: Sequence[str],
        *,
        scale: float = 1.0,
        stride: int = 0,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        channel_order: str = "RGB",
        dim: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        super().__init__()
        shapes = backbone.output_shape()
        for name in maps:
            if name not in shapes:
                hint = ", ".join(nearest(name, shapes) or shapes)
                raise ValueError(f"MAPS names {name!r}, which the backbone lacks; nearest: {hint}")
        if not maps:
            raise ValueError(f"MAPS is empty; the backbone has {', '.join(shapes)}")
        strides = [shapes[name].stride / scale if scale > 0 else 0.0 for name in maps]
        if min(strides) < 1 or any(value % 1 for value in strides):
            raise ValueError(
                f"SCALE is {scale}; the strides {[shapes[name].stride for name in maps]} of MAPS "
                "must be whole multiples of it"
            )
        stride, coarsest = stride or int(min(strides)), int(max(strides))
        if stride < 1 or max(stride, coarsest) % min(stride, coarsest):
            raise ValueError(
                f"STRIDE is {stride}; it must divide the largest stride of MAPS over SCALE, "
                f"{coarsest}, or be a multiple of it"
            )
        self.network = backbone.requires_grad_(False)
        self.maps, self.scale, self.stride = tuple(maps), scale, stride
        # Every map then ends where the frame does, and one lies on the other.
        self.divisor = max(stride, coarsest)
        self._steps = {name: int(value) for name, value in zip(maps, strides, strict=True)}
        self.target_channels = sum(shapes[name].channels for name in maps)
        self.out_channels = dim or self.target_channels
        self.flips = channel_order == "BGR"
        # The mean over all batches so far, which soon moves no more: a target has to hold still.
        self.norm = nn.BatchNorm2d(self.target_channels, affine=False, momentum=None)
        self.proj = nn.Conv2d(self.target_channels, dim, 1) if dim else nn.Identity()
        for key, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1) / 255, persistent=False)
        counts = torch.tensor([shapes[name].channels for name in maps])
        weights = (counts.sum() / (len(counts) * counts)).sqrt().repeat_interleave(counts)
        self.register_buffer("map_weights", weights.view(-1, 1, 1), persistent=False)
        self.register_buffer("is_loaded", torch.tensor(False))
        self.cache = FeatureCache(cache_bytes) if cache_bytes else None
        self._latest: tuple[Tensor, Tensor] | None = None  # frames of this step and their targets
        self.train(self.training)

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Switches what gathers statistics; the network itself stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """Encodes frames; see the class for shapes."""
        out: Tensor = self.proj(self.targets(frames))
        return out

    @torch.no_grad()
    def targets(self, frames: Tensor) -> Tensor:
        """Gives what slots have to explain, the features before the linear map.

        Each channel has mean 0 in the training so far, and one standard deviation for all channels
        of a map, such that maps count alike however many channels they have, and the mean over
        all channels is 1.

        Args:
            frames: as in ``forward``; the features of those of the latest call are at hand.

        Returns:
            float32 ``(M, C, h, w)``, without gradients.

        Raises:
            ConfigError: if the backbone was never given weights.
        """
        if self._latest is not None and torch.equal(self._latest[0], frames):
            return self._latest[1]
        if not self.is_loaded:
            raise ConfigError(
                "MODEL.BACKBONE.WEIGHTS is empty, and a frozen backbone with random weights sees "
                "nothing; set it to a file of MODEL.BACKBONE.NAME (nothing is downloaded)"
            )
        if self.training and self.cache is not None:
            features = torch.stack([self._cached(frame, self.cache) for frame in frames])
        else:
            features = self._encode(frames)
        with torch.autocast(frames.device.type, enabled=False):
            if self.training:
                self.norm(features)
            mean, var = self.norm.running_mean, self.norm.running_var
            out = F.batch_norm(features, mean, var, eps=self.norm.eps) * self.map_weights
        self._latest = (frames, out) if self.training else None
        return out

    def load_pretrained(self, path: str | Path) -> list[str]:
        """Loads the weights of the backbone; see ``Backbone.load_pretrained``."""
        unused = self.network.load_pretrained(path)
        self.is_loaded.fill_(True)
        return unused

    def _cached(self, frame: Tensor, cache: FeatureCache) -> Tensor:
        key = cache.key(frame)
        features = cache.get(key)
        if features is None:
            # One by one: what a frame gives must not depend on which others came with it.
            features = self._encode(frame[None])[0]
            cache.put(key, features.cpu())
        return features.to(frame.device)

    def _encode(self, frames: Tensor) -> Tensor:
        x = frames.flip(1) if self.flips else frames
        x = (x - self.pixel_mean) / self.pixel_std
        if self.scale != 1:
            size = [round(side * self.scale) for side in frames.shape[-2:]]
            x = F.interpolate(
                x, size, mode="bilinear", align_corners=False, antialias=self.scale < 1
            )
        x = pad_to_stride(x, max(self.network.size_divisibility, 1))
        found = self.network(x)
        height, width = (side // self.stride for side in frames.shape[-2:])
        parts = []
        for name, step in self._steps.items():
            rows, columns = (side // step for side in frames.shape[-2:])
            parts.append(resize_maps(found[name][..., :rows, :columns], (height, width)))
        return torch.cat(parts, 1)


class ConvWithTargets(nn.Module):
    """An encoder that learns from pixels what slots need to explain frozen features.

    Args:
        encoder: frames to features, see ``SimpleConvEncoder``.
        features: the targets.
    """

    def __init__(self, encoder: Any, features: FrozenFeatures) -> None:
        super().__init__()
        self.encoder, self.features = encoder, features
        self.stride, self.divisor = encoder.stride, encoder.divisor
        self.out_channels = encoder.out_channels
        self.input_diff, self.target_channels = encoder.input_diff, features.target_channels

    def forward(self, frames: Tensor) -> Tensor:
        """Encodes frames as the encoder does."""
        return cast(Tensor, self.encoder(frames))

    def targets(self, frames: Tensor) -> Tensor:
        """Gives what slots have to explain, ``(M, C, h, w)``."""
        return self.features.targets(pad_to_stride(frames, self.features.divisor))

    def load_pretrained(self, path: str | Path) -> list[str]:
        """Loads the weights of the frozen backbone; see ``Backbone.load_pretrained``."""
        return self.features.load_pretrained(path)


def build_features(cfg: CfgNode) -> FrozenFeatures:
    """Builds the frozen ``MODEL.BACKBONE`` with random weights; a file fills them later.

    Raises:
        ConfigError: if there is no such backbone or map, or a number is out of range.
    """
    node = cfg.MODEL.SLOT_BERT.FEATURES
    for name in ("CACHE", "DIM", "STRIDE"):
        if node[name] < 0:
            raise ConfigError(f"{_KEY}.{name} is {node[name]}; it cannot be negative")
    try:
        backbone = cast(Backbone, build_backbone(cfg))
        return FrozenFeatures(
            backbone,
            node.MAPS,
            scale=node.SCALE,
            stride=node.STRIDE,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            channel_order=cfg.INPUT.FORMAT,
            dim=node.DIM,
            cache_bytes=node.CACHE * _MIB,
        )
    except ValueError as error:
        raise ConfigError(f"{_KEY}.{error}") from error
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError(f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME!r}: {error}") from error
