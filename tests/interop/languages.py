"""The clients in each language: the tools they need, how they are built, and how they are started.

Builds go to folders that git ignores. Each language pins its versions: go.mod and go.sum, pom.xml and checksums.txt,
package.json and package-lock.json, Cargo.toml and versions.lock, requirements/.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).with_name("clients")
BUILD = ROOT / ".build" / "interop"

_PATIENCE = 600.0
"""Timeout in seconds of a build that downloads its dependencies."""


@dataclass(frozen=True)
class Language:
    """An implementation of gRPC.

    Attributes:
        name: The heading of its column.
        tools: The programs that it needs, and where to get them.
        version: Returns the version of the implementation.
        build: Builds the client and returns the command that starts it.
        scheme: What it needs before the address of an xDS server in its bootstrap.
    """

    name: str
    tools: tuple[tuple[str, str], ...]
    version: Callable[[], str]
    build: Callable[[], Sequence[str]]
    scheme: str = ""

    @property
    def missing(self) -> str:
        """The missing tools and where to get them, or ""."""
        missing = [f"{tool} ({source})" for tool, source in self.tools if not shutil.which(tool)]
        return f"{', '.join(missing)} is missing" if missing else ""


def _python() -> Sequence[str]:
    return sys.executable, str(CLIENTS / "python" / "client.py")


def _go() -> Sequence[str]:
    source = CLIENTS / "go"
    for tool in ("protoc-gen-go", "protoc-gen-go-grpc"):
        package = f"google.golang.org/{'grpc' if tool.endswith('grpc') else 'protobuf'}/cmd/{tool}"
        run("go", "build", "-o", str(BUILD / tool), package, cwd=source)
    proto = "greeter/v1/greeter.proto"
    options = [f"--go{kind}_opt=M{proto}=interop/greeter,module=interop" for kind in ("", "-grpc")]
    plugins = [f"--plugin={BUILD / tool}" for tool in ("protoc-gen-go", "protoc-gen-go-grpc")]
    out = [f"--go{kind}_out={source}" for kind in ("", "-grpc")]
    protos = ROOT / "protos"
    run(sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *plugins, *options, *out, proto, cwd=protos)
    run("go", "build", "-o", str(BUILD / "go-client"), ".", cwd=source)
    return (str(BUILD / "go-client"),)


def _go_version() -> str:
    [version] = re.findall(r"google\.golang\.org/grpc v(\S+)", (CLIENTS / "go" / "go.mod").read_text())
    return str(version)


def _java() -> Sequence[str]:
    source = CLIENTS / "java"
    run("mvn", "--quiet", "--batch-mode", "package", cwd=source)
    _check(source / "target" / "lib", source / "checksums.txt")
    classes = f"{source / 'target' / 'classes'}:{source / 'target' / 'lib'}/*"
    return "java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes, "interop.Client"


def _check(folder: Path, checksums: Path) -> None:
    """Asserts that a folder has exactly the files of a list of checksums, in the format of sha256sum."""
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    lines = (line.split() for line in checksums.read_text().splitlines())
    assert found == {name: digest for digest, name in lines}, f"{folder.name} does not match {checksums.name}"


def _java_version() -> str:
    [version] = re.findall(r"<grpc.version>(.+)</grpc.version>", (CLIENTS / "java" / "pom.xml").read_text())
    return str(version)


def _node() -> Sequence[str]:
    source = CLIENTS / "node"
    run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=source)
    return "node", str(source / "client.js")


def _node_version() -> str:
    pinned = json.loads((CLIENTS / "node" / "package.json").read_text())["dependencies"]
    return f"{pinned['@grpc/grpc-js']}, xDS {pinned['@grpc/grpc-js-xds']}"


def _rust() -> Sequence[str]:
    source, target = CLIENTS / "rust", BUILD / "rust"
    # The versions and checksums are in the repository, the address that cargo writes beside each is not.
    lock = source / "Cargo.lock"
    lock.unlink(missing_ok=True)
    run("cargo", "generate-lockfile", "--quiet", cwd=source)
    [address] = set(re.findall(r"^source = .*\n", lock.read_text(), re.MULTILINE))
    lock.write_text((source / "versions.lock").read_text().replace("checksum = ", f"{address}checksum = "))
    run("cargo", "build", "--quiet", "--locked", "--target-dir", str(target), cwd=source)
    return (str(target / "debug" / "interop-client"),)


def _rust_version() -> str:
    [version] = re.findall(
        r'^tonic-xds = .*"=(.+?)"', (CLIENTS / "rust" / "Cargo.toml").read_text(), re.MULTILINE
    )
    return f"tonic-xds {version}"


def run(*command: str, cwd: Path) -> None:
    result = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert result.returncode == 0, f"{' '.join(command)}:\n{result.stdout[-4000:]}{result.stderr[-4000:]}"


GO = ("go", "https://go.dev/doc/install, 1.26 or newer")
LANGUAGES = (
    Language("Python", (), lambda: grpc.__version__, _python),
    Language("Go", (GO,), _go_version, _go),
    Language(
        "Java",
        (("java", "https://adoptium.net, 17 or newer"), ("mvn", "https://maven.apache.org")),
        _java_version,
        _java,
    ),
    Language(
        "Node",
        (("node", "https://nodejs.org, 18 or newer"), ("npm", "https://nodejs.org")),
        _node_version,
        _node,
    ),
)
RUST = Language(
    "Rust", (("cargo", "https://rustup.rs, Rust 1.88 or newer"),), _rust_version, _rust, scheme="http://"
)
"""Only in the scenarios of traffic features, as tonic-xds has no release yet but previews."""
