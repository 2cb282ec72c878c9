"""jupyterhub-moss's options and partitions: old configurations, and limits that hold over the REST API."""

from __future__ import annotations

import logging
from typing import Any

import jupyterhub_moss
import pytest
from jupyterhub_slurmspawner import MOSlurmSpawner, moss
from jupyterhub_slurmspawner.refusals import NotStarted, Refused
from pydantic import ValidationError
from traitlets import TraitError

from tests.unit.slurmspawner.conftest import Make, prints, run

STOCK, OURS = jupyterhub_moss.MOSlurmSpawner, MOSlurmSpawner
PARTITION = {"jupyter_environments": {"lab": {"description": "Lab", "path": "/opt/lab/bin"}}}
PARTITIONS = {
    "debug": {**PARTITION, "max_runtime": 7200},
    "gpus": {**PARTITION, "simple": False},
    "short": {**PARTITION, "simple": False},
}
SINFO = "\n".join(
    [
        "debug 0/2/0/2 4 0/8/0/8 (null) 8000 infinite",
        "gpus 0/1/0/1 2 0/2/0/2 gpu:v100:2 4000 4:00:00",
        "short 0/1/0/1 2 0/2/0/2 (null) 4000 30:00",
    ]
)
#: The document's own three, which are of a jupyterhub-moss of its time.
OLD = {
    "partition_1": {
        "architecture": "x86_86", "description": "Partition 1", "gpu": None, "max_ngpus": 0, "max_nprocs": 28,
        "max_runtime": 12 * 3600, "simple": True, "venv": "/jupyter_env_path/bin/",
    },
    "partition_2": {
        "architecture": "ppc64le", "description": "Partition 2", "gpu": "gpu:V100-SXM2-32GB:{}", "max_ngpus": 2,
        "max_nprocs": 128, "max_runtime": 1 * 3600, "simple": True, "venv": "/path/to/jupyter/env/for/partition_2/bin/",
    },
    "partition_3": {
        "architecture": "x86_86", "description": "Partition 3", "gpu": None, "max_ngpus": 0, "max_nprocs": 28,
        "max_runtime": 12 * 3600, "simple": False, "venv": "/path/to/jupyter/env/for/partition_3/bin/",
    },
}  # fmt: skip


def make(make_spawner: Make, kind: type = OURS, **settings: Any) -> Any:
    """A spawner with our partitions, and Slurm's answer about them."""
    return make_spawner(kind, **{"partitions": PARTITIONS, "slurm_info_cmd": prints(SINFO), **settings})


def job_options(spawner: Any, **asked: Any) -> dict[str, Any]:
    """What a spawn over the REST API would submit."""
    spawner.user_options = asked
    submitted: dict[str, Any] = {}

    async def submit() -> str:
        submitted.update(spawner.user_options, default_url=spawner.default_url, notebook_dir=spawner.notebook_dir)
        raise Refused("this is as far as the test goes")

    spawner.submit_batch_script = submit
    with pytest.raises(Refused, match="as far as the test goes"):
        run(spawner.start())
    return submitted


@pytest.mark.row("M-02.8", "M-01.2")
def test_old_configuration_is_converted_in_words(
    make_spawner: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="venv"):
        make_spawner(STOCK, partitions=OLD)
    monkeypatch.setattr(moss, "_said", set())
    monkeypatch.setattr(make_spawner(OURS).log, "propagate", True)

    with caplog.at_level(logging.WARNING):
        partitions = make_spawner(OURS, partitions=OLD).partitions
        make_spawner(OURS, partitions=OLD)

    paths = {name: one["jupyter_environments"]["default"]["path"] for name, one in partitions.items()}
    assert paths == {name: one["venv"] for name, one in OLD.items()}
    assert [one["gpu"] for one in partitions.values()] == ["", "gpu:V100-SXM2-32GB:{}", ""]
    said = [record.message for record in caplog.records]
    assert len(said) == 5, "each is said once, not for each user"
    assert "partition partition_2: venv is now jupyter_environments" in caplog.text


