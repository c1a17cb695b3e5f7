"""What the parts of the fuzzing make, and how each input is used. A target is made of a folder for its files."""

from __future__ import annotations

import copy
import gzip
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tomli_w
import torch
from hostile_models import table_of, write_model
from hostile_shards import around, encoded, images, member, picture
from PIL import Image

from ebmkit import overrides, toml
from ebmkit import recipe as recipes
from ebmkit.data.decode import Decoder, WrongSize
from ebmkit.data.framing import CorruptImage
from ebmkit.data.tally import Tally
from ebmkit.data.tar_shard import read_shard
from ebmkit.errors import BadInput
from ebmkit.model_file import read_model_file
from ebmkit.pipeline import cross_check
from ebmkit.registry import default_registry
from ebmkit.state_file import load_state, save_state
from ebmkit.sweeps.file import load_sweep

Make: TypeAlias = Callable[[random.Random], Any]
Use: TypeAlias = Callable[[Any], object]

WORDS = (
    "use",
    "unet",
    "resnet",
    "timm",
    "linear",
    "cosine",
    "constant",
    "wgan_lp",
    "pipe:x",
    "",
    "a.b",
    "\x1b[2J",
    "\ud800",
    "{0..3}",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    64,
    4096,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.0,
    -0.0,
    0.5,
    1.0,
    1e-300,
    1e300,
    float("nan"),
    float("inf"),
)


def value(chance: random.Random, depth: int = 0) -> Any:
    """Anything that TOML or JSON has."""
    kind = chance.randrange(10 if depth < 4 else 6)
    if kind < 2:
        return chance.choice(NUMBERS)
    if kind < 4:
        return chance.choice(WORDS) * chance.choice((1, 1, 1, 50))
    if kind == 4:
        return chance.random() < 0.5
    if kind == 5:
        return chance.randrange(-(10 ** chance.randrange(1, 25)), 10 ** chance.randrange(1, 25))
    if kind < 8:
        return [value(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 3, 30)))]
    return {key(chance): value(chance, depth + 1) for _ in range(chance.randrange(4))}


KEYS = [*recipes.KEYS, *(name for model in recipes.SECTIONS.values() for name in model.model_fields)]
KEYS += [name for item in default_registry() for name in item.component.Options.model_fields]  # type: ignore[attr-defined]


def key(chance: random.Random) -> str:
    """Often one that a recipe has."""
    return chance.choice(KEYS) if chance.random() < 0.7 else chance.choice(WORDS)


def part(chance: random.Random) -> dict[str, Any]:
    """A part of any kind, its options often right."""
    item = chance.choice(list(default_registry()))
    fields = list(item.component.Options.model_fields)  # type: ignore[attr-defined]
    return {"use": item.name, **{chance.choice(fields): value(chance, 2) for _ in range(chance.randrange(4)) if fields}}


def mutated(chance: random.Random, good: dict[str, Any], most: int = 4) -> dict[str, Any]:
    """A copy of the table with some values changed, added, deleted or moved."""
    table = copy.deepcopy(good)
    for _ in range(chance.choice((1, 1, 1, most))):
        node: Any = table
        while True:
            inner = [
                k
                for k in (node if isinstance(node, dict) else range(len(node)))
                if isinstance(node[k], dict | list) and node[k]
            ]
            if not inner or chance.random() < 0.3:
                break
            node = node[chance.choice(inner)]
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not places:
            continue
        at, change = chance.choice(places), chance.randrange(6)
        if change == 0:
            del node[at]
        elif change == 1 and isinstance(node, dict):
            node[key(chance)] = value(chance)
        elif change == 2:
            node[at] = part(chance)
        elif change == 3:
            node[at] = copy.deepcopy(chance.choice(list(table.values())) if table else 0)
        else:
            node[at] = value(chance)
    return table


