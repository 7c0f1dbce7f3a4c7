#!/usr/bin/env python3
"""The work that is measured. Each function gives the rows of the table that come from one piece of work."""

import os
import signal
import time
from dataclasses import dataclass, field

from processes import BenchError, fetch
from world import MIB, median, take_turns

# The upstream itself is as fast as memory. A line of 5 Gbit/s is what the second row of `one` is measured over.
PACE = 600_000_000


@dataclass
class Row:
    """One line of the table. `figure` is what `limit` is compared with: a ratio, milliseconds or bytes."""

    key: str
    work: str
    goal: str
    limit: float
    figure: float
    shown: str
    tidegate: str
    reference: str
    at_least: bool = False
    samples: dict = field(default_factory=dict)

    @property
    def reached(self):
        # What the table shows decides: a figure is not failed by a digit that nobody sees.
        figure = round(self.figure, 2)
        return figure >= self.limit if self.at_least else figure <= self.limit


def crowd(world, count, rounds, with_registry):
    """So many clients at once on a cold blob."""
    found = take_turns(
        rounds,
        direct=world.direct,
        tidegate=lambda: world.cold(world.tidegate(), count),
        nginx=lambda: world.cold(world.nginx_cache(), count),
    )
    if with_registry:
        found["docker-registry"] = [world.cold(world.docker_registry(), count)]
    ours, nginx, registry = found["tidegate"], found["nginx"], found.get("docker-registry")

    def also(form, key):
        return f"; docker-registry {form.format(median(registry, key))}" if registry else ""

    ratio = max(one["upstream_ratio"] for one in ours)
    yield Row(
        f"cold-{count}-bytes",
        f"{count} clients at once, cold blob: bytes from upstream ÷ size",
        "1.00", 1.00, ratio, f"{ratio:.2f}", f"{ratio:.2f}",
        f"nginx {median(nginx, 'upstream_ratio'):.2f}" + also("{:.2f}", "upstream_ratio"),
        samples=found,
    )
    last, other = median(ours, "last_byte_s"), median(nginx, "last_byte_s")
    yield Row(
        f"cold-{count}-last",
        f"{count} clients at once, cold blob: last client done",
        "≤ 0.8 × nginx proxy_cache_lock", 0.8, last / other, f"{last / other:.2f} ×", f"{last:.2f} s",
        f"nginx {other:.2f} s" + also("{:.1f} s", "last_byte_s"),
    )
    if count > 20:
        return
    first = 1000 * median(ours, "first_byte_max_s")
    own = 1000 * median(found["direct"], "first_byte_max_s")
    yield Row(
        f"cold-{count}-first",
        f"{count} clients at once, cold blob: first byte for everyone",
        "≤ upstream's own + 20 ms", 20, first - own, f"+ {first - own:.1f} ms", f"{first:.1f} ms",
        f"upstream {own:.1f} ms; nginx {1000 * median(nginx, 'first_byte_max_s'):.0f} ms"
        + also("{:.2f} s", "first_byte_max_s"),
    )


def crowd_20(world):
    yield from crowd(world, 20, world.rounds, with_registry=True)


