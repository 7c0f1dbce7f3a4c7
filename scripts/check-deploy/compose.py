"""deploy/compose.yaml: its references, and how its services fit together."""

import re

import yaml
from common import DEPLOY, check_config, expect, parse, port, section, shutdown_seconds

PLACE = "deploy/compose.yaml"
# The part of the Compose specification that is used.
KEYS = {
    "": "build cap_drop command depends_on entrypoint environment healthcheck image ports read_only restart "
    "security_opt stop_grace_period user volumes",
    "healthcheck": "disable interval start_period test timeout",
}


def substitute(text):
    """Variables replaced by their defaults, or by a value where there is none."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "password", text)


def check_service(name, service, compose):
    for part, keys in KEYS.items():
        unknown = (service.get(part, {}) if part else service).keys() - set(keys.split())
        expect(not unknown, PLACE, f"{name} has unknown keys: {unknown}")
    versioned = re.search(r":[\w.-]+$", service["image"]) or service["image"] == "tidegate"
    expect(versioned, PLACE, f"the image of {name} has no version")
    for other, dependency in service.get("depends_on", {}).items():
        awaited = compose["services"][other]
        if dependency["condition"] == "service_healthy":
            expect("test" in awaited.get("healthcheck", {}), PLACE, f"{other}, which {name} needs, has no health check")
        else:
            expect(dependency["condition"] == "service_completed_successfully", PLACE, f"{name}: unknown condition")
            expect(awaited.get("restart", "no") == "no", PLACE, f"{other}, whose end {name} awaits, is restarted")
    for volume in service.get("volumes", []):
        expect(volume.split(":")[0] in compose["volumes"], PLACE, f"{name}: unknown volume {volume}")


def check_tidegate(name, service, defaults):
    """Checks a service of Tidegate. Returns what only one content node may have."""
    [mode] = service["command"]
    config = check_config(f"{PLACE}: {name}", defaults, service["environment"])
    needed = "postgres" if mode == "migrate" else "migrate"
    expect(needed in service["depends_on"], PLACE, f"{name} does not wait for {needed}")
    if mode == "migrate" or not config:
        return set()
    grace = parse(service["stop_grace_period"])
    expect(grace > shutdown_seconds(mode, config), PLACE, f"stop_grace_period of {name} is too short")
    settings = config[section(mode)]
    [(published, inside)] = [entry.split(":") for entry in service["ports"]]
    internal = port(settings["internal_listen"])
    expect(int(inside) == port(settings["listen"]) != internal, PLACE, f"{name} publishes the wrong port")
    url = ["--url", f"http://127.0.0.1:{internal}/readyz"] if mode == "content-app" else []
    health = ["CMD", "tidegate", "health", *url]
    expect(service["healthcheck"]["test"] == health, PLACE, f"the health check of {name} is not {health}")
    if mode != "content-app":
        return set()
    public = settings["public_url"].rstrip("/")
    expect(public.endswith(f":{published}"), PLACE, f"public_url of {name} has another port than it publishes")
    expected = f"http://{name}:{internal}"
    expect(settings["internal_url"].rstrip("/") == expected, PLACE, f"internal_url of {name} is not {expected}")
    return {settings["node_id"], public}


def check_compose():
    compose = yaml.safe_load(substitute((DEPLOY / "compose.yaml").read_text()))
    defaults = (DEPLOY / "container.toml").read_text()
    services, unique = compose["services"], []
    for name, service in services.items():
        check_service(name, service, compose)
        if service["image"] == "tidegate":
            unique += check_tidegate(name, service, defaults)
    expect(len(unique) == len(set(unique)) > 0, PLACE, "content nodes share a node_id or public_url")
    return f"{len(services)} Compose services"
