r"""Computes features of videos: one vector per frame from a feature map of a backbone.

Example:
    python datasets/prepare_video_features.py videos/ datasets/my_video_features \
        --backbone torchvision/resnet50 --weights resnet50.pth

makes a folder with an index.json, whose path DATASETS.TRAIN and DATASETS.TEST take. Every video is
a document; a folder stands for the videos in it, a folder of pictures is one video. One feature map
is averaged over the picture. Videos are read frame by frame, so their length does not matter.

Weights are never downloaded: without a file, --random-weights must say that none are wanted.
Exit code 1 if videos were left out, because they cannot be read; all others are used.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A checkout works without being installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from feature_folder import (
    FeatureFile,
    TopicRules,
    make_new_folder,
    number,
    report,
    write_index,
)

from vidseg.errors import ConfigError, DataError, UserError, nearest, run_command

if TYPE_CHECKING:
    from torch import Tensor

    from vidseg.config import CfgNode
    from vidseg.video.io import VideoFrame

# How torchvision, and timm with few exceptions, train on ImageNet.
_IMAGENET = (
    *("MODEL.BACKBONE.NAME", "torchvision/resnet50"),
    *("INPUT.FORMAT", "RGB", "INPUT.MIN_SIZE_TEST", 224, "INPUT.MAX_SIZE_TEST", 1333),
    *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], "MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
)
_SAME_TIME = 1e-4  # seconds


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="videos, folders")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="MODEL.BACKBONE.NAME: timm/N, torchvision/N or a registered name "
        "(torchvision/resnet50, or that of the config)",
    )
    parser.add_argument("--weights", default="", metavar="FILE", help="weights of the backbone")
    parser.add_argument(
        "--random-weights", action="store_true", help="do without, e.g. for a comparison"
    )
    parser.add_argument(
        "--feature-map", default="", metavar="MAP", help="res2 to res5 (the coarsest there is)"
    )
    parser.add_argument(
        "--fps",
        type=number(float, 0.001),
        metavar="R",
        help="frames per second to take (all that a video has)",
    )
    parser.add_argument(
        "--batch-size", type=number(int, 1), default=8, metavar="N", help="frames at once (8)"
    )
    parser.add_argument(
        "--topics",
        nargs="+",
        default=(),
        metavar="PATTERN=TOPIC",
        help=r"regular expression of the beginning of a video's path, and the topic, where \1 is "
        "its first group; the first rule that fits counts; a video without a topic is left out "
        "(default: none has one)",
    )
    parser.add_argument(
        "--config-file",
        metavar="F",
        help="yaml file of the backbone and of how pictures are resized and normalised (shorter "
        "side of 224 pixels, ImageNet's RGB)",
    )
    parser.add_argument(
        "--opts",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="KEY VALUE",
        help="config overrides",
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="P", help="name, module or path; repeat"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Writes the features of all videos that can be read."""
    args = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from vidseg.video.images import list_videos, name_videos

    rules = TopicRules(args.topics)
    found = [path for given in args.videos for path in list_videos(given)]
    topics = {path: rules.topic_of(path.as_posix()) for path in found}
    if args.topics:
        found = [path for path in found if topics[path]]
        if not found:
            raise DataError("none of the videos fits a rule of --topics")
    documents: list[dict[str, Any]] = []

    def write(folder: Path) -> None:
        extractor = _Extractor.from_arguments(args)
        for path, name in zip(found, name_videos(found), strict=True):
            try:
                document = extractor.write(path, folder / f"{name}.npy", args.fps)
            except UserError as error:
                report(error)
                continue
            documents.append({"id": name, "path": f"{name}.npy", **document})
            if args.topics:
                documents[-1]["topic"] = topics[path]
            print(f"{path}: {document['length']} frames", flush=True)
        if not documents:
            raise DataError(f"not one of {len(found)} videos can be used")
        common: dict[str, Any] = {"feature_dim": extractor.width}
        if args.topics:
            common["topics"] = sorted({document["topic"] for document in documents})
        write_index(folder, documents, **common)

    make_new_folder(args.out, write)
    print(f"{args.out}: {len(documents)} of {len(found)} videos")
    return 0 if len(documents) == len(found) else 1


