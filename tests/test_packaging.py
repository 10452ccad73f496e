"""What is installed is what is here; the package imports under one name from anywhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vidseg

CHECKOUT = Path(__file__).resolve().parents[1]


def packages_here() -> set[str]:
    found = {
        ".".join(init.parent.relative_to(CHECKOUT).parts)
        for init in (CHECKOUT / "vidseg").rglob("__init__.py")
    }
    inits = (CHECKOUT / "projects").rglob("__init__.py")
    return found | {"vidseg." + ".".join(init.parent.relative_to(CHECKOUT).parts) for init in inits}


def test_every_package_is_declared() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(tool["packages"]) == packages_here(), "list it in [tool.setuptools] packages"
    folders = {name: path for name, path in tool["package-dir"].items() if name != "vidseg"}
    projects = [folder.parent for folder in (CHECKOUT / "projects").glob("*/__init__.py")]
    assert folders == {f"vidseg.projects.{p.name}": f"projects/{p.name}" for p in projects}


def test_lazy_names() -> None:
    assert "VideoPredictor" in dir(vidseg)
    assert vidseg.config.get_cfg().VERSION == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vidseg.nothing


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, vidseg; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.slow
def test_wheel_holds_projects_their_configs_and_the_page(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    copy = tmp_path / "source"
    git = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--", "vidseg", "projects"]
    listed = subprocess.run(git, capture_output=True, check=True).stdout.decode().split("\0")
    for name in [*filter(None, listed), "pyproject.toml", "LICENSE", "README.md"]:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).exists():
            target.write_bytes((CHECKOUT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(copy)], check=True, timeout=300)
    wheel = next(tmp_path.glob("*.whl"))
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from vidseg.config import load_config\n"
        "cfg = load_config('projects/dvis_daq/offline.yaml')\n"
        "cfg = load_config('projects/dvis_daq/configs/ovis/r50/offline.yaml')\n"
        "assert cfg.DATASETS.TEST == ('ovis_val',)\n"
        "import vidseg.projects.dvis_daq as project\n"
        f"assert project.__file__.startswith({str(installed)!r})\n"
        "from vidseg.evaluation.html_report.page import render\n"
        "assert '<title>Nothing</title>' in render({'title': 'Nothing'})\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env={}, check=True)
