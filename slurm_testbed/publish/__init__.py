"""Publish images: tags, bill of materials, signature, source; verify them; carry them where no network is."""

from slurm_testbed.publish.archive import load, save
from slurm_testbed.publish.cosign import Signer, Verifier, key_in
from slurm_testbed.publish.push import Published, push
from slurm_testbed.publish.tags import Tags, tags_of
from slurm_testbed.publish.verify import Verified, verify

__all__ = [
    "Published",
    "Signer",
    "Tags",
    "Verified",
    "Verifier",
    "key_in",
    "load",
    "push",
    "save",
    "tags_of",
    "verify",
]
