"""Calls through a proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY): httpx.

Proxies, their authentication and SOCKS are what httpx does better than we would. Its timeouts are
per operation, so it works in a thread, for which the caller waits no longer than the deadline.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from fan.errors import NO, YES, DeadlineExceeded, ResourceExhausted, Unavailable
from fan.message import Request, Response
from fan.transports import http_wire as wire
from fan.transports.http_client import lost, trusting

#: What httpcore and h11 say of a connection that ended, with the same class as for noise.
_CUT = ("disconnected", "peer closed connection")
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


class Proxied:
    """One httpx client, made when an address needs it."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._is_idle = not any(os.environ.get(v) or os.environ.get(v.upper()) for v in _VARIABLES)
        self._known: dict[wire.Origin, bool] = {}
        self._client: Any = None
        self._pid = 0

    def is_for(self, origin: wire.Origin) -> bool:
        """Whether calls to that server go through a proxy. Loopback never does."""
        if self._is_idle:
            return False
        if (known := self._known.get(origin)) is None:
            known = self._known[origin] = _has_proxy(origin)
        return known

    def call(self, origin: wire.Origin, head: bytes, request: Request, deadline: float) -> Response:
        """Send and wait. Raises what `Transport.call` raises."""
        outcome: list[Response | BaseException] = []
        done, sent = threading.Event(), threading.Event()

        def run() -> None:
            try:
                outcome.append(self._exchange(origin, head, request, deadline, sent))
            except BaseException as exc:
                outcome.append(exc)
            done.set()

        threading.Thread(target=run, name="fan-http-proxy", daemon=True).start()
        if not done.wait(max(0.0, deadline - time.monotonic())):
            raise _late(request, sent)
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _exchange(
        self,
        origin: wire.Origin,
        head: bytes,
        request: Request,
        deadline: float,
        sent: threading.Event,
    ) -> Response:
        import httpx

        def trace(step: str, info: dict[str, Any]) -> None:
            # What makes a tunnel through the proxy is a request too, and none of ours.
            is_head = step.endswith("send_request_headers.started")
            if is_head and info["request"].method != b"CONNECT":
                sent.set()

        first, *lines = head[:-4].split(b"\r\n")
        headers = [tuple(line.split(b": ", 1)) for line in lines]
        url = f"{origin.scheme}://{origin.authority}{first.split()[1].decode()}"
        left = max(0.001, deadline - time.monotonic())
        body = bytearray()
        try:
            with self._open().stream(
                first.split()[0].decode(),
                url,
                content=request.body,
                headers=headers,
                timeout=left,
                extensions={"trace": trace},
            ) as got:
                for data in got.iter_raw():
                    body += data
                    if len(body) > self._max_body:
                        raise ResourceExhausted(
                            f"the reply is larger than {self._max_body} bytes",
                            reason="payload_too_large",
                            executed=YES,
                        )
                    if time.monotonic() > deadline:  # nobody waits any more
                        raise _late(request, sent)
                return wire.response_of(request, got.status_code, got.headers.raw, bytes(body))
        except httpx.TimeoutException as exc:
            raise _late(request, sent) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            if not sent.is_set():
                raise Unavailable(
                    f"{origin.authority} cannot be reached through the proxy: {exc}",
                    reason="connect_failed",
                ) from exc
            is_cut = any(words in str(exc) for words in _CUT)
            if isinstance(exc, httpx.RemoteProtocolError) and not is_cut:
                raise wire.malformed(str(exc)) from exc
            raise lost() from exc

    def _open(self) -> Any:
        if self._client is None or self._pid != os.getpid():
            import httpx

            try:
                self._client = httpx.Client(
                    verify=trusting(),
                    headers={},
                    follow_redirects=False,
                    limits=httpx.Limits(max_connections=None),
                )
            except (ImportError, ValueError, OSError, httpx.InvalidURL) as exc:
                raise Unavailable(
                    f"the proxy that the environment names cannot be used: {exc}",
                    reason="connect_failed",
                ) from exc
            self._pid = os.getpid()
            for name in ("accept", "accept-encoding", "connection", "user-agent"):
                self._client.headers.pop(name, None)
        return self._client

    def close(self) -> None:
        """Close the client. Twice does no harm."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _has_proxy(origin: wire.Origin) -> bool:
    # `proxy_bypass_environment` is in the standard library's code, not in its type stubs.
    import urllib.request as standard

    if origin.host == "localhost" or origin.host.startswith("127.") or origin.host == "::1":
        return False
    proxies = standard.getproxies_environment()
    if not (proxies.get(origin.scheme) or proxies.get("all")):
        return False
    return not standard.proxy_bypass_environment(  # type: ignore[attr-defined]
        origin.authority
    )


def _late(request: Request, sent: threading.Event) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"no reply within {request.timeout_ms} ms",
        reason="client_timer",
        executed=None if sent.is_set() else NO,
    )
