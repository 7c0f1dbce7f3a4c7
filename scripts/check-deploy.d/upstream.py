#!/usr/bin/env python3
"""A registry with one image, that is just bad enough for everything to be counted once.

It breaks off the first answer with the layer, has not the second layer that its manifest names, and tells its quota.
"""

import hashlib
import http.server
import json
import re
import threading

REPOSITORY = "library/x"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = bytes(range(256)) * 1024


def descriptor(kind, content):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(content), "size": len(content)}


MANIFEST = json.dumps({
    "schemaVersion": 2,
    "mediaType": MANIFEST_TYPE,
    "config": descriptor("config.v1+json", CONFIG),
    "layers": [descriptor("layer.v1.tar", LAYER), descriptor("layer.v1.tar", b"not here")],
}).encode()

CONTENT = {
    "manifests/1": MANIFEST,
    f"manifests/{digest_of(MANIFEST)}": MANIFEST,
    f"blobs/{digest_of(CONFIG)}": CONFIG,
    f"blobs/{digest_of(LAYER)}": LAYER,
}


class Upstream(http.server.ThreadingHTTPServer):
    """Serves from its making on; `url` says where."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.has_broken_off = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        content = CONTENT.get(self.path.removeprefix(f"/v2/{REPOSITORY}/"))
        if content is None:
            self.begin(404, 0, [])
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else len(content)
        more = [("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")] if asked else []
        is_manifest = content is MANIFEST
        more.append(("Content-Type", MANIFEST_TYPE if is_manifest else "application/octet-stream"))
        more.append(("Docker-Content-Digest", digest_of(content)))
        window = content[first:end]
        self.begin(206 if asked else 200, len(window), more)
        if self.command == "HEAD":
            return
        if content is LAYER and not self.server.has_broken_off:
            self.server.has_broken_off = True
            window = window[: len(window) // 2]
            self.close_connection = True
        self.wfile.write(window)

    def begin(self, code, length, headers):
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.send_header("RateLimit-Limit", "100;w=21600")
        self.send_header("RateLimit-Remaining", "76;w=21600")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        """What it is asked is of no interest."""
