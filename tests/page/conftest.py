"""A browser for the tests of the page."""

import shutil
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,900"),
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    """Headless Chromium."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: apt install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=ChromeService(driver)) as chrome:
        yield chrome


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    """The browser; a message in its console is a failure: a file that is missing, or something that the policy forbids."""
    yield chromium
    chromium.get("about:blank")
    messages = [str(entry["message"]) for entry in chromium.get_log("browser")]
    # The server may have ended before: a page that follows it connects again.
    assert [message for message in messages if "ERR_CONNECTION_REFUSED" not in message] == []
