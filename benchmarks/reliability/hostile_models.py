"""Model files that somebody made to hurt, and the harmless one that they are made from."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ebmkit import recipe as recipes
from ebmkit.model import save_model
from ebmkit.pipeline import build_energy

Make = Callable[[Path], object]


class Hostile(NamedTuple):
    """A hostile file: how to write it, and whether it may be used all the same, because what is hostile is ignored."""

    name: str
    make: Make
    usable: bool = False


def table_of(shards: str) -> dict[str, Any]:
    """A recipe for 8x8 grey images, a few milliseconds a step."""
    return {
        "seed": 3,
        "time_steps": 4,
        "data": {"shards": shards, "image_size": 8, "channels": 1, "workers": 0, "shuffle": 16},
        "energy": {
            "use": "unet",
            "channels": 8,
            "channel_multipliers": [1, 1],
            "blocks_per_resolution": 1,
            "middle_blocks": 0,
            "head": "sum",
        },
        "sampler": {"use": "langevin", "steps": 2, "noise": 0.05},
        "buffer": {"use": "cyclic", "size": 40},
        "objective": {"use": "contrastive_divergence"},
        "regularizers": [{"use": "wgan_lp", "weight": 20.0}],
        "train": {"steps": 1, "batch_size": 4, "sample_every": 0, "sample_count": 2, "device": "cpu", "fast": "off"},
    }


def write_model(path: Path, shards: str) -> None:
    """A harmless model that was never trained."""
    recipe = recipes.from_table(table_of(shards), "harmless", "harmless")
    energy = build_energy(recipe, recipe.context(), [])
    save_model(path, energy, recipe, 4, 1)


def hostile_models(good: Path) -> list[Hostile]:
    """Each made from the harmless model `good`."""
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    weights = load_file(good)
    with safe_open(good, framework="pt") as file:
        metadata: dict[str, str] = dict(file.metadata())
    first = next(iter(weights))

    def raw(content: bytes) -> Make:
        return lambda path: path.write_bytes(content)

    def with_header(text: bytes | str | Mapping[str, Any], rest: bytes = body) -> Make:
        encoded = text if isinstance(text, bytes) else (text if isinstance(text, str) else json.dumps(text)).encode()
        return raw(struct.pack("<Q", len(encoded)) + encoded + rest)

    def with_weights(**changed: Any) -> Make:
        kept = {key: value for key, value in {**weights, **changed}.items() if value is not None}
        return lambda path: save_file(kept, path, metadata)

    def with_metadata(**changed: Any) -> Make:
        entries = {key: value for key, value in {**metadata, **changed}.items() if value is not None}
        return with_header({**header, "__metadata__": entries})

    def with_recipe(change: Callable[[dict[str, Any]], object]) -> Make:
        table = json.loads(metadata["recipe"])
        change(table)
        return with_metadata(recipe=json.dumps(table))

    def shards(value: Any) -> Make:
        return with_recipe(lambda table: table["data"].update(shards=value))

    def energy(**options: Any) -> Make:
        return with_recipe(lambda table: table["energy"].update(options))

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch exploded",)

    def pickled(path: Path) -> None:
        torch.save({"weights": Bomb()}, path)

    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pkl", bytes(10**8))

    # The flattened header's length does not change with these, only what the entries say.
    def entry(**changed: Any) -> Make:
        return with_header({**header, first: {**header[first], **changed}})

    recipe_text = metadata["recipe"]
    finite = weights[first].clone()
    broken = {"nan": math.nan, "infinite": math.inf}
    return [
        Hostile("empty", raw(b"")),
        Hostile("seven bytes", raw(data[:7])),
        Hostile("half", raw(data[: len(data) // 2])),
        Hostile("one byte short", raw(data[:-1])),
        Hostile("text", raw(b"hello world\n" * 10)),
        Hostile("bytes after the end", raw(data + bytes(1000))),
        Hostile("a pickle", pickled),
        Hostile("a zip bomb", zipped),
        Hostile("header of 2^63 bytes", raw(struct.pack("<Q", 2**63) + data[8:])),
        Hostile("header of 1 GB declared", raw(struct.pack("<Q", 10**9) + data[8:])),
        Hostile("header of 80 MB of spaces", with_header(b" " * 80_000_000)),
        Hostile("header of 12 MB of entries", with_header(_many_entries(header))),
        Hostile("header that is no JSON", with_header(b"{" * 1000)),
        Hostile("header nested 100,000 deep", with_header('{"a":' * 100_000)),
        Hostile(
            "header with a weight twice",
            with_header(json.dumps(header)[:-1] + f', "{first}": ' + json.dumps(header[first]) + "}"),
            usable=True,
        ),
        Hostile(
            "header with bytes that are no UTF-8",
            with_header(json.dumps(header).encode().replace(b"cyclic", b"\xff\xfe\xfdlic")),
        ),
        Hostile("offsets beyond the file", entry(data_offsets=[0, 10**15])),
        Hostile("offsets that overlap", entry(data_offsets=header[list(weights)[1]]["data_offsets"])),
        Hostile("offsets that are negative", entry(data_offsets=[-4, 4])),
        Hostile("a shape of 2^124", entry(shape=[2**62, 2**62])),
        Hostile("a shape of 10^9 channels", entry(shape=[10**9])),
        Hostile("a type that there is not", entry(dtype="X32")),
        Hostile("weights of whole numbers", with_weights(**{first: torch.ones(finite.shape, dtype=torch.int32)})),
        Hostile("weights of true and false", with_weights(**{first: torch.ones(finite.shape, dtype=torch.bool)})),
        Hostile("weights of half precision", with_weights(**{first: finite.half()}), usable=True),
        Hostile("a weight of another shape", with_weights(**{first: torch.ones(77)})),
        Hostile("a weight more", with_weights(more=torch.ones(3))),
        Hostile("a weight less", with_weights(**{first: None})),
        *(
            Hostile(f"a weight that is {name}", with_weights(**{first: finite.fill_(value).clone()}))
            for name, value in broken.items()
        ),
        Hostile("no metadata", with_header({k: v for k, v in header.items() if k != "__metadata__"})),
        Hostile("metadata of another program", with_metadata(format="pt")),
        Hostile("metadata that is no text", with_header({**header, "__metadata__": {"format": 3}})),
        Hostile("a format of the future", with_metadata(format_version="99")),
        Hostile("a plugin API of 10,000 digits", with_metadata(plugin_api="9" * 10_000)),
        Hostile("steps of 10,000 digits", with_metadata(steps="9" * 10_000, images_seen="-1"), usable=True),
        Hostile("no recipe", with_metadata(recipe=None)),
        Hostile("a recipe that is no JSON", with_metadata(recipe="{")),
        Hostile("a recipe nested 100,000 deep", with_metadata(recipe="[" * 100_000)),
        Hostile("a recipe of 15 MB", with_metadata(recipe=recipe_text[:-1] + ', "x": "' + "y" * 15_000_000 + '"}')),
        Hostile("a recipe with a key twice", with_metadata(recipe='{"seed": 1, ' + recipe_text[1:])),
        Hostile("a recipe with halves of pairs", shards("\ud800.tar")),
        Hostile("a recipe with nan", with_recipe(lambda table: table["sampler"].update(noise=math.nan))),
        Hostile("a recipe with a number of 400 digits", with_recipe(lambda table: table.update(seed=10**400))),
        Hostile("a recipe with a million multipliers", energy(channel_multipliers=[1] * 250_000)),
        Hostile("10^9 channels", energy(channels=10**9)),
        Hostile("4,096 channels, 64 times", energy(channels=4096, channel_multipliers=[64, 64])),
        Hostile("832 blocks", energy(blocks_per_resolution=64, middle_blocks=64)),
        Hostile("a hidden layer of 65,536", energy(head="flatten", head_width=65_536)),
        Hostile(
            "a backbone of a million blocks",
            with_recipe(
                lambda table: table.update(
                    energy={"use": "timm", "model": "vit_tiny_patch16_224", "arguments": {"depth": 10**6}}
                )
            ),
        ),
        Hostile(
            "a backbone 10^9 wide",
            with_recipe(
                lambda table: table.update(
                    energy={"use": "timm", "model": "vit_tiny_patch16_224", "arguments": {"embed_dim": 3 * 10**8}}
                )
            ),
        ),
        Hostile(
            "a backbone from the hub",
            with_recipe(lambda table: table.update(energy={"use": "timm", "model": "hf-hub:evil/model"})),
        ),
        Hostile(
            "a backbone from a checkpoint",
            with_recipe(
                lambda table: table.update(
                    energy={"use": "timm", "model": "resnet18", "arguments": {"checkpoint_path": "/etc/passwd"}}
                )
            ),
        ),
        Hostile(
            "images of 16,384 pixels", with_recipe(lambda table: table["data"].update(image_size=16_384)), usable=True
        ),
        Hostile("images of 10^9 pixels", with_recipe(lambda table: table["data"].update(image_size=10**9))),
        Hostile("an energy that nobody has", energy(use="evil")),
        Hostile("an energy named by a path", energy(use="../../evil.py")),
        Hostile("an energy named by escapes", energy(use="\x1b[2J\x1b]0;owned\x07" + "x" * 5000)),
        Hostile("a plugin that nobody has", with_metadata(plugins='{"energy.evil": "\\u001b[2Jevil 1.0"}')),
        Hostile("plugins that are no text", with_metadata(plugins='{"energy.evil": [[[1]]]}')),
        Hostile(
            "a tracker that writes elsewhere",
            with_recipe(lambda table: table.update(trackers=[{"use": "csv", "path": "../../evil.csv"}])),
        ),
        Hostile(
            "a name of escapes", with_metadata(name="\x1b[2J../../evil\n\u202e$\\frac{" + "x" * 100_000), usable=True
        ),
        Hostile("shards by a command", shards("pipe:touch exploded"), usable=True),
        Hostile("shards by a command in a list", shards(["a.tar", "PIPE:touch exploded"]), usable=True),
        Hostile("shards by a command in braces", shards("{pipe:touch exploded,pipe:touch exploded}"), usable=True),
        Hostile("shards by a URL", shards("http://127.0.0.1:9/x.tar"), usable=True),
        Hostile("shards by braces of 10^12", shards("x-{0..999999999999}.tar"), usable=True),
        Hostile("shards by nested braces", shards("{" * 200 + "a,b" + "}" * 200), usable=True),
        Hostile("shards by a search of the machine", shards("/**/*.tar"), usable=True),
        Hostile("shards that are a secret", shards("/etc/passwd"), usable=True),
        Hostile("shards that are a device", shards("/dev/zero"), usable=True),
        Hostile(
            "a command that makes shards",
            with_recipe(lambda table: table["data"].update(make="touch exploded", shards="none.tar")),
            usable=True,
        ),
        Hostile(
            "a cache folder elsewhere",
            with_recipe(lambda table: table["data"].update(cache_dir="/evil", workers=256)),
            usable=True,
        ),
    ]


def _many_entries(header: Mapping[str, Any]) -> str:
    buffer = io.StringIO()
    buffer.write(json.dumps(header)[:-1])
    for number in range(180_000):
        buffer.write(f', "w{number}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}')
    return buffer.getvalue() + "}"
