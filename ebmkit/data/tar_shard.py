"""Reading one shard: the samples that webdataset finds in it, and the checks that it leaves out.

webdataset reads a shard that was cut short without a word, and files of any size. Here a missing end mark, a broken
gzip stream and a count that differs from the manifest are all reported, and sizes are bounded. Whatever could be read
is used.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from webdataset.tariterators import base_plus_ext, group_by_keys

from ebmkit.data.members import MAX_NAME, TAR_ERRORS, files_of, open_tar
from ebmkit.data.remote.access import Access
from ebmkit.data.remote.opening import open_remote
from ebmkit.data.remote.retrying import RemoteBytes
from ebmkit.data.schemes import is_local
from ebmkit.data.tail import Readable, Tail
from ebmkit.data.tally import Tally

LABEL = "cls"
MAX_SAMPLE = 2**26
"""Bytes of the encoded images and labels of a sample that are read; windows hold thousands of samples."""
MOST_PARTS = 100
"""Files of one sample; further ones are left out."""
_META = re.compile(r"__[^/]*__($|/)")
IMAGE_KINDS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")


class Raw(NamedTuple):
    """One sample as it lies in its shard: still encoded, `image` None where it has no picture."""

    shard: str
    key: str
    image: bytes | None
    label: int
    trouble: str = "has no image"
    """Why `image` is None."""


def read_shard(shard: str, tally: Tally, expected: int | None = None, access: Access | None = None) -> Iterator[Raw]:
    """The samples of one shard in their order; `DataError` where a remote one cannot be had, `access` being how.

    `tally` hears, at most once, what is wrong with the shard as a whole, and of each retry. `expected` is the number of
    samples that its manifest states.
    """
    troubles: list[str] = []

    def note(error: Exception) -> bool:
        troubles.append(_first_line(error))
        return True

    try:
        stream = _open(shard, access or Access(), tally)
    except (OSError, ValueError) as error:
        tally.shard(shard, f"cannot be opened: {_first_line(error)}")
        return
    tail = Tail(shard, stream, stream.again) if isinstance(stream, RemoteBytes) else Tail(shard, stream)
    count, held = 0, None
    with contextlib.closing(stream):
        for sample in group_by_keys(_parts(shard, tail, note), handler=note):
            # One sample is held back: in a shard that was cut short the last one may lack a part, such as its label.
            if held is not None:
                count += 1
                yield held
            held = _raw(shard, sample)
        tail.drain()
    if tail.failure is not None:
        raise tail.failure
    if tail.trouble is not None:
        note(tail.trouble)
    if troubles or not tail.ended:
        reason = f": {troubles[-1]}" if troubles else ": it has no end mark"
        tally.shard(shard, f"is damaged or cut short after {count} whole samples{reason}")
        return
    if held is not None:
        count += 1
        yield held
    if expected is not None and count != expected:
        tally.shard(shard, f"has {count} samples, its manifest.json says {expected}")


class _TooLarge(bytes):
    """Stands for a file that was not read."""


def _parts(shard: str, tail: Tail, note: Callable[[Exception], bool]) -> Iterator[dict[str, Any]]:
    """The files of the shard as webdataset groups them. Only images and labels are read, and little of each sample."""
    current, count, size = None, 0, 0
    try:
        with open_tar(tail, "r|") as tar:
            for member in files_of(tar, streamed=True):
                name = member.name
                if len(name) > MAX_NAME or _META.match(name):
                    continue
                key, suffix = base_plus_ext(name)
                if key != current:
                    current, count, size = key, 0, 0
                count += 1
                if key is None or count > MOST_PARTS:
                    continue
                data = b""
                if _kind(suffix) in (*IMAGE_KINDS, LABEL):
                    size += member.size
                    file = tar.extractfile(member) if size <= MAX_SAMPLE else None
                    data = _TooLarge() if file is None else file.read()
                yield {"fname": name, "data": data, "__url__": shard}
    except TAR_ERRORS as error:
        note(error)


def _kind(suffix: str) -> str:
    return suffix.rpartition(".")[2].lower()


def _raw(shard: str, sample: dict[str, Any]) -> Raw:
    kinds = {_kind(name): name for name in sample if not name.startswith("__")}
    image = next((sample[kinds[kind]] for kind in IMAGE_KINDS if kind in kinds), None)
    key, label = sample["__key__"], _label(sample.get(LABEL))
    if isinstance(image, _TooLarge):
        return Raw(shard, key, None, label, "is larger than any image file should be")
    return Raw(shard, key, image, label)


def _label(text: bytes | None) -> int:
    try:
        label = -1 if text is None else int(text)
    except ValueError:
        return -1
    # What fits into a tensor.
    return label if -(2**63) <= label < 2**63 else -1


def _open(shard: str, access: Access, tally: Tally) -> Readable:
    return Path(shard).open("rb") if is_local(shard) else open_remote(shard, access, tally)


def _first_line(error: BaseException) -> str:
    """What people need of a message; webdataset puts whole Python objects into its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]) if error.args else ""
    return text.split("\n")[0].split(" @ <")[0] or type(error).__name__
