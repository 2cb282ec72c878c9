"""The REST client against a small HTTP server that answers as slurmrestd does, right or wrong."""

from __future__ import annotations

import json
import socket
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from slurm_testbed.errors import RestUnreachableError, SlurmRestError, SlurmTestbedError
from slurm_testbed.rest import Rest

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdW4iOiJhbGljZSJ9.do-not-show"

#: What `/openapi/v3` of each release lists; the paths end in a slash in some and not in others.
PATHS = {
    "20.11": ["/openapi", "/slurm/v0.0.36/ping/", "/slurm/v0.0.35/ping/", "/slurmdb/v0.0.36/jobs/"],
    "22.05": [f"/{api}/v0.0.{n}/jobs/" for n in (38, 36, 37) for api in ("slurm", "slurmdb")],
    "24.11": [f"/{api}/v0.0.{n}/ping" for api in ("slurmdb", "slurm") for n in (41, 42, 40)],
    "26.05": [f"/slurm/v0.0.{n}/ping/" for n in (45, 44, 43, 42)],
}


@dataclass
class Asked:
    """A request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Slurmrestd:
    """A server with prepared answers: (method, path) to (status, body)."""

    url: str
    answers: dict[tuple[str, str], tuple[int, object]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    #: Answers to paths in `slow` come when this is set.
    released: threading.Event = field(default_factory=threading.Event)
    slow: set[str] = field(default_factory=set)

    def serve(self, release: str) -> None:
        self.answers["GET", "/openapi/v3"] = (200, {"paths": {path: {} for path in PATHS[release]}})


@pytest.fixture
def slurmrestd() -> Iterator[Slurmrestd]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.asked.append(Asked(self.command, self.path, dict(self.headers.items()), body))
            if self.path in fake.slow:
                fake.released.wait()
            missing = (404, "Unable find requested URL. Please view /openapi/v3 for API reference.")
            status, said = fake.answers.get((self.command, self.path), missing)
            text = said if isinstance(said, str) else json.dumps(said)
            kind = "text/plain" if isinstance(said, str) else "application/json"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            if status >= 300:
                self.send_header("Connection", "Close")
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing where a client that timed out has gone."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = Slurmrestd(f"http://127.0.0.1:{server.server_port}")
    fake.serve("24.11")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def rest(slurmrestd: Slurmrestd) -> Iterator[Rest]:
    with Rest(slurmrestd.url, "alice", TOKEN) as rest:
        yield rest


def shown(error: BaseException) -> str:
    """All that a traceback would print of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("20.11", ["v0.0.35", "v0.0.36"]),
        ("22.05", ["v0.0.36", "v0.0.37", "v0.0.38"]),
        ("24.11", ["v0.0.40", "v0.0.41", "v0.0.42"]),
        ("26.05", ["v0.0.42", "v0.0.43", "v0.0.44", "v0.0.45"]),
    ],
)
def test_versions_are_found_oldest_first(slurmrestd: Slurmrestd, rest: Rest, release: str, expected: list[str]) -> None:
    slurmrestd.serve(release)

    versions = rest.versions()

    assert versions == expected, f"found {versions}"
    assert rest.version == expected[-1], f"the newest is {rest.version}"


def test_versions_are_sorted_as_numbers(slurmrestd: Slurmrestd, rest: Rest) -> None:
    paths = {"/slurm/v0.0.100/ping": {}, "/slurm/v0.0.99/ping": {}}
    slurmrestd.answers["GET", "/openapi/v3"] = (200, {"paths": paths})

    assert rest.version == "v0.0.100", f"the newest is {rest.version}"


def test_versions_are_asked_for_once(slurmrestd: Slurmrestd, rest: Rest) -> None:
    rest.versions().clear()
    rest.versions()

    assert len(slurmrestd.asked) == 1, f"asked {[asked.path for asked in slurmrestd.asked]}"
    assert rest.versions(), "a caller emptied the cache"


