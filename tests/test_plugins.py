"""Discovery with real installed distributions, broken in every way: each is reported, none hurts the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ebmkit import PLUGIN_API
from ebmkit.kinds import KINDS
from ebmkit.plugins import DISABLE_VARIABLE

GOOD = """
from ebmkit import BaseOptions, Sampler, hookimpl
PLUGIN_API = 1

class Still(Sampler):
    '''Moves nothing.'''
    name = "{name}"
    class Options(BaseOptions):
        '''None.'''
        steps: int = 1
    @property
    def steps(self):
        return 1
    def refine(self, energy, x, t, noise):
        return x

@hookimpl
def ebmkit_samplers():
    return [Still]
"""
STILL = GOOD.format(name="still")

REPORT = """
import json
from ebmkit.errors import PluginMissing
from ebmkit.registry import default_registry
registry = default_registry()
def find(kind, name):
    try:
        return repr(registry.find(kind, name).component.__module__)
    except PluginMissing as error:
        return str(error)
print(json.dumps({
    "found": [[r.kind, r.name, r.plugin, r.distribution, r.version] for r in registry],
    "broken": [[b.plugin, b.distribution, b.version, b.reason] for b in registry.broken],
    "still": find("sampler", "still"), "unknown": find("sampler", "stil"), "langevin": find("sampler", "langevin"),
}))
"""


def install(folder: Path, distribution: str, module: str, source: str, plugin: str = "", version: str = "1.2") -> None:
    """What pip leaves of a distribution: the module and a dist-info folder with its entry point."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[ebmkit]\n{plugin or module} = {module}\n")


