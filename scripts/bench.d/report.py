"""The rows of the results, and their output as a table and as JSON."""

import json
import statistics
from dataclasses import dataclass, field


def values(samples, key=None):
    return [sample[key] if key else sample for sample in samples]


def median(samples, key=None):
    return statistics.median(values(samples, key))


def ratios(samples, key=None, new="tidegate"):
    """New ÷ old of each round. A round in which old is 0 has no ratio."""
    pairs = zip(values(samples[new], key), values(samples.get("old", []), key), strict="old" in samples)
    return [new / old for new, old in pairs if old]


@dataclass(kw_only=True)
class Row:
    """One line of the table. `limit` is the goal of `figure`, which is a ratio, milliseconds or megabytes.

    `new_to_old` has the ratio of each round; it is empty without --compare.
    """

    key: str
    workload: str
    goal: str
    limit: float
    figure: float
    unit: str = ""
    tidegate: str
    reference: str
    at_least: bool = False
    samples: dict
    new_to_old: list = field(default_factory=list)

    @property
    def shown(self):
        return f"{self.figure:.{0 if self.unit == 'MB' else 2}f} {self.unit}".rstrip()

    @property
    def reached(self):
        # Rounded, so that the result agrees with the figure that is shown.
        figure = round(self.figure, 2)
        return figure >= self.limit if self.at_least else figure <= self.limit

    @property
    def shown_new_to_old(self):
        """The median, and the range of the rounds."""
        found = self.new_to_old
        return f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})" if found else "not measured"


def table(rows, *, with_old):
    head = ["workload", "goal", "Tidegate", "reference", "figure", "reached", *(["new ÷ old"] if with_old else [])]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [row.workload, row.goal, row.tidegate, row.reference, row.shown, "yes" if row.reached else "**no**"]
        lines.append([*cells, *([row.shown_new_to_old] if with_old else [])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(rows, about):
    return json.dumps({**about, "rows": [row_json(row) for row in rows]}, indent=1, ensure_ascii=False) + "\n"


def row_json(row):
    found = row.new_to_old
    return {
        "key": row.key,
        "workload": row.workload,
        "goal": row.goal,
        "limit": row.limit,
        "figure": row.figure,
        "at_least": row.at_least,
        "tidegate": row.tidegate,
        "reference": row.reference,
        "reached": row.reached,
        "new_to_old": {"median": median(found), "samples": found} if found else None,
        "samples": row.samples,
    }
