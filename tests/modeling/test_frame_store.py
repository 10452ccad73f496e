"""Keepings of a video's frames: exact, bounded, gone with the process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vidseg.errors import ResourceError
from vidseg.modeling.meta_arch import FrameStore, KeepingSpace, SequenceBuffer

KEY = "MODEL.SOME.MEMORY_MB"
MIB = 2**20


def tensors(count: int = 6) -> list[Tensor]:
    """Of all kinds, among them empty ones and slices of something larger."""
    random = torch.Generator().manual_seed(0)
    whole = torch.randn(count, 4, 9, 5, generator=random)
    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
    made = [frame.permute(1, 2, 0).to(kinds[t % 5]) for t, frame in enumerate(whole)]
    return [*made, torch.zeros(0, 7), torch.tensor([[1.5, float("nan"), float("-inf")]])]


@pytest.mark.parametrize("memory_mb", [0, 0.001, 64])
def test_what_comes_out_is_what_went_in(memory_mb: float) -> None:
    store = FrameStore(KeepingSpace(memory_mb, KEY))
    given = tensors()
    for values in given:
        store.append(values)
    assert len(store) == len(given)
    for frame in (3, 0, *range(len(given))):
        found = store[frame]
        assert found.dtype == given[frame].dtype
        torch.testing.assert_close(found, given[frame], atol=0, rtol=0, equal_nan=True)


def test_memory_is_used_up_first_and_again_after_a_drop() -> None:
    space = KeepingSpace(1, KEY)
    store, other = FrameStore(space), FrameStore(space)
    half = torch.zeros(MIB // 8)  # 4 bytes each
    for store_of in (store, other, store):
        store_of.append(half)
    assert space.file_bytes == MIB // 2  # the third one: both stores share the bound
    store.drop(0)
    other.append(half)
    assert space.file_bytes == MIB // 2
    assert len(other.stacked(range(2))) == 2


def test_a_window_is_not_kept_alive_by_its_frames() -> None:
    store = FrameStore(KeepingSpace(1, KEY))
    window = torch.zeros(5, 100)
    store.append(window[0])
    assert store[0].untyped_storage().nbytes() == 400


@pytest.mark.parametrize("memory_mb", [0, 64])
def test_sequences_are_read_and_written_along_both_axes(memory_mb: float) -> None:
    expected = torch.randn(5, 7, 3)
    space = KeepingSpace(memory_mb, KEY)
    FrameStore(space).append(torch.ones(3))  # something lies before it
    buffer = SequenceBuffer((5, 7, 3), dtype=torch.float32, device=expected.device, space=space)
    for t in range(7):
        buffer.write_frames(t, expected[None, :, t])
    assert torch.equal(buffer.instances(0, 5), expected)
    assert torch.equal(buffer.instances(2, 4), expected[2:4])
    assert torch.equal(buffer.frames(3, 6), expected[:, 3:6].transpose(0, 1))
    part = buffer.instances(1, 3) * 2
    buffer.write_instances(1, part)
    buffer.write_frames(6, torch.zeros(1, 5, 3))
    expected[1:3] *= 2
    expected[:, 6] = 0
    assert torch.equal(buffer.instances(0, 5), expected)


def test_a_full_disk_is_one_sentence_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))
    store = FrameStore(KeepingSpace(1, KEY))
    store.append(torch.zeros(MIB // 4))
    with pytest.raises(ResourceError, match=rf"No space left.*3 MiB.*TMPDIR.*{KEY}") as raised:
        store.append(torch.zeros(3 * MIB // 4))
    assert "\n" not in str(raised.value)
    assert store[0].shape == (MIB // 4,)


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import os, signal, torch\n"
        "from vidseg.modeling.meta_arch import FrameStore, KeepingSpace\n"
        "store = FrameStore(KeepingSpace(0, 'KEY'))\n"
        "store.append(torch.ones(100000))\n"
        "assert os.listdir(os.environ['TMPDIR']) == []\n"
        "assert store[0].sum() == 100000\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert list(tmp_path.iterdir()) == []
