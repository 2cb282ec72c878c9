"""Find out what is wrong with a cluster: from its logs, or from any text, and from what its hosts hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from slurm_testbed.slurm import Slurm
from slurm_testbed.substrate import Substrate


@dataclass(frozen=True)
class Cause:
    """One thing that goes wrong with Slurm, and how to know it.

    Attributes:
        name: a short name, that of the fault which reproduces it where there is one.
        patterns: regular expressions; any of them in a log or answer is a sign.
        meaning: what is wrong, in a sentence.
        fix: what to do.
    """

    name: str
    patterns: tuple[str, ...]
    meaning: str
    fix: str


#: What the texts of Slurm and munge mean. Those of 22.05 and before differ from those of 24.11 and later.
CAUSES = (
    Cause(
        "munge-expired",
        (r"Expired credential", r"Rewound credential", r"Check for out of sync clocks"),
        "the clocks of two hosts differ by more than munge's five minutes",
        "synchronise the clocks (NTP, chrony); a credential lives for 300 s",
    ),
    Cause(
        "munge-mismatch",
        (
            r"Munge decode failed: Invalid credential",
            r"Protocol authentication error",
            r"Zero Bytes were transmitted or received",
            r"communication socket apparently being written to by something other than Slurm",
            r"Failed to unpack SLURM_PERSIST_INIT message",
        ),
        "the hosts have different munge keys",
        "copy one key to every host (munge:munge, mode 0400) and restart munged there",
    ),
    Cause(
        "munged-down",
        (r"Failed to access \"/[\w/.]*munge\.socket", r"Munge encode failed: Failed to access"),
        "munged does not run on this host",
        "start munged and read its log",
    ),
    Cause(
        "munge-key-refused",
        (r"Keyfile is insecure", r"Keyfile must be at least", r"Failed to find keyfile"),
        "munged refuses its key file",
        "the key belongs to munge, has mode 0400 and 32 bytes or more",
    ),
    Cause(
        "state-of-another-release",
        (r"incompatible version, got \d+ need", r"Database schema is too old for this version of Slurm"),
        "this release does not take over the state or the database of the release before",
        "upgrade step by step: https://slurm.schedmd.com/upgrades.html; the state is as it was",
    ),
    Cause(
        "state-of-another-cluster",
        (r"CLUSTER NAME MISMATCH",),
        "the kept state is that of another ClusterName, or of a newer release, whose file an older one reads as a name",
        "start the release that wrote the state, or give the cluster its name again",
    ),
    Cause(
        "no-tres",
        (
            r"for some reason we have no TRES from it",
            r"slurmdbd (and/or database )?must be up at slurmctld start time",
            r"Retrying initial connection to slurmdbd",
        ),
        "slurmctld reached no slurmdbd, and has no saved state to go on with",
        "start slurmdbd before slurmctld, and see that both have the same munge key",
    ),
    Cause(
        "jwt-key-mismatch",
        (r"jwt_decode failure",),
        "a token was signed with another key than slurmctld's",
        "give slurmctld, slurmdbd and whoever makes tokens the same JWT key",
    ),
    Cause(
        "token-expired",
        (r"token expired", r"Authentication credential expired"),
        "the token's time is over",
        "make a new one: scontrol token lifespan=SECONDS",
    ),
    Cause(
        "unknown-user",
        (r"User \d+ not found", r"Invalid account or account/partition combination"),
        "slurmctld or the accounting does not know the user or the account",
        "the user exists on the controller's host, and in sacctmgr show association",
    ),
    Cause(
        "config-differs",
        (r"appears to have a different slurm\.conf than the slurmctld",),
        "a node has another slurm.conf than the controller",
        "distribute one file, or use configless nodes (slurmd --conf-server)",
    ),
)


@dataclass(frozen=True)
class Finding:
    """A cause that was found.

    Attributes:
        cause: what it is.
        evidence: the lines and facts that show it.
    """

    cause: Cause
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.cause.name}: {self.cause.meaning}", *(f"    {line}" for line in self.evidence)]
        return "\n".join([*lines, f"  fix: {self.cause.fix}"])


@dataclass(frozen=True)
class Diagnosis:
    """What was found, the most certain first; nothing where the cluster looks healthy."""

    findings: tuple[Finding, ...] = field(default=())

    @property
    def names(self) -> list[str]:
        """Names of the causes."""
        return [finding.cause.name for finding in self.findings]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing wrong was found"


def diagnose_text(text: str) -> Diagnosis:
    """Name the causes whose signs stand in a log or an error message.

    Example:
        >>> diagnose_text("sinfo: error: Munge decode failed: Invalid credential").names
        ['munge-mismatch']
    """
    found = []
    for cause in CAUSES:
        signs = [line.strip() for line in text.splitlines() if any(re.search(p, line) for p in cause.patterns)]
        if signs:
            found.append(Finding(cause, tuple(dict.fromkeys(signs))[:5]))
    return Diagnosis(tuple(found))


def munge_keys(hosts: Iterable[tuple[Substrate, str]]) -> dict[str, str]:
    """Fingerprints of the munge keys by host; the keys stay where they are.

    Raises:
        EngineError: a host cannot be asked.
    """
    script = "sha256sum < /etc/munge/munge.key | cut -c 1-16"
    answers = {host: substrate.exec(host, ["sh", "-c", script]) for substrate, host in hosts}
    return {host: f"SHA256:{done.stdout.strip()}" for host, done in answers.items() if done.returncode == 0}


def diagnose(slurm: Slurm, clients: Sequence[tuple[Substrate, str]] = (), *, said: str = "") -> Diagnosis:
    """Look at a cluster's logs and keys.

    Args:
        slurm: the cluster.
        clients: further hosts that speak to it.
        said: what a command answered, if one failed.

    Returns:
        What was found. Keys that differ come first, with the fingerprints of both.
    """
    hosts = [(slurm.substrate, host.name) for host in slurm.substrate.hosts()]
    texts = [said]
    for _, host in hosts:
        texts += [slurm.substrate.logs(host, daemon) for daemon in ("slurmctld", "slurmdbd", "munged")]
    findings = list(diagnose_text("\n".join(texts)).findings)
    keys = munge_keys([*hosts, *clients])
    if len(set(keys.values())) > 1:
        cause = next(cause for cause in CAUSES if cause.name == "munge-mismatch")
        signs = next((finding.evidence for finding in findings if finding.cause is cause), ())
        shown = tuple(f"munge key of {host}: {fingerprint}" for host, fingerprint in keys.items())
        findings = [Finding(cause, shown + signs), *(f for f in findings if f.cause is not cause)]
    return Diagnosis(tuple(findings))
