#!/usr/bin/env python3
"""The servers: an upstream, Tidegate, and what it is compared with. All on the loopback interface."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from processes import BenchError, Process, fetch, free_port


class Upstream(Process):
    """One image in memory; counts what it is asked for."""

    def __init__(self, folder, binaries, size):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        super().__init__("upstream", folder, [binaries / "bench-upstream", folder, size], **pipes)
        line = self.child.stdout.readline()
        if not line:
            raise BenchError(f"the upstream does not come up:\n{self.log.read_text()}")
        self.about = json.loads(line)
        self.url = self.about["url"]
        self.size = self.about["size"]
        name = f"/v2/{self.about['repository']}"
        self.blob_path = f"{name}/blobs/{self.about['blob']}"
        self.manifest_path = f"{name}/manifests/{self.about['manifest']}"
        self.tag_path = f"{name}/manifests/{self.about['tag']}"
        self.blob_file = pathlib.Path(folder) / "blob"
        self.manifest_file = pathlib.Path(folder) / "manifest"

    def order(self, line):
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def blob_bytes(self):
        """Body bytes of the blob that were sent since the last `clear`."""
        return self.order("counts")["blob_bytes"]

    def clear(self):
        self.order("clear")

    def pace(self, bytes_per_second):
        self.order(f"pace {bytes_per_second}")


class Cache(Process):
    """Something in front of the upstream. It begins with nothing, in a folder that goes when it does."""

    prefix = ""

    def __init__(self, name, folder, upstream, command, **more):
        self.upstream = upstream
        super().__init__(name, folder, command, **more)

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.log.parent, ignore_errors=True)

    def at(self, path):
        return self.url + path.replace("/v2/", f"/v2/{self.prefix}", 1)

    @property
    def blob_url(self):
        return self.at(self.upstream.blob_path)

    def check(self):
        """Serves the manifest as it is; whoever pulls asks for it before the blob."""
        for path in (self.upstream.tag_path, self.upstream.manifest_path):
            if fetch(self.at(path)) != (200, self.upstream.manifest_file.read_bytes()):
                raise BenchError(f"{self.name} does not serve the manifest")
        return self


class Tidegate(Cache):
    """As it comes, but for a tag that stays fresh during the run and nothing that is fetched ahead."""

    prefix = "bench/"

    def __init__(self, folder, upstream, binaries, database=None):
        config = folder / "tidegate.toml"
        config.write_text(f"""
data_dir = "{folder}/data"
[database]
url = "{database or f'sqlite://{folder}/tidegate.db'}"
[api]
listen = "127.0.0.1:0"
internal_listen = "127.0.0.1:0"
[[upstream]]
name = "bench"
url = "{upstream.url}"
tag_ttl = "1h"
[[namespace]]
prefix = "bench"
upstream = "bench"
prefetch = "none"
""")
        command = [binaries / "tidegate", "serve", "--config", config]
        super().__init__("tidegate", folder, upstream, command, stdout=subprocess.PIPE)
        line = self.child.stdout.readline().decode()
        self.url = line.removeprefix("listening on ").strip()
        if not self.url.startswith("http://"):
            raise BenchError(f"tidegate does not come up: {line}\n{self.log.read_text()[-2000:]}")


NGINX = """
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log {access_log};
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    default_type {default_type};
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    proxy_temp_path {folder}/proxy;
    proxy_cache_path {folder}/cache keys_zone=blobs:1m max_size=10g inactive=1h use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {location}
    }}
}}
"""

PROXY = """location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache blobs;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            proxy_cache_lock_age 10m;
            proxy_cache_lock_timeout 10m;
        }}"""


class Nginx(Cache):
    """nginx, one worker a processor."""

    def __init__(self, name, folder, upstream, location):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        text = NGINX.format(
            folder=folder,
            port=port,
            access_log="off",
            default_type=upstream.about["media_type"],
            location=location,
        )
        # The workers of a master that runs as root would be another user, who may not look into this folder.
        (folder / "nginx.conf").write_text("user root;\n" + text if os.geteuid() == 0 else text)
        super().__init__(name, folder, upstream, ["nginx", "-p", folder, "-c", folder / "nginx.conf"])
        self.wait_for(self.at(upstream.tag_path))


class NginxStatic(Nginx):
    """The same files at the same paths, off the disk (that is, out of the page cache) with sendfile."""

    def __init__(self, folder, upstream):
        for path, file in (
            (upstream.blob_path, upstream.blob_file),
            (upstream.manifest_path, upstream.manifest_file),
            (upstream.tag_path, upstream.manifest_file),
        ):
            target = folder / "files" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
        super().__init__("nginx-static", folder, upstream, f"root {folder}/files;")


class NginxCache(Nginx):
    """proxy_cache with proxy_cache_lock: one request goes upstream, the others wait until the blob is whole."""

    def __init__(self, folder, upstream):
        super().__init__("nginx-cache", folder, upstream, PROXY.format(upstream=upstream.url))


class DockerRegistry(Cache):
    """Debian's docker-registry as a pull-through cache."""

    def __init__(self, folder, upstream):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "config.yml"
        config.write_text(f"""
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
proxy: {{remoteurl: "{upstream.url}"}}
""")
        super().__init__("docker-registry", folder, upstream, ["docker-registry", "serve", config])
        self.wait_for(f"{self.url}/v2/")


class Postgres(Process):
    """A PostgreSQL server of Debian's, with its defaults but for where it listens."""

    def __init__(self, folder):
        installed = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
        programs = max(installed, key=lambda path: float(path.parent.name), default=None)
        if not programs:
            raise BenchError("please install what the Debian package postgresql contains")
        # It refuses to run as root, and its user has to come to its folder.
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        for path in (folder.parent, folder):
            path.chmod(0o711)
        data = folder / "data"
        data.mkdir()
        if user:
            shutil.chown(data, "postgres")
        init = [*user, programs / "initdb", "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C", "-D", data]
        subprocess.run(init, check=True, capture_output=True, cwd=folder)
        port = free_port()
        self.address = f"postgres://bench@127.0.0.1:{port}"
        command = [programs / "postgres", "-D", data, "-p", port, "-c", "unix_socket_directories="]
        super().__init__("postgres", folder, [*user, *command])
        end = time.monotonic() + 20
        while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
            if self.child.poll() is not None or time.monotonic() > end:
                raise BenchError(f"postgres does not come up:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        self.programs, self.port = programs, port

    def database(self, name):
        """The URL of a new database."""
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", name]
        subprocess.run([self.programs / "createdb", *options], check=True, capture_output=True)
        return f"{self.address}/{name}"
