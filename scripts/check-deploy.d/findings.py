#!/usr/bin/env python3
"""What is wrong, gathered so that one run shows all of it."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
INSTALL = ROOT / "docs/install.md"
RUN = ROOT / "docs/run.md"

findings = []


def expect(holds, place, text):
    """Notes a finding unless `holds`."""
    if not holds:
        findings.append(f"{place}: {text}")
