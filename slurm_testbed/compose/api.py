"""What the services beside Slurm have in common: an address, a token, and errors in their own words."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from slurm_testbed.errors import ApiError


class Api:
    """A REST API that takes a token.

    Args:
        url: where it is, up to what all its paths begin with.
        scheme: the word before the token in the header Authorization.
        error: what is raised when it refuses.
        words: finds what the service says in the body of an answer that is an error.
        certificate: of the service, in PEM, where no authority vouches for it.

    Example:
        >>> Api("http://127.0.0.1:1/", "token", ApiError, dict.get).ask("GET", "users", "secret")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        slurm_testbed.errors.ApiError: nothing answers at http://127.0.0.1:1/users: ...
    """

    def __init__(
        self,
        url: str,
        scheme: str,
        error: type[ApiError],
        words: Callable[[dict[str, Any]], str | None],
        certificate: str = "",
    ) -> None:
        self._url, self._scheme, self._error, self._words = url, scheme, error, words
        self._session = requests.Session()
        # Proxies and ~/.netrc of the caller's environment are left aside, so that the token goes nowhere else.
        self._session.trust_env = False
        # JupyterHub's proxy ends a connection that is idle for 5 s, which may be just as the next request comes.
        self._session.headers["Connection"] = "close"
        if certificate:
            self._session.mount("https://", _Believing(certificate))

    def ask(self, method: str, path: str, token: str | None, **options: Any) -> requests.Response:
        """Send a request, and return the answer.

        Args:
            method: `GET`, `POST`, `DELETE` …
            path: what follows the address.
            token: the caller's; None to ask without one.
            options: of `requests.request`.

        Raises:
            ApiError: of the kind that was given: the service refused, or nothing answers.
        """
        by = {"Authorization": f"{self._scheme} {token}"} if token else {}
        headers = {**by, **options.pop("headers", {})}
        url = self._url + path
        try:
            answer = self._session.request(method, url, headers=headers, **{"timeout": 60, **options})
        except requests.RequestException as error:
            raise self._error(0, f"nothing answers at {url}: {error}") from error
        if not answer.ok:
            raise self._error(answer.status_code, f"{method} {path}: {self._said(answer)}")
        return answer

    def _said(self, answer: requests.Response) -> str:
        try:
            said = self._words(answer.json())
        except (requests.JSONDecodeError, AttributeError, KeyError, TypeError):
            said = None
        return f"{answer.status_code} {said or answer.reason}"


class _Believing(HTTPAdapter):
    """Believes a certificate that is in no file, which is all that `verify` takes."""

    def __init__(self, certificate: str) -> None:
        self._certificate = certificate
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        context = ssl.create_default_context(cadata=self._certificate)
        super().init_poolmanager(*args, ssl_context=context, **more)
