#!/usr/bin/env python3
"""deploy/compose.yaml: its references hold, and its services fit together."""

import re

import yaml
from findings import DEPLOY, expect
from settings import check_config, port, section_of, seconds, stops_within

PLACE = "deploy/compose.yaml"

# As much of the Compose specification as is used.
SERVICE = {
    "image", "build", "command", "entrypoint", "user", "restart", "read_only", "cap_drop", "security_opt",
    "healthcheck", "stop_grace_period", "depends_on", "environment", "ports", "volumes",
}  # fmt: skip
HEALTH = {"test", "interval", "timeout", "start_period", "disable"}
CONDITIONS = {"service_healthy", "service_completed_successfully"}


def substituted(text):
    """With the defaults of variables, and something in place of those that have to be set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "password", text)


def check_references(name, service, compose):
    services = compose["services"]
    expect(service.keys() <= SERVICE, PLACE, f"{name} has keys that are not known: {service.keys() - SERVICE}")
    health = service.get("healthcheck", {})
    expect(health.keys() <= HEALTH, PLACE, f"the health check of {name} has keys that are not known")
    expect(re.search(r":[\w.-]+$", service["image"]) or service["image"] == "tidegate", PLACE,
           f"the image of {name} has no version")
    for other, how in service.get("depends_on", {}).items():
        expect(how.keys() == {"condition"} and how["condition"] in CONDITIONS, PLACE, f"{name} waits for nothing")
        if how["condition"] == "service_healthy":
            asked = services[other].get("healthcheck", {})
            expect("test" in asked, PLACE, f"{name} waits for the health of {other}, which has no check")
        else:
            once = services[other].get("restart", "no") == "no"
            expect(once, PLACE, f"{name} waits for the end of {other}, which is started again")
    for volume in service.get("volumes", []):
        expect(volume.split(":")[0] in compose["volumes"], PLACE, f"{name} mounts {volume}")


def check_tidegate(name, service, image):
    """A service of ours. Hands over what only one node may have, where it is one."""
    [mode] = service["command"]
    config = check_config(f"{PLACE}: {name}", image, service["environment"])
    waited = service["depends_on"]
    if mode == "migrate":
        expect("postgres" in waited, PLACE, "migrate does not wait for the database")
        return set()
    expect("migrate" in waited, PLACE, f"{name} does not wait for the schema")
    if not config:
        return set()
    patience = seconds(service["stop_grace_period"])
    expect(patience > stops_within(mode, config), PLACE, f"{name} is killed while it stops")
    listens = config[section_of(mode)]
    [(outside, inside)] = [entry.split(":") for entry in service["ports"]]
    expect(int(inside) == port(listens["listen"]), PLACE, f"{name} listens on another port")
    internal = port(listens["internal_listen"])
    expect(int(inside) != internal, PLACE, f"the internal port of {name} is published")
    asked = service["healthcheck"]["test"]
    url = f"http://127.0.0.1:{internal}/readyz"
    told = ["--url", url] if mode == "content-app" else []
    expect(asked == ["CMD", "tidegate", "health", *told], PLACE, f"the health check of {name} asks something else")
    if mode != "content-app":
        return set()
    public, inner = listens["public_url"].rstrip("/"), listens["internal_url"].rstrip("/")
    expect(public.endswith(f":{outside}"), PLACE, f"{name} is not published where clients are sent to")
    expect(inner == f"http://{name}:{internal}", PLACE, f"{name} is not reached by the others")
    return {listens["node_id"], public}


def check_compose():
    compose = yaml.safe_load(substituted((DEPLOY / "compose.yaml").read_text()))
    image = (DEPLOY / "container.toml").read_text()
    services, of_nodes, nodes = compose["services"], [], 0
    for name, service in services.items():
        check_references(name, service, compose)
        if service["image"] == "tidegate":
            of_node = check_tidegate(name, service, image)
            nodes += bool(of_node)
            of_nodes += of_node
    expect(len(set(of_nodes)) == 2 * nodes, PLACE, "two nodes have something in common that is of one node alone")
    return f"{len(services)} services"
