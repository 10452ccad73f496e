"""From the config to the settings of the network, with errors that name keys.

Keys that are null in ``Bu`` and ``BU`` take the value of the section last in force, in the order of
the block string.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from vidseg.config import CfgNode
from vidseg.config.values import coerce
from vidseg.errors import ConfigError, nearest

__all__ = ["BlockSettings", "FactSettings", "TimeMasking", "settings_of"]

FRAME_BRANCHES = ("m", "m2")
INPUT_BRANCHES = ("sca", "gru", "gru_om")
UPDATE_BRANCHES = ("sa",)

_SECTIONS = {"i": "Bi", "I": "Bi", "u": "Bu", "U": "BU"}
_POSITIVE = ("hid_dim", "a_nhead", "a_ffdim", "a_layers", "a_dim", "f_layers", "f_dim", "f_ngp")
_NULLS = ("None", "none", "null", "~", "")


@dataclass(frozen=True)
class BlockSettings:
    """One block; fields have the names of the config keys.

    Args:
        kind: the letter of the block string.
        hid_dim: width of the branches' outputs.
        dropout: of both branches and the attention between them.
        a: action branch.
        a_nhead: its attention heads.
        a_ffdim: inner width of its feed-forward networks.
        a_layers: its layers.
        a_dim: width of the tokens in it.
        f: frame branch.
        f_layers: its layers.
        f_ln: layer norm in it.
        f_dim: width inside it.
        f_ngp: groups of its dilated convolutions.
        s_layers: layers of the GRU over segments.
    """

    kind: str
    hid_dim: int
    dropout: float
    a: str
    a_nhead: int
    a_ffdim: int
    a_layers: int
    a_dim: int
    f: str
    f_layers: int
    f_ln: bool
    f_dim: int
    f_ngp: int
    s_layers: int = 1


@dataclass(frozen=True)
class TimeMasking:
    """Spans of frames that training sets to zero; see ``masking.mask_time``."""

    t: int
    p: float
    m: int


@dataclass(frozen=True)
class FactSettings:
    """The network.

    Args:
        blocks: in order.
        ntoken: action tokens; of no meaning with transcripts.
        trans: the transcript is an input.
        fpos: sinusoidal positions of frames.
        cmr: share of the input channels that training drops.
        noise: standard deviation of the noise that training adds to the features.
        mwt: weight of the frame branch in the merged prediction.
        time_masking: None if off.
    """

    blocks: tuple[BlockSettings, ...]
    ntoken: int = 30
    trans: bool = False
    fpos: bool = True
    cmr: float = 0.3
    noise: float = 0.0
    mwt: float = 0.1
    time_masking: TimeMasking | None = None


def settings_of(cfg: CfgNode, token_channels: int, *, kinds: str = "iuU") -> FactSettings:
    """Reads and checks the keys of the network; the config stays as it is.

    Args:
        cfg: reads ``FACT``, ``Bi``, ``Bu``, ``BU`` and ``TM``.
        token_channels: class logits of a token, C + 1 with the null class.
        kinds: letters that a block string may have, that of the input block first.

    Raises:
        ConfigError: if a value is unknown, out of range or contradicts another.
    """
    fact = cfg.FACT
    _require(0 <= fact.cmr < 1, f"FACT.cmr is {fact.cmr}; it must be 0 or more and below 1")
    _require(fact.noise >= 0, f"FACT.noise is {fact.noise}; it cannot be negative")
    _require(0 <= fact.mwt <= 1, f"FACT.mwt is {fact.mwt}; it must lie within 0 to 1")
    _require(fact.trans or fact.ntoken >= 1, f"FACT.ntoken is {fact.ntoken}; it must be 1 or more")
    _check_block_string(fact.block, kinds)
    blocks = _blocks(cfg, fact.block)
    for block in blocks:
        _check_block(block, token_channels, trans=fact.trans)
    _check_widths(blocks)
    return FactSettings(
        blocks=blocks,
        ntoken=fact.ntoken,
        trans=fact.trans,
        fpos=fact.fpos,
        cmr=fact.cmr,
        noise=fact.noise,
        mwt=fact.mwt,
        time_masking=_time_masking(cfg.TM),
    )


def _check_block_string(blocks: str, kinds: str) -> None:
    first, rest = kinds[0], kinds[1:]
    says = f"FACT.block is {blocks!r}; "
    others = [letter for letter in blocks if letter not in kinds]
    known = f"{first} (input), " + ", ".join(rest)
    _require(not others, f"{says}{''.join(others[:1])!r} is none of the blocks {known}")
    _require(blocks[:1] == first, f"{says}it must start with {first}, the input block")
    _require(first not in blocks[1:], f"{says}{first}, the input block, comes first and only once")
    _require(
        len(blocks) > 1,
        f"{says}the prediction needs an update block after {first}, such as {first}{rest[-1]}",
    )


def _blocks(cfg: CfgNode, letters: str) -> tuple[BlockSettings, ...]:
    resolved: dict[str, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for letter in letters:
        section = _SECTIONS[letter]
        if section not in resolved:
            resolved[section] = _resolve(cfg[section], section, last)
        last = resolved[section]
    return tuple(BlockSettings(kind=letter, **resolved[_SECTIONS[letter]]) for letter in letters)


def _resolve(node: CfgNode, section: str, last: dict[str, Any]) -> dict[str, Any]:
    values = {}
    for key in (field.name for field in fields(BlockSettings) if field.name in node):
        value = node[key]
        if value is None or (isinstance(value, str) and value in _NULLS):
            _require(key in last, f"{section}.{key} is null, and no block before it gives a value")
            value = last[key]
        elif key in last:
            # Keys that may be null take any type from the config.
            value = coerce(f"{section}.{key}", value, last[key], "null, or as in Bi")
        values[key] = value
    return values


def _check_block(block: BlockSettings, token_channels: int, *, trans: bool) -> None:
    section = _SECTIONS[block.kind]

    def require(is_met: bool, message: str) -> None:
        _require(is_met, f"{section}.{message}")

    for name in (*_POSITIVE, "s_layers"):
        value = getattr(block, name)
        require(value >= 1, f"{name} is {value}; it must be 1 or more")
    require(0 <= block.dropout < 1, f"dropout is {block.dropout}; it must be 0 or more, below 1")
    is_input = section == "Bi"
    for key, choices in (
        ("f", FRAME_BRANCHES),
        ("a", INPUT_BRANCHES if is_input else UPDATE_BRANCHES),
    ):
        value = getattr(block, key)
        hint = ", ".join(nearest(value, choices) or choices)
        require(value in choices, f"{key} is {value!r}; nearest: {hint}")
    require(
        block.f == "m" or not block.f_ln,
        "f_ln is True and f m2, which has no norm: set f_ln False, or f m",
    )
    require(
        block.hid_dim > token_channels,
        f"hid_dim is {block.hid_dim}; it must exceed the {token_channels} class logits of a token, "
        "which are its last channels",
    )
    require(
        block.hid_dim % 2 == 0,
        f"hid_dim is {block.hid_dim}; both directions of a GRU share it, so it must be even",
    )
    require(
        block.f_dim % block.f_ngp == 0,
        f"f_ngp is {block.f_ngp} and f_dim {block.f_dim}; set f_ngp to a divisor",
    )
    if block.a in ("sca", "sa"):
        require(
            block.a_dim % block.a_nhead == 0,
            f"a_nhead is {block.a_nhead} and a_dim {block.a_dim}; set a_nhead to a divisor",
        )
        return
    require(trans, f"a is {block.a}, which runs over a transcript: set FACT.trans True, or a sca")
    require(block.a_dim % 2 == 0, f"a_dim is {block.a_dim}; a GRU needs an even one")
    require(
        block.a == "gru_om" or block.a_dim == block.hid_dim,
        f"a_dim is {block.a_dim} and hid_dim {block.hid_dim}; a gru needs them equal: set a gru_om",
    )


def _check_widths(blocks: tuple[BlockSettings, ...]) -> None:
    """Checks what blocks hand on: features of one width, and token positions as wide."""
    first = blocks[0]
    for block in blocks[1:]:
        section = _SECTIONS[block.kind]
        _require(
            block.hid_dim == first.hid_dim,
            f"{section}.hid_dim is {block.hid_dim} and Bi.hid_dim {first.hid_dim}; "
            "blocks hand features on, so they must be equal",
        )
        _require(
            block.a_dim == first.a_dim,
            f"{section}.a_dim is {block.a_dim} and Bi.a_dim {first.a_dim}; "
            "blocks share the token positions, so they must be equal",
        )
    _require(
        first.a_dim <= first.hid_dim,
        f"Bi.a_dim is {first.a_dim}, more than Bi.hid_dim {first.hid_dim}; "
        "token positions are added to features of that width",
    )


def _time_masking(node: CfgNode) -> TimeMasking | None:
    if not node.use:
        return None
    _require(node.t >= 1, f"TM.t is {node.t}; it must be 1 or more")
    _require(0 <= node.p <= 1, f"TM.p is {node.p}; it must lie within 0 to 1")
    _require(node.m >= 0, f"TM.m is {node.m}; it cannot be negative")
    return TimeMasking(node.t, node.p, node.m)


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ConfigError(message)
