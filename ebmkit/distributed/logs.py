"""Each rank's own log in the run folder."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ebmkit.errors import EbmkitError
from ebmkit.files import written


class RankLog:
    """A file of dated lines, `logs/rank-0001.log`; with `redirect` all output of this process goes there as well."""

    def __init__(self, folder: Path, rank: int, redirect: bool) -> None:
        self.path = folder / f"rank-{rank:04d}.log"
        with written(self.path):
            folder.mkdir(exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8", buffering=1)
        self.redirected = redirect
        if redirect:
            # The descriptors, so that what libraries in C write goes there, too.
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(self.file.fileno(), stream.fileno())

    def write(self, message: str) -> None:
        """Add a line, with the time before it; on a full disk it is lost, for no run should end of that."""
        with suppress(OSError):
            self.file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}\n")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Add the error, if one leaves this block: its message where that is for people, else its traceback."""
        try:
            yield
        except EbmkitError as error:
            self.write(f"error: {error}")
            raise
        except BaseException as error:
            if not self.redirected:
                # Elsewhere Python writes it here itself, as the process ends.
                self.write("".join(traceback.format_exception(error)).rstrip())
            raise

    def also(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """`say`, and a line for each message."""

        def both(message: str) -> None:
            self.write(message)
            say(message)

        return both
