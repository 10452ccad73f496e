"""Whether the data sets of a config fit its model, before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidseg.errors import DataError

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["check_feature_dim"]


def check_feature_dim(cfg: CfgNode, name: str) -> None:
    """Checks that the features of a data set are as wide as the model takes them.

    The model says where its width stands by ``feature_dim_key``, a config key; one that does not
    say so is not checked. The value 0 stands for the width of the last training set.

    Raises:
        DataError: if they are not; names the data set, both widths and the key.
    """
    from vidseg.data import DatasetCatalog
    from vidseg.modeling import META_ARCH_REGISTRY

    dim = DatasetCatalog.metadata(name).feature_dim
    if not dim:
        return
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    key = getattr(architecture, "feature_dim_key", "")
    if not key:
        return
    wanted, way_out = cfg.lookup(key), f"set {key} to {dim}"
    if not wanted and cfg.DATASETS.TRAIN:
        trained = cfg.DATASETS.TRAIN[-1]
        wanted = DatasetCatalog.metadata(trained).feature_dim
        way_out = f"as many as {trained} has, on which it is trained"
    if wanted != dim:
        raise DataError(
            f"{name} has {dim} features per frame, but the model takes {wanted}; {way_out}"
        )
