"""Processes that are measured: their start, their state in /proc, and their end."""

import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
# Without the configuration of another Tidegate.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "RUST_LOG" and not name.startswith("TIDEGATE_")
}
# No proxy: all servers are on the loopback interface.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# Clients of manifests send this. docker-registry requires it for this type.
ACCEPT = "application/vnd.oci.image.manifest.v1+json"


class BenchError(Exception):
    """A server or a program does not do what is to be measured."""


def fetch(url):
    """Status and body. Redirects are followed."""
    try:
        request = urllib.request.Request(url, headers={"Accept": ACCEPT})
        with OPENER.open(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def run(command, seconds, folder=None):
    """Runs a command in `folder`, for at most `seconds`, and returns its output."""
    command = [str(part) for part in command]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)}: not complete after {seconds} s") from None
    if ran.returncode != 0:
        raise BenchError(f"{' '.join(command)}:\n{(ran.stdout + ran.stderr)[-1000:]}")
    return ran.stdout


def stat_fields(pid):
    """The fields of /proc/PID/stat after the name."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(pid):
    """The fields of /proc/PID/stat of a process and of all its descendants."""
    fields, children = {}, {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields[int(entry.name)] = stat_fields(entry.name)
        except OSError:
            continue
        children.setdefault(int(fields[int(entry.name)][1]), []).append(int(entry.name))
    todo = [pid]
    while todo:
        found = todo.pop()
        todo.extend(children.get(found, []))
        if found in fields:
            yield fields[found]


class Server:
    """A server process. Its output goes to a file in `folder`.

    Subclasses set what `wait_until_ready` needs before they call `__init__`, which stops the process when that fails.
    """

    def __init__(self, name, folder, command, **pipes):
        self.name = name
        self.folder = pathlib.Path(folder)
        self.log = self.folder / f"{name}.log"
        with open(self.log, "ab") as log:
            files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | pipes
            command = [str(part) for part in command]
            self.child = subprocess.Popen(command, **files, env=ENVIRONMENT, cwd=folder)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self):
        """Waits until the server accepts requests."""
        raise NotImplementedError

    def kill(self):
        """Sends SIGKILL."""
        self.child.kill()
        self.child.wait()

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
        for stream in (self.child.stdin, self.child.stdout):
            if stream:
                stream.close()

    def fail_start(self):
        raise BenchError(f"{self.child.args[0]} does not start:\n{self.log.read_text()[-2000:]}")

    def wait_for(self, is_ready):
        end = time.monotonic() + 20
        while not is_ready():
            if self.child.poll() is not None or time.monotonic() > end:
                self.fail_start()
            time.sleep(0.02)

    def cpu_seconds(self):
        """User and system time of the process and its descendants, with those that have ended."""
        return sum(int(field) for fields in process_tree(self.child.pid) for field in fields[11:15]) / TICKS

    def memory(self, field="VmRSS"):
        """Bytes. VmRSS: resident now; VmHWM: the largest VmRSS since `reset_peak`."""
        for line in pathlib.Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self.name} has no {field}")

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")
