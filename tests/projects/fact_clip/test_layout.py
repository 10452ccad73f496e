"""The layout of features, groundTruth, mapping and splits: what is read, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.projects.fact_clip.layout_ground import (
    CLASSES,
    WIDTH,
    make_layout,
    replace_line,
    write_lines,
)
from vidseg.data import DatasetCatalog
from vidseg.errors import DataError
from vidseg.projects.fact_clip import public_sets  # noqa: F401 (registers)
from vidseg.projects.fact_clip.layout import SplitFile


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return make_layout(tmp_path / "salads")


def root_of(split: Path) -> Path:
    return split.parents[1]


def test_path_of_a_split_is_a_data_set(split: Path) -> None:
    records = DatasetCatalog.get(str(split))
    assert [record["video_id"] for record in records] == ["v0", "v1", "v2"]
    assert [record["length"] for record in records] == [20, 21, 22]
    assert records[0]["labels"] == [label for label in (0, 1, 2, 3, 1) for _ in range(4)]
    assert records[0]["file_names"] == [str(root_of(split) / "features" / "v0.npy")]
    known = DatasetCatalog.metadata(str(split))
    assert (known.classes, known.category_ids) == (list(CLASSES), [0, 1, 2, 3])
    assert (known.feature_dim, known.item) == (WIDTH, "video")
    assert (known.evaluator, known.json_file) == ("action_segmentation", str(split))
    test = DatasetCatalog.get(str(split.parent / "test.split1.bundle"))
    assert [record["video_id"] for record in test] == ["v3"]  # it stands there with .txt


def test_path_below_the_data_set_root(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(root_of(split).parent))
    name = DatasetCatalog.resolve("salads/splits/train.split1.bundle?trim=1")
    assert name == f"{split}?trim=1"
    assert DatasetCatalog.resolve(name) == name
    monkeypatch.chdir(split.parent)
    assert DatasetCatalog.resolve("train.split1.bundle") == str(split)


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n", "\r\n"])
def test_last_line_counts_with_and_without_a_newline(split: Path, end: str) -> None:
    files = (split, root_of(split) / "mapping.txt", root_of(split) / "groundTruth" / "v2.txt")
    for path in files:
        path.write_bytes((path.read_text().rstrip() + end).encode())
    records = SplitFile(str(split))()
    assert [record["length"] for record in records] == [20, 21, 22]
    assert records.classes == list(CLASSES)


def test_columns_of_the_mapping_may_be_wide(split: Path) -> None:
    write_lines(root_of(split) / "mapping.txt", [f" {i} \t{n} " for i, n in enumerate(CLASSES)])
    assert SplitFile(str(split))().classes == list(CLASSES)


def test_link_to_a_split_belongs_to_where_it_lies(split: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    split.rename(tmp_path / "store" / "5f3a")
    split.symlink_to(tmp_path / "store" / "5f3a")
    assert len(DatasetCatalog.get(str(split))) == 3


def test_numbers_of_classes_may_start_anywhere(split: Path) -> None:
    write_lines(root_of(split) / "mapping.txt", [f"{9 - i} {n}" for i, n in enumerate(CLASSES)])
    records = SplitFile(str(split))()
    assert records.classes == list(reversed(CLASSES))
    assert list(records.category_ids) == [6, 7, 8, 9]
    assert records[0]["labels"][:5] == [3, 3, 3, 3, 2]


def test_without_labels_there_is_nothing_to_score_but_to_predict(split: Path) -> None:
    for path in (root_of(split) / "groundTruth").iterdir():
        path.unlink()
    (root_of(split) / "groundTruth").rmdir()
    records = SplitFile(str(split))()
    assert not records.annotated
    assert not any("labels" in record for record in records)
    assert records.classes == list(CLASSES)
    (root_of(split) / "mapping.txt").unlink()
    assert [record["length"] for record in SplitFile(str(split))()] == [20, 21, 22]


def test_options_name_other_places(split: Path, tmp_path: Path) -> None:
    root = root_of(split)
    (root / "groundTruth").rename(root / "coarse")
    (root / "features").rename(tmp_path / "i3d")
    records = SplitFile(str(split), features=str(tmp_path / "i3d"), labels="coarse")()
    assert records[1]["length"] == 21
    assert records.annotated
    name = f"{split}?features={tmp_path / 'i3d'}&labels=coarse&frame_rate=12.5"
    assert DatasetCatalog.get(name)[0]["frame_rate"] == 12.5


def test_transposed_files(tmp_path: Path) -> None:
    split = make_layout(tmp_path / "a", transposed=True)
    records = DatasetCatalog.get(f"{split}?transpose=1")
    assert [(record["length"], record["feature_dim"]) for record in records][1] == (21, WIDTH)
    assert all(record["transposed"] for record in records)


def test_trim_cuts_to_the_shorter(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = root_of(split) / "groundTruth"
    write_lines(truth / "v0.txt", (truth / "v0.txt").read_text().splitlines()[:-1])
    write_lines(truth / "v1.txt", [*(truth / "v1.txt").read_text().splitlines(), CLASSES[0]])
    with caplog.at_level("INFO"):
        records = SplitFile(str(split), trim=True)()
    assert [(r["length"], len(r["labels"]), r["lengths"]) for r in records][:2] == [
        (19, 19, [19]),
        (21, 21, [21]),
    ]
    assert "2 videos were cut to the shorter" in caplog.text
    assert "frame rate" not in caplog.text
    write_lines(truth / "v2.txt", [CLASSES[0]] * 40)
    with caplog.at_level("WARNING"):
        SplitFile(str(split), trim=True)()
    assert "most v2: 22 frames, 40 labels; are both of the same frame rate?" in caplog.text


def drop_last_label(root: Path) -> None:
    path = root / "groundTruth" / "v1.txt"
    write_lines(path, path.read_text().splitlines()[:-3])


def save_features(root: Path, array: np.ndarray) -> None:
    np.save(root / "features" / "v1.npy", array)


ONE_VIDEO = {
    "fewer labels": (
        drop_last_label,
        r"features/v1\.npy has 21 frames, 3 more than .*groundTruth/v1\.txt has labels \(18\); the "
        r"option trim=1 cuts both to the shorter: .*train\.split1\.bundle\?trim=1",
    ),
    "fewer frames": (
        lambda root: save_features(root, np.zeros((15, WIDTH), np.float32)),
        r"v1\.npy has 15 frames, 6 fewer than",
    ),
    "no class": (
        lambda root: replace_line(root / "groundTruth" / "v1.txt", 7, "cut_tomatoe"),
        r"groundTruth/v1\.txt:7: 'cut_tomatoe' is none of the 4 classes of .*mapping"
        r"\.txt; nearest: cut_to",
    ),
    "blank": (
        lambda root: replace_line(root / "groundTruth" / "v1.txt", 7, ""),
        r"groundTruth/v1\.txt:7 is blank; expected the name of a class",
    ),
    "empty": (
        lambda root: (root / "groundTruth" / "v1.txt").write_text(""),
        r"groundTruth/v1\.txt holds no labels",
    ),
    "binary": (
        lambda root: (root / "groundTruth" / "v1.txt").write_bytes(b"\xff\xfe\x00"),
        r"groundTruth/v1\.txt is no text in UTF-8",
    ),
    "no features": (
        lambda root: (root / "features" / "v1.npy").rename(root / "features" / "v1x.npy"),
        r"train\.split1\.bundle:2: the video 'v1' has no features: .*v1\.npy is missing; .* v1x",
    ),
    "no labels": (
        lambda root: (root / "groundTruth" / "v1.txt").unlink(),
        r"train\.split1\.bundle:2: the video 'v1' has no labels: .*v1\.txt is missing",
    ),
    "another width": (
        lambda root: save_features(root, np.zeros((21, WIDTH + 1), np.float32)),
        r"v1\.npy has 7 features per frame, but most files of .*features have 6",
    ),
    "transposed": (
        lambda root: save_features(root, np.zeros((WIDTH, 21), np.float32)),
        r"v1\.npy holds \(features, frames\): read as \(frames, features\) it has 6 frames of 21 "
        r"features, and .*v1\.txt has 21 labels; if all files do, give the option "
        r"transpose=1: .*\?transpose=1",
    ),
    "pickled": (
        lambda root: np.save(root / "features" / "v1.npy", np.array([{}]), allow_pickle=True),
        r"v1\.npy holds pickled objects, which are refused",
    ),
}


@pytest.mark.parametrize("case", ONE_VIDEO)
def test_damage_of_one_video(split: Path, case: str) -> None:
    spoil, says = ONE_VIDEO[case]
    spoil(root_of(split))
    records = DatasetCatalog.read(str(split))
    assert list(records.damaged) == ["v1"]
    assert re.search(says, records.damaged["v1"])
    assert records[0]["labels"]  # what is sound can be used
    with pytest.raises(DataError, match=says):
        DatasetCatalog.get(str(split))


WHOLE_SET: dict[str, tuple[Callable[[Path], object], str]] = {
    "no name": (
        lambda root: replace_line(root / "mapping.txt", 2, "1"),
        r"mapping\.txt:2: '1' is not a number and the name of a class, as in '0 background'",
    ),
    "no number": (
        lambda root: replace_line(root / "mapping.txt", 2, "cut 1"),
        r"mapping\.txt:2: 'cut 1' is not a number",
    ),
    "number twice": (
        lambda root: replace_line(root / "mapping.txt", 3, "1 pour_oil"),
        r"mapping\.txt:3: the number 1 stands in line 2 already",
    ),
    "name twice": (
        lambda root: replace_line(root / "mapping.txt", 3, "2 cut_tomato"),
        r"mapping\.txt:3: the class 'cut_tomato' stands in line 2 already",
    ),
    "empty mapping": (
        lambda root: (root / "mapping.txt").write_text("\n"),
        r"mapping\.txt holds no classes",
    ),
    "no mapping": (
        lambda root: (root / "mapping.txt").unlink(),
        r"the mapping of classes .*mapping\.txt is missing",
    ),
    "video twice": (
        lambda root: replace_line(root / "splits" / "train.split1.bundle", 3, "v0.txt"),
        r"train\.split1\.bundle:3: the video 'v0' stands in line 1",
    ),
    "empty split": (
        lambda root: (root / "splits" / "train.split1.bundle").write_text("\n\n"),
        r"train\.split1\.bundle names no videos",
    ),
    "no features": (
        lambda root: (root / "features").rename(root / "feat"),
        r"features, which .*train\.split1\.bundle needs, is missing; say where .* features=\.\.\.",
    ),
}


@pytest.mark.parametrize("case", WHOLE_SET)
def test_damage_of_the_whole_set(split: Path, case: str) -> None:
    spoil, says = WHOLE_SET[case]
    spoil(root_of(split))
    with pytest.raises(DataError, match=says):
        DatasetCatalog.get(str(split))


@pytest.mark.parametrize("trim", [False, True])
def test_transposed_set_is_recognised(tmp_path: Path, trim: bool) -> None:
    split = make_layout(tmp_path / "a", transposed=True)
    if trim:  # no file fits its labels any more, but all have 6 rows
        for path in (tmp_path / "a" / "groundTruth").iterdir():
            write_lines(path, path.read_text().splitlines()[:-1])
    with pytest.raises(DataError, match=r"hold(s)? \(features, frames\).*transpose=1: .*transp"):
        SplitFile(str(split), trim=trim)()
    split = make_layout(tmp_path / "b")
    with pytest.raises(DataError, match=r"holds \(frames, features\).*leave out the option"):
        SplitFile(str(split), transpose=True)()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("trm=1", r"has no option 'trm'; did you mean trim\?"),
        ("trim=maybe", r"trim is 'maybe'; give 1 or 0"),
        ("frame_rate=-3", r"frame_rate is '-3'; give frames per second"),
        ("trim", r"'trim' is no option; write key=value after '\?'"),
        ("trim=1&trim=0", r"the option 'trim' is given twice"),
        ("labels=coarse", r"coarse, which .* needs, is missing; say where .* labels=\.\.\."),
    ],
)
def test_wrong_options(split: Path, options: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        DatasetCatalog.get(f"{split}?{options}")


def test_public_sets_tell_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    for name in ("breakfast_split4_train", "50salads_split5_test", "epic_kitchens_split1_train"):
        assert DatasetCatalog.registered(name).evaluator == "action_segmentation"
    with pytest.raises(DataError) as caught:
        DatasetCatalog.require("gtea_split2_test")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}/gtea/splits/test.split2.bundle is missing; expected")
    assert "    gtea/groundTruth/<video>.txt" in lines
    assert "zenodo.org/records/3625992" in lines[-1]
    with pytest.raises(DataError, match=r"nearest: .*breakfast_split4_train"):
        DatasetCatalog.get("breakfast_split5_train")


def test_public_set_is_read_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    make_layout(tmp_path / "gtea", transposed=True)
    truth = tmp_path / "gtea" / "groundTruth" / "v0.txt"
    write_lines(truth, truth.read_text().splitlines()[:-1])
    records = DatasetCatalog.get("gtea_split1_train")
    assert [record["length"] for record in records] == [19, 21, 22]
    assert records[0]["frame_rate"] == 15.0
    assert DatasetCatalog.metadata("gtea_split1_train").classes == list(CLASSES)


def test_splits_beside_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    split = make_layout(tmp_path / "egoprocel")
    split.rename(tmp_path / "egoprocel" / "split1.train")
    assert len(DatasetCatalog.get("egoprocel_split1_train")) == 3


def test_names_need_no_torch(split: Path) -> None:
    code = (
        "import sys\n"
        "from vidseg.projects.fact_clip import actions_synthetic, public_sets\n"
        "from vidseg.data import DatasetCatalog\n"
        f"assert DatasetCatalog.metadata({str(split)!r}).classes\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