@pytest.mark.row("M-02.6")
def test_less_than_an_hour_is_refused_in_words(make_spawner: Make) -> None:
    partitions = {"debug": {**PARTITION, "max_runtime": 1800}}
    assert make_spawner(STOCK, partitions=partitions).partitions["debug"]["max_runtime"] == 1800

    with pytest.raises(
        TraitError, match="partition debug: max_runtime is 1800 s, but the page offers nothing under an"
    ):
        make_spawner(OURS, partitions=partitions)


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        ({**PARTITION, "venv": "/x"}, "has jupyter_environments and the old venv"),
        ({**PARTITION, "max_nprocs": 0}, "debug.max_nprocs: Value must be strictly positive"),
        ({}, "debug.jupyter_environments: Field required"),
    ],
)
def test_wrong_configuration_is_refused_in_one_line(make_spawner: Make, partition: object, words: str) -> None:
    with pytest.raises(TraitError) as caught:
        make_spawner(OURS, partitions={"debug": partition})

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.row("M-06.1", "M-06.2", "M-06.3")
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"nprocs": 999}, "partition debug: 999 cores, at most 4"),
        ({"ngpus": 1}, "partition debug: it has no GPUs"),
        ({"partition": "gpus", "ngpus": 3}, "partition gpus: 3 GPUs, at most 2"),
        ({"runtime": "3:00:00"}, "partition debug: the job's time is 3:00:00, at most 2:00:00"),
        ({"runtime": "121:00"}, "partition debug: the job's time is 121:00, at most 2:00:00"),
        ({"partition": "short", "runtime": "1:00:00"}, "the job's time is 1:00:00, at most 0:30:00"),
        ({"runtime": "0"}, "partition debug: the job's time is 0, which Slurm takes for no limit"),
        ({"runtime": "0:00"}, "the job's time is 0:00, which"),
        ({"partition": "gpus", "runtime": "0-0"}, "the job's time is 0-0, which"),
        ({"runtime": "9999999999-0"}, "runtime: it is too long"),
        ({"memory": "8G"}, "partition debug: 8G of memory, at most 8000M"),
        ({"environment_id": "none"}, "no environment none, there are lab"),
        ({"nprocs": 5, "ngpus": 1}, "partition debug: 5 cores, at most 4; it has no GPUs"),
        ({"partition": "gone"}, "partition gone is not available; there are debug, gpus, short"),
        ({"nprocs": 0}, "nprocs: Input should be greater than 0"),
        ({"nprocs": "many"}, "nprocs: Input should be a valid integer"),
        ({"runtime": "soon"}, "runtime: "),
        ({"memory": "8X"}, "memory: Error in memory syntax"),
        ({"partition": "debug\n#SBATCH --qos=high"}, "partition: Must not contain newline"),
        ({"cores": 2}, "no option cores; there are "),
    ],
)
def test_limits_hold_over_the_rest_api_and_on_the_page(make_spawner: Make, asked: dict[str, Any], words: str) -> None:
    spawner = make(make_spawner)
    spawner.user_options = asked

    with pytest.raises(Refused) as caught:
        run(spawner.start())

    assert (caught.value.status_code, words in caught.value.jupyterhub_message) == (400, True), caught.value
    assert "\n" not in caught.value.jupyterhub_message
    if "cores" not in asked:  # a form may have fields of its own
        form = {"partition": ["debug"], **{name: [str(value)] for name, value in asked.items()}}
        with pytest.raises(Refused) as caught:
            run(make(make_spawner).options_from_form(form))
        assert words in caught.value.jupyterhub_message


@pytest.mark.row("M-06.1")
def test_stock_lets_the_rest_api_through(make_spawner: Make) -> None:
    """Starts to fail on the day that jupyterhub-moss checks."""
    asked = {"default_url": "", "root_dir": "", "environment_id": "", "environment_path": "", "environment_modules": ""}

    submitted = job_options(make(make_spawner, STOCK), **asked, partition="debug", nprocs=999, runtime="", gres="gpu:9")

    assert job_options(make(make_spawner, STOCK), **asked, partition="debug", runtime="0")["runtime"] == "0"
    # Without a time the partition's own limit is the job's, whatever max_runtime says.
    assert (submitted["nprocs"], submitted["runtime"], submitted["gres"]) == (999, "", "gpu:9")


def test_rest_spawn_without_options_is_what_the_page_begins_with(make_spawner: Make) -> None:
    submitted = job_options(make(make_spawner, default_url="/lab", notebook_dir="/shared/notebooks/me"))

    wanted = {
        "partition": "debug", "nprocs": 1, "runtime": "1:00:00", "memory": "", "gres": "", "options": "",
        "environment_path": "/opt/lab/bin", "default_url": "/lab", "notebook_dir": "/shared/notebooks/me",
    }  # fmt: skip
    assert {name: submitted[name] for name in wanted} == wanted
    stock = make(make_spawner, STOCK)
    stock.user_options = {}
    with pytest.raises(KeyError):
        run(stock.start())


def test_page_without_a_folder_keeps_the_sites(make_spawner: Make) -> None:
    form = {"partition": ["debug"], "runtime": ["1:00:00"], "default_url": ["/lab"]}
    for kind, folder in ((STOCK, ""), (OURS, "/shared/notebooks/me")):
        spawner = make(make_spawner, kind, notebook_dir="/shared/notebooks/me")
        options = run(spawner.options_from_form(form))
        assert job_options(spawner, **options)["notebook_dir"] == folder


