"""A report in a real browser, headless: what moves, what is drawn, and that nothing is fetched or complained about."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebmkit.reporting.serving import Live, Server
from ebmkit.reporting.writing import write_report
from report_runs import HOSTILE, hostile_run, train_runs, write_lines, write_picture, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs a Chromium: chromium, chromium-browser or google-chrome on the PATH", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install 'ebmkit[browser]')")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # No sandbox: root, as in containers, cannot have one. The pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page of a report, the complaints in its console, and what it asked the network for."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 2400}, color_scheme=scheme)
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def ticks(self, chart: int = 0) -> list[float]:
        """The steps that stand under a chart."""
        texts = self.page.locator(".chart").nth(chart).locator("text.x").all_text_contents()
        return [float(text.replace(",", "")) for text in texts]

    def paths(self, chart: int = 0) -> list[str]:
        """The curves of a chart, as SVG draws them."""
        return [str(path.get_attribute("d")) for path in self.page.locator(".chart").nth(chart).locator("path").all()]

    def drag(self, first: float, last: float) -> None:
        """Drag over the first chart, from one part of its width to another."""
        box = self.page.locator(".chart svg").first.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + box["width"] * first, middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + box["width"] * (first + last) / 2, middle)
        self.page.mouse.move(box["x"] + box["width"] * last, middle)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    return write_report(train_runs(folder), folder / "report.html").path.as_uri()


@pytest.fixture
def watched(browser: Any, report: str) -> Iterator[Watched]:
    watched = Watched(browser, report)
    yield watched
    assert watched.complaints == []
    assert [address for address in watched.requests if not address.startswith("data:")] == [report]
    watched.page.close()


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_the_slider_moves_the_pictures(watched: Watched) -> None:
    page = watched.page
    slider, images = page.locator("#samples input"), page.locator("#samples img")
    shown = lambda: [image.get_attribute("src") for image in images.all()]  # noqa: E731
    newest = shown()
    assert page.locator("#samples output").text_content() == "step 6"
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    seen = {}
    for position, step in enumerate((2, 3, 4, 6)):
        slider.fill(str(position))
        assert page.locator("#samples output").text_content() == f"step {step}"
        seen[step] = [page.locator("#samples .at").all_text_contents(), shown()]
    # Run one drew at 3 and 6, run two at 2, 4 and 6: each shows its newest up to the slider.
    assert [steps for steps, _ in seen.values()] == [
        *(["step 3", "step 2"], ["step 3", "step 2"], ["step 3", "step 4"], ["step 6", "step 6"])
    ]
    assert seen[2][1] == seen[3][1] != seen[4][1] != seen[6][1] == newest
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert shown() == seen[4][1]


def test_play_goes_through_all_grids_and_stops(watched: Watched) -> None:
    watched.page.locator("#samples button").click()
    assert watched.page.locator("#samples output").text_content() == "step 2"
    sync_api.expect(watched.page.locator("#samples output")).to_have_text("step 6", timeout=15_000)
    sync_api.expect(watched.page.locator("#samples button")).to_have_text("Play")


def test_curves_have_the_points_of_the_metrics(watched: Watched) -> None:
    assert watched.page.locator(".chart").count() >= 6
    paths = watched.paths()
    assert len(paths) == 2
    for path in paths:
        drawn = points(path)
        assert len(drawn) == 6
        across = [x for x, _ in drawn]
        assert across == sorted(across)
        assert across[-1] - across[0] > 300
    heights = [y for path in paths for _, y in points(path)]
    assert max(heights) - min(heights) > 150
    colours = (
        watched.page.locator(".chart")
        .first.locator("path")
        .evaluate_all("(paths) => paths.map((path) => getComputedStyle(path).stroke)")
    )
    assert colours == ["rgb(0, 114, 178)", "rgb(213, 94, 0)"]


def test_zoom_changes_the_axes_and_reset_returns(watched: Watched) -> None:
    page, whole, path = watched.page, watched.ticks(), watched.paths()[0]
    watched.drag(0.45, 0.8)
    near = watched.ticks()
    assert min(near) > whole[0]
    assert max(near) < whole[-1]
    assert near == watched.ticks(3)
    assert watched.paths()[0] != path
    first, last = (float(box.input_value()) for box in page.locator("#curves input[type=number]").all())
    assert 1 < first < last < 6
    page.locator("#whole").click()
    assert watched.ticks() == whole
    assert watched.paths()[0] == path
    page.locator("#curves input[type=number]").first.fill("4")
    page.locator("#curves input[type=number]").first.press("Enter")
    assert watched.ticks()[0] == 4
    page.locator(".chart svg").first.dblclick()
    assert watched.ticks() == whole


def test_logarithms_smoothing_and_hidden_runs(watched: Watched) -> None:
    page = watched.page
    titles = page.locator(".chart h3").all_text_contents()
    norm = page.locator(".chart").nth(titles.index("Gradient norm"))
    before = watched.paths(titles.index("Gradient norm"))
    norm.locator("button").click()
    assert norm.locator("button").get_attribute("aria-pressed") == "true"
    # Equal steps of a logarithm are equal factors; the highest and the lowest point stay where they are.
    after = watched.paths(titles.index("Gradient norm"))
    assert after != before
    heights = [[y for path in paths for _, y in points(path)] for paths in (before, after)]
    assert max(heights[0]) == pytest.approx(max(heights[1]), abs=0.2)
    assert min(heights[0]) == pytest.approx(min(heights[1]), abs=0.2)
    # A loss that goes below 0 has a scale, too.
    page.locator(".chart button").first.click()
    assert len(points(watched.paths()[0])) == 6
    assert "NaN" not in "".join(watched.paths())
    page.locator("#smooth").fill("0.9")
    assert len(watched.paths()) == 4
    page.locator("#smooth").fill("0")
    page.locator("button.run").first.click()
    assert len(watched.paths()) == 1
    page.locator("button.run").first.click()
    assert len(watched.paths()) == 2


def test_values_show_where_the_mouse_is(watched: Watched) -> None:
    box = watched.page.locator(".chart svg").first.bounding_box()
    watched.page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 60)
    text = watched.page.locator("#hover").inner_text()
    assert re.fullmatch(r"step 6\none: \S+\ntwo: \S+", text)
    watched.page.mouse.move(5, 5)
    assert not watched.page.locator("#hover").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser: Any, report: str, width: int, scheme: str) -> None:
    watched = Watched(browser, report, width, scheme)
    for summary in watched.page.locator("summary").all():
        summary.click()
    assert watched.page.evaluate("document.documentElement.scrollWidth") == width
    text, page = watched.page.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert contrast(text, page) > 10
    faint = watched.page.evaluate("getComputedStyle(document.querySelector('.faint')).color")
    assert contrast(faint, page) > 4.5
    assert watched.complaints == []
    watched.page.close()


def contrast(one: str, other: str) -> float:
    """The contrast of two CSS colours as WCAG 2 defines it, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_hostile_run_shows_as_text_and_runs_nothing(browser: Any, tmp_path: Path) -> None:
    path = write_report([hostile_run(tmp_path)], tmp_path / "report.html").path
    watched = Watched(browser, path.as_uri())
    page = watched.page
    assert page.title() == f"Run {HOSTILE.replace('/', '')}"
    assert page.locator("script").count() == 2
    assert page.locator("img[onerror]").count() == 0
    assert page.locator(".chart h3").all_text_contents()[1] == HOSTILE
    assert points(watched.paths(1)[0]) != []
    assert watched.complaints == []
    # And had a text become an element, the page's policy would not run it.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=`broken`\">')")
    page.wait_for_timeout(200)
    assert page.title() != "broken"
    assert watched.complaints != []
    page.close()


def test_a_watched_run_goes_on_by_itself_and_keeps_what_was_chosen(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [{"step": step, "loss": step} for step in range(1, 9)], [4])
    with Server(Live([run], 10**7), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            watched = Watched(browser, server.url)
            page = watched.page
            assert page.locator("#live").text_content() == "live"
            page.locator("#curves input[type=number]").first.fill("3")
            page.locator("#curves input[type=number]").first.press("Enter")
            write_lines(run / "metrics.jsonl", [{"step": step, "loss": step, "new": 1} for step in range(1, 13)])
            write_picture(run / "samples" / "step-000000012.png", 12)
            sync_api.expect(page.locator("#samples output")).to_have_text("step 12", timeout=20_000)
            assert page.locator(".chart").count() == 2
            assert page.locator("#curves input[type=number]").first.input_value() == "3"
            assert watched.ticks()[0] >= 3
            assert watched.complaints == []
            assert {address for address in watched.requests if not address.startswith("data:")} == {server.url}
        finally:
            server.shutdown()
            thread.join()
        page.close()
