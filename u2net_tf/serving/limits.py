"""Limits of what a server accepts: bytes of a request, requests at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class QueueFullError(Exception):
    """As many requests wait as may."""


class WaitingLine:
    """Admits requests one at a time, in the order in which they came.

    Args:
      limit: number of requests that may be admitted or wait at the same time.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._lock = asyncio.Lock()
        self.length = 0

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Takes a place in the line, for as long as the context lasts.

        Raises:
          QueueFullError: if there is none left.
        """
        if self.length >= self._limit:
            raise QueueFullError
        self.length += 1
        try:
            yield
        finally:
            self.length -= 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for the turn of the one who has a place."""
        async with self._lock:
            yield


class _TooLargeError(Exception):
    pass


class LimitUpload:
    """Middleware that rejects requests whose body is too large with status 413.

    Args:
      app: the application.
      max_bytes: bytes that a body may have.
    """

    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and counts its bytes while they are received."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _TooLargeError
            return message

        # A stated length is checked before anything is received.
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if stated.isdigit() and int(stated) > self._max_bytes:
                raise _TooLargeError
            await self._app(scope, receive_counted, send)
        except _TooLargeError:
            message = (
                f"request: expected at most {self._max_bytes / 1e6:g} MB "
                "(`max_upload_mb`). Received: more"
            )
            response = JSONResponse({"error": message}, status_code=413)
            await response(scope, receive, send)
