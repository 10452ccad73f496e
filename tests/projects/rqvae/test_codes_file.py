"""Codes files: what is written comes back, and nothing that is read is believed."""

from __future__ import annotations

import json
import re
import struct
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vidseg.errors import DataError
from vidseg.projects.rqvae.codes_file import CodesFile, read_codes, write_codes
from vidseg.projects.rqvae.codes_header import CodesHeader, codebook_sha256, parse_header
from vidseg.projects.rqvae.documents import DocumentCodes

HEADER = CodesHeader(
    codebook_size=512,
    num_codebooks=8,
    num_levels=8,
    window_size=25,
    stride=12,
    window_mode="same",
    frame_rate=50.0,
    input_dim=1024,
    codebook_sha256="ab" * 32,
)


def document(name: str, num_frames: int, header: CodesHeader = HEADER) -> DocumentCodes:
    rng = torch.Generator().manual_seed(num_frames)
    shape = (header.num_windows(num_frames), header.num_levels)
    codes = torch.randint(header.codebook_size, shape, generator=rng)
    mask = torch.rand(shape[0], generator=rng) < 0.8
    codes[~mask] = -1
    return DocumentCodes(codes, mask, num_frames, {"id": name})


def documents(count: int, header: CodesHeader = HEADER) -> list[DocumentCodes]:
    return [document(f"größe/{number}", 1 + 37 * number, header) for number in range(count)]


def same(one: DocumentCodes, other: DocumentCodes) -> bool:
    return (
        torch.equal(one.codes, other.codes)
        and one.codes.dtype == other.codes.dtype == torch.int64
        and torch.equal(one.window_mask, other.window_mask)
        and (one.num_frames, one.meta) == (other.num_frames, other.meta)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"codebook_size": 2},
        {"codebook_size": 1000},
        {"codebook_size": 1 << 20, "num_levels": 3},
        {"window_mode": "tail", "window_size": 50, "stride": 25},
        {"window_mode": "global", "window_size": 0, "stride": 0, "frame_rate": 29.97},
    ],
)
def test_there_and_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    header, path = replace(HEADER, **changes), tmp_path / "codes.rqc"
    written = documents(20, header)
    assert write_codes(path, iter(written), header) == 20
    codes = read_codes(path)
    assert codes.header == replace(header, num_documents=20)
    assert len(codes) == 20
    for _ in range(2):
        assert all(map(same, codes, written))
    assert list(codes.ids()) == [one.meta["id"] for one in written]
    found = codes.find("größe/7")
    assert found is not None
    assert same(found, written[7])
    assert codes.find("größe/99") is None
    assert [file.name for file in tmp_path.iterdir()] == ["codes.rqc"]


def test_the_layout_is_the_one_that_is_described(tmp_path: Path) -> None:
    header = replace(HEADER, codebook_size=5, num_codebooks=4, num_levels=2, stride=25)
    codes = torch.tensor([[4, 0, 1, 1], [-1, -1, -1, -1], [3, 2, 1, 1]])
    mask = torch.tensor([True, False, True])
    path = tmp_path / "codes.rqc"
    write_codes(path, [DocumentCodes(codes, mask, 70, {"id": "ä"})], header)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 4)
    fields = json.loads(data[8 : 8 + length])
    assert data[:4] == b"RQC1"
    assert next(iter(fields)) == "version"
    assert fields["num_documents"] == fields["version"] == 1
    assert fields["num_levels"] == 2
    payload = data[8 + length : -4]
    stream = 4 | 0 << 3 | 3 << 12 | 2 << 15  # three bits each; the masked window has zeros
    expected = (
        struct.pack("<H2sII", 2, "ä".encode(), 70, 3) + b"\x05" + stream.to_bytes(3, "little")
    )
    assert payload == expected
    assert data[-4:] == struct.pack("<I", zlib.crc32(payload))


def test_a_header_without_its_own_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "codes.rqc"
    write_codes(path, documents(3), HEADER)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 4)
    fields = json.loads(data[8 : 8 + length])
    del fields["header_crc32"]
    text = json.dumps(fields, indent=1).encode()
    path.write_bytes(b"RQC1" + struct.pack("<I", len(text)) + text + data[8 + length :])
    assert len(list(read_codes(path))) == 3


