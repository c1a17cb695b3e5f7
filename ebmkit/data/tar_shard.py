"""Reading one shard: webdataset's tar readers, and the checks that they leave out.

webdataset reads a shard that was cut short without a word. Here a missing end mark, a broken gzip stream and a count
that differs from the manifest are all reported; whatever could be read is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from webdataset.tariterators import group_by_keys, tar_file_expander

from ebmkit.data.remote.access import Access
from ebmkit.data.remote.opening import open_remote
from ebmkit.data.remote.retrying import RemoteBytes
from ebmkit.data.schemes import is_local
from ebmkit.data.tail import Readable, Tail
from ebmkit.data.tally import Tally

IMAGE_KINDS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")


class Raw(NamedTuple):
    """One sample as it lies in its shard: still encoded, `image` None where it has no picture."""

    shard: str
    key: str
    image: bytes | None
    label: int


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
        files = tar_file_expander([{"url": shard, "stream": tail}], handler=note)
        for sample in group_by_keys(files, handler=note):
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


def _raw(shard: str, sample: dict[str, Any]) -> Raw:
    kinds = {name.rpartition(".")[2]: name for name in sample if not name.startswith("__")}
    image = next((sample[kinds[kind]] for kind in IMAGE_KINDS if kind in kinds), None)
    return Raw(shard, sample["__key__"], image, _label(sample.get("cls")))


def _label(text: bytes | None) -> int:
    try:
        return -1 if text is None else int(text)
    except ValueError:
        return -1


def _open(shard: str, access: Access, tally: Tally) -> Readable:
    return Path(shard).open("rb") if is_local(shard) else open_remote(shard, access, tally)


def _first_line(error: BaseException) -> str:
    """What people need of a message; webdataset puts whole Python objects into its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]) if error.args else ""
    return text.split("\n")[0].split(" @ <")[0] or type(error).__name__
