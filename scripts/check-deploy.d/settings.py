#!/usr/bin/env python3
"""Configurations as Tidegate itself reads them, and what the manifests around them have to allow for."""

import os
import pathlib
import re
import subprocess
import tempfile
import tomllib

from findings import ROOT, findings

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"MiB": 2**20, "Mi": 2**20, "GiB": 2**30, "Gi": 2**30}

# Where the examples have the files that a configuration names: they are made for the check.
FILES = r"/(?:etc|keys|run/credentials)/[^\"'\s]+"


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", str(text)).groups()
    return int(number) * SECONDS[unit]


def size(text):
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", text).groups()
    return int(number) * BYTES[unit]


def port(address):
    return int(address.rpartition(":")[2])


def constant_seconds(source, name):
    """A `Duration` that is written in a source file."""
    text = (ROOT / source).read_text()
    return int(re.search(rf"const {name}: Duration = Duration::from_secs\((\d+)\)", text)[1])


def section_of(mode):
    return "content" if mode == "content-app" else "api"


def stops_within(mode, config):
    """How many seconds a process may take to stop after SIGTERM."""
    fills = constant_seconds("content-app/src/fills.rs", "STOP_TIMEOUT")
    api, content = config["api"], config["content"]
    if mode == "content-app":
        return seconds(content["drain_grace"]) + seconds(content["drain_timeout"]) + fills
    if mode == "registry-api":
        return seconds(api["drain_grace"]) + seconds(api["shutdown_timeout"])
    return seconds(api["shutdown_timeout"]) + fills


def key_files(text):
    """The files that a configuration, or the value of a variable, names."""
    return set(re.findall(rf"[\"']({FILES})[\"']", text)) | set(re.findall(rf"^({FILES})$", text))


def check_config(place, document, variables):
    """What `tidegate check-config` makes of a document and variables; {} when it refuses them.

    The files that they name are made, with content of the kind that is expected there.
    """
    with tempfile.TemporaryDirectory() as folder:

        def local(text):
            for name in key_files(text):
                file = pathlib.Path(folder + name)
                file.parent.mkdir(parents=True, exist_ok=True)
                secret = "-----BEGIN CERTIFICATE-----" if file.suffix == ".pem" else "secret"
                file.write_text("0a" * 32 if "link" in name else secret)
                text = text.replace(name, str(file))
            return text

        config = pathlib.Path(folder, "tidegate.toml")
        config.write_text(local(document))
        command = [os.environ["TIDEGATE"], "check-config", "--config", config]
        environment = {name: local(value) for name, value in variables.items()}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ran.returncode != 0:
            findings.append(f"{place}: {ran.stderr.strip().replace(str(folder), '')}")
            return {}
        return tomllib.loads(ran.stdout)
