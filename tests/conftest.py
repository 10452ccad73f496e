"""One thread, one seed, private caches; whatever a test changes globally is put back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before numpy and torch load their thread pools.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest

from vidseg import plugins
from vidseg.config import CfgNode, load_config
from vidseg.engine.curves import save_curves
from vidseg.files import write_atomically

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _private_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Generated data sets are made once per session unless the caller keeps a cache.
        if "VIDSEG_CACHE" not in os.environ:
            patch.setenv("VIDSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("VIDSEG_DATASETS", "DETECTRON2_DATASETS", "VIDSEG_PLUGINS"):
            patch.delenv(name, raising=False)
        for name in ("HF_HUB_OFFLINE", "WANDB_MODE"):
            patch.setenv(name, "offline" if name == "WANDB_MODE" else "1")
        # Nothing here has to survive a power cut.
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr("vidseg.engine.history.save_curves", _stand_in_for_curves)
        path = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(CHECKOUT), path])))
        yield


def _stand_in_for_curves(path: Path, *_: object) -> None:
    write_atomically(path, lambda file: file.write(b"drawn where a test asks for drawn_curves"))


@pytest.fixture
def drawn_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws the curves of runs, which takes longer than a run of the toy model."""
    monkeypatch.setattr("vidseg.engine.history.save_curves", save_curves)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties may draw from it
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(False)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def fresh_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets afterwards which plugins a test named."""
    monkeypatch.setattr(plugins, "_named", dict(plugins._named))
    monkeypatch.setattr(plugins, "_started", set(plugins._started))


@pytest.fixture
def tiny_cfg() -> Callable[..., CfgNode]:
    """Gives a project's config at a width at which a test is quick: ``tiny_cfg("dvis_daq")``."""

    def make(project: str, stage: str = "offline", *overrides: object) -> CfgNode:
        file = CHECKOUT / "projects" / project / f"{stage}.yaml"
        small = ("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 3)
        device = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0)
        return load_config(file, [*small, *device, *overrides])

    return make
