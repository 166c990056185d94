"""Limits of a server: size of a request, pauses, and concurrent requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class QueueFullError(Exception):
    """The maximum number of requests are already waiting."""


class RequestQueue:
    """Admits requests one at a time, in the order of their arrival.

    Args:
      limit: number of requests that may be admitted or wait at the same time.

    Attributes:
      turn: lock of the request that is processed; only requests with a place take it.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._length = 0
        self.turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Takes a place in the queue, for as long as the context lasts.

        Raises:
          QueueFullError: if there is none left.
        """
        if self._length >= self._limit:
            raise QueueFullError
        self._length += 1
        try:
            yield
        finally:
            self._length -= 1


# A sender that sends nothing for so long has lost its connection, and must not keep
# its place in the queue.
STALL_SECONDS = 60.0


class _RefusedError(Exception):
    """A request that is refused while it is received.

    Args:
      status: HTTP status of the response.
      message: error message.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class LimitUpload:
    """Middleware that rejects requests whose body is too large with status 413.

    A request that stalls for `STALL_SECONDS` is rejected with status 408.

    Args:
      app: the application.
      max_bytes: maximum size of a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and counts its bytes while they are received."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received, is_complete = 0, False

        async def receive_counted() -> Message:
            nonlocal received, is_complete
            if is_complete:
                # All that can still be received is the end of the connection.
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), STALL_SECONDS)
            except asyncio.TimeoutError:
                raise _stalled() from None
            is_complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        # A stated length is checked before anything is received.
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if stated.isdigit() and int(stated) > self._max_bytes:
                raise self._too_large()
            await self._app(scope, receive_counted, send)
        except _RefusedError as error:
            response = JSONResponse(
                {"error": str(error)},
                status_code=error.status,
                headers={"Connection": "close"},
            )
            await response(scope, receive, send)

    def _too_large(self) -> _RefusedError:
        return _RefusedError(
            413,
            f"request: expected at most {self._max_bytes / 1e6:g} MB "
            "(`max_upload_mb`). Received: more",
        )


def _stalled() -> _RefusedError:
    return _RefusedError(
        408,
        f"request: expected its end. Received: nothing for {STALL_SECONDS:g} s",
    )
