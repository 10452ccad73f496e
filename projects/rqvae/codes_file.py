"""Codes of many documents in one small file, ``*.rqc``.

All numbers are little-endian::

    "RQC1"
    u32   length of the header
    json  header, UTF-8: version, codebook_size, num_codebooks, num_levels, window_size, stride,
          window_mode, frame_rate, input_dim, num_documents, codebook_sha256, header_crc32
    then for every document:
      u16   length of the id
      id    UTF-8
      u32   num_frames
      u32   N, number of windows
      mask  a bit per window, 1 = valid, lowest bit first, filled up to whole bytes
      codes ceil(log2 codebook_size) bits each, window by window, of a window the levels in order,
            lowest bit first, filled up to whole bytes; zeros where a window is masked
    u32   CRC32 of the documents

``header_crc32`` is the CRC32 of the header with eight zeros in its own place. Nothing that a file
says is believed before it is checked, and what is read is never larger than what is there.

Shapes: N windows, Q codebooks, K entries.
"""

from __future__ import annotations

import contextlib
import os
import reprlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch

from vidseg.errors import DataError
from vidseg.files import write_atomically

from .bit_packing import pack, packed_size, unpack
from .codes_header import CodesHeader, parse_header
from .documents import DocumentCodes

__all__ = ["CodesFile", "check_id", "read_codes", "write_codes"]

MAGIC = b"RQC1"
_HEADER_LENGTH = struct.Struct("<I")
_COUNTS = struct.Struct("<II")
_ID_LENGTH = struct.Struct("<H")
_CHECKSUM = struct.Struct("<I")
_MAX_HEADER = _MAX_ID = (1 << 16) - 1
_MAX_COUNT = (1 << 32) - 1
_MIN_DOCUMENT = _ID_LENGTH.size + 1 + _COUNTS.size + 2  # an id of a byte and one window


def write_codes(
    path: str | os.PathLike[str], documents: Iterable[DocumentCodes], header: CodesHeader
) -> int:
    """Writes documents as they come; the file appears whole or not at all.

    Args:
        path: of the file; one that exists is replaced.
        documents: with different ids in ``meta["id"]``; of their codes the first ``num_levels``
            columns are written.
        header: whose ``num_documents`` is filled in.

    Returns:
        Number of documents.

    Raises:
        DataError: if a document does not fit the header, or two have one id.
        OSError: if the disk is full or not writable; an old file is then untouched.
    """
    count = 0

    def write(file: BinaryIO) -> None:
        nonlocal count
        start = _preamble(header)
        file.write(start)
        checksum, seen = 0, set()
        for document in documents:
            name = str(document.meta.get("id", ""))
            if name in seen:
                raise DataError(f"two documents have the id {name!r}; rename one of them")
            seen.add(name)
            record = _record(document, name, header)
            checksum = zlib.crc32(record, checksum)
            file.write(record)
        count = len(seen)
        file.write(_CHECKSUM.pack(checksum))
        file.seek(0)
        file.write(_preamble(replace(header, num_documents=count)))

    write_atomically(Path(path), write)
    return count


def check_id(name: str) -> bytes:
    """Gives an id as it stands in a file.

    Raises:
        DataError: if no file can hold it.
    """
    try:
        id_ = name.encode()
    except UnicodeEncodeError:  # as of a file whose name is in another encoding
        raise DataError(f"document {name!r}: its id is no UTF-8 text; rename it") from None
    if not 1 <= len(id_) <= _MAX_ID:
        raise DataError(
            f"document {reprlib.repr(name)}: an id has 1 to {_MAX_ID} bytes, this one has "
            f"{len(id_)}"
        )
    return id_


def read_codes(path: str | os.PathLike[str], model: Any = None) -> CodesFile:
    """Opens a codes file.

    Args:
        path: of the file.
        model: whose codebooks the codes must belong to, if given.

    Raises:
        DataError: see ``CodesFile``; or if the file belongs to another model.
    """
    codes = CodesFile(path)
    if model is not None:
        codes.check_model(model)
    return codes


