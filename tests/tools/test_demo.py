"""The demo as a command: files written, sentences said, exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vidseg.errors import ConfigError, UserError
from vidseg.modeling import build_model
from vidseg.video.io import VideoReader, VideoWriter

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"
CONFIG = DEMO.parents[1] / "projects" / "dvis_daq" / "segmenter.yaml"
SMALL = (
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "1", "MODEL.MASK_FORMER.DEC_LAYERS", "2"),
    *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "48"),
)


def load_demo() -> Any:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, under which an untrained segmenter is sure of something."""
    from vidseg.config import load_config

    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, list(SMALL)))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture
def demo(weights: Path, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Runs ``main`` in this process; the weights come ready made."""
    main = load_demo().main

    def run(*inputs: Path, options: tuple[str, ...] = ()) -> tuple[int, Path]:
        output = tmp_path / "shown"
        paths = [str(path) for path in inputs]
        where = ["--output", str(output), "--weights", str(weights), "--confidence", "0.05"]
        code = main(["--config-file", str(CONFIG), "--input", *paths, *where, *options, *SMALL])
        return code, output

    return run


def make_video(path: Path, num_frames: int = 4, size: tuple[int, int] = (47, 63)) -> Path:
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=10) as writer:
        for _ in range(num_frames):
            writer.write(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    return path


def test_video_folder_and_picture(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "street.mp4", size=(121, 123))
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (60 * number, 50, 90)).save(folder / f"{number}.jpg")
    picture = folder / "0.jpg"
    code, output = demo(video, folder, picture)
    assert code == 0
    assert len(list(VideoReader(output / "street" / "overlay.mp4"))) == 4
    assert VideoReader(output / "street" / "overlay.mp4").info.size == (122, 124)
    assert len(list(VideoReader(output / "frames" / "overlay.mp4"))) == 3
    with Image.open(output / "0" / "overlay.png") as image:
        assert image.size == (160, 120)  # a small picture is enlarged
    for name in ("street", "frames", "0"):
        assert (output / name / "strips.png").is_file()
        records = json.loads((output / name / "results.json").read_text())
        assert records
        assert set(records[0]) >= {"video_id", "category_id", "score", "segmentations"}
        counts = [mask["counts"] for mask in records[0]["segmentations"] if mask]
        assert all(isinstance(text, str) for text in counts)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "street.mp4: 4 frames" in lines[0]
    assert lines[-1].startswith("3 of 3 inputs shown")


def test_broken_inputs_get_a_sentence_each_and_the_others_go_on(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    good = make_video(tmp_path / "good.mp4", 2)
    inputs = [tmp_path / name for name in ("empty.mp4", "text.mp4", "gone.mp4")]
    code, output = demo(*inputs, good)
    out, err = capsys.readouterr()
    assert code == 1
    errors = [line for line in err.splitlines() if line.startswith("error")]
    assert len(errors) == 3
    assert all(path.name in line for path, line in zip(inputs, errors, strict=True))
    assert "1 of 4 inputs shown" in out
    assert [p.name for p in output.iterdir()] == ["good"]


def test_nothing_above_the_confidence_is_said(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = demo(make_video(tmp_path / "clip.mp4"), options=("--confidence", "1.01"))
    assert code == 0
    assert "nothing found at confidence 1.01 (the best score is" in capsys.readouterr().out
    assert len(list(VideoReader(output / "clip" / "overlay.mp4"))) == 4
    assert not (output / "clip" / "strips.png").exists()


def test_explain_adds_files_and_changes_no_result(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "clip.mp4", 7)
    demo(video, options=("--every", "2"))
    plain = (tmp_path / "shown" / "clip" / "results.json").read_bytes()
    code, output = demo(video, options=("--every", "2", "--explain", "--explain-tracks", "2"))
    assert code == 0
    assert (output / "clip" / "results.json").read_bytes() == plain
    folder = output / "clip" / "explain"
    assert str(folder) in capsys.readouterr().out
    tracks = json.loads((folder / "attention.json").read_text())["tracks"]
    assert len(tracks) == 2
    files = {f"attention_{track}.{kind}" for track in tracks for kind in ("mp4", "png")}
    assert {path.name for path in folder.iterdir()} == files | {"attention.json"}
    for track, records in tracks.items():
        assert [record["frame"] for record in records] == [0, 2, 4, 6]
        assert len(list(VideoReader(folder / f"attention_{track}.mp4"))) == 4


def test_explain_needs_a_model_that_can(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidseg.modeling.meta_arch import FrameSegmenter

    video = make_video(tmp_path / "clip.mp4", 1)
    with monkeypatch.context() as patch:
        patch.delattr(FrameSegmenter, "recorder")
        with pytest.raises(UserError, match="FrameSegmenter offers no explanation of its results"):
            demo(video, options=("--explain",))
    with pytest.raises(SystemExit) as stopped:
        demo(video, options=("--explain-tracks", "3"))
    assert stopped.value.code == 2


def test_every_and_max_frames(demo: Callable[..., tuple[int, Path]], tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", 9)
    _, output = demo(video, options=("--every", "2", "--max-frames", "3"))
    frames = list(VideoReader(output / "clip" / "overlay.mp4").frames())
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.2, 0.4], atol=1e-3)


def test_folder_of_videos_stands_for_all_and_names_stay_apart(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path
) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        make_video(tmp_path / place / "clip.mp4", 1)
    code, output = demo(tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert sorted(p.name for p in output.iterdir()) == ["clip", "clip_2"]


def test_a_pipe_is_shown_while_it_is_written(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    lines = tmp_path / "shown" / f"pipe{reading}" / "windows.jsonl"
    early: list[int] = []

    def send() -> None:
        with av.open(os.fdopen(writing, "wb"), "w", format="matroska") as container:
            stream: Any = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            rng = np.random.default_rng(0)
            for number in range(40):
                for _ in range(200 if number == 30 else 0):  # until something is known, or 10 s
                    if lines.is_file() and lines.read_bytes().count(b"\n"):
                        early.append(number)
                        break
                    time.sleep(0.05)
                image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    code, output = demo(Path(f"pipe:{reading}"), options=("--max-frames", "36"))
    sender.join(10)
    assert code == 0
    assert early == [30]
    windows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [frame for window in windows for frame in window["frames"]] == list(range(36))
    assert {"track_id", "category_id", "score", "segmentations"} <= set(windows[0]["tracks"][0])
    assert len(list(VideoReader(output / f"pipe{reading}" / "overlay.mp4"))) == 36
    assert f"pipe:{reading}: 36 frames, " in capsys.readouterr().out


def test_a_camera_that_is_not_there_is_said(
    demo: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = demo(Path("camera:77"))
    assert code == 1
    assert "camera:77" in capsys.readouterr().err


def test_overrides_may_follow_the_inputs() -> None:
    base = ["--config-file", "f.yaml", "--output", "out"]
    parse = load_demo().parse
    for argv in (
        [*base, "--input", "a.mp4", "b", "INPUT.MIN_SIZE_TEST", "96"],
        ["INPUT.MIN_SIZE_TEST", "96", *base, "--input", "a.mp4", "b"],
        ["--input", "a.mp4", "b", *base, "INPUT.MIN_SIZE_TEST", "96"],
    ):
        args = parse(argv)
        assert args.input == ["a.mp4", "b"]
        assert args.overrides == ["INPUT.MIN_SIZE_TEST", "96"]


def test_keys_in_lower_case_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = load_demo()
    base = ["--config-file", str(CONFIG), "--output", "out", "--input", "model.mp4", "input"]
    args = demo.parse([*base, "model.device", "cpu"])
    assert args.input == ["model.mp4", "input"]
    assert args.overrides == ["model.device", "cpu"]
    with pytest.raises(ConfigError, match=r"unknown key model.device .*did you mean MODEL.DEVICE"):
        demo.main([*base, "model.device", "cpu"])
    (tmp_path / "model.device").mkdir()
    assert demo.parse([*base, "model.device"]).input == ["model.mp4", "input", "model.device"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments], capture_output=True, text=True, timeout=300
    )


def test_help_is_quick_and_has_an_example() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0
    assert "example:" in result.stdout
    assert after.ru_utime - before.ru_utime < 1
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(DEMO)!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'av' in sys.modules)\n"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert imported.stdout.splitlines()[-1] == "False False"


def test_missing_weights_end_with_one_sentence(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", 1)
    result = run(
        *("--config-file", str(CONFIG), "--input", str(video), "--output", str(tmp_path / "out")),
        *("OUTPUT_DIR", str(tmp_path / "never")),
    )
    assert result.returncode == 1
    assert "model_final.pth does not exist; train this config" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_key_is_a_usage_error(tmp_path: Path) -> None:
    result = run(
        *("--config-file", str(CONFIG), "--input", "clip.mp4", "--output", str(tmp_path)),
        *("INPUT.MIN_SIZE_TESTS", "96"),
    )
    assert result.returncode == 2
    assert "MIN_SIZE_TEST" in result.stderr
    assert "Traceback" not in result.stderr


def test_output_that_is_a_file_is_said_at_once(
    demo: Callable[..., tuple[int, Path]], tmp_path: Path
) -> None:
    (tmp_path / "shown").write_text("mine")
    with pytest.raises(UserError, match=r"--output: the folder .*shown cannot be made"):
        demo(tmp_path / "absent.mp4")
