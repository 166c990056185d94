"""The workers of a run on several machines, as listed in TF_CONFIG.

TF_CONFIG is the environment variable by which `tf.distribute` and cluster managers tell
each process the addresses of all workers and which of them it is:

    {"cluster": {"worker": ["node1:12345", "node2:12345"]},
     "task": {"type": "worker", "index": 0}}
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pydantic
from absl import logging
from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import parse_json
from u2net_tf.wording import first_few

CONFIG_VARIABLE = "TF_CONFIG"
# Seconds between two attempts to connect, and between two messages about them.
_RETRY_SECONDS, _MESSAGE_SECONDS = 0.2, 60.0
_CONNECT_SECONDS = 2.0
# A worker introduces itself with one line while it waits. One that has stopped waiting
# has TensorFlow on its port, which says nothing.
_GREETING, _GREETING_SECONDS = "u2net_tf: ", 0.5
_MAX_GREETING_BYTES = 1 << 20
_MAX_PORT = 65535


def _check_address(address: str) -> str:
    """Raises ValueError for an address that no connection can use.

    Otherwise, workers would wait for it forever.
    """
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        ipaddress.IPv6Address(host.strip("[]"))
    else:
        host.encode("idna")
    if not 1 <= int(port) <= _MAX_PORT:
        raise ValueError(port)
    return address


# A name, an IPv4 address or, in brackets, an IPv6 address, followed by the port.
_Address = Annotated[
    str,
    Field(pattern=r"^([^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    pydantic.AfterValidator(_check_address),
    schema.expected(
        "host:port, such as node1:12345 or [fd00::1]:12345, with a port from 1 to "
        f"{_MAX_PORT}"
    ),
]


@schema.model
class _Jobs:
    worker: tuple[_Address, ...] = ()
    chief: Annotated[tuple[_Address, ...], Field(max_length=1)] = ()


@schema.model
class _Task:
    type: Literal["chief", "worker"]
    index: schema.Count
    trial: Any = None
    cloud: Any = None


@schema.model
class _TFConfig:
    """The fields that TensorFlow and cluster managers write.

    Only `cluster`, and the type and index of the task, are used here.
    """

    cluster: _Jobs
    task: _Task
    rpc_layer: str | None = None
    environment: str | None = None
    job: Any = None

    def __post_init__(self) -> None:
        schema.require_distinct(
            "cluster", [*self.cluster.chief, *self.cluster.worker], "distinct addresses"
        )
        job = getattr(self.cluster, self.task.type)
        if not job:
            raise InputError(
                "task.type",
                expected="a type of tasks in the cluster",
                received=self.task.type,
            )
        if self.task.index >= len(job):
            raise InputError(
                "task.index",
                expected=f"an index below {len(job)}, the number of tasks of type "
                f"{self.task.type}",
                received=self.task.index,
            )


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Attributes:
      addresses: host:port of each worker. The first one is the chief, which writes the
        model.
      index: index of this process among them.
    """

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the model; the others only train it."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Returns "worker 1 (host:port)"."""
        return f"worker {index} ({self.addresses[index]})"

    def wait_for_others(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Waits until all other workers accept connections, and logs whom it waits for.

        Meanwhile, this process accepts connections on its port, and tells who it is.
        TensorFlow would wait for the others, too, but could not be interrupted; with
        lists that differ, it would wait forever.

        Args:
          clock: returns seconds.
          sleep: waits for a number of seconds.

        Raises:
          InputError: if another process uses the port, or another worker has a
            different list or index.
        """
        missing = [k for k in range(len(self.addresses)) if k != self.index]
        next_message = clock() + 2 * _RETRY_SECONDS
        with self._listening():
            while missing := [k for k in missing if not self._answers(k, sleep)]:
                if clock() >= next_message:
                    names = first_few([self.name(k) for k in missing])
                    logging.info("%s is waiting for %s", self.name(self.index), names)
                    next_message = clock() + _MESSAGE_SECONDS
                sleep(_RETRY_SECONDS)

    def _introduction(self, index: int) -> str:
        return f"worker {index} of {', '.join(self.addresses)}"

    def _answers(self, index: int, sleep: Callable[[float], None]) -> bool:
        answer = _ask(self.addresses[index])
        if answer is None:
            return False
        expected = self._introduction(index)
        if not answer.startswith(_GREETING) or answer == _GREETING + expected:
            return True
        # The other one finds the difference, too, before this process ends.
        sleep(_CONNECT_SECONDS)
        raise InputError(
            CONFIG_VARIABLE,
            expected=f"{expected} at {self.addresses[index]}",
            received=answer.removeprefix(_GREETING),
            hint="All workers need the same list, and each one its own index",
        )

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Introduces this worker to each process that connects to its port."""
        greeting = f"{_GREETING}{self._introduction(self.index)}\n".encode()
        stopped = threading.Event()
        with self._open_port() as server:
            # Closing a socket does not end another thread's `accept`.
            server.settimeout(_RETRY_SECONDS)

            def greet() -> None:
                while not stopped.is_set():
                    # The other process may have closed its end.
                    with contextlib.suppress(OSError), server.accept()[0] as other:
                        other.sendall(greeting)

            thread = threading.Thread(target=greet, daemon=True)
            thread.start()
            try:
                yield
            finally:
                stopped.set()
                thread.join()

    def _open_port(self) -> socket.socket:
        """Returns a socket that listens on the port of this worker."""
        port = int(self.addresses[self.index].rpartition(":")[2])
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            return socket.create_server(
                ("", port), family=family, dualstack_ipv6=both, backlog=128
            )
        except (OSError, OverflowError) as error:
            raise InputError(
                CONFIG_VARIABLE,
                expected=f"a port that {self.name(self.index)} can listen on",
                received=error,
            ) from None


ALONE = Cluster()


def read_cluster() -> Cluster:
    """Returns the cluster in TF_CONFIG; `ALONE` if it is not set or has one worker.

    Raises:
      InputError: if TF_CONFIG is not valid, or has tasks that do not train.
    """
    text = os.environ.get(CONFIG_VARIABLE, "")
    if not text.strip():
        return ALONE
    content = parse_json(text, CONFIG_VARIABLE, "JSON with cluster and task")
    try:
        # From JSON, pydantic accepts lists as tuples.
        found = pydantic.TypeAdapter(_TFConfig).validate_json(json.dumps(content))
    except pydantic.ValidationError as error:
        raise schema.as_input_error(error, _TFConfig).within(CONFIG_VARIABLE) from None
    addresses = (*found.cluster.chief, *found.cluster.worker)
    if len(addresses) == 1:
        return ALONE
    index = found.task.index
    if found.task.type == "worker":
        index += len(found.cluster.chief)
    return Cluster(addresses, index)


def _ask(address: str) -> str | None:
    """Returns the line that a worker sends; "" for no line, None for no connection."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        other = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
    except (OSError, OverflowError):
        return None
    other.settimeout(_GREETING_SECONDS)
    with other, other.makefile("rb") as lines:
        try:
            line = lines.readline(_MAX_GREETING_BYTES)
        except OSError:
            return ""
    return line.decode(errors="replace").rstrip("\n")
