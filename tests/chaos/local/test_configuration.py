"""Routes, weights and policies change 10 times a second, while xds-server is killed and started again."""

import random
import time

import pytest

from tests.chaos.mesh import NAMESPACE, Mesh, kill
from tests.support.traffic import harmless_spec, policy, route
from tests.support.waiting import wait_until

CHANGES = 300
EVERY = 0.1
SEED = 13
KINDS = {"GRPCRoute": "grpcroutes", "GRPCBackendPolicy": "grpcbackendpolicies"}
TO_HELLO = "- backendRefs: [{name: hello-server, port: 50051}]"
TO_HOWDY = "- backendRefs: [{name: howdy-server, port: 50051}]"


@pytest.mark.short
def test_configuration_changes(mesh: Mesh, scenario) -> None:
    mesh.api.plurals |= KINDS
    mesh.hello.scale(3)
    mesh.howdy.scale(2)
    server = mesh.start_xds_server()
    with (
        mesh.load(server.address) as load,
        scenario(
            "10 changes a second of routes, weights and policies; xds-server is killed meanwhile", load
        ) as run,
    ):
        load.wait_for(mesh.hello.names)
        chance = random.Random(SEED)
        run.now("changes")
        began = time.monotonic()
        for number in range(CHANGES):
            time.sleep(max(0.0, began + number * EVERY - time.monotonic()))  # the pace of the changes
            change(mesh, chance)
            if number == CHANGES // 3:
                run.now("xds-server is killed, and changes go on")
                kill(server)
            if number == CHANGES // 2:
                server = mesh.start_again(server)
                run.now("xds-server is back")
        run.note(f"{CHANGES} changes; each client called {len(mesh.hello.names | mesh.howdy.names)} pods")

        run.now("a new route")
        mesh.api.apply(route(TO_HELLO))
        applied = time.monotonic()
        wait_until("replies of hello-server to all", lambda: mesh.hello.names <= load.answered_since(applied))
        mesh.howdy.scale(3)
        written = time.monotonic()
        mesh.api.apply(route(TO_HOWDY))
        run.recovered(load.wait_for({mesh.howdy.pods[-1].name}) - written, "a new route → all clients use it")


def change(mesh: Mesh, chance: random.Random) -> None:
    """Makes a random change that makes no call fail."""
    name = chance.choice(("hello-server", "howdy-server"))
    match chance.randrange(3):
        case 0:
            weights = chance.randint(1, 100), chance.randint(0, 100)
            refs = [
                f"{{name: {backend}, port: 50051, weight: {weight}}}"
                for backend, weight in zip(("hello-server", "howdy-server"), weights, strict=True)
            ]
            mesh.api.apply(route(f"- backendRefs: [{', '.join(refs)}]"))
        case 1:
            delete(mesh, "GRPCRoute", "hello-server")
        case _:
            if spec := harmless_spec(chance):
                mesh.api.apply(policy(spec, name=name))
            else:
                delete(mesh, "GRPCBackendPolicy", name)


def delete(mesh: Mesh, kind: str, name: str) -> None:
    """Deletes an object, if it is there."""
    if (kind, (NAMESPACE, name)) in mesh.api.objects:
        mesh.api.delete(kind, NAMESPACE, name)
