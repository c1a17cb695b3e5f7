"""Which shard patterns name files, URLs or commands, and what to write for those that ebmkit does not open."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_COMMANDS = {
    "s3": "aws s3 cp {} -",
    "gs": "gcloud storage cat {}",
    "hdfs": "hdfs dfs -cat {}",
    "ftp": "curl -sSf {}",
    "sftp": "curl -sSf {}",
}
"""Programs that write a shard of such a store to their standard output."""


def scheme(shard: str) -> str:
    """`http` of `http://...`, `pipe` of `pipe:...`, in lower case; empty for a file's path."""
    found = _SCHEME.match(shard)
    return found[1].lower() if found else ""


def is_local(shard: str) -> bool:
    """Whether this is a file's path, not a URL or a `pipe:` command."""
    return not scheme(shard)


def unopened(pattern: str) -> str | None:
    """Why ebmkit does not open what `pattern` names, and what to write instead; None where it does."""
    kind = scheme(pattern)
    if kind in ("", "pipe", "http", "https"):
        return None
    if command := _COMMANDS.get(kind):
        return (
            f'{kind}: is not opened by ebmkit itself; name the command that reads it: "pipe:{command.format(pattern)}"'
        )
    if kind == "file":
        return f"write the path alone, without file: ({pattern!r})"
    return (
        f"{pattern!r} begins with {kind}:, which ebmkit does not open; name a command that writes the shard to its "
        f'standard output, "pipe:COMMAND", or write "./{pattern}" for a file of that name'
    )
