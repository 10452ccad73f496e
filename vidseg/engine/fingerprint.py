"""What the predictions for a data set depend on, in few bytes.

Predictions that were made under one fingerprint may be mixed; under two they may not.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import vidseg
from vidseg.evaluation.base import evaluator_names

from .run_dir import flat_config

if TYPE_CHECKING:
    from vidseg.config import CfgNode
    from vidseg.data import Metadata

__all__ = ["take_fingerprint", "weights_digest"]

# Keys, or beginnings of keys, that no prediction depends on: training, places of files (what the
# files hold counts instead).
_WITHOUT_SAY = (
    "CUDNN_BENCHMARK",
    "DATALOADER.",
    "DATASETS.",
    "MODEL.BACKBONE.WEIGHTS",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER.",
    "TEST.",
    "WRITERS",
)
_WITH_SAY = ("SOLVER.AMP.",)
# Ends of keys, projects' ones too, that bound memory without changing a result: who runs out of it
# goes on with another value.
_BOUNDS = (".TEST.WINDOW_SIZE", ".MEMORY_MB")


def take_fingerprint(cfg: CfgNode, model: nn.Module, dataset_name: str) -> dict[str, Any]:
    """Collects what predictions depend on: weights, config, data set, device and versions.

    The pixels of the frames are not looked at; of feature files, path, size and time of the last
    change count instead of their bytes.

    Args:
        cfg: of the run.
        model: with the weights to evaluate.
        dataset_name: of the catalog, or a path.

    Returns:
        Values as plain json by a name for messages: a config key, or some words.
    """
    from vidseg.data import DatasetCatalog
    from vidseg.data.loader import test_mapper_kind

    metadata = DatasetCatalog.metadata(dataset_name)
    config = {
        key: value
        for key, value in flat_config(cfg).items()
        if key.startswith(_WITH_SAY) or not (key.startswith(_WITHOUT_SAY) or key.endswith(_BOUNDS))
    }
    return {
        "the weights": weights_digest(model),
        "the data set": _dataset_digest(dataset_name, metadata),
        "the folder of the frames": metadata.image_root,
        "the evaluator": [evaluator_names(cfg, metadata), list(metadata.category_ids)],
        "the mapper": test_mapper_kind(cfg, dataset_name),
        "the kind of device": next(model.parameters()).device.type,
        "the code": _code_digest(model),
        "the version of torch": torch.__version__,
        **config,
    }


def weights_digest(model: nn.Module) -> str:
    """Hashes names, types, shapes and bytes of everything in a model's state (SHA-256)."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            digest.update(f"{name} {value!r};".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        content = value.detach().cpu().contiguous().reshape(-1)
        digest.update(content.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _code_digest(model: nn.Module) -> str:
    """Hashes the sources of vidseg, and of the folders that the parts of the model come from."""
    files = set(Path(vidseg.__file__).parent.rglob("*.py"))
    for kind in {type(module) for module in model.modules()}:
        if kind.__module__.split(".")[0] == "torch":  # its version counts instead
            continue
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if file:
            files.update(Path(file).parent.glob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _dataset_digest(name: str, metadata: Metadata) -> str:
    from vidseg.data import DatasetCatalog

    digest = hashlib.sha256()
    json_file = metadata.json_file
    # The records of documents hold what files beside the index say, such as labels.
    if json_file and Path(json_file).is_file() and not metadata.feature_dim:
        with open(json_file, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    for record in DatasetCatalog.read(name):
        digest.update(json.dumps(record, default=str, sort_keys=True).encode())
        if metadata.feature_dim:
            digest.update(str([_file_state(path) for path in record["file_names"]]).encode())
    return digest.hexdigest()


def _file_state(path: str) -> tuple[int, int]:
    """Gives size and time of the last change, zeros if there is no such file."""
    try:
        state = os.stat(path)
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns
