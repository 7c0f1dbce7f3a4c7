#!/usr/bin/env python3
"""What `/metrics` of a running `tidegate serve` says, after it has had something to count."""

import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from upstream import LAYER, REPOSITORY, Upstream, digest_of

# For the process to come up, and for everything to be counted.
PATIENCE = 60

# A proxy of the caller's knows nothing of this machine's loopback.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url):
    with DIRECT.open(url, timeout=PATIENCE) as answer:
        return answer.read().decode("latin-1")


def families(text):
    """name → labels of each metric family that has a value; a counter's name is without `_total`, as it is registered."""
    kinds, found = {}, {}
    for line in text.splitlines():
        kind = re.match(r"# TYPE (\w+) (\w+)$", line)
        sample = re.match(r"(\w+?)(?:\{(.*)\})? [^ ]+$", line)
        if kind:
            kinds[kind[1]] = kind[2]
        elif sample:
            name = sample[1]
            if name not in kinds:
                name = re.sub(r"_(total|bucket|sum|count)$", "", name)
            labels = set(re.findall(r'(\w+)="', sample[2] or "")) - {"le"}
            found.setdefault(name, set()).update(labels)
    return found


def beginning(log, process):
    """Where it listens, as it says when it is ready: for clients, and with its metrics."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        log.seek(0)
        said = re.findall(r"^(?:listening|health and metrics) on (http\S+)$", log.read(), re.MULTILINE)
        if len(said) == 2:
            return said
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(f"tidegate serve did not come up:\n{log.read()}")


def served_families(wanted):
    """What is counted by a process through which an image was pulled; `wanted` is waited for."""
    with Upstream() as upstream, tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        command = [os.environ["TIDEGATE"], "serve", "--data-dir", f"{folder}/data", "--listen", "127.0.0.1:0"]
        command += ["--internal-listen", "127.0.0.1:0", "--upstream", f"up={upstream.url}"]
        process = subprocess.Popen(command, env={}, stdout=log, stderr=log)
        try:
            public, internal = beginning(log, process)
            get(f"{public}/v2/up/{REPOSITORY}/manifests/1")
            # The redirect is followed, as a client does it.
            get(f"{public}/v2/up/{REPOSITORY}/blobs/{digest_of(LAYER)}")
            deadline = time.monotonic() + PATIENCE
            found = {}
            while not wanted <= found.keys() and time.monotonic() < deadline:
                time.sleep(0.2)
                found = families(get(f"{internal}/metrics"))
            return found
        except urllib.error.URLError as error:
            log.seek(0)
            raise SystemExit(f"tidegate serve: {error}\n{log.read()}") from error
        finally:
            process.terminate()
            process.wait(PATIENCE)
            upstream.shutdown()
