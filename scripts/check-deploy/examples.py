"""The examples in docs/: TOML that contains a whole configuration, variables of systemd units, and JSON."""

import json
import re

from common import PAGES, check_config, expect

CREDENTIALS = "/run/credentials/tidegate-content-app.service"


def check_page(page):
    """Checks each example of a page. The variables of a systemd unit apply to the TOML before it."""
    document = ""
    examples = re.findall(r"^```(toml|ini|json)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    for number, (language, example) in enumerate(examples, 1):
        place = f"{page.name}: example {number}"
        if language == "toml":
            document = example
            check_config(place, document, {})
        elif language == "json":
            try:
                json.loads(example)
            except ValueError as error:
                expect(False, place, error)
        else:
            lines = re.findall(r"^Environment=(['\"]?)(\w+)=(.*)\1$", example, re.MULTILINE)
            expect(lines, place, "sets no variable")
            check_config(place, document, {name: value.replace("%d", CREDENTIALS) for _, name, value in lines})
            loaded = set(re.findall(r"^LoadCredential=([^:]+):", example, re.MULTILINE))
            used = set(re.findall(r"%d/([\w.-]+)", example))
            expect(used == loaded, place, f"credentials that are loaded or used, but not both: {used ^ loaded}")
    return len(examples)


def check_examples():
    return f"{sum(map(check_page, PAGES))} examples"
