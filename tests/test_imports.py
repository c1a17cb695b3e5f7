"""torch is imported when something is computed, and not before."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "deepspeed", "webdataset", "sklearn", "PIL", "tensorboard")
SCRIPT = f"""
import json, sys
{{code}}
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""

CASES = {
    "the package": "import ebmkit",
    "listing its names": "import ebmkit; assert 'EnergyModel' in dir(ebmkit)",
    "every plugin and class": """
from ebmkit.registry import default_registry
registry = default_registry()
assert not registry.broken, registry.broken
assert len({item.kind for item in registry}) == 8
for item in registry:
    assert item.component.Options
""",
    "checking every shipped recipe": """
from ebmkit import pipeline, recipe
for name in recipe.shipped_recipes():
    pipeline.cross_check(recipe.load(name), name)
    recipe.load(name).to_toml()
""",
    "describing and the schema": """
from ebmkit.description import describe_component
from ebmkit.recipe_schema import recipe_schema
from ebmkit.registry import default_registry
for item in default_registry():
    describe_component(item)
recipe_schema(default_registry(), print)
""",
}


@pytest.mark.parametrize("case", CASES)
def test_torch_is_not_imported_by(case: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(code=CASES[case])],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_check_would_see_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(code="import ebmkit; ebmkit.EnergyModel")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "torch" in json.loads(done.stdout)