def changed_bytes(chance: random.Random, good: bytes) -> bytes:
    """The file with bytes changed, cut out, doubled or added."""
    data = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 3, 8, 40))):
        if not data:
            break
        at, change = chance.randrange(len(data)), chance.randrange(7)
        length = chance.choice((1, 2, 4, 8, 100, 512))
        if change < 2:
            data[at] ^= 1 << chance.randrange(8)
        elif change == 2:
            data[at] = chance.choice((0, 255, 127, 128, 10, 34, 48, 57, 91, 123))
        elif change == 3:
            del data[at : at + length]
        elif change == 4:
            data[at:at] = data[max(0, at - length) : at] * chance.choice((1, 2, 20))
        elif change == 5:
            data[at:at] = chance.randbytes(length)
        else:
            data[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 2**31, 2**32 - 1, 2**16)))
    return bytes(data if chance.random() < 0.9 else data[: chance.randrange(len(data) + 1)])


def _recipes(folder: Path) -> tuple[Make, Use]:
    good = table_of("x.tar")

    def make(chance: random.Random) -> dict[str, Any]:
        if chance.random() < 0.1:
            return {key(chance): value(chance) for _ in range(chance.randrange(12))}
        return mutated(chance, good)

    def use(table: dict[str, Any]) -> None:
        bound = recipes.from_table(table, "x.toml", "x")
        cross_check(bound, "x.toml")
        # What binds can be written, and is the same when it is read again.
        again = recipes.from_table(toml.loads(bound.to_toml()), "x.toml", "x")
        assert again == bound, "a recipe that is not the same when it is read again"

    return make, use


def _toml(folder: Path) -> tuple[Make, Use]:
    good = tomli_w.dumps(table_of("x.tar")).encode()
    path = folder / "x.toml"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        recipes.load(path)

    return lambda chance: changed_bytes(chance, good), use


def _sets(folder: Path) -> tuple[Make, Use]:
    good = table_of("x.tar")

    def make(chance: random.Random) -> list[str]:
        if chance.random() < 0.5:
            section = chance.choice([name for name, held in good.items() if isinstance(held, dict)])
            return [f"{section}.{chance.choice(list(good[section]))}={chance.choice((*NUMBERS, 1, 2, 3, 4, 8, 16))}"]
        dots = [
            ".".join(key(chance) for _ in range(chance.choice((1, 2, 2, 2, 3, 9))))
            for _ in range(chance.randrange(1, 4))
        ]
        texts = [repr(value(chance)) if chance.random() < 0.7 else "[" * chance.randrange(5000) for _ in dots]
        return [f"{dotted}={text}" for dotted, text in zip(dots, texts, strict=True)]

    def use(words: list[str]) -> None:
        recipes.from_table(good, "x.toml", "x", overrides.parse(words))

    return make, use


def _sweeps(folder: Path) -> tuple[Make, Use]:
    good = {
        "recipe": "digits",
        "seeds": [0, 1],
        "set": {"train": {"steps": 3}},
        "grid": {"sampler": {"steps": [1, 2, 3]}, "train.batch_size": [1, 2]},
        "evaluate": {"count": 3},
    }
    path = folder / "x.toml"

    def use(table: dict[str, Any]) -> None:
        try:
            path.write_text(tomli_w.dumps(table), encoding="utf-8")
        except (ValueError, TypeError) as error:
            raise BadInput("TOML has no such table") from error
        load_sweep(path)

    return lambda chance: mutated(chance, good, 6), use


