"""Where pairs of verb and noun come from, and what is said of files that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidseg.errors import ConfigError, DataError
from vidseg.projects.fact_clip.verb_noun_pairs import VerbNounPairs, read_pairs

NAMES = "class,verb,noun\ntake cup,take,cup\npour tea,pour,tea\npour cup,pour,cup\nrest,none,none\n"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.fixture
def epic(tmp_path: Path) -> Path:
    folder = tmp_path / "processed"
    write(
        folder,
        mapping="0 none,none\n1 take,cup\n2 pour,tea",
        verb_mapping="0 none\n7 pour\n1 take",
        noun_mapping="0 none\n2 cup\n5 tea\n9 unused\n",
    )
    return folder


def test_names_are_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(NAMES)
    pairs = read_pairs(str(path))
    assert pairs == VerbNounPairs((2, 1, 1, 0), (0, 2, 0, 1), 3, 3)
    lines = NAMES.splitlines()
    path.write_text("\r\n".join([lines[0], *reversed(lines[1:])]))
    assert read_pairs(str(path), ["take cup", "pour tea", "pour cup", "rest"]) == pairs


def test_numbers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("noun,class,verb\n4,take cup,0\n1, rest , 2\n")
    assert read_pairs(str(path), ["rest", "take cup"]) == VerbNounPairs((2, 0), (1, 4), 3, 5)


def test_classes_decide_which_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(NAMES)
    assert read_pairs(str(path), ["pour cup"]) == VerbNounPairs((1,), (0,), 3, 3)


def test_the_numbers_of_a_folder_are_kept(epic: Path) -> None:
    expected = VerbNounPairs((0, 1, 7), (0, 2, 5), 8, 10)
    assert read_pairs(str(epic)) == expected
    assert read_pairs(str(epic), ["none,none", "take,cup", "pour,tea"]) == expected


def test_relative_paths_lie_below_the_data_sets(
    epic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEG_DATASETS", str(epic.parent))
    assert len(read_pairs("processed")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,verb\na,b\n", r"pairs.csv:1: the column noun is missing"),
        ("class,verb,noun\n", "names no classes"),
        (NAMES + "take cup,take,cup\n", r"pairs.csv:6: the class 'take cup' has a line already"),
        (NAMES + "take tea,take\n", r"pairs.csv:6: the noun is missing"),
        (NAMES + "take tea,3,tea\n", "the verb 'take' is a name, others are numbers"),
    ],
)
def test_a_broken_file_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(str(path))


def test_a_class_that_is_not_there_is_named(tmp_path: Path, epic: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(NAMES)
    with pytest.raises(DataError, match="no line for the class 'take cop'; nearest: take cup"):
        read_pairs(str(path), ["take cop"])
    with pytest.raises(DataError, match="no noun 'cop' of the class 'take,cop'; nearest: cup"):
        read_pairs(str(epic), ["take,cop"])
    with pytest.raises(DataError, match="'take cup' is not called '<verb>,<noun>'"):
        read_pairs(str(epic), ["take cup"])
    with pytest.raises(DataError, match=r"none.csv is missing \(config: FACT.verb_noun\)"):
        read_pairs(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"FACT.verb_noun is empty; name a csv file"):
        read_pairs("")


def test_pairs_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="verb 2 is not one of 2, 0 to 1"):
        VerbNounPairs((2,), (0,), 2, 1)
    with pytest.raises(ValueError, match="1 verbs and 0 nouns"):
        VerbNounPairs((1,), (), 2, 1)
    with pytest.raises(ValueError, match="0 verbs and 0 nouns"):
        VerbNounPairs.of([])
