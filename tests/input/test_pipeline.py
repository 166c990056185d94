import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.config.data import DataConfig, SamplingConfig
from u2net_tf.errors import InputError
from u2net_tf.input import buffers, pipeline
from u2net_tf.input.share import ENTIRE, Share
from u2net_tf.networks.ops.resizing import resize_image, resize_labels
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Label
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.shards import manifest, records

SHAPE = (6, 8, 10)
ORGAN = Domain(
    name="Task90_Organ",
    raw_dir="raw",
    modalities=("CT",),
    labels=(Label("background", (0,)), Label("organ", (1,))),
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=SHAPE,
    patch_size=(4, 4, 4),
    pools=(1, 1, 1),
    batch_size=2,
    mirror_axes=("z", "y", "x"),
    train=tuple(f"organ_{number}" for number in range(5)),
    test=("organ_8", "organ_9"),
)
PROSTATE = dataclasses.replace(
    ORGAN,
    name="Task91_Prostate",
    modalities=("T2", "ADC"),
    patch_size=(2, 4, 6),
    batch_size=3,
    train=tuple(f"prostate_{number}" for number in range(3)),
    test=(),
)
HEART = dataclasses.replace(
    ORGAN,
    name="Task92_Heart",
    modalities=("FLAIR", "T1", "T2"),
    batch_size=1,
    train=tuple(f"heart_{number}" for number in range(4)),
    test=(),
)
DOMAINS = (ORGAN, PROSTATE, HEART)
NOT_MIRRORED = AugmentationConfig(mirror_probability=0)


