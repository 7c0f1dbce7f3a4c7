"""deploy/Containerfile: its base images. tests/tests/clients/image.rs builds and runs its last stage."""

import re

from common import DEPLOY, WORKSPACE, expect

PLACE = "deploy/Containerfile"


def check_container():
    text = (DEPLOY / "Containerfile").read_text()
    images = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    rust = WORKSPACE["package"]["rust-version"]
    expect(f"/rust:{rust}-" in images["RUST"], PLACE, f"{images['RUST']} is not Rust {rust}")
    releases = {re.search(r"bookworm|trixie|forky", image)[0] for image in images.values()}
    expect(len(releases) == 1, PLACE, f"different releases of Debian: {releases}")
    return "Containerfile"
