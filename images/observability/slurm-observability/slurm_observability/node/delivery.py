"""Brings the spool's events to the service: each once, those of one job in order, and none is given up."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import requests
import tenacity

from slurm_observability.node.spool import Ready, Spool
from slurm_observability.schema import IDEMPOTENCY_KEY, MOST_AT_ONCE

log = logging.getLogger(__name__)

#: The event itself is at fault, and will be at every attempt; any other answer may change.
_NEVER = frozenset({400, 409, 413, 415, 422})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0


class Outcome(Enum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    #: This event later; others may pass meanwhile.
    LATER = "later"
    #: Nothing passes now.
    AWAY = "away"


@dataclass(frozen=True)
class Answer:
    """What the service said, or why it said nothing.

    Attributes:
        pause: seconds after which the service wants to be asked again.
        body: what a good answer brings.
    """

    outcome: Outcome
    text: str = ""
    pause: float = 0
    body: Any = None


class Service:
    """The service, from a node.

    Args:
        url: its address, e.g. https://observability:8443.
        token_file: holds the agent's token; read for every request, for it may be replaced.
        ca_file: whose certificates to believe; the system's where none is given.
        timeout: seconds to connect, and to wait for an answer.
    """

    def __init__(
        self, url: str, *, token_file: Path | None = None, ca_file: Path | None = None, timeout: float = 5
    ) -> None:
        self.url = url.rstrip("/")
        self._token_file = token_file
        self._ca_file = ca_file
        self._timeout = timeout
        self._local = threading.local()

    def post(self, endpoint: str, body: Any, *, key: str | None = None) -> Answer:
        """Send it, once."""
        headers = {"Content-Type": "application/json", **({IDEMPOTENCY_KEY: key} if key else {})}
        try:
            if self._token_file:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        except (OSError, UnicodeError) as error:
            return Answer(Outcome.AWAY, f"the token cannot be read: {self._token_file}: {error}")
        try:
            # Redirected, a POST would become a GET.
            response = self._session().post(
                self.url + endpoint,
                data=json.dumps(body).encode(),
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except OSError as error:  # requests' own are such, and a CA's file that is not there is one
            return Answer(Outcome.AWAY, str(error))
        return _judge(response)

    def _session(self) -> requests.Session:
        """One for each thread: requests does not say that they can be shared."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # Neither a proxy nor credentials of the host's environment.
            session.trust_env = False
            session.verify = str(self._ca_file) if self._ca_file else True
        return session


class Delivery(threading.Thread):
    """Sends what waits in the spool.

    Args:
        spool: where the events wait.
        service: where they go.
        pauses: seconds between attempts, the first and the longest; they double.
    """

    def __init__(
        self, spool: Spool, service: Service, *, pauses: tuple[float, float] = (_FIRST_PAUSE, _LONGEST_PAUSE)
    ) -> None:
        super().__init__(name="delivery", daemon=True)
        self._spool = spool
        self._service = service
        self._pauses = pauses
        self._woken = threading.Event()
        self._asked_for = 0.0
        self.trouble: str | None = None

    def run(self) -> None:
        while True:
            self._woken.clear()
            try:
                self.deliver()
            except Exception:
                # As where the spool's disk is full: what waits there waits on.
                log.exception("events wait in %s, and are sent again in %g s", self._spool.ready, self._pauses[1])
                self._woken.wait(self._pauses[1])
                continue
            self._woken.wait()

    def wake(self) -> None:
        """There are new events."""
        self._woken.set()

    def deliver(self) -> None:
        """Send all that waits, however long the service is away."""
        first, longest = self._pauses
        backoff = tenacity.wait_exponential(multiplier=first, max=longest) + tenacity.wait_random(0, first)
        tenacity.Retrying(
            retry=tenacity.retry_if_result(bool),
            wait=lambda state: max(self._asked_for, backoff(state)),
        )(self.attempt)

    def attempt(self) -> bool:
        """Try once to send each event that waits.

        Returns:
            whether some wait still.
        """
        self._asked_for = 0.0
        held_up: set[int] = set()
        trouble = None
        for event, answer in self._answers(held_up):
            if self._settled(event, answer):
                continue
            held_up.add(event.job_id)
            trouble = answer.text
            self._asked_for = max(self._asked_for, answer.pause)
            if answer.outcome is Outcome.AWAY:
                break
        self._say(trouble)
        return bool(held_up)

    def _answers(self, held_up: set[int]) -> Iterator[tuple[Ready, Answer]]:
        """Send each event that waits, but those of jobs that are held up, and say what became of it.

        What waits together is sent together; where that does not pass, one by one, to see which one is at fault.
        """
        waiting = (event for event in self._spool.waiting() if event.job_id not in held_up)
        while events := list(islice(waiting, MOST_AT_ONCE)):
            together = self._send_together(events) if len(events) > 1 else None
            if together and together.outcome in {Outcome.DELIVERED, Outcome.AWAY}:
                yield from ((event, together) for event in events)
                continue
            for event in events:
                if event.job_id not in held_up:
                    yield event, self._send(event)

    def _send(self, event: Ready) -> Answer:
        answer = self._service.post(event.endpoint, event.body, key=event.key)
        return _with_receipts(answer, [answer.body], [event])

    def _send_together(self, events: Sequence[Ready]) -> Answer:
        reports = [{"kind": event.kind, "key": event.key, "event": event.body} for event in events]
        answer = self._service.post("/v1/events", {"events": reports})
        receipts = answer.body.get("events") if isinstance(answer.body, dict) else None
        return _with_receipts(answer, receipts if isinstance(receipts, list) else [], events)

    def _settled(self, event: Ready, answer: Answer) -> bool:
        if answer.outcome is Outcome.DELIVERED:
            self._spool.sent(event)
        elif answer.outcome is Outcome.REFUSED:
            log.error(
                "the service will never take %s, put aside in %s: %s", event.key, self._spool.refused, answer.text
            )
            self._spool.refuse(event, answer.text)
        else:
            return False
        return True

    def _say(self, trouble: str | None) -> None:
        if trouble and not self.trouble:
            log.warning("events wait in %s: %s", self._spool.ready, trouble)
        elif self.trouble and not trouble:
            log.warning("the service takes events again")
        self.trouble = trouble


def _with_receipts(answer: Answer, receipts: Sequence[Any], events: Sequence[Ready]) -> Answer:
    """The answer, if it says that the service has the events: a page that says 200 to everything does not."""
    keys = [receipt.get("key") for receipt in receipts if isinstance(receipt, dict)]
    if answer.outcome is not Outcome.DELIVERED or keys == [event.key for event in events]:
        return answer
    return Answer(Outcome.AWAY, f"this is no service of ours: {answer.text}")


def _judge(response: requests.Response) -> Answer:
    text = f"{response.status_code} {response.reason}: {response.text[:2000]}"
    if response.ok and not response.is_redirect:
        try:
            return Answer(Outcome.DELIVERED, text, body=response.json())
        except ValueError:
            return Answer(Outcome.AWAY, f"no JSON in the answer: {text}")
    if response.status_code in _NEVER:
        return Answer(Outcome.REFUSED, text)
    asked_for = response.headers.get("Retry-After", "")
    pause = float(asked_for) if asked_for.isdecimal() else 0.0
    # 5xx may be this event's alone; a limit, a wrong token and a wrong address are everyone's.
    return Answer(
        Outcome.LATER if response.status_code >= 500 and response.status_code != 503 else Outcome.AWAY, text, pause
    )
