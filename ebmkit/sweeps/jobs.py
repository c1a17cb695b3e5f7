"""The commands of one run of a sweep, as processes: train, then evaluate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import IO, Any

from ebmkit.distributed.launch import STOPPED
from ebmkit.errors import BadInput
from ebmkit.sweeps.folder import Record, SweepFolder
from ebmkit.sweeps.plan import PlannedRun

LAST_WORDS = 4000
"""Characters at the end of a log in which the reason of a failure is looked for."""


@dataclass
class Job:
    """One run on its way: `advance` starts its next command, or says that it is over."""

    folder: SweepFolder
    run: PlannedRun
    options: dict[str, Any]
    words: list[str]
    """The options of `ebmkit evaluate`, as the sweep file has them and as command-line words."""
    threads: int
    process: subprocess.Popen[bytes] | None = None
    doing: str = ""
    began: float = 0.0
    record: Record = field(default_factory=Record)
    stopped: bool = False

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    def finished(self) -> bool:
        """Whether it is trained and evaluated with these options already."""
        evaluation = self.folder.read(self.name).evaluation
        # As the record has them: JSON knows no tuples.
        options = json.loads(json.dumps(self.options))
        return self.folder.trained(self.run) and evaluation is not None and evaluation["options"] == options

    def free(self) -> bool:
        """Whether no process trains in its folder: one of a killed sweep may still be writing its checkpoint."""
        folder = self.folder.run(self.name)
        if not folder.lock.is_file():
            return True
        try:
            with folder.locked():
                return True
        except BadInput:
            return False

    def begin(self) -> None:
        """Start training, or go on with it; where that is done, start the evaluation."""
        if self.folder.trained(self.run):
            self.record = self.folder.read(self.name)
            self.record.error = None
            self._evaluate()
            return
        run = self.folder.run(self.name)
        resume = ["--resume"] if run.recipe.is_file() else []
        self.record = self.folder.begin_attempt(self.name)
        self._start("training", ["train", str(self.folder.recipe(self.name)), "--run-dir", str(run.folder), *resume])

    def advance(self) -> bool:
        """Look at the process: True when the run is over, finished, failed or stopped."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return False
        if self.doing == "training":
            self.record.attempts[-1]["seconds"] = time.time() - self.record.attempts[-1]["started"]
            if code == 0 and self.folder.trained(self.run) and not self.stopped:
                self.folder.write(self.name, self.record)
                self._evaluate()
                return False
        elif code == 0:
            self._keep_evaluation()
        if code and not (self.stopped or code in STOPPED):
            self.record.error = f"{self.doing}: {self._reason(code)}"
        self.folder.write(self.name, self.record)
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask its process to stop; training writes a checkpoint first."""
        self.stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _evaluate(self) -> None:
        model = str(self.folder.run(self.name).model)
        self._start("evaluating", ["evaluate", model, *self.words, "--json"])

    @property
    def _output(self) -> Any:
        return self.folder.results / f".{self.name}.out"

    def _start(self, doing: str, words: list[str]) -> None:
        self.doing, self.began = doing, time.monotonic()
        number = str(self.threads)
        environment = os.environ | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
        with self.folder.log(self.name).open("ab") as log:
            log.write(f"$ ebmkit {' '.join(words)}\n".encode())
            log.flush()
            output: IO[bytes] = log if doing == "training" else self._output.open("wb")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ebmkit.sweeps.child", str(os.getpid()), *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                # Ctrl-C is this process's to pass on, once.
                start_new_session=True,
            )
            if output is not log:
                output.close()

    def _keep_evaluation(self) -> None:
        text = self._output.read_text(encoding="utf-8", errors="replace")
        self._output.unlink()
        try:
            self.record.evaluation = {"options": self.options, "result": json.loads(text)}
        except ValueError:
            self.record.error = f"evaluating: its output is not JSON: {text[:200]!r}"

    def _reason(self, code: int) -> str:
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        text = self.folder.log(self.name).read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]
        _, found, reason = text.rpartition("\nerror: ")
        lines = [line.strip() for line in (reason if found else text).splitlines() if line.strip()]
        return (" ".join(lines) if found else lines[-1] if lines else f"exit code {code}")[:500]
