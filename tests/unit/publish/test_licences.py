"""Licences of packages as SPDX expressions, and texts where SPDX has no name."""

from __future__ import annotations

import pytest

from slurm_testbed.publish.licences import debian_licence, npm_licence, python_licence

_HEAD = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"


def copyright_of(*names: str) -> str:
    return _HEAD + "".join(f"\nFiles: part{n}/*\nCopyright: x\nLicense: {name}\n" for n, name in enumerate(names))


@pytest.mark.parametrize(
    ("names", "expression"),
    [
        (["GPL-2+"], "GPL-2.0-or-later"),
        (["GPL-2"], "GPL-2.0-only"),
        (["LGPL-2.1+"], "LGPL-2.1-or-later"),
        (["Expat"], "MIT"),
        (["BSD-3-clause"], "BSD-3-Clause"),
        (["GPL-3+", "Expat"], "GPL-3.0-or-later AND MIT"),
        (["GPL-3+", "GPL-3+"], "GPL-3.0-or-later"),
        (["GPL-2+ or Artistic"], "GPL-2.0-or-later OR Artistic-1.0-Perl"),
        (["GPL-2+ or Artistic", "MIT"], "(GPL-2.0-or-later OR Artistic-1.0-Perl) AND MIT"),
    ],
)
def test_debians_names_are_spdx_names(names: list[str], expression: str) -> None:
    licence = debian_licence("x", copyright_of(*names))

    assert (licence.expression, licence.texts) == (expression, ())


@pytest.mark.parametrize("unknown", ["permissive-somehow", "GPL-2+ with some exception"])
def test_what_spdx_does_not_know_brings_its_text_along(unknown: str) -> None:
    text = copyright_of("Expat", unknown)

    licence = debian_licence("libx+y", text)

    assert licence.expression == "LicenseRef-Debian-libx-y AND MIT"
    assert licence.texts == (("LicenseRef-Debian-libx-y", text),)


def test_file_that_no_machine_reads_is_kept_whole() -> None:
    text = "This is munge.\n\nIt is under the GPL, see /usr/share/common-licenses/GPL-3.\n"

    licence = debian_licence("munge", text)

    assert licence.expression == "LicenseRef-Debian-munge"
    assert dict(licence.texts) == {"LicenseRef-Debian-munge": text}


@pytest.mark.parametrize(
    ("expression", "field", "classifiers", "expected"),
    [
        ("MIT", "whatever", [], "MIT"),
        ("", "bsd-3-clause", [], "BSD-3-Clause"),
        ("", "see LICENSE", ["License :: OSI Approved :: ISC License (ISCL)"], "ISC"),
        ("", "", ["License :: OSI Approved"], "LicenseRef-Python-x"),
        ("", "", [], "LicenseRef-Python-x"),
    ],
)
def test_python_package_says_its_licence_in_one_of_three_ways(
    expression: str, field: str, classifiers: list[str], expected: str
) -> None:
    licence = python_licence("x", expression, field, classifiers, ["the text"])

    assert licence.expression == expected
    assert [name for name, _ in licence.texts] == ([expected] if expected.startswith("LicenseRef") else [])
    assert all(text.startswith("the text") for _, text in licence.texts)


def test_npm_package_without_a_licence_is_not_silently_free() -> None:
    assert npm_licence("x", "").expression == "LicenseRef-npm-x"
    assert npm_licence("x", "SEE LICENSE IN FILE").expression == "LicenseRef-npm-x"
    assert npm_licence("x", "Apache-2.0").expression == "Apache-2.0"