class CodesFile:
    """A codes file: its header, and its documents one after the other.

    The whole file is checked when it is opened, but for the values of the codes, which are checked
    as they are read. No more than one document is in memory. Iterating gives a ``DocumentCodes``
    per document with codes int64 ``(N, num_levels)``, and may be done any number of times.

    Args:
        path: of the file.

    Attributes:
        header: what the codes mean.

    Raises:
        DataError: if the file is missing, no codes file, cut off or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._opened() as source:
            self.header = source.header()
            ids: set[bytes] = set()
            for record in source.records(self.header):
                if record.id in ids:
                    source.damaged(f"two documents have the id {record.name!r}")
                ids.add(record.id)

    def __len__(self) -> int:
        return self.header.num_documents

    def __iter__(self) -> Iterator[DocumentCodes]:
        with self._opened() as source:
            if source.header() != self.header:
                source.damaged("it was replaced while it was read")
            for record in source.records(self.header):
                codes = record.unpacked(self.header)
                if codes.size and codes.max() >= self.header.codebook_size:
                    source.damaged(
                        f"document {record.name!r} has the code {codes.max()}, but there are "
                        f"only {self.header.codebook_size} entries in a codebook"
                    )
                yield record.document(codes)

    def ids(self) -> Iterator[str]:
        """Gives the ids of the documents in their order."""
        with self._opened() as source:
            for record in source.records(source.header()):
                yield record.name

    def find(self, name: str) -> DocumentCodes | None:
        """Gives the document of an id, or None if there is none."""
        return next((document for document in self if document.meta["id"] == name), None)

    def check_model(self, model: Any) -> None:
        """Checks that the codes belong to a model's codebooks, windows and features.

        Raises:
            DataError: if they do not; both sides are named.
        """
        theirs = CodesHeader.of_model(model, self.header.frame_rate)
        if self.header.codebook_sha256 != theirs.codebook_sha256:
            raise DataError(
                f"{self.path} was made with other codebooks ({self.header.codebook_sha256}) than "
                f"the model has ({theirs.codebook_sha256}); use the weights that encoded it"
            )
        for name in ("window_mode", "window_size", "stride", "input_dim"):
            own, other = getattr(self.header, name), getattr(theirs, name)
            if own != other:
                raise DataError(
                    f"{self.path} was made with {name} {own}, the model has {other}; use the "
                    "config that encoded it"
                )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Source]:
        try:
            with self.path.open("rb") as file:
                yield _Source(self.path, file)
        except FileNotFoundError:
            raise DataError(f"codes file {self.path} does not exist") from None
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"codes file {self.path} cannot be read: {reason}") from None


@dataclass(frozen=True)
class _Record:
    """A document as it stands in the file."""

    id: bytes
    num_frames: int
    num_windows: int
    mask: bytes
    codes: bytes

    @property
    def name(self) -> str:
        return self.id.decode()

    def unpacked(self, header: CodesHeader) -> np.ndarray:
        """Gives the codes ``(N, num_levels)``, still with those of masked windows."""
        count = self.num_windows * header.num_levels
        return unpack(self.codes, count, header.bits_per_code).reshape(-1, header.num_levels)

    def document(self, codes: np.ndarray) -> DocumentCodes:
        """Makes the document, with -1 in masked windows."""
        bits = np.frombuffer(self.mask, dtype=np.uint8)
        mask = np.unpackbits(bits, count=self.num_windows, bitorder="little").astype(bool)
        codes[~mask] = -1
        return DocumentCodes(
            codes=torch.from_numpy(codes),
            window_mask=torch.from_numpy(mask),
            num_frames=self.num_frames,
            meta={"id": self.name},
        )


class _Source:
    """An open codes file that never gives more than it has.

    Args:
        path: for messages.
        file: at its beginning.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._left = os.fstat(file.fileno()).st_size
        self._where = "the header"

    def header(self) -> CodesHeader:
        """Reads what stands before the documents."""
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            raise DataError(
                f"{self._path} is no codes file: it begins with {magic!r}, not with {MAGIC!r}"
            )
        self._left -= len(MAGIC)
        (length,) = _HEADER_LENGTH.unpack(self._take(_HEADER_LENGTH.size))
        if length > _MAX_HEADER:
            self.damaged(f"its header is said to have {length} bytes, {_MAX_HEADER} are the most")
        try:
            header = parse_header(self._take(length))
        except ValueError as error:
            self.damaged(f"its header {error}")
        if header.num_documents * _MIN_DOCUMENT > self._left - _CHECKSUM.size:
            raise DataError(
                f"{self._path} is cut off: it is said to hold {header.num_documents} documents, "
                f"which do not fit into the {self._left} bytes after its header"
            )
        return header

    def records(self, header: CodesHeader) -> Iterator[_Record]:
        """Reads the documents, then compares checksum and end."""
        checksum = 0
        for number in range(1, header.num_documents + 1):
            self._where = f"document {number} of {header.num_documents}"
            length = self._take(_ID_LENGTH.size)
            id_ = self._take(*_ID_LENGTH.unpack(length))
            counts = self._take(_COUNTS.size)
            num_frames, count = _COUNTS.unpack(counts)
            self._check(header, id_, num_frames, count)
            mask = self._take(packed_size(count, 1))
            codes = self._take(packed_size(count * header.num_levels, header.bits_per_code))
            for part in (length, id_, counts, mask, codes):
                checksum = zlib.crc32(part, checksum)
            yield _Record(id_, num_frames, count, mask, codes)
        self._where = "the checksum"
        (stored,) = _CHECKSUM.unpack(self._take(_CHECKSUM.size))
        if self._left:
            self.damaged(f"{self._left} bytes follow its end")
        if stored != checksum:
            self.damaged(f"the checksum of its documents is {checksum:08x}, not {stored:08x}")

    def damaged(self, reason: str) -> NoReturn:
        raise DataError(f"{self._path} is damaged: {reason}")

    def _check(self, header: CodesHeader, id_: bytes, num_frames: int, count: int) -> None:
        try:
            name = id_.decode()
        except ValueError:
            self.damaged(f"the id of {self._where} is no UTF-8 text")
        if not name:
            self.damaged(f"{self._where} has no id")
        due = header.num_windows(num_frames) if num_frames else 0
        if not count or count != due:
            self.damaged(
                f"document {name!r} has {num_frames} frames and {count} windows, "
                f"where {due} are due"
            )

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise DataError(
                f"{self._path} is cut off in {self._where}: {count} bytes are due and {self._left} "
                "are left"
            )
        data = self._file.read(count)
        self._left -= count
        if len(data) < count:
            self.damaged("it became shorter while it was read")
        return data


