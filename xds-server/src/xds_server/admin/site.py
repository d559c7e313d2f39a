"""The page for people: which view is at which address, and how it is rendered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import jinja2
from aiohttp import web

from xds_server.admin.live import Live
from xds_server.admin.views import calls, clients, overview, services, traffic
from xds_server.admin.views.state import State
from xds_server.ads.subscription import MAX_NAME_LENGTH
from xds_server.explain.explanation import Explanation
from xds_server.model.client import Client
from xds_server.model.service import ServiceName
from xds_server.objects.meta import DEFAULT_NAMESPACE

MAX_QUERY = 200
MAX_DIGITS = 9
"""Of the number of a page."""
NOTHING = "\u2013"
"""What stands for no requests: an en dash."""
WHOLE, SMALLEST = 100.0, 0.1
"""Requests a second from which no decimals are shown, and the least that is shown as a number."""
STATIC_SECONDS = 3600

Query = Mapping[str, str]
Shown = Mapping[str, Any] | None
"""The variables of a template; None if there is no such thing."""


@dataclass(frozen=True, slots=True)
class View:
    """One view.

    Attributes:
        path: Its address, with placeholders as aiohttp has them.
        section: The entry of the navigation that it belongs to.
        title: Its heading; the placeholders of the path are filled in.
        template: Renders what follows the state.
        show: Makes the variables of the template.
        search: What the search field is for; empty if there is none.
        chart: Whether it has a chart of requests.
    """

    path: str
    section: str
    title: str
    template: str
    show: Callable[[State, Mapping[str, str], Query], Shown]
    search: str = ""
    chart: bool = False


def _overview(state: State, _: Mapping[str, str], __: Query) -> Shown:
    return {"view": overview.overview(state), "state": state}


def _services(state: State, _: Mapping[str, str], query: Query) -> Shown:
    return {"page": services.services(state, _text(query), _number(query)), "state": state}


def _service(state: State, path: Mapping[str, str], _: Query) -> Shown:
    found = services.service(state, ServiceName(path["namespace"], path["name"]))
    return {"service": found, "state": state} if found else None


def _traffic(state: State, _: Mapping[str, str], query: Query) -> Shown:
    return {"page": traffic.traffic(state, _text(query), _number(query))}


def _clients(state: State, _: Mapping[str, str], query: Query) -> Shown:
    return {"page": clients.clients(state, _text(query), _number(query))}


def _client(state: State, path: Mapping[str, str], _: Query) -> Shown:
    found = clients.client(state, int(path["number"]))
    return {"client": found} if found else None


def _calls(state: State, _: Mapping[str, str], query: Query) -> Shown:
    return {"picture": calls.calls(state, _text(query)), "state": state}


VIEWS = (
    View("/", "Overview", "Overview", "overview.html", _overview, chart=True),
    View("/services", "Services", "Services", "services.html", _services, "name or namespace"),
    View(
        "/services/{namespace}/{name}", "Services", "{name}.{namespace}", "service.html", _service, chart=True
    ),
    View("/traffic", "Traffic", "Routes and policies", "traffic.html", _traffic, "name, kind or target"),
    View(
        "/clients",
        "Clients",
        "Clients",
        "clients.html",
        _clients,
        "name, namespace, zone, library or address",
    ),
    View(r"/clients/{number:\d{1,18}}", "Clients", "Stream {number}", "client.html", _client),
    View("/calls", "Calls", "Who calls whom", "calls.html", _calls, "caller or service"),
)
SECTIONS = {
    "Overview": "/",
    "Services": "/services",
    "Traffic": "/traffic",
    "Clients": "/clients",
    "Calls": "/calls",
    "Why": "/why",
}


class Site:
    """The handlers of all views.

    Args:
        state: Returns the state as it is now, and calls a function with it while nothing changes.
        explain: What a client gets for a name.
    """

    def __init__(
        self,
        state: Callable[[Callable[[State], Any]], Any],
        explain: Callable[[str, Client], Explanation],
    ) -> None:
        self._state = state
        self._explain = explain
        self._live = Live()
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("xds_server.admin"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(rate=rate, percent=percent, number=number)

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        for view in VIEWS:
            app.router.add_get(view.path, self._page(view))
            app.router.add_get(f"/live{view.path.removesuffix('/')}", self._events(view))
        app.router.add_get("/why", self._why)
        app.router.add_get(r"/static/{file:[\w./-]+}", self._static)

        async def close(_: web.Application) -> None:
            self._live.close()

        app.on_shutdown.append(close)

    def _page(self, view: View) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            content = self._fragment(view, request.match_info, request.query)
            if content is None:
                return self._html("missing.html", status=404, section=view.section, title="Not found")
            query = f"?{urlencode(request.query)}" if request.query else ""
            return self._html(
                "page.html",
                section=view.section,
                title=view.title.format_map(request.match_info),
                content=content,
                search=view.search,
                query=_text(request.query),
                chart=view.chart,
                source=f"/live{request.path.removesuffix('/')}{query}",
            )

        return handle

    def _events(self, view: View) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            found = dict(request.match_info), dict(request.query)

            def render() -> str:
                return self._fragment(view, *found) or self._render("gone.html")

            return await self._live.serve(request, str(request.rel_url), render)

        return handle

    def _fragment(self, view: View, path: Mapping[str, str], query: Query) -> str | None:
        """The part of a page that follows the state; None if there is no such thing."""
        shown = self._state(lambda state: view.show(state, path, query))
        return None if shown is None else self._render(view.template, **shown)

    async def _why(self, request: web.Request) -> web.Response:
        query = {
            key: request.query.get(key, "")[:MAX_NAME_LENGTH] for key in ("name", "namespace", "zone", "node")
        }
        found = None
        if query["name"]:
            client = Client(query["namespace"] or DEFAULT_NAMESPACE, query["zone"], query["node"])
            found = self._explain(query["name"], client)
        return self._html("why.html", section="Why", title="Why", query=query, explanation=found)

    async def _static(self, request: web.Request) -> web.Response:
        """A file of this package; nothing outside of the folder has such a name."""
        kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
        name = request.match_info["file"]
        content = STATIC.get(name)
        if content is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": f"max-age={STATIC_SECONDS}"}
        kind = kinds.get(name.rpartition(".")[2], "text/plain")
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)

    def _html(
        self, template: str, *, status: int = 200, section: str, title: str, **variables: Any
    ) -> web.Response:
        replica, problems = self._state(lambda state: (state.replica, overview.overview(state).problem_count))
        text = self._render(
            template,
            sections=SECTIONS,
            section=section,
            title=title,
            replica=replica,
            problems=problems,
            **variables,
        )
        headers = {"Cache-Control": "no-store"}
        return web.Response(text=text, content_type="text/html", status=status, headers=headers)

    def _render(self, template: str, **variables: Any) -> str:
        return self._templates.get_template(template).render(**variables)


def _load_static() -> Mapping[str, bytes]:
    folder = files("xds_server.admin") / "static"
    found: dict[str, bytes] = {}
    for item in folder.iterdir():
        if item.is_dir():
            found |= {f"{item.name}/{inner.name}": inner.read_bytes() for inner in item.iterdir()}
        else:
            found[item.name] = item.read_bytes()
    return found


def _text(query: Query) -> str:
    return query.get("q", "")[:MAX_QUERY]


def _number(query: Query) -> int:
    text = query.get("page", "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 1


# ---- filters ----


def rate(value: float) -> str:
    """Requests a second, such as ``12.3``; nothing for none."""
    if not value:
        return NOTHING
    if value < SMALLEST:
        return f"< {SMALLEST}"
    return f"{value:,.0f}" if value >= WHOLE else f"{value:.1f}"


def percent(part: float, whole: float) -> str:
    """A share, such as ``1.2 %``; nothing for none."""
    if not whole or not part:
        return NOTHING
    return f"{100 * part / whole:.1f} %"


def number(value: int) -> str:
    """A number with separators."""
    return f"{value:,}"


STATIC = _load_static()
"""The files of the page, by their paths."""
