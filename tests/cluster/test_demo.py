"""The demo on a real Kubernetes, from `task deploy` on; test_undeploy.py removes it.

The tests depend on each other, in this order. Clients call 20 times a second, and no call may fail unless a test expects
it. Durations are printed at the end and not asserted.
"""

import json
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest

from tests.cluster import clients, faults, kube, readiness, waiting
from tests.cluster.clients import Watch
from tests.cluster.kube import NAME, ROOT, SERVERS, SERVICES, Cluster, Object

pytestmark = pytest.mark.timeout(900)


def server_of(client: str) -> str:
    return client.replace("client", "server")


def restarts(cluster: Cluster, services: tuple[str, ...] = SERVICES) -> dict[str, list[Object]]:
    """Returns the pods of services whose containers have restarted, with the reasons."""
    return {
        pod["metadata"]["name"]: [status["lastState"] for status in pod["status"]["containerStatuses"]]
        for service in services
        for pod in cluster.pods(service)
    }


# ---- the steps of the article ----


def test_everything_is_deployed(demo: Cluster) -> None:
    deployments = {found["metadata"]["name"]: found["status"] for found in demo.get("deployments.apps")}
    assert {name: status["readyReplicas"] for name, status in deployments.items()} == {
        "xds-server": 1,
        "hello-server": 2,
        "howdy-server": 2,
        "hello-client": 1,
        "howdy-client": 1,
    }
    assert {found["metadata"]["name"] for found in demo.get("svc")} - {"kubernetes"} == {
        "xds-server",
        "hello-server",
        "howdy-server",
    }
    assert [pod["status"]["phase"] for pod in demo.get("pods")] == ["Running"] * 7


def test_the_log_of_a_client_can_be_followed(demo: Cluster) -> None:
    command = [kube.program("kubectl"), "--context", demo.context, "logs", "-f", "deployment/hello-client"]
    with subprocess.Popen(command, env=demo.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = (line for line in process.stdout)
        assert next(line for line in lines if "Hello gRPC Proxyless LB from host hello-server-" in line)
        process.terminate()


def test_deploying_again_restarts_nothing(kind: Cluster) -> None:
    before = restarts(kind)
    kind.task("deploy")
    assert restarts(kind) == before


def test_only_changed_programs_are_rolled_out(kind: Cluster, tmp_path: Path) -> None:
    others = tuple(service for service in SERVICES if service != "hello-server")
    before, pods = restarts(kind, others), kind.pod_names("hello-server")
    changed = tmp_path / "changed"
    shutil.copytree(
        ROOT, changed, ignore=shutil.ignore_patterns(".*_cache", ".git", ".venv", ".build", ".local")
    )
    with (changed / "hello-server" / "src" / "hello_server" / "__main__.py").open("a") as program:
        program.write("# changed\n")
    image = ""
    try:
        kind.task("deploy", root=changed)
        image = (changed / ".build" / "images" / "hello-server").read_text().strip()
        [container] = kind.deployment("hello-server")["spec"]["template"]["spec"]["containers"]
        assert container["image"] == image
        kind.rolled_out("hello-server")
        assert not kind.pod_names("hello-server") & pods
        assert restarts(kind, others) == before
    finally:
        kind.task("deploy")
        kind.rolled_out("hello-server")
        if image:
            kube.run("docker", "image", "rm", image)


def test_everything_starts_in_a_namespace_with_restricted_pod_security(kind: Cluster) -> None:
    kind.kubectl(
        "label", "--overwrite", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted"
    )
    root = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}}
    root |= {"spec": {"containers": [{"name": "app", "image": "any"}]}}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        kind.kubectl("create", "--dry-run=server", "--filename", "-", text=json.dumps(root))
    for service in SERVICES:
        kind.restart(service)


@pytest.mark.parametrize("client", kube.CLIENTS)
def test_replies_alternate_over_pods_in_two_zones(demo: Cluster, watch: Watch, client: str) -> None:
    pods = demo.pods(server_of(client))
    zones = {
        node["metadata"]["name"]: node["metadata"]["labels"].get("topology.kubernetes.io/zone")
        for node in demo.get("nodes")
    }
    assert len({zones[pod["spec"]["nodeName"]] for pod in pods}) == len(pods)

    waiting.until("100 replies", lambda: watch.log(client), lambda log: len(log.replies) >= 100)
    assert clients.alternate(watch.log(client).replies[-100:], demo.pod_names(server_of(client)))


def test_new_pods_answer_when_they_are_ready(demo: Cluster, watch: Watch, figures: list[str]) -> None:
    delays: list[float] = []
    for _ in range(7):
        round_ = Watch(demo)
        old = demo.pod_names("hello-server")
        with readiness.watched(demo, "hello-server") as ready:
            demo.scale("hello-server", 5)
            round_.until_hosts("hello-client", demo.pod_names("hello-server"))
        log = round_.log("hello-client")
        for pod in demo.pod_names("hello-server") - old:
            first = log.first_reply_of(pod)
            assert first
            delays.append((first - ready[pod]).total_seconds())
        demo.scale("hello-server", 2)
        round_.until_hosts("hello-client", demo.pod_names("hello-server"))
    watch.assert_no_call_failed()
    figures.append(
        f"pod seen ready -> its first reply, {len(delays)} pods, INTERVAL=0.05: "
        f"median {statistics.median(delays) * 1000:.0f} ms, worst {max(delays) * 1000:.0f} ms"
    )


