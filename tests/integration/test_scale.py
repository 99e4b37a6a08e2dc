"""``benchmarks.scale`` with tiny sizes: every part runs, and its figures can be what they are called."""

import json
from pathlib import Path
from typing import Any

from benchmarks import scale

SIZES = {
    "--workers": ["1"],
    "--jobs-per-worker": ["20"],
    "--repeats": ["1"],
    "--depths": ["1", "80"],
    "--samples": ["10"],
    "--held": ["20", "300"],
    "--callers": ["2"],
    "--idle-workers": ["0", "1"],
    "--window-seconds": ["1"],
}


def test_every_part_of_the_scale_benchmark_gives_its_rows(tmp_path: Path) -> None:
    """Real servers, a real worker process; rows as asked for, in the JSON, with figures of the right size."""
    output = tmp_path / "scale.json"
    sizes = [word for name, values in SIZES.items() for word in (name, *values)]
    assert scale.main([*sizes, "--json", str(output)]) == 0
    report: dict[str, Any] = json.loads(output.read_text())
    assert report["hardware"]["cores"]
    assert set(report["parts"]) == {"workers", "depth", "leases", "callers", "idle"}
    [drained] = report["parts"]["workers"]
    assert (drained["workers"], drained["jobs"]) == (1, 20)
    assert 0 < drained["server_ms_per_job_drain"] <= drained["server_all_threads_ms_per_job_drain"]
    assert drained["queued_bytes_per_job"] > 600
    depths = {(row["kind"], row["depth"]): row for row in report["parts"]["depth"]}
    assert set(depths) == {(kind, depth) for kind in ("plain", "tenants", "prefixes") for depth in (1, 80)}
    assert all(row["claim_64_jobs_mean"] == min(64, row["depth"]) for row in depths.values())
    assert all(0 < row["claim_1_p50_ms"] <= row["claim_1_p99_ms"] for row in depths.values())
    few, many = report["parts"]["leases"]
    assert (few["own_leases"], many["own_leases"]) == (20, 256)
    assert (many["ended_leases"], many["reaped"]) == (44, 44)
    [called] = report["parts"]["callers"]
    assert called["busy_results_per_second"] > 0
    alone, beside_a_worker = report["parts"]["idle"]
    assert (alone["client_commands_per_second"], alone["connections"]) == (0, 0)
    assert beside_a_worker["client_commands_per_second"] > 1
