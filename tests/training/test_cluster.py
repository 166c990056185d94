"""TF_CONFIG, and waiting for the other workers."""

import contextlib
import json
import re
import socket
import threading

import pytest

from u2net_tf.errors import InputError
from u2net_tf.training import cluster as cluster_module
from u2net_tf.training.cluster import ALONE, Cluster, read_cluster

TWO = ["one:1000", "two:1000"]


def tf_config(cluster=None, task=None, **fields):
    cluster = {"worker": TWO} if cluster is None else cluster
    task = {"type": "worker", "index": 1} if task is None else task
    return json.dumps({"cluster": cluster, "task": task, **fields})


@pytest.fixture
def config(monkeypatch):
    """Sets TF_CONFIG."""
    return lambda text: monkeypatch.setenv("TF_CONFIG", text)


@pytest.mark.parametrize("text", [None, "", " "])
def test_one_worker_without_the_variable(text, config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        config(text)
    assert read_cluster() == ALONE
    assert ALONE.is_chief


def test_one_worker_in_the_list(config):
    config(tf_config({"worker": ["one:1"]}, {"type": "worker", "index": 0}))
    assert read_cluster() == ALONE


def test_a_chief_alone(config):
    config(tf_config({"chief": ["one:1"]}, {"type": "chief", "index": 0}))
    assert read_cluster() == ALONE


def test_workers(config):
    config(tf_config())
    found = read_cluster()
    assert found == Cluster(("one:1000", "two:1000"), 1)
    assert not found.is_chief
    assert found.name(0) == "worker 0 (one:1000)"


@pytest.mark.parametrize(
    ("task", "index"),
    [({"type": "chief", "index": 0}, 0), ({"type": "worker", "index": 1}, 2)],
)
def test_a_chief_comes_first(task, index, config):
    config(tf_config({"chief": ["main:1"], "worker": TWO}, task))
    assert read_cluster() == Cluster(("main:1", *TWO), index)


def test_fields_that_cluster_managers_add(config):
    task = {"type": "worker", "index": 1, "trial": "3", "cloud": "..."}
    job = {"worker_count": "1"}
    config(tf_config(task=task, environment="cloud", rpc_layer="grpc", job=job))
    assert read_cluster().index == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON with cluster and task"),
        ("[]", "expected an object"),
        ('{"cluster": {}, "cluster": {}}', "cluster"),
        (json.dumps({"cluster": {"worker": TWO}}), r"task: .*Received: nothing"),
        (tf_config({}), r"task.type: expected a type of tasks in the cluster"),
        (tf_config({"worker": []}), r"task.type: .*Received: worker"),
        (tf_config({"worker": ["one"]}), r"worker\[0\].*host:port.*Received: 'one'"),
        (tf_config({"worker": ["::1:1000"]}), r"worker\[0\].*Received: '::1:1000'"),
        (tf_config({"worker": ["[one]:1"]}), r"worker\[0\].*Received: '\[one\]:1'"),
        # Workers would wait for these forever, or end with a traceback.
        (tf_config({"worker": ["[::1:2:]:1"]}), r"worker\[0\].*host:port"),
        (tf_config({"worker": ["[1.2.3.4]:1"]}), r"worker\[0\].*host:port"),
        (tf_config({"worker": ["one..org:1"]}), r"worker\[0\].*host:port"),
        (tf_config({"worker": ["x" * 64 + ":1"]}), r"worker\[0\].*host:port"),
        (tf_config({"worker": ["one:0"]}), r"worker\[0\].* port from 1 to 65535"),
        (tf_config({"worker": ["one:65536"]}), r"worker\[0\].*Received: 'one:65536'"),
        (tf_config({"worker": ["one:1", "one:1"]}), "distinct addresses"),
        (tf_config({"worker": TWO, "chief": TWO[:1]}), "distinct addresses"),
        (tf_config({"worker": TWO, "chief": ["a:1", "b:1"]}), "at most 1 item"),
        (tf_config({"worker": TWO, "ps": TWO}), r"cluster.ps: expected no field"),
        (tf_config(task={"type": "evaluator", "index": 0}), "'chief' or 'worker'"),
        (tf_config(task={"type": "worker", "index": 2}), "an index below 2.*: 2"),
        (tf_config(task={"type": "worker", "index": "0"}), "an integer.*'0'"),
        (tf_config(task={"type": "chief", "index": 0}), "task.type: .*Received: chief"),
    ],
)
def test_a_text_that_cannot_be_used(text, message, config):
    config(text)
    with pytest.raises(InputError, match=f"^TF_CONFIG.*{message}"):
        read_cluster()


