"""A registry: blobs and manifests, up and down, with retries; credentials from Docker's own configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import docker.auth
import oras.auth
import oras.container
import oras.provider
import requests
import requests.adapters
import tenacity

from slurm_testbed.errors import PublishError, UsageError
from slurm_testbed.images.builder import ca_bundle
from slurm_testbed.publish import oci
from slurm_testbed.publish.streams import digest_of

T = TypeVar("T")

#: Tries of each request; with the pauses between them, which double, 8 seconds for what goes away by itself.
TRIES = 6
_WAIT = tenacity.wait_exponential(multiplier=0.25, max=8)
_ACCEPTED = (
    oci.INDEX,
    oci.MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHUNK = 1 << 20
#: Seconds to connect, and between two answers of the registry.
_TIMEOUT = (10, 120)
#: Docker Hub's registry has another name than its images.
_HUB = {"docker.io": "registry-1.docker.io"}


class _TemporaryError(Exception):
    """The registry did not take a request now, and may take it later."""


class Registry:
    """A registry, and a folder of repositories in it.

    Args:
        address: the registry's host, perhaps a port, and perhaps a path: `registry.example.org/hpc`.

    Raises:
        UsageError: it is no address.
        PublishError: no registry answers, or it does not let us in.

    Example:
        >>> Registry("127.0.0.1:5000").tag("slurm-client", "24.11", index)  # doctest: +SKIP
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.host = host_of(self.address)
        self._session = _Session(self.host)

    def reference(self, repository: str) -> str:
        """The name of a repository with its registry, as docker pull takes it."""
        return f"{self.address}/{repository}"

    # --- up ----------------------------------------------------------------------------------------------

    def upload(self, repository: str, blob: oci.Blob) -> None:
        """Upload a blob that the registry has not.

        Args:
            repository: where to.
            blob: the blob.

        Raises:
            PublishError: the registry did not take it.
        """
        what = f"{blob.digest} of {repository} ({blob.size / 1e6:.1f} MB)"
        with tempfile.TemporaryDirectory(prefix="slurm-testbed-blob-") as folder:
            path = blob.path
            if path is None:
                path = Path(folder) / "blob"
                path.write_bytes(blob.content)
            layer = {"digest": blob.digest, "size": blob.size}
            # An upload that broke is begun again, from the start.
            self._session.retrying(
                what, lambda: self._session.upload_blob(str(path), self._container(repository), layer)
            )

    def put(self, repository: str, reference: str, document: oci.Blob) -> None:
        """Put a manifest or an index, under its digest or a tag; what it refers to is there already.

        Args:
            repository: where to.
            reference: a tag or the document's digest.
            document: the manifest or the index.

        Raises:
            PublishError: the registry did not take it.
        """
        self._session.retrying(
            f"{repository}:{reference}",
            lambda: self._session.do_request(
                self._url(repository, reference),
                "PUT",
                data=document.content,
                headers={"Content-Type": document.media_type},
            ),
        )

    # --- down --------------------------------------------------------------------------------------------

    def get(self, repository: str, reference: str) -> oci.Blob | None:
        """A manifest or an index, checked against the digest if that is the reference; None where there is none.

        Args:
            repository: where from.
            reference: a tag or a digest.

        Raises:
            PublishError: the registry does not answer, or not with what was asked for.
        """
        response = self._session.retrying(
            f"{repository}:{reference}",
            lambda: self._session.do_request(
                self._url(repository, reference), "GET", headers={"Accept": ", ".join(_ACCEPTED)}
            ),
        )
        if response.status_code == requests.codes.not_found:
            return None
        content = response.content
        if reference.startswith("sha256:") and digest_of(content) != reference:
            raise PublishError(f"the registry has {digest_of(content)} under {repository}@{reference}")
        return oci.Blob(response.headers["Content-Type"], digest_of(content), len(content), content=content)

    def blob(self, repository: str, descriptor: Mapping[str, Any]) -> bytes:
        """A blob, read whole and compared with its descriptor.

        Args:
            repository: where it is.
            descriptor: its digest and size.

        Raises:
            PublishError: it is missing, cut short, or another one.
        """
        digest, container = descriptor["digest"], self._container(repository)
        what = f"{digest} of {repository}"

        def fetch() -> bytes:
            with self._session.get_blob(container, digest, stream=True) as response:
                if response.status_code == requests.codes.not_found:
                    raise PublishError(f"{self.host} has no {what}: the image is not whole")
                return b"".join(response.iter_content(_CHUNK))

        content: bytes = self._session.retrying(what, fetch)
        if digest_of(content) != digest or len(content) != descriptor["size"]:
            raise PublishError(
                f"{self.host} has {digest_of(content)} of {len(content)} bytes in place of {what}",
                hint="it was changed or damaged: do not use it",
            )
        return content

    def _container(self, repository: str) -> oras.container.Container:
        path = self.reference(repository).removeprefix(self.host)
        return oras.container.Container(self._session.hostname + path)

    def _url(self, repository: str, reference: str) -> str:
        return f"https://{self._container(repository).manifest_url(reference)}"


