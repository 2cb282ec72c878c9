"""Images: the settings of pip and npm, which a build gets as secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_testbed.images.settings import npm_config, pip_config, registry_settings
from tests.unit.images.conftest import RELEASE, FakeRun, build


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """The settings are read once in a process; here they change."""
    registry_settings.cache_clear()
    yield
    registry_settings.cache_clear()


def test_pip_keeps_what_says_where_packages_come_from() -> None:
    listed = """\
global.cert='/etc/ssl/own.crt'
global.find-links='/opt/wheels'
global.extra-index-url='file:///opt/simple\\nhttps://u:p%40ss@a.example/simple'
global.target='/somewhere'
install.index-url='https://b.example/simple'
"""

    text = pip_config(listed)

    assert text == (
        "[global]\nextra-index-url = https://u:p%40ss@a.example/simple\n\n"
        "[install]\nindex-url = https://b.example/simple\n\n"
    )


def test_variables_of_pip_override_its_files() -> None:
    text = pip_config(
        ":env:.index-url='https://new'\nglobal.index-url='https://old'\ninstall.index-url='https://old'\n"
    )

    assert "[global]\nindex-url = https://new\n" in text
    assert "https://old" not in text


def test_npm_keeps_registries_and_their_tokens() -> None:
    global_file = "cafile=/etc/ssl/own.crt\nregistry=https://old.example\nprefix = /usr/local\n"
    user_file = "registry = https://a.example\n@team:registry=https://b.example\n//b.example/:_authToken=${MY_TOKEN}\n"

    text = npm_config([global_file, user_file], {"MY_TOKEN": "s3cret"})

    assert text.splitlines() == [
        "registry=https://a.example",
        "@team:registry=https://b.example",
        "//b.example/:_authToken=s3cret",
    ]


def test_settings_are_those_of_files_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip, npm = tmp_path / "pip.conf", tmp_path / "npmrc"
    pip.write_text("[global]\nindex-url = https://pip.example/simple\n")
    npm.write_text("//npm.example/:_password=p\nregistry=https://npm.example\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(pip))
    monkeypatch.setenv("PIP_TRUSTED_HOST", "pip.example")
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(npm))
    monkeypatch.setenv("NPM_CONFIG_STRICT_SSL", "false")

    found = registry_settings()

    assert "index-url = https://pip.example/simple\n" in found["pip-config"]
    assert "trusted-host = pip.example\n" in found["pip-config"]
    assert "//npm.example/:_password=p\n" in found["npm-config"]
    assert "strict-ssl=false\n" in found["npm-config"]


def test_build_gets_them_as_secrets_and_not_as_arguments(
    run: FakeRun, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:s3cret@pip.example/simple")

    build(run, said, ["slurm-client"], [RELEASE])

    argv, env = run.calls[0]
    assert "*.secrets=id=pip-config,env=SLURM_TESTBED_PIP_CONFIG" in argv
    assert "*.secrets=id=npm-config,env=SLURM_TESTBED_NPM_CONFIG" in argv
    assert "s3cret" in env["SLURM_TESTBED_PIP_CONFIG"]
    assert not [word for word in [*argv, *said] if "s3cret" in word]
