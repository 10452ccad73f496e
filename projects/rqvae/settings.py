"""From the config to the arguments of the model, with errors that name keys."""

from __future__ import annotations

from typing import Any

from vidseg.config import CfgNode
from vidseg.errors import ConfigError, nearest

from .quantizer import GRADIENTS
from .windows import check_windows

__all__ = ["POOLING_TYPES", "quantizer_settings", "settings_of"]

POOLING_TYPES = ("global", "sliding_window")

_KEY = "MODEL.RQVAE"
_POSITIVE = (
    "INPUT_DIM",
    "LATENT_DIM",
    "NHEAD",
    "MAX_SEQ_LEN",
    "POOLING_HIDDEN_DIM",
    "HEADS",
    "CODEBOOK_SIZE",
    "NUM_CODEBOOKS",
    "OVERLAP_ADD_DIM",
    "KMEANS_ITERS",
    "MIN_VALID_FRAMES",
)
_NOT_NEGATIVE = (
    "CODE_DIM",
    "DIM_FEEDFORWARD",
    "NUM_ENCODER_LAYERS",
    "ENCODER_CONTEXT",
    "DECODER_CONTEXT",
    "KMEANS_MIN_VECTORS",
    "REVIVE_EVERY",
    "REVIVE_THRESHOLD",
    "COMMITMENT_COST",
    "LOSS_COSINE",
    "LOSS_DELTA",
)
_SHARES = ("DROPOUT", "WARMUP_FRACTION", "QUANTIZER_DROPOUT")
_OF_WINDOWS = ("WINDOW_PROJECTION", "POSITION_BIAS", "LOCAL_MEMORY", "OVERLAP_ADD")


def settings_of(cfg: CfgNode) -> dict[str, Any]:
    """Gives the arguments of ``DocumentRQVAE``.

    Args:
        cfg: reads ``MODEL.RQVAE``.

    Raises:
        ConfigError: if values are out of range or contradict each other.
    """
    node = cfg.MODEL.RQVAE
    _check(node)
    return {
        "input_dim": node.INPUT_DIM,
        "latent_dim": node.LATENT_DIM,
        "codebook_size": node.CODEBOOK_SIZE,
        "num_codebooks": node.NUM_CODEBOOKS,
        "window_size": node.WINDOW_SIZE,
        "window_stride": node.WINDOW_STRIDE,
        "max_seq_len": node.MAX_SEQ_LEN,
        "num_encoder_layers": node.NUM_ENCODER_LAYERS,
        "num_decoder_layers": node.NUM_DECODER_LAYERS,
        "nhead": node.NHEAD,
        "dropout": node.DROPOUT,
        "commitment_cost": node.COMMITMENT_COST,
        "decay": node.DECAY,
        "pooling_type": node.POOLING_TYPE,
        "code_dim": node.CODE_DIM,
        "window_mode": node.WINDOW_MODE,
        "allow_gaps": node.ALLOW_GAPS,
        "min_valid_frames": node.MIN_VALID_FRAMES,
        "pooling_hidden_dim": node.POOLING_HIDDEN_DIM,
        "heads": node.HEADS,
        "position_bias": node.POSITION_BIAS,
        "window_projection": node.WINDOW_PROJECTION,
        "dim_feedforward": node.DIM_FEEDFORWARD,
        "encoder_context": node.ENCODER_CONTEXT,
        "decoder_context": node.DECODER_CONTEXT,
        "memory_positions": node.MEMORY_POSITIONS,
        "local_memory": node.LOCAL_MEMORY,
        "overlap_add": node.OVERLAP_ADD,
        "overlap_add_dim": node.OVERLAP_ADD_DIM,
        "loss_cosine": node.LOSS_COSINE,
        "loss_delta": node.LOSS_DELTA,
        "warmup_fraction": node.WARMUP_FRACTION,
        "kmeans_min_vectors": node.KMEANS_MIN_VECTORS,
        "quantizer": quantizer_settings(cfg),
        "bag_levels": node.RETRIEVAL.BAG_LEVELS,
    }


def quantizer_settings(cfg: CfgNode) -> dict[str, Any]:
    """Gives the keyword arguments of ``ResidualVectorQuantizerEMA``."""
    node = cfg.MODEL.RQVAE
    return {
        "kmeans_init": node.KMEANS_INIT,
        "kmeans_iters": node.KMEANS_ITERS,
        "revive_every": node.REVIVE_EVERY,
        "revive_threshold": node.REVIVE_THRESHOLD,
        "gradient": node.GRADIENT,
        "dropout": node.QUANTIZER_DROPOUT,
    }


def _check(node: CfgNode) -> None:
    for name in _POSITIVE:
        _require(node[name] >= 1, f"{name} is {node[name]}; it must be 1 or more")
    for name in _NOT_NEGATIVE:
        _require(node[name] >= 0, f"{name} is {node[name]}; it cannot be negative")
    for name in _SHARES:
        _require(0 <= node[name] <= 1, f"{name} is {node[name]}; it must lie within 0 to 1")
    _require(0 <= node.DECAY < 1, f"DECAY is {node.DECAY}; it must be 0 or more and below 1")
    for name, choices in (("POOLING_TYPE", POOLING_TYPES), ("GRADIENT", GRADIENTS)):
        hint = ", ".join(nearest(node[name], choices) or choices)
        _require(node[name] in choices, f"{name} is {node[name]!r}; nearest: {hint}")
    _require(node.CODEBOOK_SIZE >= 2, "CODEBOOK_SIZE is 1; one entry can tell nothing apart")
    width, heads, layers = node.LATENT_DIM, node.NHEAD, node.NUM_DECODER_LAYERS
    _require(width % heads == 0, f"NHEAD is {heads} and LATENT_DIM {width}; set NHEAD to a divisor")
    _require(width % 2 == 0, f"LATENT_DIM is {width}; positions need an even width")
    _require(
        layers >= 2 and layers % 2 == 0,
        f"NUM_DECODER_LAYERS is {layers}; every block counts as two, so it must be even",
    )
    try:
        check_windows(
            node.WINDOW_SIZE, node.WINDOW_STRIDE, node.WINDOW_MODE, allow_gaps=node.ALLOW_GAPS
        )
    except ValueError as error:
        raise ConfigError(f"{_KEY}.WINDOW_*, ALLOW_GAPS: {error}") from error
    if node.POOLING_TYPE == "global":
        on = [name for name in _OF_WINDOWS if node[name]]
        _require(not on, f"{', '.join(on)} cannot be on with POOLING_TYPE global, without windows")
    else:
        least = node.MIN_VALID_FRAMES
        _require(
            least <= node.WINDOW_SIZE,
            f"MIN_VALID_FRAMES is {least}, more than WINDOW_SIZE {node.WINDOW_SIZE}",
        )


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ConfigError(f"{_KEY}.{message}")
