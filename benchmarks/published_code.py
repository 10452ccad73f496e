"""Runs the published DVIS-DAQ on a CPU, as it lies in a checkout beside ours.

The published code asks for detectron2, for compiled deformable attention and for a GPU. detectron2
is imported from its source; the packages that it and the published code import, but do not need for
inference, are replaced by empty ones where they are not installed; deformable attention is the pure
PyTorch that the published code carries for tests; tensors that are sent to the GPU stay where they
are. Nothing of what is computed is changed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from .case import Checkout

__all__ = ["CHECKOUTS", "build_published"]

CHECKOUTS = (
    Checkout(
        "DVIS_Plus",
        "https://github.com/zhang-tao-whu/DVIS_Plus",
        "DVIS_DAQ/dvis_daq/meta_architecture.py",
    ),
    Checkout(
        "detectron2", "https://github.com/facebookresearch/detectron2", "detectron2/__init__.py"
    ),
)

# Read at import, not needed for inference.
_DISPENSABLE = frozenset(
    {
        "MultiScaleDeformableAttention",
        "cloudpickle",
        "cv2",
        "hydra",
        "omegaconf",
        "panopticapi",
        "pkg_resources",
        "termcolor",
    }
)


def build_published(config: Path, overrides: dict[str, Any]) -> Any:
    """Builds a published model in evaluation mode, with random weights.

    Args:
        config: yaml file in the published keys.
        overrides: key to value.
    """
    _make_importable()
    warnings.filterwarnings("ignore")
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config
    from dvis_daq import add_daq_config
    from dvis_Plus import add_ctvis_config, add_dvis_config, add_minvis_config
    from mask2former import add_maskformer2_config
    from mask2former.modeling.pixel_decoder.ops.functions import ms_deform_attn_func
    from mask2former.modeling.pixel_decoder.ops.modules import ms_deform_attn
    from mask2former_video import add_maskformer2_video_config

    ms_deform_attn.MSDeformAttnFunction = _plain_sampling(
        ms_deform_attn_func.ms_deform_attn_core_pytorch
    )
    _keep_tensors_here()
    cfg = get_cfg()
    for add in (
        add_deeplab_config,
        add_maskformer2_config,
        add_maskformer2_video_config,
        add_minvis_config,
        add_dvis_config,
        add_ctvis_config,
        add_daq_config,
    ):
        add(cfg)
    cfg.merge_from_file(str(config))
    cfg.merge_from_list([word for pair in overrides.items() for word in pair])
    return build_model(cfg).eval()


def _make_importable() -> None:
    folders = (CHECKOUTS[0].path / "DVIS_DAQ", CHECKOUTS[1].path)
    sys.path[:0] = [str(folder) for folder in folders]
    sys.meta_path.append(
        _EmptyPackages(name for name in _DISPENSABLE if importlib.util.find_spec(name) is None)
    )
    import detectron2

    detectron2._C = sys.modules["detectron2._C"] = _EmptyModule("detectron2._C")


def _plain_sampling(core: Any) -> type:
    class PlainSampling:
        @staticmethod
        def apply(value: Any, sizes: Any, _start: Any, places: Any, weights: Any, _: Any) -> Any:
            return core(value, sizes, places, weights)

    return PlainSampling


def _keep_tensors_here() -> None:
    import torch

    move: Any = torch.Tensor.to

    def to(tensor: Any, *args: Any, **options: Any) -> Any:
        return move(tensor, *("cpu" if arg == "cuda" else arg for arg in args), **options)

    torch.Tensor.to = to  # type: ignore[assignment,method-assign]


class _EmptyPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packages of the given names, with anything in them and nothing behind it."""

    def __init__(self, names: Any) -> None:
        self.names = frozenset(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] not in self.names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _EmptyModule(types.ModuleType):
    __version__ = "4.5.0"  # somebody compares that of OpenCV

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _NothingType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _Nothing(metaclass=_NothingType):
    """Can be called, inherited from and asked for anything."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing
