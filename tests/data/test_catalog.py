from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vidseg.data.catalog import Catalog, DatasetCatalog, Records
from vidseg.data.categories import FAMILIES, category_map
from vidseg.data.path_formats import PathFormat, split_options
from vidseg.errors import DataError


def test_published_names_are_known_with_their_classes() -> None:
    for name, count in (("ytvis_2019_train", 40), ("ytvis_2022_val", 40), ("ovis_val", 25)):
        assert len(DatasetCatalog.metadata(name).classes) == count
    assert "coco2ytvis2021_train" in DatasetCatalog
    assert DatasetCatalog.metadata("ovis_val").evaluator == "ytvis"
    assert DatasetCatalog.registered("coco2ytvis2021_val").evaluator == ""
    assert "shapes_vis_standard_train" in DatasetCatalog


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/old")
    assert DatasetCatalog.metadata("ovis_val").image_root == "/old/ovis/valid"
    monkeypatch.setenv("VIDSEG_DATASETS", "/new")
    assert DatasetCatalog.metadata("ovis_val").json_file.startswith("/new/ovis/annotations/")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "ytvis_2021_val",
            [
                "{root}/ytvis_2021/valid.json is missing; expected below .*:",
                "    ytvis_2021/valid.json",
                "    ytvis_2021/valid/JPEGImages/<video>/00000.jpg",
                "to prepare it, get it from http.*rename valid/instances.json to valid.*",
            ],
        ),
        (
            "coco2ovis_train",
            [
                "{root}/coco/annotations/coco2ovis_train.json is missing; expected .*:",
                "    coco/annotations/coco2ovis_train.json",
                "    coco/train2017/000000000009.jpg",
                "to prepare it, .* run: python datasets/prepare_coco_to_vis.py ovis; see .*",
            ],
        ),
    ],
)
def test_missing_public_set_tells_what_is_expected_and_how_to_get_it(
    name: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    for look in (DatasetCatalog.get, DatasetCatalog.require):
        with pytest.raises(DataError) as caught:
            look(name)
        told = str(caught.value).splitlines()
        assert len(told) == len(lines)
        for line, pattern in zip(told, lines, strict=True):
            assert re.fullmatch(pattern.replace("{root}", re.escape(str(tmp_path))), line), line


def test_missing_frames_of_a_public_set_are_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    (tmp_path / "ovis" / "annotations").mkdir(parents=True)
    (tmp_path / "ovis" / "annotations" / "annotations_valid.json").write_text("{}")
    with pytest.raises(DataError, match=r"ovis/valid is missing; (?s:.*)<video>/img_0000001.jpg"):
        DatasetCatalog.require("ovis_val")


def test_what_is_there_under_another_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(tmp_path))
    (tmp_path / "ytvis_2021" / "valid").mkdir(parents=True)
    (tmp_path / "ytvis_2021" / "valid" / "instances.json").write_text("{}")
    told = r"valid.json is missing; ytvis_2021/valid/instances.json is there: rename it to \S+; exp"
    with pytest.raises(DataError, match=told):
        DatasetCatalog.require("ytvis_2021_val")


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'ovis_trian'.*nearest: ovis_train"):
        DatasetCatalog.get("ovis_trian")
    with pytest.raises(DataError, match=r"'ovis_trian'.*nearest: ovis_train"):
        DatasetCatalog.require("ovis_trian")
    with pytest.raises(DataError, match=r"no such file: nowhere\.json"):
        DatasetCatalog.resolve("nowhere.json")


def test_unknown_name_has_projects_loaded_and_known_ones_have_not() -> None:
    asked = []

    def load(catalog: Catalog, name: str) -> list[str]:
        asked.append(name)
        catalog.register("of_a_project", Records)
        return ["plugin 'other' failed to import"]

    catalog = Catalog(on_miss=load)
    catalog.register("mine", Records)
    assert catalog.resolve("mine") == "mine"
    with pytest.raises(DataError, match="no such file: nowhere/"):
        catalog.resolve("nowhere/a.json")
    assert not asked
    assert catalog.resolve("of_a_project") == "of_a_project"
    assert catalog.resolve("of_a_project") == "of_a_project"
    assert asked == ["of_a_project"]
    with pytest.raises(DataError, match=r"nearest: of_a_project; or give .*; plugin 'other' fail"):
        catalog.resolve("of_a_projekt")


