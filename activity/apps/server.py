"""The HTTP side of the web page: who is let in, how much is taken, and for how long.

Gradio serves the page; what stands before it decides about hosts, sizes and times, which Gradio leaves to a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from activity.errors import ActivityError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_CONNECTIONS = 600  # an open page has one or two
_HEADER_SECONDS = 10.0  # for the header of a request
_SILENCE_SECONDS = 30.0  # without a byte of an upload
_LINGER_SECONDS = 1.0  # for a refused upload
_FORM_BYTES = 10_000  # of an upload beside the file: names, limits of its parts
_QUESTION_BYTES = 100_000  # of any other request
_QUOTA_FILES = 20  # the uploads of all visitors may fill the place of so many of the largest


class Gate:
    """ASGI middleware that lets in what is meant for this page, and no more of it than fits.

    A foreign name in `Host` is how another site reaches a page of this computer through its user's browser (DNS
    rebinding), a foreign `Origin` how it sends forms there. Numbers of addresses and `localhost` cannot be rebound.

    Args:
        app: answers what is let in.
        hosts: further names of this computer.
        uploads_dir: where uploads are kept, by Gradio: `tmp...` while they come, in a folder of their own afterwards.
        max_bytes: of one upload.
        hung_up: told the session of a visitor to whom no answers can be sent any more.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        uploads_dir: Path,
        max_bytes: int,
        hung_up: Callable[[str], object],
    ) -> None:
        self._app, self._uploads_dir, self._max_bytes, self._hung_up = app, uploads_dir, max_bytes, hung_up
        self._hosts = {"localhost", *(host.casefold() for host in hosts)}
        self._coming_bytes: dict[object, int] = {}  # of the uploads that are on their way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            text = f"This page is not served as '{host}'. Its owner can allow that: activity serve --allow-host NAME"
            await PlainTextResponse(text, 421)(scope, receive, send)
        elif origin is not None and urlsplit(origin).netloc.casefold() != host.casefold():
            await PlainTextResponse(f"Requests from pages of '{origin}' are not taken.", 403)(scope, receive, send)
        elif scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            await self._upload(scope, receive, send, headers)
        elif scope["method"] == "POST":
            await self._ask(scope, receive, send)
        else:
            await self._app(scope, receive, send)
            if scope["path"].rstrip("/").endswith("/queue/data"):  # the stream of answers to one visitor
                for session in parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", []):
                    self._hung_up(session)

    def _is_ours(self, host: str) -> bool:
        with contextlib.suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._hosts:
                return True
            ipaddress.ip_address(name)
            return True
        return False

    async def _upload(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        length = headers.get("content-length", "")
        most = self._max_bytes + _FORM_BYTES
        if not length.isdecimal():
            refusal = PlainTextResponse("An upload needs a Content-Length.", 411)
        elif int(length) > most:
            text = (
                f"Too large: this page takes up to {self._max_bytes // 10**6} MB, and this upload has {length} bytes."
            )
            refusal = PlainTextResponse(text, 413)
        elif self._kept_bytes() + sum(self._coming_bytes.values()) + int(length) > _QUOTA_FILES * most:
            refusal = PlainTextResponse("This page has no room for more videos now; please try again later.", 507)
        else:
            ticket = object()
            self._coming_bytes[ticket] = int(length)
            try:
                await self._app(scope, _impatient(receive), send)
            finally:
                del self._coming_bytes[ticket]
                self._remove_cut_off()
            return
        await _answer_early(refusal, receive, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A question may name files that were sent to this page, no others.

        In the place of a path Gradio fetches a URL, of whatever size, and it tells where this program runs.
        """
        body, more, coming = b"", True, _impatient(receive)
        while more and len(body) <= _QUESTION_BYTES:
            message = await coming()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > _QUESTION_BYTES:
            text = f"Too large: a question takes up to {_QUESTION_BYTES} bytes."
            await _answer_early(JSONResponse({"error": text}, 413), receive, send)
            return
        try:
            paths = _paths_in(json.loads(body or b"null"))
        except (ValueError, RecursionError):
            await JSONResponse({"error": "Expected JSON."}, 400)(scope, receive, send)
            return
        if not all(self._was_sent(path) for path in paths):
            text = "this is not a file that was sent to this page; please send it again"
            await JSONResponse({"error": text}, 403)(scope, receive, send)
            return
        first = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return first.pop() if first else await receive()

        await self._app(scope, receive_again, send)

    def _was_sent(self, path: object) -> bool:
        with contextlib.suppress(TypeError, ValueError):  # no path at all
            place = Path(path)  # type: ignore[arg-type]
            return place.is_absolute() and self._uploads_dir.resolve() in place.resolve().parents
        return False

    def _remove_cut_off(self) -> None:
        """Gradio leaves what came of an upload that was cut off."""
        for rest in self._uploads_dir.glob("tmp*"):
            with contextlib.suppress(OSError):
                if not self._coming_bytes or time.time() - rest.stat().st_mtime > 2 * _SILENCE_SECONDS:
                    rest.unlink()  # a folder is not of Gradio's uploads, and stays

    def _kept_bytes(self) -> int:
        sizes = 0
        for path in self._uploads_dir.rglob("*"):
            with contextlib.suppress(OSError):  # deleted meanwhile
                sizes += path.lstat().st_size
        return sizes


def _paths_in(told: object) -> list[object]:
    """Whatever is called a path in JSON."""
    found, left = [], [told]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            found += [value["path"]] if "path" in value else []
            left += value.values()
        elif isinstance(value, list):
            left += value
    return found


async def _answer_early(answer: Response, receive: Receive, send: Send) -> None:
    """Answer a request before its body, which is not kept.

    A client that is cut off while it sends never reads the answer, so what comes is let pass for a moment.
    """
    answer.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})

    async def let_pass() -> None:
        while (await receive()).get("more_body"):
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(let_pass(), _LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b""})


def _impatient(receive: Receive) -> Receive:
    """A client that sends nothing for a while counts as gone."""

    async def receive_soon() -> Message:
        try:
            return await asyncio.wait_for(receive(), _SILENCE_SECONDS)
        except asyncio.TimeoutError:
            return {"type": "http.disconnect"}

    return receive_soon


class _Protocol(H11Protocol):
    """HTTP for which a connection without a request is closed: Uvicorn waits for a header forever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look_again(None)

    def _look_again(self, seen: object) -> None:
        self.loop.call_later(_HEADER_SECONDS, self._close_if_idle, seen)

    def _close_if_idle(self, seen: object) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is seen:
            self.transport.close()
        else:
            self._look_again(self.cycle)


@contextlib.contextmanager
def serving(app: ASGIApp, host: str, port: int) -> Iterator[str]:
    """Serve an ASGI application in a thread while the block runs; gives its address.

    Args:
        app: answers.
        host: address to listen at.
        port: to listen at; 0 takes any that is free.

    Raises:
        ActivityError: nothing can listen there.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        hint = "choose another with --port" if error.errno == errno.EADDRINUSE else ""
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ActivityError(f"cannot listen at {host}:{port}: {reason}", hint=hint) from error
    config = uvicorn.Config(
        app,
        http=_Protocol,
        log_level="critical",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=3)
        listener.close()
