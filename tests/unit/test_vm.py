"""The virtual machine without starting one: what goes into it, how it is started, found, ended and asked."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import docker.errors
import pytest

from slurm_testbed import vm
from slurm_testbed.engine.processes import live_process
from slurm_testbed.errors import BuildError, EngineError, SlurmTestbedError
from slurm_testbed.vm import cache, calibration, disk, machine, qemu, recipe, record, transfer
from slurm_testbed.vm.ssh import Connection
from slurm_testbed.vm.tools import Tools


@pytest.fixture(autouse=True)
def cached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own; sockets have short names only, and pytest's folders long ones."""
    with tempfile.TemporaryDirectory(prefix="vm-") as name:
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        yield cache.folder()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands in for QEMU."""
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def record_of(process: subprocess.Popen[bytes], **changes: Any) -> record.Record:
    """What would be written of a machine whose QEMU is this process."""
    living = live_process(process.pid)
    assert living
    made = record.Record(
        id="machine",
        pid=process.pid,
        started=living[1],
        boot=record.boot(),
        port=1,
        accelerator="tcg",
        image=recipe.image_digest(),
        speed=25.0,
    )
    return replace(made, **changes)


# --- what goes into it -----------------------------------------------------------------------------------


def test_digest_changes_with_what_goes_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = recipe.image_digest(), recipe.tools_digest()
    assert (recipe.image_digest(), recipe.tools_digest()) == before

    monkeypatch.setattr(recipe, "GUEST_PACKAGES", (*recipe.GUEST_PACKAGES, "fio"))
    with_package = recipe.image_digest()
    monkeypatch.setattr(recipe, "guest_files", lambda: b"other files")
    with_files = recipe.image_digest()

    assert len({before[0], with_package, with_files}) == 3
    assert recipe.tools_digest() == before[1], "the tools do not depend on the guest"


def test_guests_files_belong_to_root_and_hold_no_key() -> None:
    with tarfile.open(fileobj=io.BytesIO(recipe.guest_files())) as archive:
        members = archive.getmembers()
        text = b"".join(archive.extractfile(member).read() for member in members if member.isfile())  # type: ignore[union-attr]

    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    assert not [member.name for member in members if "host_key" in Path(member.name).name]
    assert b"PRIVATE KEY" not in text
    assert b"PasswordAuthentication no" in text


def test_processor_without_recipe_is_one_sentence() -> None:
    with pytest.raises(SlurmTestbedError, match="no virtual machine for s390x processors") as error:
        recipe.processor("s390x")

    assert "invoke test" in error.value.hint


def test_failed_build_leaves_nothing_and_the_next_one_replaces_older(cached: Path) -> None:
    (cached / "image-old").mkdir()

    def fail() -> None:
        with cache.made_aside(cached / "image-new") as aside:
            (aside / "half").touch()
            raise BuildError("no network")

    with pytest.raises(BuildError):
        fail()
    assert [path.name for path in cached.iterdir()] == ["image-old"]

    with cache.made_aside(cached / "image-new") as aside:
        (aside / "whole").touch()

    assert [str(path.relative_to(cached)) for path in cached.rglob("*")] == ["image-new", "image-new/whole"]


def test_program_runs_by_its_own_loader(tmp_path: Path) -> None:
    loader = tmp_path / "usr/lib/some-arch/ld-linux-some.so.2"
    for path in (loader, tmp_path / "usr/sbin/mke2fs"):
        path.parent.mkdir(parents=True)
        path.touch()

    assert Tools(tmp_path).command("usr/sbin/mke2fs")[:3] == [str(loader), "--library-path", str(loader.parent)]
    with pytest.raises(BuildError, match="usr/bin/none"):
        Tools(tmp_path).command("usr/bin/none")


# --- how it is started -----------------------------------------------------------------------------------


class FakeTools(Tools):
    """Tools whose QEMU is a program of the test."""

    def __init__(self, root: Path, program: str) -> None:
        super().__init__(root)
        object.__setattr__(self, "program", program)

    def qemu(self) -> list[str]:
        return [sys.executable, "-c", cast(str, self.program)]  # type: ignore[attr-defined]


def test_guest_is_cut_off_but_for_one_local_port(tmp_path: Path) -> None:
    argv = qemu.command(
        FakeTools(tmp_path, ""),
        disk.Image(tmp_path / "image-1"),
        "tcg",
        data=tmp_path / "a,b",
        console=tmp_path / "console",
        port=2222,
        credential="name:value",
    )

    (network,) = (word for word in argv if word.startswith("user,"))
    assert network == "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"
    system, data = (word for word in argv if word.startswith("if=none"))
    assert "snapshot=on" in system, "the cached disk would be written to"
    assert "/a,,b" in data
    assert "snapshot" not in data


@pytest.mark.parametrize(
    ("says", "expected", "why"),
    [
        ("print('VFS: Unable to mount root fs on unknown-block(0,0)')", "kvm", ""),
        ("print('KVM internal error. Suberror: 1')", "tcg", "KVM internal error"),
        ("import time; time.sleep(600)", "tcg", "it says nothing"),
    ],
)
def test_kvm_is_used_only_where_a_kernel_starts_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, expected: str, why: str
) -> None:
    monkeypatch.setattr(qemu, "_PROBE_SECONDS", 2)

    found, reason = qemu.probe(FakeTools(tmp_path, says), disk.Image(tmp_path), device=Path("/dev/null"))

    assert found == expected
    assert why in reason


def test_without_kvm_the_probe_says_so(tmp_path: Path) -> None:
    assert qemu.probe(Tools(tmp_path), disk.Image(tmp_path), device=tmp_path / "kvm") == (
        "tcg",
        f"there is no {tmp_path / 'kvm'}",
    )


def test_key_is_its_owners_alone_and_only_the_public_half_is_told() -> None:
    connection = Connection(record.folder(), 1)

    credential = connection.make_key()

    assert connection.key.stat().st_mode & 0o777 == 0o600
    assert record.folder().stat().st_mode & 0o777 == 0o700
    name, _, value = credential.partition(":")
    assert name == "ssh.authorized_keys.root"
    assert value not in connection.key.read_text()


def test_folder_whose_name_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlurmTestbedError, match="too long for the name of a socket") as error:
        Connection(tmp_path / ("long" * 25), 1).check()

    assert "XDG_CACHE_HOME" in error.value.hint


def test_folder_that_can_have_no_sockets_is_refused_before_anything_is_built(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cached / "100%"))
    monkeypatch.setattr(machine.tools, "get", lambda _: pytest.fail("it is built"))

    with pytest.raises(SlurmTestbedError, match="cannot be the name of a socket: ssh and docker take % for something"):
        vm.start(say=print)


def test_blank_in_the_folders_name_is_a_part_of_it_to_ssh() -> None:
    argv = Connection(Path("/a folder"), 22)._ssh()

    said = subprocess.run([argv[0], "-G", *argv[1:], "host"], capture_output=True, text=True, check=True).stdout

    assert {"controlpath /a folder/ssh", "userknownhostsfile /a folder/known_hosts"} <= set(said.splitlines())


def test_blank_in_the_folders_name_is_a_part_of_it_to_mmdebstrap(
    cached: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hooks: list[str] = []
    monkeypatch.setattr(disk, "mmdebstrap", lambda *arguments: hooks.extend(map(str, arguments[3:])))
    monkeypatch.setattr(disk, "_pick_kernel", lambda *_: None)
    monkeypatch.setattr(disk, "make_filesystem", lambda *_, **__: None)
    (tmp_path / "a folder").mkdir()

    disk._build(Tools(cached), disk.Image(tmp_path / "a folder"))

    # It splits them as a shell does.
    (put,) = (shlex.split(hook) for hook in hooks if hook.startswith("--essential-hook="))
    assert (len(put), Path(put[1]).name, put[2]) == (3, "files.tar", "/")


def test_key_of_a_start_that_was_cut_short_is_in_nobodys_way() -> None:
    connection = Connection(record.folder(), 1)

    first, second = connection.make_key(), connection.make_key()

    assert first != second


def test_disk_is_made_anew_when_its_writes_may_be_lost(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(_: Tools, path: Path, *__: object, **___: object) -> None:
        made.append(path)
        path.touch()

    monkeypatch.setattr(disk, "make_filesystem", make)
    tools = Tools(cached)

    machine._data_disk(tools)
    machine._data_disk(tools)
    assert len(made) == 1, "the disk of a machine that crashed alone was thrown away"

    (cached / "data.boot").write_text("another start")
    machine._data_disk(tools)
    assert len(made) == 2, "a disk that may have lost writes is used"


# --- found and ended -------------------------------------------------------------------------------------


def test_machine_is_found_while_its_qemu_runs(process: subprocess.Popen[bytes]) -> None:
    assert vm.find() is None
    record_of(process).save()
    found = vm.find()
    assert found
    assert found.docker_host.endswith("/run/docker.sock")

    process.kill()
    process.wait()

    assert vm.find() is None


@pytest.mark.parametrize("changes", [{"started": "1"}, {"boot": "another"}, {"speed": 0.0}])
def test_another_process_or_start_or_a_half_started_one_is_not_it(
    process: subprocess.Popen[bytes], changes: dict[str, Any]
) -> None:
    record_of(process, **changes).save()

    assert vm.find() is None


@pytest.mark.parametrize("changes", [{"started": "1"}, {"boot": "another"}])
def test_stranger_with_its_number_is_never_ended(process: subprocess.Popen[bytes], changes: dict[str, Any]) -> None:
    record_of(process, **changes).save()

    assert vm.stop() is False

    assert process.poll() is None
    assert record.Record.load() is None


def test_stop_ends_what_a_killed_start_left(process: subprocess.Popen[bytes]) -> None:
    (record.folder() / "key").touch()
    record_of(process, speed=0.0).save()

    assert vm.stop() is True

    assert live_process(process.pid) is None
    assert not (record.folder() / "key").exists()
    assert vm.stop() is False


def test_stop_removes_the_key_of_a_start_that_came_to_no_machine() -> None:
    (record.folder() / "key").touch()

    assert vm.stop() is False

    assert not (record.folder() / "key").exists()


def test_unreadable_record_is_one_sentence() -> None:
    (record.folder() / "vm.json").write_text("{")

    with pytest.raises(SlurmTestbedError, match="vm.json cannot be read"):
        vm.find()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, cached: Path) -> list[str]:
    """The images of which machines were started; none really is."""
    started: list[str] = []

    def start(_: Tools, image: disk.Image, __: object) -> vm.VirtualMachine:
        started.append(image.digest)
        raise SlurmTestbedError("it does not start")

    monkeypatch.setattr(machine.tools, "get", lambda _: Tools(cached))
    monkeypatch.setattr(machine.disk, "get", lambda *_: disk.Image(cached / f"image-{recipe.image_digest()}"))
    monkeypatch.setattr(machine, "_start", start)
    return started


def test_there_is_never_a_second_one(process: subprocess.Popen[bytes], starts: list[str]) -> None:
    record_of(process).save()

    with vm.running(say=print) as found:
        assert found.record.pid == process.pid

    assert starts == []
    assert process.poll() is None, "it ran before, and has to stay"


def test_one_of_another_recipe_ends_before_the_new_one_starts(
    process: subprocess.Popen[bytes], starts: list[str]
) -> None:
    record_of(process, image="older", speed=1.0).save()

    with pytest.raises(SlurmTestbedError, match="it does not start"):
        vm.start(say=print)

    assert starts == [recipe.image_digest()]
    assert live_process(process.pid) is None
    assert record.Record.load() is None, "a failed start left its record"


@pytest.fixture
def ready(process: subprocess.Popen[bytes], starts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is started is ready at once."""

    def start(*_: object) -> vm.VirtualMachine:
        started = record_of(process, speed=1.0, stays=False)
        started.save()
        return vm.VirtualMachine(started)

    monkeypatch.setattr(machine, "_start", start)


