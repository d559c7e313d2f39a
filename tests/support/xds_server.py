"""A real xds-server as a process, which reads its services from a folder."""

import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support import running
from tests.support.running import Running
from tests.support.waiting import wait_until


class XdsServer(Running):
    """A running xds-server."""

    def __init__(self, directory: Path | None = None, log: int = subprocess.PIPE, /, **settings: str) -> None:
        self.address = settings.get("LISTEN") or f"127.0.0.1:{running.free_port()}"
        self.admin = settings.get("ADMIN_LISTEN") or f"127.0.0.1:{running.free_port()}"
        self.debug = settings.get("DEBUG_LISTEN") or f"127.0.0.1:{running.free_port()}"
        source = {"DISCOVERY": "files", "DISCOVERY_DIR": str(directory)} if directory else {}
        common = {
            "LISTEN": self.address,
            "ADMIN_LISTEN": self.admin,
            "DEBUG_LISTEN": self.debug,
            "LOG_FORMAT": "json",
        }
        super().__init__(
            "xds-server", "serve", env=running.environment(**(common | source | settings)), log=log
        )

    def get(self, path: str) -> tuple[int, str]:
        """Returns status and text of an admin page; status 0 if the server does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:  # URLError among others; a connection may also be reset while it is read
            return 0, ""

    def wait_until_ready(self) -> None:
        wait_until("xds-server to be ready", lambda: self._ended() or self.get("/readyz")[0] == 200)

    def warnings(self, *parts: str) -> list[dict[str, Any]]:
        """Returns the warnings and errors of its log that contain all these parts."""
        found = [record for record in self.records if record["level"] not in ("debug", "info")]
        return [record for record in found if all(part in str(record) for part in parts)]
