"""What all workloads use: the upstream, new servers, load clients, and alternation."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from processes import ACCEPT, ENVIRONMENT, BenchError, run
from servers import DockerRegistry, NginxCache, NginxStatic, Postgres, Tidegate, Upstream

MIB = 1024 * 1024
SIZE = 400 * MIB


class Session:
    """One run. All its files are in one temporary folder."""

    def __init__(self, binaries, old, rounds):
        self.binaries = binaries
        # The binaries of Tidegate that are measured, by the name of their samples.
        self.builds = {"tidegate": binaries / "tidegate", **({"old": old} if old else {})}
        self.rounds = rounds
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tdg-bench-"))

    def __enter__(self):
        try:
            self.upstream = Upstream(self.folder, self.binaries, SIZE)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        # The blob is not written back to the disk during a measurement.
        os.sync()
        return self

    def __exit__(self, *_):
        self.upstream.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    def tidegate(self, build="tidegate", folder=None, database=None):
        return Tidegate(folder or self.new_folder(), self.upstream, self.builds[build], database)

    def each_build(self, measure):
        """`measure(build)` for each build of Tidegate, as arguments of `alternate`."""
        return {build: functools.partial(measure, build) for build in self.builds}

    def nginx_static(self):
        return NginxStatic(self.new_folder(), self.upstream)

    def nginx_cache(self):
        return NginxCache(self.new_folder(), self.upstream)

    def docker_registry(self):
        return DockerRegistry(self.new_folder(), self.upstream)

    def postgres(self):
        return Postgres(self.new_folder())

    def seed_database(self, url, *counts):
        """Migrates and seeds a database; without `counts`, with 1,000,000 blobs."""
        run([self.binaries / "seed-database", url, *counts], seconds=1200)

    def start_clients(self, program, url, *arguments):
        command = [self.binaries / program, url, self.upstream.blob_file, *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([str(part) for part in command], **pipes, env=ENVIRONMENT)

    def run_clients(self, program, url, *arguments):
        """Runs load clients, and verifies that they received the right bytes."""
        report = json.loads(run([self.binaries / program, url, self.upstream.blob_file, *arguments], seconds=300))
        if report["failures"] or report.get("wrong") or report.get("right") != report.get("clients"):
            raise BenchError(f"{program} at {url}: failed or wrong responses: {report}")
        return report

    def pull(self, url, clients=1, times=1):
        """`clients` clients at once get a blob, each `times` times."""
        return self.run_clients("cold-clients", url, clients, times)

    def pull_cold(self, server, clients=1):
        """Pulls the blob through a new server, and counts the bytes from upstream."""
        with server.check():
            self.upstream.clear()
            report = self.pull(server.blob_url, clients)
            return {**report, "upstream_ratio": self.upstream.sent_ratio()}

    def pull_direct(self):
        """Pulls the blob from the upstream."""
        return self.pull(self.upstream.url + self.upstream.blob_path)

    def request_rate(self, server, path):
        """wrk with one thread and 32 connections for 3 seconds. It counts redirects and does not follow them."""
        command = ["wrk", "-t1", "-c32", "-d3s", "-H", f"Accept: {ACCEPT}", server.url_of(path)]
        before = server.cpu_seconds()
        output = run(command, seconds=60)
        used = server.cpu_seconds() - before
        rate = re.search(r"Requests/sec:\s*([0-9.]+)", output)
        count = re.search(r"([0-9]+) requests in", output)
        if not (rate and count and int(count[1])) or "Non-2xx" in output or "Socket errors" in output:
            raise BenchError(f"{' '.join(command)}:\n{output}")
        return {"per_second": float(rate[1]), "cpu_us": used / int(count[1]) * 1e6}


def alternate(rounds, **measures):
    """The samples of each measure: one for each round, every second round in reverse order, so that a change of the
    machine's speed affects all of them."""
    samples = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            samples[name].append(measures[name]())
    return samples
