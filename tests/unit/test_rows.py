"""The checklist, the row marker, the kept results and what `invoke rows` makes of them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from yamllint import linter
from yamllint.config import YamlLintConfig

from fixtures import rows
from slurm_testbed.errors import SlurmTestbedError, UsageError

SMALL_CHECKLIST = """
needs: {gpu: a GPU, registry: a registry}
sections:
  C:
    title: Images
    rows:
      C-01: one thing
      C-14:
        what: another munge key
        clauses:
          C-14.1: the client's error
          C-14.2: {what: the picture on a GPU, needs: [gpu]}
  V:
    title: Sessions
    rows:
      V-08: two sessions
"""

Show = Callable[..., dict[str, Any]]


@pytest.fixture
def repository(pytester: pytest.Pytester) -> pytest.Pytester:
    """A repository in a temporary folder, with a small checklist and this plugin."""
    pytester.makeini(
        f"[pytest]\npythonpath = {rows.ROOT}\naddopts = --import-mode=importlib --strict-markers "
        "-p fixtures.rows -p no:slurm-testbed\nmarkers = row(*ids): rows\n"
    )
    (pytester.mkdir("docs") / "checklist.yaml").write_text(SMALL_CHECKLIST, encoding="utf-8")
    return pytester


@pytest.fixture
def show(repository: pytest.Pytester) -> Show:
    """`rows.show` on that repository, as JSON, with the clauses and rows by their ids."""

    def shown(**options: Any) -> dict[str, Any]:
        output = io.StringIO()
        status = rows.show(Console(file=output), as_json=True, root=repository.path, **options)
        answer = json.loads(output.getvalue())
        of_rows = [row for section in answer["sections"] for row in section["rows"]]
        return {
            **answer,
            "status": status,
            "rows": {row["id"]: row["state"] for row in of_rows},
            "clauses": {clause["id"]: clause for row in of_rows for clause in row["clauses"]},
        }

    return shown


def saved(repository: pytest.Pytester) -> list[dict[str, Any]]:
    """The records of .results/rows.json."""
    records: list[dict[str, Any]] = json.loads((repository.path / rows.RESULTS).read_text())["results"]
    return records


def states(answer: dict[str, Any]) -> dict[str, str]:
    """The state of every clause."""
    return {id_: clause["state"] for id_, clause in answer["clauses"].items()}


# The checklist itself


def test_checklist_then_every_id_is_once_and_in_order() -> None:
    path = rows.ROOT / rows.CHECKLIST
    doubles = list(linter.run(path.read_text(), YamlLintConfig("{rules: {key-duplicates: enable}}")))
    assert not doubles, f"ids that stand twice: {doubles}"

    checklist = rows.Checklist.load(path)

    assert [section.id for section in checklist.sections] == ["U", "H", "C", "M", "O", "V"]
    for section in checklist.sections:
        for row in section.rows:
            assert re.fullmatch(rf"{section.id}-\d\d[a-z]?", row.id), f"{row.id} is no id of {section.id}"
            if len(row.clauses) > 1:
                numbers = [int(clause.id.removeprefix(f"{row.id}.")) for clause in row.clauses]
                assert numbers == sorted(numbers), f"{row.id}: clauses out of order: {numbers}"
            else:
                assert row.clauses[0].id == row.id, f"{row.id} has one clause, which needs no number"


def test_checklist_with_an_unexplained_need_then_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "checklist.yaml"
    path.write_text(SMALL_CHECKLIST.replace("needs: [gpu]", "needs: [gqu]"))

    with pytest.raises(UsageError, match=r"C-14\.2 needs gqu, which `needs` does not explain"):
        rows.Checklist.load(path)


# The marker


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('row("C-14.7")', "has no row 'C-14.7'; nearest: C-14.*C-14."),
        ('row("C-14")', r"row C-14 has 2 clauses: name the clauses.*\(C-14.1 … C-14.2\)"),
        ('row("C-01.1")', r"has no row 'C-01.1'; nearest: .*C-01\b"),
        ("row", "takes ids and nothing else"),
        ('row(id="C-01")', "takes ids and nothing else"),
    ],
)
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_wrong_row_then_collection_error(
    repository: pytest.Pytester, marker: str, message: str, workers: tuple[str, ...]
) -> None:
    repository.makepyfile(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_a(): pass\n\ndef test_b(): pass\n")

    ran = repository.runpytest(*workers)

    ran.stdout.re_match_lines([rf".*test_it.py:2: test_a: .*{message}"])
    assert ran.parseoutcomes() == {"errors": 1}, "nothing of the file may run beside a wrong id"
    assert ran.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED)


def test_row_on_a_class_and_a_parameter_then_both_count(repository: pytest.Pytester) -> None:
    repository.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.row("C-01")
        class TestAll:
            @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.row("V-08"))])
            def test_a(self, x): pass
        """
    )

    repository.runpytest().assert_outcomes(passed=2)

    assert [(r["clause"], r["test"].split("::")[-1]) for r in saved(repository)] == [
        ("C-01", "test_a[1]"),
        ("C-01", "test_a[2]"),
        ("V-08", "test_a[2]"),
    ]


# The results


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


# The state


