"""Files that runs elsewhere left: of NumPy 1 and 2, with numbers or configs beside the weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yacs.config
from fvcore.common.config import CfgNode

from vidseg.checkpoint import read_state_dict
from vidseg.checkpoint.files import read_checkpoint
from vidseg.errors import DataError


def old_and_new(path: Path) -> list[Path]:
    """Gives the file as NumPy 2 writes it, and as NumPy 1 wrote it."""
    content = path.read_bytes()
    assert b"numpy._core." in content
    older = path.with_name(f"older_{path.name}")
    older.write_bytes(content.replace(b"numpy._core.", b"numpy.core."))
    return [path, older]


def test_numbers_and_arrays_of_either_numpy(tmp_path: Path) -> None:
    content = {
        "model": {"w": torch.arange(3.0), "a": np.arange(6, dtype=">f4").reshape(2, 3)},
        "iteration": np.int64(7),
        "history": [np.float32(0.5), (np.zeros(0), {"text": np.array(["a"])})],
    }
    path = tmp_path / "run.pth"
    # The older form has no checksums, which the change would break.
    torch.save(content, path, _use_new_zipfile_serialization=False)
    for file in old_and_new(path):
        state = read_state_dict(file)
        assert torch.equal(state["w"], torch.arange(3.0))
        assert torch.equal(state["a"], torch.arange(6.0).view(2, 3))
        read = read_checkpoint(file)
        assert read["iteration"] == 7
        assert read["history"][0] == np.float32(0.5)
        assert read["history"][1][0].shape == (0,)
        assert read["history"][1][1]["text"] is None  # no numbers


def test_a_model_zoo_file_of_either_numpy(tmp_path: Path) -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.float64(2)}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "a test"}, protocol=2))
    for file in old_and_new(path):
        state = read_state_dict(file)
        assert torch.equal(state["w"], torch.arange(6.0).view(2, 3))
        assert state["n"] == 2


@pytest.mark.parametrize("node", [CfgNode, yacs.config.CfgNode])
def test_the_config_of_a_run_is_a_dict(tmp_path: Path, node: Any) -> None:
    cfg = node({"SOLVER": {"STEPS": [1, 2]}, "OUTPUT_DIR": "here"})
    cfg.freeze()
    torch.save(
        {"model": {"w": torch.ones(2)}, "cfg": cfg, "best": np.float64(1)}, tmp_path / "r.pt"
    )
    read = read_checkpoint(tmp_path / "r.pt")
    assert read["cfg"] == {"SOLVER": {"STEPS": [1, 2]}, "OUTPUT_DIR": "here"}
    assert type(read["cfg"]["SOLVER"]) is dict
    assert list(read_state_dict(tmp_path / "r.pt")) == ["w"]


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_else_is_let_in_with_them(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "executed", tmp_path / "evil.pth"
    known = set(torch.serialization.get_safe_globals())
    for evil in (
        _Calls(os.system, f"touch {mark}"),
        np.array([_Calls(os.system, f"touch {mark}")], dtype=object),
        _Calls(np.fromfile, str(mark)),
        Path("x"),
    ):
        torch.save(
            {"model": {"w": torch.ones(1)}, "n": np.int64(1), "cfg": CfgNode({}), "evil": evil},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        with pytest.raises(DataError, match=r"evil\.pth holds Python objects besides tensors"):
            read_state_dict(path)
        assert not mark.exists()
    # What was let in for one file is not let in for good.
    assert set(torch.serialization.get_safe_globals()) == known


def test_lying_numbers_are_damaged(tmp_path: Path) -> None:
    scalar = np.int64(1).__reduce__()[0]
    for content in (b"123", 8):
        lie = _Calls(scalar, np.dtype("i8"), content)
        torch.save({"w": torch.ones(1), "n": lie}, tmp_path / "w.pth")
        with pytest.raises(DataError, match=r"w\.pth is damaged"):
            read_state_dict(tmp_path / "w.pth")
