"""A video from a file to everything that shows its slots, window by window.

Shapes: t frames of a window, K slots, I iterations, H W pixels of the video, h w of the attention.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg.checkpoint import check_complete, find_run_weights, load_weights
from vidseg.config import CfgNode
from vidseg.errors import ConfigError, DataError
from vidseg.modeling import build_model
from vidseg.video.io import VideoFrame, VideoReader
from vidseg.video.strip import evenly

from .clip_view import SlotFrame, as_array, as_pictures
from .clips_input import to_video
from .model import SlotBERT
from .perception import SlotPerception
from .pictures import Grid, save_iterations
from .session import check_numbers, resize, segment
from .thinning import Thinned
from .time_modes import run_independent, run_recurrent
from .track_files import ArrayFile, TrackFile
from .video_output import SlotVideos

__all__ = ["SlotShow", "attention_by_iteration"]

_MAX_ROWS = 8  # of the picture
_USED = 0.01  # share of all pixels from which on a slot counts as used


class SlotShow:
    """Writes what the slots of a model see of videos; memory does not grow with their length.

    Args:
        model: with its weights, on its device.
        window: frames that go through the model at once.
    """

    def __init__(self, model: SlotBERT, *, window: int = 24) -> None:
        self.model = model.eval()
        self.window = window

    @classmethod
    def from_config(cls, cfg: CfgNode, weights: str | Path | None = None) -> SlotShow:
        """Builds the model of a config and loads its weights.

        Args:
            cfg: of a slot model.
            weights: file; by default ``MODEL.WEIGHTS``, else what training with this config left
                in ``OUTPUT_DIR``.

        Raises:
            UserError: if the config is wrong, or there are no weights for a part of the model.
        """
        if SlotBERT.__name__ != cfg.MODEL.META_ARCHITECTURE:
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, which has no slots "
                f"to show; give a config of {SlotBERT.__name__}, such as "
                "projects/slot_bert/best.yaml"
            )
        file = find_run_weights(weights or cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
        model: Any = build_model(cfg)
        check_complete(load_weights(model, file), model, file)
        return cls(model, window=cfg.MODEL.MASK_FORMER.TEST.WINDOW_SIZE)

    def write(
        self,
        reader: VideoReader,
        folder: Path,
        *,
        formats: Sequence[str] = ("mp4", "gif"),
        opacity: float = 0.65,
    ) -> str:
        """Writes pictures, videos, ``masks.npz`` and ``tracks.json`` of a video.

        Args:
            reader: opens it.
            folder: for the files; it must exist.
            formats: of the videos.
            opacity: of the colours on the frames, 0 to 1.

        Returns:
            How many frames there are and how many slots are used.

        Raises:
            DataError: if the video cannot be read or a file not be written.
            UserError: if the weights have diverged.
        """
        rows: Thinned[tuple[int, np.ndarray]] = Thinned(4 * _MAX_ROWS)
        areas, start, grid, num = np.zeros(self.model.num_slots), 0.0, None, 0
        size = reader.info.size
        with contextlib.ExitStack() as files:
            arrays = files.enter_context(ArrayFile(folder / "masks.npz"))
            tracks = files.enter_context(
                TrackFile(
                    folder / "tracks.json",
                    source=Path(reader.info.path).name,
                    size=size,
                    num_slots=self.model.num_slots,
                )
            )
            for frame, seen in self._frames(reader, arrays):
                if grid is None:
                    start, grid = frame.time, Grid(seen, opacity=opacity)
                    fps = reader.info.fps / reader.every
                    videos = files.enter_context(
                        SlotVideos(folder, seen, fps=fps, formats=formats, opacity=opacity)
                    )
                    self._write_iterations(folder / "iterations.png", seen)
                videos.write(seen, time=frame.time - start)
                tracks.write(
                    seen.image, seen.segmentation, frame=frame.index, time=frame.time - start
                )
                if rows.takes_next:
                    rows.add((frame.index, grid.draw(seen, f"frame {frame.index}")))
                else:
                    rows.skip()
                areas += np.bincount(seen.segmentation.ravel(), minlength=len(areas))
                num += 1
            if grid is None:
                raise DataError(f"there is no frame in {reader.info.path}")
        chosen = evenly(range(len(rows.items)), _MAX_ROWS)
        grid.save(folder / "grid.png", [rows.items[row][1] for row in chosen])
        used = int((areas > _USED * areas.sum()).sum())
        return f"{num} frame{'s' * (num != 1)}, {used} of {len(areas)} slots used"

    def _frames(
        self, reader: VideoReader, arrays: ArrayFile
    ) -> Iterator[tuple[VideoFrame, SlotFrame]]:
        """Runs the model; yields every frame with what is known of it, and keeps its arrays."""
        source, state, num = reader.frames(), None, 0
        while window := list(itertools.islice(source, self.window)):
            images = np.stack([frame.image for frame in window])
            frames = torch.from_numpy(images).permute(0, 3, 1, 2)
            with torch.no_grad():
                inputs = resize(frames, self.model.input_size)
                outputs, state = self.model.stream(inputs, state)
            check_numbers(outputs, num)
            num += len(window)
            slots = segment(outputs, reader.info.size)
            masks, drawn = as_array(outputs["masks"]), as_pictures(outputs["reconstruction"])
            arrays.write(
                {
                    "segmentation": slots.astype(np.min_scalar_type(self.model.num_slots)),
                    "attn": as_array(outputs["attn"]).astype(np.float16),
                    "slots": as_array(outputs["slots"]).astype(np.float32),
                    "frame": np.array([frame.index for frame in window]),
                    "time": np.array([frame.time for frame in window]),
                }
            )
            for row, frame in enumerate(window):
                yield frame, SlotFrame(frame.image, masks[row], slots[row], drawn[row])

    def _write_iterations(self, path: Path, frame: SlotFrame) -> None:
        image = torch.tensor(frame.image).permute(2, 0, 1)[None].to(self.model.device)
        maps = attention_by_iteration(self.model.perception, resize(image, self.model.input_size))
        save_iterations(path, frame, as_array(maps))


@torch.no_grad()
def attention_by_iteration(perception: SlotPerception, frame: Tensor) -> Tensor:
    """Gives how slot attention shares a first frame out after 1, 2, ... iterations.

    Args:
        perception: in evaluation.
        frame: uint8 ``(1, 3, H, W)``, on the same device.

    Returns:
        ``(I, K, h, w)``, sum 1 over K.
    """
    attention, start = perception.attention, perception.initial_slots
    video = to_video(frame)[None]
    tokens, grid = perception.encode(video)
    looks = perception.looks(video, grid)
    count = perception.eval_iters or attention.iters
    run: Callable[..., Any] = partial(run_independent, attention, start, tokens)
    if perception.recurrent:
        run = partial(run_recurrent, attention, start, perception.predictor, tokens)
    maps = [run(iters=iters, looks=looks)[1][0, 0] for iters in range(1, count + 1)]
    return torch.stack(maps).unflatten(-1, grid)
