"""Go on with a results file where the last start stopped."""

import json
from pathlib import Path


def earlier_runs(path: Path, steps: int) -> list[dict]:
    """The runs that `path` holds, none where there is no such file; it stops where they are of another length."""
    if not path.is_file():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["steps"] != steps:
        raise SystemExit(f"{path} holds runs of {before['steps']} steps; move it away, or pass --steps")
    return before["runs"]