def crowd_200(world):
    yield from crowd(world, 200, (world.rounds + 1) // 2, with_registry=False)


def one(world):
    """One client on a cold blob, and the same client straight at upstream."""
    for key, pace, line in (("cold-1", 0, "in memory"), ("cold-1-paced", PACE, "at 600 MB/s")):
        world.upstream.pace(pace)
        found = take_turns(world.rounds + 2, direct=world.direct, tidegate=lambda: world.cold(world.tidegate()))
        world.upstream.pace(0)
        ours, own = median(found["tidegate"], "last_byte_s"), median(found["direct"], "last_byte_s")
        yield Row(
            key,
            f"one client, cold blob, upstream {line}: time",
            "≤ 1.15 × straight at upstream", 1.15, ours / own, f"{ours / own:.2f} ×", f"{ours:.2f} s",
            f"upstream {own:.2f} s",
            samples=found,
        )


def warm_cpu(world):
    """Server CPU for a blob that is there."""
    times = 5

    def per_gigabyte(server):
        before = server.cpu_seconds()
        got = world.clients("cold-clients", server.blob_url, 1, times)
        return (server.cpu_seconds() - before) / (got["bytes"] / 1e9)

    def warm(server):
        world.clients("cold-clients", server.check().blob_url, 1, 1)
        # What the first download left to do (syncing, recording) is not part of a warm one.
        time.sleep(2)
        return server

    with warm(world.tidegate()) as tidegate, warm(world.nginx_static()) as nginx:
        # Short and often: what the memory of a shared machine gives changes from second to second.
        found = take_turns(
            3 * world.rounds, tidegate=lambda: per_gigabyte(tidegate), nginx=lambda: per_gigabyte(nginx)
        )
    with warm(world.docker_registry()) as registry:
        found["docker-registry"] = [per_gigabyte(registry)]
    ours, nginx = median(found["tidegate"]), median(found["nginx"])
    yield Row(
        "warm-cpu",
        "warm blob: server CPU a GB",
        "≤ 1.1 × nginx sendfile", 1.1, ours / nginx, f"{ours / nginx:.2f} ×", f"{ours:.3f} s",
        f"nginx {nginx:.3f} s; docker-registry {median(found['docker-registry']):.3f} s",
        samples=found,
    )


def requests(world):
    """Small warm answers a second, against nginx serving the manifest's file."""
    seconds = 3
    upstream = world.upstream

    def shown(samples):
        return f"{median(samples, 'per_second'):,.0f}/s, {median(samples, 'cpu_us'):.1f} µs CPU each"

    with world.tidegate().check() as tidegate, world.nginx_static().check() as nginx:
        world.clients("cold-clients", tidegate.blob_url, 1, 1)
        for key, work, path, least in (
            ("manifest-digest", "warm manifest by digest", upstream.manifest_path, 0.8),
            ("manifest-tag", "warm manifest by tag within its TTL", upstream.tag_path, 0.8),
            ("redirect", "warm blob redirect (307)", upstream.blob_path, 0.6),
        ):
            is_manifest = path != upstream.blob_path
            file = path if is_manifest else upstream.manifest_path
            found = take_turns(
                world.rounds,
                tidegate=lambda: world.requests(tidegate, path, seconds),
                nginx=lambda: world.requests(nginx, file, seconds),
            )
            reference = f"nginx {shown(found['nginx'])}"
            if is_manifest:
                with world.docker_registry().check() as registry:
                    found["docker-registry"] = [world.requests(registry, path, seconds)]
                reference += f"; docker-registry {median(found['docker-registry'], 'per_second'):,.0f}/s"
            ratio = median(found["tidegate"], "per_second") / median(found["nginx"], "per_second")
            yield Row(
                key, f"{work}: requests/s", f"≥ {least} × nginx, same file", least, ratio, f"{ratio:.2f} ×",
                shown(found["tidegate"]), reference, at_least=True, samples=found,
            )


def slow(world):
    """Memory for a thousand clients that take 64 KiB a second each."""
    readers, rate, seconds = 1000, 64 * 1024, 10

    def peak():
        with world.tidegate().check() as server:
            idle = server.memory()
            server.forget_peak()
            got = world.clients("slow-readers", server.blob_url, readers, rate, seconds)
            if got["started"] != readers:
                raise BenchError(f"not all slow readers were served: {got}")
            return {"idle": idle, "peak": server.memory("VmHWM"), **got}

    found = take_turns((world.rounds + 1) // 2, tidegate=peak)
    above = max(one["peak"] - one["idle"] for one in found["tidegate"]) / 1e6
    yield Row(
        "slow-readers",
        "1,000 slow readers of one cold blob: resident memory above idle",
        "≤ 100 MB", 100, above, f"{above:.0f} MB", f"{above:.0f} MB",
        f"idle {median(found['tidegate'], 'idle') / 1e6:.0f} MB",
        samples=found,
    )


def ranges(world):
    """Parallel readers of windows of a cold blob."""

    def read():
        with world.tidegate().check() as server:
            world.upstream.clear()
            got = world.clients("range-clients", server.blob_url, 16, 8 * MIB)
            got["upstream_ratio"] = world.upstream.blob_bytes() / world.upstream.size
            return got

    found = take_turns(world.rounds, tidegate=read, direct=world.direct)
    ratio = max(one["upstream_ratio"] for one in found["tidegate"])
    yield Row(
        "ranges",
        "16 parallel readers of 8 MiB ranges, cold blob: bytes from upstream ÷ size",
        "≤ 1.02", 1.02, ratio, f"{ratio:.2f}", f"{ratio:.2f}",
        f"done in {median(found['tidegate'], 'last_byte_s'):.2f} s; one client at upstream"
        f" {median(found['direct'], 'last_byte_s'):.2f} s",
        samples=found,
    )


def kill(world):
    """SIGKILL when half of the blob has come, start again, pull to the end."""

    def two_lives():
        folder = world.new_folder()
        upstream = world.upstream
        first = world.tidegate(folder)
        try:
            url = first.check().blob_url
            upstream.clear()
            with world.start_clients("cold-clients", url, 1, 1) as client:
                end = time.monotonic() + 60
                while upstream.blob_bytes() < upstream.size / 2:
                    if time.monotonic() > end:
                        raise BenchError("half of the blob does not arrive")
                    time.sleep(0.001)
                os.kill(first.child.pid, signal.SIGKILL)
                first.child.wait()
                client.communicate(timeout=60)
            at_kill = upstream.blob_bytes() / upstream.size
        finally:
            first.stop()
        with world.tidegate(folder) as second:
            world.clients("cold-clients", second.blob_url, 1, 1)
            if fetch(second.at(upstream.tag_path))[0] != 200:
                raise BenchError("the second life does not serve the tag")
            return {"at_kill": at_kill, "upstream_ratio": upstream.blob_bytes() / upstream.size}

    found = take_turns(world.rounds, tidegate=two_lives)
    ratio = max(one["upstream_ratio"] for one in found["tidegate"])
    yield Row(
        "kill",
        "SIGKILL at half, restart, finish: bytes from upstream ÷ size, both lives together",
        "≤ 1.05", 1.05, ratio, f"{ratio:.2f}", f"{ratio:.2f}",
        f"killed at {median(found['tidegate'], 'at_kill'):.2f}",
        samples=found,
    )


def size(world):
    """The rates of small warm answers with a million blobs in the database, against the same with next to nothing."""
    seconds = 3
    few = ("--blobs", 100, "--manifests", 10, "--repositories", 5, "--tags", 10, "--tasks", 10)
    upstream = world.upstream
    with world.postgres() as postgres:
        for kind, new in (
            ("SQLite", lambda name: f"sqlite://{world.new_folder()}/{name}.db"),
            ("PostgreSQL", postgres.database),
        ):
            full, empty = new("full"), new("empty")
            world.fill_database(full)
            world.fill_database(empty, *few)
            with world.tidegate(database=full).check() as large, world.tidegate(database=empty).check() as small:
                for server in (large, small):
                    world.clients("cold-clients", server.blob_url, 1, 1)
                for key, work, path in (
                    ("manifest-digest", "warm manifest by digest", upstream.manifest_path),
                    ("manifest-tag", "warm manifest by tag within its TTL", upstream.tag_path),
                    ("redirect", "warm blob redirect (307)", upstream.blob_path),
                ):
                    found = take_turns(
                        world.rounds + 2,
                        full=lambda: world.requests(large, path, seconds),
                        empty=lambda: world.requests(small, path, seconds),
                    )
                    rates = {name: median(samples, "per_second") for name, samples in found.items()}
                    ratio = rates["full"] / rates["empty"]
                    yield Row(
                        f"size-{kind.lower()}-{key}",
                        f"{work}, {kind} with 1,000,000 blobs: requests/s",
                        "≥ 0.9 × an empty one", 0.9, ratio, f"{ratio:.2f} ×", f"{rates['full']:,.0f}/s",
                        f"empty {rates['empty']:,.0f}/s", at_least=True, samples=found,
                    )


WORK = {
    "cold-20": crowd_20,
    "cold-200": crowd_200,
    "cold-1": one,
    "warm-cpu": warm_cpu,
    "requests": requests,
    "slow-readers": slow,
    "ranges": ranges,
    "kill": kill,
    "size": size,
}

# Only on demand: filling the databases takes minutes.
LONG = {"size"}