def test_clause_without_a_test_then_unproved(repository: pytest.Pytester, show: Show) -> None:
    repository.makepyfile(test_it="import pytest\n@pytest.mark.row('C-14.1')\ndef test_a(): pass\n")
    repository.runpytest().assert_outcomes(passed=1)

    answer = show()

    assert states(answer) == {
        "C-01": "unproved",
        "C-14.1": "proved",
        "C-14.2": "unproved",
        "V-08": "unproved",
    }
    assert answer["rows"] == {"C-01": "not", "C-14": "partly", "V-08": "not"}
    assert answer["totals"]["rows proved"] == 0


def test_claiming_test_that_never_ran_then_unproved(repository: pytest.Pytester, show: Show) -> None:
    repository.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.row("C-01")
        def test_a(): pass
        @pytest.mark.row("C-01")
        def test_b(): assert False
        """
    )
    repository.runpytest("-k", "test_a").assert_outcomes(passed=1, deselected=1)

    assert states(show())["C-01"] == "unproved", "a test that was left out may not look like a proof"


@pytest.mark.parametrize(
    ("lacks", "state", "row"),
    [(None, "skipped", "partly"), ("registry", "skipped", "partly"), ("gpu", "not checkable here", "proved")],
)
def test_row_with_a_skipped_clause_then_only_a_lack_the_clause_names_is_no_gap(
    repository: pytest.Pytester, show: Show, lacks: str | None, state: str, row: str
) -> None:
    skip = f"not_checkable({lacks!r}, 'there is none')" if lacks else "pytest.skip('not checkable here')"
    repository.makepyfile(
        test_it=f"""
        import pytest
        @pytest.mark.row("C-14.1")
        def test_a(): pass
        @pytest.mark.row("C-14.2")
        def test_b(not_checkable): {skip}
        """
    )
    repository.runpytest().assert_outcomes(passed=1, skipped=1)

    answer = show()

    assert (states(answer)["C-14.2"], answer["rows"]["C-14"]) == (state, row)


def test_row_of_nothing_but_lacks_then_not_counted(repository: pytest.Pytester, show: Show) -> None:
    checklist = repository.path / rows.CHECKLIST
    checklist.write_text(checklist.read_text().replace("one thing", "{what: one thing, needs: [gpu]}"))
    repository.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.row("C-01")
        def test_a(not_checkable): not_checkable("gpu", "there is none")
        """
    )
    repository.runpytest().assert_outcomes(skipped=1)

    answer = show()

    assert (states(answer)["C-01"], answer["rows"]["C-01"]) == ("not checkable here", "not")


def test_test_that_is_gone_or_claims_less_then_its_results_do_not_count(
    repository: pytest.Pytester, show: Show
) -> None:
    path = repository.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.row("C-01", "C-14.1")
        @pytest.mark.parametrize("x", ["old", "kept"])
        def test_a(x): assert x == "kept"
        @pytest.mark.row("V-08")
        def test_b(): pass
        """
    )
    repository.runpytest().assert_outcomes(passed=2, failed=1)

    path.write_text(path.read_text().replace('"old", ', "").replace(', "C-14.1"', "").replace("test_b", "test_c"))

    found = states(show())
    assert found == {"C-01": "proved", "C-14.1": "unproved", "C-14.2": "unproved", "V-08": "unproved"}


def test_file_that_cannot_be_collected_then_said_and_status_1(repository: pytest.Pytester, show: Show) -> None:
    repository.makepyfile(
        test_good="import pytest\n@pytest.mark.row('C-01')\ndef test_a(): pass\n",
        test_bad="import nowhere_to_be\n",
    )
    repository.runpytest("test_good.py").assert_outcomes(passed=1)

    answer = show()

    assert (answer["status"], states(answer)["C-01"]) == (1, "proved")
    assert "nowhere_to_be" in answer["collection_errors"]


def test_show_where_pytest_cannot_start_then_error_with_its_words(repository: pytest.Pytester) -> None:
    repository.makeconftest("import nowhere_to_be\n")

    with pytest.raises(SlurmTestbedError, match="nowhere_to_be"):
        rows.show(Console(file=io.StringIO()), root=repository.path)


def test_show_unknown_section_then_usage_error(repository: pytest.Pytester) -> None:
    with pytest.raises(UsageError, match="no section 'X'\nHint: sections are C, V"):
        rows.show(Console(file=io.StringIO()), section="X", root=repository.path)


def test_show_for_people_then_tests_results_and_totals(repository: pytest.Pytester) -> None:
    repository.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.row("C-14.1")
        @pytest.mark.parametrize("x", ["24.11-wrong key"])
        def test_a(x, record_property):
            record_property("slurm_release", "24.11")
            record_property("slurm_on", "single")
        """
    )
    repository.runpytest().assert_outcomes(passed=1)
    output = io.StringIO()

    rows.show(Console(file=output, width=110), section="c", root=repository.path)

    text = output.getvalue()
    assert "test_it.py::test_a[wrong key]  24.11 single passed" in text, text
    assert re.search(r"C-14\.2 unproved", text), text
    assert "0 of 2 rows proved" in text, text
    assert "V-08" not in text, "another section"


def test_show_unproved_only_then_proved_clauses_are_left_out_but_counted(
    repository: pytest.Pytester, show: Show
) -> None:
    repository.makepyfile(test_it="import pytest\n@pytest.mark.row('C-01')\ndef test_a(): pass\n")
    repository.runpytest().assert_outcomes(passed=1)

    answer = show(unproved_only=True)

    assert set(answer["clauses"]) == {"C-14.1", "C-14.2", "V-08"}
    assert answer["totals"]["rows proved"] == 1