@pytest.mark.usefixtures("ready")
def test_machine_ends_with_the_last_of_those_who_use_it(process: subprocess.Popen[bytes]) -> None:
    with contextlib.ExitStack() as second:
        with vm.running(say=print) as machine_of_the_first:
            assert second.enter_context(vm.running(say=print)) == machine_of_the_first
        assert live_process(process.pid), "it ended under the second"

    assert live_process(process.pid) is None


@pytest.mark.usefixtures("ready")
def test_machine_that_is_asked_for_while_tests_use_it_stays(process: subprocess.Popen[bytes]) -> None:
    with vm.running(say=print):
        vm.start(say=print)

    assert live_process(process.pid)


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_machine_ends_with_a_user_who_is_told_to_end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    def use() -> None:
        with vm.running(say=print):
            assert signal.getsignal(number) is not signal.SIG_DFL, "it would end Python at once"
            os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as told:
            use()
    finally:
        signal.signal(number, before)

    assert told.value.code == 128 + number
    assert live_process(process.pid) is None


# --- how slow it is --------------------------------------------------------------------------------------


def test_speed_is_the_guests_slowest_against_our_quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = iter([300, 100, 200]), iter(["1000", "2500\n", "2000"])
    monkeypatch.setattr(calibration, "_here", lambda _: next(ours))

    assert calibration.measure(lambda _: next(theirs), ["sh"]) == 25.0


