"""``xds-server explain``: what a client gets for a name, and why."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from servicekit.errors import ConfigurationError
from xds_server.commands.output import Form, FormOption, show, silence_log
from xds_server.errors import MalformedObjectError
from xds_server.explain.explanation import Explanation, Step
from xds_server.explain.why import explain as explain_name
from xds_server.model.client import Client
from xds_server.model.tables import NODE_ZONES
from xds_server.objects import documents
from xds_server.offline import reading
from xds_server.offline.mesh import assemble

SERVER = "http://127.0.0.1:18080"
TIMEOUT = 10.0
"""Seconds for the answer of a server."""

EXAMPLES = """\b
Examples:
  kubectl port-forward --namespace xds-system deployment/xds-server 18080 &
  xds-server explain hello-server.default:50051
  xds-server explain hello-server --namespace default --zone zone-a
  xds-server explain xds:///web.shop --folder k8s/ --output json

\b
Exit codes:
  0  some request to the name can be answered
  1  the name leads nowhere, or to no endpoint
  2  the server can't be asked, or the folder can't be read
"""


def explain(  # noqa: PLR0913, PLR0917 - one for each flag
    name: Annotated[str, typer.Argument(metavar="NAME", help="A target; xds:/// may be missing.")],
    namespace: Annotated[str, typer.Option(help="The client's namespace.")] = "default",
    zone: Annotated[str, typer.Option(help="The client's zone.")] = "",
    node: Annotated[str, typer.Option(help="The client's node, which tells its zone, too.")] = "",
    pod: Annotated[str, typer.Option(help="The client's pod, by which a server is known.")] = "",
    server: Annotated[str, typer.Option(help="The admin address of a running server.")] = SERVER,
    folder: Annotated[
        Path | None, typer.Option(help="Explain by the files in this folder instead of asking a server.")
    ] = None,
    cluster_domain: Annotated[
        str, typer.Option(help="With --folder: the suffix of full names.")
    ] = "cluster.local",
    output: FormOption = Form.TEXT,
) -> int:
    """Explains, step by step, what a client gets for a name: Service, routes, policies, endpoints."""
    client = Client(namespace, zone, node, pod=pod)
    found = _of_folder(folder, name, client, cluster_domain) if folder else _of_server(server, name, client)
    show(output, asdict(found), as_text(found))
    return 0 if found.found else 1


def as_text(found: Explanation) -> str:
    """An explanation for people."""
    lines = [f"{found.name}, asked by {found.client}", ""]
    for step in found.steps:
        lines.append(f"{'ok  ' if step.ok else 'FAIL'}  {step.title}: {step.text}")
        lines += [f"        {detail}" for detail in step.details]
    if found.nearest:
        lines += ["", "The nearest names:", *(f"  {name}" for name in found.nearest)]
    return "\n".join(lines)


def _of_folder(folder: Path, name: str, client: Client, cluster_domain: str) -> Explanation:
    """Explains by files.

    Raises:
        ConfigurationError: There is no such folder, or a file in it can't be read.
    """
    silence_log()
    objects = []
    for each in reading.read(reading.find([str(folder)])):
        if isinstance(each, reading.Unreadable):
            raise ConfigurationError(f"{each.file}:{each.line}: {each.reason}")
        try:
            item = documents.convert(each.content, reading.BY_NAME)
        except MalformedObjectError as error:
            raise ConfigurationError(f"{each.file}:{each.line('')}: {error}") from error
        objects.append((documents.identity(each.content, reading.BY_NAME), item))
    store, tables = assemble(objects)
    zone = client.zone or tables[NODE_ZONES].get(client.node, "")
    return explain_name(
        tables,
        client._replace(zone=zone),
        name,
        cluster_domain=cluster_domain,
        statuses=store.statuses,
        problems=store.problems,
    )


def _of_server(server: str, name: str, client: Client) -> Explanation:
    """Asks a running server.

    Raises:
        ConfigurationError: It does not answer as expected.
    """
    base = server if "://" in server else f"http://{server}"
    query = urllib.parse.urlencode(
        {
            "name": name,
            "namespace": client.namespace,
            "zone": client.zone,
            "node": client.node,
            "pod": client.pod,
        }
    )
    try:
        with urllib.request.urlopen(f"{base}/debug/explain?{query}", timeout=TIMEOUT) as response:  # noqa: S310 - the user's own
            return _read(json.load(response))
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(1_000).decode(errors="replace").strip()
        raise ConfigurationError(f"{base} answered {error.code}: {text}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigurationError(
            f"{base} does not answer ({reason}): is it the admin port of xds-server? On a cluster: "
            "kubectl port-forward --namespace xds-system deployment/xds-server 18080. Without a server: --folder"
        ) from error


def _read(value: dict[str, Any]) -> Explanation:
    steps = tuple(Step(**{**step, "details": tuple(step["details"])}) for step in value["steps"])
    return Explanation(**{**value, "steps": steps, "nearest": tuple(value["nearest"])})
