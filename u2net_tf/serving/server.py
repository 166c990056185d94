"""Opens the socket of a server, and runs the server."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import resource
import socket
from typing import TYPE_CHECKING

from u2net_tf.config.serving import ServeConfig
from u2net_tf.errors import InputError, StoppedError

if TYPE_CHECKING:
    import uvicorn

    from u2net_tf.inference.segmenter import Segmenter

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def require_packages() -> None:
    """Raises StoppedError if a package is missing that the server needs."""
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise StoppedError(
            f"{error.name} is required but not installed: pip install 'u2net-tf[serve]'"
        ) from None


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address.

    Args:
      host: name or address of this machine.
      port: the port; 0 for any that is free.

    Raises:
      InputError: if the host is unknown or the port is in use.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise _not_here(host, error.strerror) from None
    except UnicodeError:
        raise _not_here(host, "not a host name") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _not_here(host, error.strerror) from None
        raise InputError(
            "`port`",
            expected=f"a free port of {host}",
            received=f"{port} ({error.strerror})",
        ) from None
    return listener


def allow_open_files() -> None:
    """Raises the soft limit on open files to the hard limit.

    Each uploaded file above 1 MB, such as a slice of a DICOM series, remains open until
    all have arrived.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not every system accepts the hard limit, or one of more than it can open.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _not_here(host: str, reason: str | None) -> InputError:
    return InputError(
        "`host`", expected="an address of this machine", received=f"{host} ({reason})"
    )


def address(listener: socket.socket) -> str:
    """Returns the address of a listening socket as entered in a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{_in_address(host)}:{port}"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def prepare(
    model: Segmenter, listener: socket.socket, config: ServeConfig
) -> uvicorn.Server:
    """Returns a server that has loaded all domains of its model.

    Args:
      model: segments the images.
      listener: a listening socket.
      config: settings of the server.

    Raises:
      InputError: if a domain cannot be loaded.
    """
    import uvicorn

    from u2net_tf.serving.app import make_app

    allow_open_files()
    app = make_app(model, config.server, hosts=_allowed_hosts(listener, config))
    settings = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    return uvicorn.Server(settings)


def serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serves requests until a signal arrives; requests in progress are completed.

    Args:
      server: server to run.
      listener: the socket that it was prepared for.
    """
    # After a graceful shutdown, the server re-raises the signal that stopped it.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _allowed_hosts(listener: socket.socket, config: ServeConfig) -> list[str]:
    host = listener.getsockname()[0]
    names = {*_LOCAL_NAMES, config.host, _in_address(host), *config.allowed_hosts}
    if ipaddress.ip_address(host).is_unspecified:
        # It is reached by its name in the network.
        names.add(socket.gethostname())
    # Requests are compared in lower case.
    return sorted({name.lower() for name in names})
