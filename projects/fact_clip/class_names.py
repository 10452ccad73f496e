"""What the classes of a model are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidseg.data import DatasetCatalog
from vidseg.errors import DataError

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

__all__ = ["class_names"]


def class_names(cfg: CfgNode, metadata: Metadata) -> list[str]:
    """Gives the names of the classes, by number, for predictions on a data set.

    Args:
        cfg: whose last training set tells the names if the data set has no labels of its own.
        metadata: of the data set.

    Returns:
        The names; empty if the training set is not on this machine.

    Raises:
        DataError: if the data set numbers as many classes as the training set in another way.
    """
    if not cfg.DATASETS.TRAIN:
        return list(metadata.classes)
    try:
        trained = list(DatasetCatalog.metadata(cfg.DATASETS.TRAIN[-1]).classes)
    except DataError:
        return list(metadata.classes)
    if metadata.classes and len(metadata.classes) == len(trained):
        for number, (own, other) in enumerate(zip(metadata.classes, trained, strict=True)):
            if own != other:
                raise DataError(
                    f"{metadata.name}: class {number} is {own!r}, but {other!r} in the training "
                    f"set {cfg.DATASETS.TRAIN[-1]}; give both the same mapping"
                )
    return list(metadata.classes) or trained