def test_without_pods_calls_fail_with_a_hint_until_pods_are_ready(demo: Cluster, watch: Watch) -> None:
    demo.scale("hello-server", 0)
    failures = waiting.until(
        "calls to fail", lambda: watch.log("hello-client").failures, lambda failures: len(failures) > 2
    )
    assert "the Service has no ready pod" in str(failures[-1]["hint"])

    demo.scale("hello-server", 2)
    healed = Watch(demo)
    healed.until_hosts("hello-client", demo.pod_names("hello-server"))
    assert not watch.log("howdy-client").failures, "clients of the other service are not affected"


# ---- events without a failed call ----


@pytest.mark.parametrize("server", SERVERS)
def test_no_call_fails_during_a_rolling_restart_of_servers(demo: Cluster, watch: Watch, server: str) -> None:
    before = demo.pod_names(server)
    demo.restart(server)
    after = demo.pod_names(server)
    assert not before & after
    watch.until_hosts(server.replace("server", "client"), after)
    watch.assert_no_call_failed()


def assert_still_updated(demo: Cluster, watch: Watch) -> None:
    """Asserts that clients receive updates."""
    demo.scale("hello-server", 3)
    watch.until_hosts("hello-client", demo.pod_names("hello-server"))


def test_no_call_fails_during_a_restart_of_xds_server(demo: Cluster, watch: Watch) -> None:
    demo.restart("xds-server")
    assert_still_updated(demo, watch)
    watch.assert_no_call_failed()


def test_no_call_fails_when_the_xds_server_pod_is_deleted(demo: Cluster, watch: Watch) -> None:
    demo.kubectl("delete", "pod", "--selector", f"{NAME}=xds-server")
    demo.rolled_out("xds-server")
    assert_still_updated(demo, watch)
    watch.assert_no_call_failed()


def test_no_call_fails_without_xds_server(demo: Cluster, watch: Watch) -> None:
    known = demo.pod_names("hello-server")
    demo.scale("xds-server", 0)
    away = Watch(demo)
    demo.scale("hello-server", 3)
    waiting.until("100 replies", lambda: away.log("hello-client"), lambda log: len(log.replies) >= 100)
    assert away.log("hello-client").hosts == known, "without xds-server, clients do not learn of the new pod"

    demo.scale("xds-server", 1)
    watch.until_hosts("hello-client", demo.pod_names("hello-server"))
    watch.assert_no_call_failed()


def test_no_call_fails_while_the_api_server_hangs(kind: Cluster, watch: Watch) -> None:
    before = restarts(kind)
    with faults.api_server_frozen(kind):
        # any longer, and Kubernetes would declare the nodes lost and their pods not ready
        waiting.hold(30)
    assert restarts(kind) == before
    watch.assert_no_call_failed()
    assert_still_updated(kind, watch)
    watch.assert_no_call_failed()


def test_no_call_fails_while_the_api_server_refuses_connections(kind: Cluster, watch: Watch) -> None:
    before = restarts(kind)
    connect = "import os, socket; socket.create_connection((os.environ['KUBERNETES_SERVICE_HOST'], 443), 5)"
    ask = ("exec", "deployment/xds-server", "--", "python", "-c", connect)
    kind.kubectl(*ask)
    with faults.api_server_refused(kind):
        with pytest.raises(AssertionError, match="ConnectionRefusedError"):
            kind.kubectl(*ask)
        waiting.hold(60)
    assert restarts(kind) == before
    watch.assert_no_call_failed()
    assert_still_updated(kind, watch)
    watch.assert_no_call_failed()


def test_updates_arrive_by_polls_alone(demo: Cluster, watch: Watch) -> None:
    demo.set_environment("xds-server", "WATCH=false", "POLL_INTERVAL=1")
    try:
        assert_still_updated(demo, watch)
        watch.assert_no_call_failed()
    finally:
        demo.set_environment("xds-server", "WATCH-", "POLL_INTERVAL-")


def test_no_container_was_restarted_by_its_probes(demo: Cluster, watch: Watch) -> None:
    assert {pod: reasons for pod, reasons in restarts(demo).items() if any(reasons)} == {}


def test_figures(kind: Cluster, figures: list[str]) -> None:
    for service in SERVICES:
        image = (ROOT / ".build" / "images" / service).read_text().strip()
        size = int(kube.run("docker", "image", "inspect", "--format", "{{.Size}}", image))
        figures.append(f"image of {service}: {size / 1e6:.0f} MB")
    measured = waiting.until(
        "measurements of every pod by the kubelets",
        lambda: memory(kind),
        lambda found: len(found) == 7 and all(found.values()),
        seconds=120,
    )
    figures.extend(f"memory of {pod}: {value / 2**20:.0f} MiB" for pod, value in sorted(measured.items()))


def memory(cluster: Cluster) -> dict[str, float]:
    """Returns the memory in bytes of each pod in the namespace default, as measured by the kubelets; 0 at first."""
    mark = 'pod_memory_working_set_bytes{namespace="default",pod="'
    texts = [
        cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node['metadata']['name']}/proxy/metrics/resource")
        for node in cluster.get("nodes")
    ]
    lines = [line.removeprefix(mark) for text in texts for line in text.splitlines() if line.startswith(mark)]
    return {line.split('"')[0]: float(line.split()[1]) for line in lines}
