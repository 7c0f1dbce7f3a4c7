#!/usr/bin/env python3
"""The first stage of the Containerfile, which is too much to be run here: it gets the sources and the Rust that it needs."""

import re
import tomllib

from findings import DEPLOY, ROOT, expect

PLACE = "deploy/Containerfile"


def check_containerfile():
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    taken = set(re.findall(r"^!(\S+)$", (DEPLOY / "Containerfile.dockerignore").read_text(), re.MULTILINE))
    needed = {"Cargo.toml", "Cargo.lock", *workspace["members"]}
    for source in ROOT.glob("*/src/**/*.rs"):
        # What a crate that is in the program has compiled in from outside of itself.
        if "tests" not in source.relative_to(ROOT).with_suffix("").parts:
            needed |= set(re.findall(r'!\("(?:\.\./)+(\w+)/', source.read_text()))
    text = (DEPLOY / "Containerfile").read_text()
    needed |= set(re.findall(r"^COPY (deploy/\S+)", text, re.MULTILINE))
    expect(taken == needed, PLACE, f"the build gets {taken - needed}, which it does not need, and not {needed - taken}")
    for name in taken:
        expect((ROOT / name).exists(), PLACE, f"there is no {name}")
    images = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    rust = workspace["package"]["rust-version"]
    expect(f"/rust:{rust}-" in images["RUST"], PLACE, f"{images['RUST']} is not Rust {rust}")
    debian = r"(bookworm|trixie|forky)"
    releases = {re.search(debian, image)[1] for image in images.values()}
    expect(len(releases) == 1, PLACE, f"it is built on one release of Debian and run on another: {releases}")
    return "the image is built of what it needs"
