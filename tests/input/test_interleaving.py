import itertools

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.input import interleaving, pipeline


def numbers_of(visit, key=5, *, per_volume=4, mixed=3):
    visit = tf.constant(visit, tf.int64)
    found = interleaving.patch_numbers(visit, key, per_volume=per_volume, mixed=mixed)
    return found.numpy().tolist()


def take(count, *, first=0, per_volume=4, mixed=3, parallel_calls=None, read=int):
    """Patches that name their visit, from a window on."""
    records = tf.data.Dataset.range(first * mixed, 10**6).map(
        lambda visit: (visit,) * 2
    )
    dataset = interleaving.mixed_patches(
        records,
        lambda serialized: {
            "visit": read(serialized) if read is not int else serialized
        },
        lambda number, fields: {"at": number, "visit": fields["visit"]},
        key=5,
        per_volume=per_volume,
        mixed=mixed,
        parallel_calls=parallel_calls,
    )
    # As the pipeline runs: nothing ahead of what is asked for.
    dataset = dataset.with_options(pipeline._options())
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_numbers_of_a_window_are_all_of_it_once():
    for window in (0, 7):
        visits = [numbers_of(window * 3 + place) for place in range(3)]
        assert sorted(sum(visits, [])) == list(range(window * 12, window * 12 + 12))
        assert all(numbers == sorted(numbers) for numbers in visits)


def test_places_differ_by_round_window_and_key():
    orders = {tuple(n % 3 for n in numbers_of(3 * window)) for window in range(9)}
    assert len(orders) > 5
    assert any(len(set(order)) > 1 for order in orders)
    assert [numbers_of(3 * w) for w in range(9)] != [
        numbers_of(3 * w, key=6) for w in range(9)
    ]


@pytest.mark.parametrize("parallel_calls", [None, 4])
@pytest.mark.parametrize("mixed", [1, 3])
def test_patches_come_in_the_order_of_their_numbers(mixed, parallel_calls):
    found = take(40, mixed=mixed, parallel_calls=parallel_calls)
    assert [set(patch) for patch in found] == [{"at", "visit"}] * 40
    assert [patch["at"] for patch in found] == list(range(40))
    visits = np.array([patch["visit"] for patch in found])
    for start in range(0, 36, mixed):
        assert len(set(visits[start : start + mixed])) == mixed
    assert set(visits[: 4 * mixed]) == set(range(mixed))


def test_later_windows_are_the_same_when_begun_with():
    whole = take(60)
    assert take(24, first=3) == whole[36:60]


@pytest.mark.parametrize(("mixed", "ahead"), [(1, []), (3, [1])])
def test_one_window_is_made_ahead(monkeypatch, mixed, ahead):
    """Each window that is ready holds all of its patches in memory."""
    seen = []
    prefetch = tf.data.Dataset.prefetch

    def spy(self, buffer_size, **keywords):
        seen.append((buffer_size, self.element_spec["at"].shape.as_list()))
        return prefetch(self, buffer_size, **keywords)

    monkeypatch.setattr(tf.data.Dataset, "prefetch", spy)
    take(1, mixed=mixed)
    # What is counted are windows, of four patches of each of three visits.
    assert seen == [(count, [12]) for count in ahead]


def test_a_volume_is_read_once_for_all_of_its_patches():
    seen = []

    def read(serialized):
        def note(value):
            seen.append(int(value))
            return value

        return tf.numpy_function(note, [serialized], tf.int64)

    take(12, mixed=1, read=read)
    assert seen == [0, 1, 2]
