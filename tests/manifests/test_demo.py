"""The demo's objects are as documented: one name for a service everywhere, its ports, probes and replicas."""

import json

import pytest
import yaml

from greeting.server import program as server
from tests.manifests import rendering

PORTS = {
    "xds-server": {"grpc-xds": (18000, "grpc"), "http-admin": (18080, "http")},
    "hello-server": {"grpc": (50051, "grpc")},
    "howdy-server": {"grpc": (50052, "grpc")},
}
REPLICAS = {"xds-server": 1, "hello-server": 2, "howdy-server": 2, "hello-client": 1, "howdy-client": 1}
TARGETS = {
    "hello-client": "xds:///hello-server.default:50051",
    "howdy-client": "xds:///howdy-server.default:50052",
}
every_service = pytest.mark.parametrize("service", rendering.SERVICES)
every_server = pytest.mark.parametrize("service", rendering.SERVERS)


def test_the_demo_is_five_deployments_in_the_namespace_default() -> None:
    deployments = rendering.of_kind("Deployment")
    assert {name: found["spec"]["replicas"] for name, found in deployments.items()} == REPLICAS
    assert {
        found["metadata"].get("namespace", "default") for found in rendering.rendered("overlays/kind")
    } == {"default"}


def test_the_demo_has_three_services() -> None:
    services = rendering.of_kind("Service")
    assert {
        name: {port["name"]: (port["port"], port["appProtocol"]) for port in found["spec"]["ports"]}
        for name, found in services.items()
    } == PORTS
    assert all(found["spec"].get("type", "ClusterIP") == "ClusterIP" for found in services.values())


@pytest.mark.parametrize("use", rendering.USES)
def test_every_object_is_labelled(use: str) -> None:
    for found in rendering.rendered(use):
        labels = found["metadata"]["labels"]
        name = found["metadata"]["name"].removesuffix("-replicas")
        if use.startswith("install") or found["kind"] == "CustomResourceDefinition":
            name = "xds-server"
        elif "injector" in use:
            name = "xds-client-injector"
        assert labels["app.kubernetes.io/name"] == name
        assert labels["app.kubernetes.io/part-of"] == "proxyless-grpc-lb"


@every_service
def test_one_name_everywhere(service: str) -> None:
    deployment = rendering.of_kind("Deployment")[service]
    name = {"app.kubernetes.io/name": service}
    assert deployment["spec"]["selector"] == {"matchLabels": name}
    assert deployment["spec"]["template"]["metadata"]["labels"].items() >= name.items()
    assert rendering.container(deployment)["image"].partition(":")[0] == service
    assert rendering.container(deployment)["imagePullPolicy"] == "IfNotPresent", "images are loaded into kind"
    assert (rendering.ROOT / service / "Dockerfile").is_file()


@pytest.mark.parametrize("service", PORTS)
def test_a_service_selects_its_pods_and_refers_to_ports_by_name(service: str) -> None:
    found = rendering.of_kind("Service")[service]
    assert found["spec"]["selector"] == {"app.kubernetes.io/name": service}
    ports = {
        port["name"]: port["containerPort"]
        for port in rendering.container(rendering.of_kind("Deployment")[service])["ports"]
    }
    assert ports == {name: number for name, (number, _) in PORTS[service].items()}
    assert all(port["targetPort"] == port["name"] for port in found["spec"]["ports"])


@every_service
def test_a_rollout_never_has_fewer_pods_than_before(service: str) -> None:
    strategy = rendering.of_kind("Deployment")[service]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize("service", PORTS)
def test_a_node_drain_evicts_one_pod_at_a_time(service: str) -> None:
    budget = rendering.of_kind("PodDisruptionBudget")[service]["spec"]
    assert budget == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": {"app.kubernetes.io/name": service}},
    }


@every_server
def test_a_greeter_is_probed_by_grpc(service: str) -> None:
    container = rendering.container(rendering.of_kind("Deployment")[service])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": PORTS[service]["grpc"][0]}


def test_xds_server_has_probes_for_start_readiness_and_liveness() -> None:
    container = rendering.container(rendering.of_kind("Deployment")["xds-server"])
    paths = {
        probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    alive = {"path": "/livez", "port": "http-admin"}
    assert paths == {
        "startupProbe": alive,
        "readinessProbe": {"path": "/readyz", "port": "http-admin"},
        "livenessProbe": alive,
    }


@every_server
def test_a_greeter_knows_its_port_its_name_and_its_address(service: str) -> None:
    deployment = rendering.of_kind("Deployment")[service]
    assert rendering.environment(deployment)["PORT"] == str(PORTS[service]["grpc"][0])
    fields = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in rendering.container(deployment)["env"]
        if "valueFrom" in entry
    }
    assert fields == {"HOSTNAME": "metadata.name", "POD_IP": "status.podIP"}


@every_server
def test_a_greeter_has_time_to_drain(service: str) -> None:
    deployment = rendering.of_kind("Deployment")[service]
    drain_delay = float(rendering.environment(deployment)["DRAIN_DELAY"])
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > drain_delay + server.GRACE


