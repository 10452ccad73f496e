"""Whether the data sets of a config fit its model, before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vidseg.config import CfgNode

__all__ = ["check_feature_dim", "check_test_folders", "check_test_sets"]


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


def check_test_sets(cfg: CfgNode) -> None:
    """Checks that a trained model fits DATASETS.TEST, and where their results go.

    Raises:
        DataError: if classes or features of one do not fit.
        ConfigError: see ``check_test_folders``.
    """
    from vidseg.data import check_num_classes

    check_test_folders(cfg)
    for name in cfg.DATASETS.TEST:
        check_num_classes(cfg, name)
        check_feature_dim(cfg, name)


def check_test_folders(cfg: CfgNode) -> None:
    """Checks that each of DATASETS.TEST has a folder of its own for its results.

    Raises:
        ConfigError: if two have the same, which the second would overwrite; names both.
    """
    from .evaluate import inference_dir

    taken: dict[str, str] = {}
    for name in cfg.DATASETS.TEST:
        folder = inference_dir("", name).name
        other = taken.setdefault(folder, name)
        if other != name:
            raise ConfigError(
                f"DATASETS.TEST: the results of {other} and {name} would both lie in "
                f"inference/{folder}; rename a file or its folder, or test one at a time"
            )
