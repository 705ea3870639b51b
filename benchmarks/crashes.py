"""Kills the server, its training or both at random moments, and looks what is left: nothing may be lost or doubled.

    python benchmarks/crashes.py --rounds 50

Each round: `radloop serve` on small noisy studies, three clients that submit labels over HTTP, a training; `kill -9` of
one process or two at a random moment; then the ledger, the registry and the processes are looked at, the server is
started anew and must answer as before. The moments follow from the seed. Rounds that the result file has are not done
again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from crash_driver import Crashes

RESULT = Path(__file__).parent / "results" / "crashes.json"


def main() -> int:
    """The command; 1 where anything was found wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    known = json.loads(options.result.read_text()) if options.result.is_file() else {}
    rounds = known.get("rounds", []) if known.get("seed") == options.seed else []
    ends = known.get("ends", []) if rounds else []
    with tempfile.TemporaryDirectory(prefix="radloop-crashes-") as folder:
        driver = Crashes(Path(folder) / "work", options.seed)
        try:
            for number in range(len(rounds), options.rounds):
                rounds.append(driver.round(number))
                print(json.dumps(rounds[-1]), flush=True)
                _write(options.result, options.seed, rounds, ends)
            ends.append(driver.finish())
        finally:
            driver.stop()
    _write(options.result, options.seed, rounds, ends)
    print(json.dumps(ends[-1]), flush=True)
    return int(any(one["problems"] for one in [*rounds, *ends]))


def _write(path: Path, seed: int, rounds: list[dict[str, Any]], ends: list[dict[str, Any]]) -> None:
    killed = Counter("+".join(sorted(r["killed"])) or "nothing" for r in rounds)
    summary = {
        "rounds": len(rounds),
        "killed": dict(killed),
        "acknowledged_labels": sum(r["labels"] for r in rounds),
        "problems": sum(len(one["problems"]) for one in [*rounds, *ends]),
    }
    path.write_text(json.dumps({"seed": seed, "summary": summary, "ends": ends, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
