"""The manifests of scripts/deploy/kubernetes: they agree with the programs, with each other, and with Kubernetes."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.manifests import FOLDERS, Container, containers, manifests, ray_templates

from ada.latency import calibrate
from llava.serve import controller, openai_api
from llava.serve.hosting.options import GRACE_S
from llava.serve.middleware import api_keys, registration_token
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.worker.app import create_app
from llava.serve.worker.request_limits import RequestLimits

DEPLOY = Path(__file__).resolve().parents[2] / "scripts" / "deploy"
PLAIN, GATEWAY, RAY = (manifests(DEPLOY / folder) for folder in FOLDERS[1:])
POD_IP = "10.1.2.3"
CASES = [
    pytest.param(container, id=f"{container.labels['app.kubernetes.io/name']}-{container.spec['name']}")
    for container in containers([*PLAIN, *GATEWAY])
]
each_container = pytest.mark.parametrize("container", CASES)


def one(documents: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The only document of a kind, and of a name where it is given."""
    [found] = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    return found


def parsed(container: Container, flags: list[str] | None = None) -> Any:
    """A container's arguments as its program reads them."""
    flags = container.flags if flags is None else flags
    return importlib.import_module(container.module).parse_arguments([f.replace("$(POD_IP)", POD_IP) for f in flags])


@each_container
def test_arguments_are_flags_of_the_program_and_the_port_is_its_default(container) -> None:
    args = parsed(container)
    assert args.host == "0.0.0.0", "probes come to the Pod's address"
    assert [port["containerPort"] for port in container.spec["ports"]] == [args.port]
    assert args.port == parsed(container, []).port


@each_container
def test_probes_ask_the_programs_endpoints(container, make_service, slow_engine) -> None:
    apps = {
        "llava.serve.controller": controller.create_app,
        "llava.serve.openai_api": lambda: openai_api.create_app(openai_api.ChatApi(ControllerClient("", None))),
        "llava.serve.model_worker": lambda: create_app(make_service(make_engine=slow_engine.make)),
    }
    routes = {path for path, methods in apps[container.module]().openapi()["paths"].items() if "get" in methods}
    paths = {}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.spec[kind]["httpGet"]
        assert container.port(probe["port"]) == parsed(container).port
        paths[kind] = probe["path"]
    assert set(paths.values()) <= routes
    # Readiness says whether requests may come; a server without workers, or that drains, is not to be restarted.
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}


