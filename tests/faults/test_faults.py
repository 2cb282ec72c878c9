"""Faults on demand: seen as the release shows them, diagnosed and cured."""

from __future__ import annotations

import base64
import re

import pytest

from slurm_testbed import SlurmContainer, faults
from slurm_testbed.container import SlurmClient
from slurm_testbed.doctor import diagnose, diagnose_text
from slurm_testbed.errors import UsageError
from slurm_testbed.keys import Key
from slurm_testbed.releases import Release

#: What a client says: docs/faults.md.
KNOWN = {
    "20.11": "Zero Bytes were transmitted or received",
    "22.05": "Zero Bytes were transmitted or received",
    "24.11": "Protocol authentication error",
    "26.05": "Protocol authentication error",
}


@pytest.mark.smoke
@pytest.mark.row("C-14.1", "C-14.2", "C-14.3", "C-14.4", "C-14.5", "C-14.6")
def test_other_key_is_seen_and_diagnosed(slurm_release: Release) -> None:
    other = Key.munge()
    with SlurmContainer(slurm_release.version) as slurm, SlurmClient(slurm, munge_key=other) as client:
        answer = client.run(["sinfo"], check=False)
        said = answer.stdout + answer.stderr
        log = slurm.substrate.logs(slurm.controller, "slurmctld")
        found = diagnose(slurm, [(client.substrate, client.name)], said=said)
        own = Key(kind="munge", data=slurm.munge_key())

    assert answer.returncode != 0
    assert KNOWN[slurm_release.minor] in said
    assert "Munge decode failed: Invalid credential" in log
    assert found.names[0] == "munge-mismatch"
    text = str(found)
    assert own.fingerprint in text
    assert other.fingerprint in text
    for key in (own, other):
        assert key.data.hex() not in text
        assert base64.b64encode(key.data).decode() not in text
    assert "copy one key to every host" in text


def test_same_key_is_no_finding(slurm_release: Release) -> None:
    with SlurmContainer(slurm_release.version, accounting=False) as slurm, SlurmClient(slurm) as client:
        client.run(["sinfo"])

        assert diagnose(slurm, [(client.substrate, client.name)]).names == []


@pytest.mark.row("U-05")
def test_one_command_reproduces_explains_and_cures_it(slurm_release: Release) -> None:
    steps = list(faults.find("munge-mismatch").reproduce(slurm_release.version))

    shown = "\n".join(f"{step.title}: {step.text}" for step in steps)
    assert KNOWN[slurm_release.minor] in shown
    assert len(set(re.findall(r"SHA256:[0-9a-f]{16}", shown))) == 2, "not both fingerprints"
    assert "the cure" in steps[-1].title


@pytest.mark.smoke
@pytest.mark.row("C-15.1", "C-15.2")
def test_controller_without_a_database_is_reproduced_explained_and_cured(slurm_release: Release) -> None:
    steps = {step.title: step.text for step in faults.find("no-tres").reproduce(slurm_release.version)}

    old = "fatal: You are running with a database but for some reason we have no TRES from it."
    new = "error: Retrying initial connection to slurmdbd"
    assert (old if slurm_release.minor in {"20.11", "22.05"} else new) in steps["what slurmctld says"]
    assert "start slurmdbd before slurmctld" in steps["the diagnosis"]
    assert steps["the cure: slurmdbd first, then slurmctld"].startswith("$ srun hostname")


def test_unknown_fault_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="munge-mismatch") as error:
        faults.find("munge-mismatsch")

    assert "did you mean munge-mismatch" in error.value.hint


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (
            "slurmctld: fatal: You are running with a database but for some reason we have no TRES from it.",
            "no-tres",
        ),
        ('error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"', "munged-down"),
        ("error: Munge decode failed: Expired credential", "munge-expired"),
        ("munged: Error: Keyfile is insecure: ...", "munge-key-refused"),
    ],
)
def test_pasted_line_is_named(line: str, name: str) -> None:
    assert diagnose_text(f"noise\n{line}\nnoise").names == [name]


def test_healthy_log_is_no_finding() -> None:
    assert str(diagnose_text("slurmctld: Running as primary controller")) == "nothing wrong was found"