def make_record(domain, case, dtype="float32"):
    """A case whose voxels are numbered; the organ is one voxel per case."""
    size = math.prod(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels.flat[int(case[-1]) * 53] = 1
    numbers = np.arange(size).reshape(SHAPE)
    coordinates, counts = records.sample_coordinates(labels, 2, per_class=9, seed=0)
    return records.Record(
        domain=domain.name,
        case=case,
        image=np.stack(
            [numbers + c / 4 for c in range(domain.num_modalities)], -1
        ).astype(dtype),
        labels=labels,
        label_counts=np.bincount(labels.ravel()),
        coordinates=coordinates,
        coordinate_counts=counts,
    )


def write_shards(data_dir, domain, *, per_shard=2, compression="none", dtype="float32"):
    folder = data_dir / domain.name
    folder.mkdir(parents=True)
    entries = []
    for split in ("train", "test"):
        cases = domain.cases(split)
        total = math.ceil(len(cases) / per_shard)
        for number in range(total):
            shard = f"{split}-{number:05d}-of-{total:05d}.tfrecord"
            kind = records.COMPRESSION_TYPES[compression]
            with tf.io.TFRecordWriter(str(folder / shard), kind) as writer:
                for case in cases[number * per_shard : (number + 1) * per_shard]:
                    serialized = records.encode(make_record(domain, case, dtype))
                    writer.write(serialized)
                    entries.append(make_entry(case, split, shard, len(serialized)))
    return manifest.Manifest(
        domain=domain.name,
        plan_hash=plan_hash(domain),
        image_dtype=dtype,
        compression=compression,
        cases=tuple(entries),
        skipped={},
    )


def make_entry(case, group, shard, num_bytes):
    return manifest.CaseEntry(
        case=case,
        group=group,
        shard=shard,
        files=[],
        raw_shape=list(SHAPE),
        raw_spacing_mm=[1, 1, 1],
        raw_orientation="RAS",
        raw_affine=np.eye(4).tolist(),
        crop_start=[0, 0, 0],
        crop_shape=list(SHAPE),
        shape=list(SHAPE),
        spacing_mm=[1, 1, 1],
        label_voxels=[479, 1],
        num_bytes=num_bytes,
        checksum="-",
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Folder and manifests of all domains, two cases per shard."""
    data_dir = tmp_path_factory.mktemp("data")
    return data_dir, [write_shards(data_dir, domain) for domain in DOMAINS]


def take(dataset, count):
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def dataset_of_domain(
    shards,
    domain=ORGAN,
    *,
    first_batch=0,
    num_domains=1,
    share=ENTIRE,
    **keywords,
):
    data_dir, manifests = shards
    made = manifests[DOMAINS.index(domain)] if domain in DOMAINS else manifests[0]
    settings = DataConfig(data_dir=str(data_dir), **keywords)
    return pipeline.domain_dataset(
        domain,
        made,
        settings,
        first_batch=first_batch,
        num_domains=num_domains,
        share=share,
    )


def dataset_of_all(shards, domains=DOMAINS, *, first_step=0, share=ENTIRE, **keywords):
    data_dir, manifests = shards
    chosen = [manifests[DOMAINS.index(domain)] for domain in domains]
    settings = DataConfig(data_dir=str(data_dir), **keywords)
    return pipeline.training_dataset(
        domains, chosen, settings, first_step=first_step, share=share
    )


def take_domain(shards, count, domain=ORGAN, **keywords):
    return take(dataset_of_domain(shards, domain, **keywords), count)


def take_all(shards, count, domains=DOMAINS, **keywords):
    return take(dataset_of_all(shards, domains, **keywords), count)


class Shared:
    """Batches of `shards` for several tests, because pipelines take long to trace.

    They must be compared with batches of another pipeline.
    """

    def __init__(self, shards):
        self._shards = shards
        self._begun = functools.cache(self._begin)

    def _begin(self, make, part, settings):
        dataset = make(self._shards, part, **dict(settings))
        return dataset.as_numpy_iterator(), []

    def _take(self, make, count, part, settings):
        iterator, batches = self._begun(make, part, frozenset(settings.items()))
        while len(batches) < count:
            batches.append(next(iterator))
        return batches[:count]

    def take_domain(self, count, domain=ORGAN, **settings):
        return self._take(dataset_of_domain, count, domain, settings)

    def take_all(self, count, domains=DOMAINS, **settings):
        return self._take(dataset_of_all, count, domains, settings)


@pytest.fixture(scope="module")
def shared(shards):
    return Shared(shards)


def cases_of(batches):
    """Names of the cases in the order of the patches."""
    return [case.decode() for batch in batches for case in batch["case"]]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for key in ("case", "image", "labels"):
            np.testing.assert_array_equal(one[key], other[key], strict=True)


def are_same(found, expected):
    return all(
        np.array_equal(one[key], other[key])
        for one, other in zip(found, expected, strict=True)
        for key in ("case", "image", "labels")
    )


# Content of a batch.


def test_batch_of_a_domain(shared):
    for domain in DOMAINS:
        (batch,) = shared.take_domain(1, domain)
        shape = (domain.batch_size, *domain.patch_size)
        assert set(batch) == {"image", "labels", "case"}
        assert batch["image"].shape == (*shape, domain.num_modalities)
        assert batch["image"].dtype == np.float32
        assert batch["labels"].shape == shape
        assert batch["labels"].dtype == np.uint8
        assert batch["case"].shape == (domain.batch_size,)


@pytest.mark.parametrize(
    ("compression", "dtype"),
    [
        ("gzip", "float16"),
        ("none", "float32"),
        pytest.param("gzip", "float32", marks=pytest.mark.slow),
        pytest.param("none", "float16", marks=pytest.mark.slow),
    ],
)
def test_patches_are_parts_of_their_cases(tmp_path, compression, dtype):
    made = write_shards(tmp_path, PROSTATE, compression=compression, dtype=dtype)
    settings = DataConfig(data_dir=str(tmp_path), augmentation=NOT_MIRRORED)
    dataset = pipeline.domain_dataset(PROSTATE, made, settings)
    for batch in take(dataset, 4):
        for image, labels, case in zip(*batch.values(), strict=True):
            record = make_record(PROSTATE, case.decode(), dtype)
            # The number of the first voxel is the position of the patch.
            start = np.unravel_index(int(image[0, 0, 0, 0]), SHAPE)
            box = tuple(
                slice(first, first + size)
                for first, size in zip(start, PROSTATE.patch_size, strict=True)
            )
            np.testing.assert_array_equal(image, record.image[box].astype(np.float32))
            np.testing.assert_array_equal(labels, record.labels[box])


@pytest.mark.parametrize(
    "axes",
    [("x",), *(pytest.param(axes, marks=pytest.mark.slow) for axes in ((), "zyx"))],
)
def test_image_and_labels_are_mirrored_together_along_the_axes_of_the_plan(
    shards, axes
):
    domain = dataclasses.replace(ORGAN, mirror_axes=tuple(axes))
    batches = take_domain(
        shards,
        5,
        domain,
        sampling=SamplingConfig(oversample_foreground_fraction=1),
        augmentation=AugmentationConfig(mirror_probability=1),
    )
    for batch in batches:
        for image, labels, case in zip(*batch.values(), strict=True):
            steps = [np.diff(image[..., 0], axis=axis) for axis in range(3)]
            mirrored = [bool((step < 0).all()) for step in steps]
            assert mirrored == [axis in axes for axis in "zyx"]
            organ = int(case.decode()[-1]) * 53
            np.testing.assert_array_equal(labels == 1, image[..., 0] == organ)
            assert labels.sum() == 1


def test_sampling_follows_the_settings(shards):
    def fraction_with_organ(oversample, **shares):
        sampling = SamplingConfig(oversample_foreground_fraction=oversample, **shares)
        batches = take_domain(shards, 10, sampling=sampling, augmentation=NOT_MIRRORED)
        return np.mean([patch.any() for batch in batches for patch in batch["labels"]])

    no_shares = {"smallest_share": 0, "foreground_share": 0}
    assert fraction_with_organ(oversample=1, **no_shares) == 1
    assert fraction_with_organ(oversample=0, smallest_share=1, foreground_share=0) == 1
    assert fraction_with_organ(oversample=0, smallest_share=0, foreground_share=1) == 1
    assert fraction_with_organ(oversample=0, **no_shares) < 0.8


def test_first_patches_of_every_batch_contain_foreground(shards):
    sampling = SamplingConfig(
        oversample_foreground_fraction=0.5, smallest_share=0, foreground_share=0
    )
    batches = take_domain(shards, 15, batch_size=2, sampling=sampling, first_batch=3)
    hits = np.array([batch["labels"].any(axis=(1, 2, 3)) for batch in batches])
    assert hits[:, 0].all()
    assert not hits[:, 1].all()


@pytest.mark.parametrize(
    ("buffer_records", "per_shard", "permuted"),
    [
        (1, 2, True),
        pytest.param(2, 2, False, marks=pytest.mark.slow),
        # The order of shards with one record each is random.
        pytest.param(1, 1, False, marks=pytest.mark.slow),
    ],
)
def test_every_case_is_drawn_around_foreground_in_half_of_its_patches(
    tmp_path, buffer_records, per_shard, permuted
):
    """Also if only whole shards are shuffled, whose records come in pairs."""
    made = write_shards(tmp_path, HEART, per_shard=per_shard)
    size_mb = made.cases[0].num_bytes / 1e6
    settings = {
        "batch_size": 2,
        "input_memory_mb": 8 * (buffer_records + 0.5) * size_mb,
        # Without them, a patch at a fixed position contains the organ or does not.
        "sampling": SamplingConfig(
            oversample_foreground_fraction=0.5, smallest_share=0, foreground_share=0
        ),
        "augmentation": NOT_MIRRORED,
    }
    heart = dataclasses.replace(HEART, patch_size=(1, 1, 1), pools=(0, 0, 0))
    shards = (tmp_path, [made])
    batches = take_domain(shards, 200, heart, **settings)
    hits = np.stack([batch["labels"].any(axis=(1, 2, 3)) for batch in batches])
    # In 400 patches of one voxel each, the organ is hit by chance about once.
    assert (hits.sum(axis=1) >= 1).all()
    assert hits.sum() <= 210
    assert hits[:, 0].all() == (not permuted)
    cases = np.array(cases_of(batches))
    for case in heart.train:
        assert 0.3 < hits.ravel()[cases == case].mean() < 0.7, case
    found = take_domain(shards, 3, heart, first_batch=61, **settings)
    assert_same(found, batches[61:64])


def test_batch_size_of_the_settings_overrides_the_plan(shards, shared):
    assert len(shared.take_domain(1)[0]["case"]) == 2
    assert len(take_domain(shards, 1, batch_size=4)[0]["case"]) == 4


@pytest.mark.parametrize(
    "method", [pytest.param("linear", marks=pytest.mark.slow), "cubic"]
)
def test_patches_are_cropped_at_the_plan_s_size_and_resized(shards, shared, method):
    cropped = shared.take_domain(2, PROSTATE)
    resized = take_domain(
        shards, 2, PROSTATE, patch_size=(4, 2, 8), resize_method=method
    )
    for small, large in zip(cropped, resized, strict=True):
        for number in range(3):
            image = tf.constant(small["image"][number : number + 1])
            image = resize_image(image, (4, 2, 8), method=method)[0]
            np.testing.assert_allclose(large["image"][number], image, rtol=1e-5)
            labels = tf.constant(small["labels"][number : number + 1])
            labels = resize_labels(labels, (4, 2, 8))[0]
            np.testing.assert_array_equal(large["labels"][number], labels)
    assert cases_of(cropped) == cases_of(resized)


# The order of the cases.


@pytest.mark.parametrize(
    ("per_shard", "buffer_mb"),
    [
        (2, 1e-9),
        (5, 256),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in ((1, 1e-9), (5, 1e-9), (1, 256), (2, 256))
        ),
    ],
)
def test_every_case_occurs_once_before_any_is_repeated(tmp_path, per_shard, buffer_mb):
    made = write_shards(tmp_path, ORGAN, per_shard=per_shard)
    batches = take_domain(
        (tmp_path, [made]),
        10,
        batch_size=2,
        input_memory_mb=8 * buffer_mb,
    )
    cases = cases_of(batches)
    epochs = [cases[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == list(ORGAN.train) for epoch in epochs)
    if per_shard < 5 or buffer_mb > 1:
        assert len(set(map(tuple, epochs))) > 1, "every epoch has the same order"


def test_every_order_of_the_cases_occurs(shared):
    cases = cases_of(shared.take_domain(400, HEART))
    orders = {tuple(cases[start : start + 4]) for start in range(0, 400, 4)}
    # In 100 draws, each of the 24 orders is missing with a probability of 1.4 %.
    assert len(orders) >= 20


def keeps_shard_order(cases):
    """Whether the cases of each shard follow each other in the order of the shard."""
    assert len(cases) == 4
    first, second = ["heart_0", "heart_1"], ["heart_2", "heart_3"]
    return cases in (first + second, second + first)


@pytest.mark.slow
def test_buffer_determines_how_many_records_are_shuffled_together(shards):
    size_mb = shards[1][2].cases[0].num_bytes / 1e6

    def cases(buffer_mb, num_domains=1):
        batches = take_domain(
            shards, 40, HEART, input_memory_mb=8 * buffer_mb, num_domains=num_domains
        )
        cases = cases_of(batches)
        return [cases[i : i + 4] for i in range(0, 40, 4)]

    in_pairs = cases(1.5 * size_mb)
    assert all(map(keeps_shard_order, in_pairs))
    # The order of the shards always varies between epochs.
    assert {epoch[0] for epoch in in_pairs} == {"heart_0", "heart_2"}
    assert not all(map(keeps_shard_order, cases(2.5 * size_mb)))
    # The domains share the buffer.
    assert all(map(keeps_shard_order, cases(2.5 * size_mb, num_domains=2)))


# Dependencies of the batches.


@pytest.mark.parametrize("part", ["case", "image"])
def test_seed_changes_the_batches(shared, part):
    one = shared.take_domain(5)
    other = shared.take_domain(5, seed=1)
    assert any(
        not np.array_equal(a[part], b[part]) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 7])
def test_global_seed_has_no_effect(shards, shared, seed):
    expected = shared.take_domain(5)
    tf.random.set_seed(seed)
    found = take_domain(shards, 5)
    tf.random.set_seed(None)
    assert_same(found, expected)


@pytest.mark.parametrize(
    "num_parallel_calls", [pytest.param(1, marks=pytest.mark.slow), 7]
)
def test_parallel_calls_have_no_effect(shards, shared, num_parallel_calls):
    found = take_domain(shards, 20, PROSTATE, num_parallel_calls=num_parallel_calls)
    assert_same(found, shared.take_domain(20, PROSTATE))


@pytest.mark.parametrize(
    ("settings", "reads", "crops"),
    [
        ({"num_domains": 2}, 3, 3),
        ({"input_memory_mb": 1e-3}, None, None),
        ({"input_memory_mb": 1e-3, "num_parallel_calls": 3}, 3, 3),
        ({"patches_per_volume": 2}, None, 5),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ({"num_parallel_calls": 1}, 1, 1),
                ({}, 5, 5),
                ({"num_domains": 9}, 2, 2),
            )
        ),
    ],
)
def test_records_are_read_and_patches_cropped_in_parallel(
    shards, monkeypatch, settings, reads, crops
):
    monkeypatch.setattr(buffers, "num_cores", lambda: 5)
    seen = {}
    map_dataset = tf.data.Dataset.map

    def spy(self, function, **keywords):
        seen[function.__name__] = keywords.get("num_parallel_calls")
        return map_dataset(self, function, **keywords)

    monkeypatch.setattr(tf.data.Dataset, "map", spy)
    dataset_of_domain(shards, **settings)
    assert (seen["parse_record"], seen["crop"]) == (reads, crops)


def test_other_domains_have_no_effect(shared):
    alone = shared.take_all(6, (ORGAN,))
    assert_same(shared.take_all(12, (HEART, ORGAN))[1::2], alone)
    assert_same(shared.take_all(18)[0::3], alone)


def test_domains_with_the_same_cases_have_other_patches(tmp_path, shared):
    twin = dataclasses.replace(ORGAN, name="Task93_Twin")
    one = shared.take_domain(5)
    other = take_domain((tmp_path, [write_shards(tmp_path, twin)]), 5, twin)
    assert not are_same(one, other)


# The round robin.


@pytest.mark.parametrize(
    "domains", [(ORGAN,), (HEART, ORGAN), (ORGAN, PROSTATE, HEART)]
)
def test_batch_n_is_from_domain_n_mod_the_number_of_domains(shared, domains):
    batches = shared.take_all(7, domains)
    for n, batch in enumerate(batches):
        domain = domains[n % len(domains)]
        assert {case.decode() for case in batch["case"]} <= set(domain.train)
        assert batch["image"].shape[-1] == domain.num_modalities
        assert batch["image"].shape[1:4] == domain.patch_size


def test_round_robin_yields_the_batches_of_each_domain(shared):
    batches = shared.take_all(12)
    # Every domain fits into the memory completely, whether or not it is shared.
    for index, domain in enumerate(DOMAINS):
        assert_same(batches[index::3], shared.take_domain(4, domain))


# Memory of which an eighth is enough for the largest batch: three patches of 2·4·6
# voxels with two float32 and one byte each.
BATCH_MB = 8 * 1296e-6


@pytest.mark.parametrize(
    ("settings", "domains", "ready"),
    [
        ({"input_memory_mb": 1.9 * BATCH_MB}, (PROSTATE, ORGAN), 1),
        ({"input_memory_mb": 2.1 * BATCH_MB}, (ORGAN, PROSTATE), 2),
        # Four patches per batch, or patches with twice as many voxels.
        ({"input_memory_mb": 2.1 * BATCH_MB, "batch_size": 4}, (PROSTATE,), 1),
        ({"input_memory_mb": 2.1 * BATCH_MB, "patch_size": (4, 4, 6)}, (PROSTATE,), 1),
        pytest.param({}, DOMAINS, 2, marks=pytest.mark.slow),
        # At least one.
        pytest.param(
            {"input_memory_mb": 0.9 * BATCH_MB}, DOMAINS, 1, marks=pytest.mark.slow
        ),
    ],
)
def test_number_of_prefetched_batches(shards, monkeypatch, settings, domains, ready):
    seen = []
    prefetch = tf.data.Dataset.prefetch

    def spy(self, buffer_size, **keywords):
        seen.append(buffer_size)
        return prefetch(self, buffer_size, **keywords)

    monkeypatch.setattr(tf.data.Dataset, "prefetch", spy)
    dataset_of_all(shards, domains, **settings)
    # Only for all domains together, not for each domain.
    assert seen == [ready]


# Augmentation.

AUGMENTED = AugmentationConfig(
    elastic_probability=0.5,
    elastic_sigma_mm=(2.0, 3.0),
    elastic_alpha=(0.0, 30.0),
    rotation_probability=0.5,
    scaling_probability=0.5,
    noise_probability=0.5,
    gamma_probability=0.5,
)


ROTATED = AugmentationConfig(rotation_probability=1)


def test_augmentation_is_off_by_default():
    """Without it, nothing is changed: `test_patches_are_parts_of_their_cases`."""
    assert DataConfig(data_dir="").augmentation == AugmentationConfig()


@pytest.mark.parametrize(
    "augmentation",
    [
        AugmentationConfig(noise_probability=0.5),
        pytest.param(AUGMENTED, marks=pytest.mark.slow),
    ],
)
def test_augmentation_keeps_cases_and_positions(shared, augmentation):
    plain = shared.take_domain(6)
    found = shared.take_domain(6, augmentation=augmentation)
    assert cases_of(found) == cases_of(plain)
    same = [
        np.array_equal(one, other)
        for a, b in zip(found, plain, strict=True)
        for one, other in zip(a["image"], b["image"], strict=True)
    ]
    assert not all(same)
    assert found[0]["image"].shape == plain[0]["image"].shape
    assert {label for batch in found for label in batch["labels"].flat} == {0, 1}


@pytest.mark.slow
def test_rotation_uses_the_spacing_of_the_plan(shards, shared):
    """A rotated patch of thick slices differs from one of cubic voxels."""
    thick = dataclasses.replace(ORGAN, spacing_mm=(1.0, 3.0, 1.0))
    one = shared.take_domain(2, augmentation=ROTATED)
    other = take_domain(shards, 2, thick, augmentation=ROTATED)
    assert not are_same(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_augmented_patches_are_interpolated_with_the_resize_method(
    shards, shared, method
):
    one = take_domain(shards, 2, augmentation=ROTATED, resize_method=method)
    other = shared.take_domain(2, augmentation=ROTATED)
    assert are_same(one, other) == (method == "linear")


@pytest.mark.slow
def test_augmentation_depends_only_on_seed_domain_and_patch_number(shards):
    settings = {"augmentation": AUGMENTED, "batch_size": 2}
    both = (ORGAN, PROSTATE)
    uninterrupted = take_all(shards, 8, both, **settings)
    found = take_all(shards, 3, both, first_step=5, num_parallel_calls=1, **settings)
    assert_same(found, uninterrupted[5:])
    # A single domain, in parallel.
    settings["num_parallel_calls"] = 7
    found = take_domain(shards, 4, PROSTATE, num_domains=2, **settings)
    assert_same(found, uninterrupted[1::2])
    other = take_domain(shards, 4, PROSTATE, num_domains=2, seed=1, **settings)
    assert not are_same(other, found)


# Resuming after an interruption.


@pytest.mark.parametrize(
    ("batch_size", "first_steps"),
    [
        (None, (20,)),
        *(pytest.param(n, (1, 9, 20), marks=pytest.mark.slow) for n in (1, 2, 3)),
    ],
)
def test_resumed_batches_equal_those_of_an_uninterrupted_run(
    shards, shared, batch_size, first_steps
):
    # 24 steps are three epochs of the smallest domain and more.
    settings = {} if batch_size is None else {"batch_size": batch_size}
    uninterrupted = shared.take_all(24, **settings)
    for first_step in first_steps:
        found = take_all(shards, 4, first_step=first_step, **settings)
        assert_same(found, uninterrupted[first_step : first_step + 4])


def test_resumed_batches_with_a_small_buffer(shards):
    size_mb = shards[1][0].cases[0].num_bytes / 1e6
    settings = {"input_memory_mb": 8 * 4 * size_mb, "num_domains": 2, "seed": 3}
    uninterrupted = take_domain(shards, 12, **settings)
    found = take_domain(shards, 3, first_batch=9, **settings)
    assert_same(found, uninterrupted[9:])


@pytest.mark.parametrize("memory_mb", [1e-3, 1e3])
def test_several_patches_of_each_volume(shards, memory_mb):
    """Every volume occurs once before any is repeated, and a run can be resumed."""
    settings = {"patches_per_volume": 3, "input_memory_mb": memory_mb}
    uninterrupted = take_domain(shards, 24, **settings)
    cases = cases_of(uninterrupted)
    # All five volumes are interleaved, or none are.
    for start in (0, 15, 30):
        assert sorted(cases[start : start + 15]) == sorted(ORGAN.train * 3)
    in_a_row = [len(set(cases[i : i + 3])) for i in range(0, 45, 3)]
    if memory_mb < 1:
        assert in_a_row == [1] * 15
    else:
        assert all(len(set(cases[i : i + 5])) == 5 for i in range(0, 45, 5))
    # The patches of one volume have different positions.
    assert len({batch["image"].tobytes() for batch in uninterrupted}) > 15
    # Resumed between patches of a volume, and cropped one after the other.
    found = take_domain(shards, 4, first_batch=8, num_parallel_calls=1, **settings)
    assert_same(found, uninterrupted[8:12])


@pytest.mark.parametrize(
    "first_batch", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))]
)
def test_first_batch_of_one_domain(shards, shared, first_batch):
    uninterrupted = shared.take_domain(12)
    found = take_domain(shards, 3, first_batch=first_batch)
    assert_same(found, uninterrupted[first_batch : first_batch + 3])


# Shares of several workers.


@pytest.mark.parametrize(
    ("count", "first_step", "memory_mb"),
    [(2, 7, 0.02), pytest.param(3, 0, 2048, marks=pytest.mark.slow)],
)
def test_workers_share_each_batch(shards, count, first_step, memory_mb):
    """Together they have the batches of a single worker, also after resuming."""
    options = {
        "domains": (ORGAN, PROSTATE),
        "first_step": first_step,
        "batch_size": 6,
        "input_memory_mb": memory_mb,
        "patches_per_volume": 2,
    }
    expected = take_all(shards, 6, **options)
    parts = [
        take_all(shards, 6, **options, share=Share(index, count))
        for index in range(count)
    ]
    for batch, *shares in zip(expected, *parts, strict=True):
        for name, values in batch.items():
            assert {len(share[name]) for share in shares} == {6 // count}
            joined = np.concatenate([share[name] for share in shares])
            np.testing.assert_array_equal(joined, values)


def test_a_worker_crops_only_its_own_patches(shards, monkeypatch):
    """Each patch is cropped where one of its transformations is called."""
    make, cropped = pipeline.make_patch_transform, []

    def make_counting(*arguments, **options):
        transform = make(*arguments, **options)

        def counting(fields, *rest):
            def count(case):
                cropped.append(case)
                return case

            case = tf.numpy_function(count, [fields["case"]], tf.string)
            with tf.control_dependencies([case]):
                return transform(fields, *rest)

        return counting

    monkeypatch.setattr(pipeline, "make_patch_transform", make_counting)
    share = Share(1, 2)
    batches = take_domain(shards, 4, num_parallel_calls=1, share=share)
    # One more batch may have been begun.
    assert len(cases_of(batches)) == 4 <= len(cropped) <= 6


# Errors.


def test_domain_without_training_cases_is_an_error(shards):
    data_dir, manifests = shards
    cases = tuple(entry for entry in manifests[0].cases if entry.group == "test")
    made = dataclasses.replace(manifests[0], cases=cases)
    with pytest.raises(InputError, match="Task90_Organ: expected training cases"):
        take_domain((data_dir, [made]), 1)


def test_missing_shard_is_an_error_that_names_it(tmp_path):
    made = write_shards(tmp_path, ORGAN)
    path = tmp_path / ORGAN.name / made.shards(ORGAN.train)[1]
    path.unlink()
    with pytest.raises(
        InputError, match=f"{path}: expected a shard. Received: no such"
    ):
        take_domain((tmp_path, [made]), 1)
