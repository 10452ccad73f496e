"""Trained models on video: from a file, a folder, pictures or a running stream to tracks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidseg.commands import build_trained
from vidseg.config import CfgNode, as_config
from vidseg.data import DatasetCatalog
from vidseg.data.transforms import Resize, shortest_edge_size
from vidseg.engine.precision import Precision
from vidseg.errors import ConfigError, DataError, UserError
from vidseg.host_memory import release_freed_memory
from vidseg.modeling.meta_arch import RecordedSession, Recorder, VideoSession
from vidseg.structures import Explanation, FrameAttention, VideoInstances
from vidseg.video.io import VideoFrame, VideoReader
from vidseg.video.live import is_live

__all__ = ["VideoPredictor"]

logger = logging.getLogger(__name__)

_WINDOWS_PER_RELEASE = 8  # it takes milliseconds


class VideoPredictor:
    """Runs a model over videos; frames are read window by window.

    A source is the path of a video, a picture, a folder of pictures or a ``.npy`` file; a camera
    (``"camera:0"``), the standard input (``"-"``) or a named pipe; an iterable of picture paths,
    uint8 arrays ``(H, W, 3)`` or tensors ``(3, H, W)``, RGB, which need not end; or a
    ``VideoReader``, which skips frames (``every``) or stops early (``max_frames``). All frames
    have one size.

    What a video leaves behind stands in its own session: a predictor may have several streams open
    at a time, and may be used again after any of them.

    Args:
        model: a meta-architecture with ``start`` (see ``modeling.meta_arch.base``), on its device.
        window_size: frames that go through the model at once. More are quicker and take more
            memory; a stream answers once per window.
        min_size: frames are resized to this shorter side, as in testing; 0 keeps their size.
        max_size: bound of the longer side.
        class_names: by label; ``None`` if unknown.
        category_ids: ids of the data set by label; counted from 1 if not given.
        precision: that the model computes in, as in testing; by default the one that it has.

    Note:
        Masks come at the size of the source's frames, whatever the model saw. Nothing is left out
        by its score: a result holds the best pairs of track and class,
        ``MODEL.MASK_FORMER.TEST.MAX_NUM`` at most; ``result[result.scores >= 0.5]`` keeps some.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        window_size: int = 3,
        min_size: int = 0,
        max_size: int = 1333,
        class_names: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        precision: Precision | None = None,
    ) -> None:
        if window_size < 1:
            raise ConfigError(f"a window needs 1 frame or more, got {window_size}")
        self.model = model.eval()
        self.window_size = window_size
        self.min_size = min_size
        self.max_size = max_size
        self.class_names = None if class_names is None else list(class_names)
        self.category_ids = None if category_ids is None else list(category_ids)
        self.precision = precision or Precision.off()

    @classmethod
    def from_config(
        cls,
        config: str | Path | CfgNode,
        weights: str | Path | None = None,
        overrides: Sequence[Any] = (),
        *,
        plugins: Sequence[str] = (),
        device: str | None = None,
    ) -> VideoPredictor:
        """Builds the model of a config and loads its weights.

        Args:
            config: yaml file, or a config already loaded.
            weights: file; by default ``MODEL.WEIGHTS``, else what training with this config left
                in ``OUTPUT_DIR``.
            overrides: ``[KEY, VALUE, ...]``; they do not apply to a config already loaded.
            plugins: to load besides the config's own.
            device: such as ``"cpu"`` or ``"cuda:1"``; by default ``MODEL.DEVICE``, whose own
                default is an accelerator if there is one.

        Raises:
            UserError: if the config is wrong, or there are no weights for a part of the model.
        """
        cfg = as_config(config, overrides, plugins, device=device)
        model = build_trained(cfg, str(weights or ""))
        class_names, category_ids = _classes(cfg)
        return cls(
            model,
            window_size=cfg.MODEL.MASK_FORMER.TEST.WINDOW_SIZE,
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            class_names=class_names,
            category_ids=category_ids,
            precision=Precision.from_config(cfg, next(model.parameters()).device),
        )

    def predict(self, source: Any) -> VideoInstances:
        """Gives the tracks of the whole video.

        What grows with its length are RLE masks, and what an offline model keeps of its frames, of
        which all beyond a bound goes to a temporary file.

        Args:
            source: see the class.

        Returns:
            N pairs of track and class, best first, over all T frames: ``masks[n][t]`` is an RLE at
            the size of the frames, or None. A track may be there with several classes.

        Raises:
            DataError: if the source cannot be read.
        """
        return self._predict(source, self._start)

    def explain(
        self, source: Any, *, min_score: float = 0.0, max_tracks: int = 5
    ) -> tuple[VideoInstances, Explanation]:
        """Gives the tracks of the whole video, as ``predict`` does, and what the model read.

        The video is read, and its frames segmented, a second time while the attention is gone
        through; so memory is that of ``predict`` and a few numbers per track and frame.

        Args:
            source: as for ``predict``, but no iterator; or a function that gives one each time.
            min_score: tracks below it are not explained.
            max_tracks: that are explained at most, best first.

        Raises:
            DataError: if the source cannot be read.
            UserError: if the model offers no explanation.
        """
        self.check_explains()
        if isinstance(source, Iterator) or is_live(source) or getattr(source, "is_live", False):
            raise UserError(
                "an explanation reads its source twice, which an iterator, a camera or a pipe "
                "cannot give; record it to a file first"
            )
        recorders: list[Recorder] = []
        model: Any = self.model

        def start(size: tuple[int, int]) -> VideoSession:
            session = self._start(size)
            recorders.append(model.recorder(session))
            return RecordedSession(session, recorders[0])

        def reopened() -> Any:
            return source() if callable(source) else source

        result = self._predict(reopened(), start)
        (recorder,) = recorders
        tracks = _best_tracks(result, min_score)[:max_tracks]

        def attention() -> Iterator[FrameAttention]:
            first = 0
            for _, frames, _ in self._windows(reopened()):
                with torch.no_grad(), self.precision.autocast():
                    window = recorder.attention(frames, first, tracks)
                yield from window
                first += len(frames)

        return result, Explanation(
            tracks,
            attention,
            recorder.attention_source,
            frame_weights=recorder.frame_weights(tracks) if tracks else None,
            rows=recorder.rows(),
        )

    def check_explains(self) -> None:
        """Checks that ``explain`` is possible.

        Raises:
            UserError: if the model offers no explanation.
        """
        if not hasattr(self.model, "recorder"):
            kind = type(self.model).__name__
            raise UserError(f"{kind} offers no explanation of its results: it has no `recorder`")

    def _predict(
        self, source: Any, start: Callable[[tuple[int, int]], VideoSession]
    ) -> VideoInstances:
        session: Any = None
        seen: list[int] = []
        for indices, frames, size in self._windows(source):
            if session is None:
                session = start(size)
            with torch.no_grad(), self.precision.autocast():
                getattr(session, "feed", session.step)(frames)
            seen.extend(indices)
        if session is None:
            raise DataError(f"there is no frame in {_name(source)}")
        return replace(self._finish(session), frame_indices=seen)

    def stream(self, source: Any) -> Iterator[VideoInstances]:
        """Yields the tracks window by window, as soon as the model knows them.

        An online model answers after every window, keeps nothing of it, and so takes a source
        without an end. An offline model has to see the whole video first; its windows come at the
        end.

        Args:
            source: see the class.

        Yields:
            The tracks that are alive in the window, as ``predict`` gives them; ``frame_indices``
            are the numbers of its frames. Ids stay those of the video; scores are those of the
            track so far, of an offline model those of the whole video.

        Raises:
            DataError: if the source cannot be read.
        """
        session = None
        seen: list[int] = []
        for indices, frames, size in self._windows(source):
            if session is None:
                session = self._start(size)
            # not around the loop: both would leak into the caller's code
            with torch.no_grad(), self.precision.autocast():
                window = getattr(session, "stream", session.step)(frames)
            if getattr(session, "is_offline", False):
                seen.extend(indices)
            else:
                yield replace(window, frame_indices=indices)
        if session is None:
            raise DataError(f"there is no frame in {_name(source)}")
        if seen:
            result = replace(self._finish(session), frame_indices=seen)
            for start in range(0, len(seen), self.window_size):
                yield _part(result, start, start + self.window_size)

    def class_name(self, label: int) -> str:
        """Gives the name of a label, or its number if no name is known."""
        names = self.class_names
        return names[label] if names is not None and label < len(names) else f"class {label}"

    def results(self, result: VideoInstances, video_id: Any = 1) -> list[dict[str, Any]]:
        """Gives a prediction as the json records of a YouTube-VIS results file."""
        ids = self.category_ids
        highest = int(result.labels.max()) if len(result) else -1
        if ids is None or highest >= len(ids):
            ids = list(range(1, highest + 2))
        return result.to_results(video_id, ids)

    def _start(self, size: tuple[int, int]) -> Any:
        start = getattr(self.model, "start", None)
        if start is None:
            kind = type(self.model).__name__
            raise UserError(f"{kind} does not segment videos frame by frame: it has no `start`")
        return start(output_size=size)

    def _finish(self, session: Any) -> VideoInstances:
        with torch.no_grad(), self.precision.autocast():
            return session.finish()

    def _windows(self, source: Any) -> Iterator[tuple[list[int], Tensor, tuple[int, int]]]:
        """Yields frame numbers, frames uint8 ``(t, 3, h, w)`` and the frames' original size."""
        reader = iter(_frames(source))
        for number in itertools.count(1):
            window = list(itertools.islice(reader, self.window_size))
            if not window:
                return
            size = window[0].image.shape[:2]
            images = np.stack([self._resized(frame.image) for frame in window])
            tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
            yield [frame.index for frame in window], tensor, (size[0], size[1])
            if number % _WINDOWS_PER_RELEASE == 0:
                release_freed_memory()

    def _resized(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        size = shortest_edge_size(height, width, self.min_size, self.max_size)
        return Resize((height, width), size).image(image)


def _frames(source: Any) -> Iterable[VideoFrame]:
    """Opens anything; an iterator that already gives ``VideoFrame`` passes through."""
    if isinstance(source, VideoReader):
        return source.frames()
    if isinstance(source, Iterator):
        first = next(source, None)
        if first is None:
            return ()
        source = itertools.chain([first], source)
        if isinstance(first, VideoFrame):
            return source
    return VideoReader(source).frames()


def _name(source: Any) -> str:
    return str(source) if isinstance(source, (str, Path)) else "the source"


def _best_tracks(result: VideoInstances, min_score: float) -> list[int]:
    order = result.scores.argsort(descending=True, stable=True).tolist()
    ids, scores = result.track_ids.tolist(), result.scores.tolist()
    return list(dict.fromkeys(ids[row] for row in order if scores[row] >= min_score))


def _part(result: VideoInstances, start: int, stop: int) -> VideoInstances:
    """Gives the frames from ``start`` to ``stop`` with the tracks that are present in them."""
    cut = [track[start:stop] for track in result.masks]
    rows = [row for row, track in enumerate(cut) if any(mask is not None for mask in track)]
    return VideoInstances(
        scores=result.scores[rows],
        labels=result.labels[rows],
        track_ids=result.track_ids[rows],
        masks=[cut[row] for row in rows],
        image_size=result.image_size,
        frame_indices=result.frame_indices[start:stop],
    )


def _classes(cfg: CfgNode) -> tuple[list[str] | None, list[int] | None]:
    """Looks up the classes of the config's data sets; none of them needs to be on this machine."""
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        try:
            found = DatasetCatalog.registered(name)
            if not found.classes and Path(found.json_file or name).is_file():
                found = DatasetCatalog.metadata(name)
        except (UserError, OSError) as error:
            logger.info("no class names from %s: %s", name, error)
            continue
        if len(found.classes) == num_classes:
            return found.classes, found.category_ids or None
    return None, None
