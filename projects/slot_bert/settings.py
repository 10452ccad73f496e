"""From the config to the parts of the model, with errors that name keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import nn

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, nearest

from .composition import MASK_SOURCES
from .criterion import SlotCriterion
from .decoders import build_decoder
from .encoder import ENCODERS, NORMS, TokenHead, build_conv_encoder
from .features import ConvWithTargets, build_features
from .frame_masking import MASK_UNITS
from .initial_slots import INITS, InitialSlots
from .perception import SlotPerception
from .positions import POSITIONS, build_position
from .slot_attention import SlotAttention
from .staging import Staging
from .temporal_transformer import AXES, FILLS, TIME_POSITIONS, TemporalSlotTransformer
from .time_modes import MODES, PREDICTORS, build_predictor

__all__ = ["build_encoder", "build_parts", "check_settings"]

_KEY = "MODEL.SLOT_BERT"
FROZEN = "backbone"
_CHOICES: dict[str, Sequence[str]] = {
    "ENCODER.NAME": (*ENCODERS, FROZEN),
    "ENCODER.NORM": NORMS,
    "ENCODER.POSITION": POSITIONS,
    "ATTENTION.INIT": INITS,
    "TIME.MODE": MODES,
    "TIME.PREDICTOR": PREDICTORS,
    "MASK_SOURCE": MASK_SOURCES,
    "TRANSFORMER.AXIS": AXES,
    "TRANSFORMER.POSITION": TIME_POSITIONS,
    "TRANSFORMER.FILL": FILLS,
    "TRANSFORMER.MASK_UNIT": MASK_UNITS,
}
_LEAST = {
    "ATTENTION.NUM_SLOTS": 1,
    "ATTENTION.SLOT_DIM": 1,
    "ATTENTION.ITERS": 1,
    "ATTENTION.EVAL_ITERS": 0,
    "ATTENTION.HEADS": 1,
    "ATTENTION.MLP_RATIO": 1,
    "TIME.ITERS_NEXT": 1,
    "TRANSFORMER.NUM_LAYERS": 1,
    "TRANSFORMER.NUM_HEADS": 1,
    "TRANSFORMER.FFN_RATIO": 1,
    "TRANSFORMER.POSITION_LENGTH": 1,
    "TRANSFORMER.WINDOW": 1,
    "TRANSFORMER.STRIDE": 1,
    "DECODER.SIZE": 1,
    "DECODER.CHANNELS": 1,
    "ENCODER.CHANNELS": 1,
    "ENCODER.DILATIONS": 1,
    "ENCODER.POSITION_SIZE": 1,
    "ATTENTION.LUMA": 0,
    "ATTN_REC": 0,
}
"""The smallest values; of a list that of each of its numbers."""
_ABOVE_ZERO = ("ATTENTION.TEMPERATURE", "ATTENTION.SIGMA", "DECODER.SUBSAMPLE")
_SHARES = (
    "TRANSFORMER.MASK_RATIO",
    "TRANSFORMER.START",
    "TRANSFORMER.WARMUP",
    "DECODER.SUBSAMPLE",
)

T = TypeVar("T")


def check_settings(cfg: CfgNode) -> None:
    """Checks the keys of the model that its parts do not check.

    Raises:
        ConfigError: if a value is out of range or two contradict each other.
    """
    for key, choices in _CHOICES.items():
        value = _read(cfg, key)
        hint = ", ".join(nearest(str(value), choices) or choices)
        _require(value in choices, f"{key} is {value!r}; nearest: {hint}")
    for key, least in _LEAST.items():
        value = _read(cfg, key)
        values = value if isinstance(value, (list, tuple)) else [value]
        _require(all(x >= least for x in values), f"{key} is {value}; set {least} or more")
    for key in _ABOVE_ZERO:
        _require(_read(cfg, key) > 0, f"{key} is {_read(cfg, key)}; it must be above 0")
    for key in _SHARES:
        value = _read(cfg, key)
        _require(0 <= value <= 1, f"{key} is {value}; give a share in [0, 1]")
    node = cfg.MODEL.SLOT_BERT
    _require(
        node.DECODER.SUBSAMPLE == 1 or node.DECODER.NAME == "mlp",
        f"DECODER.SUBSAMPLE is {node.DECODER.SUBSAMPLE}, but only DECODER.NAME mlp decodes a part "
        "of the pixels; set it to 1.0",
    )
    width = node.ATTENTION.SLOT_DIM
    _require(
        node.TIME.PREDICTOR != "transformer" or width % 4 == 0,
        f"ATTENTION.SLOT_DIM is {width}; the four heads of TIME.PREDICTOR need a multiple of 4",
    )
    _require(
        node.TRANSFORMER.STRIDE <= node.TRANSFORMER.WINDOW,
        f"TRANSFORMER.STRIDE is {node.TRANSFORMER.STRIDE}, more than the frames of a window; set "
        f"it to {node.TRANSFORMER.WINDOW} or less",
    )
    _require(
        len(node.ENCODER.POSITION_SIZE) == 2,
        f"ENCODER.POSITION_SIZE is {node.ENCODER.POSITION_SIZE}; give rows and columns",
    )


def _check_lessons(cfg: CfgNode, criterion: SlotCriterion) -> None:
    """Checks that what is trained is also taught."""
    is_on, node = criterion.schedule.is_used, cfg.MODEL.SLOT_BERT
    _require(
        node.TRANSFORMER.ENABLED or not is_on("MASKED_SLOTS"),
        "LOSS.MASKED_SLOTS is the loss of the temporal transformer; set TRANSFORMER.ENABLED",
    )
    teachers = ["MASKED_SLOTS", "ORTHOGONALITY", "FRAME_CONTRAST"]
    if not node.DETACH_DECODER:
        teachers += ["RECONSTRUCTION", "FEATURES", "DISTILLATION"]
    _require(
        not node.TRANSFORMER.ENABLED or any(map(is_on, teachers)),
        "TRANSFORMER.ENABLED, but no loss teaches the temporal transformer; set LOSS.MASKED_SLOTS"
        + " (with DETACH_DECODER, what is drawn does not)" * node.DETACH_DECODER,
    )


def build_parts(cfg: CfgNode) -> dict[str, Any]:
    """Gives the arguments of ``SlotBERT``.

    Raises:
        ConfigError: if values are out of range or contradict each other.
    """
    check_settings(cfg)
    node = cfg.MODEL.SLOT_BERT
    attention, time, transformer = node.ATTENTION, node.TIME, node.TRANSFORMER
    criterion = SlotCriterion.from_config(cfg)
    _check_lessons(cfg, criterion)
    backbone = build_encoder(cfg, with_targets=criterion.uses_features)
    num_features = backbone.target_channels if criterion.draws_features else 0
    dim, slot_dim = backbone.out_channels, attention.SLOT_DIM
    position = build_position(node.ENCODER.POSITION, dim, node.ENCODER.POSITION_SIZE)
    initial_slots = InitialSlots(
        attention.NUM_SLOTS,
        slot_dim,
        init=attention.INIT,
        sigma=attention.SIGMA,
        shared_noise=attention.SHARED_NOISE,
        eval_seed=attention.EVAL_SEED,
    )
    return {
        "perception": SlotPerception(
            backbone,
            TokenHead(dim, position),
            _made("ATTENTION", lambda: _build_attention(node, dim)),
            initial_slots,
            build_predictor(time.PREDICTOR, slot_dim),
            recurrent=time.MODE == "recurrent",
            iters_next=time.ITERS_NEXT,
            eval_iters=attention.EVAL_ITERS or None,
            link=time.LINK,
            luma=attention.LUMA,
        ),
        "transformer": _made("TRANSFORMER", lambda: _build_transformer(node)),
        "decoder": _made("DECODER", lambda: _build_decoder(node, num_features)),
        "criterion": criterion,
        "use_transformer": transformer.ENABLED,
        "mask_ratio": transformer.MASK_RATIO,
        "mask_unit": transformer.MASK_UNIT,
        "staging": Staging(transformer.START, transformer.WARMUP),
        "mask_source": node.MASK_SOURCE,
        "subsample": node.DECODER.SUBSAMPLE,
        "input_size": tuple(cfg.INPUT.SLOT_BERT.SIZE),
        "max_num": cfg.MODEL.MASK_FORMER.TEST.MAX_NUM,
    }


def build_encoder(cfg: CfgNode, *, with_targets: bool = False) -> Any:
    """Builds the encoder of ``MODEL.SLOT_BERT.ENCODER``; see ``SlotPerception`` for what it offers.

    Args:
        cfg: the whole config.
        with_targets: whether it also has to give frozen features, by ``targets``.

    Raises:
        ConfigError: if it cannot be built.
    """
    if cfg.MODEL.SLOT_BERT.ENCODER.NAME == FROZEN:
        return build_features(cfg)
    encoder = _made("ENCODER", lambda: build_conv_encoder(cfg.MODEL.SLOT_BERT.ENCODER))
    return ConvWithTargets(encoder, build_features(cfg)) if with_targets else encoder


def _build_attention(node: CfgNode, dim: int) -> SlotAttention:
    return SlotAttention(
        dim,
        node.ATTENTION.SLOT_DIM,
        iters=node.ATTENTION.ITERS,
        heads=node.ATTENTION.HEADS,
        mlp_ratio=node.ATTENTION.MLP_RATIO,
        temperature=node.ATTENTION.TEMPERATURE,
        implicit=node.ATTENTION.IMPLICIT,
        position=node.ATTENTION.POSITION_TERM,
        colour=node.ATTENTION.COLOR_TERM,
    )


def _build_decoder(node: CfgNode, num_features: int) -> nn.Module:
    return build_decoder(
        node.DECODER.NAME,
        node.ATTENTION.SLOT_DIM,
        size=node.DECODER.SIZE,
        channels=node.DECODER.CHANNELS,
        out_channels=3 + num_features,
    )


def _build_transformer(node: CfgNode) -> nn.Module:
    return TemporalSlotTransformer(
        node.ATTENTION.SLOT_DIM,
        num_layers=node.TRANSFORMER.NUM_LAYERS,
        num_heads=node.TRANSFORMER.NUM_HEADS,
        ffn_ratio=node.TRANSFORMER.FFN_RATIO,
        axis=node.TRANSFORMER.AXIS,
        position=node.TRANSFORMER.POSITION,
        position_length=node.TRANSFORMER.POSITION_LENGTH,
        num_identities=node.ATTENTION.NUM_SLOTS if node.TRANSFORMER.SLOT_IDENTITY else 0,
        fill=node.TRANSFORMER.FILL,
        window=node.TRANSFORMER.WINDOW,
        stride=node.TRANSFORMER.STRIDE,
    )


def _made(key: str, make: Callable[[], T]) -> T:
    """Builds a part; what it refuses is told with the key of its settings."""
    try:
        return make()
    except ValueError as error:
        raise ConfigError(f"{_KEY}.{key}: {error}") from error


def _read(cfg: CfgNode, key: str) -> Any:
    value: Any = cfg.MODEL.SLOT_BERT
    for name in key.split("."):
        value = value[name]
    return value


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ConfigError(f"{_KEY}.{message}")