def report(folder: Path, code: str = REPORT, **environment: str) -> dict[str, Any]:
    """What a new Python that has `folder` on its path finds."""
    kept = {key: value for key, value in os.environ.items() if key != DISABLE_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def first_party(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is installed without any plugin of ours."""
    return report(tmp_path_factory.mktemp("empty"))


def test_first_party_plugins_are_found_with_their_distribution(first_party: dict[str, Any]) -> None:
    import ebmkit

    assert first_party["broken"] == []
    names: dict[str, list[str]] = {}
    for kind, name, _, distribution, version in first_party["found"]:
        names.setdefault(kind, []).append(name)
        assert (distribution, version) == ("ebmkit", ebmkit.__version__)
    assert names == {
        "energy": ["resnet", "timm", "unet"],
        "sampler": ["langevin"],
        "buffer": ["cyclic", "fresh", "persistent"],
        "regularizer": ["energy_l2", "spectral_norm", "wgan_gp", "wgan_lp"],
        "schedule": ["constant", "cosine", "cosine_restarts", "geometric", "linear"],
        "objective": ["contrastive_divergence"],
        "tracker": ["csv", "tensorboard"],
        "feature_extractor": ["efficientnet_lite0"],
    }
    assert tuple(names) == KINDS


def test_a_plugin_of_someone_else_is_one_of_them(tmp_path: Path, first_party: dict[str, Any]) -> None:
    install(tmp_path, "still-life", "still_life", STILL)
    found = report(tmp_path)
    assert found["broken"] == []
    assert found["still"] == "'still_life'"
    assert ["sampler", "still", "still_life", "still-life", "1.2"] in found["found"]
    assert [item for item in found["found"] if item[1] != "still"] == first_party["found"]
    assert found["unknown"] == "unknown sampler 'stil'; did you mean 'still'?"


BROKEN: dict[str, tuple[str, str]] = {
    "raises on import": ("raise ValueError('no\\nluck')", "ValueError: no luck"),
    "exits on import": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "needs what is not installed": ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    "syntax error": ("def broken(:", "SyntaxError: invalid syntax"),
    "raises something odd": ("class Odd(Exception): pass\nraise Odd", "Odd"),
    "misspelled hook": (
        STILL.replace("ebmkit_samplers", "ebmkit_sampler"),
        "it implements a hook that ebmkit does not have, 'ebmkit_sampler'; did you mean 'ebmkit_samplers'?",
    ),
    "hook with other parameters": (STILL.replace("ebmkit_samplers()", "ebmkit_samplers(run)"), "ebmkit_samplers"),
    "no hook at all": ("PLUGIN_API = 1\n", "it implements no hook of ebmkit"),
    "unmarked hook": (STILL.replace("@hookimpl", ""), "its ebmkit_samplers is not marked with @ebmkit.hookimpl"),
    "no PLUGIN_API": (
        STILL.replace("PLUGIN_API = 1", ""),
        f"it states no PLUGIN_API; this ebmkit has PLUGIN_API = {PLUGIN_API}",
    ),
    "newer PLUGIN_API": (
        STILL.replace("PLUGIN_API = 1", "PLUGIN_API = 99"),
        f"it was written for PLUGIN_API 99; this ebmkit has PLUGIN_API = {PLUGIN_API}: "
        "upgrade ebmkit, or install an older version of broken-one",
    ),
    "older PLUGIN_API": (
        STILL.replace("PLUGIN_API = 1", "PLUGIN_API = 0"),
        f"it was written for PLUGIN_API 0; this ebmkit has PLUGIN_API = {PLUGIN_API}: "
        "upgrade broken-one, or ask its author for a version for this ebmkit",
    ),
    "PLUGIN_API as text": (
        STILL.replace("PLUGIN_API = 1", "PLUGIN_API = '1'"),
        f"it was written for PLUGIN_API '1'; this ebmkit has PLUGIN_API = {PLUGIN_API}, a whole number",
    ),
    "PLUGIN_API as truth": (STILL.replace("PLUGIN_API = 1", "PLUGIN_API = True"), "PLUGIN_API True; this ebmkit"),
    "hook raises": (STILL.replace("return [Still]", "return [Missing]"), "NameError: name 'Missing' is not defined"),
    "returns one class": (STILL.replace("[Still]", "Still"), "must return a list of classes, not ABCMeta"),
    "returns nothing": (STILL.replace("return [Still]", "return None"), "must return a list of classes, not NoneType"),
    "returns an instance": (STILL.replace("[Still]", "[3]"), "returned 3, which is no subclass of ebmkit.Sampler"),
    "another kind": (
        STILL.replace("ebmkit_samplers", "ebmkit_buffers"),
        "ebmkit_buffers returned <class 'p.Still'>, which is no subclass of ebmkit.Buffer",
    ),
    "abstract class": (STILL.replace("def refine", "def refien"), "p.Still does not implement refine"),
    "no name": (STILL.replace('name = "still"', ""), "p.Still needs a name of lower-case letters, digits"),
    "bad name": (GOOD.format(name="Still Life"), "underscores, not 'Still Life'"),
    "name with a line end": (GOOD.format(name="still\\n"), r"underscores, not 'still\n'"),
    "foreign options": (STILL.replace("(BaseOptions)", ""), "p.Still.Options must be a subclass of ebmkit.BaseOptions"),
    "option without a type": (STILL.replace("steps: int = 1", "steps = 1"), "PydanticUserError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_reported_and_hurts_nobody(fault: str, tmp_path: Path, first_party: dict[str, Any]) -> None:
    source, reason = BROKEN[fault]
    install(tmp_path, "broken-one", "p", source, plugin="broken")
    found = report(tmp_path)
    assert found["found"] == first_party["found"]
    assert found["langevin"] == first_party["langevin"]
    ((plugin, distribution, version, told),) = found["broken"]
    assert (plugin, distribution, version) == ("broken", "broken-one", "1.2")
    assert reason in told
    assert "\n" not in told
    # Whoever asks for what the plugin would have had is told why it is not there.
    assert found["still"].splitlines() == [
        "unknown sampler 'still'; installed: langevin",
        "plugins that did not load:",
        f"  {told} [broken (broken-one 1.2)]",
    ]


def test_an_entry_point_to_nowhere_or_to_no_module(tmp_path: Path, first_party: dict[str, Any]) -> None:
    install(tmp_path, "nowhere", "gone", STILL)
    (tmp_path / "gone.py").unlink()
    install(tmp_path, "a-class", "cls", STILL)
    info = tmp_path / "a_class-1.2.dist-info" / "entry_points.txt"
    info.write_text("[ebmkit]\ncls = cls:Still\nnone = cls:Stil\n")
    found = report(tmp_path)
    assert found["found"] == first_party["found"]
    assert {plugin: reason for plugin, _, _, reason in found["broken"]} == {
        "cls": "its entry point must name a module, not ABCMeta",
        "none": "AttributeError: module 'cls' has no attribute 'Stil'",
        "gone": "ModuleNotFoundError: No module named 'gone'",
    }


def test_damaged_metadata_is_no_reason_to_stop(tmp_path: Path) -> None:
    install(tmp_path, "still-life", "still_life", STILL)
    (tmp_path / "still_life-1.2.dist-info" / "METADATA").unlink()
    assert ["sampler", "still", "still_life", "unknown", "unknown"] in report(tmp_path)["found"]


def test_one_name_from_two_distributions_is_an_error_that_names_both(tmp_path: Path) -> None:
    install(tmp_path, "still-life", "one", STILL)
    install(tmp_path, "still-water", "two", STILL, version="3")
    found = report(tmp_path)
    assert found["broken"] == []
    assert "sampler 'still' is ambiguous" in found["still"]
    assert "still-life 1.2 (plugin 'one') and still-water 3 (plugin 'two')" in found["still"]
    assert f"{DISABLE_VARIABLE}=" in found["still"]
    assert listed(tmp_path)["ambiguous"] == [found["still"]]
    # The way out that the message names.
    assert report(tmp_path, **{DISABLE_VARIABLE: "one"})["still"] == "'two'"


def listed(folder: Path) -> dict[str, Any]:
    """What `ebmkit list-plugins --json` prints."""
    code = "import sys; sys.argv[1:] = ['list-plugins', '--json']; from ebmkit.cli import main; main()"
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_name_of_ours_taken_by_someone_else(tmp_path: Path, first_party: dict[str, Any]) -> None:
    install(tmp_path, "mine", "mine", GOOD.format(name="langevin"))
    found = report(tmp_path)
    assert "sampler 'langevin' is ambiguous" in found["langevin"]
    assert "mine 1.2 (plugin 'mine')" in found["langevin"]
    assert "(plugin 'langevin')" in found["langevin"]
    assert report(tmp_path, **{DISABLE_VARIABLE: "mine"})["langevin"] == first_party["langevin"]


def test_two_distributions_may_choose_one_plugin_name(tmp_path: Path) -> None:
    install(tmp_path, "still-life", "one", STILL, plugin="same")
    install(tmp_path, "other-life", "two", GOOD.format(name="other"), plugin="same")
    found = report(tmp_path)
    assert found["broken"] == []
    assert {"still", "other"} <= {item[1] for item in found["found"]}


def test_disabled_plugins_are_not_even_imported(tmp_path: Path, first_party: dict[str, Any]) -> None:
    install(tmp_path, "loud", "loud", f"open({str(tmp_path / 'imported')!r}, 'w')\n{STILL}")
    found = report(tmp_path, **{DISABLE_VARIABLE: " loud , schedules,nobody"})
    assert not (tmp_path / "imported").exists()
    told = {plugin: reason for plugin, _, _, reason in found["broken"]}
    assert told == dict.fromkeys(("loud", "schedules"), f"disabled by {DISABLE_VARIABLE}")
    assert found["found"] == [item for item in first_party["found"] if item[0] != "schedule"]
    assert f"disabled by {DISABLE_VARIABLE} [loud (loud 1.2)]" in found["still"]
    report(tmp_path)
    assert (tmp_path / "imported").exists(), "it would have been seen"


def test_commands_show_broken_plugins_and_go_on(tmp_path: Path) -> None:
    install(tmp_path, "broken-one", "p", "raise ValueError('no luck')", plugin="broken")
    code = """
        import contextlib, io, json, sys
        from ebmkit.cli import main
        def command(*words):
            sys.argv, out, err, code = ["ebmkit", *words], io.StringIO(), io.StringIO(), 0
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as end:
                    code = end.code
            return [code, out.getvalue(), err.getvalue()]
        print(json.dumps({
            "list": command("list-plugins"), "check": command("check", "digits"),
            "use": command("check", "digits", "--set", "sampler.use=still"),
        }))
    """
    found = report(tmp_path, textwrap.dedent(code), COLUMNS="200")
    assert found["list"][0] in (0, None)
    assert "langevin" in found["list"][1]
    shown = "".join(found["list"][1:])
    assert "ValueError: no luck" in shown
    assert "broken-one" in shown
    assert found["check"][0] in (0, None)
    assert "no luck" not in "".join(found["check"][1:])
    assert found["use"][0] == 2
    assert "sampler.use" in found["use"][2]
    # Under the message that it belongs to.
    column = found["use"][2].splitlines()[1].index("unknown sampler")
    assert f"{' ' * column}  ValueError: no luck [broken (broken-one 1.2)]" in found["use"][2].splitlines()


def test_a_name_that_is_disabled_in_vain_is_told_once(tmp_path: Path) -> None:
    for words, told in {
        ("list-plugins",): "",
        ("check", "digits", "--set", "sampler.noise=0.1"): "",
        ("check", "digits", "--set", "energy.use=timm"): "error: ",
    }.items():
        env = {**os.environ, DISABLE_VARIABLE: "Tensor-Bord, nothing_like_it, timm"}
        command = [sys.executable, "-m", "ebmkit", *words]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        first, second, *others = done.stderr.splitlines()
        said = f"warning: {DISABLE_VARIABLE}: no plugin is called "
        assert first == f"{said}'Tensor-Bord'; did you mean 'tensorboard'?"
        assert second.startswith(f"{said}'nothing_like_it'; installed: buffers, contrastive, csv, ")
        assert said not in "".join(others)
        assert "".join(others).startswith(told)
        if words == ("list-plugins",):
            # The one that is known is listed as what it is.
            (line,) = others
            assert line.startswith(f"disabled by {DISABLE_VARIABLE} [timm (ebmkit ")


LIFECYCLE = """
import json
from ebmkit import hookimpl
PLUGIN_API = 1
@hookimpl
def ebmkit_train_begin(run):
    print(json.dumps({"begins": run}))
"""


def test_a_plugin_of_lifecycle_hooks_alone_is_whole(tmp_path: Path, first_party: dict[str, Any]) -> None:
    install(tmp_path, "tracker", "tracker", LIFECYCLE)
    found = report(tmp_path)
    assert found["broken"] == []
    assert found["found"] == first_party["found"]
    code = (
        "from ebmkit.registry import default_registry\nfrom ebmkit.lifecycle import Lifecycle\n"
        "Lifecycle(default_registry(), [], 'mine', print).call('ebmkit_train_begin', step=0)\n"
    )
    assert report(tmp_path, code) == {"begins": "mine"}
    # Nobody named it, and it is called in every run: that must be seen.
    hooks = ["ebmkit_train_begin"]
    expected = {"plugin": "tracker", "distribution": "tracker", "version": "1.2", "hooks": hooks}
    assert listed(tmp_path)["hooks"] == [expected]


TRACKERS = {
    "misspelled": (
        "ebmkit_step_ends(self)",
        "p.Bad implements a hook that ebmkit does not have, 'ebmkit_step_ends'; did",
    ),
    "wrong parameters": (
        "ebmkit_step_end(self, stepp)",
        "p.Bad.ebmkit_step_end takes stepp, which the hook does not give; it gives metrics, run, step",
    ),
    "no hook": ("other(self)", "p.Bad implements no lifecycle hook of ebmkit"),
}


@pytest.mark.parametrize("fault", TRACKERS)
def test_a_tracker_with_wrong_hooks_is_refused(fault: str, tmp_path: Path) -> None:
    method, reason = TRACKERS[fault]
    marked = "" if fault == "no hook" else "@hookimpl"
    source = f"""
        from ebmkit import Tracker, hookimpl
        PLUGIN_API = 1

        class Bad(Tracker):
            '''Bad.'''
            name = "bad"
            {marked}
            def {method}:
                pass

        @hookimpl
        def ebmkit_trackers():
            return [Bad]
    """
    install(tmp_path, "bad-tracker", "p", source)
    ((_, _, _, told),) = report(tmp_path)["broken"]
    assert reason in told


def test_a_component_of_another_kind_is_sent_where_it_belongs() -> None:
    from ebmkit.errors import PluginMissing
    from ebmkit.interfaces import KINDS
    from ebmkit.registry import default_registry

    registry = default_registry()
    for kind, name, where in (
        ("regularizer", "csv", "'csv' is a tracker: use it under [[trackers]]"),
        ("tracker", "wgan_lp", "'wgan_lp' is a regularizer: use it under [[regularizers]]"),
        ("sampler", "unet", "'unet' is an energy: use it under [energy]"),
        ("energy", "linear", "'linear' is a schedule: use it as the value of an option, { use = ... }"),
    ):
        with pytest.raises(PluginMissing) as caught:
            registry.find(kind, name)
        assert str(caught.value) == f"unknown {kind} '{name}'; {where}"
    # Every kind has its place.
    for item in registry:
        with pytest.raises(PluginMissing, match=f"'{item.name}' is an? {item.kind}: use it "):
            registry.find(next(kind for kind in KINDS if item.name not in registry.names(kind)), item.name)
