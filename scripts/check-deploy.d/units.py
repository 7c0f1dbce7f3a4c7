#!/usr/bin/env python3
"""The units wait long enough, and the examples of docs/install.md are configurations that hold.

What else is to say about units, systemd says: see scripts/check-deploy.
"""

import json
import re

from findings import DEPLOY, INSTALL, expect
from settings import check_config, seconds, stops_within


def check_units():
    config = check_config("deploy/container.toml", (DEPLOY / "container.toml").read_text(), {})
    services = ["serve", "registry-api", "content-app"]
    for mode in services if config else []:
        file = DEPLOY / "systemd" / ("tidegate.service" if mode == "serve" else f"tidegate-{mode}.service")
        patience = re.search(r"^TimeoutStopSec=(\w+)$", file.read_text(), re.MULTILINE)[1]
        expect(seconds(patience) > stops_within(mode, config), file.name, "is killed while it stops")
    return f"{len(services)} units that stop in time"


def check_examples():
    """Each TOML is accepted; so are the variables of each drop-in, laid over the example before it. JSON is JSON."""
    examples = re.findall(r"^```(toml|ini|json)\n(.*?)^```$", INSTALL.read_text(), re.MULTILINE | re.DOTALL)
    document = ""
    for number, (language, example) in enumerate(examples, 1):
        place = f"{INSTALL.name}: example {number}"
        if language == "toml":
            document = example
            check_config(place, document, {})
            continue
        if language == "json":
            try:
                json.loads(example)
            except ValueError as error:
                expect(False, place, error)
            continue
        credentials = "/run/credentials/tidegate-content-app.service"
        lines = re.findall(r"^Environment=(['\"]?)(\w+)=(.*)\1$", example, re.MULTILINE)
        expect(lines, place, "sets no variable")
        check_config(place, document, {name: value.replace("%d", credentials) for _, name, value in lines})
        loaded = set(re.findall(r"^LoadCredential=([^:]+):", example, re.MULTILINE))
        used = set(re.findall(r"%d/([\w.-]+)", example))
        expect(used == loaded, place, f"{used ^ loaded} is loaded and not used, or used and not loaded")
    return f"{len(examples)} examples"
