"""The interface of trackers."""

from __future__ import annotations

from ebmkit.interfaces.base import Component


class Tracker(Component):
    """Watches a run, and writes down what it sees. A recipe names trackers under `[[trackers]]`.

    Its methods are lifecycle hooks (`ebmkit.hookspecs`), each marked with `@ebmkit.hookimpl`; a method may leave out
    parameters that it does not need. They are called on rank 0 alone, in the training process, with copies, and
    settings of torch, random states and the working directory are given back after each call. It writes into
    `run.folder` only, and a run that is resumed from step N calls `ebmkit_train_begin` with N: what training told of
    later steps is about to come again; evaluations are not.
    """

    kind = "tracker"
