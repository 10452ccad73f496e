"""From the config to the parts of the model, with errors that name keys."""

from __future__ import annotations

from typing import Any

from torch import nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, UserError, nearest
from vidseg.modeling import build_backbone

from .losses import CONTRASTS
from .pair_bias import BIASES
from .patch_encoder import BackbonePatchEncoder, ConvPatchEncoder
from .tokenizer import POSITIONS, TIMES

__all__ = [
    "build_patch_encoder",
    "criterion_settings",
    "tokenizer_settings",
    "transformer_settings",
]

_KEY = "MODEL.PERSISTENCE"
_POSITIVE = (
    "PATCH",
    "ENCODER_SIZE",
    "MAX_FRAMES",
    "MAX_TOKENS",
    "HIDDEN_DIM",
    "NUM_LAYERS",
    "NHEADS",
    "DIM_FEEDFORWARD",
    "QUERY_LAYERS",
)
_WEIGHTS = (
    "QUERIES",
    "DURATION_WEIGHT",
    "ATTENTION_WEIGHT",
    "CONTRASTIVE_WEIGHT",
    "QUERY_WEIGHT",
)
_ABOVE_ZERO = ("MOTION_GATE", "CONTRASTIVE_TEMPERATURE")
_CHOICES = {
    "TIME": TIMES,
    "POSITION": POSITIONS,
    "RELATIVE_BIAS": BIASES,
    "CONTRASTIVE": CONTRASTS,
}
_RESNET18 = "resnet18"
_OWN_ENCODERS = ("cnn", _RESNET18)  # beside the registered backbones


def check_settings(cfg: CfgNode) -> None:
    """Checks the keys of tokenizer, transformer, losses, tracker and evaluation.

    Raises:
        ConfigError: if a value is out of range or two contradict each other.
    """
    node = cfg.MODEL.PERSISTENCE
    for name in _POSITIVE:
        _require(node[name] >= 1, f"{name} is {node[name]}; it must be 1 or more")
    for name in _WEIGHTS:
        _require(node[name] >= 0, f"{name} is {node[name]}; it cannot be negative")
    for name in _ABOVE_ZERO:
        _require(node[name] > 0, f"{name} is {node[name]}; it must be above 0")
    for name, choices in _CHOICES.items():
        hint = ", ".join(nearest(node[name], choices) or choices)
        _require(node[name] in choices, f"{name} is {node[name]!r}; nearest: {hint}")
    _require(0 <= node.DROPOUT < 1, f"DROPOUT is {node.DROPOUT}; it must be 0 or more and below 1")
    width, heads = node.HIDDEN_DIM, node.NHEADS
    _require(
        width % heads == 0, f"NHEADS is {heads} and HIDDEN_DIM {width}; set NHEADS to a divisor"
    )
    _check_tracker(node.TRACKER)
    _check_evaluation(cfg.TEST.PERSISTENCE)
    _require(
        node.ATTENTION_WEIGHT > 0 or not node.SUMMARY_QUERY,
        "SUMMARY_QUERY learns from the supervision of attention; set ATTENTION_WEIGHT above 0",
    )
    is_cnn = node.ENCODER == "cnn"
    _require(
        not (is_cnn and node.FREEZE_ENCODER),
        "FREEZE_ENCODER needs an encoder with weights of its own; set ENCODER to a backbone",
    )
    if is_cnn and cfg.MODEL.BACKBONE.WEIGHTS:
        raise ConfigError(
            f"MODEL.BACKBONE.WEIGHTS is set, but {_KEY}.ENCODER is cnn, which there are no such "
            f"weights for; set {_KEY}.ENCODER to the backbone of the file"
        )


def _check_tracker(tracker: CfgNode) -> None:
    _require(tracker.GATE > 0, f"TRACKER.GATE is {tracker.GATE}; it must be above 0")
    weight, share = tracker.APPEARANCE_WEIGHT, tracker.MIN_PRESENCE
    _require(weight >= 0, f"TRACKER.APPEARANCE_WEIGHT is {weight}; it cannot be negative")
    _require(tracker.MAX_GAP >= 1, f"TRACKER.MAX_GAP is {tracker.MAX_GAP}; it must be 1 or more")
    _require(0 <= share <= 1, f"TRACKER.MIN_PRESENCE is {share}; give a share in [0, 1]")


