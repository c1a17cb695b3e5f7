"""Shards that somebody made to hurt, each with eight harmless images around what is hostile."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_models import Hostile, Make
from PIL import Image

BLOCK = 512


def picture(number: int, size: int = 8) -> bytes:
    """A harmless grey PNG."""
    noise = np.random.default_rng(number).integers(0, 255, (size, size)).astype(np.uint8)
    return encoded(Image.fromarray(noise), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def member(name: str | bytes, data: bytes = b"", size: int | None = None, **header: Any) -> bytes:
    """A header of a tar file and its blocks; `size` is what it declares, in as many bytes as it takes."""
    info = tarfile.TarInfo("name" if isinstance(name, bytes) else name)
    for key, value in header.items():
        setattr(info, key, value)
    info.size = len(data) if size is None else size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    if isinstance(name, bytes):
        block[:100] = name[:100].ljust(100, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + data + bytes(-len(data) % BLOCK)


def images(numbers: Iterable[int]) -> bytes:
    """Members of harmless samples."""
    return b"".join(member(f"{n:05d}.png", picture(n)) + member(f"{n:05d}.cls", str(n % 10).encode()) for n in numbers)


def around(hostile: bytes) -> bytes:
    """A whole tar file of four images, what is hostile, four images and the end mark."""
    return images(range(4)) + hostile + images(range(4, 8)) + bytes(2 * BLOCK)


def png(width: int, height: int, rows: bytes, extra: bytes = b"", colour: int = 0) -> bytes:
    """A PNG of this size whose packed pixels are `rows`."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
        + extra
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """So many zeros, packed by zlib; made in parts."""
    packer, parts = zlib.compressobj(9), []
    while count > 0:
        parts.append(packer.compress(bytes(min(count, 1 << 24))))
        count -= 1 << 24
    return b"".join([*parts, packer.flush()])


def packed_zeros(path: Path, begin: bytes, count: int, opener: Any = gzip.open) -> None:
    """A packed file that begins so and goes on with `count` zeros."""
    with opener(path, "wb") as file:
        file.write(begin)
        for _ in range(count >> 24):
            file.write(bytes(1 << 24))


