import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "golden" / "ytvis_eval"
NAMES = ("ytvis", "ovis", "tracking", "vps", "vss", "davis", "discovery")


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "evaluate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT.parent)


def case(name: str) -> list[object]:
    return ["ytvis", "--gt", CASES / name / "gt.json", "--results", CASES / name / "results.json"]


def test_prints_and_writes_the_official_numbers(tmp_path: Path) -> None:
    run = evaluate(*case("random_small"), "--output", tmp_path / "metrics.json", "--per-class")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("Average Precision") == run.stdout.count("Average Recall") == 6
    written = json.loads((tmp_path / "metrics.json").read_text())
    expected = json.loads((CASES / "random_small" / "expected.json").read_text())
    for name, value in expected["report_x100"].items():
        wanted = None if value is None else pytest.approx(value, abs=1e-10)
        assert written[f"segm/{name}"] == wanted
    for one in expected["per_category"]:
        assert written[f"segm/AP-{one['name']}"] == pytest.approx(100 * one["AP"])


def test_occlusion_levels_and_the_folder_of_a_report(tmp_path: Path) -> None:
    run = evaluate(*case("ovis_occlusion"), "--ovis", "--out", tmp_path / "a" / "b")
    assert run.returncode == 0
    assert run.stdout.count("occlusion= heavy") == 2
    files = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert files == ["metrics.json", "per_class.csv", "results.zip"]
    with zipfile.ZipFile(tmp_path / "a" / "b" / "results.zip") as archive:
        assert archive.namelist() == ["results.json"]


def test_other_names_for_the_same() -> None:
    names = ("ovis", ["ytvis", "--ovis"]), ("hota", ["tracking"])
    for name, command in names:
        files = case("ovis_occlusion")[1:]
        outputs = [evaluate(*words, *files).stdout for words in ([name], command)]
        assert outputs[0] == outputs[1] != ""


