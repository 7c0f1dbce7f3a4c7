"""The systemd units: systemd accepts them, confines the services, and gives them enough time to stop."""

import pathlib
import re
import subprocess
import tempfile

from common import DEPLOY, DOCS, TIDEGATE, check_config, expect, parse, shutdown_seconds

FOLDER = DEPLOY / "systemd"
# In tenths; 0 is the best.
MAX_EXPOSURE = 20


def run(place, *command):
    ran = subprocess.run(command, capture_output=True, text=True)
    expect(ran.returncode == 0, place, ran.stdout + ran.stderr)
    return ran.stderr


def check_systemd():
    config = check_config("deploy/container.toml", (DEPLOY / "container.toml").read_text(), {})
    drop_in = "".join(re.findall(r"^```ini\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL))
    expect(drop_in, "docs", "there is no example for systemctl edit")
    with tempfile.TemporaryDirectory() as folder:
        for unit in FOLDER.glob("*.service"):
            text = unit.read_text()
            [mode] = re.findall(r"^ExecStart=/usr/local/bin/tidegate (\S+)$", text, re.MULTILINE)
            # systemd-analyze checks that the command exists.
            pathlib.Path(folder, unit.name).write_text(text.replace("/usr/local/bin/tidegate", str(TIDEGATE)))
            if mode != "migrate" and config:
                stop = parse(re.search(r"^TimeoutStopSec=(\w+)$", text, re.MULTILINE)[1])
                expect(stop > shutdown_seconds(mode, config), unit.name, "TimeoutStopSec is too short")
        override = pathlib.Path(folder, "tidegate-content-app.service.d", "override.conf")
        override.parent.mkdir()
        override.write_text(drop_in)
        units = sorted(pathlib.Path(folder).glob("*.service"))
        printed = run("systemd-analyze", "systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *units)
        # An unknown key is only a warning.
        expect(folder not in printed, "systemd-analyze", printed)
        for unit in units:
            run(unit.name, "systemd-analyze", "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", unit)
    users = re.findall(r"^[^#].*$", (FOLDER / "tidegate.sysusers.conf").read_text(), re.MULTILINE)
    run("tidegate.sysusers.conf", "systemd-sysusers", "--dry-run", "--inline", *users)
    return f"{len(units)} systemd units"
