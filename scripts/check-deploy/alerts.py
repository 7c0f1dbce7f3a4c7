"""Alerts, their tests, and the documented metrics and alerts.

tests/tests/scenarios/operations.rs asserts that a running process has the metrics of the snapshot that is read here.
"""

import re
import subprocess

import yaml
from common import DEPLOY, DOCS, ROOT, expect

RULES = DEPLOY / "prometheus/tidegate.rules.yaml"
TESTS = DEPLOY / "prometheus/tidegate.tests.yaml"
SNAPSHOTS = ROOT / "tests/tests/scenarios/snapshots"
# Labels that Prometheus adds.
ADDED_LABELS = {"job", "instance", "le"}


def family(metric):
    """The name under which a metric is registered: counters and histograms have suffixes."""
    return re.sub(r"_(total|bucket|count|sum)$", "", metric)


def check_metrics():
    """Compares sources, snapshot and documentation. Returns the labels of each metric."""
    [snapshot] = SNAPSHOTS.glob("*metrics_have_these_names_and_labels.snap")
    shown = re.findall(r"^(tidegate_\w+)\{(.*)\}$", snapshot.read_text(), re.MULTILINE)
    shown = {family(name): set(labels.split(",")) - {"", "le"} for name, labels in shown}
    rows = re.findall(r"^\| `(tidegate_\w+)` \| ([^|]*) \|", DOCS, re.MULTILINE)
    documented = {family(name): set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    sources = "\n".join(file.read_text() for file in ROOT.glob("*/src/**/*.rs"))
    registered = set(re.findall(r'register\(\s*"(tidegate_\w+)"', sources))
    for name in shown.keys() | documented.keys() | registered:
        expect(name in registered, name, "is not registered")
        expect(name in shown, name, f"is not in {snapshot.name}")
        expect(shown.get(name) == documented.get(name), name, "has other labels in docs/, or is not documented")
    return shown


def check_rule(rule, metrics, documented):
    name, place = rule["alert"], RULES.name
    expect(
        "severity" in rule["labels"] and "summary" in rule["annotations"], place, f"{name} has no severity or summary"
    )
    used = set(re.findall(r"\b(tidegate_\w+)", rule["expr"]))
    for metric in used:
        expect(family(metric) in metrics, place, f"{name}: unknown metric {metric}")
    for metric, matchers in re.findall(r"\b(tidegate_\w+)\{([^}]*)\}", rule["expr"]):
        unknown = set(re.findall(r"(\w+)\s*(?:=|!)", matchers)) - metrics.get(family(metric), set()) - ADDED_LABELS
        expect(not unknown, place, f"{name}: {metric} does not have the labels {unknown}")
    expect(name in documented, place, f"{name} is not documented")
    described = set(re.findall(r"`(tidegate_\w+)`", documented.get(name, "")))
    expect(described == used, "docs", f"{name} uses {used}, not {described}")


def check_alerts():
    for command in (["check", "rules", RULES], ["test", "rules", TESTS]):
        ran = subprocess.run(["promtool", *command], capture_output=True, text=True, cwd=RULES.parent)
        expect(ran.returncode == 0, f"promtool {command[0]}", ran.stdout + ran.stderr)
    metrics = check_metrics()
    documented = dict(re.findall(r"^\| `(Tidegate\w+)` \| ([^|]*) \|", DOCS, re.MULTILINE))
    rules = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    for rule in rules.values():
        check_rule(rule, metrics, documented)
    tests = [test for case in yaml.safe_load(TESTS.read_text())["tests"] for test in case["alert_rule_test"]]
    fired = {test["alertname"] for test in tests if test.get("exp_alerts")}
    expect(rules.keys() == fired, TESTS.name, f"no test fires {rules.keys() - fired}")
    expect(documented.keys() <= rules.keys(), "docs", f"{documented.keys() - rules.keys()} are not rules")
    return f"{len(metrics)} metrics, {len(rules)} alerts"
