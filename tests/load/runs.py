"""Runs of loadgen against the servers of `servers`, and what of their results is compared."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

RUN_WITHIN_SECONDS = 120


class Loadgen:
    def __init__(self, binary):
        self.binary = binary

    def run(self, kind, server, rooms, duration_s, may_be_refused=False, **more):
        """The results of one run, as loadgen's JSON has them. `rooms` and `more` are tables of the scenario. loadgen
        ends with 2 when nobody could join, which `may_be_refused` allows."""
        scenario = {
            "target": {"kind": kind, "url": server.url, "server_pids": [server.pid]},
            "rooms": rooms,
            "run": {"warmup_s": 1.5, "duration_s": duration_s},
            # Bulk clients alone: a foreign stack would cost more than it shows here.
            "engine": {"realistic_share": 0.0, **more.pop("engine", {})},
            **more,
        }
        environment = {**os.environ, "SFU_CONTROL_TOKEN": getattr(server, "token", "none")}
        with tempfile.TemporaryDirectory(prefix="carillon-load-") as folder:
            file, out = pathlib.Path(folder, "scenario.toml"), pathlib.Path(folder, "results.json")
            file.write_text(toml(scenario))
            done = subprocess.run(
                [self.binary, "run", file, "--i-own-the-target", "--quiet", "--out-json", out], env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_WITHIN_SECONDS)
            ended_well = done.returncode == 0 or may_be_refused and done.returncode == 2
            if not ended_well or not out.exists():
                sys.exit(f"loadgen ended with {done.returncode}:\n{done.stdout}")
            return json.loads(out.read_text())


def toml(tables):
    """Enough of TOML for a scenario: tables of plain values, whose JSON form is the same."""
    lines = []
    for name, values in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def spread(name, values, digits=3):
    """A figure with its extremes beside it."""
    named = {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}
    return {key: round(value, digits) for key, value in named.items()}


def shown(values, digits=0):
    """A median with its extremes, for a table."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"
