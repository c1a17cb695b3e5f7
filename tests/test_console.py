"""What a person sees of long work, in a terminal and in a pipe."""

from __future__ import annotations

import io
import re

from rich.console import Console

from ebmkit.console import LABELS, LiveView, console, counting

ROW = {
    "step": 20,
    "images": 160,
    "loss": -0.25,
    "contrastive_divergence": -0.5,
    "energy_data": -1.5,
    "energy_samples": -1.0,
    "wgan_lp/penalty": 0.125,
    "gradient_norm": 2.0,
    "learning_rate": 0.0002,
    "images_per_second": 123.4,
    "skipped_images": 0,
}


def terminal(width: int = 120) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(force_terminal=True, file=file, width=width, height=30, _environ={"TERM": "xterm"}), file


def pipe() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, soft_wrap=True, width=80), file


def plain(file: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


def test_the_live_view_shows_what_the_issue_asks_for() -> None:
    target, file = terminal()
    with LiveView(target) as view:
        view.loading(10, 48)
        view.live.refresh()
        assert "loading images" in plain(file)
        view.begin(0, 40)
        for step in range(1, 21):
            view.step(step)
        view.metrics(ROW)
        view.live.refresh()
    text = plain(file)
    for label in ("training", "20/40", "steps", "left", *LABELS.values(), "wgan_lp/penalty"):
        assert label in text
    for value in ("123.4", "-0.25", "-1.5", "2", "0.0002", "0.125"):
        assert value in text
    # What the row holds for other programs only.
    assert "skipped" not in text
    assert "\x1b[" in file.getvalue()


def test_the_live_view_fits_into_a_narrow_terminal() -> None:
    target, file = terminal(width=40)
    with LiveView(target) as view:
        view.begin(0, 10)
        view.metrics(ROW)
        view.live.refresh()
    assert max(len(line) for line in re.split(r"[\r\n]+", plain(file))) <= 40


def test_time_for_loading_does_not_count_as_training() -> None:
    target, _ = terminal()
    view = LiveView(target)
    view.loading(5, 48)
    view.begin(7, 40)
    (task,) = view.progress.tasks
    assert (task.description, task.completed, task.total) == ("training", 7, 40)
    assert task.elapsed is not None
    assert task.elapsed < 1


def test_plain_lines_in_a_pipe() -> None:
    target, file = pipe()
    with LiveView(target) as view:
        view.loading(10, 48)
        view.begin(0, 40)
        view.step(20)
        view.metrics(ROW)
        view.step(21)
        view.metrics(ROW | {"step": 21})
        view.say("note: [bold]brackets[/bold] stay as they are")
        view.metrics(ROW | {"step": 40})
    text = file.getvalue()
    assert "\x1b" not in text
    assert text.splitlines() == [
        "step 20/40  loss -0.25  energy_data -1.5  energy_samples -1  wgan_lp/penalty 0.125  gradient_norm 2"
        "  learning_rate 0.0002  images_per_second 123.4",
        # Not the line of step 21: a pipe gets one every few seconds, and the last.
        "note: [bold]brackets[/bold] stay as they are",
        text.splitlines()[-1],
    ]
    assert text.splitlines()[-1].startswith("step 40/40  ")


def test_messages_stay_above_the_live_view() -> None:
    target, file = terminal()
    with LiveView(target) as view:
        view.begin(0, 40)
        view.say("warning: [x] is odd")
        view.live.refresh()
    assert "warning: [x] is odd\n" in plain(file)


def test_warnings_while_training_are_repeated_at_the_end() -> None:
    target, file = pipe()
    with LiveView(target) as view:
        view.say("warning: this recipe is odd")
        view.begin(0, 40)
        view.say("warning: tracker 'a' is called no more")
        view.say("note: a note")
        view.metrics(ROW | {"step": 40})
    before, line, *end = file.getvalue().splitlines()[-4:]
    assert before == "note: a note"
    assert line.startswith("step 40/40")
    # Not what was known before: the command has just begun to say it.
    assert end == ["1 warning while training:", "  tracker 'a' is called no more"]


def test_of_many_warnings_the_first_are_repeated() -> None:
    target, file = pipe()
    with LiveView(target) as view:
        view.begin(0, 40)
        for number in range(7):
            view.say(f"warning: [b]number[/b] {number}")
    assert file.getvalue().splitlines()[7:] == [
        "7 warnings while training:",
        *(f"  [b]number[/b] {number}" for number in range(5)),
        "  ... and more, above",
    ]


def test_a_run_without_warnings_ends_with_its_last_line() -> None:
    target, file = pipe()
    with LiveView(target) as view:
        view.begin(0, 40)
        view.metrics(ROW | {"step": 40})
    assert file.getvalue().count("\n") == 1


def test_names_of_metrics_are_never_markup() -> None:
    target, file = terminal()
    with LiveView(target) as view:
        view.begin(0, 40)
        view.metrics({"step": 1, "odd[red]name": 1.0})
        view.live.refresh()
    assert "odd[red]name" in plain(file)
    target, file = pipe()
    with LiveView(target) as view:
        view.metrics({"step": 1, "odd[red]name": 1.0})
    assert "odd[red]name 1" in file.getvalue()


def test_counting_is_a_bar_in_a_terminal_and_silent_in_a_pipe() -> None:
    target, file = terminal()
    with counting(target, "sampling", "gradient evaluations") as progress:
        progress(3, 12)
    assert "sampling" in plain(file)
    assert "3/12" in plain(file)
    target, file = pipe()
    with counting(target, "sampling", "gradient evaluations") as progress:
        progress(3, 12)
    assert file.getvalue() == ""


def test_consoles_wrap_no_lines() -> None:
    target = console()
    target.file = io.StringIO()
    target.print("x" * 500, markup=False)
    assert target.file.getvalue() == "x" * 500 + "\n"