def _check_evaluation(node: CfgNode) -> None:
    # Before training, which would otherwise be over when the evaluation finds them.
    for name, least in (("NUM_PICTURES", 0), ("WINDOW_FRAMES", 1), ("BOOTSTRAP", 0)):
        if node[name] < least:
            raise ConfigError(
                f"TEST.PERSISTENCE.{name} is {node[name]}; it must be {least} or more"
            )


def tokenizer_settings(cfg: CfgNode) -> dict[str, Any]:
    """Gives the arguments of ``ObjectTokenizer``, the encoder built."""
    node = cfg.MODEL.PERSISTENCE
    return {
        "encoder": build_patch_encoder(cfg),
        "dim": node.HIDDEN_DIM,
        "time": node.TIME,
        "position": node.POSITION,
        "max_frames": node.MAX_FRAMES,
        "grey": node.PATCH_GREY,
    }


def transformer_settings(cfg: CfgNode) -> dict[str, Any]:
    """Gives the arguments of ``ObjectPersistenceTransformer``."""
    node = cfg.MODEL.PERSISTENCE
    return {
        "dim": node.HIDDEN_DIM,
        "num_layers": node.NUM_LAYERS,
        "num_heads": node.NHEADS,
        "dim_feedforward": node.DIM_FEEDFORWARD,
        "dropout": node.DROPOUT,
        "relative_bias": node.RELATIVE_BIAS,
        "motion_gate": node.MOTION_GATE,
        "track_bias": node.TRACK_BIAS,
        "null_key": node.NULL_KEY,
        "summary_query": node.SUMMARY_QUERY,
        "num_queries": node.QUERIES,
        "query_layers": node.QUERY_LAYERS,
        "durations": node.DURATION_WEIGHT > 0,
        "contrast": node.CONTRASTIVE_WEIGHT > 0,
    }


def criterion_settings(cfg: CfgNode) -> dict[str, Any]:
    """Gives the arguments of ``PersistenceCriterion``."""
    node = cfg.MODEL.PERSISTENCE
    return {
        "class_balance": node.CLASS_BALANCE,
        "duration_weight": node.DURATION_WEIGHT,
        "attention_weight": node.ATTENTION_WEIGHT,
        "contrastive_weight": node.CONTRASTIVE_WEIGHT,
        "contrastive": node.CONTRASTIVE,
        "temperature": node.CONTRASTIVE_TEMPERATURE,
        "query_weight": node.QUERY_WEIGHT,
    }


def build_patch_encoder(cfg: CfgNode) -> nn.Module:
    """Builds the encoder of ``MODEL.PERSISTENCE.ENCODER`` with random weights.

    A backbone's file of weights, ``MODEL.BACKBONE.WEIGHTS``, is loaded when training starts.

    Raises:
        ConfigError: if there is no backbone of that name.
    """
    node = cfg.MODEL.PERSISTENCE
    if node.ENCODER == "cnn":
        return ConvPatchEncoder(node.HIDDEN_DIM)
    own = cfg.clone()
    own.defrost()
    own.MODEL.BACKBONE.NAME = node.ENCODER
    own.MODEL.BACKBONE.FREEZE_AT = 0
    if node.ENCODER == _RESNET18:
        own.MODEL.BACKBONE.NAME = "build_resnet_backbone"
        own.MODEL.RESNETS.DEPTH, own.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
        own.MODEL.RESNETS.NORM, own.MODEL.RESNETS.OUT_FEATURES = "BN", ["res5"]
    backbone: Any
    try:
        backbone = build_backbone(own)
    except UserError as error:  # it cannot know the key that the name comes from
        close = nearest(node.ENCODER, _OWN_ENCODERS)
        hint = f"nearest: {', '.join(close)}" if close else "give cnn, resnet18 or a backbone"
        raise ConfigError(f"{_KEY}.ENCODER is {node.ENCODER!r}; {hint} ({error})") from error
    return BackbonePatchEncoder(
        backbone,
        node.HIDDEN_DIM,
        size=node.ENCODER_SIZE,
        frozen=node.FREEZE_ENCODER,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        channel_order=cfg.INPUT.FORMAT,
    )


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ConfigError(f"{_KEY}.{message}")
