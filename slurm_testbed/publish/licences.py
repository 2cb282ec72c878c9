"""Licences as SPDX expressions, from what packages say of themselves."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from debian.copyright import Copyright, License, NotMachineReadableError
from license_expression import ExpressionError, Licensing, get_spdx_licensing

#: Debian's short names that are not SPDX's: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
_DEBIAN = {
    "apache-2": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "bsd-2-clauses": "BSD-2-Clause",
    "bsd-3-clauses": "BSD-3-Clause",
    "bsl-1": "BSL-1.0",
    "expat": "MIT",
    "mit/expat": "MIT",
    "psf-2": "PSF-2.0",
    "zlib/libpng": "Zlib",
}
_GNU = re.compile(r"([AL]?GPL|GFDL)-(?:v)?(\d)(?:\.(\d))?(\.\d)?(\+)?", re.IGNORECASE)
#: Trove classifiers of licences.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
}


# It warns of http where https is right, without saying which file it read.
logging.getLogger("debian.copyright").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Licence:
    """The licence of a package.

    Attributes:
        expression: in SPDX's syntax; a name of our own in it begins with LicenseRef-.
        texts: the text of each name of our own.
    """

    expression: str
    texts: tuple[tuple[str, str], ...] = ()


@functools.cache
def spdx_licensing() -> Licensing:
    """SPDX's list of licences; reading it takes a tenth of a second."""
    return get_spdx_licensing()


def spdx_expression(text: str) -> str | None:
    """A text as an SPDX expression, in SPDX's spelling; None where it is none.

    Args:
        text: e.g. the field License of a Python package.

    Example:
        >>> spdx_expression("mit or apache-2.0"), spdx_expression("BSD, see LICENSE")
        ('MIT OR Apache-2.0', None)
    """
    try:
        parsed = spdx_licensing().parse(text, validate=True)
    except (ExpressionError, AttributeError, TypeError):
        return None
    return str(parsed) if parsed is not None else None


def own_name(kind: str, package: str) -> str:
    """A licence's name of our own, where SPDX has none.

    Example:
        >>> own_name("Debian", "libstdc++6")
        'LicenseRef-Debian-libstdc-6'
    """
    return f"LicenseRef-{kind}-{re.sub(r'[^A-Za-z0-9.]+', '-', package).strip('-')}"


def debian_licence(package: str, copyright_file: str) -> Licence:
    """The licence of a Debian package: all that its copyright file names.

    What is not machine-readable, or not in SPDX's list, is a name of our own with the whole file as its text.

    Args:
        package: its name.
        copyright_file: the text of /usr/share/doc/PACKAGE/copyright.

    Example:
        >>> debian_licence("hello", "Please see the source.").expression
        'LicenseRef-Debian-hello'
    """
    try:
        paragraphs = Copyright(copyright_file.splitlines(), strict=False).all_files_paragraphs()
        # The stubs do not know what the field is made of.
        names = [cast(License, paragraph.license).synopsis for paragraph in paragraphs if paragraph.license]
    except (NotMachineReadableError, ValueError):
        names = []
    known = [_of_debian(name) for name in dict.fromkeys(names)]
    expressions = [expression for expression in known if expression]
    if not known or None in known:
        own = own_name("Debian", package)
        return Licence(_and([*expressions, own]), ((own, copyright_file),))
    return Licence(_and(expressions))


def python_licence(
    package: str, expression: str, field: str, classifiers: Sequence[str], texts: Sequence[str]
) -> Licence:
    """The licence of a Python package, from its metadata; its files' text where that says none that SPDX knows.

    Args:
        package: its name.
        expression: of the field License-Expression.
        field: of the older field License.
        classifiers: trove classifiers.
        texts: its licence files.

    Example:
        >>> python_licence("x", "", "", ["License :: OSI Approved :: MIT License"], []).expression
        'MIT'
    """
    for text in (expression, field):
        if text and len(text) < 200 and (parsed := spdx_expression(text)):
            return Licence(parsed)
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    found = [_CLASSIFIERS[name] for name in named if name in _CLASSIFIERS]
    if named and len(found) == len(named):
        return Licence(_and(found))
    own = own_name("Python", package)
    said = "\n\n".join([*texts, field, *named]).strip()
    return Licence(own, ((own, said or "The package says nothing of its licence."),))


def npm_licence(package: str, field: str) -> Licence:
    """The licence of an npm package, from the field license of its package.json.

    Example:
        >>> npm_licence("x", "(MIT OR CC0-1.0)").expression
        'MIT OR CC0-1.0'
    """
    if field and (found := spdx_expression(field)):
        return Licence(found)
    own = own_name("npm", package)
    return Licence(own, ((own, field or "The package says nothing of its licence."),))


def _of_debian(synopsis: str) -> str | None:
    """Debian's synopsis as an SPDX expression: `GPL-2+ or Artistic`; None where it has names unknown to SPDX."""
    words = re.split(r"(\s+and\s+|\s+or\s+|,\s*)", synopsis, flags=re.IGNORECASE)
    names = [_name_of_debian(word.strip()) for word in words[::2]]
    if None in names:
        return None
    joints = [" OR " if " or " in word.lower() else " AND " for word in words[1::2]]
    text = "".join(f"{name}{joint}" for name, joint in zip(names, [*joints, ""], strict=True))
    return spdx_expression(text)


def _name_of_debian(name: str) -> str | None:
    if match := _GNU.fullmatch(name):
        family, major, minor, _, later = match.groups()
        name = f"{family.upper()}-{major}.{minor or 0}-{'or-later' if later else 'only'}"
    return spdx_expression(_DEBIAN.get(name.lower(), name))


def _and(expressions: Iterable[str]) -> str:
    """Expressions joined by AND, each once, with parentheses where they are needed."""
    unique = sorted(dict.fromkeys(expressions))
    return " AND ".join(f"({text})" if " OR " in text and len(unique) > 1 else text for text in unique)
