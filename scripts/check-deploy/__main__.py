"""Checks deploy/, and what docs/ says of it, against each other and against target/debug/tidegate.

Prints a line for each finding, and exits with 1 if there is one.
"""

import sys

from alerts import check_alerts
from common import findings
from compose import check_compose
from container import check_container
from examples import check_examples
from kubernetes import check_kubernetes
from systemd import check_systemd

for check in (check_kubernetes, check_compose, check_container, check_systemd, check_examples, check_alerts):
    print(check())
if findings:
    sys.exit("\n".join(findings))
