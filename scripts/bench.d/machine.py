"""The machine: limits, and the facts that figures depend on."""

import os
import pathlib
import platform
import re
import resource
import subprocess


def raise_file_limit():
    """Raises the limit of open files, for 1,000 readers. Servers inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe(root):
    model = re.search(r"^model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else "unknown",
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "nginx": version("nginx", "-v"),
        "docker-registry": version("docker-registry", "--version"),
        "commit": version("git", "-C", root, "describe", "--always", "--dirty"),
        "load before": round(os.getloadavg()[0], 2),
    }


def version(*command):
    """The last word of the output of a command."""
    ran = subprocess.run(command, capture_output=True, text=True)
    words = (ran.stdout + ran.stderr).split()
    return words[-1] if words and ran.returncode == 0 else "unknown"
