#!/usr/bin/env python3
"""deploy/kubernetes: its objects are well formed, agree with each other, and with the configuration in them."""

import re
import shutil
import subprocess
import tomllib

import yaml
from findings import DEPLOY, INSTALL, ROOT, expect, findings
from settings import check_config, constant_seconds, key_files, port, section_of, seconds, size, stops_within
from shapes import object_misfits

FOLDER = DEPLOY / "kubernetes"
MOUNTED = "/etc/tidegate/"
# What PostgreSQL allows when nothing is set there, without those it keeps for its administrators.
POSTGRES_CONNECTIONS = 97
# How long one check behind /readyz may take, and how long a process waits for its schema before it serves.
READY = constant_seconds("http-server/src/health.rs", "CHECK_LIMIT")
SCHEMA = constant_seconds("tidegate/src/process.rs", "SCHEMA_WAIT")


def resources(folder):
    """The documents of a folder with a kustomization.yaml, as they stand, and the ConfigMaps that it generates."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    generated = kustomization.get("configMapGenerator", [])
    maps = {entry["name"]: folder / entry["files"][0] for entry in generated}
    documents = []
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for image in kustomization.get("images", []):
        expect(image["newTag"] == version, folder.relative_to(ROOT), f"the image is not of version {version}")
    for name in kustomization["resources"]:
        if (folder / name).is_dir():
            more, more_maps = resources(folder / name)
            documents += more
            maps |= more_maps
        else:
            documents += yaml.safe_load_all((folder / name).read_text())
    return documents, maps


def check_fields(place, documents):
    for document in documents:
        for misfit in object_misfits(document):
            findings.append(f"{place}: {document.get('metadata', {}).get('name')}: {misfit}")


def check_rendered(folder, place):
    """What kustomize makes of it, where there is one."""
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if not shutil.which(command[0]):
        return
    ran = subprocess.run([*command, folder], capture_output=True, text=True)
    expect(ran.returncode == 0, place, f"does not render: {ran.stderr.strip()}")
    documents = list(yaml.safe_load_all(ran.stdout))
    check_fields(f"{place}, rendered", documents)
    maps = {document["metadata"]["name"] for document in documents if document["kind"] == "ConfigMap"}
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                expect(volume["configMap"]["name"] in maps, place, f"{document['kind']} mounts another ConfigMap")
        for container in pod.get("containers", []):
            expect("/" in container["image"], place, f"the image of {container['name']} is not replaced")


class Secrets:
    """The secrets that are used, each with its keys."""

    def __init__(self):
        self.keys = {}

    def use(self, name, key):
        self.keys.setdefault(name, set()).add(key)

    def check(self):
        """docs/install.md says how each is made."""
        text = INSTALL.read_text().replace("\\\n", " ")
        for name, keys in self.keys.items():
            made = " ".join(re.findall(rf"create secret generic {name} (.*)", text))
            for key in keys:
                expect(f"{key}=" in made, INSTALL.name, f"it is not said how {key} of the Secret {name} is made")


def variables_of(container, secrets):
    """The variables of a container, with values for what is known only in a cluster."""
    variables = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "value" in variable:
            variables[variable["name"]] = variable["value"].replace("$(POD_IP)", "10.0.0.11")
        elif "secretKeyRef" in source:
            secrets.use(source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
            variables[variable["name"]] = "postgres://user:password@database/tidegate"
        else:
            variables[variable["name"]] = "of-this-pod"
    return variables


def check_pod(place, pod, maps, secrets):
    """A pod's confinement, and what it mounts. Hands over the configuration that holds in it."""
    container = pod["containers"][0]
    confined = container["securityContext"]
    expect(pod["securityContext"]["runAsNonRoot"] is True, place, "may run as root")
    expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", place, "has every system call")
    expect(confined["readOnlyRootFilesystem"] is True, place, "may write to its root")
    expect(confined["allowPrivilegeEscalation"] is False, place, "may gain privileges")
    expect(confined["capabilities"] == {"drop": ["ALL"]}, place, "has capabilities")
    expect(pod.get("enableServiceLinks") is False, place, "gets variables of services, and TIDEGATE_… are settings")
    expect(pod.get("automountServiceAccountToken") is False, place, "gets a token that it has no use for")
    expect("memory" in container["resources"]["limits"], place, "may take all memory of its machine")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    expect(volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}, place, "volumes and mounts differ")
    expect(volumes["config"]["configMap"]["name"] in maps, place, "there is no such ConfigMap")
    document = maps["tidegate"].read_text()
    paths = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    written = "\n".join(line for line in document.splitlines() if not line.startswith("#"))
    for file in key_files(written):
        folder, _, key = file.rpartition("/")
        volume = paths.get(folder, {})
        expect("secret" in volume, place, f"{file} is in no Secret that is mounted")
        if "secret" in volume:
            secrets.use(volume["secret"]["secretName"], key)
    config = check_config(place, document, variables_of(container, secrets))
    if config:
        below = config["data_dir"]
        expect("emptyDir" in paths.get(below, {}), place, f"{below} cannot be written")
    tier = config.get("storage", {}).get("cache_size")
    if tier and container["args"] == ["content-app"]:
        limit = volumes["data"]["emptyDir"]["sizeLimit"]
        expect(size(tier) < size(limit), place, "the cache tier does not fit into its volume")
        asked = container["resources"]["requests"]["ephemeral-storage"]
        expect(asked == limit, place, "its volume is not what it asks its machine for")
    return config


