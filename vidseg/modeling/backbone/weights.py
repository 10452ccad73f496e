"""Weights for a backbone alone: files of torchvision, timm and detectron2, renamed by table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vidseg.checkpoint.upstream import read_state_dict
from vidseg.errors import DataError

__all__ = ["from_torchvision_resnet", "load_backbone_weights"]

logger = logging.getLogger(__name__)

_PREFIXES = ("backbone.", "module.", "model.", "body.")
_MAX_SHOWN = 3


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> list[str]:
    """Loads every weight of a backbone from a file; heads in the file are left out.

    How images are normalised goes with the weights and stays with the config
    (``MODEL.PIXEL_MEAN``, ``MODEL.PIXEL_STD``, ``INPUT.FORMAT``).

    Args:
        backbone: changed in place.
        path: ``.pth``, ``.pt``, ``.safetensors`` or a detectron2 ``.pkl``.

    Returns:
        Names in the file that the backbone does not have, e.g. of its classifier.

    Raises:
        DataError: if the file is missing, damaged or unsafe, or lacks weights of this backbone.
    """
    target = backbone.state_dict()
    state = _matched(read_state_dict(path), target)
    missing = [n for n in target if n not in state and not n.endswith("num_batches_tracked")]
    wrong = [n for n in state if n in target and state[n].shape != target[n].shape]
    if missing or wrong:
        problem = "lacks" if missing else "has other shapes for"
        names = missing or wrong
        raise DataError(
            f"{path} {problem} {len(names)} of {len(target)} weights of this backbone, such as "
            f"{', '.join(names[:_MAX_SHOWN])}; check MODEL.BACKBONE.NAME and the widths"
        )
    backbone.load_state_dict({n: t for n, t in state.items() if n in target}, strict=False)
    unused = [name for name in state if name not in target]
    logger.info("backbone weights from %s; unused: %s", path, ", ".join(unused) or "none")
    return unused


def from_torchvision_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet of torchvision (or timm) to detectron2's names; other names stay."""
    return {_resnet_name(name): value for name, value in state.items()}


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


def _matched(state: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the file's weights to the backbone's names, whichever convention fits most."""
    candidates = [state, from_torchvision_resnet(state), _by_spelling(state, target)]
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
