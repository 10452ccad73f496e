"""Numbers that the meta-architectures read from the config, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vidseg.config import CfgNode
from vidseg.errors import ConfigError

from .memory import TrackRules

__all__ = ["ContrastSettings", "RefinerInput", "TrainingSettings"]


@dataclass(frozen=True)
class ContrastSettings:
    """What the contrastive training of the frame segmenter reads.

    Args:
        reid_weight: of the loss on dot products.
        aux_weight: of the loss on cosine similarities.
        num_negatives: queries of the frame before that an anchor is contrasted with, at most.
        use_mean: the running mean of an object's embeddings is a positive in half of the cases.
    """

    reid_weight: float = 2.0
    aux_weight: float = 3.0
    num_negatives: int = 99
    use_mean: bool = True

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config.

        Raises:
            ConfigError: if there shall be no negatives.
        """
        # A published config may name the model and nothing else that belongs to this project; its
        # keys are not there then, and the defaults hold.
        if not cfg.has("MODEL.CL_PLUGIN"):
            return {}
        node = cfg.MODEL.CL_PLUGIN
        if node.NUM_NEGATIVES < 1:
            raise ConfigError(
                f"MODEL.CL_PLUGIN.NUM_NEGATIVES is {node.NUM_NEGATIVES}; set 1 or more, usually "
                "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES less one"
            )
        return {
            "reid_weight": node.REID_WEIGHT,
            "aux_weight": node.AUX_REID_WEIGHT,
            "num_negatives": node.NUM_NEGATIVES,
            "use_mean": node.MOMENTUM_EMBED,
        }


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
class TrainingSettings:
    """What the training steps of tracker and refiner read.

    Args:
        frames_by_phase: frames used of a clip before and from ``phase_steps[0]``; empty: all.
        phase_steps: iterations at which the phase changes; empty: always the late phase.
        select_threshold: score above which a row is carried on in the late phase.
        first_threshold: score of the frame decoder above which a frame query counts.
        rules: of the tracker at inference; ``rules.for_training()`` feeds the refiner.
        refiner_input: which instances the refiner sees.
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
    slot_loss_weight: float = 1.0
    tracker_warm_start: bool = False
    refiner_warm_start: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translates the config."""
        head = cfg.MODEL.VIDEO_HEAD
        return {
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
