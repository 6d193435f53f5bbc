"""What the benches of the media node alone have in common: options, binaries, and a node to measure."""

import argparse
import json
import os
import pathlib
import sys

sys.dont_write_bytecode = True
import runs
import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
SFU = os.environ.get("SFU", RELEASE / "sfu")
ROUNDS = 3


def options(about, *flags):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    found = parser.parse_args()
    found.rounds = max(1, found.rounds)
    if not servers.enter_namespace():
        sys.exit("This machine does not allow network namespaces (unshare --net --pid; they need root).")
    return found


def loadgen():
    return runs.Loadgen(os.environ.get("LOADGEN", RELEASE / "loadgen"))


def node(shards, voices, *more):
    """A fresh media node whose limits are not in the way."""
    arguments = ["--shards", str(shards), "--speech-slots", str(voices), "--room-peers-max", "4000",
                 "--shed-at-percent", "100", *more]
    return servers.Sfu(SFU, *arguments)


def finish(figures, rounds):
    print(json.dumps({"figures": figures, "rounds": rounds}))


def everybody_came(results):
    joins = results["joins"]
    if joins["failed"] or joins["lost"]:
        sys.exit(f"not everybody was there to be measured: {joins['failures']}, {joins['lost']} lost")


def climb(tool, shards, quick, listeners_max=3000):
    """The steps of one climb: 10 talk, listeners come until 1 % is lost or the delay's p99 is over 10 ms."""
    with node(shards, 10) as server:
        results = tool.run(
            "node", server, {"publishers": 10, "listeners": listeners_max, "slots": 10}, 0.5,
            ramp={"joins_per_s": 400.0, "joins_in_flight": 32},
            climb={"step_listeners": 200 if quick else 100, "hold_s": 1.0 if quick else 1.5},
            engine={"coalesce": True},
            run={"warmup_s": 0.0, "duration_s": 0.5})
    return results["steps"]


def knee(steps):
    """The last step that held; nothing when not even the first did."""
    held = [step for step in steps if step["holds"]]
    return held[-1] if held else None


def step_line(step):
    return (f"    {step['listeners']:>5} listeners  {step['received_per_s']:>9,.0f}/s  loss {100 * step['loss_share']:6.3f} %  "
            f"p99 {step['delay_p99_ms']:7.2f} ms  node {step['server_cores'] or 0:.2f} cores  "
            f"loadgen {step['client_cores']:.2f} cores, {step['send_late_p99_ms']:.1f} ms late  "
            f"{'holds' if step['holds'] else 'BREAKS'}")
