#!/usr/bin/env python3
"""What has to be on the machine, and what the figures depend on."""

import contextlib
import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys

from processes import BenchError

PACKAGES = {"nginx": "nginx-light", "docker-registry": "docker-registry", "wrk": "wrk"}
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def install():
    """Brings from Debian what is missing."""
    # Daemons lie in /usr/sbin, and not everybody has it in PATH.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command)]
    if not missing:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    print(f"installing {' '.join(missing)}", file=sys.stderr)
    with services_stay_off():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            with contextlib.suppress(OSError):
                subprocess.run([*apt, *command], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if not all(map(shutil.which, PACKAGES)):
        raise BenchError(f"please install what these Debian packages contain: {', '.join(missing)}")


@contextlib.contextmanager
def services_stay_off():
    """The packages would start services of their own. A policy that is there already is left as it is."""
    if os.geteuid() != 0 or POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def allow_many_sockets():
    """A thousand readers are more than a shell usually allows. The servers inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def about(root):
    """What the figures depend on."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "nginx": version("nginx", "-v"),
        "docker-registry": version("docker-registry", "--version"),
        "commit": version("git", "-C", root, "describe", "--always", "--dirty"),
        "load before": round(os.getloadavg()[0], 2),
    }


def version(*command):
    """The last word of what a program says of itself."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    words = (ran.stdout + ran.stderr).split()
    return words[-1] if words and ran.returncode == 0 else "unknown"
