"""Weights for a backbone alone, renamed by table.

Files of torchvision, timm and detectron2, of Swin's authors and of DINOv2.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vidseg.checkpoint.naming import from_caffe2
from vidseg.checkpoint.upstream import read_state_dict
from vidseg.errors import DataError

__all__ = [
    "fill_backbone",
    "from_dinov2",
    "from_swin",
    "from_torchvision_resnet",
    "load_backbone_weights",
    "match_names",
]

logger = logging.getLogger(__name__)

_PREFIXES = ("backbone.", "module.", "model.", "body.")
_MAX_SHOWN = 3
# Counters and constants, which are as they should be without a file.
_FIXED = ("num_batches_tracked", "relative_position_index")
_TIMM_STAGE = re.compile(r"\blayers_(\d+)\.")
_MERGE = re.compile(r"\blayers\.([1-9]\d*)\.downsample\.")
_CHUNK = re.compile(r"\bblocks\.\d+\.(\d+)\.")


def load_backbone_weights(
    backbone: nn.Module,
    path: str | Path,
    *,
    keys: str = "MODEL.BACKBONE.NAME and the widths",
) -> list[str]:
    """Loads every weight of a backbone from a file; heads in the file are left out.

    How images are normalised goes with the weights and stays with the config
    (``MODEL.PIXEL_MEAN``, ``MODEL.PIXEL_STD``, ``INPUT.FORMAT``).

    Args:
        backbone: changed in place; may offer ``unpublished`` and ``fit_pretrained`` (see
            ``Backbone``).
        path: ``.pth``, ``.pt``, ``.safetensors`` or a detectron2 ``.pkl``.
        keys: what to check if the file does not fit, for the message.

    Returns:
        Names in the file that the backbone does not have, e.g. of its classifier.

    Raises:
        DataError: if the file is missing, damaged or unsafe, or lacks weights of this backbone.
    """
    return fill_backbone(backbone, read_state_dict(path), path, keys=keys)


def fill_backbone(
    backbone: nn.Module, state: dict[str, Tensor], where: str | Path, *, keys: str
) -> list[str]:
    """Does what ``load_backbone_weights`` does with weights that were read already.

    Args:
        backbone: changed in place.
        state: what the file holds.
        where: the file, for messages.
        keys: what to check if the weights do not fit, for the message.

    Raises:
        DataError: if weights of this backbone are missing or have another shape.
    """
    target = backbone.state_dict()
    state = match_names(state, target)
    fit = getattr(backbone, "fit_pretrained", None)
    state = state if fit is None else fit(state)
    absent = [n for n in target if n not in state and not n.endswith(_FIXED)]
    spared = [n for n in absent if n.startswith(tuple(getattr(backbone, "unpublished", ())))]
    missing = [n for n in absent if n not in spared]
    wrong = [n for n in state if n in target and state[n].shape != target[n].shape]
    if missing or wrong:
        problem = "lacks" if missing else "has other shapes for"
        names = missing or wrong
        raise DataError(
            f"{where} {problem} {len(names)} of {len(target)} weights of this backbone, such as "
            f"{', '.join(names[:_MAX_SHOWN])}; check {keys}"
        )
    backbone.load_state_dict({n: t for n, t in state.items() if n in target}, strict=False)
    unused = [name for name in state if name not in target]
    logger.info(
        "backbone weights from %s; unused: %s; left as initialised: %s",
        where,
        ", ".join(unused) or "none",
        ", ".join(spared) or "none",
    )
    return unused


def from_torchvision_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet of torchvision (or timm) to detectron2's names; other names stay."""
    return {_resnet_name(name): value for name, value in state.items()}


def from_swin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a Swin of timm to the original names; other names stay.

    The original merges patches at the end of a stage, timm at the start of the next one.
    """
    plain = {_TIMM_STAGE.sub(r"layers.\1.", name): value for name, value in state.items()}
    if any(".layers.0.downsample." in f".{name}" for name in plain):
        return plain
    return {_MERGE.sub(_stage_before, name): value for name, value in plain.items()}


def _stage_before(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) - 1}.downsample."


def from_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the blocks of a DINOv2 file that keeps them in chunks; other names stay."""
    return {_CHUNK.sub(r"blocks.\1.", name): value for name, value in state.items()}


def _resnet_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        parts.insert(0, "stem")
    elif parts[0].startswith("layer") and parts[0][5:].isdigit():
        parts[0] = f"res{int(parts[0][5:]) + 1}"
    else:
        return name
    renamed = ".".join(parts)
    for number in "123":
        renamed = renamed.replace(f".bn{number}.", f".conv{number}.norm.")
    return renamed.replace(".downsample.0.", ".shortcut.").replace(
        ".downsample.1.", ".shortcut.norm."
    )


def match_names(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the file's weights to the backbone's names, whichever convention fits most."""
    candidates = [
        dict(state),
        from_torchvision_resnet(state),
        from_caffe2(state),
        from_swin(state),
        from_dinov2(state),
        _by_spelling(state, target),
    ]
    candidates += [
        {name.removeprefix(prefix): value for name, value in candidate.items()}
        for candidate in candidates
        for prefix in _PREFIXES
    ]
    return max(candidates, key=lambda candidate: len(candidate.keys() & target.keys()))


def _by_spelling(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames where only prefixes and separators differ: wrappers that cut out features do so."""
    names = {_spelling(name): name for name in target}
    return {names.get(_spelling(name), name): value for name, value in state.items()}


def _spelling(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name.replace("_", ".")
