"""The whole YouTube-VIS evaluation, from json files to metrics, against the official evaluator."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
import io
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from .case import Case, Checkout, Run

__all__ = ["CASES", "load_official"]

_OFFICIAL = Checkout(
    folder="cocoapi",
    url="https://github.com/youtubevos/cocoapi",
    holds="PythonAPI/pycocotools/ytvoseval.py",
)


@functools.cache
def _files(**sizes: Any) -> tuple[str, str]:
    """Writes the two files, once for both sides, into a folder that goes with the process."""
    from .ytvis_data import make_data

    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    paths = [Path(folder.name) / name for name in ("gt.json", "results.json")]
    for path, content in zip(paths, make_data(**sizes), strict=True):
        path.write_text(json.dumps(content))
    return str(paths[0]), str(paths[1])


def load_official(root: Path) -> tuple[Any, Any]:
    """Loads the classes ``YTVOS`` and ``YTVOSeval`` of a checkout.

    They run on the masks of the installed pycocotools. Two things that NumPy no longer has are
    mended (``np.float``, and a float as the number of values of ``linspace``), and matplotlib,
    which only drawing needs, is not imported.
    """
    package = ModuleType("official_ytvis")
    package.__path__ = []
    sys.modules[package.__name__] = package
    sys.modules[f"{package.__name__}.mask"] = importlib.import_module("pycocotools.mask")
    modules = []
    for name in ("ytvos", "ytvoseval"):
        path = root / "PythonAPI" / "pycocotools" / f"{name}.py"
        source = path.read_text().replace("dtype=np.float)", "dtype=float)")
        source = source.replace("np.round(", "round(")
        lines = [
            "" if "import" in line and "matplotlib" in line else line for line in source.split("\n")
        ]
        spec = importlib.util.spec_from_loader(f"{package.__name__}.{name}", loader=None)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__package__ = package.__name__
        exec(compile("\n".join(lines), str(path), "exec"), module.__dict__)
        modules.append(module)
    return modules[0].YTVOS, modules[1].YTVOSeval


def _ours(sizes: dict[str, Any]) -> Run:
    from vidseg.evaluation import evaluate_ytvis

    files = _files(**sizes)

    def run() -> object:
        return evaluate_ytvis(*files)

    return run


def _theirs(sizes: dict[str, Any]) -> Run:
    annotations_of, evaluation_of = load_official(_OFFICIAL.path)
    files = _files(**sizes)

    def run() -> object:
        with contextlib.redirect_stdout(io.StringIO()):
            gt = annotations_of(files[0])
            evaluation = evaluation_of(gt, gt.loadRes(files[1]), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    return run


def _case(name: str, bar: float, repeats: int, **sizes: Any) -> Case:
    return Case(
        name=name,
        about="{videos} videos x {frames} frames x {predictions} predictions, {truths} ground "
        "truths, {classes} classes ({same_class:.0%} of displaced ones keep theirs), 360x640: "
        "json files to metrics".format(**sizes),
        peer="YTVOSeval of youtubevos/cocoapi",
        bars={"cpu": bar},
        ours=lambda: _ours(sizes),
        theirs=lambda: _theirs(sizes),
        needs=(_OFFICIAL,),
        repeats=repeats,
    )


_SPARSE = {"videos": 300, "frames": 30, "truths": 3, "predictions": 10, "classes": 40}
_DENSE = {"videos": 80, "frames": 36, "truths": 10, "predictions": 40, "classes": 1}

CASES = (
    _case("ytvis_eval_sparse_random", 4.0, 7, **_SPARSE, same_class=0.0),
    _case("ytvis_eval_sparse_matching", 4.0, 7, **_SPARSE, same_class=0.8),
    _case("ytvis_eval_dense", 6.0, 2, **_DENSE, same_class=1.0),
)
