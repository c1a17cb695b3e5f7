"""What is particular to each kind in the texts of a project; `$component` stands for the component's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class KindTexts:
    """The `summary` of the example, a `recipe` with it (TOML), how `ebmkit train --set` names it, and what to `change`.

    `change` are the items of a Markdown list. A kind that is no part of a recipe has none.
    """

    summary: str
    change: str
    recipe: str = ""
    set_value: str = ""


KIND_TEXTS: Mapping[str, KindTexts] = {
    "energy": KindTexts(
        summary="The example is a small convolutional network for images of any size.",
        recipe='[energy]\nuse = "$component"\nchannels = 32\nlevels = 2',
        set_value="energy.use=$component",
        change="""\
- The network, in `network.py`. Each image has to be by itself: no batch norm. Gradient penalties differentiate twice.
- `Options` in `energy.py`, and what `build` hands on. Where a network needs certain image sizes, let `problems` say so.
- The docstring of `$class_name`, which `ebmkit describe` shows.""",
    ),
    "sampler": KindTexts(
        summary="The example is Langevin dynamics with one step size and one noise level.",
        recipe='[sampler]\nuse = "$component"\nsteps = 3\nstep_size = 1.3\nnoise = 0.05',
        set_value="sampler.use=$component",
        change="""\
- The step in `refine`. Take every random number from `noise`, and keep nothing between calls.
- `sweep_budget`, which has to say how far these steps go and how much noise they add; or leave it out.
- `Options`. A sampler for larger images needs larger steps: `ebmkit check` compares them with the way to the data.""",
    ),
    "buffer": KindTexts(
        summary="The example lets chains cycle through the time steps, and begin anew from noise after the last.",
        recipe='[buffer]\nuse = "$component"\nsize = 10000',
        set_value="buffer.use=$component",
        change="""\
- `draw` and `store`: which chains go on, from which images, at which time step.
- `state_dict` and `load_state_dict`, if the buffer keeps more. Whatever a resumed run needs has to be in there.
- `Options`. Keep the name `size` for the number of slots; `ebmkit check` knows it.""",
    ),
    "regularizer": KindTexts(
        summary="The example keeps the energies of data and samples together.",
        recipe='[[regularizers]]\nuse = "wgan_lp"\nweight = 10.0\n\n'
        '[[regularizers]]\nuse = "$component"\nweight = 0.01',
        set_value='regularizers=[{ use = "wgan_lp", weight = 10.0 }, { use = "$component" }]',
        change="""\
- The equation in `penalty`. Set `needs_double_backward = True` on the class if it differentiates a gradient by `x`.
- Its test in `tests/`, by a case that you can compute by hand.
- Random numbers come from `generator` only. A regularizer that changes the network itself writes `prepare`.""",
    ),
    "schedule": KindTexts(
        summary="The example is a power law from one value to another.",
        recipe='[optimizer]\nlearning_rate = { use = "$component", start = 6e-4, end = 0.0, power = 2.0 }',
        set_value='optimizer.learning_rate={ use = "$component", start = 6e-4 }',
        change="""\
- The equation in `__call__`. It depends on `progress` and the options alone, so that a resumed run goes on exactly.
- `Options`. One without a default needs `examples=[...]`, from which tools can build it.
- Any option that takes a schedule takes this one: learning rate, and a sampler's step size or noise.""",
    ),
    "objective": KindTexts(
        summary="The example is the logistic loss of the difference between the energies of samples and data.",
        recipe='[objective]\nuse = "$component"\nsharpness = 1.0',
        set_value="objective.use=$component",
        change="""\
- The equation in `loss`. Minimising it has to lower the energy of data and raise that of samples.
- `pairs`, where the samples are not the buffer's chains: subclass `Objective` instead of `BufferedObjective`.
- Its test in `tests/`, by a case that you can compute by hand.""",
    ),
    "tracker": KindTexts(
        summary="The example writes a line for each logged step into a text file of the run folder.",
        recipe='[[trackers]]\nuse = "$component"\nmetrics = ["loss", "energy_data", "energy_samples"]',
        set_value='trackers=[{ use = "$component" }]',
        change="""\
- What `ebmkit_step_end` does. Other hooks tell of samples, checkpoints, evaluations and the end of a run.
- `ebmkit_train_begin`, which has to undo what was written for steps after `step`.
- Write into `run.folder` only. A hook that takes long makes training slow; one that raises is not called again.""",
    ),
    "feature_extractor": KindTexts(
        summary="The example takes means of colours over a grid of cells.",
        change="""\
- `features`: a network in evaluation mode, in which images that people find alike lie close together.
- `weights`, which has to change whenever the features do: those of real images are cached by it.
- `problems`, where the network needs a package or a file that may be missing: say what to install or fetch.""",
    ),
}
"""The texts of every kind."""