def test_tracking_prints_and_writes(tmp_path: Path) -> None:
    run = evaluate(
        "tracking", *case("random_small")[1:], "--output", tmp_path / "metrics.json",
        "--per-class", "--per-video",
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    classes, videos = (table.splitlines() for table in run.stdout.split("\n\n"))
    assert [line.split()[1] for line in classes[2:]] == [
        *("mean", "all", "class_01", "class_02", "class_03", "class_04")
    ]
    assert [line.split()[1] for line in videos[2:]] == ["5", "3", "4", "7", "2", "1", "8", "6"]
    written = json.loads((tmp_path / "metrics.json").read_text())
    folder = ROOT / "tests" / "golden" / "trackeval" / "random_small"
    recorded = json.loads((folder / "expected.json").read_text())["combined"]
    for key, name in (
        ("tracking/HOTA", "cls_comb_cls_av"),
        ("tracking/all_detections/HOTA", "cls_comb_det_av"),
        ("tracking/HOTA-class_03", "class_03"),
    ):
        assert written[key] == pytest.approx(100 * recorded[name]["HOTA"]["HOTA"]["mean"])
    assert written["tracking/CLR_FP"] == recorded["cls_comb_cls_av"]["CLEAR"]["CLR_FP"]


def test_flags_of_tracking_reach_the_evaluation() -> None:
    outputs = [
        evaluate("tracking", *case("null_frames")[1:], *flags).stdout
        for flags in ([], ["--strict"], ["--min-score", "0.5"], ["--class-agnostic"])
    ]
    assert len(set(outputs)) == 4
    assert "all classes" in outputs[3]


def test_vps_prints_and_writes(tmp_path: Path) -> None:
    segments = [{"id": 300, "category_id": 4, "iscrowd": 0, "area": 6}]
    frames = [{"file_name": f"{number}.jpg", "segments_info": segments} for number in range(2)]
    content = {
        "categories": [{"id": 4, "name": "cat", "isthing": 1}],
        "annotations": [{"video_id": "a", "annotations": frames}],
    }
    for file, folder in (("gt.json", "panomasksRGB"), ("pred.json", "pan_pred")):
        (tmp_path / file).write_text(json.dumps(content))
        (tmp_path / folder / "a").mkdir(parents=True)
        for number in range(2):
            picture = Image.new("RGB", (3, 2), (300 - 256, 1, 0))
            picture.save(tmp_path / folder / "a" / f"{number}.png")
    files = ["--gt", tmp_path / "gt.json", "--results", tmp_path / "pred.json"]
    page = ["--report", tmp_path / "report.html"]
    output = ["--output", tmp_path / "metrics.json", "--per-class"]
    run = evaluate("vps", *files, *output, "--per-video", *page)
    assert (run.returncode, run.stderr) == (0, "")
    assert "| a     | 100.00 |     100.00 |       nan | 100.00 |" in run.stdout
    assert payload_of(tmp_path / "report.html")["videos"][0]["truth"][0]["states"] == "ff"
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert (written["vps/VPQ"], written["vps/VPQ2"], written["vps/VPQ4"]) == (100, 100, None)
    assert (written["vps/VPQ-cat"], written["vps/VPQ2-cat"]) == (100, 100)
    assert "| 100.00 |     100.00 |       nan | nan |" in evaluate("vps", *files, "--strict").stdout
    run = evaluate("vps", *files, "--result-masks", tmp_path / "elsewhere")
    assert run.returncode == 1
    assert run.stderr == f"error: {tmp_path / 'elsewhere' / 'a' / '0.png'} does not exist\n"


def write_labels(root: Path) -> list[object]:
    """Two videos; in the second one a pixel of four is predicted wrong."""
    for name, video, levels in (
        ("gt", "a", (1, 1, 2, 2)),
        ("gt", "b", (1, 1, 2, 2)),
        ("pred", "a", (0, 0, 1, 1)),
        ("pred", "b", (0, 1, 1, 1)),
    ):
        (root / name / video).mkdir(parents=True)
        picture = Image.new("L", (4, 1))
        picture.putdata(levels)
        picture.save(root / name / video / "0.png")
    return ["--gt", root / "gt", "--results", root / "pred", "--per-video"]


@pytest.mark.parametrize(
    ("name", "flags", "key", "value"),
    [
        ("vss", ["--num-classes", "2"], "vss/Acc", 700 / 8),
        ("vss", ["--num-classes", "2", "--per-class"], "vss/IoU-1", 100 * 4 / 5),
        ("davis", [], "davis/J", (100 + 0 + 200 / 3 + 0) / 4),
        ("davis", ["--strict"], "davis/J-Recall", 100 * 2 / 4),
        ("discovery", [], "discovery/video/mBO", (100 + (50 + 200 / 3) / 2) / 2),
        ("discovery", ["--merged"], "discovery/mIoU", (100 + 100 + 50 + 200 / 3) / 4),
    ],
)
def test_folders_of_labels(
    name: str, flags: list[str], key: str, value: float, tmp_path: Path
) -> None:
    files = write_labels(tmp_path)
    run = evaluate(name, *files, *flags, "--output", tmp_path / "metrics.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.index("\n| b  ") < run.stdout.index("\n| a  ")  # the worst first
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert all(one.startswith(f"{name}/") for one in written)
    assert written[key] == pytest.approx(value)
    (tmp_path / "pred" / "b" / "0.png").unlink()
    run = evaluate(name, *files, *flags)
    assert (run.returncode, run.stdout) == (1, "")
    assert len(run.stderr.splitlines()) == 1


def test_flags_reach_the_evaluation() -> None:
    merged, strict, sane = (
        evaluate(*case("gt_id_zero"), *flags).stdout
        for flags in (["--class-agnostic", "--strict"], ["--strict"], [])
    )
    assert merged.splitlines()[0].endswith("= 0.338")
    assert merged.splitlines()[0] == strict.splitlines()[0] != sane.splitlines()[0]


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in NAMES)])
def test_help_is_quick_and_shows_an_example(arguments: list[str]) -> None:
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = evaluate(*arguments)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    # processor time: the machine may be busy with other things
    assert end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime < 1
    assert run.returncode == 0
    name = "ytvis" if arguments == ["--help"] else arguments[0]
    assert f"python tools/evaluate.py {name} --gt" in run.stdout


def test_scoring_files_does_not_import_torch() -> None:
    program = "import sys, vidseg.evaluation; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout == "False\n"