def check_probes(place, container):
    for name, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        asked = container[name]["httpGet"]
        expect(asked == {"path": path, "port": "internal"}, place, f"{name} asks {asked}")
    startup, ready = container["startupProbe"], container["readinessProbe"]
    patience = startup["periodSeconds"] * startup["failureThreshold"]
    expect(patience > SCHEMA, place, "is killed while it waits for its schema")
    expect(ready["timeoutSeconds"] > READY, place, "readiness is not waited for as long as a check may take")


def check_ports(place, name, deployment, service, config):
    container = deployment["template"]["spec"]["containers"][0]
    listens = config[section_of(name)]
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    expect(ports == {"http": port(listens["listen"]), "internal": port(listens["internal_listen"])}, place,
           "listens on other ports")
    for address in [listens["listen"], listens["internal_listen"]]:
        expect(address.startswith("0.0.0.0:"), place, f"nobody else reaches {address}")
    for entry in service["ports"]:
        expect(entry["targetPort"] == "http", place, "the Service leads to what is internal")
        expect(entry["port"] == ports["http"], place, "the Service has another port")
    scraped = deployment["template"]["metadata"]["annotations"]["prometheus.io/port"]
    expect(scraped == str(ports["internal"]), place, "Prometheus is sent to another port")
    return ports


def check_service(name, documents, maps, secrets):
    """A Deployment, and what belongs to it. Hands over its ports and the most connections it has to the database."""
    place = f"deploy/kubernetes: {name}"
    of = {document["kind"]: document["spec"] for document in documents if document["metadata"]["name"] == name}
    deployment, scaler = of["Deployment"], of["HorizontalPodAutoscaler"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    config = check_pod(place, pod, maps, secrets)
    container = pod["containers"][0]
    selectors = [deployment["selector"], of["PodDisruptionBudget"]["selector"]]
    selectors += [spread["labelSelector"] for spread in pod["topologySpreadConstraints"]]
    for selector in [*(one["matchLabels"] for one in selectors), of["Service"]["selector"]]:
        expect(selector == labels, place, f"{selector} selects other pods")
    expect(labels["app.kubernetes.io/component"] == name == container["args"][0], place, "runs something else")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    expect(scaler["scaleTargetRef"] == target, place, "the autoscaler is for another one")
    expect(2 <= scaler["minReplicas"] < scaler["maxReplicas"], place, "one pod is missed when it goes")
    for metric in scaler["metrics"]:
        asked = container["resources"]["requests"]
        expect(metric["resource"]["name"] in asked, place, "the autoscaler compares with a request that is not made")
    check_probes(place, container)
    if not config:
        return {}, 0
    ports = check_ports(place, name, deployment, of["Service"], config)
    grace = seconds(config[section_of(name)]["drain_grace"])
    expect(grace > 0, place, "is sent clients that it refuses while it stops")
    expect(pod["terminationGracePeriodSeconds"] > stops_within(name, config), place, "is killed while it stops")
    most = scaler["maxReplicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    return ports, most * config["database"]["max_connections"]


def check_policy(documents, ports):
    """The ports for clients are open, the internal ones are for pods that are named."""
    place = "deploy/kubernetes: NetworkPolicy"
    [policy] = [one["spec"] for one in documents if one["kind"] == "NetworkPolicy"]
    expect(policy["policyTypes"] == ["Ingress"], place, "is for something else")
    opened = {"http": set(), "internal": set()}
    for rule in policy["ingress"]:
        opened["internal" if "from" in rule else "http"] |= {entry["port"] for entry in rule["ports"]}
    for kind, numbers in opened.items():
        expect(numbers == {of[kind] for of in ports if of}, place, f"opens {numbers} to those of {kind}")
    for document in documents:
        if document["kind"] == "Deployment":
            labels = document["spec"]["template"]["metadata"]["labels"]
            chosen = policy["podSelector"]["matchLabels"].items() <= labels.items()
            expect(chosen, place, f"does not hold for {document['metadata']['name']}")


def check_kubernetes():
    secrets = Secrets()
    connections, ports = 0, []
    for folder in ["migrate", "services"]:
        place = f"deploy/kubernetes/{folder}"
        documents, maps = resources(FOLDER / folder)
        check_fields(place, documents)
        if findings:
            # What follows relies on the fields.
            continue
        if folder == "migrate":
            [job] = [one for one in documents if one["kind"] == "Job"]
            pod = job["spec"]["template"]["spec"]
            expect(pod["containers"][0]["args"] == ["migrate"], place, "the job does not migrate")
            config = check_pod(place, pod, maps, secrets)
            connections += config.get("database", {}).get("max_connections", 0)
        else:
            for name in ["registry-api", "content-app"]:
                opened, most = check_service(name, documents, maps, secrets)
                ports.append(opened)
                connections += most
            if all(ports):
                check_policy(documents, ports)
        check_rendered(FOLDER / folder, place)
    expect(connections <= POSTGRES_CONNECTIONS, "deploy/kubernetes", f"{connections} connections are too many")
    secrets.check()
    return f"{len(secrets.keys)} secrets, {connections} connections at most"
