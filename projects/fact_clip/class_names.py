"""What the classes of a model are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidseg.data import DatasetCatalog
from vidseg.errors import DataError

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["class_names"]


def class_names(cfg: CfgNode, name: str) -> list[str]:
    """Gives the names of the classes, by number, for predictions on a data set.

    Args:
        cfg: whose last training set tells the names if the data set has no labels of its own.
        name: of the data set.

    Returns:
        The names; empty if the training set is not on this machine.

    Raises:
        DataError: if the data set cannot be read.
    """
    names = DatasetCatalog.metadata(name).classes
    if names or not cfg.DATASETS.TRAIN:
        return list(names)
    try:
        return list(DatasetCatalog.metadata(cfg.DATASETS.TRAIN[-1]).classes)
    except DataError:
        return []
