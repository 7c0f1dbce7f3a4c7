"""The servers: the upstream, Tidegate, and the references. All are on the loopback interface."""

import json
import os
import pathlib
import shutil
import socket
import subprocess

from processes import BenchError, Server, fetch, run


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Upstream(Server):
    """A registry with one image in memory, which counts requests and bytes."""

    def __init__(self, folder, binaries, size):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        super().__init__("upstream", folder, [binaries / "bench-upstream", folder, size], **pipes)
        name = f"/v2/{self.about['repository']}"
        self.url = self.about["url"]
        self.size = self.about["size"]
        self.blob_path = f"{name}/blobs/{self.about['blob']}"
        self.manifest_path = f"{name}/manifests/{self.about['manifest']}"
        self.tag_path = f"{name}/manifests/{self.about['tag']}"
        self.blob_file = self.folder / "blob"
        self.manifest_file = self.folder / "manifest"

    def wait_until_ready(self):
        line = self.child.stdout.readline()
        if not line:
            self.fail_start()
        self.about = json.loads(line)

    def command(self, line):
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def sent_ratio(self):
        """The bytes of the blob that were sent since the last `clear` ÷ its size."""
        return self.command("counts")["blob_bytes"] / self.size

    def clear(self):
        self.command("clear")

    def pace(self, bytes_per_second):
        """Limits the speed of each connection; 0: no limit."""
        self.command(f"pace {bytes_per_second}")


class ImageServer(Server):
    """A server of the image of the upstream. Its folder, which is empty at the start, is removed at the end."""

    prefix = ""

    def __init__(self, name, folder, upstream, command, **pipes):
        self.upstream = upstream
        super().__init__(name, folder, command, **pipes)

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url_of(self, path):
        return self.url + path.replace("/v2/", f"/v2/{self.prefix}", 1)

    @property
    def blob_url(self):
        return self.url_of(self.upstream.blob_path)

    def check(self):
        """Verifies the manifest, which clients get before the blob."""
        for path in (self.upstream.tag_path, self.upstream.manifest_path):
            if fetch(self.url_of(path)) != (200, self.upstream.manifest_file.read_bytes()):
                raise BenchError(f"{self.name} does not serve the manifest")
        return self


# The defaults, except that the tag stays fresh during the run and nothing is prefetched. An older Tidegate that is
# measured for comparison gets the same configuration.
TIDEGATE = """\
data_dir = "{folder}/data"
[database]
url = "{database}"
[api]
listen = "127.0.0.1:0"
internal_listen = "127.0.0.1:0"
[[upstream]]
name = "bench"
url = "{upstream}"
tag_ttl = "1h"
[[namespace]]
prefix = "bench"
upstream = "bench"
prefetch = "none"
"""


class Tidegate(ImageServer):
    prefix = "bench/"

    def __init__(self, folder, upstream, binary, database=None):
        config = folder / "tidegate.toml"
        database = database or f"sqlite://{folder}/tidegate.db"
        config.write_text(TIDEGATE.format(folder=folder, database=database, upstream=upstream.url))
        command = [binary, "serve", "--config", config]
        super().__init__("tidegate", folder, upstream, command, stdout=subprocess.PIPE)

    def wait_until_ready(self):
        self.url = self.child.stdout.readline().decode().removeprefix("listening on ").strip()
        if not self.url.startswith("http://"):
            self.fail_start()


# The workers of a master that runs as root would run as another user, who cannot read the folder.
NGINX = """\
{user}
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    default_type {media_type};
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    proxy_temp_path {folder}/proxy;
    proxy_cache_path {folder}/cache keys_zone=blobs:1m max_size=10g inactive=1h use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ {location} }}
    }}
}}
"""

PROXY = """
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache blobs;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            proxy_cache_lock_age 10m;
            proxy_cache_lock_timeout 10m;
        """


class Nginx(ImageServer):
    """nginx with one worker for each processor."""

    def __init__(self, name, folder, upstream, location):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        user = "user root;" if os.geteuid() == 0 else ""
        media_type = upstream.about["media_type"]
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(user=user, folder=folder, media_type=media_type, port=port, location=location))
        super().__init__(name, folder, upstream, ["nginx", "-p", folder, "-c", config])

    def wait_until_ready(self):
        self.wait_for(lambda: is_served(self.url_of(self.upstream.tag_path)))


class NginxStatic(Nginx):
    """The same files at the same paths, from the page cache, with sendfile."""

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
    """proxy_cache with proxy_cache_lock: one request is sent to the upstream, the others wait for its end."""

    def __init__(self, folder, upstream):
        super().__init__("nginx-cache", folder, upstream, PROXY.format(upstream=upstream.url))


DOCKER_REGISTRY = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
proxy: {{remoteurl: "{upstream}"}}
"""


class DockerRegistry(ImageServer):
    """Debian's docker-registry as a pull-through cache."""

    def __init__(self, folder, upstream):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "config.yml"
        config.write_text(DOCKER_REGISTRY.format(folder=folder, port=port, upstream=upstream.url))
        super().__init__("docker-registry", folder, upstream, ["docker-registry", "serve", config])

    def wait_until_ready(self):
        self.wait_for(lambda: is_served(f"{self.url}/v2/"))


def is_served(url):
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False


class Postgres(Server):
    """Debian's PostgreSQL with default settings, except for its address."""

    def __init__(self, folder):
        installed = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
        programs = max(installed, key=lambda path: float(path.parent.name))
        # It refuses to run as root. Its user must reach the folder.
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        for path in (folder.parent, folder):
            path.chmod(0o711)
        data = folder / "data"
        data.mkdir()
        if user:
            shutil.chown(data, "postgres")
        initdb = [*user, programs / "initdb", "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C", "-D", data]
        run(initdb, seconds=60, folder=folder)
        port = free_port()
        self.programs = programs
        self.connection = ["-h", "127.0.0.1", "-p", port]
        self.address = f"postgres://bench@127.0.0.1:{port}"
        command = [programs / "postgres", "-D", data, "-p", port, "-c", "unix_socket_directories="]
        super().__init__("postgres", folder, [*user, *command])

    def wait_until_ready(self):
        self.wait_for(self.is_ready)

    def is_ready(self):
        command = [self.programs / "pg_isready", "-q", *self.connection]
        return subprocess.run([str(part) for part in command]).returncode == 0

    def create_database(self, name):
        """Returns the URL of a new database."""
        run([self.programs / "createdb", *self.connection, "-U", "bench", name], seconds=60)
        return f"{self.address}/{name}"
