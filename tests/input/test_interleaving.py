import itertools

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.input import pipeline
from u2net_tf.input.interleaving import Interleaving


def numbers_of(record_read, key=5, *, per_volume=4, width=3):
    interleaving = Interleaving(key, per_volume, width)
    found = interleaving.patch_numbers(tf.constant(record_read, tf.int64))
    return found.numpy().tolist()


def take(count, *, first=0, per_volume=4, width=3, parse=None):
    """Patches with the number of their record, starting at a window."""
    interleaving = Interleaving(5, per_volume, width)
    dataset = tf.data.Dataset.range(first * width, 10**6)
    dataset = dataset.map(lambda read: (read, {"read": parse(read) if parse else read}))
    dataset = dataset.flat_map(interleaving.numbered)
    dataset = dataset.map(lambda number, fields: {"at": number, "read": fields["read"]})
    dataset = interleaving.in_order(dataset, first * width)
    # With the options of the pipeline, which does not read ahead.
    dataset = dataset.with_options(pipeline._options())
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_each_number_of_a_window_occurs_once():
    for window in (0, 7):
        reads = [numbers_of(window * 3 + place) for place in range(3)]
        assert sorted(sum(reads, [])) == list(range(window * 12, window * 12 + 12))
        assert all(numbers == sorted(numbers) for numbers in reads)


def test_each_round_has_one_patch_of_each_record():
    reads = [numbers_of(place) for place in range(3)]
    for number in range(4):
        assert {numbers[number] // 3 for numbers in reads} == {number}


def test_single_patches_have_the_number_of_their_record():
    assert [numbers_of(n, per_volume=1, width=1) for n in (0, 8)] == [[0], [8]]


def test_orders_differ_by_round_window_and_key():
    orders = {tuple(n % 3 for n in numbers_of(3 * window)) for window in range(9)}
    assert len(orders) > 5
    assert any(len(set(order)) > 1 for order in orders)
    assert [numbers_of(3 * w) for w in range(9)] != [
        numbers_of(3 * w, key=6) for w in range(9)
    ]


@pytest.mark.parametrize(("per_volume", "width"), [(4, 1), (4, 3), (1, 1)])
def test_patches_are_ordered_by_number(per_volume, width):
    found = take(40, per_volume=per_volume, width=width)
    assert [set(patch) for patch in found] == [{"at", "read"}] * 40
    assert [patch["at"] for patch in found] == list(range(40))
    reads = np.array([patch["read"] for patch in found])
    for start in range(0, 36, width):
        assert len(set(reads[start : start + width])) == width
    assert set(reads[: per_volume * width]) == set(range(width))


def test_later_windows_are_the_same_when_starting_there():
    complete = take(60)
    assert take(24, first=3) == complete[36:60]


@pytest.mark.parametrize(("width", "ahead"), [(1, []), (3, [1])])
def test_one_window_is_prefetched(monkeypatch, width, ahead):
    """A prefetched window has all of its patches in memory."""
    seen = []
    prefetch = tf.data.Dataset.prefetch

    def spy(self, buffer_size, **keywords):
        seen.append((buffer_size, self.element_spec["at"].shape.as_list()))
        return prefetch(self, buffer_size, **keywords)

    monkeypatch.setattr(tf.data.Dataset, "prefetch", spy)
    take(1, width=width)
    # Elements are windows, with four patches of each of three records.
    assert seen == [(count, [12]) for count in ahead]


def test_a_record_is_parsed_once_for_all_of_its_patches():
    seen = []

    def parse(read):
        def note(value):
            seen.append(int(value))
            return value

        return tf.numpy_function(note, [read], tf.int64)

    take(12, width=1, parse=parse)
    assert seen == [0, 1, 2]
