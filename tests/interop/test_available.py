"""Whether detectron2 is there is told without importing it, and how to get it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from vidseg.interop import detectron2
from vidseg.interop.detectron2.available import available, require


@pytest.fixture
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_absent")
def test_absent_it_says_how_to_get_it() -> None:
    assert not available()
    with pytest.raises(ImportError, match=r"detectron2 is not installed; install vidseg\[detec"):
        require("structures")


@pytest.mark.usefixtures("_absent")
def test_what_it_needs_itself_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("")
    (tmp_path / "detectron2" / "layers.py").write_text("from detectron2 import _C")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "detectron2")
    try:
        assert available()
        assert "detectron2" not in sys.modules  # looked for, not imported
        with pytest.raises(ImportError, match=r"is there, but cannot be imported: .*'_C'"):
            require("layers")
    finally:
        for name in ("detectron2", "detectron2.layers"):
            sys.modules.pop(name, None)


def test_what_stands_for_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", types.ModuleType("detectron2"))
    assert available()


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="nothing to import")
def test_the_bridge_imports_nothing_of_it() -> None:
    folder = Path(detectron2.__file__).parent
    modules = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    code = "; ".join(f"import vidseg.interop.detectron2.{name}" for name in modules)
    check = "import sys; assert not [n for n in sys.modules if n.startswith('detectron2')]"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True)