@each_container
def test_pod_ends_after_its_drain(container) -> None:
    hook = container.spec["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = parsed(container).drain_timeout
    assert hook + drain_s + GRACE_S < container.pod["terminationGracePeriodSeconds"]


@each_container
def test_container_is_the_containerfiles_and_has_no_rights(container) -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    [built] = re.findall(r"podman build .*-t (\S+) \.", text)
    [version] = re.findall(r'^version = "(.+)"$', (DEPLOY.parents[1] / "pyproject.toml").read_text(), re.MULTILINE)
    assert container.spec["image"] == built == f"ada-llava:{version}"
    [user] = re.findall(r"^USER (\d+)$", text, re.MULTILINE)
    assert container.pod["securityContext"]["runAsUser"] == int(user) > 0
    assert container.pod["securityContext"]["runAsNonRoot"] and not container.pod["automountServiceAccountToken"]
    own = container.spec["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert container.spec["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container.spec["resources"]["limits"]
    [home] = re.findall(r"\bHOME=(\S+)", text)
    assert [mount["mountPath"] for mount in container.spec["volumeMounts"]] == [home], "what may be written to"


def calibrated_pods() -> list[Any]:
    """The Pod specs of workers by name, with the container that answers, and the threads that its programs use."""
    found = [
        pytest.param(container.pod, container.spec, id=container.labels["app.kubernetes.io/name"])
        for container in containers([*PLAIN, *GATEWAY])
        if container.module == "llava.serve.model_worker"
    ]
    _, group = ray_templates(RAY[0])
    return [*found, pytest.param(group["spec"], group["spec"]["containers"][0], id="ray")]


@pytest.mark.parametrize(("pod", "worker"), calibrated_pods())
def test_pod_calibrates_where_its_worker_finds_it_with_as_many_threads(pod, worker) -> None:
    [calibrates] = pod["initContainers"]
    container = Container(calibrates, pod, {})
    assert container.module == "ada.calibrate" and calibrate.parse_arguments(container.flags).model_path is None
    shared = ("image", "resources", "securityContext", "volumeMounts")
    assert [calibrates[name] for name in shared] == [worker[name] for name in shared]

    def threads(spec: dict[str, Any]) -> str | None:
        """What OMP_NUM_THREADS is in a container."""
        source = {entry["name"]: entry for entry in spec.get("env", ())}.get("OMP_NUM_THREADS")
        if source is None:
            return None
        assert source["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu"}}
        return str(spec["resources"]["requests"]["cpu"])

    [application] = yaml.safe_load(RAY[0]["spec"]["serveConfigV2"])["applications"]
    of_a_replica = str(application["args"]["num_cpus"])  # Ray sets it where it is not set
    assert threads(calibrates) == (threads(worker) or of_a_replica)


@each_container
def test_secrets_are_references_that_the_programs_read_and_the_page_names(container) -> None:
    page = (DEPLOY / "kubernetes" / "README.md").read_text(encoding="utf-8")
    sources = {entry["name"]: entry["valueFrom"] for entry in container.spec.get("env", ())}
    secrets = {name: source["secretKeyRef"] for name, source in sources.items() if "secretKeyRef" in source}
    assert secrets.keys() <= {registration_token.VARIABLE, api_keys.VARIABLE}
    for secret in secrets.values():
        assert f"create secret generic {secret['name']}" in page and f"--from-literal={secret['key']}=" in page


@pytest.mark.parametrize("documents", [PLAIN, GATEWAY], ids=["plain", "gateway"])
def test_addresses_lead_to_the_servers(documents) -> None:
    services = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Service"}
    found = {container.spec["name"]: container for container in containers(documents)}
    for container in found.values():
        for name in ("controller_address", "worker_address"):
            if (url := getattr(parsed(container), name, None)) is None:
                continue
            host, port = re.fullmatch(r"http://([\w.-]+):(\d+)", url).groups()  # type: ignore[union-attr]
            target = found[name.removesuffix("_address")]
            if host == "127.0.0.1":
                assert target.pod is container.pod, "in the same Pod"
            elif host != POD_IP:
                assert services[host]["selector"].items() <= target.labels.items()
                assert [target.port(p["targetPort"]) for p in services[host]["ports"]] == [int(port)]
            assert int(port) == parsed(target).port


@pytest.mark.anyio
async def test_workers_find_the_controller_before_it_is_ready() -> None:
    """Else none would ever register: a controller is ready once it has a worker."""
    state = await controller.Controller().state()
    assert state["reason"] == "no worker is registered"
    assert one(PLAIN, "Service", "ada-llava-controller")["spec"]["publishNotReadyAddresses"]


@pytest.mark.parametrize("documents", [PLAIN, GATEWAY], ids=["plain", "gateway"])
def test_service_monitor_finds_every_service_and_its_pods(documents) -> None:
    monitor = one(manifests(DEPLOY), "ServiceMonitor")["spec"]
    [endpoint] = monitor["endpoints"]
    services = [document for document in documents if document["kind"] == "Service"]
    assert endpoint["path"] == "/metrics" and services
    for service in services:
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        [target] = [p["targetPort"] for p in service["spec"]["ports"] if p["name"] == endpoint["port"]]
        found = [c for c in containers(documents) if service["spec"]["selector"].items() <= c.labels.items()]
        assert [p["name"] for c in found for p in c.spec["ports"]].count(target) == 1


def test_metrics_of_a_gateways_worker_reach_the_dashboard_under_the_default_names() -> None:
    [endpoint] = one(manifests(DEPLOY), "ServiceMonitor")["spec"]["endpoints"]
    [rule] = endpoint["metricRelabelings"]
    [worker] = [c for c in containers(GATEWAY) if c.spec["name"] == "worker"]
    name = parsed(worker).metrics_prefix + "kv_cache_usage_perc"
    renamed = re.sub(rf"^(?:{rule['regex']})$", rule["replacement"].replace("$1", r"\1"), name)
    assert renamed in (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")


def test_gateway_route_leads_to_the_api_of_each_model_server() -> None:
    pool, route = one(GATEWAY, "InferencePool"), one(GATEWAY, "HTTPRoute")["spec"]
    [rule] = route["rules"]
    [target] = rule["backendRefs"]
    assert target == {**target, "kind": pool["kind"], "name": pool["metadata"]["name"]}
    assert target["group"] == pool["apiVersion"].partition("/")[0]
    servers = {container.spec["name"]: container for container in containers(GATEWAY)}
    assert pool["spec"]["selector"]["matchLabels"].items() <= servers["api"].labels.items()
    assert pool["spec"]["targetPorts"] == [{"number": parsed(servers["api"]).port}]
    assert parsed(servers["api"]).allowed_hosts.split(",") == route["hostnames"]
    longest_s = sum(getattr(RequestLimits(), f"{part}_timeout_s") for part in ("image", "queue", "generation"))
    assert int(rule["timeouts"]["request"].removesuffix("s")) > longest_s
    # The endpoint picker asks the worker, whose names are those of the engine that the label names.
    assert parsed(servers["worker"]).metrics_prefix == servers["worker"].labels["llm-d.ai/engine-type"] + ":"
    page = (DEPLOY / "kubernetes" / "README.md").read_text(encoding="utf-8")
    assert f"port: {parsed(servers['worker']).port}" in page


def test_ray_service_runs_the_application_with_a_replica_for_each_pod() -> None:
    [service] = RAY
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    app = getattr(pytest.importorskip(module, exc_type=ImportError), name)
    [settings_type] = typing.get_type_hints(app).keys() - {"return"}
    settings = typing.get_type_hints(app)[settings_type].model_validate(application["args"])
    assert openai_api.parse_arguments(shlex.split(settings.api)).host == "0.0.0.0", "it answers to the Service's name"
    [group] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (settings.min_replicas, settings.max_replicas)
    [worker] = group["template"]["spec"]["containers"]
    assert float(worker["resources"]["requests"]["cpu"]) == settings.num_cpus


def test_ray_pods_are_probed_and_have_no_rights() -> None:
    [service] = RAY
    serve = yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["port"]
    plain = next(containers(PLAIN))
    for template in ray_templates(service):
        [spec] = template["spec"]["containers"]
        container = Container(spec, template["spec"], {})
        assert container.port("serve") == serve
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= spec.keys()
        assert spec["image"] == plain.spec["image"].replace("ada-llava", "ada-llava-ray")
        assert container.pod["securityContext"] == plain.pod["securityContext"]
        assert spec["securityContext"].items() <= plain.spec["securityContext"].items()


def test_ray_serve_takes_the_configuration() -> None:
    schema = pytest.importorskip("ray.serve.schema", exc_type=ImportError)
    config = yaml.safe_load(RAY[0]["spec"]["serveConfigV2"])
    schema.ServeDeploySchema.model_validate(config)


@pytest.mark.parametrize("version", ["1.30", "latest"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_schemas_take_the_manifests(folder, version) -> None:
    """Of the kinds that operators add there is no schema; the Pods of a RayService have one."""
    validator = pytest.importorskip("kubernetes_validate")
    version = validator.latest_version() if version == "latest" else version
    documents = manifests(DEPLOY / folder)
    for template in [t for d in documents if d["kind"] == "RayService" for t in ray_templates(d)]:
        documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **template})
    unknown = set()
    for document in documents:
        try:
            validator.validate(document, version, strict=True)
        except validator.SchemaNotFoundError:
            unknown.add(document["kind"])
    assert unknown <= {"ServiceMonitor", "InferencePool", "HTTPRoute", "RayService"}


@pytest.fixture
def kustomize():
    """``kustomize(folder)``: what ``kubectl apply -k`` would send, by kind and name."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")

    def build(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
        ran = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return by_name(list(yaml.safe_load_all(ran.stdout)))

    return build


def by_name(documents: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_builds_the_manifests_and_the_dashboard(folder, kustomize) -> None:
    built = kustomize(DEPLOY / folder)
    dashboard = built.pop(("ConfigMap", "ada-llava-dashboard"), None)
    assert built == by_name(manifests(DEPLOY / folder)) and built
    assert (dashboard is not None) == (folder == ".")
    if dashboard is not None:
        text = (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
        assert dashboard["data"] == {"grafana-dashboard.json": text}


def test_example_of_the_page_serves_another_model(kustomize, tmp_path) -> None:
    page = (DEPLOY / "kubernetes" / "README.md").read_text(encoding="utf-8")
    [example] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "resources:" in block]
    (tmp_path / "scripts").symlink_to(DEPLOY.parent)
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "kustomization.yaml").write_text(example, encoding="utf-8")
    built = kustomize(tmp_path / "my-model")
    [worker] = [c for c in containers(list(built.values())) if c.spec["name"] == "worker"]
    assert parsed(worker).model_path in {mount["mountPath"] for mount in worker.spec["volumeMounts"]}
    assert {m["name"] for m in worker.spec["volumeMounts"]} == {v["name"] for v in worker.pod["volumes"]}
    assert worker.spec["image"].startswith("registry.example.org/") and worker.spec["resources"]["limits"]
    [calibrates] = worker.pod["initContainers"]
    assert calibrate.parse_arguments(calibrates["args"][2:]).model_path == parsed(worker).model_path
    assert all(calibrates[name] == worker.spec[name] for name in ("image", "resources", "volumeMounts"))