def test_format_of_a_project_makes_its_files_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], []

    def reader(path: str, options: Mapping[str, str]) -> Callable[[], Records]:
        return lambda: read.append((path, dict(options))) or Records([{"video_id": 1}])

    lists = PathFormat((".lst",), reader, ("rate", "half"), {"item": "clip"})

    def load(catalog: Catalog, name: str) -> list[str]:
        asked.append(name)
        catalog.register_format(lists)
        return []

    catalog = Catalog(on_miss=load)
    file = tmp_path / "a.lst"
    with pytest.raises(DataError, match=r"no such file or folder: .*a\.lst$"):
        catalog.resolve(f"{file}?rate=2")
    file.touch()
    assert not asked
    name = catalog.resolve(f"{file}?rate=2&half=1")
    assert asked == [f"{file}?rate=2&half=1"]
    assert name == f"{file}?half=1&rate=2"  # the same in any order
    assert catalog.resolve(name) == name
    assert len(catalog.get(name)) == 1
    assert read == [(str(file), {"rate": "2", "half": "1"})]
    assert (catalog.metadata(str(file)).item, catalog.metadata(str(file)).root) == (
        "clip",
        str(tmp_path),
    )
    monkeypatch.chdir(tmp_path)
    assert catalog.resolve("a.lst?rate=2") == f"{file}?rate=2"
    with pytest.raises(DataError, match=r"a\.lst has no option 'rat'; did you mean rate\?"):
        catalog.resolve("a.lst?rat=2")
    catalog.register_format(lists)  # again, as when a project is loaded twice
    with pytest.raises(ValueError, match=r"\.lst have another format"):
        catalog.register_format(PathFormat((".txt", ".lst"), reader))


def test_options_of_paths(tmp_path: Path) -> None:
    assert split_options("a/b.lst?x=1&y=c/d=e&") == ("a/b.lst", {"x": "1", "y": "c/d=e"})
    assert split_options("a/b.lst") == ("a/b.lst", {})
    odd = tmp_path / "what?x=1"
    odd.mkdir()
    assert split_options(str(odd)) == (str(odd), {})
    with pytest.raises(DataError, match="'x' is no option; write key=value"):
        split_options("a.lst?x")
    with pytest.raises(DataError, match="'x' is given twice"):
        split_options("a.lst?x=1&x=1")
    (tmp_path / "videos").mkdir()
    with pytest.raises(DataError, match=r"videos takes no options, but '.*videos\?x=1' gives"):
        DatasetCatalog.resolve(f"{tmp_path / 'videos'}?x=1")


def test_files_know_better_than_the_registration() -> None:
    catalog = Catalog()
    records = Records([{}], about={"item": "document", "topics": ["a"], "feature_dim": 3})
    catalog.register("mine", lambda: records, item="video")
    assert catalog.registered("mine").item == "video"
    known = catalog.metadata("mine")
    assert (known.item, known.topics, known.feature_dim) == ("document", ["a"], 3)


def test_path_is_a_name(small_set) -> None:
    name = DatasetCatalog.resolve(str(small_set.path))
    assert len(DatasetCatalog.get(name)) == 2
    known = DatasetCatalog.metadata(str(small_set.path))
    assert known.classes == ["bar", "square"]
    assert known.category_ids == [3, 7]
    assert known.image_root.endswith("JPEGImages")


def test_file_names_its_frame_folder(small_set) -> None:
    (small_set.folder / "JPEGImages").rename(small_set.folder / "frames")
    small_set.write(lambda content: content.update(image_root="frames"))
    (record, _) = DatasetCatalog.get(str(small_set.path))
    assert record["file_names"][0].endswith("small/frames/v2/000.png")
    assert DatasetCatalog.metadata(str(small_set.path)).image_root.endswith("/frames")


def test_registering_twice() -> None:
    catalog = Catalog()

    def load() -> Records:
        return Records([], classes=["a"], category_ids=[1])

    catalog.register("mine", load)
    catalog.register("mine", load)
    with pytest.raises(ValueError, match="registered already"):
        catalog.register("mine", lambda: Records())
    catalog.register("mine", lambda: [], override=True, classes=["b"])
    assert catalog.metadata("mine").category_ids == [1]
    with pytest.raises(ValueError, match="unknown metadata"):
        catalog.register("other", load, clases=["a"])


def test_records_are_kept_only_while_used(small_set) -> None:
    records = DatasetCatalog.get(str(small_set.path))
    assert DatasetCatalog.get(str(small_set.path)) is records


def test_coco_classes_become_those_of_the_target() -> None:
    ovis = DatasetCatalog.metadata("ovis_train")
    source = type(ovis)("coco", ["person", "bicycle", "bench"], [1, 2, 15], family="coco")
    assert category_map(source, ovis).tolist() == [0, 20, -1]


def test_other_classes_are_matched_by_name() -> None:
    ovis = DatasetCatalog.metadata("ovis_train")
    other = DatasetCatalog.metadata("ytvis_2021_train")
    mapped = category_map(other, ovis)
    names = FAMILIES["ytvis_2021"]
    assert mapped[names.index("giant_panda")] == FAMILIES["ovis"].index("Giant_panda")
    assert mapped[names.index("flying_disc")] == -1
    nothing = type(ovis)("mine", ["gizmo"], [1])
    with pytest.raises(DataError, match=r"DATASET_NEED_MAP.*gizmo"):
        category_map(nothing, ovis)


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from vidseg.data import DatasetCatalog; DatasetCatalog.metadata('ovis_val');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
