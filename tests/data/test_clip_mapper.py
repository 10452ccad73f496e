from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vidseg.config import get_cfg
from vidseg.data.augmentation import ClipAugmentation
from vidseg.data.clip_mapper import ClipMapper, PseudoClipMapper
from vidseg.data.frame_files import load_frames
from vidseg.data.mappers import Rejected, build_mapper
from vidseg.data.ytvis import load_ytvis_json
from vidseg.errors import DataError, UserError


def _records(small_set: Any) -> Any:
    return load_ytvis_json(small_set.path, small_set.folder / "JPEGImages")


def _mapper(num_frames: int = 3, kind: type[ClipMapper] = ClipMapper, **kwargs: Any) -> ClipMapper:
    augmentation = ClipAugmentation((0,), 1000, flip="none")
    reach = (num_frames - 1) // 2
    return kind(augmentation, num_frames=num_frames, reach=reach, **kwargs)


def test_training_sample(small_set) -> None:
    record = _records(small_set)[1]
    sample = _mapper()(record, np.random.default_rng(1))
    assert not isinstance(sample, Rejected)
    assert sample["frames"].shape == (3, 3, 24, 32)
    assert sample["frames"].dtype == torch.uint8
    assert sample["frames"].is_contiguous()
    first = sample["frame_indices"][0]
    assert sample["file_names"][0] == record["file_names"][first]
    assert (sample["length"], sample["video_id"]) == (6, 4)
    instances = sample["instances"]
    square = instances[instances.labels == 1]
    for t, index in enumerate(sample["frame_indices"]):
        assert torch.equal(square.masks[0, t], sample["frames"][t, 0] == 200)
        assert square.masks[0, t].nonzero().amin(0).tolist() == [4, 2 + index]
    assert torch.equal(instances.present, instances.masks.flatten(2).any(2))


def test_same_generator_same_sample(small_set) -> None:
    record = _records(small_set)[1]
    augmentation = ClipAugmentation((20, 30, 40), 100, extra=("rotation", "contrast"))
    mapper = ClipMapper(augmentation, num_frames=3, reach=1)
    a, b, c = (mapper(record, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert not isinstance(a, Rejected)
    assert not isinstance(b, Rejected)
    assert not isinstance(c, Rejected)
    assert torch.equal(a["frames"], b["frames"])
    assert torch.equal(a["instances"].masks, b["instances"].masks)
    assert a["frames"].shape != c["frames"].shape or not torch.equal(a["frames"], c["frames"])


def test_video_of_one_frame_is_repeated(small_set) -> None:
    sample = _mapper(5)(_records(small_set)[0], np.random.default_rng(0))
    assert not isinstance(sample, Rejected)
    assert sample["frame_indices"] == [0] * 5
    assert sample["instances"].present.all()


def test_crowds_and_unmapped_classes_are_left_out(small_set) -> None:
    small_set.write(lambda content: content["annotations"][0].update(iscrowd=1))
    record = _records(small_set)[1]
    sample = _mapper(5)(record, np.random.default_rng(0))
    assert not isinstance(sample, Rejected)
    assert sample["instances"].labels.tolist() == [0]
    unmapped = _mapper(5, category_map=np.array([-1, 0]))
    assert isinstance(unmapped(record, np.random.default_rng(0)), Rejected)


def test_nothing_visible_gives_no_sample(small_set) -> None:
    record = _records(small_set)[1]
    empty = {**record, "annotations": [[]] * 6}
    nothing = Rejected("no object is visible")
    assert _mapper()(empty, np.random.default_rng(0)) == nothing
    assert _mapper(kind=PseudoClipMapper)(empty, np.random.default_rng(0)) == nothing


def test_object_outside_the_crop_is_dropped(small_set) -> None:
    from vidseg.data.augmentation import RandomCrop

    crop = RandomCrop("absolute", (6, 6), min_sizes=(), probability=1.0)
    mapper = ClipMapper(ClipAugmentation((0,), 99, crop=crop), num_frames=3, reach=1)
    counts = set()
    for seed in range(40):
        sample = mapper(_records(small_set)[1], np.random.default_rng(seed))
        if not isinstance(sample, Rejected):
            counts.add(len(sample["instances"]))
            assert sample["instances"].present.any(1).all()
    assert counts == {1}


def test_pseudo_clip(small_set) -> None:
    def polygon(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentations"] = [[[4, 4, 20, 4, 20, 16, 4, 16]]] * 6

    small_set.write(polygon)
    augmentation = ClipAugmentation((48,), 200, extra=("rotation",), moving_rotation=True)
    mapper = PseudoClipMapper(augmentation, num_frames=4, reach=20)
    sample = mapper(_records(small_set)[1], np.random.default_rng(2))
    assert not isinstance(sample, Rejected)
    assert sample["frames"].shape == (4, 3, 48, 64)
    assert not torch.equal(sample["frames"][0], sample["frames"][3])
    assert len(set(sample["file_names"])) == 1
    assert max(sample["frame_indices"]) < sample["length"]
    assert sample["instances"].masks.shape[1] == 4


def test_test_mode_gives_all_frames(small_set) -> None:
    mapper = ClipMapper(None, test_size=12, max_test_size=1000)
    record = _records(small_set)[1]
    sample = mapper(record, np.random.default_rng(0))
    assert not isinstance(sample, Rejected)
    assert sample["frames"].shape == (6, 3, 12, 16)
    assert (sample["height"], sample["width"]) == (24, 32)
    assert "instances" not in sample
    assert load_frames(record, [5, 0]).shape == (2, 3, 24, 32)


def test_missing_and_unreadable_frames(small_set) -> None:
    record = _records(small_set)[1]
    path = small_set.frame(0, 2)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"v4/002.png cannot be read"):
        load_frames(record, [2])
    path.unlink()
    with pytest.raises(DataError, match=r"v4/002.png is missing; video 4 in .*file_names\[2\]"):
        load_frames(record, [2])


def test_frame_of_another_size(small_set) -> None:
    Image.new("RGB", (10, 12)).save(small_set.frame(0, 3))
    message = r"v4/003.png is 12 high and 10 wide, but video 4 in .* says height 24 and width 32"
    with pytest.raises(DataError, match=message):
        load_frames(_records(small_set)[1], [3])


def test_broken_mask(small_set) -> None:
    path = small_set.write()
    record = _records(small_set)[1]
    for frame in record["annotations"]:
        frame[0]["segmentation"] = {"size": [24, 32], "counts": [5]}
    with pytest.raises(
        DataError, match=r"annotation 1, frame 0: segmentation: .*covers 5 pixels"
    ) as e:
        _mapper(5)(record, np.random.default_rng(0))
    assert path in str(e.value)


def test_built_from_config(small_set) -> None:
    cfg = get_cfg()
    cfg.INPUT.CROP.ENABLED = True
    mapper = build_mapper(cfg, "video_instance", is_train=True)
    assert mapper.augmentation.crop.kind == "absolute_range"
    assert mapper.augmentation.crop.min_sizes == (400, 500, 600)
    assert build_mapper(cfg, "image_instance", is_train=True).augmentation.moving_rotation
    assert build_mapper(cfg, "video_instance", is_train=False).augmentation is None
    with pytest.raises(UserError, match=r"DATASET_TYPE: .*'video_instances'.*video_instance"):
        build_mapper(cfg, "video_instances", is_train=True)