def _record(document: DocumentCodes, name: str, header: CodesHeader) -> bytes:
    """Lays a document out, after checking that it can be read again."""
    who, id_ = f"document {name!r}", check_id(name)
    codes = document.codes[:, : header.num_levels].cpu().numpy()
    mask = document.window_mask.cpu().numpy()
    if document.num_frames < 1 or document.num_frames > _MAX_COUNT:
        raise DataError(f"{who}: {document.num_frames} frames cannot be written")
    due = (header.num_windows(document.num_frames), header.num_levels)
    if codes.shape != due or mask.shape != due[:1]:
        raise DataError(
            f"{who}: codes {tuple(document.codes.shape)} and window mask {mask.shape} do not fit "
            f"{document.num_frames} frames, for which {due[0]} windows and {due[1]} levels are due"
        )
    valid = codes[mask]
    if valid.size and (valid.min() < 0 or valid.max() >= header.codebook_size):
        raise DataError(
            f"{who}: its codes go from {valid.min()} to {valid.max()}, those of a codebook from 0 "
            f"to {header.codebook_size - 1}"
        )
    parts = (
        _ID_LENGTH.pack(len(id_)),
        id_,
        _COUNTS.pack(document.num_frames, len(codes)),
        np.packbits(mask, bitorder="little").tobytes(),
        pack(np.where(mask[:, None], codes, 0), header.bits_per_code),
    )
    return b"".join(parts)


def _preamble(header: CodesHeader) -> bytes:
    text = header.to_bytes()
    return MAGIC + _HEADER_LENGTH.pack(len(text)) + text