def test_versions_are_found_at_openapi_where_v3_is_not_served(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["GET", "/openapi"] = slurmrestd.answers.pop(("GET", "/openapi/v3"))

    assert rest.version == "v0.0.42", f"the newest is {rest.version}"


def test_versions_of_something_else_are_refused(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["GET", "/openapi/v3"] = (200, {"paths": {"/pets": {}}})

    with pytest.raises(SlurmRestError, match="names no path of Slurm"):
        rest.versions()


def test_version_given_is_spoken_without_asking(slurmrestd: Slurmrestd) -> None:
    slurmrestd.answers["GET", "/slurm/v0.0.40/ping"] = (200, {"pings": []})

    Rest(slurmrestd.url, "alice", TOKEN, version="v0.0.40").ping()

    assert [asked.path for asked in slurmrestd.asked] == ["/slurm/v0.0.40/ping"], slurmrestd.asked


def test_request_carries_user_and_token(slurmrestd: Slurmrestd, rest: Rest) -> None:
    rest.versions()

    headers = slurmrestd.asked[0].headers
    assert headers["X-SLURM-USER-NAME"] == "alice", f"the headers are {sorted(headers)}"
    assert headers["X-SLURM-USER-TOKEN"] == TOKEN, "the token is another one"


def test_request_takes_the_token_as_scontrol_prints_it(slurmrestd: Slurmrestd) -> None:
    Rest(slurmrestd.url, "alice", f"SLURM_JWT={TOKEN}\n").versions()

    assert slurmrestd.asked[0].headers["X-SLURM-USER-TOKEN"] == TOKEN, "the token was sent with its prefix"


def test_request_without_user_and_token_has_no_such_headers(slurmrestd: Slurmrestd) -> None:
    Rest(slurmrestd.url, None, None).versions()

    sent = [name for name in slurmrestd.asked[0].headers if name.startswith("X-SLURM")]
    assert sent == [], f"sent {sent}"


def test_request_goes_past_the_callers_proxy(
    slurmrestd: Slurmrestd, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    rest.versions()

    assert slurmrestd.asked, "the request went to the proxy"


def test_redirect_is_not_followed_with_the_token(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["GET", "/openapi/v3"] = (302, "elsewhere")

    with pytest.raises(SlurmRestError, match="302"):
        rest.versions()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, "/slurm/v0.0.42/nodes"),
        ({"version": "v0.0.40"}, "/slurm/v0.0.40/nodes"),
        ({"db": True}, "/slurmdb/v0.0.42/nodes"),
        ({"params": {"update_time": 1}}, "/slurm/v0.0.42/nodes?update_time=1"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_path_is_made_of_api_version_and_query(
    slurmrestd: Slurmrestd, rest: Rest, method: str, how: dict[str, Any], expected: str
) -> None:
    slurmrestd.answers[method, expected] = (200, {"nodes": [], "errors": []})
    body = {"json": {"a": 1}} if method == "POST" else {}

    answer = getattr(rest, method.lower())("/nodes", **body, **how)

    assert answer == {"nodes": [], "errors": []}, f"the answer is {answer}"
    # 22.05 refuses a body on anything but POST.
    assert slurmrestd.asked[-1].body == body.get("json"), f"the body is {slurmrestd.asked[-1].body}"


def test_status_of_an_error_comes_with_slurms_text(slurmrestd: Slurmrestd, rest: Rest) -> None:
    errors = [
        {
            "description": "Unable to query JobId=99",
            "error_number": 2017,
            "error": "Invalid job id specified",
            "source": "_handle_job_get",
        }
    ]
    slurmrestd.answers["GET", "/slurm/v0.0.42/job/99"] = (404, {"jobs": [], "errors": errors})

    with pytest.raises(SlurmRestError, match=r"404 .*Invalid job id specified Unable to query JobId=99") as refusal:
        rest.job(99)

    assert (refusal.value.status, refusal.value.errors) == (404, errors), f"it says {refusal.value.errors}"
    assert refusal.value.hint == "", f"a missing job is no missing version: {refusal.value.hint}"


def test_errors_in_an_answer_of_200_are_errors(slurmrestd: Slurmrestd, rest: Rest) -> None:
    errors = [{"error_number": 1, "error": "Unspecified error"}]
    slurmrestd.answers["GET", "/slurm/v0.0.42/jobs"] = (200, {"jobs": [], "errors": errors})

    with pytest.raises(SlurmRestError, match="Unspecified error"):
        rest.jobs()


def test_warnings_are_no_errors(slurmrestd: Slurmrestd, rest: Rest) -> None:
    warnings = [{"description": 'Field "script" is deprecated', "source": "#/script/"}]
    answer = {"jobs": [{"job_id": 1}], "errors": [], "warnings": warnings}
    slurmrestd.answers["GET", "/slurm/v0.0.42/jobs"] = (200, answer)

    jobs = rest.jobs()

    assert jobs == [{"job_id": 1}], f"the jobs are {jobs}"


def test_error_without_text_names_the_status(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["GET", "/slurm/v0.0.42/jobs"] = (502, {"errors": []})

    with pytest.raises(SlurmRestError, match=r"502 .*Bad Gateway"):
        rest.jobs()


def test_missing_authentication_says_how_to_get_a_token(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["GET", "/openapi/v3"] = (401, "Authentication failure")

    with pytest.raises(SlurmRestError, match=r"401 .*Authentication failure") as refusal:
        rest.versions()

    assert "scontrol token" in refusal.value.hint, f"the hint is {refusal.value.hint}"


@pytest.mark.parametrize(("status", "number"), [(511, "error_number"), (500, "error_code"), (500, "errno")])
def test_token_refused_by_slurmctld_says_what_may_be_wrong(
    slurmrestd: Slurmrestd, rest: Rest, status: int, number: str
) -> None:
    errors = [{number: 1007, "error": "Protocol authentication error"}]
    slurmrestd.answers["GET", "/slurm/v0.0.42/jobs"] = (status, {"errors": errors})

    with pytest.raises(SlurmRestError, match="Protocol authentication error") as refusal:
        rest.jobs()

    assert "expired" in refusal.value.hint, f"the hint is {refusal.value.hint}"


def test_unserved_version_says_which_are_served(rest: Rest) -> None:
    rest.versions()

    with pytest.raises(SlurmRestError, match=r"404 .*Unable find requested URL") as refusal:
        rest.get("ping", version="v0.0.37")

    assert "v0.0.40, v0.0.41, v0.0.42" in refusal.value.hint, f"the hint is {refusal.value.hint}"


@pytest.mark.parametrize("said", ["<html>a login page</html>", "", [1, 2]], ids=["html", "empty", "list"])
def test_answer_that_is_no_json_object_is_an_error(slurmrestd: Slurmrestd, rest: Rest, said: object) -> None:
    slurmrestd.answers["GET", "/slurm/v0.0.42/jobs"] = (200, said)

    with pytest.raises(SlurmRestError, match="the answer is no JSON object"):
        rest.jobs()


def test_refused_connection_points_to_slurmrestds_log() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        with pytest.raises(RestUnreachableError, match="Connection refused") as failure:
            Rest(url, "alice", TOKEN).versions()

    assert url in str(failure.value), "it does not say where it looked"
    assert "slurmrestd's log" in failure.value.hint, f"the hint is {failure.value.hint}"
    assert TOKEN not in shown(failure.value), "the token shows"


def test_connection_closed_without_an_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        with pytest.raises(RestUnreachableError, match=r"without response|reset by peer"):
            Rest(url, "alice", TOKEN).versions()


def test_answer_that_does_not_come_is_given_up(slurmrestd: Slurmrestd) -> None:
    slurmrestd.slow.add("/openapi/v3")

    with pytest.raises(RestUnreachableError, match=r"no answer to GET .*/openapi/v3 within 0\.05 s"):
        Rest(slurmrestd.url, "alice", TOKEN, timeout=0.05).versions()


@pytest.mark.parametrize(
    ("version", "given", "sent"),
    [
        ("v0.0.36", {"LANG": "C"}, {"LANG": "C"}),
        ("v0.0.38", ["LANG=C", "A=b=c"], {"LANG": "C", "A": "b=c"}),
        ("v0.0.39", {"LANG": "C"}, ["LANG=C"]),
        ("v0.0.42", {"LANG": "C", "A": "b=c"}, ["LANG=C", "A=b=c"]),
        ("v0.0.100", ["LANG=C"], ["LANG=C"]),
    ],
)
def test_submit_sends_the_environment_as_the_version_wants_it(
    slurmrestd: Slurmrestd, version: str, given: object, sent: object
) -> None:
    slurmrestd.answers["POST", f"/slurm/{version}/job/submit"] = (200, {"job_id": 7, "errors": []})

    Rest(slurmrestd.url, "alice", TOKEN, version=version).submit("#!/bin/sh", environment=given)

    environment = slurmrestd.asked[-1].body["job"]["environment"]
    assert environment == sent, f"sent {environment}"


def test_submit_sends_script_and_fields_and_returns_the_id(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["POST", "/slurm/v0.0.42/job/submit"] = (200, {"job_id": 7, "errors": []})

    job_id = rest.submit("#!/bin/sh\nhostname", partition="debug", current_working_directory="/shared")

    asked = slurmrestd.asked[-1]
    assert job_id == 7, f"the id is {job_id}"
    assert asked.headers["Content-Type"] == "application/json", "slurmrestd would read it as a form"
    assert asked.body["script"] == "#!/bin/sh\nhostname", f"sent {asked.body}"
    fields = {name: asked.body["job"][name] for name in ("partition", "current_working_directory")}
    assert fields == {"partition": "debug", "current_working_directory": "/shared"}, f"sent {asked.body}"


def test_submit_sends_what_slurm_refuses_a_job_without(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["POST", "/slurm/v0.0.42/job/submit"] = (200, {"job_id": 7, "errors": []})

    rest.submit("#!/bin/sh")

    job = slurmrestd.asked[-1].body["job"]
    assert job["current_working_directory"] == "/tmp", f"sent {job}"
    assert [line.partition("=")[0] for line in job["environment"]] == ["PATH"], f"sent {job}"


def test_submit_refused_is_told_in_slurms_words(slurmrestd: Slurmrestd, rest: Rest) -> None:
    errors = [{"error_number": 2000, "error": "Invalid partition name specified", "description": ""}]
    slurmrestd.answers["POST", "/slurm/v0.0.42/job/submit"] = (500, {"errors": errors})

    with pytest.raises(SlurmRestError, match="Invalid partition name specified"):
        rest.submit("#!/bin/sh", partition="none")


def test_submit_refused_with_200_is_told_in_slurms_words(slurmrestd: Slurmrestd, rest: Rest) -> None:
    errors = [{"error_number": 2000, "error": "Invalid partition name specified"}]
    slurmrestd.answers["POST", "/slurm/v0.0.42/job/submit"] = (200, {"job_id": 0, "errors": errors})

    with pytest.raises(SlurmRestError, match="Invalid partition name specified"):
        rest.submit("#!/bin/sh", partition="none")


def test_submit_accepted_with_a_remark_returns_the_id(slurmrestd: Slurmrestd, rest: Rest) -> None:
    errors = [{"error_code": 2016, "error": "Requested nodes are busy"}]
    slurmrestd.answers["POST", "/slurm/v0.0.42/job/submit"] = (200, {"job_id": 7, "errors": errors})

    job_id = rest.submit("#!/bin/sh")

    assert job_id == 7, f"the id is {job_id}"


def test_job_is_the_one_that_was_asked_for(slurmrestd: Slurmrestd, rest: Rest) -> None:
    jobs = [{"job_id": 6, "name": "other"}, {"job_id": 7, "name": "mine"}]
    slurmrestd.answers["GET", "/slurm/v0.0.42/job/7"] = (200, {"jobs": jobs, "errors": []})

    job = rest.job(7)

    assert job["name"] == "mine", f"the job is {job}"


def test_job_missing_from_an_answer_of_200_is_an_error(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["GET", "/slurm/v0.0.42/job/7"] = (200, {"jobs": [], "errors": []})

    with pytest.raises(SlurmRestError, match="no job 7"):
        rest.job(7)


def test_cancel_deletes_the_job(slurmrestd: Slurmrestd, rest: Rest) -> None:
    slurmrestd.answers["DELETE", "/slurm/v0.0.42/job/7"] = (200, {"errors": []})

    rest.cancel(7)

    asked = slurmrestd.asked[-1]
    assert (asked.method, asked.path) == ("DELETE", "/slurm/v0.0.42/job/7"), f"asked {asked.method} {asked.path}"


def test_ping_lists_the_controllers(slurmrestd: Slurmrestd, rest: Rest) -> None:
    pings = [{"hostname": "slurm", "pinged": "UP", "mode": "primary"}]
    slurmrestd.answers["GET", "/slurm/v0.0.42/ping"] = (200, {"pings": pings, "errors": []})

    assert rest.ping() == pings, "other controllers than served"


def test_token_is_not_in_repr(rest: Rest) -> None:
    assert TOKEN not in repr(rest), repr(rest)
    assert "alice" in repr(rest), repr(rest)


@pytest.mark.parametrize(
    "answer",
    [
        (200, f"you sent X-SLURM-USER-TOKEN: {TOKEN}"),
        (500, f"cannot read {TOKEN}"),
        (500, {"errors": [{"error": f"cannot read {TOKEN}"}]}),
        (200, {"errors": [f"cannot read {TOKEN}"]}),
    ],
    ids=["text 200", "text 500", "json 500", "json 200"],
)
def test_token_that_is_echoed_is_not_in_the_error(
    slurmrestd: Slurmrestd, rest: Rest, answer: tuple[int, object]
) -> None:
    slurmrestd.answers["GET", "/slurm/v0.0.42/jobs"] = answer

    with pytest.raises(SlurmRestError) as refusal:
        rest.jobs()

    assert TOKEN not in shown(refusal.value) + repr(refusal.value.errors), "the token shows"
    assert "***" in str(refusal.value), "the answer's text is gone"


@pytest.mark.parametrize("broken", [f"{TOKEN}\nX-Other: 1", f"{TOKEN}\r\n two"], ids=["line", "fold"])
def test_token_that_is_no_header_is_refused_without_showing_it(slurmrestd: Slurmrestd, broken: str) -> None:
    with pytest.raises(SlurmTestbedError, match="cannot stand in an HTTP header") as failure:
        Rest(slurmrestd.url, "alice", broken).versions()

    assert TOKEN not in shown(failure.value), "the token shows"
    assert slurmrestd.asked == [], "the request was sent"