def _shards(folder: Path) -> tuple[Make, Use]:
    path, decoder = folder / "x.tar", Decoder((1, 8, 8), "resize")
    tars = [
        around(b""),
        around(member("././@LongLink", b"long/" * 50 + b"x.png\0", type=b"L") + member("x.png", picture(9))),
    ]
    tars += [around(member("pax", b"18 path=evil/x.png\n"[1:], type=b"x") + member("x.jpg", picture(3)))]
    tars += [
        images(range(2)) + member("x.png", picture(1), type=kind) + bytes(1024)
        for kind in (b"2", b"S", b"g", b"K", b"7")
    ]

    def make(chance: random.Random) -> bytes:
        data = chance.choice(tars)
        if chance.random() < 0.2:
            packed = gzip.compress(data, 1)
            return changed_bytes(chance, packed)
        if chance.random() < 0.6:
            # In a header, and with the right sum, so that it is believed.
            block = bytearray(data[: len(data) // 512 * 512])
            at = 512 * chance.choice(
                [n for n in range(len(block) // 512) if block[512 * n + 257 : 512 * n + 262] == b"ustar"]
            )
            for _ in range(chance.randrange(1, 4)):
                place = at + chance.choice(
                    (chance.randrange(512), 124 + chance.randrange(12), 156, chance.randrange(100))
                )
                block[place] = chance.choice((*b"0123456789LKxgS\x00\xff\x80/.", chance.randrange(256)))
            block[at + 148 : at + 156] = b" " * 8
            block[at + 148 : at + 156] = f"{sum(block[at : at + 512]):06o}\0 ".encode()
            return bytes(block)
        return changed_bytes(chance, data)

    def use(data: bytes) -> None:
        path.write_bytes(data)
        tally = Tally()
        for raw in read_shard(str(path), tally):
            if raw.image is not None:
                _decoded(decoder, raw.image)
        assert all(character.isprintable() for text in tally.told for character in text), (
            "what is told is not printable"
        )

    return make, use


def _decoded(decoder: Decoder, data: bytes) -> None:
    try:
        image = decoder(data)
    except (CorruptImage, WrongSize) as error:
        raise BadInput(str(error)) from error
    assert image.shape == decoder.shape


def _images(folder: Path) -> tuple[Make, Use]:
    random_pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    colour = Image.fromarray(random_pixels)
    grey, palette = colour.convert("L"), colour.quantize(8)
    deep = Image.fromarray(random_pixels[..., 0].astype(np.uint16) * 257)
    good = [
        encoded(image, kind)
        for kind in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG", "PPM")
        for image in (colour, grey)
    ]
    good += [encoded(palette, "PNG"), encoded(deep, "PNG"), encoded(deep, "TIFF"), encoded(palette, "GIF")]
    good += [
        encoded(colour, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ]
    good += [
        encoded(colour, "JPEG", progressive=True),
        encoded(colour, "WEBP", lossless=True),
        encoded(colour, "JPEG2000"),
    ]
    decoder = Decoder((3, 8, 8), "resize")
    return lambda chance: changed_bytes(chance, chance.choice(good)), lambda data: _decoded(decoder, data)


def _models(folder: Path) -> tuple[Make, Use]:
    path = folder / "model.safetensors"
    write_model(path, "x.tar")
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8 : 8 + length]), good[8 + length :]
    table = json.loads(header["__metadata__"]["recipe"])

    def make(chance: random.Random) -> bytes:
        kind = chance.randrange(4)
        if kind == 0:
            return changed_bytes(chance, good[: 8 + length]) + body
        if kind == 1:
            return changed_bytes(chance, good)
        changed = copy.deepcopy(header)
        if kind == 2:
            changed["__metadata__"]["recipe"] = json.dumps(mutated(chance, table))
        else:
            names = [name for name in changed if name != "__metadata__"]
            for _ in range(chance.randrange(1, 3)):
                entry = changed[chance.choice(names)]
                entry[chance.choice(("dtype", "shape", "data_offsets"))] = chance.choice(
                    ("F16", "I64", "BF16", [1], [], [2**40], [0, 0], [0, 10**12], [10**9, 10**9], None, -1)
                )
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + body

    def use(data: bytes) -> None:
        path.write_bytes(data)
        read_model_file(path)

    return make, use


def _states(folder: Path) -> tuple[Make, Use]:
    path = folder / "state.safetensors"
    save_state(path, {"a": torch.ones(3), "b": {1: [torch.zeros(2, 2), 2.5, None]}, "c": "text"})
    good = path.read_bytes()

    def use(data: bytes) -> None:
        path.write_bytes(data)
        load_state(path)

    return lambda chance: changed_bytes(chance, good), use


TARGETS: dict[str, Callable[[Path], tuple[Make, Use]]] = {
    "recipes": _recipes,
    "toml": _toml,
    "sets": _sets,
    "sweeps": _sweeps,
    "shards": _shards,
    "images": _images,
    "models": _models,
    "states": _states,
}
