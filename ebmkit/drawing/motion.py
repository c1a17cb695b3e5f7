"""Moving pictures: frames as .gif (by Pillow) or .mp4 (by ffmpeg)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ebmkit.errors import BadInput, EbmkitError
from ebmkit.files import write_atomically

MOVING = (".gif", ".mp4")
FRAMES_PER_SECOND = 5
HOLD = 2.0
"""Seconds that the last frame stands."""


def check_player(path: Path) -> None:
    """Raise `BadInput` where `path` is a video and this machine has no ffmpeg to write it."""
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        gif = path.with_suffix(".gif")
        raise BadInput(f"{path}: .mp4 needs the program ffmpeg, which is not on PATH; install it, or write {gif}")


def save_frames(frames: Sequence[np.ndarray], path: Path) -> None:
    """Write RGB frames, uint8 `[height, width, 3]`, at `FRAMES_PER_SECOND`; the last one stands for `HOLD` seconds.

    Raises `BadInput` without ffmpeg for .mp4, `EbmkitError` where ffmpeg fails.
    """
    check_player(path)
    write = _write_mp4 if path.suffix.lower() == ".mp4" else _write_gif
    write_atomically(path, lambda temporary: write(frames, temporary))


def _write_gif(frames: Sequence[np.ndarray], path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    durations = [1000 // FRAMES_PER_SECOND] * (len(frames) - 1) + [int(1000 * HOLD)]
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _write_mp4(frames: Sequence[np.ndarray], path: Path) -> None:
    height, width, _ = frames[0].shape
    stream = [*frames, *[frames[-1]] * (int(HOLD * FRAMES_PER_SECOND) - 1)]
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {FRAMES_PER_SECOND} -i -"
    # Every player shows 4:2:0, which wants even sizes.
    coding = "-vf pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white -c:v libx264 -crf 18 -pix_fmt yuv420p -movflags +faststart"
    command = ["ffmpeg", "-v", "error", "-y", *source.split(), *coding.split(), str(path)]
    pixels = b"".join(frame.tobytes() for frame in stream)
    done = subprocess.run(command, input=pixels, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise EbmkitError(f"ffmpeg could not write the video: {lines[-1]}; .gif needs no ffmpeg")