def test_partition_without_a_limit_gives_an_hour_and_takes_days(make_spawner: Make) -> None:
    partitions = {"debug": PARTITION}

    assert job_options(make(make_spawner, partitions=partitions))["runtime"] == "1:00:00"
    assert job_options(make(make_spawner, partitions=partitions), runtime="99-0")["runtime"] == "99-0"


def test_shortest_partition_gives_its_own_limit(make_spawner: Make) -> None:
    assert job_options(make(make_spawner), partition="short")["runtime"] == "0:30:00"


@pytest.mark.row("M-02.2")
def test_gpus_and_all_cores_are_asked_for_as_the_page_does(make_spawner: Make) -> None:
    spawner = make(make_spawner)
    asked = run(spawner.options_from_form({"partition": ["gpus"], "ngpus": ["2"], "nprocs": ["2"], "mem": ["1G"]}))
    first = job_options(spawner, **asked)
    # What a hub kept of an earlier spawn is asked for again.
    again = job_options(make(make_spawner), **{name: first[name] for name in (*asked, "gres", "prologue")})

    for submitted in (first, again):
        assert (submitted["gres"], submitted["options"].split(), submitted["memory"]) == (
            "gpu:v100:2", ["--exclusive"], "1G",
        )  # fmt: skip


@pytest.mark.row("M-02.9")
@pytest.mark.parametrize(("kind", "srun"), [(STOCK, "srun"), (OURS, "srun --export=ALL")])
def test_step_has_the_path_that_the_script_sets(make_spawner: Make, kind: type, srun: str) -> None:
    """sbatch's --export by names holds for srun too: https://slurm.schedmd.com/sbatch.html#OPT_export"""
    spawner = make(make_spawner, kind, batch_script=kind.class_traits()["batch_script"].default_value)
    values = {**spawner.get_req_subvars(), "prologue": "export PATH=/opt/lab/bin:$PATH", "cmd": "the-server"}
    script = run(spawner._get_batch_script(**values, output="/dev/null"))

    assert f"\n{srun} the-server\n" in script
    (names,) = [
        line.partition("=")[2].split(",") for line in script.splitlines() if "--export=" in line and "#" in line
    ]
    assert "PATH" not in names, "the hub passes it now: ours can go"


@pytest.mark.parametrize(
    ("kind", "output", "sent"),
    [(STOCK, "slurm-%j.out", True), (OURS, "slurm-%j.out", False), (OURS, "/dev/null", True)],
)
def test_session_log_that_is_saved_is_not_sent_elsewhere(
    make_spawner: Make, kind: type, output: str, sent: bool
) -> None:
    """sbatch's arguments hold before what its script says: https://slurm.schedmd.com/sbatch.html"""
    submit = "sbatch --output=/logs/{username}.out --error=/logs/%j.err -J x"
    spawner = make(make_spawner, kind, batch_submit_cmd=submit)
    spawner.user_options = {"output": output}
    ran: list[str] = []

    async def note(command: str, **_: Any) -> str:
        ran.append(command)
        return "5"

    spawner.run_command = note
    run(spawner.submit_batch_script())

    (words,) = (command.split() for command in ran)
    logs = [f"--output=/logs/{spawner.user.name}.out", "--error=/logs/%j.err"]
    # Our spawner's mark is the last argument.
    assert words[: 5 if sent else 3] == ["sbatch", *(logs if sent else []), "-J", "x"]


def test_user_cannot_give_what_is_derived(make_spawner: Make) -> None:
    submitted = job_options(make(make_spawner), gres="gpu:v100:8", prologue="module load evil")

    assert (submitted["gres"], submitted["prologue"]) == ("", '\nexport PATH="/opt/lab/bin:$PATH"')


def test_partition_that_vanished_is_left_out_of_the_page(make_spawner: Make) -> None:
    one = prints("gpus 0/1/0/1 2 0/2/0/2 gpu:v100:2 4000 4:00:00")
    with pytest.raises(KeyError):
        run(make(make_spawner, STOCK, slurm_info_cmd=one)._get_partitions_info())

    assert list(run(make(make_spawner, slurm_info_cmd=one)._get_partitions_info())) == ["gpus"]


@pytest.mark.parametrize(
    ("sinfo", "words"),
    [
        (prints("other 0/1/0/1 2 0/2/0/2 (null) 1 1:00:00"), "Slurm has none of the partitions that this page offers"),
        ("echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1", "Unable to contact slurm"),
    ],
)
def test_page_without_slurm_says_so(make_spawner: Make, sinfo: str, words: str) -> None:
    with pytest.raises(NotStarted, match=words) as caught:
        run(make(make_spawner, slurm_info_cmd=sinfo)._get_partitions_info())

    assert caught.value.status_code == 503
