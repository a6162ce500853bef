"""A real Chromium without a window, for tests of pages: what they show, do, log and ask for."""

import base64
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_DRIVER = shutil.which("chromedriver")

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"),
)


class Browser:
    """One window, which shows one page after another.

    Args:
        driver: of selenium.
        folder: where the pages are written.
    """

    def __init__(self, driver: Any, folder: Path) -> None:
        self._driver = driver
        self._folder = folder
        self._pages = 0

    def show(
        self,
        page: str,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        opened: str = "",
    ) -> None:
        """Open a page from a file, in a window of a size; `opened` is added to its address."""
        self._pages += 1
        path = self._folder / f"page-{self._pages}.html"
        path.write_text(page, "utf-8")
        self.resize(width, height)
        self.prefer(dark=dark)
        # What the page before logged is no matter of this one.
        self.console()
        self._driver.get_log("performance")
        self._driver.get(path.as_uri() + opened)
        # Two frames: what is drawn, is drawn by then.
        self.wait_for_frames()

    def resize(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, *, dark: bool) -> None:
        """Be a browser whose user likes it dark, or light."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", media="", features=[scheme, motion])

    def command(self, name: str, **parameters: Any) -> Any:
        """Ask Chromium itself, by its DevTools protocol."""
        return self._driver.execute_cdp_cmd(name, parameters)

    def run(self, program: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns; its arguments are `arguments[0]` and so on."""
        return self._driver.execute_script(program, *arguments)

    def wait_for_frames(self, count: int = 2) -> None:
        program = """
            const [count, done] = arguments;
            const next = (left) => left ? requestAnimationFrame(() => next(left - 1)) : done();
            next(count);
        """
        self._driver.execute_async_script(program, count)

    def wait_until(self, condition: str) -> None:
        """Let the page work until an expression is true; it fails after ten seconds."""
        program = """
            const done = arguments[0];
            const look = () => (%s) ? done(true) : setTimeout(look, 10);
            look();
        """
        self._driver.set_script_timeout(10)
        self._driver.execute_async_script(program % condition)

    def all(self, selector: str) -> Sequence[Any]:
        """The elements that fit a CSS selector."""
        found: Sequence[Any] = self._driver.find_elements("css selector", selector)
        return found

    def texts(self, selector: str) -> list[str]:
        """Their texts, as they are in the page, seen or not."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)",
            selector,
        )
        return found

    def click(self, selector: str) -> None:
        self.all(selector)[0].click()

    def point_at(self, selector: str, x: float, y: float) -> dict[str, float]:
        """Move the pointer to a place of an element, from its upper left corner."""
        left, top = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top]",
            selector,
        )
        place = {"x": left + x, "y": top + y}
        self.command("Input.dispatchMouseEvent", type="mouseMoved", **place)
        self.wait_for_frames()
        return place

    def click_at(self, selector: str, x: float, y: float) -> None:
        """Click at a place of an element."""
        self.drag(selector, (x, y), (x, y))

    def drag(self, selector: str, start: Sequence[float], end: Sequence[float]) -> None:
        """Press the button at one place of an element, and release it at another."""
        place = self.point_at(selector, *start)
        button = {"button": "left", "clickCount": 1}
        self.command("Input.dispatchMouseEvent", type="mousePressed", **button, **place)
        place = {"x": place["x"] + end[0] - start[0], "y": place["y"] + end[1] - start[1]}
        self.command("Input.dispatchMouseEvent", type="mouseMoved", button="left", **place)
        self.command("Input.dispatchMouseEvent", type="mouseReleased", **button, **place)
        self.wait_for_frames()

    def press(self, *keys: str) -> None:
        """Press keys where the focus is, by their names in selenium ("ENTER") or as characters."""
        from selenium.webdriver.common.keys import Keys  # noqa: PLC0415 - not everybody has it

        active = self._driver.switch_to.active_element
        for key in keys:
            active.send_keys(getattr(Keys, key) if len(key) > 1 else key)
            active = self._driver.switch_to.active_element
        self.wait_for_frames()

    def console(self) -> list[str]:
        """What was logged as a warning or an error since it was last asked for."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened, or since the last call."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")
        ]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])

    def paper(self) -> bytes:
        """The page on paper, as a PDF."""
        printed = self.command("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(printed["data"])


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser, which ends with the block; the test is skipped where there is none.

    Args:
        folder: an empty one, for its profile and the pages.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if _CHROMIUM is None or _DRIVER is None:
        pytest.skip("there is no chromium, or no chromedriver, on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Given the driver, selenium does not look for one in the network.
    service = webdriver.ChromeService(_DRIVER, log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver, folder)
    finally:
        driver.quit()
