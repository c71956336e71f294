"""The page in a real browser, headless Chromium: what it draws, and how it answers to pointer, keyboard and theme."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyblock_html_report.command import main
from anyblock_html_report.page import render
from anyblock_html_report.run import read_run
from anyblock_html_report.views import curves, training

pytest.importorskip("selenium", reason="selenium is not installed; `nox -s browser` brings it")
if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
    pytest.skip("no Chromium and chromedriver on this machine; `nox -s browser` says more", allow_module_level=True)

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
Show = Callable[[Path], Any]

OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll(".chart svg")) {
  const boxes = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim() && !t.closest("[aria-label=tip]"))
    .map(t => [t.textContent, t.getBoundingClientRect(), t]).filter(([, b]) => b.width && b.height);
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const [a, p, text] = boxes[i], [b, q] = boxes[j];
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    const turned = text.closest("[transform*=rotate]");
    if (!turned && wide > 1.5 && high > 4.5) found.push(`${a} | ${b}`);
  }
}
return found;
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"), env=dict(os.environ))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def show(driver: Any, tmp_path: Path) -> Iterator[Show]:
    """Open the page of runs in a light system theme and nothing remembered, and look for errors at the end."""

    def open_page(*paths: Path) -> Any:
        page = tmp_path / "report.html"
        page.write_text(render([read_run(path) for path in paths]), encoding="utf-8")
        system(driver, "light")
        driver.get(page.as_uri())
        driver.execute_script("localStorage.clear()")
        driver.refresh()
        WebDriverWait(driver, 60).until(lambda d: drawn(d) is not None)
        return driver

    driver.get_log("browser")
    yield open_page
    assert driver.get_log("browser") == []


def drawn(driver: Any) -> str | None:
    return driver.execute_script("return document.documentElement.dataset.drawn ?? null")


def system(driver: Any, theme: str) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": theme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # pages that still scroll cannot be pointed at
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(driver: Any, selector: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, selector)


def point_at(driver: Any, element: Any, happens: Callable[[Any], bool]) -> None:
    """Put the pointer on an element, again where the page was still scrolling, until something happens."""
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)

    def moved(_: Any) -> bool:
        ActionChains(driver).move_to_element(element).move_by_offset(1, 0).perform()
        return happens(driver)

    WebDriverWait(driver, 20).until(moved)


def background(driver: Any) -> str:
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("kind", ["dense", "sparse", "hybrid", "vision"])
def test_every_view_is_drawn(kind: str, runs: dict[str, Path], show: Show) -> None:
    driver, path = show(runs[kind]), runs[kind]
    run = read_run(path)
    trained = ("training",) if training(run) else ()
    trained += ("curves",) if curves(run) else ()
    assert trained == ("training", "curves") or kind != "dense"
    for view in ("architecture", "damage", "front", "waterfall", "stages", *trained):
        svg = find(driver, f"[data-view={view}] svg[role=img]")
        assert svg.get_attribute("aria-label")
        assert svg.size["height"] > 60
    assert run.scores is not None
    assert len(driver.find_elements(By.CSS_SELECTOR, "[data-view=damage] .chosen")) == len(run.choices)
    cells = driver.find_elements(By.CSS_SELECTOR, "[data-view=damage] svg rect[class^=q]")
    assert len(cells) == len(run.scores) + len(run.choices)  # each half of the teacher has a cell too
    assert driver.execute_script(OVERLAPS) == []
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_run_with_texts_and_an_unfinished_one(dense: Path, show: Show) -> None:
    assert main([str(dense), "--texts", "2"]) == 0
    driver = show(dense)
    assert len(driver.find_elements(By.CSS_SELECTOR, ".sides")) == 2
    assert driver.find_elements(By.CSS_SELECTOR, ".tokens .t")
    serious(driver)
    (dense / "summary.json").unlink()
    for folder in (dense / "stages").glob("0[6-9]-*"):
        shutil.rmtree(folder)
    assert "not finished" in find(show(dense), ".note").text


def test_the_pointer_and_the_keyboard_say_what_a_cell_is(runs: dict[str, Path], show: Show) -> None:
    driver = show(runs["dense"])
    tip, said = find(driver, "#tip"), find(driver, "#said")
    for view in ("architecture", "damage"):
        figure = find(driver, f"[data-view={view}]")
        cells = {"architecture": "rect.ghost", "damage": "rect.q8"}
        cell = find(driver, f"[data-view={view}] {cells[view]}")
        point_at(driver, cell, lambda _: tip.is_displayed())
        assert tip.text.startswith("Layer ")
        point_at(driver, find(driver, ".brand"), lambda _: not tip.is_displayed())
        driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", figure)
        driver.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        )  # it has scrolled
        driver.execute_script("arguments[0].focus({preventScroll: true})", figure)
        seen = []
        for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN):
            figure.send_keys(key)
            seen.append(driver.execute_script("return arguments[0].textContent", said))
        assert len(set(seen)) == 3
        assert seen[0].startswith("Layer 0")
        assert seen[1].startswith("Layer 1")
        assert tip.is_displayed()
        figure.send_keys(Keys.ESCAPE)
        assert not tip.is_displayed()
    teacher = driver.find_elements(By.CSS_SELECTOR, "[data-view=front] g[data-mark=dot] circle")[-1]
    shown = "return document.querySelector('[data-view=front] svg[role=img]').textContent"
    point_at(driver, teacher, lambda d: "(100.0% of the teacher)" in d.execute_script(shown))


def test_tables_sort_and_rows_of_the_heat_map_too(runs: dict[str, Path], show: Show) -> None:
    driver = show(runs["dense"])
    find(driver, "[id^=architecture] summary").send_keys(Keys.ENTER)
    heading = find(driver, "table[data-table=layers] th:nth-child(6)")
    values = (
        "return [...document.querySelectorAll('table[data-table=layers] tbody td:nth-child(6)')].map(c => +c.dataset.v)"
    )
    WebDriverWait(driver, 10).until(lambda d: d.execute_script(values))
    for order, direction in (("ascending", 1), ("descending", -1)):
        heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert heading.get_attribute("aria-sort") == order
        listed = driver.execute_script(values)
        assert listed == sorted(listed, key=lambda value: direction * value)
        assert len(set(listed)) > 1
    labels = "return [...document.querySelectorAll('[data-view=damage] svg text.axis title')].map(t => t.textContent)"
    before = driver.execute_script(labels)
    Select(find(driver, ".order")).select_by_value("damage")
    after = driver.execute_script(labels)
    assert sorted(after) == sorted(before)
    shown = find(driver, "[data-view=front] svg[role=img]").get_attribute("aria-label")
    Select(find(driver, ".cost")).select_by_value("kv_memory")
    assert find(driver, "[data-view=front] svg[role=img]").get_attribute("aria-label") != shown


def test_the_theme_is_the_systems_until_it_is_chosen(runs: dict[str, Path], show: Show) -> None:
    driver = show(runs["dense"])
    light = background(driver)
    system(driver, "dark")
    dark = background(driver)
    assert dark != light
    find(driver, "#theme").click()
    assert background(driver) == light
    driver.refresh()
    assert background(driver) == light  # remembered
    find(driver, "#theme").click()
    system(driver, "light")
    assert background(driver) == dark


def test_it_prints_in_light_colours(runs: dict[str, Path], show: Show) -> None:
    driver = show(runs["dense"])
    find(driver, "#theme").click()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert background(driver) == "rgb(255, 255, 255)"
    ink = driver.execute_script("return getComputedStyle(document.body).color")
    assert ink == "rgb(29, 28, 26)"
    assert not find(driver, "header.top").is_displayed()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")


def test_runs_are_compared(runs: dict[str, Path], show: Show) -> None:
    driver = show(*runs.values())
    assert find(driver, "[data-view=compare] svg[role=img]").size["height"] > 60
    names = "return [...document.querySelectorAll('#compare tbody th')].map(c => c.textContent)"
    heading = find(driver, "#compare thead th:nth-child(6)")
    heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    by_kl = sorted(
        runs, key=lambda kind: json.loads((runs[kind] / "summary.json").read_text())["quality"]["kl_per_token"]
    )
    assert len(driver.execute_script(names)) == len(by_kl)
    shown = driver.execute_script(
        "return [...document.querySelectorAll('#compare tbody td:nth-child(6)')].map(c => +c.dataset.v)"
    )
    assert shown == sorted(shown)
    serious(driver)


def serious(driver: Any) -> None:
    """Assert that axe-core finds nothing serious in both themes."""
    driver.execute_script(AXE)
    for theme in ("light", "dark"):
        system(driver, theme)
        found = driver.execute_async_script("axe.run().then(arguments[0])")
        assert found["passes"]
        bad = [
            (v["id"], v["impact"], node["html"][:200], node["failureSummary"])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
            for node in v["nodes"]
        ]
        assert bad == [], theme
    system(driver, "light")


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_axe_finds_nothing_serious(kind: str, runs: dict[str, Path], show: Show) -> None:
    driver = show(runs[kind])
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    serious(driver)


def test_a_large_run(large: Path, show: Show, record_property: Callable[[str, object], None]) -> None:
    driver = show(large)
    milliseconds = int(drawn(driver) or 0)
    loaded = driver.execute_script("return Math.round(performance.getEntriesByType('navigation')[0].loadEventEnd)")
    print(f"80 layers x 60 candidates: drawn in {milliseconds} ms, loaded in {loaded} ms")
    assert loaded < 30_000
    assert len(driver.find_elements(By.CSS_SELECTOR, "[data-view=damage] svg rect[class^=q]")) == 80 * 60
    assert driver.execute_script(OVERLAPS) == []
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_nothing_in_a_run_becomes_code(dense: Path, show: Show) -> None:
    said = json.loads((dense / "summary.json").read_text())
    said["teacher"] = said["command"] = HOSTILE
    said["notes"] = [HOSTILE]
    said["stages"][0]["quality"] = said["stages"][0]["name"] = HOSTILE
    (dense / "summary.json").write_text(json.dumps(said))
    for name in ("candidates", "scores", "search", "refine"):
        for file in next((dense / "stages").glob(f"*-{name}")).glob("*.json"):
            file.write_text(file.read_text().replace("ffn_intermediate", json.dumps(HOSTILE)[1:-1]))
    texts = {
        "child": read_run(dense).child,
        "texts": [{"prompt": HOSTILE, "teacher": [HOSTILE], "child": ["a"]}],
        "divergence": {"tokens": [HOSTILE], "kl": [None]},
    }
    (dense / "texts.json").write_text(json.dumps(texts))
    driver = show(dense)
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert "taken" not in driver.title
    assert driver.find_elements(By.TAG_NAME, "img") == []
    assert HOSTILE in find(driver, "[id^=stages] table").text
