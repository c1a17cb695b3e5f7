"""Recipes and sweep files that somebody made to hurt."""

from __future__ import annotations

from pathlib import Path

import tomli_w
from hostile_models import Hostile, Make, table_of

TEN_MB = 10_000_000


def hostile_recipes(shards: str) -> list[Hostile]:
    """Recipe files; `check` does not look for shards, and takes those of strange ones."""
    good = tomli_w.dumps(table_of(shards))

    def text(content: str | bytes) -> Make:
        encoded = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        return lambda path: path.write_bytes(encoded)

    def changed(old: str, new: str) -> Make:
        assert old in good
        return text(good.replace(old, new, 1))

    multipliers = "channel_multipliers = [\n    1,\n    1,\n]"
    return [
        Hostile("10 MB", text(good + "#" * TEN_MB)),
        Hostile("zeros", text(bytes(1000))),
        Hostile("halves of pairs", text(good + 'x = "\ud800"\n')),
        Hostile("escaped halves of pairs", text('x = "\\ud800"\n' + good)),
        Hostile("arrays nested 500,000 deep", text("x = " + "[" * 500_000)),
        Hostile("tables nested 150,000 deep", text("x = " + "{a=" * 150_000)),
        Hostile("a key of 400,000 parts", text("a." * 400_000 + "a = 1\n")),
        Hostile("a quoted key of 100,000 parts", text('"a" . ' * 100_000 + "a = 1\n")),
        Hostile("a table of 400,000 parts", text("[" + "a." * 400_000 + "a]\n")),
        Hostile("tables one in another", text("\n".join("[" + ".".join("a" * n) + "]" for n in range(1, 1300)))),
        Hostile("300,000 multipliers", changed(multipliers, f"channel_multipliers = [{'1,' * 300_000}]")),
        Hostile(
            "multipliers of text",
            changed(
                multipliers,
                f"channel_multipliers = [{chr(34) + 'x' + chr(34) + ',' + ' '}]".replace(", ", ", " + "'x'," * 150_000),
            ),
        ),
        Hostile("300,000 tables", changed("seed = 3", f"seed = [{'{},' * 300_000}]")),
        Hostile("40,000 regularizers", text(good + "[[regularizers]]\nuse = 1\n" * 40_000)),
        Hostile("80,000 unknown keys", text("".join(f"k{n}=1\n" for n in range(80_000)) + good)),
        Hostile("images of 10^9 pixels", changed("image_size = 8", "image_size = 1000000000")),
        Hostile("a number of 900,000 digits", changed("seed = 3", "seed = " + "9" * 900_000)),
        Hostile("a number of 900,000 hex digits", changed("seed = 3", "seed = 0x" + "f" * 900_000)),
        Hostile("nan for a whole number", changed("time_steps = 4", "time_steps = nan")),
        Hostile("infinite noise", changed("noise = 0.05", "noise = inf")),
        Hostile("a float for a whole number", changed("steps = 2", "steps = 2.0")),
        Hostile("true for a whole number", changed("steps = 2", "steps = true")),
        Hostile("a date for a number", changed("steps = 2", "steps = 2020-01-01")),
        Hostile("keys of escapes", text('"\\u001b[2J\\u001b]0;owned\\u0007\\nerror: all is lost\\u202e" = 1\n' + good)),
        Hostile(
            "text of escapes", changed('use = "unet"', 'use = "\\u001b[2J\\u001b]0;owned\\u0007' + "x" * 300_000 + '"')
        ),
        Hostile(
            "shards by braces of 10^12",
            changed(tomli_w.dumps({"shards": shards}).strip(), 'shards = "x-{0..999999999999}.tar"'),
            usable=True,
        ),
        Hostile(
            "shards by a product of braces",
            changed(tomli_w.dumps({"shards": shards}).strip(), 'shards = "' + "{0..999}" * 8 + '"'),
            usable=True,
        ),
        Hostile(
            "shards by nested braces",
            changed(tomli_w.dumps({"shards": shards}).strip(), 'shards = "' + "{" * 4000 + "a,b" + "}" * 4000 + '"'),
            usable=True,
        ),
    ]


def hostile_sweeps(recipe: Path) -> list[Hostile]:
    """Sweep files; each is refused."""
    head = f'recipe = "{recipe}"\n'

    def text(content: str) -> Make:
        return lambda path: path.write_text(content)

    values = list(range(1, 11))
    return [
        Hostile(
            "a product of 10^12 points", text(head + "[grid]\n" + "".join(f'"k{n}" = {values}\n' for n in range(12)))
        ),
        Hostile("50,000 points", text(head + "".join(f"[[points]]\na={n}\n" for n in range(50_000)))),
        Hostile("80,000 equal points", text(head + "[[points]]\n" * 70_000)),
        Hostile("100,000 seeds", text(head + f"seeds = {list(range(100_000))}\n")),
        Hostile("9,999 points that do not bind", text(head + f"[grid]\nk = {list(range(9999))}\n")),
        Hostile("a value of 900,000 characters", text(head + '[grid]\nk = ["' + "x" * 900_000 + '"]\n')),
        Hostile("a point named by a path", text(head + '[[points]]\nname = "../../evil"\nx = 1\n')),
        Hostile("a base of a path", text('recipe = "/etc/passwd"\n')),
        Hostile("a base by escapes", text('recipe = "\\u001b[2J"\n')),
    ]
