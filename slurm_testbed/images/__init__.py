"""Names, the bake graph, building and sizes of the images."""

from slurm_testbed.images.bake import targets
from slurm_testbed.images.base import (
    BOOTSTRAP,
    BOOTSTRAP_AGE,
    BOOTSTRAP_BASE,
    REGISTRY_BASE,
    bootstrap_base,
    choose_base,
    remove_base,
)
from slurm_testbed.images.builder import SECRET_BYTES, BuiltImage, build, why_no_source
from slurm_testbed.images.names import END_OF_LIFE, REPOSITORY, SUITE, WITH_SIF, WITHOUT_RELEASE, exists, image_name
from slurm_testbed.images.progress import Runner
from slurm_testbed.images.say import Say
from slurm_testbed.images.sif import build_sif, sif_path
from slurm_testbed.images.size import Size, sizes
from slurm_testbed.images.source import GivenSource, given_source

__all__ = [
    "BOOTSTRAP",
    "BOOTSTRAP_AGE",
    "BOOTSTRAP_BASE",
    "END_OF_LIFE",
    "REGISTRY_BASE",
    "REPOSITORY",
    "SECRET_BYTES",
    "SUITE",
    "WITHOUT_RELEASE",
    "WITH_SIF",
    "BuiltImage",
    "GivenSource",
    "Runner",
    "Say",
    "Size",
    "bootstrap_base",
    "build",
    "build_sif",
    "choose_base",
    "exists",
    "given_source",
    "image_name",
    "remove_base",
    "sif_path",
    "sizes",
    "targets",
    "why_no_source",
]
