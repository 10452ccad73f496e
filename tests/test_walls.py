"""A room imports only what stands below it; read off the source, nothing is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROOTS = ("vidseg", "projects", "benchmarks", "tools")

# Floor of each room; the decimals order the rooms of the lowest floor among themselves.
FLOORS = {
    "vidseg": 0.0,  # the version; its lazy names are strings
    "vidseg.errors": 0.0,
    "vidseg.files": 0.1,
    "vidseg.collectives": 0.1,
    "vidseg.assignment": 0.1,
    "vidseg.host_memory": 0.1,
    "vidseg.mask_runs": 0.1,
    "vidseg.rle": 1.0,
    "vidseg.layers": 1.0,
    "vidseg.registry": 1.0,
    "vidseg.projects": 1.0,  # the search path of projects, not the projects
    "vidseg.structures": 1.1,
    "vidseg.plugins": 1.1,
    "vidseg.config": 1.2,
    "vidseg.video": 1.2,  # data sets of video files read them
    "vidseg.solver": 1.3,
    "vidseg.checkpoint": 1.3,
    "vidseg.modeling": 2.0,
    "vidseg.data": 2.0,
    "vidseg.commands": 2.1,  # what those of all projects share
    "vidseg.evaluation": 2.5,  # a project may bring an evaluator
    "vidseg.interop": 2.7,  # shows models, data sets and evaluators to others
    "projects": 3.0,
    "vidseg.engine": 4.0,
    "vidseg.predictor": 4.1,  # computes in the precision of the engine
    "vidseg.sequence_predictor": 4.1,  # likewise
    "vidseg.export": 4.2,  # of what the predictor runs
    "benchmarks": 4.5,  # runs everything beside its peers
    "tools": 5.0,
}


def module_name(file: Path) -> str:
    parts = list(file.relative_to(CHECKOUT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    return f"vidseg.{name}" if parts[0] == "projects" else name


def is_module(name: str) -> bool:
    path = CHECKOUT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def room_of(name: str) -> str:
    parts = name.split(".")
    if parts[:2] == ["vidseg", "projects"]:
        return ".".join(parts[:3])
    if parts[0] == "projects":
        return "vidseg." + ".".join(parts[:2])
    return ".".join(parts[: 1 if parts[0] in ("benchmarks", "tools") else 2])


def floor_of(room: str) -> float:
    if room.startswith("vidseg.projects."):
        return FLOORS["projects"]
    assert room in FLOORS, f"{room} has no floor: add it to this test and to the README"
    return FLOORS[room]


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    name = module_name(file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if is_module(inner) else base


def own(name: str) -> bool:
    return name.split(".")[0] in ROOTS


def python_files() -> list[Path]:
    return sorted(file for root in ROOTS for file in (CHECKOUT / root).rglob("*.py"))


@pytest.mark.parametrize("file", python_files(), ids=lambda f: str(f.relative_to(CHECKOUT)))
def test_imports_go_down(file: Path) -> None:
    room = room_of(module_name(file))
    if room == "vidseg":
        pytest.skip("its names are lazy")
    for line, target in imports_of(file):
        below = room_of(target)
        if not own(target) or below == room:
            continue
        assert not target.startswith("projects."), f"{file}:{line} use vidseg.projects"
        assert floor_of(below) < floor_of(room), f"{file}:{line} {room} imports {below}"


def test_the_rule_sees_sideways_and_upward_edges() -> None:
    assert floor_of(room_of("vidseg.data.loader")) == floor_of(room_of("vidseg.modeling.build"))
    assert floor_of(room_of("vidseg.engine.trainer")) > floor_of(room_of("vidseg.projects.x.y"))
    relative = list(imports_of(CHECKOUT / "vidseg" / "config" / "node.py"))
    assert "vidseg.config.values" in {name for _, name in relative}


def test_nobody_needs_the_bridges() -> None:
    for file in python_files():
        # A benchmark may run what it is compared with.
        if room_of(module_name(file)) not in ("vidseg.interop", "benchmarks"):
            for line, target in imports_of(file):
                assert target != "detectron2", f"{file}:{line}"
                assert not target.startswith(("detectron2.", "vidseg.interop")), f"{file}:{line}"


def test_torchvision_comes_with_its_first_use() -> None:
    # It takes a second and 150 MB that most runs have no use for.
    for file in python_files():
        for node in ast.parse(file.read_text()).body:
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torchvision" for name in named), file
