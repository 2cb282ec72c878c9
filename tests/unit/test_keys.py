"""Keys: what is made, what is refused, what is written, and that nothing shows."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import jwt
import pytest

from slurm_testbed.errors import KeyFileError, SlurmTestbedError
from slurm_testbed.keys import ClusterKeys, Key, check_munge_key, fingerprint, jwks_document, jwt_token

SECRET = b"do-not-show-this-secret-anywhere"


@pytest.fixture(scope="module")
def rsa_key() -> Key:
    return Key.rs256()


def test_cluster_keys_are_generated_as_the_daemons_want_them() -> None:
    keys = ClusterKeys.generate()

    lengths = {key.kind: len(key.data) for key in (keys.munge, keys.jwt)}
    assert lengths == {"munge": 128, "hs256": 32}, f"kinds and lengths are {lengths}"


def test_cluster_keys_are_new_each_time() -> None:
    first, second = ClusterKeys.generate(), ClusterKeys.generate()

    assert first.munge != second.munge, "two clusters got the same munge key"
    assert first.jwt != second.jwt, "two clusters got the same JWT key"


def test_cluster_keys_keep_a_given_key() -> None:
    given = Key.munge()

    assert ClusterKeys.generate(munge=given).munge == given, "the given munge key was replaced"


@pytest.mark.parametrize("show", [repr, str, "{}".format], ids=["repr", "str", "format"])
@pytest.mark.parametrize("kind", ["munge", "hs256", "rs256"])
def test_key_shown_is_its_fingerprint(kind: str, show: object) -> None:
    key = Key(kind, SECRET)  # type: ignore[arg-type]

    shown = show(key) + show([key]) + show(ClusterKeys(key, key))  # type: ignore[operator]

    assert SECRET.decode() not in shown, f"the secret is in {shown}"
    assert key.fingerprint in shown, f"no fingerprint in {shown}"


def test_key_in_a_failed_comparison_does_not_show() -> None:
    key, other = Key("munge", SECRET), Key("munge", SECRET + b"!")

    with pytest.raises(AssertionError) as failure:
        assert key == other

    assert SECRET.decode() not in str(failure.value), "pytest's explanation shows the secret"


def test_keys_in_a_failed_comparison_do_not_show() -> None:
    keys, others = ClusterKeys(Key("munge", SECRET), Key.hs256()), ClusterKeys.generate()

    with pytest.raises(AssertionError) as failure:
        assert keys == others

    assert SECRET.decode() not in str(failure.value), "pytest's explanation shows the secret"


def test_fingerprint_is_what_the_documented_shell_command_prints(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(SECRET)

    command = ["sh", "-c", 'sha256sum "$1" | cut -c 1-16', "sh", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert fingerprint(SECRET) == f"SHA256:{said}", f"the shell says {said}"


@pytest.mark.parametrize("length", [0, 31])
def test_munge_key_too_short_is_refused_in_munges_words(length: int) -> None:
    with pytest.raises(KeyFileError, match=r"^Keyfile must be at least 32 bytes") as refusal:
        check_munge_key(bytes(length))

    assert "mungekey" in refusal.value.hint, "the error does not say how to make a key"


@pytest.mark.parametrize("length", [32, 128, 1024, 4096])
def test_munge_key_that_munged_takes_is_accepted(length: int) -> None:
    check_munge_key(bytes(length))


def test_key_is_written_readable_by_the_owner_only(tmp_path: Path) -> None:
    key = Key.munge()

    path = key.write(tmp_path / "munge.key")

    mode = stat.S_IMODE(path.stat().st_mode)
    assert mode == 0o400, f"the mode is {mode:o}"
    assert Key.from_file(path) == key, "another key came back"


def test_key_written_over_another_replaces_it(tmp_path: Path) -> None:
    path = Key.munge().write(tmp_path / "munge.key")
    old = path.open("rb")

    Key("munge", SECRET).write(path)

    with old:
        assert len(old.read()) == 128, "the old file was changed in place"
    assert path.read_bytes() == SECRET, "the new key is not there"
    left = [entry.name for entry in tmp_path.iterdir()]
    assert left == ["munge.key"], f"temporary files are left: {left}"


def test_key_written_onto_a_folder_fails_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "munge.key"
    folder.mkdir()

    with pytest.raises(KeyFileError, match="Failed to write keyfile") as failure:
        Key("munge", SECRET).write(folder)

    assert list(tmp_path.iterdir()) == [folder], "a temporary file with the key is left"
    assert SECRET.decode() not in "".join(traceback.format_exception(failure.value)), "the secret shows"


def test_key_written_into_no_folder_fails_clearly(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file or directory"):
        Key.munge().write(tmp_path / "none" / "munge.key")


def test_key_file_missing_is_refused_in_munges_words(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="Failed to find keyfile"):
        Key.from_file(tmp_path / "none")


def test_key_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="Failed to read keyfile"):
        Key.from_file(tmp_path)


def test_key_file_too_short_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "short.key"
    path.write_bytes(b"short")

    with pytest.raises(KeyFileError, match=r"short\.key: Keyfile must be at least 32 bytes"):
        Key.from_file(path)


def test_jwt_key_file_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwt_hs256.key"
    path.touch()

    with pytest.raises(KeyFileError, match="the JWT key is empty"):
        Key.from_file(path, "hs256")


def test_rsa_key_comes_back_from_its_file(tmp_path: Path, rsa_key: Key) -> None:
    path = rsa_key.write(tmp_path / "rs256.pem")

    assert Key.from_file(path, "rs256") == rsa_key, "another key came back"


def test_rsa_key_file_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "rs256.pem"
    path.write_bytes(SECRET)

    with pytest.raises(KeyFileError, match="no RSA private key") as refusal:
        Key.from_file(path, "rs256")

    assert SECRET.decode() not in "".join(traceback.format_exception(refusal.value)), "the secret shows"


def test_hs256_token_carries_the_claims_that_slurm_reads() -> None:
    key = Key.hs256()

    token = jwt_token(key, "alice", 60)

    claims = jwt.decode(token, key.data, algorithms=["HS256"])
    assert claims["sun"] == "alice", f"the claims are {claims}"
    assert claims["exp"] - claims["iat"] == 60, f"the claims are {claims}"


def test_hs256_token_of_another_key_is_refused() -> None:
    token = jwt_token(Key.hs256(), "alice", 60)

    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, Key.hs256().data, algorithms=["HS256"])


def test_token_with_a_negative_lifespan_has_expired() -> None:
    key = Key.hs256()

    token = jwt_token(key, "alice", -1)

    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(token, key.data, algorithms=["HS256"])


def test_token_is_issued_when_it_is_told() -> None:
    token = jwt_token(Key.hs256(), "alice", 1800, issued_at=1_700_000_000.7)

    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {"exp": 1_700_001_800, "iat": 1_700_000_000, "sun": "alice"}, f"the claims are {claims}"


def test_rs256_token_is_verified_by_the_jwks_document(rsa_key: Key) -> None:
    keys = jwt.PyJWKSet.from_json(jwks_document(Key.rs256(), rsa_key))

    token = jwt_token(rsa_key, "alice", 60)

    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid], algorithms=["RS256"])
    assert claims["sun"] == "alice", f"the claims are {claims}"


def test_jwks_document_has_what_slurm_wants_and_nothing_private(rsa_key: Key) -> None:
    entry = json.loads(jwks_document(rsa_key))["keys"][0]

    assert {"kid", "alg", "n", "e"} <= set(entry), f"Slurm misses a field in {sorted(entry)}"
    assert entry["alg"] == "RS256", "Slurm skips an entry with another alg"
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(entry), "the private key is in the document"


def test_munge_key_cannot_sign_a_token() -> None:
    with pytest.raises(KeyFileError, match="munge key cannot sign"):
        jwt_token(Key.munge(), "alice", 60)


def test_token_with_a_key_that_pyjwt_refuses_fails_without_showing_it() -> None:
    pem = b"-----BEGIN PUBLIC KEY-----\n" + SECRET + b"\n-----END PUBLIC KEY-----\n"

    with pytest.raises(KeyFileError, match="cannot sign") as refusal:
        jwt_token(Key("hs256", pem), "alice", 60)

    assert SECRET.decode() not in "".join(traceback.format_exception(refusal.value)), "the secret shows"


@pytest.mark.parametrize("package", ["jwt", "cryptography"])
def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    key = Key.hs256()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("jwt", "cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(SlurmTestbedError, match=f"Python package {package}") as failure:
        jwt_token(key, "alice", 60) if package == "jwt" else Key.rs256()

    assert "slurm-testbed[jwt]" in failure.value.hint, f"the hint is {failure.value.hint}"


def test_keys_module_needs_no_extra_to_make_and_write_keys(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules.update({'jwt': None, 'cryptography': None});"
        "from slurm_testbed.keys import ClusterKeys;"
        f"ClusterKeys.generate().jwt.write({str(tmp_path / 'jwt.key')!r})"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
