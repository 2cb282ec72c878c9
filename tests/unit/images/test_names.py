"""Images: their names and sizes."""

from __future__ import annotations

import pytest

from slurm_testbed import images
from slurm_testbed.errors import EngineError
from tests.unit.images.conftest import RELEASE, FakeClient, FakeImage


def test_image_name_has_the_full_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPOSITORY", raising=False)

    assert images.image_name("slurm-client", RELEASE) == "slurm-testbed/slurm-client:24.11.5"


@pytest.mark.row("C-05.1")
def test_repository_of_the_environment_names_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOSITORY", "hokiegeek2")

    assert images.image_name("slurm-single-node", "22.05.8") == "hokiegeek2/slurm-single-node:22.05.8"


def test_given_repository_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOSITORY", "hokiegeek2")

    assert images.image_name("base", RELEASE, "mine") == "mine/base:trixie"


def test_exists_asks_the_engine(client: FakeClient) -> None:
    client.known["here:1"] = FakeImage()

    assert [images.exists(client, name) for name in ("here:1", "gone:1")] == [True, False]  # type: ignore[arg-type]


def test_sizes_are_compressed_on_demand(client: FakeClient) -> None:
    client.known["zeros:1"] = FakeImage(bytes(3 << 20))

    plain = images.sizes(client, ["zeros:1"])["zeros:1"]  # type: ignore[arg-type]
    packed = images.sizes(client, ["zeros:1"], compressed=True)["zeros:1"]  # type: ignore[arg-type]

    assert (plain.uncompressed, plain.compressed) == (3 << 20, None)
    assert packed.compressed is not None
    assert 100 < packed.compressed < 10_000, "3 MiB of zeros compress to some kB"


def test_size_of_a_missing_image_says_how_to_get_it(client: FakeClient) -> None:
    with pytest.raises(EngineError, match="there is no image gone:1") as error:
        images.sizes(client, ["gone:1"])  # type: ignore[arg-type]

    assert "invoke build" in error.value.hint
