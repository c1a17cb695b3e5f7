"""Reading one shard: webdataset's tar readers, and the checks that they leave out.

webdataset reads a shard that was cut short without a word. Here a missing end mark, a broken gzip stream, a failed
`pipe:` command and a count that differs from the manifest are all reported; whatever could be read is used.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys, tar_file_expander

from ebmkit.data.packing import UNPACKING_ERRORS, unpacker
from ebmkit.data.patterns import is_local

IMAGE_KINDS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")


class Raw(NamedTuple):
    """One sample as it lies in its shard: still encoded, `image` None where it has no picture."""

    shard: str
    key: str
    image: bytes | None
    label: int


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


def read_shard(shard: str, damaged: Callable[[str], None], expected: int | None = None) -> Iterator[Raw]:
    """The samples of one shard in their order.

    `damaged` is called at most once, with what is wrong with the shard as a whole. `expected` is the number of samples
    that its manifest states.
    """
    troubles: list[str] = []

    def note(error: Exception) -> bool:
        troubles.append(_first_line(error))
        return True

    try:
        stream = _open(shard)
    except (OSError, ValueError, ImportError) as error:
        damaged(f"cannot be opened: {_first_line(error)}")
        return
    tail, count, held = _Tail(stream), 0, None
    try:
        files = tar_file_expander([{"url": shard, "stream": tail}], handler=note)
        for sample in group_by_keys(files, handler=note):
            # One sample is held back: in a shard that was cut short the last one may lack a part, such as its label.
            if held is not None:
                count += 1
                yield held
            held = _raw(shard, sample)
        tail.drain()
        try:
            stream.close()
        except OSError as error:
            note(error)
    finally:
        _close_quietly(stream)
    if tail.trouble is not None:
        note(tail.trouble)
    if troubles or not tail.ended:
        reason = f": {troubles[-1]}" if troubles else ": it has no end mark"
        damaged(f"is damaged or cut short after {count} whole samples{reason}")
        return
    if held is not None:
        count += 1
        yield held
    if expected is not None and count != expected:
        damaged(f"has {count} samples, its manifest.json says {expected}")


def _raw(shard: str, sample: dict[str, Any]) -> Raw:
    kinds = {name.rpartition(".")[2]: name for name in sample if not name.startswith("__")}
    image = next((sample[kinds[kind]] for kind in IMAGE_KINDS if kind in kinds), None)
    return Raw(shard, sample["__key__"], image, _label(sample.get("cls")))


def _label(text: bytes | None) -> int:
    try:
        return -1 if text is None else int(text)
    except ValueError:
        return -1


def _open(shard: str) -> _Readable:
    if is_local(shard):
        return Path(shard).open("rb")
    stream: _Readable = gopen(shard)
    return stream


class _Tail:
    """A stream that unpacks itself, checksum included, and remembers how it ended."""

    trouble: Exception | None = None
    """Why reading stopped early. Not raised: what was unpacked before is still good, and would be lost."""

    def __init__(self, stream: _Readable) -> None:
        self._last = b""
        try:
            prefixed = _Prefixed(stream)
            unpack = unpacker(prefixed.head)
            # `read1` does not read on for more than it already has, so that it returns all there is before an error.
            self._read: Callable[[int], bytes] = unpack(prefixed, "rb").read1 if unpack else prefixed.read
        except UNPACKING_ERRORS as error:
            self.trouble = error

    def read(self, size: int) -> bytes:
        if self.trouble is not None:
            return b""
        try:
            data = self._read(size)
        except UNPACKING_ERRORS as error:
            self.trouble = error
            return b""
        self._last = (self._last + data)[-512:] if len(data) < 512 else data[-512:]
        return data

    def drain(self) -> None:
        """Read what is left, so that the checks at the very end are made."""
        while self.read(1 << 16):
            pass

    @property
    def ended(self) -> bool:
        """Whether the last block read is one of the zeros that end every complete tar file."""
        return self._last == bytes(512)


class _Prefixed:
    """Gives back the two bytes that were read to tell packed from plain tar."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self.head = self._rest = stream.read(2)

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            return self._stream.read(size)
        wanted = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:wanted], self._rest[wanted:]
        return data + self._stream.read() if size < 0 else data


def _close_quietly(stream: _Readable) -> None:
    """A second close does nothing; that of a `pipe:` command which is stopped early reports the broken pipe."""
    with contextlib.suppress(OSError):
        stream.close()


def _first_line(error: BaseException) -> str:
    """What people need of a message; webdataset puts whole Python objects into its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]) if error.args else ""
    if failed := re.search(r": exit (-?\d+) \(read\)", text):
        return f"the command that reads it failed with exit status {failed[1]}"
    return text.split("\n")[0].split(" @ <")[0] or type(error).__name__
