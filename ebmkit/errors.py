"""Errors that are meant for people: what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ebmkit.printable import printable

_MOST_SHOWN = 50
"""Problems of a recipe that its message lists; `problems` has all."""


class EbmkitError(Exception):
    """An error whose message a user can act upon; the command line prints it without a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        # It may quote names from files of others.
        return printable(super().__str__())


class BadInput(EbmkitError):
    """What the user gave cannot be used: a recipe, a file, an option, a device. Exit code 2."""

    exit_code = 2


class Problem(NamedTuple):
    """One fault in a recipe: the dotted `path` of the key and what is wrong with it."""

    path: str
    message: str


class RecipeError(BadInput):
    """Every problem of one recipe, reported at once."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count, shown = len(self.problems), self.problems[:_MOST_SHOWN]
        width = max((len(p.path) for p in shown), default=0)
        lines = [f"{source}: {count} problem{'s' if count != 1 else ''}"]
        # A message of several lines stands in a column of its own.
        inner = "\n" + " " * (width + 4)
        lines += [f"  {p.path:<{width}}  {p.message.replace(chr(10), inner)}" for p in shown]
        lines += [f"  ... and {count - _MOST_SHOWN:,} more"] if count > _MOST_SHOWN else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, tuple[Problem, ...]]]:
        """By its own arguments, not by its message: a worker process can send it to its parent."""
        return type(self), (self.source, self.problems)


class DataError(EbmkitError):
    """The data cannot be used as it is: no usable image, or shards that do not fit the recipe."""


class BadData(DataError, BadInput):
    """A data error that the user's recipe or files caused before anything ran. Exit code 2."""


class TrainingFailed(EbmkitError):
    """Training cannot go on, for example because the loss is not finite."""


class RankLost(TrainingFailed):
    """Another process of the job ended or cannot be reached any more."""


class RankFailed(TrainingFailed):
    """Another process of the job failed first; the message is what it said, and the exit code its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[RankFailed], tuple[str, int]]:
        """By its own arguments: a worker process can send it to its parent."""
        return type(self), (str(self), self.exit_code)


class SaveFailed(TrainingFailed):
    """A file of the run cannot be written: the disk is full, or read-only. Exit code 74, EX_IOERR of sysexits.h."""

    exit_code = 74


class HookFailed(TrainingFailed):
    """A plugin's lifecycle hook raised an error and `train.hook_errors` is "fatal"; the run can be resumed."""


class ComponentFailed(EbmkitError):
    """A component raised an error of its own, which is the `__cause__`, or gave back what its interface forbids."""


class PluginMissing(BadInput):
    """A recipe or a model file needs a plugin that is not installed, or that did not load."""
