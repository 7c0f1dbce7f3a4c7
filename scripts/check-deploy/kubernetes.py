"""deploy/kubernetes: its objects conform to the API, and agree with each other and with the configuration in them."""

import re
from collections import defaultdict

import kubernetes_validate
import yaml
from common import (
    DEPLOY,
    DOCS,
    ROOT,
    WORKSPACE,
    check_config,
    constant,
    expect,
    findings,
    named_files,
    parse,
    port,
    section,
    shutdown_seconds,
)

FOLDER = DEPLOY / "kubernetes"
OLDEST_VERSION = "1.30"
# What PostgreSQL allows by default, less what it reserves for administrators.
MAX_CONNECTIONS = 97


def load(folder):
    """The objects of a folder with a kustomization.yaml, and the ConfigMaps that it generates."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    maps = {entry["name"]: folder / entry["files"][0] for entry in kustomization.get("configMapGenerator", [])}
    version = WORKSPACE["package"]["version"]
    for image in kustomization.get("images", []):
        expect(image["newTag"] == version, folder.relative_to(ROOT), f"the image is not version {version}")
    objects = []
    for resource in kustomization["resources"]:
        if (folder / resource).is_dir():
            more, more_maps = load(folder / resource)
            objects += more
            maps |= more_maps
        else:
            objects += yaml.safe_load_all((folder / resource).read_text())
    return objects, maps


def check_schema(place, objects):
    for item in objects:
        try:
            kubernetes_validate.validate(item, OLDEST_VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            expect(False, place, f"{item['kind']}.{'.'.join(map(str, error.path))}: {error.message}")


def environment(container, secrets):
    """The variables of a container, with values for what only a cluster knows."""
    variables = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "value" in variable:
            variables[variable["name"]] = variable["value"].replace("$(POD_IP)", "10.0.0.11")
        elif "secretKeyRef" in source:
            secrets[source["secretKeyRef"]["name"]].add(source["secretKeyRef"]["key"])
            variables[variable["name"]] = "postgres://user:password@database/tidegate"
        else:
            variables[variable["name"]] = "of-this-pod"
    return variables


def check_confinement(place, pod, container):
    security = container["securityContext"]
    expect(pod["securityContext"]["runAsNonRoot"] is True, place, "may run as root")
    expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", place, "no system call is filtered")
    expect(security["readOnlyRootFilesystem"] is True, place, "the root file system is writable")
    expect(security["allowPrivilegeEscalation"] is False, place, "may gain privileges")
    expect(security["capabilities"] == {"drop": ["ALL"]}, place, "has capabilities")
    # Kubernetes would set TIDEGATE_… variables, which are settings.
    expect(pod.get("enableServiceLinks") is False, place, "gets variables of services")
    expect(pod.get("automountServiceAccountToken") is False, place, "gets a token that it does not use")
    expect("memory" in container["resources"]["limits"], place, "has no memory limit")


def check_pod(place, pod, maps, secrets):
    """Checks confinement and volumes. Returns the effective configuration."""
    [container] = pod["containers"]
    check_confinement(place, pod, container)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    expect(len(mounts) == len(volumes), place, "volumes and mounts differ")
    expect(volumes["config"]["configMap"]["name"] in maps, place, "unknown ConfigMap")
    document = maps["tidegate"].read_text()
    for file in named_files(re.sub(r"(?m)^#.*", "", document)):
        folder, _, key = file.rpartition("/")
        secret = mounts.get(folder, {}).get("secret")
        expect(secret, place, f"{file} is not in a mounted Secret")
        if secret:
            secrets[secret["secretName"]].add(key)
    config = check_config(place, document, environment(container, secrets))
    if config:
        expect("emptyDir" in mounts.get(config["data_dir"], {}), place, "data_dir is not writable")
        cache = config["storage"].get("cache_size")
        if cache and container["args"] == ["content-app"]:
            limit = volumes["data"]["emptyDir"]["sizeLimit"]
            expect(parse(cache) < parse(limit), place, "storage.cache_size exceeds the volume")
            requested = container["resources"]["requests"]["ephemeral-storage"]
            expect(requested == limit, place, "requested ephemeral-storage is not the size of the volume")
    return config


def check_probes(place, container):
    for name, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        expected = {"path": path, "port": "internal"}
        expect(container[name]["httpGet"] == expected, place, f"{name} is not {expected}")
    startup = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    schema = constant("tidegate/src/process.rs", "SCHEMA_TIMEOUT")
    expect(startup > schema, place, "startupProbe fails while the process waits for the schema")
    check = constant("http-server/src/health.rs", "CHECK_LIMIT")
    expect(container["readinessProbe"]["timeoutSeconds"] > check, place, "readinessProbe is shorter than a check")


def check_ports(place, template, container, service, settings):
    """Checks that listeners, ports, Service and Prometheus agree. Returns the ports."""
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    listeners = {"http": settings["listen"], "internal": settings["internal_listen"]}
    expect(ports == {name: port(address) for name, address in listeners.items()}, place, "wrong containerPort")
    for address in listeners.values():
        expect(address.startswith("0.0.0.0:"), place, f"{address} is not reachable from other pods")
    for entry in service["ports"]:
        expect((entry["targetPort"], entry["port"]) == ("http", ports["http"]), place, "wrong port of the Service")
    scraped = template["metadata"]["annotations"]["prometheus.io/port"]
    expect(scraped == str(ports["internal"]), place, "prometheus.io/port is not the internal port")
    return ports


def check_service(name, objects, maps, secrets):
    """Checks a Deployment and what belongs to it. Returns its ports and its maximum of database connections."""
    place = f"deploy/kubernetes: {name}"
    specs = {item["kind"]: item["spec"] for item in objects if item["metadata"]["name"] == name}
    deployment, scaler = specs["Deployment"], specs["HorizontalPodAutoscaler"]
    template = deployment["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    config = check_pod(place, pod, maps, secrets)
    [container] = pod["containers"]
    selectors = [deployment["selector"], specs["PodDisruptionBudget"]["selector"]]
    selectors += [constraint["labelSelector"] for constraint in pod["topologySpreadConstraints"]]
    for selector in [*(one["matchLabels"] for one in selectors), specs["Service"]["selector"]]:
        expect(selector == labels, place, f"{selector} selects other pods")
    expect(labels["app.kubernetes.io/component"] == name == container["args"][0], place, "wrong component or argument")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    expect(scaler["scaleTargetRef"] == target, place, "wrong scaleTargetRef")
    expect(2 <= scaler["minReplicas"] < scaler["maxReplicas"], place, "fewer than two replicas, or no scaling")
    for metric in scaler["metrics"]:
        requested = container["resources"]["requests"]
        expect(metric["resource"]["name"] in requested, place, "the autoscaler needs a resource request")
    check_probes(place, container)
    if not config:
        return {}, 0
    ports = check_ports(place, template, container, specs["Service"], config[section(name)])
    expect(parse(config[section(name)]["drain_grace"]) > 0, place, "drain_grace is 0")
    stop = shutdown_seconds(name, config)
    expect(pod["terminationGracePeriodSeconds"] > stop, place, "terminationGracePeriodSeconds is too short")
    replicas = scaler["maxReplicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    return ports, replicas * config["database"]["max_connections"]


def check_policy(objects, ports):
    """The NetworkPolicy opens the public ports to all, and the internal ones to named pods."""
    place = "deploy/kubernetes: NetworkPolicy"
    [policy] = [item["spec"] for item in objects if item["kind"] == "NetworkPolicy"]
    expect(policy["policyTypes"] == ["Ingress"], place, "policyTypes is not Ingress")
    opened = defaultdict(set)
    for rule in policy["ingress"]:
        opened["internal" if "from" in rule else "http"] |= {entry["port"] for entry in rule["ports"]}
    for kind in ["http", "internal"]:
        expect(opened[kind] == {service[kind] for service in ports}, place, f"wrong {kind} ports: {opened[kind]}")
    for item in objects:
        if item["kind"] == "Deployment":
            labels = item["spec"]["template"]["metadata"]["labels"]
            selected = policy["podSelector"]["matchLabels"].items() <= labels.items()
            expect(selected, place, f"does not select {item['metadata']['name']}")


def check_kubernetes():
    secrets = defaultdict(set)
    before = len(findings)
    job_objects, job_maps = load(FOLDER / "migrate")
    objects, maps = load(FOLDER / "services")
    check_schema("deploy/kubernetes/migrate", job_objects)
    check_schema("deploy/kubernetes/services", objects)
    if len(findings) > before:
        return "Kubernetes: the rest needs valid objects"
    [pod] = [item["spec"]["template"]["spec"] for item in job_objects if item["kind"] == "Job"]
    expect(pod["containers"][0]["args"] == ["migrate"], "deploy/kubernetes/migrate", "the job does not migrate")
    config = check_pod("deploy/kubernetes/migrate", pod, job_maps, secrets)
    services = [check_service(name, objects, maps, secrets) for name in ["registry-api", "content-app"]]
    if all(ports for ports, _ in services):
        check_policy(objects, [ports for ports, _ in services])
    connections = sum(most for _, most in services) + config.get("database", {}).get("max_connections", 0)
    expect(connections <= MAX_CONNECTIONS, "deploy/kubernetes", f"{connections} connections are too many")
    text = DOCS.replace("\\\n", " ")
    for name, keys in secrets.items():
        created = " ".join(re.findall(rf"create secret generic {name} (.*)", text))
        for key in keys:
            expect(f"{key}=" in created, "docs", f"there is no command that creates {key} of the Secret {name}")
    return f"Kubernetes: {len(secrets)} secrets, at most {connections} connections"
