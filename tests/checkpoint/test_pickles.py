"""Model-zoo pickles give their arrays and tensors; nothing in them is executed."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidseg.checkpoint import read_state_dict
from vidseg.errors import DataError


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "flags": np.array([True, False]),
        "single": np.float64(1.5),
        "nothing": np.zeros((0, 4), np.float16),
    }
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=protocol))
    state = read_state_dict(tmp_path / "w.pkl")
    assert list(state) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(state[name].numpy(), array), name
        assert state[name].shape == np.shape(array)


def test_arrays_without_numbers_are_left_out(tmp_path: Path) -> None:
    record = np.zeros(2, dtype=[("a", "f4"), ("b", object)])
    arrays = {"w": np.ones(2), "o": np.array([1, None]), "t": np.array(["a"]), "r": record}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays))
    assert list(read_state_dict(tmp_path / "w.pkl")) == ["w"]


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_tensors_of_every_kind(tmp_path: Path, protocol: int) -> None:
    whole = torch.arange(12.0)
    tensors = {
        "rows": whole.view(3, 4),
        "columns": whole.view(3, 4).t(),
        "part of the same memory": whole[5:7],
        "parameter": nn.Parameter(torch.ones(2)),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "counter": torch.tensor(7),
        "nothing": torch.zeros(0, 4),
    }
    content = {"model": tensors, "__author__": "converter", "matching_heuristics": True}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    state = read_state_dict(tmp_path / "w.pkl")
    assert list(state) == list(tensors)
    for name, tensor in tensors.items():
        assert type(state[name]) is Tensor, name
        assert state[name].dtype == tensor.dtype, name
        assert state[name].equal(tensor.detach()), name
        assert state[name].is_contiguous(), name


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def with_memory(content: Any, size: Any = (2,), stride: Any = (1,), offset: Any = 0) -> Calls:
    """Pickles as a tensor whose memory is what ``content`` says."""
    storage = Calls(torch.storage._load_from_bytes, content)
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def attack(name: str, mark: Path) -> bytes:
    import codecs
    import os

    command = f"touch {mark}"
    if name == "system":
        return pickle.dumps({"model": Calls(os.system, command)})
    if name == "nested in an array":
        return pickle.dumps({"w": np.array([Calls(os.system, command)], dtype=object)})
    if name == "by attribute":
        # STACK_GLOBAL with a dotted name reaches through what is allowed.
        return (
            b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93\x8c"
            + bytes([len(str(mark))])
            + str(mark).encode()
            + b"\x85R."
        )
    if name == "by codec":
        return pickle.dumps(Calls(codecs.encode, "x", "unicode_escape"))
    if name == "by state":
        # BUILD on the function itself: (None, {"__defaults__": ...}) are attributes to set.
        return b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__Ns\x86b."
    if name == "in the bytes of a tensor":
        inner = io.BytesIO()
        torch.save(Calls(os.system, command), inner, _use_new_zipfile_serialization=False)
        return pickle.dumps({"w": with_memory(inner.getvalue())})
    if name == "by state of a tensor":
        tensor = pickle.dumps(torch.ones(2), protocol=2)
        return tensor.removesuffix(b".") + b"}U\x08resolvedNsb."
    if name == "by reference":
        file = io.BytesIO()
        pickler = pickle.Pickler(file)
        pickler.persistent_id = lambda value: "elsewhere" if value == "w" else None  # type: ignore
        pickler.dump({"w": 1})
        return file.getvalue()
    return pickle.dumps({"model": Calls(eval, f"open({str(mark)!r}, 'w')")}, protocol=0)


@pytest.mark.parametrize(
    "name",
    [
        "system",
        "nested in an array",
        "by attribute",
        "by codec",
        "by state",
        "in the bytes of a tensor",
        "by state of a tensor",
        "by reference",
        "eval",
    ],
)
def test_nothing_is_executed(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "executed"
    (tmp_path / "evil.pkl").write_bytes(attack(name, mark))
    with pytest.raises(DataError, match=r"evil\.pkl .*(not loaded|not done)"):
        read_state_dict(tmp_path / "evil.pkl")
    assert not mark.exists()


def test_lying_array_is_damaged(tmp_path: Path) -> None:
    dtype = Calls(np.dtype, "f8")
    array = Calls(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b")
    lies = (((4,), b"12345678"), ((1 << 60,), b""), ("x", b"12345678"), ((1,), 8))
    for shape, content in lies:

        class Lying(Calls):
            def __reduce__(self, shape: Any = shape, content: Any = content) -> Any:
                return (*array.call, (1, shape, dtype, False, content))

        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": Lying(None)}))
        with pytest.raises(DataError, match=r"w\.pkl is damaged"):
            read_state_dict(tmp_path / "w.pkl")


def test_lying_tensor_is_damaged(tmp_path: Path) -> None:
    memory = torch.arange(4.0)._typed_storage().__reduce__()[1][0]
    no_memory = io.BytesIO()
    torch.save([1, 2], no_memory)
    for lie in (
        with_memory(memory, size=(5,)),
        with_memory(memory, offset=3),
        with_memory(memory, offset=-1),
        with_memory(memory, stride=(-1,)),
        with_memory(memory, size=(1 << 40,), stride=(0,)),
        with_memory(memory, size="2"),
        with_memory(memory[:-9]),
        with_memory(no_memory.getvalue()),
        with_memory(7),
        Calls(torch._utils._rebuild_tensor_v2, memory, 0, (2,), (1,), False, {}),
    ):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": lie}))
        with pytest.raises(DataError, match=r"w\.pkl .*damaged"):
            read_state_dict(tmp_path / "w.pkl")


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_endless_and_shared_content_ends(tmp_path: Path, suffix: str) -> None:
    endless: dict[str, Any] = {"w": torch.ones(1) if suffix == ".pth" else np.ones(1)}
    endless["model"] = endless
    shared: Any = []
    for _ in range(60):
        shared = [shared, shared]
    write = (
        torch.save
        if suffix == ".pth"
        else lambda value, path: path.write_bytes(pickle.dumps(value))
    )
    write({"w": endless["w"], "more": shared}, tmp_path / f"shared{suffix}")
    assert list(read_state_dict(tmp_path / f"shared{suffix}")) == ["w"]
    write(endless, tmp_path / f"endless{suffix}")
    if suffix == ".pkl":
        with pytest.raises(DataError, match="damaged"):
            read_state_dict(tmp_path / "endless.pkl")
    else:
        assert list(read_state_dict(tmp_path / "endless.pth")) == ["w"]
