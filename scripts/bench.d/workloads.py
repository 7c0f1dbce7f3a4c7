"""The workloads. Each function measures one workload and yields its rows of the table."""

import contextlib
import functools
import sys
import time

from processes import BenchError, fetch
from report import Row, median, ratios, values
from session import MIB, alternate

# Bytes per second: about a line of 5 Gbit/s.
PACE = 600_000_000


def references(samples, names, form, key=None, scale=1):
    """The medians of the named servers, if measured."""
    return "; ".join(f"{name} {form.format(scale * median(samples[name], key))}" for name in names if name in samples)


def cold_clients(session, clients, rounds, *, with_registry):
    samples = alternate(
        rounds,
        upstream=session.pull_direct,
        **session.each_build(lambda build: session.pull_cold(session.tidegate(build), clients)),
        nginx=lambda: session.pull_cold(session.nginx_cache(), clients),
    )
    if with_registry:
        samples["docker-registry"] = [session.pull_cold(session.docker_registry(), clients)]
    workload = f"{clients} clients at once, cold blob"
    others = ("nginx", "docker-registry")
    largest = max(values(samples["tidegate"], "upstream_ratio"))
    yield Row(
        key=f"cold-{clients}-bytes",
        workload=f"{workload}: bytes from upstream ÷ size",
        goal="1.00",
        limit=1.00,
        figure=largest,
        tidegate=f"{largest:.2f}",
        reference=references(samples, others, "{:.2f}", "upstream_ratio"),
        samples=samples,
        new_to_old=ratios(samples, "upstream_ratio"),
    )
    last = median(samples["tidegate"], "last_byte_s")
    yield Row(
        key=f"cold-{clients}-last",
        workload=f"{workload}: last byte of the last client",
        goal="≤ 0.8 × nginx proxy_cache_lock",
        limit=0.8,
        figure=last / median(samples["nginx"], "last_byte_s"),
        unit="×",
        tidegate=f"{last:.2f} s",
        reference=references(samples, others, "{:.2f} s", "last_byte_s"),
        samples=samples,
        new_to_old=ratios(samples, "last_byte_s"),
    )
    # The goal for the first byte is one for 20 clients.
    if clients > 20:
        return
    first = 1000 * median(samples["tidegate"], "first_byte_max_s")
    yield Row(
        key=f"cold-{clients}-first",
        workload=f"{workload}: first byte of the last client",
        goal="≤ upstream + 20 ms",
        limit=20,
        figure=first - 1000 * median(samples["upstream"], "first_byte_max_s"),
        unit="ms",
        tidegate=f"{first:.1f} ms",
        reference=references(samples, ("upstream", *others), "{:.1f} ms", "first_byte_max_s", 1000),
        samples=samples,
        new_to_old=ratios(samples, "first_byte_max_s"),
    )


def cold_20(session):
    yield from cold_clients(session, 20, session.rounds, with_registry=True)


