"""A project that was just started works as it is: in the checkout, and as a package of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidseg.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[2]
KINDS = ("video", "sequence", "image")
TINY = (
    "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 1 DATALOADER.NUM_WORKERS 0 "
    "MODEL.DEVICE cpu"
)


@pytest.fixture(scope="module")
def tool() -> Any:
    file = CHECKOUT / "tools" / "new_project.py"
    spec = importlib.util.spec_from_file_location("new_project", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout that may be written to, with its core and its tools."""
    root = tmp_path / "vidseg"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("vidseg", "tools"):
        shutil.copytree(CHECKOUT / name, root / name, ignore=ignored)
    (root / "projects").mkdir()
    (root / "tests" / "projects").mkdir(parents=True)
    shutil.copy(CHECKOUT / "tests" / "conftest.py", root / "tests")
    shutil.copy(CHECKOUT / "pyproject.toml", root)
    return root


def run(root: Path, *words: object, cwd: Path | None = None, **env: str) -> Any:
    """Runs Python with the checkout ``root``."""
    return execute([sys.executable, *map(str, words)], root, cwd or root, env)


def execute(command: list[str], root: Path, cwd: Path, env: dict[str, str]) -> Any:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def files_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MyIdea", "for example my_idea"),
        ("my-idea", "for example my_idea"),
        ("my__idea_", "for example my_idea"),
        ("3d", "for example project_3d"),
        ("class", "for example project_class"),
        ("dvis_daq", "there is a project dvis_daq already, in "),
        ("mask_former", r"MODEL\.MASK_FORMER is a config key of vidseg"),
        ("ytvis_2019", "there is a data set ytvis_2019_train already"),
        ("json", "there is a Python module json already"),
        ("none", "for example project_none"),
        ("ä", "for example my_idea"),
        ("tensor", "there is a class Tensor already, in .*templates"),
        ("linear_codec", "there is a class LinearCodec already, in .*linear_codec.py"),
    ],
)
def test_names_that_are_taken_or_odd(tool: Any, name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        tool.check_name(name, "sequence", is_package=True)


def test_other_names_are_free(tool: Any) -> None:
    tool.check_name("json", "video", is_package=False)
    tool.check_name("x2_y", "sequence", is_package=True)


def test_the_wheel_gets_the_project(tool: Any) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    text = (CHECKOUT / "pyproject.toml").read_text()
    before = tomllib.loads(text)["tool"]["setuptools"]
    for name in ("a_first", "m_middle", "z_last"):
        text = tool.declare(text, name)
        assert tool.declare(text, name) == text
    after = tomllib.loads(text)["tool"]["setuptools"]
    new = {f"vidseg.projects.{name}" for name in ("a_first", "m_middle", "z_last")}
    assert set(after["packages"]) == {*before["packages"], *new}
    assert after["packages"] == sorted(after["packages"])
    assert after["package-dir"]["vidseg.projects.m_middle"] == "projects/m_middle"
    assert len(after["package-dir"]) == len(before["package-dir"]) + 3
    with pytest.raises(UserError, match="no line 'packages = \\['"):
        tool.declare("[project]\n", "m_middle")


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_of_the_checkout(copy: Path, kind: str) -> None:
    done = run(copy, "tools/new_project.py", "toy_thing", "--kind", kind)
    assert (done.returncode, done.stderr) == (0, "")
    written = files_below(copy / "projects" / "toy_thing")
    written |= files_below(copy / "tests" / "projects" / "toy_thing")
    assert {"__init__.py", "config.py", "toy_thing.yaml", "README.md"} < set(written)
    assert "test_toy_thing.py" in written
    words = re.compile(rb"my.?idea|DEMO_INPUT|<!--", re.IGNORECASE)
    assert not [name for name, content in written.items() if words.search(content)]
    assert '"vidseg.projects.toy_thing" = ' in (copy / "pyproject.toml").read_text()
    code = (
        "import sys; from vidseg.config import load_config\n"
        "cfg = load_config('projects/toy_thing/toy_thing.yaml')\n"
        "assert cfg.OUTPUT_DIR == 'output/toy_thing' and cfg.has('MODEL.TOY_THING')\n"
        "sys.exit('torch' in sys.modules)"
    )
    loaded = run(copy, "-c", code)
    assert loaded.returncode == 0, loaded.stderr
    assert len(commands_in(done.stdout)) == 3
    for command in commands_in(done.stdout)[:2]:
        assert command in written["README.md"].decode()


def test_nothing_is_overwritten(copy: Path) -> None:
    (copy / "tests" / "projects" / "toy_thing").mkdir()
    before = files_below(copy)
    for words in (
        ["toy_thing"],
        ["toy_thing", "--out", "projects"],
        ["toy_thing", "--out", "pyproject.toml"],
        ["vidseg", "--out", "."],
    ):
        done = run(copy, "tools/new_project.py", *words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert files_below(copy) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_of_its_own(copy: Path, tmp_path: Path, kind: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    before = files_below(copy)
    words = ["toy_thing", "--kind", kind, "--out", tmp_path / "my code"]
    done = run(copy, copy / "tools" / "new_project.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_below(copy) == before
    folder = tmp_path / "my code" / "toy_thing"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"vidseg.projects": {"toy_thing": "toy_thing"}}
    assert f"--editable '{folder}'" in done.stdout
    assert str(copy / "tools" / "train_net.py") in done.stdout
    code = "".join(path.read_text() for path in folder.rglob("*.py"))
    assert "vidseg.projects" not in code
    assert "from toy_thing." in code


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["z", "name_with_24_letters_abc"])
def test_code_of_any_name_is_in_order(tool: Any, tmp_path: Path, kind: str, name: str) -> None:
    """As ``ruff check`` wants it: no line is too long, and imports are sorted."""
    tool.write_package(tmp_path / name, name, kind)
    for file in tmp_path.rglob("*.py"):
        lines = file.read_text().splitlines()
        assert max(map(len, lines)) <= 100, file
        imports = [line for line in lines if re.match(rf"from (vidseg|{name})\b", line)]
        assert imports == sorted(imports)


def commands_in(told: str) -> list[str]:
    """Gives what trains, evaluates and shows, of what the tool has printed."""
    block = told.partition("train, evaluate, show:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


def follow(commands: list[str], root: Path, extra: str = "", **env: str) -> None:
    """Gives the commands as they are; trainings of pictures are cut short."""
    python = root.parent / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    env["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    for number, command in enumerate(commands):
        line = command if number else f"{command} {extra}"
        done = execute(["sh", "-c", line], root, root, env)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr


def make_pictures(cache: Path) -> None:
    """Puts small data sets where the embedded ones belong."""
    from vidseg.data import DatasetCatalog
    from vidseg.data.synthetic import generate_split

    version = Path(DatasetCatalog.registered("shapes_vis_easy_val").root).parents[1].name
    for seed, (name, length) in enumerate({"train": 12, "valid": 4, "frames": 1}.items()):
        folder = cache / version / "easy" / name
        generate_split(folder, "easy", seed=seed, num_videos=4, length=length)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_commands_and_the_projects_test(copy: Path, tmp_path: Path, kind: str) -> None:
    env = {"VIDSEG_CACHE": str(tmp_path / "cache")}
    if kind != "sequence":
        make_pictures(tmp_path / "cache")
    told = run(copy, "tools/new_project.py", "toy_thing", "--kind", kind, **env).stdout
    follow(commands_in(told), copy, "" if kind == "sequence" else TINY, **env)
    output = copy / "output" / "toy_thing"
    assert (output / "model_final.pth").is_file()
    if kind == "sequence":
        assert (output / "demo" / "000" / "segments.csv").is_file()
        (metrics,) = (json.loads(p.read_text()) for p in output.glob("inference/*/metrics.json"))
        assert metrics["frames/accuracy"] > 70  # chance is 25
    else:
        assert (output / "demo" / "00002" / "overlay.mp4").is_file()
    checked = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/projects/toy_thing")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_a_package_that_pip_installs(copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    site = tmp_path / "site"
    env = {
        "VIDSEG_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(copy), str(site)]),
    }
    words = ["toy_thing", "--kind", "sequence", "--out", tmp_path / "code"]
    told = run(copy, "tools/new_project.py", *words, **env).stdout
    folder = tmp_path / "code" / "toy_thing"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    installed = run(copy, *pip, "--target", site, folder, **env)
    assert installed.returncode == 0, installed.stderr
    follow(commands_in(told), copy, **env)
    assert (copy / "output" / "toy_thing" / "demo" / "000" / "segments.csv").is_file()
    checked = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests", **env)
    assert checked.returncode == 0, checked.stdout
