"""``benchmarks.scale`` with tiny sizes: every part runs, and its figures can be what they are called."""

import json
from pathlib import Path
from typing import Any

from benchmarks import scale

SIZES = {
    "--workers": ["1"],
    "--jobs-per-worker": ["20"],
    "--repeats": ["1"],
    "--steady-workers": ["1"],
    "--rate": ["500"],
    "--kinds": ["plain", "prefixes"],
    "--depths": ["1", "80"],
    "--samples": ["10"],
    "--held": ["300"],
    "--callers": ["2"],
    "--idle-workers": ["1"],
    "--window-seconds": ["1"],
}


def test_every_part_of_the_scale_benchmark_gives_its_rows(tmp_path: Path) -> None:
    """Real servers, a real worker process; rows as asked for, in the JSON, with figures of the right size."""
    output = tmp_path / "scale.json"
    sizes = [word for name, values in SIZES.items() for word in (name, *values)]
    assert scale.main([*sizes, "--json", str(output)]) == 0
    report: dict[str, Any] = json.loads(output.read_text())
    assert report["hardware"]["cores"]
    assert set(report["parts"]) == {"workers", "steady", "depth", "leases", "callers", "idle"}
    [drained] = report["parts"]["workers"]
    assert (drained["workers"], drained["jobs"]) == (1, 20)
    assert drained["server_ms_per_job_drain"] > 0
    assert drained["queued_bytes_per_job"] > 600
    [steady] = report["parts"]["steady"]
    assert steady["jobs_per_second"] > 0
    assert steady["script_calls_per_job"] > 0
    depths = {(row["kind"], row["depth"]): row for row in report["parts"]["depth"]}
    assert set(depths) == {(kind, depth) for kind in ("plain", "prefixes") for depth in (1, 80)}
    assert all(row["claim_64_jobs_mean"] == min(64, row["depth"]) for row in depths.values())
    assert all(0 < row["claim_1_p50_ms"] <= row["claim_1_p99_ms"] for row in depths.values())
    [leased] = report["parts"]["leases"]
    assert (leased["own_leases"], leased["ended_leases"], leased["reaped"]) == (256, 44, 44)
    [called] = report["parts"]["callers"]
    assert called["busy_results_per_second"] > 0
    [idle] = report["parts"]["idle"]
    assert idle["connections"] > 0
    assert idle["client_commands_per_second"] > 1