def hostile_shards(large: bool = True) -> list[Hostile]:
    """`large` ones, which take a minute to make, too."""

    def raw(content: bytes) -> Make:
        return lambda path: path.write_bytes(content)

    def holding(hostile: bytes) -> Make:
        return raw(around(hostile))

    def image(data: bytes, kind: str = "png") -> Make:
        return holding(member(f"evil.{kind}", data))

    def special(kind: bytes, name: str = "evil.png", target: str = "/etc/passwd") -> Make:
        return holding(member(name, type=kind, linkname=target))

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch exploded",)

    bomb = pickle.dumps(Bomb())
    npy = io.BytesIO()
    np.save(npy, np.array([Bomb()], dtype=object), allow_pickle=True)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.png", picture(9))
    blank = Image.new("L", (8, 8))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(touch exploded) system\nshowpage\n%%EOF\n"
    long_name = member("././@LongLink", b"", size=2**32, type=b"L")
    found = [
        Hostile("an empty file", raw(b"")),
        Hostile("zeros", raw(bytes(10_240))),
        Hostile("random bytes", raw(np.random.default_rng(0).bytes(100_000))),
        Hostile("a zip file", raw(inner.getvalue())),
        Hostile("absolute names", holding(member("/etc/cron.d/evil.png", picture(9))), usable=True),
        Hostile("names with ..", holding(member("../../../../tmp/evil.png", picture(9))), usable=True),
        Hostile("a symbolic link", special(b"2"), usable=True),
        Hostile("a hard link", special(b"1"), usable=True),
        Hostile(
            "a symbolic link, and a file through it",
            holding(member("evil", type=b"2", linkname="/tmp") + member("evil/x.png", picture(9))),
            usable=True,
        ),
        Hostile("a character device", special(b"3"), usable=True),
        Hostile("a block device", special(b"4"), usable=True),
        Hostile("a named pipe", special(b"6"), usable=True),
        Hostile("a type that there is not", special(b"Z"), usable=True),
        Hostile("names of escapes", holding(member("\x1b[2J\x1b]0;owned\x07evil.png", b"x")), usable=True),
        Hostile("names with new lines", holding(member("evil\nerror: all is lost.png", b"x")), usable=True),
        Hostile("names that are no UTF-8", holding(member(b"\xff\xfe\xc3(.png", b"x" * 5)), usable=True),
        Hostile(
            "names of 100,000 characters",
            holding(member("././@LongLink", b"a/" * 50_000 + b"x.png\0", type=b"L") + member("x.png", picture(9))),
        ),
        Hostile("a name of 4 GB declared", holding(long_name)),
        Hostile("pax headers of digits", holding(b"".join(member("pax", b"1" * 8000, type=b"x") for _ in range(50)))),
        Hostile(
            "a pax header of 1 MB",
            holding(member("pax", b"20 path=evil/x.png\n" * 50_000, type=b"x") + member("x.png", picture(9))),
        ),
        Hostile(
            "a pax size of 10^18",
            holding(member("pax", b"28 size=1000000000000000000\n", type=b"x") + member("x.png", picture(9))),
        ),
        Hostile(
            "a negative pax size", holding(member("pax", b"11 size=-5\n", type=b"x") + member("x.png", picture(9)))
        ),
        Hostile(
            "1,000 global headers",
            holding(
                b"".join(member("pax", f"{len(str(n)) + 13} evil{n:05d}=1\n".encode(), type=b"g") for n in range(1000))
            ),
        ),
        Hostile("a file with holes of 1 TB", holding(_sparse())),
        Hostile("a file of 4 GB declared", holding(member("evil.png", picture(9), size=2**32))),
        Hostile("a file of 2^60 bytes declared", holding(member("evil.png", picture(9), size=2**60))),
        Hostile(
            "20,000 files of one sample",
            holding(b"".join(member(f"evil.{n}.png", b"x") for n in range(20_000))),
            usable=True,
        ),
        Hostile("the same file twice", holding(member("evil.png", picture(9)) * 2), usable=True),
        Hostile(
            "pickles",
            holding(b"".join(member(f"evil.{kind}", bomb) for kind in ("pyd", "pickle", "pkl", "pth"))),
            usable=True,
        ),
        Hostile(
            "an array of objects",
            holding(member("evil.npy", npy.getvalue()) + member("evil.npz", npy.getvalue())),
            usable=True,
        ),
        Hostile("a tar file in the tar file", holding(member("evil.tar", around(b""))), usable=True),
        Hostile(
            "a label of 10^6 digits",
            holding(member("evil.png", picture(9)) + member("evil.cls", b"9" * 10**6)),
            usable=True,
        ),
        Hostile(
            "a label of 2^80",
            holding(member("evil.png", picture(9)) + member("evil.cls", str(2**80).encode())),
            usable=True,
        ),
        Hostile(
            "labels of garbage",
            holding(
                member("evil.png", picture(9)) + member("evil.cls", b"\xff\0{") + member("evil.json", b"[" * 10**6)
            ),
            usable=True,
        ),
        Hostile("PostScript", image(eps), usable=True),
        Hostile("a PNG 100,000 pixels wide", image(png(100_000, 8, zeros(8 * 100_001))), usable=True),
        Hostile("a PNG of 2^31 x 2^31 pixels", image(png(2**31 - 1, 2**31 - 1, zeros(1000))), usable=True),
        Hostile("a PNG of no pixels", image(png(0, 0, zeros(0))), usable=True),
        Hostile("a PNG of 134 million pixels", image(png(16_384, 8192, zeros(8192 * 16_385)))),
        Hostile(
            "a PNG of 134 million pixels in colour", image(png(16_384, 8192, zeros(8192 * (3 * 16_384 + 1)), colour=2))
        ),
        Hostile("a PNG that unpacks to 1 GB more", image(png(8, 8, zeros(2**30))), usable=True),
        Hostile(
            "a PNG with 200 MB of text",
            image(png(8, 8, zeros(72), chunk(b"zTXt", b"evil\0\0" + zeros(2 * 10**8)))),
            usable=True,
        ),
        Hostile(
            "a PNG with a colour profile of 200 MB",
            image(png(8, 8, zeros(72), chunk(b"iCCP", b"evil\0\0" + zeros(2 * 10**8)))),
            usable=True,
        ),
        Hostile(
            "a BMP of 2^31 pixels",
            image(encoded(blank, "BMP").replace(struct.pack("<II", 8, 8), struct.pack("<II", 2**31 - 1, 1)), "bmp"),
            usable=True,
        ),
        Hostile(
            "a GIF of 65,535 pixels",
            image(encoded(blank, "GIF").replace(b"\x08\0\x08\0", b"\xff\xff\xff\xff"), "gif"),
            usable=True,
        ),
        Hostile("a PGM of 10^9 pixels", image(b"P5 1000000000 1000000000 255\n" + bytes(100), "pgm"), usable=True),
        Hostile("half a JPEG", image(encoded(Image.new("L", (8, 8)), "JPEG")[:150], "jpg"), usable=True),
        Hostile(
            "xz with 1.5 GB of memory",
            lambda path: path.write_bytes(
                lzma.compress(around(b""), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1536 * 2**20, "preset": 0}])
            ),
        ),
        Hostile("gzip that ends early", raw(gzip.compress(around(b""))[:-20])),
        Hostile("gzip in gzip", raw(gzip.compress(gzip.compress(around(b""))))),
    ]
    if large:
        wide = io.BytesIO()
        Image.new("RGB", (16_383, 8191)).save(wide, "JPEG")
        found += [
            Hostile("a JPEG of 134 million pixels", image(wide.getvalue(), "jpg")),
            Hostile(
                "a WebP of 134 million pixels",
                image(encoded(Image.new("RGB", (16_383, 8191)), "WEBP", method=0, lossless=True), "webp"),
            ),
            Hostile(
                "a TIFF of 134 million pixels",
                image(encoded(Image.new("I;16", (16_384, 8192)), "TIFF", compression="tiff_adobe_deflate"), "tiff"),
            ),
            Hostile("gzip of 2 GB of zeros", lambda path: packed_zeros(path, images(range(4)), 2**31)),
            Hostile(
                "gzip of a file of 2 GB",
                lambda path: packed_zeros(path, images(range(4)) + member("evil.png", size=2**31), 2**31),
            ),
            Hostile("gzip of 8 files of 250 MB", _many_files),
            Hostile("gzip of a name of 2 GB", lambda path: packed_zeros(path, images(range(4)) + long_name, 2**31)),
            Hostile(
                "bzip2 of a file of 1 GB",
                lambda path: packed_zeros(path, images(range(4)) + member("evil.png", size=2**30), 2**30, bz2.open),
            ),
            Hostile("gzip of endless holes", _endless_holes),
        ]
    return found


def _sparse() -> bytes:
    header = bytearray(member("evil.png", size=0, type=b"S"))
    header[482] = 1
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    return bytes(header)


def _many_files(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(images(range(4)))
        for number in range(8):
            file.write(member(f"evil{number}.png", size=250 * 2**20))
            for _ in range(250):
                file.write(bytes(2**20))
        file.write(images(range(4, 8)) + bytes(2 * BLOCK))


def _endless_holes(path: Path) -> None:
    more = bytearray(BLOCK)
    more[504] = 1
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(images(range(4)) + _sparse())
        for _ in range(2000):
            file.write(bytes(more) * 500)
