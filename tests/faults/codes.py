"""Faults in what the commands of projects/rqvae are given: features and codes files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.ground import (
    Ground,
    Outcome,
    Survivor,
    choke,
    cut,
    fault,
    kept_files,
)
from tests.projects.rqvae.command_ground import CONFIG, SMALL, WIDTH, make_documents, save_weights

FEATURES = "Features of rqvae encode"
CODES = "Codes files of rqvae decode, search and report"


def others_are_encoded(ground: Ground) -> None:
    """the other documents: their codes are written"""
    from vidseg.projects.rqvae.codes_file import CodesFile

    assert len(list(CodesFile(ground.folder / "codes.rqc"))) == 5


def no_codes(ground: Ground) -> None:
    """everything: no codes file appeared, and an old one is untouched"""
    kept_files(ground)
    assert not list(ground.folder.glob(".*.tmp"))


def nothing_decoded(ground: Ground) -> None:
    """the codes file; no features were written"""
    kept_files(ground)
    assert not list((ground.folder / "rebuilt").rglob("*"))


def _rqvae(ground: Ground, name: str, *words: object) -> Outcome:
    from vidseg.projects.rqvae.__main__ import main

    weights = ground.folder / "codebooks.pth"
    if not weights.exists():
        save_weights(weights)
    model = ("--config-file", CONFIG, "--weights", weights)
    return ground.call(main, "rqvae", name, *model, *words, *SMALL)


def _codes(ground: Ground) -> Path:
    return ground.folder / "codes.rqc"


def _encode(ground: Ground, features: Path, *words: object) -> Outcome:
    return _rqvae(ground, "encode", "--input", features, "--output", _codes(ground), *words)


def _document_is(
    name: str, change: Callable[[Path], object], says: str, survives: Survivor = others_are_encoded
) -> None:
    @fault(FEATURES, name, says=says, code=1, survives=survives)
    def plant(ground: Ground) -> Outcome:
        features = make_documents(ground.folder / "features")
        change(features / "rain" / "d2.npy")
        return _encode(ground, features)


def _with_nan(path: Path) -> None:
    features = np.load(path)
    features[4] = np.nan
    np.save(path, features)


_document_is("NaN in a document", _with_nan, r"error: .*d2\.npy holds NaN or infinity")
_document_is(
    "a document without frames",
    lambda path: np.save(path, np.zeros((0, WIDTH), np.float32)),
    r"error: .*d2\.npy",
)
_document_is(
    "a document of another width",
    lambda path: np.save(path, np.zeros((40, WIDTH + 2), np.float32)),
    rf"d2\.npy has {WIDTH + 2} features per frame, but .* has {WIDTH}",
)
_document_is(
    "a document cut in half", lambda path: path.write_bytes(cut(path)), r"error: .*d2\.npy"
)


@fault(
    FEATURES,
    "features of another width than the model's",
    says=rf"features has {WIDTH} features per frame, the model takes 9",
    code=1,
    survives=no_codes,
)
def another_width(ground: Ground) -> Outcome:
    features = make_documents(ground.folder / "features")
    wide = tuple(word if word != str(WIDTH) else "9" for word in SMALL)
    from vidseg.projects.rqvae.__main__ import main

    weights = save_weights(ground.folder / "wide.pth", wide)
    words = ("--config-file", CONFIG, "--weights", weights, *wide)
    return ground.call(
        main, "rqvae", "encode", "--input", features, "--output", _codes(ground), *words
    )


@fault(
    FEATURES,
    "the disk is full while codes are written",
    says=r"codes\.rqc: .*too large|No space",
    code=1,
    survives=no_codes,
)
def full_disk(ground: Ground) -> Outcome:
    from vidseg.projects.rqvae import codes_file

    features = make_documents(ground.folder / "features")
    _codes(ground).write_bytes(b"an old file")
    ground.keep(_codes(ground))
    choke(ground.patch, codes_file, "write_codes")
    return _encode(ground, features)


@fault(
    FEATURES,
    "more levels than codebooks",
    says=r"--levels 4: the model has 3 codebooks",
    code=2,
    survives=no_codes,
)
def too_many_levels(ground: Ground) -> Outcome:
    return _encode(ground, make_documents(ground.folder / "features"), "--levels", 4)


def _codes_are(name: str, content: Callable[[Path], bytes], says: str) -> None:
    @fault(CODES, name, says=says, code=1, survives=nothing_decoded)
    def plant(ground: Ground) -> Outcome:
        assert _encode(ground, make_documents(ground.folder / "features")).code == 0
        ground.damage(_codes(ground), content(_codes(ground)))
        ground.keep(_codes(ground))
        return _decode(ground)


def _decode(ground: Ground) -> Outcome:
    folder = ground.folder / "rebuilt"
    return _rqvae(ground, "decode", "--input", _codes(ground), "--output", folder)


def _flipped(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    return bytes(content)


_codes_are("a codes file cut in half", cut, r"codes\.rqc is cut off")
_codes_are("an empty codes file", lambda path: b"", r"codes\.rqc is no codes file")
_codes_are("text in place of codes", lambda path: b"<html>" * 99, r"codes\.rqc is no codes file")
_codes_are("one bit of the codes flipped", _flipped, r"codes\.rqc is damaged: the checksum")
_codes_are(
    "bytes after the codes",
    lambda path: path.read_bytes() + b"more",
    r"codes\.rqc is damaged: 4 bytes follow its end",
)


@fault(
    CODES,
    "codes of another model",
    says=r"codes\.rqc was made with other codebooks .* than the model has",
    code=1,
    survives=nothing_decoded,
)
def another_model(ground: Ground) -> Outcome:
    assert _encode(ground, make_documents(ground.folder / "features")).code == 0
    ground.keep(_codes(ground))
    save_weights(ground.folder / "codebooks.pth", seed=1)
    return _decode(ground)


@fault(
    CODES,
    "a query that is not there",
    says=r"--query: .*codes\.rqc holds no document 'rain/d22'; nearest: rain/d2",
    code=1,
    survives=kept_files,
)
def unknown_query(ground: Ground) -> Outcome:
    assert _encode(ground, make_documents(ground.folder / "features")).code == 0
    ground.keep(_codes(ground))
    return _rqvae(ground, "search", "--codes", _codes(ground), "--query", "rain/d22")


@fault(
    CODES,
    "a report on a run that is none",
    says=r"--run .* is no run: it has no config\.yaml",
    code=1,
    survives=kept_files,
)
def no_run(ground: Ground) -> Outcome:
    from vidseg.projects.rqvae.__main__ import main

    return ground.call(main, "rqvae", "report", "--run", ground.folder / "nowhere")
