#!/usr/bin/env python
"""Starts a project of your own: a small one that trains, is evaluated and shown at once."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import keyword
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vidseg.errors import UserError, run_command
from vidseg.files import write_atomically, write_folder

CHECKOUT = Path(__file__).resolve().parents[1]
TEMPLATES = CHECKOUT / "tools" / "templates"
KINDS = ("video", "sequence", "image")

EXAMPLE = """kinds:
  video     a model of videos, with a loss between the frames of a clip
  sequence  a model of features, with data set, evaluator and what the demo writes
  image     a backbone

examples:
  python tools/new_project.py my_idea
  python tools/new_project.py my_idea --kind sequence --out ~/code

Without --out the project becomes a part of this checkout: projects/NAME, tests/projects/NAME and
its lines in pyproject.toml. With it, DIR/NAME is a package of its own that pip installs. What to
do next is printed: the commands work as they are.
"""
# What a template is called, in all spellings; templates are Python as it stands.
_SPELLINGS = ("my_idea", "MyIdea", "MY_IDEA", "my-idea")
_INSTALL_MARK = "<!-- install -->\n"
_OLDEST_SETUPTOOLS = 77  # that the package's pyproject.toml asks for


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="of the project, as my_idea")
    parser.add_argument("--kind", choices=KINDS, default="video", help="what it works on (video)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="make a package of its own here")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Checks the name, writes the files and says how to go on."""
    args = parse(argv)
    check_name(args.name, args.kind, is_package=args.out is not None)
    if args.out is None:
        write_into_checkout(args.name, args.kind)
        tests = _from_here(CHECKOUT / "tests" / "projects" / args.name)
        project = _from_here(CHECKOUT / "projects" / args.name)
        print(
            f"written: {project}, {tests}, two lines of {_from_here(CHECKOUT / 'pyproject.toml')}"
        )
    else:
        folder = args.out.expanduser() / args.name
        write_package(folder, args.name, args.kind)
        tests = folder / "tests"
        print(f"written: {folder}\n\ninstall it:\n  {install_command(folder)}")
    print("\ntrain, evaluate, show:")
    for command in commands(args.name, args.kind):
        print(f"  {command}")
    vidseg = shlex.quote(f"{_from_here(CHECKOUT)}[dev]")
    print(f"\nits own test (needs python -m pip install --editable {vidseg}):")
    print(f"  python -m pytest {shlex.quote(str(tests))}")
    return 0


def check_name(name: str, kind: str, *, is_package: bool) -> None:
    """Refuses a name that something else has, before anything is written.

    Args:
        name: of the new project.
        kind: of ``KINDS``.
        is_package: whether it will be imported as ``name`` itself.

    Raises:
        UserError: with the name of what is there, or a better name.
    """
    from vidseg import plugins
    from vidseg.config import get_cfg
    from vidseg.data import DatasetCatalog

    is_keyword = keyword.iskeyword(name) or keyword.iskeyword(_camel(name))
    if is_keyword or not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UserError(
            f"{name!r} cannot be the name of a project: use small letters, digits and _, "
            f"for example {_better_name(name)}"
        )
    taken = plugins.discover().get(name)
    if taken is not None:
        raise UserError(
            f"there is a project {name} already, in {taken.folder}; choose another name"
        )
    if is_package and importlib.util.find_spec(name) is not None:
        raise UserError(f"there is a Python module {name} already; choose another name")
    place = _place_of_class(_camel(name), kind)
    if place:
        raise UserError(f"there is a class {_camel(name)} already, in {place}; choose another name")
    if get_cfg().has(f"MODEL.{name.upper()}"):
        raise UserError(f"MODEL.{name.upper()} is a config key of vidseg; choose another name")
    if kind == "sequence" and f"{name}_train" in DatasetCatalog:
        raise UserError(f"there is a data set {name}_train already; choose another name")


def _place_of_class(camel: str, kind: str) -> Path | None:
    """Finds who has a class of this name, or imports one for the code of a new project."""
    for file in sorted((TEMPLATES / kind).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.alias) and node.name == camel:
                return file
    own = re.compile(rf"^class {camel}\b", re.MULTILINE)
    files = (file for room in ("vidseg", "projects") for file in (CHECKOUT / room).rglob("*.py"))
    return next((file for file in files if own.search(file.read_text(encoding="utf-8"))), None)


def _better_name(name: str) -> str:
    words = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    snake = "_".join(re.findall("[a-z0-9]+", words)) or "my_idea"
    is_free = snake.isidentifier() and not keyword.iskeyword(_camel(snake))
    return snake if is_free and not keyword.iskeyword(snake) else f"project_{snake}"


def write_into_checkout(name: str, kind: str) -> None:
    """Writes a project, its test and its lines in ``pyproject.toml``.

    Raises:
        UserError: if there is something in the way; nothing is written then.
    """
    project, tests = CHECKOUT / "projects" / name, CHECKOUT / "tests" / "projects" / name
    for folder in (project, tests):
        _refuse_taken(folder)
    pyproject = CHECKOUT / "pyproject.toml"
    text = declare(pyproject.read_text(), name)
    source = TEMPLATES / kind
    readme = _rendered(source / "README.md", name, kind).replace(_INSTALL_MARK, "")

    def write_project(draft: Path) -> None:
        _copy(source / "my_idea", draft, name, kind)
        (draft / "README.md").write_text(readme)

    write_folder(project, write_project)
    write_folder(tests, lambda draft: _copy(source / "tests", draft, name, kind))
    write_atomically(pyproject, lambda file: file.write(text.encode()))