class Clock:
    """Each sleep takes as long as it is asked to; one after `limit` raises an error."""

    def __init__(self, limit, on_sleep=lambda: None):
        self.now, self._limit, self._on_sleep = 0.0, limit, on_sleep

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self._on_sleep()
        if self.now > self._limit:
            raise TimeoutError


@pytest.fixture
def lines(monkeypatch):
    found = []

    def info(text, *values):
        found.append(text % values)

    monkeypatch.setattr(cluster_module.logging, "info", info)
    return found


def listen(port=0):
    return socket.create_server(("127.0.0.1", port))


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def unused_address():
    """Returns an address where nobody listens, except for the test itself.

    Its port is reserved: bound without listening, with SO_REUSEADDR, as `listen` does.
    """
    with contextlib.ExitStack() as reserved:

        def reserve():
            own = reserved.enter_context(socket.socket())
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(("127.0.0.1", 0))
            return address_of(own)

        yield reserve


def test_waits_for_others_and_names_them_each_minute(lines, unused_address):
    with listen() as server:
        own, missing = unused_address(), unused_address()
        cluster = Cluster((own, address_of(server), missing))
        clock = Clock(limit=130)
        with pytest.raises(TimeoutError):
            cluster.wait_for_others(clock=clock, sleep=clock.sleep)
    text = f"worker 0 ({own}) is waiting for worker 2 ({missing})"
    # After 0.4, 60.4 and 120.4 seconds.
    assert lines == [text] * 3


def test_an_answer_is_enough_even_if_the_other_has_closed_its_port_since(
    unused_address,
):
    own, other = unused_address(), unused_address()
    servers = [listen(int(other.rpartition(":")[2]))]
    third = []

    def close():
        servers.pop().close()
        third.append(listen(int(address.rpartition(":")[2])))

    address = unused_address()
    clock = Clock(limit=1, on_sleep=close)
    Cluster((own, other, address)).wait_for_others(clock=clock, sleep=clock.sleep)
    third.pop().close()


def test_answers_while_it_waits(unused_address):
    own, other = unused_address(), unused_address()
    port = int(own.rpartition(":")[2])
    clock = Clock(
        limit=0.3,
        on_sleep=lambda: socket.create_connection(("127.0.0.1", port), 1).close(),
    )
    with pytest.raises(TimeoutError):
        Cluster((own, other)).wait_for_others(clock=clock, sleep=clock.sleep)
    # And frees the port for TensorFlow.
    listen(port).close()


def test_a_port_in_use(unused_address):
    with listen() as server:
        cluster = Cluster((address_of(server), unused_address()))
        name = re.escape(cluster.name(0))
        with pytest.raises(InputError, match=rf"^TF_CONFIG: .*port that {name} can"):
            cluster.wait_for_others()


def wait_in_thread(cluster):
    """Returns a started thread that waits, and the list of errors that it ends with."""
    errors = []

    def wait():
        try:
            cluster.wait_for_others()
        except InputError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, errors


def test_a_worker_that_introduces_itself(unused_address):
    addresses = (unused_address(), unused_address())
    clock = Clock(limit=1)
    with Cluster(addresses, 1)._listening():
        Cluster(addresses).wait_for_others(clock=clock, sleep=clock.sleep)
    assert clock.now == 0


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_addresses_of_version_6(unused_address, config):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no address ::1")
    ports = [unused_address().rpartition(":")[2] for _ in range(2)]
    addresses = tuple(f"[::1]:{port}" for port in ports)
    config(tf_config({"worker": addresses}))
    cluster = read_cluster()
    assert cluster == Cluster(addresses, 1)
    clock = Clock(limit=1)
    with Cluster(addresses)._listening():
        cluster.wait_for_others(clock=clock, sleep=clock.sleep)
    assert clock.now == 0


@pytest.mark.parametrize("difference", ["order", "number"])
def test_workers_with_different_lists(difference, unused_address, monkeypatch):
    """TensorFlow would wait for ever, and not be interrupted by a signal."""
    # On a busy machine, a greeting may take longer.
    monkeypatch.setattr(cluster_module, "_GREETING_SECONDS", 20)
    a, b = unused_address(), unused_address()
    other = Cluster((b, a)) if difference == "order" else Cluster((a, b, b + "1"), 1)
    found = [wait_in_thread(each) for each in (Cluster((a, b)), other)]
    for thread, _ in found:
        thread.join(20)
        assert not thread.is_alive()
    expected = (
        f"TF_CONFIG: expected worker 1 of {a}, {b} at {b}. Received: worker "
        f"{other.index} of {', '.join(other.addresses)}. All workers need the same"
    )
    (error,) = found[0][1]
    assert error.startswith(expected)
    assert len(found[1][1]) == 1