@pytest.mark.parametrize(("frames", "of_codes"), [(500, 1.09), (50_000, 1.02)])
def test_size_on_disk(tmp_path: Path, frames: int, of_codes: float) -> None:
    """Within 2 % of the bits of its parts; ids and counts are small beside codes that are many."""
    path = tmp_path / "codes.rqc"
    names = [f"document{number:04d}" for number in range(100)]
    write_codes(path, (document(name, frames) for name in names), HEADER)
    count = HEADER.num_windows(frames)
    code_bits = count * 8 * 9
    bits = 100 * (code_bits + count + 8 * (2 + 12 + 4 + 4))
    size = path.stat().st_size
    assert bits / 8 <= size <= 1.02 * bits / 8
    assert size <= of_codes * 100 * code_bits / 8


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    write_codes(tmp_path / "codes.rqc", [], HEADER)
    assert list(read_codes(tmp_path / "codes.rqc")) == []


def _other(**changes: Any) -> DocumentCodes:
    return replace(document("d", 100), **changes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_other(codes=torch.full((9, 8), 512)), "'d': its codes go from 512 to 512"),
        (_other(codes=torch.full((9, 8), -1)), "'d': its codes go from -1 to -1"),
        (_other(codes=torch.zeros(9, 7, dtype=torch.long)), "'d': codes (9, 7)"),
        (_other(num_frames=200), "17 windows and 8 levels are due"),
        (_other(num_frames=0), "'d': 0 frames"),
        (_other(window_mask=torch.ones(8, dtype=torch.bool)), "window mask (8,)"),
        (_other(meta={}), "an id has 1 to 65535 bytes, this one has 0"),
        (_other(meta={"id": "größe/1"}), "two documents have the id 'größe/1'"),
    ],
)
def test_what_cannot_be_read_again_is_not_written(
    tmp_path: Path, wrong: DocumentCodes, message: str
) -> None:
    path = tmp_path / "codes.rqc"
    path.write_bytes(b"an older file")
    with pytest.raises(DataError, match=re.escape(message)):
        write_codes(path, [*documents(3), wrong], HEADER)
    assert path.read_bytes() == b"an older file"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[DocumentCodes]:
        yield from documents(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_codes(tmp_path / "codes.rqc", failing(), HEADER)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def sound(tmp_path: Path) -> bytes:
    """A file of three short documents, small enough to break in every place."""
    header = replace(HEADER, codebook_size=300, num_levels=2, num_codebooks=3)
    path = tmp_path / "sound.rqc"
    write_codes(path, [document(f"d{n}", 30 * n, header) for n in (1, 2, 3)], header)
    return path.read_bytes()


@pytest.fixture
def rewritten(tmp_path: Path) -> Iterator[Path]:
    """A file to be overwritten thousands of times; some disks take their time for each."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder, "codes.rqc")


def read_all(path: Path) -> list[DocumentCodes]:
    return list(read_codes(path))


def _with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    (length,) = struct.unpack_from("<I", data, 4)
    fields = json.loads(data[8 : 8 + length])
    del fields["header_crc32"]
    change(fields)
    text = json.dumps(fields).encode()
    return b"RQC1" + struct.pack("<I", len(text)) + text + data[8 + length :]


def _signed(data: bytes, place: int, new: bytes) -> bytes:
    """Changes the documents and makes the checksum right again."""
    (length,) = struct.unpack_from("<I", data, 4)
    payload = bytearray(data[8 + length : -4])
    payload[place : place + len(new)] = new
    return data[: 8 + length] + payload + struct.pack("<I", zlib.crc32(payload))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: b"", "is no codes file: it begins with b''"),
        (lambda d: b"RIFF" + d[4:], "is no codes file: it begins with b'RIFF', not with b'RQC1'"),
        (lambda d: d[:6], "is cut off in the header: 4 bytes are due and 2 are left"),
        (lambda d: d[:100], "is cut off in the header"),
        (lambda d: d[:-20], "is cut off in document 3 of 3"),
        (lambda d: d[:-2], "is cut off in the checksum: 4 bytes are due and 2 are left"),
        (lambda d: d + b"xy", "is damaged: 2 bytes follow its end"),
        (lambda d: d[:4] + b"\xff\xff\xff\xff" + d[8:], "4294967295 bytes, 65535 are the most"),
        (lambda d: d.replace(b"50.0", b"51.0"), "its header is damaged: its own checksum is wrong"),
        (lambda d: d[:-5] + bytes([d[-5] ^ 1]) + d[-4:], "the checksum of its documents is"),
        (lambda d: _signed(d, 0, b"\x00\x00"), "document 1 of 3 has no id"),
        (lambda d: _signed(d, 2, b"\xff"), "the id of document 1 of 3 is no UTF-8 text"),
        (lambda d: _signed(d, 4, b"\x00"), "document 'd1' has 0 frames and 3 windows"),
        (lambda d: _signed(d, 8, b"\x04"), "30 frames and 4 windows, where 3 are due"),
        (lambda d: _signed(d, 8, b"\xff\xff\xff\xff"), "4294967295 windows, where 3 are due"),
        (lambda d: _signed(d, 13, b"\xff\xff\xff"), "has the code 511, but there are only 300"),
        (
            lambda d: _signed(d, 2, b"d2"),
            "is damaged: two documents have the id 'd2'",
        ),
        (lambda d: _with_header(d, lambda h: h.pop("stride")), "its header lacks stride"),
        (lambda d: _with_header(d, lambda h: h.update(version=2)), "has version 2; only version 1"),
        (
            lambda d: _with_header(d, lambda h: h.update(codebook_size="512")),
            "has codebook_size '512', no integer from 2 to 2147483647",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(num_levels=True)),
            "has num_levels True, no integer",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(num_levels=4)),
            "has 4 num_levels, but only 3 num_codebooks",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(frame_rate=float("nan"))),
            "has frame_rate nan, which is no number above 0",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(window_mode="some")),
            "has window_mode 'some', which is none of same, tail, drop, global",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(codebook_sha256="12")),
            "has codebook_sha256 '12', which is no SHA-256 in hex",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(num_documents=4_000_000_000)),
            "it is said to hold 4000000000 documents, which do not fit",
        ),
        (
            lambda d: _with_header(d, lambda h: h.update(num_documents=2)),
            "bytes follow its end",
        ),
        (
            lambda d: d[:8] + b"[1]" + b" " * (d.index(b"}") - 10) + d[d.index(b"}") + 1 :],
            "json list",
        ),
    ],
)
def test_every_damage_has_its_sentence(
    tmp_path: Path, sound: bytes, break_it: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "codes.rqc"
    path.write_bytes(break_it(sound))
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        read_all(path)
    assert str(path) in str(raised.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"codes file .*none\.rqc does not exist"):
        read_codes(tmp_path / "none.rqc")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_codes(tmp_path)


def test_a_header_nested_too_deeply() -> None:
    with pytest.raises(ValueError, match="is not valid json"):
        parse_header(b"[" * 60_000)


def test_every_flipped_bit_and_every_cut_is_noticed(rewritten: Path, sound: bytes) -> None:
    path = rewritten
    for place in range(len(sound)):
        path.write_bytes(sound[:place])
        with pytest.raises(DataError):
            read_all(path)
    for place in range(8 * len(sound)):
        data = bytearray(sound)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            read = read_all(path)
        except DataError:
            continue
        # Nothing but the name of the header's own checksum.
        assert sound.find(b"_crc32", max(place // 8 - 12, 0), place // 8 + 12) > 0
        assert len(read) == 3


def _mutated(rng: np.random.Generator, sound: bytes) -> bytes:
    """Gives random bytes, or a file damaged in one of many ways; its checksums may be right."""
    data = bytearray(sound)
    (length,) = struct.unpack_from("<I", data, 4)
    kind = rng.integers(6)
    if kind == 0:
        return rng.bytes(int(rng.integers(600)))
    if kind == 1:
        return sound[: 8 + length] + rng.bytes(int(rng.integers(200)))
    if kind == 2:  # numbers of the header, with no checksum of its own
        names = ("codebook_size", "num_levels", "num_codebooks", "num_documents", "stride")
        values = [0, 1, 2, 7, 2**16, 2**31 - 1, 2**32 - 1, 2**63, -1, 1e300, None, "1", []]
        picked = {str(name): values[rng.integers(len(values))] for name in rng.choice(names, 2)}
        data = bytearray(_with_header(sound, lambda header: header.update(picked)))
    if kind == 3:
        start, stop = np.sort(rng.integers(0, len(data), 2))
        del data[start:stop]
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(len(data))] = rng.integers(256)
    if kind >= 4:
        (length,) = struct.unpack_from("<I", data, 4)
        data[-4:] = struct.pack("<I", zlib.crc32(data[8 + min(length, len(data)) : -4]))
        return bytes(data).replace(b'"header_crc32"', b'"header_crc3x"')
    return bytes(data)


def test_nothing_crashes_the_reader_nor_makes_it_greedy(rewritten: Path, sound: bytes) -> None:
    """Thousands of damaged files: a sentence each, and no memory beyond what the file has."""
    path, rng = rewritten, np.random.default_rng(0)
    errors: list[str] = []
    path.write_bytes(sound)
    read_all(path)  # what is made once is not counted
    tracemalloc.start()
    try:
        for _ in range(2500):
            data = _mutated(rng, sound)
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                for one in CodesFile(path):
                    # A bit of the file may be an int64, and is one array here.
                    assert one.codes.numel() <= 8 * len(data)
            except DataError as error:
                errors.append(str(error))
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 64 * len(data) + 300_000, peak
    finally:
        tracemalloc.stop()
    assert len(errors) > 2200
    assert all(str(path) in error and len(error) < 500 for error in errors)


def test_memory_is_that_of_a_document(tmp_path: Path) -> None:
    """A file of many documents is read with the memory of one."""
    path = tmp_path / "codes.rqc"
    peaks = []
    for count in (20, 400):
        write_codes(path, (document(str(number), 3000) for number in range(count)), HEADER)
        tracemalloc.start()
        total = sum(one.num_frames for one in read_codes(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == 3000 * count
    assert peaks[1] < peaks[0] + 100 * 400


def test_hash_is_that_of_the_values() -> None:
    books = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    assert codebook_sha256(books) == codebook_sha256(books.double().mT.contiguous().mT)
    others = [books.reshape(3, 2, 4), books + torch.tensor(1e-6), books[:1]]
    assert len({codebook_sha256(one) for one in [books, *others]}) == 4


def fake_model(**changes: Any) -> Any:
    settings = {
        "rvq": SimpleNamespace(codebooks=torch.zeros(8, 512, 4)),
        "is_global": False,
        "window_size": 25,
        "window_stride": 12,
        "window_mode": "same",
        "input_dim": 1024,
    }
    return SimpleNamespace(**{**settings, **changes})


def test_a_file_knows_its_model(tmp_path: Path) -> None:
    path, model = tmp_path / "codes.rqc", fake_model()
    header = CodesHeader.of_model(model, 50, num_levels=4)
    assert replace(header, codebook_sha256=HEADER.codebook_sha256, num_levels=8) == HEADER
    write_codes(path, documents(2, header), header)
    assert len(read_codes(path, model)) == 2
    other = fake_model(rvq=SimpleNamespace(codebooks=torch.ones(8, 512, 4)))
    hashes = [codebook_sha256(one.rvq.codebooks) for one in (model, other)]
    with pytest.raises(DataError, match=rf"codes\.rqc .*{hashes[0]}.*{hashes[1]}"):
        read_codes(path, other)
    with pytest.raises(DataError, match="made with stride 12, the model has 10"):
        read_codes(path, fake_model(window_stride=10))
    with pytest.raises(DataError, match="made with window_mode same, the model has global"):
        read_codes(path, fake_model(is_global=True))
