"""Print docs/plugins/tutorial.md as one shell script: its files are written, its commands run, from top to bottom.

`python .ci/tutorial.py | bash` in an empty folder, in an environment that has ebmkit, follows the tutorial as printed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "plugins" / "tutorial.md"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """(language, file or "", text) of every fenced block of the page."""
    return FENCE.findall(PAGE.read_text(encoding="utf-8"))


def files() -> dict[str, str]:
    """The files that a reader writes."""
    return {file: text for _, file, text in blocks() if file}


def script() -> str:
    """Everything that a reader does; stops at the first command that fails."""
    parts = ["set -euxo pipefail\n"]
    for language, file, text in blocks():
        if file:
            parts.append(f"cat > {file} <<'END_OF_FILE'\n{text}END_OF_FILE\n")
        elif language == "bash":
            parts.append(text)
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(script())