def cold_200(session):
    yield from cold_clients(session, 200, (session.rounds + 1) // 2, with_registry=False)


def cold_1(session):
    for key, pace, speed in (("cold-1", 0, "in memory"), ("cold-1-paced", PACE, "at 600 MB/s")):
        session.upstream.pace(pace)
        samples = alternate(
            session.rounds + 2,
            upstream=session.pull_direct,
            **session.each_build(lambda build: session.pull_cold(session.tidegate(build))),
        )
        session.upstream.pace(0)
        last = median(samples["tidegate"], "last_byte_s")
        yield Row(
            key=key,
            workload=f"one client, cold blob, upstream {speed}: time",
            goal="≤ 1.15 × upstream",
            limit=1.15,
            figure=last / median(samples["upstream"], "last_byte_s"),
            unit="×",
            tidegate=f"{last:.2f} s",
            reference=references(samples, ["upstream"], "{:.2f} s", "last_byte_s"),
            samples=samples,
            new_to_old=ratios(samples, "last_byte_s"),
        )


def warm_cpu(session):
    def cpu_per_gigabyte(server):
        before = server.cpu_seconds()
        report = session.pull(server.blob_url, times=5)
        return (server.cpu_seconds() - before) / (report["bytes"] / 1e9)

    def warm(server):
        session.pull(server.check().blob_url)
        # The work after a download, such as fsync, is not part of a warm pull.
        time.sleep(2)
        return server

    with contextlib.ExitStack() as stack:
        builds = {build: warm(stack.enter_context(session.tidegate(build))) for build in session.builds}
        nginx = warm(stack.enter_context(session.nginx_static()))
        # Many short rounds, because the memory bandwidth of a shared machine varies from second to second.
        samples = alternate(
            3 * session.rounds,
            **session.each_build(lambda build: cpu_per_gigabyte(builds[build])),
            nginx=lambda: cpu_per_gigabyte(nginx),
        )
    with session.docker_registry() as registry:
        samples["docker-registry"] = [cpu_per_gigabyte(warm(registry))]
    cpu = median(samples["tidegate"])
    yield Row(
        key="warm-cpu",
        workload="warm blob: server CPU per GB",
        goal="≤ 1.1 × nginx sendfile",
        limit=1.1,
        figure=cpu / median(samples["nginx"]),
        unit="×",
        tidegate=f"{cpu:.3f} s",
        reference=references(samples, ("nginx", "docker-registry"), "{:.3f} s"),
        samples=samples,
        new_to_old=ratios(samples),
    )


def warm_requests(upstream):
    """The key, the name and the path of each small request."""
    return (
        ("manifest-digest", "warm manifest by digest", upstream.manifest_path),
        ("manifest-tag", "warm manifest by tag within its TTL", upstream.tag_path),
        ("redirect", "warm blob redirect (307)", upstream.blob_path),
    )


def requests(session):
    upstream = session.upstream

    def shown(samples):
        return f"{median(samples, 'per_second'):,.0f}/s, {median(samples, 'cpu_us'):.1f} µs CPU each"

    with contextlib.ExitStack() as stack:
        builds = {build: stack.enter_context(session.tidegate(build)).check() for build in session.builds}
        nginx = stack.enter_context(session.nginx_static()).check()
        for server in builds.values():
            session.pull(server.blob_url)
        for key, workload, path in warm_requests(upstream):
            is_redirect = path == upstream.blob_path
            # nginx serves the manifest in place of a redirect.
            nginx_path = upstream.manifest_path if is_redirect else path
            samples = alternate(
                session.rounds,
                **{build: functools.partial(session.request_rate, builds[build], path) for build in builds},
                nginx=functools.partial(session.request_rate, nginx, nginx_path),
            )
            if not is_redirect:
                with session.docker_registry().check() as registry:
                    samples["docker-registry"] = [session.request_rate(registry, path)]
            registry = references(samples, ["docker-registry"], "{:,.0f}/s", "per_second")
            limit = 0.6 if is_redirect else 0.8
            yield Row(
                key=key,
                workload=f"{workload}: requests/s",
                goal=f"≥ {limit} × nginx, same file",
                limit=limit,
                figure=median(samples["tidegate"], "per_second") / median(samples["nginx"], "per_second"),
                unit="×",
                tidegate=shown(samples["tidegate"]),
                reference=f"nginx {shown(samples['nginx'])}" + (registry and f"; {registry}"),
                at_least=True,
                samples=samples,
                new_to_old=ratios(samples, "per_second"),
            )


def slow_readers(session):
    readers, bytes_per_second, seconds = 1000, 64 * 1024, 10

    def peak(build):
        with session.tidegate(build).check() as server:
            idle = server.memory()
            server.reset_peak()
            report = session.run_clients("slow-readers", server.blob_url, readers, bytes_per_second, seconds)
            if report["started"] != readers:
                raise BenchError(f"slow-readers: not all readers received bytes: {report}")
            highest = server.memory("VmHWM")
            return {**report, "idle": idle, "peak": highest, "above_idle": highest - idle}

    samples = alternate((session.rounds + 1) // 2, **session.each_build(peak))
    above = max(values(samples["tidegate"], "above_idle")) / 1e6
    yield Row(
        key="slow-readers",
        workload="1,000 slow readers of one cold blob: resident memory above idle",
        goal="≤ 100 MB",
        limit=100,
        figure=above,
        unit="MB",
        tidegate=f"{above:.0f} MB",
        reference=f"idle {median(samples['tidegate'], 'idle') / 1e6:.0f} MB",
        samples=samples,
        new_to_old=ratios(samples, "above_idle"),
    )


def ranges(session):
    def read(build):
        with session.tidegate(build).check() as server:
            session.upstream.clear()
            report = session.run_clients("range-clients", server.blob_url, 16, 8 * MIB)
            return {**report, "upstream_ratio": session.upstream.sent_ratio()}

    samples = alternate(session.rounds, **session.each_build(read), upstream=session.pull_direct)
    largest = max(values(samples["tidegate"], "upstream_ratio"))
    yield Row(
        key="ranges",
        workload="16 parallel readers of 8 MiB ranges, cold blob: bytes from upstream ÷ size",
        goal="≤ 1.02",
        limit=1.02,
        figure=largest,
        tidegate=f"{largest:.2f}, {median(samples['tidegate'], 'last_byte_s'):.2f} s",
        reference=f"one client, {references(samples, ['upstream'], '{:.2f} s', 'last_byte_s')}",
        samples=samples,
        new_to_old=ratios(samples, "upstream_ratio"),
    )


def kill(session):
    upstream = session.upstream

    def pull_until_half(server):
        upstream.clear()
        with session.start_clients("cold-clients", server.blob_url, 1, 1) as client:
            end = time.monotonic() + 60
            try:
                while upstream.sent_ratio() < 0.5:
                    if time.monotonic() > end:
                        raise BenchError("cold-clients: half of the blob does not arrive within 60 s")
                    time.sleep(0.001)
                server.kill()
                client.communicate(timeout=60)
            finally:
                client.kill()

    def restart(build):
        folder = session.new_folder()
        first = session.tidegate(build, folder)
        try:
            pull_until_half(first.check())
        finally:
            first.stop()
        at_kill = upstream.sent_ratio()
        with session.tidegate(build, folder) as second:
            session.pull(second.blob_url)
            if fetch(second.url_of(upstream.tag_path))[0] != 200:
                raise BenchError("tidegate does not serve the tag after the restart")
            return {"at_kill": at_kill, "upstream_ratio": upstream.sent_ratio()}

    samples = alternate(session.rounds, **session.each_build(restart))
    largest = max(values(samples["tidegate"], "upstream_ratio"))
    yield Row(
        key="kill",
        workload="SIGKILL at half of a cold blob, restart, pull again: bytes from upstream of both ÷ size",
        goal="≤ 1.05",
        limit=1.05,
        figure=largest,
        tidegate=f"{largest:.2f}",
        reference=f"at SIGKILL {median(samples['tidegate'], 'at_kill'):.2f}",
        samples=samples,
        new_to_old=ratios(samples, "upstream_ratio"),
    )


def size(session):
    few = ("--blobs", 100, "--manifests", 10, "--repositories", 5, "--tags", 10, "--jobs", 10)
    with session.postgres() as postgres:
        for kind, new_database in (
            ("SQLite", lambda name: f"sqlite://{session.new_folder()}/{name}.db"),
            ("PostgreSQL", postgres.create_database),
        ):
            with contextlib.ExitStack() as stack:
                servers = {}
                for name, build, counts in (
                    ("tidegate", "tidegate", ()),
                    ("old", "old", ()),
                    ("empty", "tidegate", few),
                ):
                    if build not in session.builds:
                        continue
                    database = new_database(name)
                    session.seed_database(database, *counts)
                    try:
                        server = stack.enter_context(session.tidegate(build, database=database)).check()
                        session.pull(server.blob_url)
                    except BenchError as error:
                        # An older version may refuse the schema, which is that of this checkout.
                        if build != "old":
                            raise
                        print(f"size, {kind}: the older binary is not measured: {error}", file=sys.stderr)
                        continue
                    servers[name] = server
                for key, workload, path in warm_requests(session.upstream):
                    samples = alternate(
                        session.rounds + 2,
                        **{name: functools.partial(session.request_rate, servers[name], path) for name in servers},
                    )
                    full = median(samples["tidegate"], "per_second")
                    yield Row(
                        key=f"size-{kind.lower()}-{key}",
                        workload=f"{workload}, {kind} with 1,000,000 blobs: requests/s",
                        goal="≥ 0.9 × an empty database",
                        limit=0.9,
                        figure=full / median(samples["empty"], "per_second"),
                        unit="×",
                        tidegate=f"{full:,.0f}/s",
                        reference=references(samples, ["empty"], "{:,.0f}/s", "per_second"),
                        at_least=True,
                        samples=samples,
                        new_to_old=ratios(samples, "per_second"),
                    )


WORKLOADS = {
    "cold-20": cold_20,
    "cold-200": cold_200,
    "cold-1": cold_1,
    "warm-cpu": warm_cpu,
    "requests": requests,
    "slow-readers": slow_readers,
    "ranges": ranges,
    "kill": kill,
    "size": size,
}

# Seeding its databases takes minutes.
ON_DEMAND = ["size"]