class _Extractor:
    """Computes features of frames.

    Args:
        cfg: reads ``MODEL`` (backbone, normalisation, device), ``INPUT`` and ``SOLVER.AMP``.
        backbone: with weights.
        feature_map: name of the map to average; ``""`` for the coarsest.
        batch_size: frames that go through the backbone at once.

    Raises:
        ConfigError: if the backbone has no such map.
    """

    def __init__(self, cfg: CfgNode, backbone: Any, *, feature_map: str, batch_size: int) -> None:
        import torch

        from vidseg.engine.precision import Precision
        from vidseg.modeling.build import resolve_device

        shapes = backbone.output_shape()
        self._map = feature_map or list(shapes)[-1]
        if self._map not in shapes:
            close = nearest(self._map, shapes)
            raise ConfigError(
                f"--feature-map {self._map}: {cfg.MODEL.BACKBONE.NAME} has {', '.join(shapes)}"
                + (f"; did you mean {close[0]}?" if close else "")
            )
        self.width: int = shapes[self._map].channels
        self._stride: int = shapes[self._map].stride
        self._device = resolve_device(cfg)
        self._backbone = backbone.to(self._device).eval()
        self._divisor = max(backbone.size_divisibility, 1)
        self._precision = Precision.from_config(cfg, self._device)
        self._flip = cfg.INPUT.FORMAT == "BGR"
        self._sizes = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self._batch_size = batch_size
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=self._device).view(3, 1, 1)
            for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
        )
        self._mean, self._std = mean, std

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> _Extractor:
        """Builds the backbone that the command line asks for, with its weights.

        Raises:
            UserError: if there is no such backbone, or no weights for it.
        """
        from vidseg.config import load_config

        named = ["MODEL.BACKBONE.NAME", args.backbone] if args.backbone else []
        overrides = [*(() if args.config_file else _IMAGENET), *named, *args.overrides]
        cfg = load_config(args.config_file, overrides, args.plugin)
        file = args.weights or cfg.MODEL.BACKBONE.WEIGHTS
        if args.random_weights:
            if args.weights:
                raise UserError("give either --weights or --random-weights")
            file = ""
        elif not file:
            raise UserError(
                f"{cfg.MODEL.BACKBONE.NAME} has no weights: give a file with --weights (nothing is "
                "downloaded), or --random-weights to do without"
            )
        backbone = _load_backbone(cfg, file)
        return cls(cfg, backbone, feature_map=args.feature_map, batch_size=args.batch_size)

    def write(self, source: Path, target: Path, fps: float | None) -> dict[str, Any]:
        """Writes the features of a video.

        Args:
            source: the video.
            target: file to write; of a video that fails, none is left.
            fps: frames per second to take; ``None`` for all.

        Returns:
            ``length`` and ``frame_rate``.

        Raises:
            UserError: if the video cannot be read, or gives features that are no numbers.
        """
        from vidseg.host_memory import release_freed_memory
        from vidseg.video.io import VideoReader

        reader = VideoReader(source)
        if reader.is_live:
            raise UserError(f"{source} is a live source; record it to a file first")
        frames = reader.frames() if fps is None else _at_rate(reader.frames(), fps)
        images = (self._resized(frame.image) for frame in frames)
        with FeatureFile(target) as file:
            while batch := list(itertools.islice(images, self._batch_size)):
                rows = self._features(np.stack(batch))
                if not np.isfinite(rows).all():
                    raise DataError(
                        f"{source}: the features of its frames are no numbers; check --weights"
                    )
                file.append(rows)
                release_freed_memory()
        return {"length": file.num_frames, "frame_rate": fps or reader.info.fps}

    def _resized(self, image: np.ndarray) -> np.ndarray:
        from vidseg.data.transforms import Resize, shortest_edge_size

        height, width = image.shape[:2]
        return Resize((height, width), shortest_edge_size(height, width, *self._sizes)).image(image)

    def _features(self, images: np.ndarray) -> np.ndarray:
        """Averages the map over the picture.

        Args:
            images: uint8 ``(B, H, W, 3)`` RGB.

        Returns:
            float32 ``(B, C)``.
        """
        import torch
        from torch.nn import functional as F

        x: Tensor = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
        x = x.flip(1) if self._flip else x
        height, width = x.shape[2:]
        padding = (0, -width % self._divisor, 0, -height % self._divisor)
        x = F.pad((x - self._mean) / self._std, padding)
        with torch.inference_mode(), self._precision.autocast():
            features = self._backbone(x)[self._map]
        # Cells beyond the picture show nothing of it.
        rows, columns = (-(-side // self._stride) for side in (height, width))
        return features[:, :, :rows, :columns].float().mean((2, 3)).cpu().numpy()


def _load_backbone(cfg: CfgNode, file: str) -> Any:
    import torch

    from vidseg.checkpoint import naming_of
    from vidseg.checkpoint.upstream import read_state_dict
    from vidseg.engine.image_conventions import check_image_conventions
    from vidseg.modeling import build_backbone
    from vidseg.modeling.backbone import load_backbone_weights

    torch.manual_seed(cfg.SEED)
    backbone = build_backbone(cfg)
    if file:
        check_image_conventions(cfg, naming_of(read_state_dict(file)), file)
        load = getattr(backbone, "load_pretrained", partial(load_backbone_weights, backbone))
        load(file)
    return backbone


def _at_rate(frames: Iterable[VideoFrame], fps: float) -> Iterator[VideoFrame]:
    """Gives the frame that is shown at each tick of a clock that starts with the first one."""
    ticks = 0
    shown = None
    for frame in frames:
        while shown is not None and ticks / fps < frame.time - _SAME_TIME:
            yield shown
            ticks += 1
        shown = frame
    if shown is not None and ticks / fps <= shown.time + _SAME_TIME:
        yield shown


if __name__ == "__main__":
    run_command(main)
