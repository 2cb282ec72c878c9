"""The results that are kept of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import rows
from tests.unit.rows.conftest import Show, saved, states


def test_failed_then_passed_then_the_newest_result_wins(repository: pytest.Pytester, show: Show) -> None:
    path = repository.makepyfile(test_it="import pytest\n@pytest.mark.row('C-01')\ndef test_a(): assert False, 'no'\n")
    repository.runpytest().assert_outcomes(failed=1)
    failed = show()
    assert (failed["status"], states(failed)["C-01"], failed["rows"]["C-01"]) == (1, "failed", "not")
    assert "no" in saved(repository)[0]["reason"]

    path.write_text(path.read_text().replace("False", "True"))
    repository.runpytest().assert_outcomes(passed=1)

    assert [r["outcome"] for r in saved(repository)] == ["passed"]
    passed = show()
    assert (passed["status"], states(passed)["C-01"], passed["rows"]["C-01"]) == (0, "proved", "proved")


def test_releases_and_substrates_then_each_keeps_its_own_result(
    repository: pytest.Pytester, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.makepyfile(
        test_it="""
        import os, pytest
        release, ok = os.environ["RELEASE"], os.environ["OK"]
        @pytest.mark.row("C-01")
        @pytest.mark.parametrize("on", [release + "-single"])
        def test_a(on, record_property):
            record_property("slurm_release", release)
            record_property("slurm_on", "single")
            assert ok == "yes"
        """
    )
    for release, ok in (("22.05", "no"), ("24.11", "yes"), ("22.05", "yes"), ("22.05", "no")):
        monkeypatch.setenv("RELEASE", release)
        monkeypatch.setenv("OK", ok)
        repository.runpytest()
    monkeypatch.setenv("RELEASE", "24.11")  # the release that a plain collection knows

    answer = show()

    found = [(r["release"], r["substrate"], r["outcome"]) for r in saved(repository)]
    assert found == [("22.05", "single", "failed"), ("24.11", "single", "passed")]
    assert states(answer)["C-01"] == "failed", "one release failed"


def test_failure_before_the_release_is_known_then_a_later_pass_replaces_it(tmp_path: Path) -> None:
    early = rows.Result("C-01", "t", "failed", time="1")
    other = rows.Result("C-01", "t", "passed", release="22.05", substrate="single", time="0")
    late = rows.Result("C-01", "t", "passed", release="24.11", substrate="single", time="2")

    for result in (other, early, late):
        rows.merge_results(tmp_path / "rows.json", [result])

    assert rows.load_results(tmp_path / "rows.json") == [other, late]


def test_older_result_merged_late_then_the_newer_stays(tmp_path: Path) -> None:
    new, old = (rows.Result("C-01", "t", outcome, time=time) for outcome, time in (("passed", "2"), ("failed", "1")))

    for result in (new, old):
        rows.merge_results(tmp_path / "rows.json", [result])

    assert rows.load_results(tmp_path / "rows.json") == [new]


def test_xdist_run_then_all_results_are_recorded(repository: pytest.Pytester) -> None:
    repository.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.row("C-01", "C-14.1")
        @pytest.mark.parametrize("x", range(6))
        def test_a(x, record_property):
            record_property("slurm_release", "24.11")
            assert x != 5
        @pytest.mark.row("V-08")
        @pytest.mark.xdist_group("one")
        def test_b(): pytest.skip("later")
        """
    )

    repository.runpytest("-n", "2", "--dist", "loadgroup").assert_outcomes(passed=5, failed=1, skipped=1)

    records = saved(repository)
    assert len(records) == 13, records
    assert {r["release"] for r in records if r["clause"] == "C-01"} == {"24.11"}
    assert [(r["test"], r["outcome"], r["reason"]) for r in records if r["clause"] == "V-08"] == [
        ("test_it.py::test_b", "skipped", "later")
    ], "the group is no part of the node id"


def test_crashed_worker_then_its_test_has_failed(repository: pytest.Pytester) -> None:
    repository.makepyfile(test_it="import os, pytest\n@pytest.mark.row('C-01')\ndef test_a(): os._exit(1)\n")

    repository.runpytest("-n", "1", "--max-worker-restart", "0")

    assert [(r["clause"], r["outcome"]) for r in saved(repository)] == [("C-01", "failed")]


def test_worker_crashed_before_it_reported_then_the_earlier_pass_is_gone(
    repository: pytest.Pytester, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.makepyfile(
        test_it="""
        import os, pytest
        @pytest.fixture
        def f(): "CRASH" in os.environ and os._exit(1)
        @pytest.mark.row("C-01")
        def test_a(f): pass
        """
    )
    repository.runpytest().assert_outcomes(passed=1)
    monkeypatch.setenv("CRASH", "1")

    repository.runpytest("-n", "1", "--max-worker-restart", "0")

    assert states(show())["C-01"] == "failed"


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        (
            "@pytest.fixture\ndef f():\n    yield\n    assert 0, 'left'\n@R\ndef test_a(f): pass",
            "failed",
            "left",
        ),
        ("@pytest.fixture\ndef f(): assert 0, 'start'\n@R\ndef test_a(f): pass", "failed", "start"),
        ("@R\n@pytest.mark.xfail(reason='bug')\ndef test_a(): assert 0", "failed", "expected to fail: bug"),
        ("@R\n@pytest.mark.skip(reason='tired')\ndef test_a(): pass", "skipped", "tired"),
    ],
    ids=["teardown", "setup", "xfail", "skip"],
)
def test_anything_but_a_whole_pass_then_it_is_no_pass(
    repository: pytest.Pytester, body: str, outcome: str, reason: str
) -> None:
    repository.makepyfile(test_it=f"import pytest\nR = pytest.mark.row('C-01')\n{body}\n")

    repository.runpytest()

    (record,) = saved(repository)
    assert record["outcome"] == outcome
    assert reason in record["reason"]


def test_unreadable_results_then_usage_error_before_any_test(repository: pytest.Pytester) -> None:
    (repository.mkdir(".results") / "rows.json").write_text("{")
    repository.makepyfile(test_it="def test_a(): pass")

    ran = repository.runpytest()

    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines(["*rows.json cannot be read*", "*delete it*"])


def test_pass_then_nothing_to_check_with_then_the_pass_stays(tmp_path: Path) -> None:
    """As after a run with a Kubernetes, and one without."""
    passed = rows.Result("C-01", "t", "passed", time="1")
    lacking = rows.Result("C-01", "t", "skipped", lacks=("kubernetes",), time="2")
    failed = rows.Result("C-01", "t", "failed", time="3")

    rows.merge_results(tmp_path / "rows.json", [passed, lacking])
    assert "passed" in [result.outcome for result in rows.load_results(tmp_path / "rows.json")]
    rows.merge_results(tmp_path / "rows.json", [failed])

    assert [result.outcome for result in rows.load_results(tmp_path / "rows.json")] == ["failed"]
