#!/usr/bin/env python3
"""Processes that are measured: started, waited for, looked at in /proc, and ended."""

import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
# What somebody configures for a Tidegate of their own does not reach the one that is measured.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "RUST_LOG" and not name.startswith("TIDEGATE_")
}
# Loopback only, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What every client of manifests says; docker-registry serves none of this type to who does not.
ACCEPT = "application/vnd.oci.image.manifest.v1+json"


class BenchError(Exception):
    """Something did not do what it has to do before it makes sense to measure how fast it does it."""


def fetch(url):
    """Status and body; redirects are followed."""
    try:
        request = urllib.request.Request(url, headers={"Accept": ACCEPT})
        with OPENER.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def descendants(pid):
    """A process and all below it."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo.extend(children.get(found[-1], []))
    return found


class Process:
    """A server in the background. Its output goes to a file in `folder`."""

    # All that may still be running: whoever leaves in a hurry ends them.
    started = []

    def __init__(self, name, folder, command, stdin=subprocess.DEVNULL, stdout=None):
        self.name = name
        self.log = pathlib.Path(folder) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=stdin,
                stdout=stdout or log,
                stderr=log,
                env=ENVIRONMENT,
                cwd=folder,
            )
        self.started.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def kill(self):
        """SIGKILL, and nothing else."""
        self.child.kill()
        self.child.wait()

    def stop(self):
        if self in self.started:
            self.started.remove(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
        for stream in (self.child.stdin, self.child.stdout):
            if stream:
                stream.close()

    def wait_for(self, url, seconds=20):
        """Until `url` is answered with 200."""
        end = time.monotonic() + seconds
        while True:
            try:
                if fetch(url)[0] == 200:
                    return
            except OSError:
                pass
            if self.child.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{self.name} does not come up:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def cpu_seconds(self):
        """User and system time of the process and all below it, also of those that have ended."""
        ticks = 0
        for pid in descendants(self.child.pid):
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += sum(int(field) for field in fields[11:15])
        return ticks / TICKS

    def memory(self, field="VmRSS"):
        """Bytes; VmRSS: resident now, VmHWM: the most that was resident since `forget_peak`."""
        for line in pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self.name} has no {field}")

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")