def test_same_work_takes_the_same_time() -> None:
    def here(script: str) -> str:
        return subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout

    assert 1.0 <= calibration.measure(here, ["sh"]) < 10


def test_speed_is_never_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_here", lambda _: 100)

    assert calibration.measure(lambda _: "10", ["sh"]) == 1.0


# --- asked of an engine ----------------------------------------------------------------------------------


@dataclass
class FakeEngine:
    """An engine's client that has labels and images."""

    labels: list[str] | None = None
    store: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pruned: int = 0

    def info(self) -> Mapping[str, Any]:
        return {"Labels": self.labels}

    @property
    def images(self) -> FakeEngine:
        return self

    def get(self, name: str) -> SimpleNamespace:
        if name not in self.store:
            raise docker.errors.ImageNotFound(name)
        return SimpleNamespace(attrs=self.store[name])

    def prune(self, filters: object) -> None:
        self.pruned += 1

    def close(self) -> None:
        pass

    @property
    def client(self) -> docker.DockerClient:
        return cast(docker.DockerClient, self)


def test_engine_says_how_slow_it_is() -> None:
    assert vm.place_of(FakeEngine().client) == vm.Place()
    assert vm.place_of(FakeEngine(["org.slurm-testbed.speed=24.5"]).client).speed == 24.5


