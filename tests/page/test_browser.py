"""The page in a real browser: it follows the state without a reload, and can be used by keyboard."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from tests.chaos.crowd import Crowd
from tests.support import objects, running
from tests.support.ads import AdsClient
from tests.support.running import Running
from tests.support.traffic import route
from tests.support.waiting import wait_until
from tests.support.xds_server import XdsServer

HELLO = "hello-server.default:50051"
MANY_CLIENTS, MANY_SERVICES = int(os.environ.get("PAGE_CLIENTS", "1000")), 10_000
FIRST_PAINT = "return performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def server(tmp_path: Path, stack: ExitStack) -> XdsServer:
    write(tmp_path, "hello-server", 4711)
    server = stack.enter_context(XdsServer(tmp_path, LOAD_REPORT_INTERVAL="1"))
    server.wait_until_ready()
    return server


def write(folder: Path, name: str, *ports: int) -> None:
    """Writes a Service and a pod for each port."""
    objects.write(
        folder / f"{name}.yaml",
        objects.service(name),
        *(
            objects.endpoint_slice(f"{name}-{port}", name, **objects.endpoints("127.0.0.1", port=port))
            for port in ports
        ),
    )


def text(browser: Chrome) -> str:
    """What the main part of the page says; it may be replaced at this very moment."""
    found: str = browser.execute_script("return document.querySelector('main').innerText")
    return found


def shows(browser: Chrome, *words: str) -> None:
    wait_until(f"the page to show {words}", lambda: all(word in text(browser) for word in words))


def test_a_pod_appears_and_goes_without_a_reload(browser: Chrome, server: XdsServer, tmp_path: Path) -> None:
    browser.get(f"http://{server.admin}/services/default/hello-server")
    browser.execute_script("window.notReloaded = true")
    shows(browser, "127.0.0.1:4711", "1 endpoint")
    write(tmp_path, "hello-server", 4711, 4712)
    shows(browser, "127.0.0.1:4712", "2 endpoints")
    write(tmp_path, "hello-server", 4712)
    wait_until("the pod to go", lambda: "127.0.0.1:4711" not in text(browser))
    assert browser.execute_script("return window.notReloaded")


def test_a_rejection_shows_with_its_text(browser: Chrome, server: XdsServer) -> None:
    browser.get(f"http://{server.admin}/")
    shows(browser, "Nothing: every object is used as it is")
    with AdsClient(server.address) as client:
        client.reason = "this <b>client</b> knows no round robin"
        client.subscribe(Cluster, HELLO)
        shows(browser, "1 client rejected what was sent", "raw")
        browser.find_element(By.LINK_TEXT, "raw").click()
        shows(browser, "CDS", HELLO, "rejected", "this <b>client</b> knows no round robin")
    shows(browser, "This is gone")


def test_rates_follow_a_canary(browser: Chrome, server: XdsServer, stack: ExitStack, tmp_path: Path) -> None:
    for name in ("hello-server", "v2"):
        port = running.free_port()
        env = running.environment(PORT=str(port), HOSTNAME=name, POD_IP="127.0.0.1", DRAIN_DELAY="0")
        stack.enter_context(Running("hello-server", env=env)).wait_for_line("serving")
        write(tmp_path, name, port)
    bootstrap = running.run(
        "xds-server",
        "bootstrap",
        "--server",
        server.address,
        "--node-id",
        "checkout-0.default",
        env=running.environment(),
    )
    env = running.environment(
        TARGET=f"xds:///{HELLO}",
        INTERVAL="0.02",
        GRPC_XDS_BOOTSTRAP_CONFIG=bootstrap.stdout,
        LOG_FORMAT="json",
    )
    stack.enter_context(Running("hello-client", env=env)).wait_for_line("reply")

    def rows() -> dict[str, float]:
        """The requests a second of checkout to each Service, from the table."""
        cells: list[list[str]] = browser.execute_script(
            "return [...document.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
        )
        return {
            service: float(rate)
            for caller, service, rate, _ in cells
            if caller == "checkout.default" and rate[0].isdigit()
        }

    browser.get(f"http://{server.admin}/calls")
    wait_until("calls of hello-server", lambda: list(rows()) == ["hello-server.default"])
    assert len(browser.find_elements(By.CSS_SELECTOR, "svg.calls path")) == 1
    objects.write(
        tmp_path / "route.yaml",
        route(
            "[{backendRefs: [{name: v2, port: 50051, weight: 30}, {name: hello-server, port: 50051, weight: 70}]}]"
        ),
    )
    wait_until(
        "calls of both, fewer of v2",
        lambda: 0 < rows().get("v2.default", 0) < rows().get("hello-server.default", 0),
    )
    objects.write(tmp_path / "route.yaml", route("[{backendRefs: [{name: v2, port: 50051}]}]"))
    wait_until("calls of v2 alone", lambda: list(rows()) == ["v2.default"])


def test_everything_can_be_reached_by_keyboard(browser: Chrome, server: XdsServer) -> None:
    browser.get(f"http://{server.admin}/")
    seen = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(browser.switch_to.active_element.text.partition("\n")[0])
    assert seen[0] == "Skip to the content"
    for section in ("Overview", "Services", "Traffic", "Clients", "Calls", "Why"):
        assert any(text.startswith(section) for text in seen), (section, seen)
    browser.get(f"http://{server.admin}/why")
    browser.find_element(By.ID, "name").send_keys("hello-server", Keys.ENTER)
    shows(browser, "It is hello-server.default:50051.", "1 endpoint; round robin.")


def test_focus_and_what_was_typed_stay_when_the_page_changes(
    browser: Chrome, server: XdsServer, tmp_path: Path
) -> None:
    browser.get(f"http://{server.admin}/services")
    browser.find_element(By.ID, "q").send_keys("hel")
    write(tmp_path, "another", 1)
    shows(browser, "another.default")
    assert browser.switch_to.active_element.get_attribute("value") == "hel"
    link = browser.find_element(By.LINK_TEXT, "hello-server.default")
    browser.execute_script("arguments[0].focus()", link)
    write(tmp_path, "third", 1)
    shows(browser, "third.default")
    assert browser.switch_to.active_element.text == "hello-server.default"


def test_without_javascript_everything_is_there(browser: Chrome, server: XdsServer) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"http://{server.admin}/services")
        browser.find_element(By.ID, "q").send_keys("hello", Keys.ENTER)
        browser.find_element(By.LINK_TEXT, "hello-server.default").click()
        assert "127.0.0.1:4711" in browser.find_element(By.TAG_NAME, "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.timeout(300)
def test_it_stays_usable_with_many_services_and_clients(
    browser: Chrome, stack: ExitStack, tmp_path: Path
) -> None:
    write(tmp_path, "hello-server", 4711)
    objects.write(tmp_path / "many.yaml", *(objects.service(f"service-{n:05}") for n in range(MANY_SERVICES)))
    server = stack.enter_context(XdsServer(tmp_path, LOG_LEVEL="WARNING"))
    server.wait_until_ready()
    stack.enter_context(Crowd(server.address, MANY_CLIENTS, HELLO)).wait_until_answered()
    for path in ("/", "/services", "/services?q=service-09&page=3", "/clients", "/calls"):
        browser.get(f"http://{server.admin}{path}")
        painted = wait_until("the first paint", lambda: browser.execute_script(FIRST_PAINT))
        size = browser.execute_script("return document.querySelectorAll('tbody tr').length")
        print(f"{path}: first paint after {painted:.0f} ms, {size} rows")  # noqa: T201 - for people
        assert size <= 100
    browser.get(f"http://{server.admin}/services/default/hello-server")
    shows(browser, f"{MANY_CLIENTS:,} clients")
    began = time.monotonic()
    write(tmp_path, "hello-server", 4711, 4712)
    shows(browser, "127.0.0.1:4712")
    print(f"a new pod is shown after {time.monotonic() - began:.2f} s")  # noqa: T201 - for people
