"""What `invoke rows` makes of the kept results."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from fixtures import rows
from slurm_testbed.errors import SlurmTestbedError, UsageError
from tests.unit.rows.conftest import Show, states


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


def test_clause_of_a_deep_test_then_its_result_counts(repository: pytest.Pytester, show: Show) -> None:
    repository.makepyfile(test_it="import pytest\n@pytest.mark.deep\n@pytest.mark.row('C-01')\ndef test_a(): pass\n")
    repository.runpytest_subprocess("-m", "").assert_outcomes(passed=1)

    assert show()["rows"]["C-01"] == "proved"


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


@pytest.mark.parametrize(
    ("why", "state"),
    [("not checkable here because Slurm 20.11.4 has no jwks", "proved"), ("no time", "skipped")],
)
def test_test_that_passed_on_another_release_then_a_named_lack_of_this_one_is_no_gap(
    repository: pytest.Pytester, show: Show, why: str, state: str
) -> None:
    repository.makepyfile(
        test_it=f"""
        import pytest
        @pytest.mark.row("C-01")
        @pytest.mark.parametrize("release", ["20.11", "24.11"])
        def test_a(release):
            if release == "20.11":
                pytest.skip({why!r})
        """
    )
    repository.runpytest().assert_outcomes(passed=1, skipped=1)

    assert states(show())["C-01"] == state


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