def test_engine_belongs_to_the_machine_that_runs(process: subprocess.Popen[bytes]) -> None:
    record_of(process).save()

    ours = vm.place_of(FakeEngine(["org.slurm-testbed.vm=machine"]).client).machine

    assert ours
    assert ours.record.id == "machine"
    assert vm.place_of(FakeEngine(["org.slurm-testbed.vm=another"]).client).machine is None


def image_attrs(layer: str, **config: Any) -> Mapping[str, Any]:
    """What an engine says of an image."""
    return {"Id": object(), "Created": "today", "RootFS": {"Layers": [layer]}, "Config": config}


def test_only_images_that_differ_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    same, older, newer = image_attrs("a", Env=["X=1"]), image_attrs("b"), image_attrs("c")
    host = FakeEngine(store={"same": same, "changed": newer, "new": newer})
    guest = FakeEngine(store={"same": image_attrs("a", Env=["X=1"]), "changed": older})
    one = SimpleNamespace(client=lambda: guest)
    copied: list[str] = []

    def copy(_: object, names: list[str]) -> None:
        copied.extend(names)
        guest.store.update({name: host.store[name] for name in names})

    monkeypatch.setattr(transfer, "_copy", copy)

    for expected in (["changed", "new"], []):
        copied.clear()
        assert vm.load(cast(vm.VirtualMachine, one), list(host.store), host=host.client, say=print) == expected
        assert copied == expected
    assert guest.pruned == 1, "the older build fills the machine's disk"


def test_image_that_arrives_as_another_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host, guest = FakeEngine(store={"one": image_attrs("a")}), FakeEngine()
    monkeypatch.setattr(transfer, "_copy", lambda *_: guest.store.update(one=image_attrs("b")))

    with pytest.raises(EngineError, match="one came into the virtual machine as something else"):
        vm.load(cast(vm.VirtualMachine, SimpleNamespace(client=lambda: guest)), ["one"], host=host.client, say=print)


def test_missing_image_is_one_sentence() -> None:
    one = cast(vm.VirtualMachine, SimpleNamespace(client=FakeEngine))

    with pytest.raises(EngineError, match="there is no image none") as error:
        vm.load(one, ["none"], host=FakeEngine().client, say=print)

    assert "invoke build" in error.value.hint