def write_package(folder: Path, name: str, kind: str) -> None:
    """Writes a distribution of its own, with the entry point by which vidseg finds it.

    Raises:
        UserError: if there is something in the way, the folder lies in the checkout's projects, or
            cannot be written to.
    """
    if CHECKOUT / "projects" in folder.resolve().parents:
        raise UserError(
            f"--out {folder.parent}: projects of the checkout are no packages; leave --out away"
        )
    _refuse_taken(folder)
    source = TEMPLATES / kind
    install = (TEMPLATES / "package" / "install.md").read_text()
    readme = _rendered(source / "README.md", name, kind).replace(_INSTALL_MARK, install)

    def write(draft: Path) -> None:
        _copy(source / "my_idea", draft / name, name, kind)
        _copy(source / "tests", draft / "tests", name, kind, module=name)
        (draft / "README.md").write_text(readme.replace(f"tests/projects/{name}", "tests"))
        pyproject = _rendered(TEMPLATES / "package" / "pyproject.toml", name, kind)
        (draft / "pyproject.toml").write_text(pyproject)

    try:
        write_folder(folder, write)
    except OSError as error:
        raise UserError(f"--out {folder.parent}: {error.strerror}; choose another folder") from None


def declare(text: str, name: str) -> str:
    """Adds a project to the lists of ``pyproject.toml`` that make it a part of the wheel.

    Args:
        text: of the file.
        name: of the project.

    Returns:
        The text with a line more in ``packages`` and in ``package-dir``, in order.

    Raises:
        UserError: if the text has no such lists.
    """
    lines = text.split("\n")
    new = {
        "packages = [": f'  "vidseg.projects.{name}",',
        "[tool.setuptools.package-dir]": f'"vidseg.projects.{name}" = "projects/{name}"',
    }
    for opening, line in new.items():
        if opening not in lines:
            raise UserError(f"pyproject.toml has no line {opening!r}; take the file as published")
        start = end = lines.index(opening) + 1
        while lines[end].lstrip().startswith('"'):
            end += 1
        place = next((at for at in range(start, end) if lines[at] > line), end)
        if line not in lines[start:end]:
            lines.insert(place, line)
    return "\n".join(lines)


def commands(name: str, kind: str) -> list[str]:
    """Gives the commands that train, evaluate and show a project, for the present directory."""
    config = f"--config-file projects/{name}/{name}.yaml"
    train, demo = (
        f"python {shlex.quote(str(_from_here(CHECKOUT / 'tools' / tool)))}"
        for tool in ("train_net.py", "demo.py")
    )
    shown = shlex.quote(str(demo_input(name, kind)))
    confidence = "" if kind == "sequence" else " --confidence 0.3"
    return [
        f"{train} {config}",
        f"{train} {config} --eval-only",
        f"{demo} {config}{confidence} --input {shown} --output output/{name}/demo",
    ]


def demo_input(name: str, kind: str) -> Path:
    """Gives what the demo shows: something of the validation set that training leaves in the cache.

    Args:
        name: of the project.
        kind: of ``KINDS``.
    """
    from vidseg.data import DatasetCatalog
    from vidseg.data.synthetic import cache_root

    if kind == "sequence":
        return cache_root() / f"{name}-v1" / "val" / "000.npy"
    return Path(DatasetCatalog.registered("shapes_vis_easy_val").image_root) / "00002"


def install_command(folder: Path) -> str:
    """Gives the command that installs a package of a project so that changes count at once.

    pip looks for nothing: vidseg is what the package stands on, and that is there.
    """
    words = ["python", "-m", "pip", "install", "--no-deps"]
    try:
        if int(metadata.version("setuptools").split(".")[0]) >= _OLDEST_SETUPTOOLS:
            words.append("--no-build-isolation")
    except metadata.PackageNotFoundError:
        pass  # pip fetches it
    return shlex.join([*words, "--editable", str(folder)])


def _from_here(path: Path) -> Path:
    """Gives a path of the checkout as short as it goes in a command of the present directory."""
    return path.relative_to(CHECKOUT) if Path.cwd().resolve() == CHECKOUT else path


def _refuse_taken(folder: Path) -> None:
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another name, or remove it")


def _copy(source: Path, target: Path, name: str, kind: str, module: str = "") -> None:
    """Copies a folder of a template under another name.

    Args:
        source: folder of the template.
        target: to write to; created if it is missing.
        name: of the project.
        kind: of ``KINDS``.
        module: under which the project is imported; by default a part of ``vidseg.projects``.
    """
    target.mkdir(exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file():
            text = _rendered(file, name, kind)
            if module:
                text = _sort_imports(text.replace(f"vidseg.projects.{name}", module))
            (target / _renamed(file.name, name)).write_text(text)


def _sort_imports(text: str) -> str:
    """Puts ``from`` imports that stand together in the order of their modules."""
    runs = re.compile("(?:^from .*\n)+", re.MULTILINE)
    return runs.sub(lambda run: "".join(sorted(run[0].splitlines(keepends=True))), text)


def _rendered(file: Path, name: str, kind: str) -> str:
    from vidseg.data.synthetic import cache_root

    shown = demo_input(name, kind).relative_to(cache_root())
    text = _renamed(file.read_text(), name)
    return text.replace("DEMO_INPUT", f"~/.cache/vidseg/{shown}")


def _renamed(text: str, name: str) -> str:
    spellings = (name, _camel(name), name.upper(), name.replace("_", "-"))
    for old, new in zip(_SPELLINGS, spellings, strict=True):
        text = text.replace(old, new)
    return text


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


if __name__ == "__main__":
    run_command(main)
