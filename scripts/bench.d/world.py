#!/usr/bin/env python3
"""What all rows of the table share: the upstream, fresh servers, the load clients, and taking turns."""

import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile

from processes import ACCEPT, ENVIRONMENT, BenchError, Process
from servers import DockerRegistry, NginxCache, NginxStatic, Postgres, Tidegate, Upstream

MIB = 1024 * 1024
SIZE = 400 * MIB


class World:
    """One run, with everything it writes in one temporary folder."""

    def __init__(self, binaries, rounds):
        self.binaries = pathlib.Path(binaries)
        self.rounds = rounds
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tdg-bench-"))
        self.upstream = None

    def __enter__(self):
        try:
            self.upstream = Upstream(self.folder, self.binaries, SIZE)
        except BaseException:
            self.__exit__()
            raise
        # The blob that was written is not to be on its way to the disk while something is measured.
        os.sync()
        return self

    def __exit__(self, *_):
        for process in list(Process.started):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    def tidegate(self, folder=None, database=None):
        return Tidegate(folder or self.new_folder(), self.upstream, self.binaries, database)

    def postgres(self):
        return Postgres(self.new_folder())

    def fill_database(self, url, *counts):
        """As much as a registry has after years, unless `counts` say otherwise."""
        command = [str(part) for part in (self.binaries / "fill-database", url, *counts)]
        ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=1200, check=False)
        if ran.returncode != 0:
            raise BenchError(f"{' '.join(command)}:\n{ran.stderr[-1000:]}")
        return json.loads(ran.stdout)

    def nginx_static(self):
        return NginxStatic(self.new_folder(), self.upstream)

    def nginx_cache(self):
        return NginxCache(self.new_folder(), self.upstream)

    def docker_registry(self):
        return DockerRegistry(self.new_folder(), self.upstream)

    def start_clients(self, program, url, *arguments):
        command = [self.binaries / program, url, self.upstream.blob_file, *arguments]
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )

    def clients(self, program, url, *arguments, seconds=300):
        """Runs load clients to their end. What they got has to be right."""
        with self.start_clients(program, url, *arguments) as running:
            try:
                out, errors = running.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise BenchError(f"{program} at {url}: no end within {seconds} s") from None
            finally:
                running.kill()
        if running.returncode != 0:
            raise BenchError(f"{program} at {url} failed: {errors.decode()[-1000:]}")
        got = json.loads(out)
        if got["failures"] or got.get("wrong") or got.get("right", got.get("clients")) != got.get("clients"):
            raise BenchError(f"{program} at {url}: not all was served right: {got}")
        return got

    def cold(self, server, count=1):
        """`count` clients at once on a blob that is not there yet; with the bytes that this took from upstream."""
        with server.check():
            self.upstream.clear()
            got = self.clients("cold-clients", server.blob_url, count, 1)
            got["upstream_ratio"] = self.upstream.blob_bytes() / self.upstream.size
            return got

    def direct(self):
        """One client straight at the upstream."""
        return self.clients("cold-clients", self.upstream.url + self.upstream.blob_path, 1, 1)

    def requests(self, server, path, seconds):
        """One thread of wrk with 32 connections. Redirects are counted, not followed."""
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-H", f"Accept: {ACCEPT}", server.at(path)]
        before = server.cpu_seconds()
        ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=seconds + 30, check=False)
        used = server.cpu_seconds() - before
        speed = re.search(r"Requests/sec:\s*([0-9.]+)", ran.stdout)
        count = re.search(r"([0-9]+) requests in", ran.stdout)
        if ran.returncode != 0 or not (speed and count) or "Non-2xx" in ran.stdout or "Socket errors" in ran.stdout:
            raise BenchError(f"{' '.join(command)}:\n{ran.stdout}{ran.stderr}")
        return {"per_second": float(speed[1]), "cpu_us": used / int(count[1]) * 1e6}


def take_turns(rounds, **measures):
    """Runs each measure once a round, every second round in reverse, and lists what each gave: what drifts on the
    machine drifts for all of them."""
    found = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            found[name].append(measures[name]())
    return found


def median(samples, key=None):
    return statistics.median(sample[key] if key else sample for sample in samples)
