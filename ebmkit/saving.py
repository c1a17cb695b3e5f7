"""What follows when a file of the run cannot be written: the run stops, or goes on and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ebmkit.errors import SaveFailed
from ebmkit.files import reason
from ebmkit.run_folder import RunFolder


class Saving:
    """The writes of one run, under its `train.save_errors`; `say` hears what could not be written."""

    def __init__(self, run: RunFolder, save_errors: Literal["stop", "continue"], say: Callable[[str], None]) -> None:
        self.run, self.save_errors, self.say = run, save_errors, say
        self.failing: set[str] = set()

    def done(self, what: str, write: Callable[[], object], needed: bool = False) -> bool:
        """Whether `write` wrote `what`; with `save_errors = "stop"`, or where it is `needed`, raises `SaveFailed`.

        What fails again and again, such as lines of metrics, is told the first time.
        """
        try:
            write()
        except SaveFailed as error:
            failed = error
        except OSError as error:
            failed = SaveFailed(f"{self.run.folder}: {what} cannot be written: {reason(error, self.run.folder)}")
        else:
            self.failing.discard(what)
            return True
        if needed or self.save_errors == "stop":
            raise SaveFailed(f"{failed}; {self._advice()}") from failed
        if what not in self.failing:
            self.failing.add(what)
            self.say(f'warning: {failed}; train.save_errors = "continue" trains on, the next one is tried again')
        return False

    def _advice(self) -> str:
        saved = self.run.complete_checkpoints()
        kept = f"the checkpoint of step {saved[-1][0]} is whole" if saved else "no checkpoint was written before"
        again = "go on with --resume" if saved else "start it again"
        return f"{kept}; make room on that disk, or see that the folder can be written, then {again}"
