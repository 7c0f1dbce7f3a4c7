"""Paths, findings, and configurations as `tidegate check-config` resolves them."""

import pathlib
import re
import subprocess
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TIDEGATE = ROOT / "target/debug/tidegate"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCS = "\n".join(page.read_text() for page in PAGES)
WORKSPACE = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]

UNITS = {"s": 1, "m": 60, "h": 3600, "MiB": 2**20, "Mi": 2**20, "GiB": 2**30, "Gi": 2**30}
# Where the examples have the files that a configuration names.
FILES = r"/(?:etc|keys|run/credentials|run/secrets)/[^\"'\s]+"

findings = []


def expect(holds, place, text):
    """Adds a finding unless `holds`."""
    if not holds:
        findings.append(f"{place}: {text}")


def parse(text):
    """Seconds or bytes of a duration or size."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", str(text)).groups()
    return int(number) * UNITS[unit]


def port(address):
    return int(address.rpartition(":")[2])


def constant(source, name):
    """Seconds of a `Duration` constant in a source file."""
    text = (ROOT / source).read_text()
    number, unit = re.search(rf"const {name}: Duration = Duration::from_(sec|min)s\((\d+)\)", text).group(2, 1)
    return int(number) * (60 if unit == "min" else 1)


def section(mode):
    return "content" if mode == "content-app" else "api"


def shutdown_seconds(mode, config):
    """The longest time that a process takes to stop after SIGTERM."""
    fills = constant("content-app/src/fills.rs", "STOP_TIMEOUT")
    api, content = config["api"], config["content"]
    if mode == "content-app":
        return parse(content["drain_grace"]) + parse(content["drain_timeout"]) + fills
    if mode == "registry-api":
        return parse(api["drain_grace"]) + parse(api["shutdown_timeout"])
    return parse(api["shutdown_timeout"]) + fills


def named_files(text):
    """The files that a configuration, or the value of a variable, names."""
    return set(re.findall(rf"[\"']({FILES})[\"']", text)) | set(re.findall(rf"^({FILES})$", text))


def check_config(place, document, variables):
    """The effective configuration of a document and variables, or {} when Tidegate rejects them.

    The files that they name are created.
    """
    with tempfile.TemporaryDirectory() as folder:

        def localize(text):
            for name in named_files(text):
                file = pathlib.Path(folder + name)
                file.parent.mkdir(parents=True, exist_ok=True)
                secret = "-----BEGIN CERTIFICATE-----" if file.suffix == ".pem" else "secret"
                file.write_text("0a" * 32 if "link" in name else secret)
                text = text.replace(name, str(file))
            return text

        config = pathlib.Path(folder, "tidegate.toml")
        config.write_text(localize(document))
        environment = {name: localize(value) for name, value in variables.items()}
        command = [TIDEGATE, "check-config", "--config", config]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        expect(ran.returncode == 0, place, ran.stderr.strip().replace(folder, ""))
        return tomllib.loads(ran.stdout) if ran.returncode == 0 else {}
