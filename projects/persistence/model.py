"""The model from clip to decisions: detector, tokenizer, transformer.

Shapes: B clips, T frames, N tokens of a clip, P side of a patch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vidseg.config import CfgNode
from vidseg.errors import DataError
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.modeling.build import construct
from vidseg.modeling.meta_arch import Recorder, ResultPlace, VideoSession

from .detections import Detections
from .detector import BlobDetector
from .explanation import AttentionRecorder
from .layouts import open_clip
from .losses import PersistenceCriterion, TokenTargets
from .patches import extract_patches
from .prediction import TokenPrediction
from .session import PersistenceSession
from .settings import (
    check_settings,
    criterion_settings,
    tokenizer_settings,
    transformer_settings,
)
from .tokenizer import ObjectTokenizer, Tokens
from .trackers import HungarianTracker
from .transformer import ObjectPersistenceTransformer, TransformerOutput, received

__all__ = ["ObjectPersistence"]

logger = logging.getLogger(__name__)

Sample = dict[str, Any]


@META_ARCH_REGISTRY.register()
class ObjectPersistence(nn.Module):
    """Tells which blobs of a clip belong to objects that stay.

    Args:
        detector: for samples that come without detections.
        tokenizer: blobs to tokens.
        transformer: tokens to decisions.
        criterion: decisions to losses.
        tracker: for the bias by tracks, and the tracks of a prediction.
        patch: P in pixels.
        patch_scale: resample the surroundings of a blob instead, see ``extract_patches``.
        max_tokens: of a clip; of more detections, the most confident are used.
        window_frames: of a video that the transformer sees at once, as many as in training.
        max_num: tracks in the result of a video.
    """

    def __init__(
        self,
        detector: BlobDetector,
        tokenizer: ObjectTokenizer,
        transformer: ObjectPersistenceTransformer,
        criterion: PersistenceCriterion,
        tracker: HungarianTracker,
        *,
        patch: int = 14,
        patch_scale: bool = False,
        max_tokens: int = 2048,
        window_frames: int = 16,
        max_num: int = 20,
    ) -> None:
        super().__init__()
        self.detector, self.tracker = detector, tracker
        self.tokenizer, self.transformer, self.criterion = tokenizer, transformer, criterion
        self.patch, self.patch_scale, self.max_tokens = patch, patch_scale, max_tokens
        self.window_frames, self.max_num = window_frames, max_num
        self._num_cut = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Builds the parts from ``MODEL.PERSISTENCE``.

        Raises:
            ConfigError: if values are out of range or contradict each other.
        """
        check_settings(cfg)
        node = cfg.MODEL.PERSISTENCE
        return {
            "detector": BlobDetector.from_config(cfg),
            "tokenizer": ObjectTokenizer(**tokenizer_settings(cfg)),
            "transformer": ObjectPersistenceTransformer(**transformer_settings(cfg)),
            "criterion": PersistenceCriterion(**criterion_settings(cfg)),
            "tracker": construct(HungarianTracker, cfg),
            "patch": node.PATCH,
            "patch_scale": node.PATCH_SCALE,
            "max_tokens": node.MAX_TOKENS,
            "window_frames": cfg.TEST.PERSISTENCE.WINDOW_FRAMES,
            "max_num": cfg.MODEL.MASK_FORMER.TEST.MAX_NUM,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lives and its inputs go."""
        return self.transformer.classifier.weight.device

    @property
    def backbone(self) -> nn.Module | None:
        """The network of patches that ``MODEL.BACKBONE.WEIGHTS`` fills; None if it is the CNN."""
        found: nn.Module | None = getattr(self.tokenizer.encoder, "backbone", None)
        return found

    def forward(self, samples: list[Sample]) -> dict[str, Tensor] | list[TokenPrediction]:
        """Losses of a batch of clips in training, one prediction per clip in eval.

        Args:
            samples: with ``detections`` and ``patches`` uint8 ``(N, 3, P, P)``, or with ``frames``
                ``(T, C, H, W)`` alone, see ``detect``, in which the model then finds the blobs. In
                training also ``labels``, ``object_ids`` and ``durations`` ``(N,)``, and ``objects``
                if there are object queries. ``tracks`` ``(N,)`` are computed if they are missing.

        Raises:
            DataError: if a clip cannot be used; names it.
        """
        if self.training:
            return self._losses([self._read(sample, is_labelled=True) for sample in samples])
        return self._predictions([self._read(sample) for sample in samples])

    def predict(
        self, detections: Detections, patches: Tensor, tracks: Tensor | None = None
    ) -> TokenPrediction:
        """Decides on the blobs of one clip, or of one window of a video.

        Args:
            detections: N blobs; there may be none.
            patches: uint8 ``(N, 3, P, P)``.
            tracks: int64 ``(N,)``; computed if left out.
        """
        sample = {"detections": detections, "patches": patches}
        given = {} if tracks is None else {"tracks": tracks}
        return self._predictions([self._read({**sample, **given})])[0]

    def detect(self, frames: Tensor) -> tuple[Detections, Tensor]:
        """Finds the blobs of frames and cuts out their patches.

        Args:
            frames: ``(T, C, H, W)`` of any type, range and channels that ``open_clip`` takes.
        """
        detections = self.detector(frames, "TCHW")
        frames = _as_bytes(frames)
        patches = extract_patches(frames, detections, side=self.patch, scaled=self.patch_scale)
        return detections, patches

    def start(
        self,
        *,
        output_size: tuple[int, int] | None = None,
        frame_indices: Sequence[int] | None = None,
    ) -> VideoSession:
        """Opens a session for one video.

        Args:
            output_size: height and width of the masks; those of the frames if left out.
            frame_indices: of the frames in the video, for the result; counted if left out.
        """
        place = ResultPlace(output_size, frame_indices)
        return PersistenceSession(self, place, window=self.window_frames, max_num=self.max_num)

    def recorder(self, session: PersistenceSession) -> Recorder:
        """Watches a session and tells what the blobs of its tracks read."""
        return AttentionRecorder(session)

    def _read(self, sample: Sample, *, is_labelled: bool = False) -> _Clip:
        name = f"clip {sample.get('video_id', '?')}"
        try:
            if "detections" in sample:
                detections, patches = sample["detections"], sample["patches"]
            else:
                detections, patches = self.detect(sample["frames"])
            self.tokenizer.check(detections, patches)
        except ValueError as error:
            raise DataError(f"{name}: {error}") from error
        if is_labelled and "labels" not in sample:
            raise DataError(f"{name} has no labels of its blobs; only generated clips have them")
        tracks = sample.get("tracks")
        if tracks is None and (self.transformer.needs_tracks or not self.training):
            tracks = self.tracker.track(detections)
        clip = _Clip(sample, detections, patches, tracks, torch.arange(len(detections)))
        return self._without_excess(clip, name)

    def _without_excess(self, clip: _Clip, name: str) -> _Clip:
        """Leaves out the least confident blobs of a clip that has too many."""
        num = len(clip.detections)
        if num <= self.max_tokens:
            return clip
        self._num_cut += 1
        if self._num_cut & (self._num_cut - 1) == 0:  # the 1st, 2nd, 4th, 8th, ... clip
            logger.warning(
                "%s has %d blobs, of which the %d most confident are used, and those of %d clips "
                "before it likewise (MODEL.PERSISTENCE.MAX_TOKENS, DETECTOR.MAX_PER_FRAME)",
                *(name, num, self.max_tokens, self._num_cut - 1),
            )
        best = clip.detections.confidence.topk(self.max_tokens).indices
        kept = best.sort().values
        tracks = None if clip.tracks is None else clip.tracks[kept]
        detections = clip.detections.select(kept)
        return _Clip(clip.sample, detections, clip.patches[kept], tracks, kept)

    def _run(
        self, clips: list[_Clip], *, return_attention: bool
    ) -> tuple[Tokens, TransformerOutput]:
        tokens = self.tokenizer([c.detections for c in clips], [c.patches for c in clips])
        tracks = None
        if self.transformer.needs_tracks:
            tracks = _padded([c.tracks for c in clips], tokens)
        return tokens, self.transformer(tokens, tracks, return_attention=return_attention)

    def _losses(self, clips: list[_Clip]) -> dict[str, Tensor]:
        tokens, output = self._run(clips, return_attention=self.criterion.needs_attention)
        labels, object_ids, durations = (
            _padded([c.sample[name][c.kept] for c in clips], tokens)
            for name in ("labels", "object_ids", "durations")
        )
        has_queries = self.transformer.queries is not None
        objects = [_labelled(c.sample["objects"]) for c in clips] if has_queries else []
        targets = TokenTargets(labels, object_ids, durations, objects)
        losses: dict[str, Tensor] = self.criterion(output, tokens.padding_mask, targets)
        return losses

    @torch.no_grad()
    def _predictions(self, clips: list[_Clip]) -> list[TokenPrediction]:
        tokens, output = self._run(clips, return_attention=True)
        attention = {} if output.summary is None else {"summary": output.summary}
        for number, weights in enumerate(output.weights, 1):
            attention[f"layer {number}"] = received(weights, tokens.padding_mask)
        predictions = []
        for row, clip in enumerate(clips):
            num = len(clip.detections)

            def own(x: Tensor, row: int = row, num: int = num) -> Tensor:
                return x[row, :num].float().cpu()

            matrix = output.weights[-1][row, :, :num, :num].float().mean(0).cpu()
            assert clip.tracks is not None
            predictions.append(
                TokenPrediction(
                    detections=clip.detections,
                    logits=own(output.logits),
                    attention={name: own(values) for name, values in attention.items()},
                    matrix=matrix,
                    durations=None if output.durations is None else own(output.durations),
                    queries=_queries_of(output, row, clip.detections.num_frames),
                    tracks=clip.tracks,
                    kept=clip.kept,
                )
            )
        return predictions


def _as_bytes(frames: Any) -> Tensor:
    """Gives frames ``(T, C, H, W)`` as uint8 ``(T, 3, H, W)``, the form of patches."""
    clip = open_clip(frames, "TCHW")
    is_byte = clip.pixels.dtype == torch.uint8
    pixels = clip.pixels if is_byte else (clip[:] * 255).round_().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


@dataclass
class _Clip:
    """What of a sample goes into the transformer; ``kept`` are its rows of the detections."""

    sample: Sample
    detections: Detections
    patches: Tensor
    tracks: Tensor | None
    kept: Tensor


def _padded(rows: list[Any], tokens: Tokens) -> Tensor:
    """Lays ``(N,)`` of each clip out as ``(B, N)``, -1 in the padding."""
    width = tokens.padding_mask.shape[1]
    filled = pad_sequence(rows, batch_first=True, padding_value=-1)
    filled = torch.nn.functional.pad(filled, (0, width - filled.shape[1]), value=-1)
    return filled.to(tokens.padding_mask.device)


def _labelled(objects: dict[str, Tensor]) -> dict[str, Tensor]:
    is_known = objects["labels"] >= 0
    return {name: objects[name][is_known] for name in ("labels", "presence", "durations")}


def _queries_of(output: TransformerOutput, row: int, num_frames: int) -> dict[str, Tensor] | None:
    if output.queries is None:
        return None
    return {
        "logits": output.queries.logits[row].cpu(),
        "presence": output.queries.presence[row, :, :num_frames].sigmoid().cpu(),
        "durations": output.queries.durations[row].cpu(),
    }
