"""The README tells the truth: its files, keys, targets and links exist, its commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidseg import plugins
from vidseg.config import load_config
from vidseg.data import DatasetCatalog

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / "README.md"
PAGES = [README, *(CHECKOUT / "projects").rglob("README.md"), CHECKOUT / "datasets" / "README.md"]
COPIED = (
    "vidseg",
    "projects",
    "benchmarks",
    "tools",
    "examples",
    "docs",
    "datasets",
    "pyproject.toml",
)
EXECUTED = (
    "python tools/",
    "python docs/",
    "python examples/",
    "torchrun ",
    "python -m pip install --no-deps ",
)
# Enough to go through every line of a run, and no more.
TINY = (
    "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 1 SOLVER.LOG_PERIOD 1 "
    "INPUT.STEPS '[1]' DATALOADER.NUM_WORKERS 0 MODEL.DEVICE cpu"
)

_ROOTS = "vidseg|projects|benchmarks|tools|examples|docs|datasets|configs|tests"
_PATH = re.compile(rf"(?<![\w./~-])((?:{_ROOTS})/[\w./-]*[\w/])(?![\w<*/])")
_KEY = re.compile(r"(?<![\w.$])((?:MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)(?:\.[A-Z0-9_]+)+)")
_COMMAND = re.compile(
    r"\b(?:(?:tools|datasets)/(?P<script>\w+)\.py|python -m (?P<module>vidseg\.projects\.\w+))"
    r"(?P<words>.*)"
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def blocks(page: Path, language: str) -> list[str]:
    """Gives the contents of the page's fenced blocks of one language."""
    return [body for kind, body in _FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[str]:
    """Gives the shell commands of a page, continued lines joined."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and line[0] != "#"]


def calls(page: Path) -> list[tuple[str, list[str]]]:
    """Gives the modules of the page's commands, and the words that they are given."""
    found = [match for line in commands(page) if (match := _COMMAND.search(line))]
    return [(m["script"] or f"{m['module']}.__main__", shlex.split(m["words"])) for m in found]


def is_started(page: Path, word: str) -> bool:
    """Tells whether a path belongs to a project that a command of the page starts."""
    names = re.findall(r"tools/new_project\.py (\w+)", "\n".join(commands(page)))
    return any(f"projects/{name}" in word for name in names)


def prose(page: Path) -> str:
    """Gives what surrounds the fenced blocks."""
    return _FENCE.sub("", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    text = " ".join([_LINK.sub("]", prose(page)), *blocks(page, ""), *commands(page)])
    paths = _PATH.findall(text)
    assert paths or page != README
    here = [path for path in paths if not is_started(page, path)]
    assert not [path for path in here if not (CHECKOUT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_link_targets_exist(page: Path) -> None:
    targets = [t for t in _LINK.findall(prose(page)) if not t.startswith(("http", "#"))]
    assert not [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_exist(page: Path) -> None:
    cfg = load_config(None, [], list(plugins.discover()))
    own = set(re.findall(r"cfg\.([A-Z_.]+) = ", "".join(blocks(page, "python"))))
    keys = _KEY.findall(page.read_text())
    assert not [key for key in keys if key not in own and not cfg.has(key)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_understood(page: Path) -> None:
    """Options, files, overrides and stages are read as the commands themselves read them.

    What is done with projects that are not there before the page starts them shows when it is run.
    """
    known = [call for call in calls(page) if not any(is_started(page, word) for word in call[1])]
    code = (
        "import importlib, json, sys\n"
        "from vidseg.config import load_config\n"
        "from vidseg.engine.chain import plan_stages\n"
        "sys.path[:0] = ['tools', 'datasets']\n"
        "for name, words in json.load(sys.stdin):\n"
        "    args = importlib.import_module(name).parse(words)\n"
        "    if name == 'train_net':\n"
        "        plan_stages(args.config_file, args.overrides, args.plugin)\n"
        "    elif 'config_file' in args:\n"
        "        load_config(args.config_file or None, args.overrides, args.plugin)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(known),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_commands_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    lines = ("python tools/demo.py --boxes", "python -m vidseg.projects.rqvae report --run 'a b'")
    page.write_text("".join(f"```bash\n{line}\n```\n" for line in (*lines, "ls tools")))
    assert calls(page) == [
        ("demo", ["--boxes"]),
        ("vidseg.projects.rqvae.__main__", ["report", "--run", "a b"]),
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"`make ([\w-]+)", page.read_text()))
    targets |= {line.split()[1] for line in commands(page) if line.startswith("make ")}
    if targets and shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=CHECKOUT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_extras_exist() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    installs = re.findall(r"pip install [^\n`]*", README.read_text())
    assert installs
    extras = {extra for line in installs for extra in re.findall(r"\[([\w,]+)\]", line)}
    assert extras <= set(project["optional-dependencies"])
    assert project["requires-python"].lstrip(">=") in README.read_text()


def test_the_example_is_the_one_shown() -> None:
    shown = next(block for block in blocks(README, "python") if "register()" in block)
    assert shown in (CHECKOUT / "examples" / "long_tracks.py").read_text()
    lines = [line for line in shown.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 20


def test_all_commands_are_of_a_known_kind() -> None:
    """The slow test must not overlook one."""
    kinds = ("python -m pip install ", "make ", *EXECUTED)
    assert not [line for line in commands(README) if not line.startswith(kinds)]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the checkout with tiny data where the commands expect data."""
    work = tmp_path / "vidseg"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, work / name, ignore=ignore)
        else:
            shutil.copy(source, work / name)
    # Where the data set itself looks for them.
    folder = Path(DatasetCatalog.registered("shapes_vis_easy_val").root).parents[1].name
    _make_data(work, tmp_path / "home" / ".cache" / "vidseg" / folder)
    _make_commands(tmp_path / "bin")
    return work


def _make_data(work: Path, generated: Path) -> None:
    import torch
    from torchvision.models import mobilenet_v2

    from vidseg.data.synthetic import generate_split
    from vidseg.video.writer import VideoWriter

    sizes = {"train": (1, 2, 12), "valid": (2, 3, 4), "frames": (3, 4, 1)}
    folders = {f"{level}/{name}": level for level in ("easy", "standard") for name in sizes}
    for folder, level in folders.items():
        seed, videos, length = sizes[folder.split("/")[1]]
        generate_split(generated / folder, level, seed=seed, num_videos=videos, length=length)
    for name in ("train", "valid"):
        shutil.copytree(generated / "easy" / name, work / "my" / name)
        path = work / "my" / name / "instances.json"
        content = json.loads(path.read_text())
        content["categories"] += [{"id": key, "name": f"other {key}"} for key in range(6, 10)]
        path.write_text(json.dumps(content))
    for name, shift in (("labels", 0), ("found", 2)):
        (work / "my" / name / "street").mkdir(parents=True)
        for number in range(2):
            labels = np.zeros((24, 32), np.uint8)
            labels[4 + shift : 12 + shift, 4:20] = 1
            Image.fromarray(labels).save(work / "my" / name / "street" / f"{number:05}.png")
    torch.save(mobilenet_v2(weights=None).state_dict(), work / "mobilenet_v2.pth")
    rng = np.random.default_rng(0)
    with VideoWriter(work / "street.mp4", fps=5.0) as writer:
        for number in range(4):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), time=number / 5)


def _make_commands(folder: Path) -> None:
    """Puts ``python`` and ``torchrun`` of this very environment on the path."""
    folder.mkdir()
    for name, module in (("python", ""), ("torchrun", "-m torch.distributed.run ")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        path.chmod(0o755)


def _environment(work: Path) -> dict[str, str]:
    home, programs = work.parent / "home", work.parent / "bin"
    env = {k: v for k, v in os.environ.items() if k not in ("VIDSEG_CACHE", "XDG_CACHE_HOME")}
    return env | {
        "HOME": str(home),
        "PATH": f"{programs}{os.pathsep}{env.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join([str(work), str(work.parent / "site")]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _shortened(line: str) -> str:
    """Appends what makes a training tiny; later words win over those before them.

    What pip would install goes beside the workspace, and comes from nowhere else.
    """
    if "pip install --no-deps" in line:
        return line.replace("--editable", "--no-build-isolation --target ../site")
    if "tools/train_net.py" not in line:
        return line
    stages = re.findall(r"(\w+):SOLVER\.MAX_ITER", line)
    return " ".join([line, TINY, *(f"{stage}:SOLVER.MAX_ITER 3" for stage in stages)])


@pytest.mark.slow
def test_commands_and_snippets_run(workspace: Path) -> None:
    """Runs the page from top to bottom, as a reader would."""
    env = _environment(workspace)
    shown = (CHECKOUT / "examples" / "long_tracks.py").read_text()
    for kind, body in _FENCE.findall(README.read_text()):
        # What needs another library runs among the tests of the bridge to it.
        if kind == "python" and body not in shown and "vidseg.interop" not in body:
            _run(["python", "-c", body], workspace, env)
        elif kind == "bash":
            for line in body.replace("\\\n", " ").splitlines():
                if line.startswith(EXECUTED):
                    _run(["bash", "-c", _shortened(line)], workspace, env)
    output = workspace / "output"
    results = output / "dvis_daq" / "offline" / "inference" / "shapes_vis_standard_val"
    assert json.loads((results / "results.json").read_text()) is not None
    assert list(results.glob("overlay_*.mp4"))
    assert (results / "report.html").is_file()
    assert (output / "report.html").is_file()
    runs = ("first_minute", "two_gpus", "two_processes", "my_idea", "other_idea")
    for name in (*runs, "dvis_daq/own_video/offline"):
        assert (output / name / "model_final.pth").is_file(), name
    for name in ("demo/00002", "my_idea/demo/00002", "street/street", "own_street/street"):
        assert (output / name / "overlay.mp4").is_file(), name
    assert (output / "long_tracks" / "inference").is_dir()
    assert (workspace / "street_tracks.mp4").is_file()
    assert (output / "found" / "tracks.jsonl").is_file()


def _run(command: list[str], work: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=work, env=env, capture_output=True, text=True, check=False, timeout=900
    )
    told = f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr, told
