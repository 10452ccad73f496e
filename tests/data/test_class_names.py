"""Lists of class names: both forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.data.class_names import read_class_names
from vidseg.errors import DataError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cut tomato\n\n  peel \n", ["cut tomato", "peel"]),
        ("\ufeffa\r\nb", ["a", "b"]),
        ("1 cut_tomato\n0 background\n", ["background", "cut_tomato"]),
        ("0\tpour two cups\n", ["pour two cups"]),
        ("2 cups\nplate\n", ["2 cups", "plate"]),
    ],
)
def test_names_in_order(text: str, names: list[str], tmp_path: Path) -> None:
    assert read_class_names(written(tmp_path, text)) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "holds no class names"),
        ("a\nb\n\na\n", r"txt:4 names the class 'a' again, as line 1"),
        ("0 a\n1 a\n", r"txt:2 names the class 'a' again, as line 1"),
        ("0 a\n0 b\n", r"txt:2 gives the number 0 again, as line 1"),
        ("0 a\n2 b\n", r"txt:2 gives the number 2, but 2 classes have the numbers 0 to 1"),
    ],
)
def test_lists_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_class_names(written(tmp_path, text))


def test_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        read_class_names(tmp_path / "gone.txt")
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"classes.txt is no text"):
        read_class_names(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_class_names(tmp_path)
