"""Several patches of each record that is read, mixed with those of other cases.

Visits, the readings of a record, are numbered through all epochs. W visits in a row
are mixed: round r holds the r-th patch of each of them, in an order of its own. So
patches lie W apart from the next of their visit; where an epoch ends among W visits, a
case may be visited twice. All of it is a function of (seed, domain, number), and
a run that is resumed parses no record again but those of the W visits that it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

Patch = Mapping[str, tf.Tensor]
# Kept apart from the other seeds made of the same key.
_MIXING = 3


def patch_numbers(
    visit: tf.Tensor, key: int, *, per_volume: int, mixed: int
) -> tf.Tensor:
    """Numbers of the patches that a visit gives.

    Args:
      visit: scalar int64, number of the visit.
      key: of seed and domain.
      per_volume: patches of each visit.
      mixed: visits that are mixed with each other.

    Returns:
      (per_volume,) int64, ascending.
    """
    window, place = visit // mixed, visit % mixed
    seed = tf.random.fold_in(tf.stack([tf.constant(key, tf.int64), window]), _MIXING)
    # The place of each visit in each round.
    places = tf.argsort(tf.random.stateless_uniform([per_volume, mixed], seed))
    rounds = window * per_volume + tf.range(per_volume, dtype=tf.int64)
    return rounds * mixed + tf.cast(places[:, place], tf.int64)


def mixed_patches(
    records: tf.data.Dataset,
    read: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    cut: Callable[[tf.Tensor, Mapping[str, tf.Tensor]], Patch],
    *,
    key: int,
    per_volume: int,
    mixed: int,
    parallel_calls: int | None,
) -> tf.data.Dataset:
    """Patches in the order of their numbers, from the first of a window on.

    Args:
      records: (number of the visit, serialized record), from the first visit of a
        window on.
      read: parses a record.
      cut: from the number of a patch and a parsed record to the patch.
      key: of seed and domain.
      per_volume: patches of each visit.
      mixed: visits that are mixed with each other.
      parallel_calls: patches cut at the same time; one if None.
    """

    def cut_all(visit: tf.Tensor, fields: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
        numbers = patch_numbers(visit, key, per_volume=per_volume, mixed=mixed)
        patches = tf.data.Dataset.from_tensor_slices(numbers)
        # Parallel, for the patches of one volume; volumes are read one by one.
        return patches.map(
            lambda number: {"number": number, **cut(number, fields)},
            num_parallel_calls=parallel_calls,
            deterministic=None if parallel_calls is None else True,
        )

    volumes = records.map(lambda visit, serialized: (visit, read(serialized)))
    patches = volumes.flat_map(cut_all)
    if mixed > 1:
        windows = patches.batch(mixed * per_volume, drop_remainder=True)
        # The next window is made while this one is used.
        patches = windows.prefetch(1).flat_map(_in_order)
    return patches.map(
        lambda patch: {name: patch[name] for name in patch if name != "number"}
    )


def _in_order(window: Patch) -> tf.data.Dataset:
    order = tf.data.Dataset.from_tensor_slices(tf.argsort(window["number"]))
    return order.map(lambda index: {name: window[name][index] for name in window})
