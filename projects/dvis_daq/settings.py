"""Numbers that the meta-architectures read from the config, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vidseg.config import CfgNode

from .memory import TrackRules

__all__ = ["RefinerInput", "ResultSettings", "TrainingSettings"]


@dataclass(frozen=True)
class RefinerInput:
    """Which instances the refiner sees.

    Args:
        max_tracks: best tracks that are kept.
        num_instances: size up to which linked frame queries are added.
        fill: whether they are added at all.
    """

    max_tracks: int = 20
    num_instances: int = 100
    fill: bool = True

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config."""
        head = cfg.MODEL.VIDEO_HEAD
        return {
            "max_tracks": head.OFFLINE_TOPK_NUM,
            "num_instances": head.NUM_NEW_INS,
            "fill": head.OFFLINE_FILL,
        }


@dataclass(frozen=True)
class ResultSettings:
    """What a prediction holds.

    Args:
        max_num: (track, label) pairs at most, best first.
        one_label_per_track: a track is reported once, with its best label.
        mask_quality: multiply scores by the mean probability inside the track's masks.
        window_size: frames whose masks are computed at once.
    """

    max_num: int = 20
    one_label_per_track: bool = False
    mask_quality: bool = False
    window_size: int = 3

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config."""
        test = cfg.MODEL.MASK_FORMER.TEST
        return {
            "max_num": test.MAX_NUM,
            "one_label_per_track": test.ONE_LABEL_PER_TRACK,
            "mask_quality": test.MASK_QUALITY,
            "window_size": max(1, test.WINDOW_SIZE),
        }


@dataclass(frozen=True)
class TrainingSettings:
    """What the training steps of tracker and refiner read.

    Args:
        frames_by_phase: frames used of a clip before and from ``phase_steps[0]``; empty: all.
        phase_steps: iterations at which the phase changes; empty: always the late phase.
        select_threshold: score above which a row is carried on in the late phase.
        first_threshold: score of the frame decoder above which a frame query counts.
        rules: of the tracker at inference; ``rules.for_training()`` feeds the refiner.
        refiner_input: which instances the refiner sees.
        ignore_doubles: anchors on objects that are tracked already have no class loss.
        slot_loss_weight: factor on the losses of the slot branch; 0 leaves the branch out.
        tracker_warm_start: start the tracker's heads from the frame decoder's.
        refiner_warm_start: start the refiner's heads from the tracker's.
    """

    frames_by_phase: tuple[int, ...] = ()
    phase_steps: tuple[int, ...] = ()
    select_threshold: float = 0.1
    first_threshold: float = 0.01
    rules: TrackRules = field(default_factory=TrackRules)
    refiner_input: RefinerInput = field(default_factory=RefinerInput)
    ignore_doubles: bool = False
    slot_loss_weight: float = 1.0
    tracker_warm_start: bool = False
    refiner_warm_start: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config."""
        head = cfg.MODEL.VIDEO_HEAD
        return {
            "ignore_doubles": head.IGNORE_DOUBLES,
            "slot_loss_weight": head.SLOT_LOSS_WEIGHT,
            "tracker_warm_start": cfg.MODEL.TRACKER.WARM_START,
            "refiner_warm_start": cfg.MODEL.REFINER.WARM_START,
            "frames_by_phase": tuple(cfg.INPUT.USING_FRAME_NUM or ()),
            "phase_steps": tuple(cfg.INPUT.STEPS or ()),
            "select_threshold": head.TRAINING_SELECT_THRESHOLD,
            "first_threshold": head.AUX_INFERENCE_SELECT_THRESHOLD,
            "rules": TrackRules(**TrackRules.from_config(cfg)),
            "refiner_input": RefinerInput(**RefinerInput.from_config(cfg)),
        }
