"""The checklist and the marker that names its rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from fixtures import rows
from slurm_testbed.errors import UsageError
from tests.unit.rows.conftest import SMALL_CHECKLIST, saved


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
