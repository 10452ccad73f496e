from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidseg.errors import ConfigError
from vidseg.projects.fact_clip.mapper import ActionFrameMapper
from vidseg.projects.fact_clip.network import FactNetwork
from vidseg.projects.fact_clip.settings import BlockSettings, FactSettings
from vidseg.projects.fact_clip.warping import warp_frames

LABELS = np.repeat([0, 3, 1, 3], [5, 20, 1, 40])


def runs(labels: np.ndarray) -> list[int]:
    return labels[np.r_[True, labels[1:] != labels[:-1]]].tolist()


@pytest.mark.parametrize(("whole", "segment"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.7), (2.0, 2.0)])
def test_order_of_frames_and_segments_stays(whole, segment):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        frames = warp_frames(LABELS, whole=whole, segment=segment, rng=rng)
        assert (np.diff(frames) >= 0).all()
        assert frames.min() >= 0
        assert frames.max() < len(LABELS)
        assert runs(LABELS[frames]) == runs(LABELS)


def test_without_warp_every_frame_comes_once():
    frames = warp_frames(LABELS, whole=0.0, segment=0.0, rng=np.random.default_rng(0))
    assert frames.tolist() == list(range(len(LABELS)))


def test_durations_cover_the_range_of_speeds_and_no_more():
    shares = np.array(
        [
            len(warp_frames(np.zeros(1000), whole=0.5, segment=0.0, rng=np.random.default_rng(s)))
            for s in range(200)
        ]
    )
    assert 600 < shares.min() < 700
    assert 1500 < shares.max() < 1655


def test_segments_vary_by_themselves():
    labels = np.repeat([0, 1], 500)
    counts = [
        np.bincount(
            labels[warp_frames(labels, whole=0.0, segment=0.5, rng=np.random.default_rng(s))]
        )
        for s in range(100)
    ]
    first, second = np.array(counts).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3
    assert first.std() > 100


def test_mapper_warps_everything_alike(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(len(LABELS), dtype=np.float32)[:, None])
    record = {
        "video_id": "a",
        "file_names": [str(tmp_path / "a.npy")],
        "lengths": [len(LABELS)],
        "length": len(LABELS),
        "feature_dim": 1,
        "json_file": "",
        "labels": LABELS.tolist(),
    }
    mapper = ActionFrameMapper(is_train=True, warp=0.3, segment_warp=0.3)
    sample = mapper(record, np.random.default_rng(3))
    frames = sample["features"][:, 0].long()
    assert len(frames) != len(LABELS)
    assert torch.equal(sample["labels"], torch.from_numpy(LABELS)[frames])
    assert list(sample["frame_indices"]) == frames.tolist()
    assert torch.equal(
        mapper(record, np.random.default_rng(3))["features"], sample["features"]
    )  # the draws are those of the generator alone


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_warps_out_of_range_are_refused(value):
    with pytest.raises(ConfigError, match=rf"FACT\.segment_warp is {value}"):
        ActionFrameMapper(segment_warp=value)


def test_noise_is_for_training_only():
    torch.manual_seed(0)
    block = BlockSettings("i", 12, 0.0, "sca", 2, 8, 1, 8, "m", 1, False, 8, 1)
    update = replace(block, kind="u", a="sa")
    network = FactNetwork(FactSettings((block, update), ntoken=4, cmr=0.0, noise=0.5), 5, 3)
    features = torch.randn(40, 5)

    def run() -> torch.Tensor:
        return network.run_blocks(features)[0].frame_logits

    assert not torch.equal(run(), run())
    network.eval()
    assert torch.equal(run(), run())
