"""How this machine reaches the registries of Python's and Node's packages, for builds that install from them."""

from __future__ import annotations

import ast
import configparser
import functools
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Options of pip that say where packages come from; others, such as `target`, are of this machine alone.
_PIP_OPTIONS = (
    "default-timeout extra-index-url find-links index-url no-index proxy retries timeout trusted-host".split()
)
#: The same of npm, with the credentials of a registry, `//host/:_authToken`.
_NPM_OPTION = re.compile(r"(@[^:]+:)?registry|//.+|(https-)?proxy|noproxy|strict-ssl")
_NPM_VARIABLES = "registry https-proxy proxy noproxy strict-ssl".split()
#: By the variable that names another; what comes later overrides.
_NPM_FILES = {"NPM_CONFIG_GLOBALCONFIG": "/etc/npmrc", "NPM_CONFIG_USERCONFIG": "~/.npmrc"}
#: What only this machine can reach: its own files.
_LOCAL = re.compile(r"file:|[/.~]")


@functools.cache
def registry_settings() -> Mapping[str, str]:
    """The settings of pip and npm that a build needs, as the texts of their configuration files, by secret id.

    They may hold credentials: they go to the build as secrets, never into an argument or a layer. A step that
    installs mounts them, and the certificate authorities:
    `RUN --mount=type=secret,id=pip-config --mount=type=secret,id=ca-bundle …`, with PIP_CONFIG_FILE or
    NPM_CONFIG_USERCONFIG, and PIP_CERT or NODE_EXTRA_CA_CERTS, that name the mounted files.

    Example:
        >>> sorted(registry_settings())
        ['npm-config', 'pip-config']
    """
    # Without pip in this environment nobody has told pip anything here.
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    pip = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    files = [Path(os.environ.get(name) or usual).expanduser() for name, usual in _NPM_FILES.items()]
    texts = [file.read_text() for file in files if file.is_file()]
    return {
        "pip-config": "" if pip.returncode else pip_config(pip.stdout),
        "npm-config": npm_config([*texts, _npm_of(os.environ)], os.environ),
    }


def pip_config(listed: str) -> str:
    """The text of a pip.conf, from what `pip config list` prints.

    Args:
        listed: its lines, `section.option='value'`; the section `:env:` stands for variables, which override.

    Example:
        >>> print(pip_config("global.cert='/x.crt'\\nglobal.index-url='https://a.example'").strip())
        [global]
        index-url = https://a.example
    """
    # Tokens may hold a percent sign.
    config = configparser.RawConfigParser()
    variables = {}
    for line in listed.splitlines():
        name, _, literal = line.partition("=")
        section, _, option = name.rpartition(".")
        value = "\n".join(word for word in str(ast.literal_eval(literal)).split() if not _LOCAL.match(word))
        if option not in _PIP_OPTIONS or not value:
            continue
        if section == ":env:":
            variables[option] = value
            continue
        if not config.has_section(section):
            config.add_section(section)
        config.set(section, option, value)
    for option, value in variables.items():
        for section in config.sections():
            config.remove_option(section, option)
        if not config.has_section("global"):
            config.add_section("global")
        config.set("global", option, value)
    text = io.StringIO()
    config.write(text)
    return text.getvalue()


def npm_config(texts: Iterable[str], env: Mapping[str, str]) -> str:
    """The text of an .npmrc, from those of this machine.

    Args:
        texts: what npm reads, later ones override earlier ones.
        env: the variables that they refer to, as `${NPM_TOKEN}`.

    Example:
        >>> npm_config(["cafile=/x.crt\\n//a.example/:_authToken = ${TOKEN}"], {"TOKEN": "t"})
        '//a.example/:_authToken=t\\n'
    """
    found: dict[str, str] = {}
    for line in "\n".join(texts).splitlines():
        option, equals, value = (word.strip() for word in line.partition("="))
        if equals and _NPM_OPTION.fullmatch(option):
            # npm leaves a reference as it is where there is no such variable.
            found[option] = re.sub(r"\$\{([^}]+)\}", lambda match: env.get(match[1], match[0]), value)
    return "".join(f"{option}={value}\n" for option, value in found.items())


def _npm_of(env: Mapping[str, str]) -> str:
    """npm's options that are set by variables, in any case: NPM_CONFIG_STRICT_SSL."""
    named = {name.lower(): value for name, value in env.items()}
    options = {option: f"npm_config_{option.replace('-', '_')}" for option in _NPM_VARIABLES}
    return "\n".join(f"{option}={named[name]}" for option, name in options.items() if name in named)
