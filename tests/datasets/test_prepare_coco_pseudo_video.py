"""Images become videos whose masks go along with what they show, and that a mapper can take."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidseg import rle
from vidseg.config import get_cfg
from vidseg.data import DatasetCatalog
from vidseg.data.checks import Effort, check_data_set
from vidseg.data.mappers import build_mapper
from vidseg.errors import DataError, UserError

HEIGHT, WIDTH = 96, 128
RED, BLUE = (230, 20, 20), (20, 20, 230)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images; in each a red polygon (dog) and a blue rectangle (bench)."""
    names = {18: "dog", 15: "bench", 1: "person"}
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": key, "name": name} for key, name in names.items()]
    (tmp_path / "images").mkdir()
    for image_id in (7, 9):
        pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
        shapes = {18: (slice(30, 60), slice(50, 90)), 15: (slice(20, 40), slice(20, 40))}
        for category, place in shapes.items():
            pixels[place] = RED if category == 18 else BLUE
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[place] = True
            top, left = place[0].start, place[1].start
            bottom, right = place[0].stop, place[1].stop
            polygon = [[left, top, right, top, right, bottom, left, bottom]]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": polygon if category == 18 else rle.to_text(rle.encode(mask)),
                    "iscrowd": int(category == 15),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                }
            )
        name = f"{image_id}.png"
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        size = {"height": HEIGHT, "width": WIDTH}
        content["images"].append({"id": image_id, "file_name": name, **size})
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path


def prepare(coco: Path, *arguments: object, out: str = "out") -> dict[str, Any]:
    script = importlib.import_module("prepare_coco_pseudo_video")
    folder = coco.parent / out
    words = [coco, "--images", coco.parent / "images", "--out", folder, *arguments]
    script.main([str(word) for word in words])
    content: dict[str, Any] = json.loads((folder / "instances.json").read_text())
    return content


def test_masks_go_along_with_the_picture(coco: Path) -> None:
    content = prepare(coco, "--frames", 5, "--max-angle", 30)
    findings = check_data_set(str(coco.parent / "out" / "instances.json"), Effort())
    assert [item for item in findings.items if item.severity == "error"] == []
    assert [one["name"] for one in content["categories"]] == ["person", "bench", "dog"]
    assert [one["length"] for one in content["videos"]] == [5, 5]
    seen = []
    for track in content["annotations"]:
        video = content["videos"][track["video_id"] - 1]
        assert track["iscrowd"] == (track["category_id"] == 2)
        for name, mask in zip(video["file_names"], track["segmentations"], strict=True):
            pixels = np.asarray(Image.open(coco.parent / "out" / name)).astype(int)
            assert pixels.shape == (HEIGHT, WIDTH, 3)
            assert pixels.max(axis=2).min() > 100, "nothing beyond the image is seen"
            first = pixels[..., 0] - pixels[..., 2]
            shown = (first if track["category_id"] == 3 else -first) > 100
            drawn = np.zeros_like(shown) if mask is None else rle.decode(rle.from_text(mask))
            assert (shown & drawn).sum() >= 0.93 * (shown | drawn).sum()
            seen.append(int(drawn.sum()))
    assert len(set(seen)) > len(seen) // 2, "the camera moves"


def test_training_takes_them(coco: Path) -> None:
    prepare(coco, "--target", "ytvis_2019")
    path = str(coco.parent / "out" / "instances.json")
    records = DatasetCatalog.get(path)
    assert len(records.classes) == 40
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.SAMPLING_FRAME_NUM = (64,), 3
    mapper = build_mapper(cfg, "video_instance", is_train=True)
    sample = mapper(records[0], np.random.default_rng(0))
    assert sample is not None
    assert sample["frames"].shape[0] == 3
    assert [records.classes[label] for label in sample["instances"].labels] == ["dog"]


def test_the_seed_decides_on_all(coco: Path) -> None:
    first, same = (prepare(coco, "--seed", 3, out=name) for name in ("a", "b"))
    assert first == same
    assert prepare(coco, "--seed", 4, out="c")["annotations"] != first["annotations"]
    one = prepare(coco, "--seed", 3, "--limit", 1, out="d")
    names = [video["file_names"] for video in first["videos"]]
    video_id = names.index(one["videos"][0]["file_names"]) + 1
    alone = [track["segmentations"] for track in one["annotations"]]
    tracks = [track for track in first["annotations"] if track["video_id"] == video_id]
    assert alone == [track["segmentations"] for track in tracks]


def test_classes_of_a_file_are_matched_by_name(coco: Path, capsys: Any) -> None:
    target = coco.parent / "target.json"
    target.write_text(
        json.dumps({"categories": [{"id": 5, "name": "Dog"}, {"id": 2, "name": "x"}]})
    )
    content = prepare(coco, "--target", target)
    assert [one["name"] for one in content["categories"]] == ["x", "Dog"]
    assert {one["category_id"] for one in content["annotations"]} == {2}
    assert (
        f"{coco.parent / 'out' / 'instances.json'}: 2 videos, 2 objects" in capsys.readouterr().out
    )


def test_what_cannot_be_used(coco: Path) -> None:
    for target, message in (
        ("ytvis2019", "--target ytvis2019: neither ytvis_2019, ytvis_2021, ovis nor a json file"),
        (str(coco.parent / "no.json"), "no.json does not exist"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(coco, "--target", target)
    content = json.loads(coco.read_text())
    content["categories"][0]["name"] = "tree"
    coco.write_text(json.dumps(content))
    with pytest.raises(DataError, match="category 18 is 'tree', in COCO it is 'dog'"):
        prepare(coco, "--target", "ovis")
    Image.new("RGB", (5, 5)).save(coco.parent / "images" / "9.png")
    with pytest.raises(DataError, match=r"9.png is 5 high and 5 wide, but stated to be 96 and 128"):
        prepare(coco)
    assert not (coco.parent / "out").exists()
    (coco.parent / "images" / "9.png").unlink()
    assert len(prepare(coco)["videos"]) == 1
    with pytest.raises(UserError, match="out is there already"):
        prepare(coco)
