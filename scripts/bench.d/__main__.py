"""Measures Tidegate, nginx and Debian's docker-registry on one machine, in one run.

All servers do each workload in turn, several times. Cold workloads start with empty folders. The table shows medians
and their ratios. Compare figures of the same run only, and stop other programs first. docs/benchmarks.md describes the
workloads. All traffic is on the loopback interface. All files are in one temporary folder, which is removed at the end.

The exit code is 0 when everything was measured, even if a goal was missed.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

import machine
import report
from processes import BenchError
from session import Session
from workloads import ON_DEMAND, WORKLOADS

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ["cargo", "build", "--release", "-p", "tidegate", "-p", "tidegate-tests", "--bins"]
PROGRAMS = ("tidegate", "bench-upstream", "cold-clients", "range-clients", "slow-readers", "seed-database")


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=WORKLOADS,
        metavar="NAME",
        help=f"run this workload, repeatable: {', '.join(WORKLOADS)}; default: all but {', '.join(ON_DEMAND)}",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the number of rounds (default: 3)")
    parser.add_argument("--quick", action="store_const", dest="rounds", const=1, help="the same as --rounds 1")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results and all samples to FILE")
    parser.add_argument(
        "--binaries", type=pathlib.Path, metavar="FOLDER", help="use the programs in FOLDER, and build nothing"
    )
    parser.add_argument(
        "--compare",
        type=pathlib.Path,
        metavar="BINARY",
        help="also measure the older tidegate BINARY in each round, and show new ÷ old",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is less than 1")
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"--json: {arguments.json.parent} is not a folder")
    if arguments.binaries:
        missing = [name for name in PROGRAMS if not is_program(arguments.binaries / name)]
        if missing:
            parser.error(f"--binaries: {arguments.binaries} does not contain {', '.join(missing)}")
    if arguments.compare and not is_program(arguments.compare):
        parser.error(f"--compare: {arguments.compare} is not an executable file")
    return arguments


def is_program(path):
    return path.is_file() and os.access(path, os.X_OK)


def run(arguments):
    started = time.monotonic()
    prepare([ROOT / "scripts" / "setup", "bench"])
    if arguments.binaries:
        binaries = arguments.binaries.resolve()
    else:
        prepare(BUILD)
        binaries = ROOT / "target" / "release"
    old = arguments.compare and arguments.compare.resolve()
    machine.raise_file_limit()
    about = {**machine.describe(ROOT), "rounds": arguments.rounds}
    if old:
        about["old"] = str(old)
    rows = []
    with Session(binaries, old, arguments.rounds) as session:
        for name in arguments.only or [name for name in WORKLOADS if name not in ON_DEMAND]:
            began = time.monotonic()
            for row in WORKLOADS[name](session):
                rows.append(row)
                print(f"{row.workload}: {row.shown} (goal: {row.goal})", file=sys.stderr)
            print(f"-- {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    about["load after"] = round(os.getloadavg()[0], 2)
    about["seconds"] = round(time.monotonic() - started)
    print(report.table(rows, with_old=old is not None))
    print("\n" + ", ".join(f"{name}: {value}" for name, value in about.items()))
    if arguments.json:
        arguments.json.write_text(report.as_json(rows, about))


def prepare(command):
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode:
        raise BenchError(f"{command[0]} failed")


def main():
    # SystemExit stops the servers and removes the folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(parse_arguments())
    except BenchError as error:
        sys.exit(f"scripts/bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
