"""What the ranks of a job have after they took over a run, before any step.

`python restored.py OUT STAGE RUN...`, in each process; rank 0 writes OUT/NUMBER.safetensors for each run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ebmkit import recipe as recipes
from ebmkit.console import Silent
from ebmkit.distributed.job import taking_part
from ebmkit.distributed.place import find_place
from ebmkit.run_folder import RunFolder
from ebmkit.state_file import save_state
from ebmkit.trainer import Trainer


def main() -> None:
    torch.set_num_threads(1)
    out, stage, folders = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    with taking_part(find_place(), print) as world:
        for number, folder in enumerate(folders):
            run = RunFolder(Path(folder))
            recipe = recipes.load(run.recipe, {"engine.zero_stage": stage})
            said: list[str] = []
            trainer = Trainer(recipe, run, "cpu", Silent(said.append), world)
            shared = {"model": trainer.model, "ema": trainer.ema, "engine": trainer.engine}
            state = {name: part.state_dict() for name, part in shared.items()}
            buffers = world.gather(trainer.buffer.state_dict())
            data = world.gather(trainer.data.state_dict())
            told = world.gather(said)
            if world.first:
                more = {"buffers": buffers, "data": data, "said": told, "step": trainer.step}
                save_state(out / f"{number}.safetensors", state | more)


if __name__ == "__main__":
    main()
