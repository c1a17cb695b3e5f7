"""What plugins rest on does not change unnoticed. `python tests/test_public_api.py` accepts a change that is meant.

See docs/plugins/versions.md: what breaks a plugin raises PLUGIN_API, and stands in the changelog with how to port.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import ebmkit
from ebmkit import hookspecs
from public_api import public_api

SNAPSHOT = Path(__file__).parent / "public_api.txt"
ADVICE = """
The public interface differs from tests/public_api.txt (- before, + now). If that is meant:
  - additions that no plugin can notice keep PLUGIN_API; anything else raises it (docs/plugins/versions.md);
  - say it in CHANGELOG.md, with how to port;
  - python tests/test_public_api.py
"""


def test_the_public_interface_is_as_frozen() -> None:
    before, now = SNAPSHOT.read_text(encoding="utf-8").splitlines(), public_api().splitlines()
    assert before == now, ADVICE + "\n".join(difflib.unified_diff(before, now, lineterm="", n=1))


def test_the_snapshot_sees_what_plugins_rest_on() -> None:
    text = SNAPSHOT.read_text(encoding="utf-8")
    assert f"PLUGIN_API = {ebmkit.PLUGIN_API}\n" in text
    for hook in hookspecs.HOOKS:
        assert f"\n{hook}(" in text
    for line in (
        "abstract refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor",
        "penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None",
        "needs_double_backward: ClassVar[bool] = ...",
        "slots: Tensor | None = ...",
        "classmethod sweep_budget(cls, options: Any, context: Context) -> SweepBudget | None",
        "make_norm(name: str, channels: int) -> nn.Module",
        "normal_like(self, x: Tensor) -> Tensor",
    ):
        assert line in text, line


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api(), encoding="utf-8")
