"""The number of worker processes that fit into memory."""

import logging

import pytest

from u2net_tf.volumes.memory import fitting_workers

# Memory of a worker process without a case.
WORKER_GB = 0.4


def fitting(requested, needs_gb, limit):
    needs = [need * 1e9 for need in needs_gb]
    return fitting_workers(requested, needs, limit, activity="reading scans")


def test_as_many_of_the_largest_cases_as_fit():
    needs = [0.1, 4.0, 2.0]
    two, three = (6.0 + 2 * WORKER_GB, 6.1 + 3 * WORKER_GB)
    assert fitting(3, needs, three + 0.01) == 3
    assert fitting(3, needs, three - 0.01) == 2
    assert fitting(3, needs, two + 0.01) == 2
    assert fitting(3, needs, two - 0.01) == 1
    # Not more than requested, nor more than cases.
    assert fitting(2, needs, 100.0) == 2
    assert fitting(8, needs, 100.0) == 3


def test_at_least_one():
    assert fitting(8, [4.0] * 8, 0.1) == 1
    assert fitting(8, [], 100.0) == 1


def test_fewer_are_logged(caplog):
    with caplog.at_level(logging.INFO, "absl"):
        fitting(8, [4.0] * 3, 100.0)
        assert not caplog.messages
        fitting(8, [4.0] * 3, 9.0)
        fitting(8, [4.0] * 3, 5.0)
    assert caplog.messages == [
        "reading scans in 2 worker processes instead of 3, to stay within 9 GB "
        "(`max_memory_gb`)",
        "reading scans in 1 worker process instead of 3, to stay within 5 GB "
        "(`max_memory_gb`)",
    ]


@pytest.mark.parametrize(("machine_gb", "number"), [(15.9, 1), (16.1, 2)])
def test_half_of_the_machine_s_memory_is_the_default(monkeypatch, machine_gb, number):
    monkeypatch.setattr("u2net_tf.machine.memory_bytes", lambda: machine_gb * 1e9)
    assert fitting(8, [4.0 - WORKER_GB] * 8, None) == number
