"""Takes docs/images/page.png, the page of a running xds-server: `task docs:screenshot`.

    task local &
    task local:apply FILE=k8s/examples/canary
    task docs:screenshot

Needs Chromium and its driver.
"""

import argparse
import time
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

TARGET = Path(__file__).parents[1] / "docs/images/page.png"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,780", "--hide-scrollbars")


def main() -> None:
    """Opens the page, waits until its chart has something to show, and saves what it shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:18080/calls")
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    with Chrome(options=options, service=ChromeService("/usr/bin/chromedriver")) as browser:
        browser.get(arguments.url)
        time.sleep(arguments.seconds)
        TARGET.write_bytes(browser.get_screenshot_as_png())


if __name__ == "__main__":
    main()