@pytest.mark.parametrize(
    ("gt", "results", "message"),
    [
        ("gt.json", "missing.json", "results file missing.json does not exist"),
        ("missing.json", "results.json", "ground truth file missing.json does not exist"),
        ("gt.json", "broken.json", "broken.json is not valid json"),
        ("gt.json", "gt.json", "is not a results file"),
        ("results.json", "results.json", "is not a YouTube-VIS file"),
        ("gt.json", "stranger.json", "entry 0 has video_id 99"),
    ],
)
def test_bad_input_is_one_sentence(gt: str, results: str, message: str, tmp_path: Path) -> None:
    for name in ("gt.json", "results.json"):
        (tmp_path / name).write_bytes((CASES / "tiny_by_hand" / name).read_bytes())
    (tmp_path / "broken.json").write_text("[{")
    track = {"video_id": 99, "category_id": 1, "score": 1, "segmentations": []}
    (tmp_path / "stranger.json").write_text(json.dumps([track]))
    command = [sys.executable, str(ROOT / "tools" / "evaluate.py"), "ytvis"]
    run = subprocess.run(
        [*command, "--gt", gt, "--results", results], capture_output=True, text=True, cwd=tmp_path
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: ")
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = evaluate(*case("tiny_by_hand"), "--output", tmp_path / "file" / "metrics.json")
    assert run.returncode == 1
    assert f"cannot write {tmp_path / 'file' / 'metrics.json'}: " in run.stderr


def test_a_wrong_command_line_is_refused() -> None:
    assert evaluate().returncode == 2
    assert evaluate("ytvis", "--gt", "x").returncode == 2
    assert evaluate("ytvos").returncode == 2


def payload_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    start = text.index(">", text.index('id="payload"')) + 1
    return json.loads(text[start : text.index("</script>", start)])


@pytest.mark.parametrize("metric", ["ytvis", "ovis", "tracking"])
def test_report_on_tracks(metric: str, tmp_path: Path) -> None:
    page = tmp_path / "new" / "report.html"
    flags = ["--report", page, "--report-videos", 2, "--report-frames", 3, "--images", tmp_path]
    run = evaluate(metric, *case("ovis_occlusion")[1:], *flags)
    assert run.returncode == 0
    assert run.stderr.count("\n") == 1
    assert "frames are shown without one" in run.stderr
    payload = payload_of(page)
    assert payload["metric"] == metric
    assert len(payload["videos"]) == 2
    assert {len(video["frames"]) for video in payload["videos"]} == {3}


@pytest.mark.parametrize("metric", ["vss", "davis", "discovery"])
def test_report_on_labels(metric: str, tmp_path: Path) -> None:
    run = evaluate(metric, *write_labels(tmp_path), "--report", tmp_path / "report.html")
    assert (run.returncode, run.stderr) == (0, "")
    payload = payload_of(tmp_path / "report.html")
    assert payload["metric"] == metric
    assert [row["name"] for row in payload["ranking"]["rows"]] == ["b", "a"]
    assert [video["name"] for video in payload["videos"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("flag", "value"), [("--images", "frames"), ("--report-videos", "3"), ("--report-frames", "3")]
)
def test_frames_are_for_the_report(flag: str, value: str) -> None:
    run = evaluate(*case("random_small"), flag, value)
    assert run.returncode == 2
    assert f"{flag} is of use with --report alone" in run.stderr


def test_strictness_is_for_matched_segments() -> None:
    flags = ["--gt", "a", "--results", "b", "--task", "semi-supervised", "--strict"]
    run = evaluate("davis", *flags)
    assert run.returncode == 2
    assert "--strict is of use with --task unsupervised alone" in run.stderr


def test_a_report_that_cannot_be_written_loses_no_metrics(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    flags = ["--output", tmp_path / "metrics.json", "--report", tmp_path / "file" / "report.html"]
    run = evaluate(*case("random_small"), *flags)
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: cannot write {tmp_path / 'file' / 'report.html'}: ")
    assert json.loads((tmp_path / "metrics.json").read_text())["segm/AP"] is not None


def test_videos_by_their_own_ap() -> None:
    run = evaluate(*case("random_small"), "--per-video")
    rows = [line.split() for line in run.stdout.split("\n\n")[-1].splitlines()[2:]]
    values = [float(row[3]) for row in rows]
    assert len(values) == 8
    assert values == sorted(values)