def host_of(address: str) -> str:
    """The host in the address of a registry, or of an image.

    Args:
        address: host, perhaps a port, and path.

    Raises:
        UsageError: there is none in it.

    Example:
        >>> host_of("registry.example.org:5000/hpc")
        'registry.example.org:5000'
    """
    host = address.partition("/")[0]
    if host != "localhost" and not {".", ":"}.intersection(host):
        raise UsageError(
            f"{address or 'nothing'} names no registry",
            hint="give host, perhaps port, and path: ghcr.io/me, registry.example.org:5000",
        )
    return host


class _Adapter(requests.adapters.HTTPAdapter):
    """Lets no request wait for ever, which is what requests does where nobody gives a time-out."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send with a time-out."""
        kwargs["timeout"] = kwargs.get("timeout") or _TIMEOUT
        return super().send(*args, **kwargs)


class _Session(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """oras's client, with credentials that docker found, and with our retries in place of its own.

    Its own repeat a wrong password for two minutes.
    """

    def __init__(self, named: str) -> None:
        host = _HUB.get(named, named)
        super().__init__(hostname=host, tls_verify=ca_bundle(lambda _: None) or True)
        self._named = named
        self.session.mount("https://", _Adapter())
        answer = self.retrying("its version", lambda: self.session.get(f"https://{host}/v2/", verify=self._tls_verify))
        self._basic = answer.headers.get("WWW-Authenticate", "").lower().startswith("basic")
        if self._basic:
            self.auth = oras.auth.get_auth_backend("basic", self.session, tls_verify=self._tls_verify)
        found = docker.auth.load_config().resolve_authconfig(named) or {}
        self._user = found.get("username") or found.get("Username") or ""
        password = found.get("password") or found.get("Password") or ""
        if self._user:
            self.auth.set_basic_auth(self._user, password)
        elif self._basic:
            raise self._denied()

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> requests.Response:
        """Send one request, with credentials; other answers than success raise, but for 404 to a question."""
        headers = dict(headers or {})
        # An upload may be told to go elsewhere, where our password is none of their business.
        if self._basic and url.startswith(f"https://{self.hostname}/"):
            headers |= self.auth.get_auth_header()
        send = oras.provider.Registry.do_request.__wrapped__
        try:
            response = send(self, url, method, data, headers, json, stream)
            if response.status_code == requests.codes.unauthorized and getattr(self.auth, "token", None):
                # The token has expired, or is one for reading.
                self.auth.token = None
                response = send(self, url, method, data, headers, json, stream)
        except requests.RequestException:
            raise
        except ValueError:  # no token is to be had
            raise self._denied() from None
        return self._checked(response, asked=method in {"GET", "HEAD"})

    def retrying(self, what: str, call: Callable[[], T]) -> T:
        """Call until it works; what does not go away by itself is not tried again.

        Args:
            what: what is sent or asked for.
            call: does it.

        Raises:
            PublishError: it did not work.
        """
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_goes_away),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=_WAIT,
            reraise=True,
        )
        try:
            return tries(call)
        except (requests.RequestException, _TemporaryError, ValueError) as error:
            times = f", tried {TRIES} times" if _goes_away(error) else ""
            raise PublishError(f"{self._named}: {what}{times}: {error}", hint=_hint(error)) from None

    def _checked(self, response: requests.Response, *, asked: bool) -> requests.Response:
        code = response.status_code
        if response.ok or (asked and code == requests.codes.not_found):
            return response
        if code in {requests.codes.unauthorized, requests.codes.forbidden}:
            raise self._denied()
        text = f"the registry answered {code} {response.text.strip()[:300]}"
        if code == requests.codes.too_many_requests or code >= requests.codes.server_error:
            raise _TemporaryError(text)
        raise PublishError(f"{self._named}: {text}")

    def _denied(self) -> PublishError:
        who = (
            f"{self._user}, with the password of Docker's configuration" if self._user else "anybody without a password"
        )
        return PublishError(f"{self._named} does not let in {who}", hint=f"log in: docker login {self._named}")


def _goes_away(error: BaseException) -> bool:
    """Whether it is worth another try."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, (_TemporaryError, *broken))


def _hint(error: BaseException) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "name the file of the authority that signed its certificate: SSL_CERT_FILE=ca.pem"
    if isinstance(error, _TemporaryError):
        return "see the registry's log: it may be full"
    return "see whether it runs, and speaks TLS"