@every_server
def test_a_greeter_spreads_over_the_zones(service: str) -> None:
    pod = rendering.of_kind("Deployment")[service]["spec"]["template"]["spec"]
    [constraint] = pod["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "topology.kubernetes.io/zone"
    assert constraint["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": service}}


def test_replicas_of_xds_server_spread_over_zones_and_nodes() -> None:
    pod = rendering.of_kind("Deployment")["xds-server"]["spec"]["template"]["spec"]
    constraints = pod["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in constraints] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    selector = {"matchLabels": {"app.kubernetes.io/name": "xds-server"}}
    assert all(each["labelSelector"] == selector for each in constraints)


@pytest.mark.parametrize("client", rendering.CLIENTS)
def test_a_client_calls_its_server_and_logs_for_people(client: str) -> None:
    environment = rendering.environment(rendering.of_kind("Deployment")[client])
    server = client.replace("client", "server")
    service = rendering.of_kind("Service")[server]
    [port] = service["spec"]["ports"]
    assert environment["TARGET"] == TARGETS[client]
    assert environment["TARGET"] == f"xds:///{server}.{service['metadata']['namespace']}:{port['port']}"
    assert environment["LOG_FORMAT"] == "text"


@pytest.mark.parametrize(
    ("use", "client", "servers"),
    [
        ("overlays/kind", "hello-client", ["xds-server"]),
        ("overlays/kind", "howdy-client", ["xds-server"]),
        ("overlays/ha", "hello-client", ["xds-server", "xds-server-replicas"]),
        ("overlays/ha", "howdy-client", ["xds-server", "xds-server-replicas"]),
        ("a client with the bootstrap", "hello-client", ["xds-server"]),
        ("examples/canary", "hello-client-beta", ["xds-server"]),
    ],
)
def test_a_client_has_the_bootstrap(use: str, client: str, servers: list[str]) -> None:
    variables = rendering.container(rendering.of_kind("Deployment", use)[client])["env"]
    names = [variable["name"] for variable in variables]
    used = ("POD_NAME", "POD_NAMESPACE", "POD_ZONE", "NODE_NAME")
    assert max(map(names.index, used)) < names.index("GRPC_XDS_BOOTSTRAP_CONFIG")
    fields = {v["name"]: v["valueFrom"]["fieldRef"]["fieldPath"] for v in variables if "valueFrom" in v}
    assert fields == {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_ZONE": "metadata.labels['topology.kubernetes.io/zone']",
        "NODE_NAME": "spec.nodeName",
    }
    [text] = [variable["value"] for variable in variables if variable["name"] == "GRPC_XDS_BOOTSTRAP_CONFIG"]
    assert json.loads(text) == {
        "xds_servers": [
            {
                "server_uri": f"{server}:18000",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3", "ignore_resource_deletion"],
            }
            for server in servers
        ],
        "node": {
            "id": "$(POD_NAME).$(POD_NAMESPACE)",
            "metadata": {
                "NAMESPACE": "$(POD_NAMESPACE)",
                "POD_NAME": "$(POD_NAME)",
                "NODE_NAME": "$(NODE_NAME)",
            },
            "locality": {"zone": "$(POD_ZONE)"},
        },
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    }


def test_the_overlay_ha_is_the_demo_with_two_xds_servers_and_a_headless_service() -> None:
    deployments = rendering.of_kind("Deployment", "overlays/ha")
    assert {name: found["spec"]["replicas"] for name, found in deployments.items()} == {
        **REPLICAS,
        "xds-server": 2,
    }
    services = rendering.of_kind("Service", "overlays/ha")
    replicas = services.pop("xds-server-replicas")["spec"]
    assert services == rendering.of_kind("Service")
    [port] = replicas["ports"]
    assert replicas["clusterIP"] == "None"
    assert replicas["selector"] == services["xds-server"]["spec"]["selector"]
    assert port in services["xds-server"]["spec"]["ports"]


def test_only_clients_have_the_bootstrap() -> None:
    holders = {
        name
        for name, deployment in rendering.of_kind("Deployment").items()
        if "GRPC_XDS_BOOTSTRAP_CONFIG" in rendering.environment(deployment)
    }
    assert holders == set(rendering.CLIENTS)


@pytest.mark.parametrize("folder", ["base/{}-server", "base/{}-client"])
def test_hello_and_howdy_only_differ_in_names_and_ports(folder: str) -> None:
    def content(name: str) -> dict[str, str]:
        texts = (rendering.ROOT / "k8s" / folder.format(name)).iterdir()
        return {
            path.name: path.read_text().replace(name, "NAME").replace(port[name], "PORT") for path in texts
        }

    port = {"hello": "50051", "howdy": "50052"}
    assert content("hello") == content("howdy")


def test_the_cluster_has_workers_in_two_zones() -> None:
    cluster = yaml.safe_load((rendering.ROOT / "k8s" / "kind.yaml").read_text())
    roles = [node["role"] for node in cluster["nodes"]]
    zones = [node.get("labels", {}).get("topology.kubernetes.io/zone") for node in cluster["nodes"]]
    assert roles == ["control-plane", "worker", "worker"]
    assert zones == [None, "zone-a", "zone-b"]
