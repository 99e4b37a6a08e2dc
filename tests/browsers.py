"""A headless Chromium for tests, where there is one."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.waiting import eventually

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DRIVERS: Final = ("chromedriver", "chromium.chromedriver")
REPLACED: Final = "does not belong to the document"
"""What the driver says, as an error without a name, of an element that a new page has replaced while it was read."""
FACTS: Final = """
return [...document.querySelectorAll(".facts dt")].map(
  (name) => [name.innerText.trim(), name.nextElementSibling.innerText.trim()]);
"""
ROW: Final = """
const texts = (elements) => [...elements].map((one) => one.innerText.trim());
const row = [...document.querySelectorAll("tbody tr")].find(
  (one) => one.querySelector("th")?.innerText.trim().startsWith(arguments[0]));
return row ? [texts(row.closest("table").querySelectorAll("thead th")), texts(row.querySelectorAll("th, td"))] : null;
"""
REQUIRED: Final = "REQUIRE_BROWSER"
MISSING: Final = (
    "no Chromium with its driver is installed: apt-get install chromium chromium-driver (or Chrome and chromedriver)"
)
FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # which Chromium refuses to root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def found(names: tuple[str, ...]) -> str | None:
    """The first of these programs that is there."""
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def running_browser(folder: Path, *flags: str) -> Iterator["Browser"]:
    """A fresh one, its profile in ``folder``; skips the test where none is installed, unless it has to be there."""
    browser, driver = found(BROWSERS), found(DRIVERS)
    if browser is None or driver is None:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(driver)) as chrome:
        chrome.set_page_load_timeout(60)
        yield Browser(chrome)


class Browser:
    """What a person does with it."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome

    def open(self, address: str) -> None:
        """Go there, and wait until its style sheet and script are in effect: the driver does not always."""
        self.chrome.get(address)
        self.eventually(lambda: self.script("return document.readyState") == "complete", f"{address} is loaded")

    def one(self, selector: str) -> WebElement:
        """The first element of this CSS selector."""
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """All of them."""
        return self.chrome.find_elements(By.CSS_SELECTOR, selector)

    def labelled(self, label: str) -> WebElement:
        """The field whose label this is, or begins like it."""
        names = {one.text: one.get_attribute("for") for one in self.all("label")}
        name = label if label in names else next(text for text in names if text.startswith(label))
        return self.one(f"[id='{names[name]}']")

    def press(self, text: str) -> None:
        """The button or link with this text."""
        candidates = [one for one in self.all("button, a, summary") if one.text.startswith(text) and one.is_displayed()]
        assert candidates, f"nothing to press says {text!r}: {self.text}"
        candidates[0].click()

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return self.one("body").text

    @property
    def heading(self) -> str:
        """The page's first heading."""
        return self.one("h1").text

    def row(self, name: str) -> dict[str, str]:
        """The cells of the table row with this heading, by their column's, read at one moment."""
        found = self.script(ROW, name)
        if found is None:
            raise KeyError(name)
        assert isinstance(found, list)
        return dict(zip(*found, strict=True))

    def facts(self) -> dict[str, str]:
        """The list of facts about one thing, read at one moment: the page may be replaced in the next."""
        found = self.script(FACTS)
        assert isinstance(found, list)
        return dict(found)

    def script(self, text: str, *arguments: object) -> object:
        """What a script in the page returns."""
        return self.chrome.execute_script(text, *arguments)  # type: ignore[no-untyped-call]

    def eventually(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it; elements that were replaced meanwhile, or are not there yet, count as not true."""
        eventually(lambda: self._is(condition), what=what)

    @staticmethod
    def _is(condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except (NoSuchElementException, StaleElementReferenceException, StopIteration, KeyError):
            return False
        except WebDriverException as error:
            if REPLACED not in str(error):
                raise
            return False

    def complaints(self) -> list[str]:
        """What the browser has warned of since last asked: refused scripts and styles, errors of ours."""
        return [
            f"{one['level']}: {one['message']}" for one in self.chrome.get_log("browser") if one["level"] != "DEBUG"
        ]
