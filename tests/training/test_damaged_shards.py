"""A run on randomly damaged shards ends as on good ones, or names the damaged shard."""

import pathlib
import random
import shutil

import pytest
import toy
from in_process import InProcess

from data_prep import verify
from data_prep.config import ConversionConfig
from data_prep.convert import convert_domains
from u2net_tf.errors import InputError
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.progress import silent
from u2net_tf.shards.manifest import load_converted
from u2net_tf.training import runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("toy_network", "eager_steps"),
]


@pytest.fixture(scope="module", params=["none", "gzip"])
def good(tiny_data, tmp_path_factory, request):
    """A folder of undamaged shards with one or two cases each."""
    folder = tmp_path_factory.mktemp("good")
    settings = ConversionConfig(
        data_dir=str(folder), compression=request.param, shard_size_mb=0.005
    )
    convert_domains.convert(tiny_data.plan, settings, executor=InProcess())
    return folder


def truncate(content, other, generator):
    return content[: generator.randrange(len(content))]


def flip(content, other, generator):
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 10])):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def zero(content, other, generator):
    start = generator.randrange(len(content))
    end = min(len(content), start + generator.choice([1, 100, 4096]))
    return content[:start] + bytes(end - start) + content[end:]


def swap(content, other, generator):
    return other


def append(content, other, generator):
    return content + generator.choice([other, content, b"\0" * 16])


def shift(content, other, generator):
    start = generator.randrange(len(content))
    return content[start:] + content[:start]


def empty(content, other, generator):
    return b""


DAMAGES = (truncate, flip, zero, swap, append, shift, empty)


def damage(data_dir, generator):
    """Damages a random shard in a random way; returns its path."""
    path, other = generator.sample(sorted(data_dir.rglob("*.tfrecord")), 2)
    change = generator.choice(DAMAGES)
    path.write_bytes(change(path.read_bytes(), other.read_bytes(), generator))
    return path


def run(train, model_dir, data_dir, **options):
    """Trains on all cases; returns the final variables, or the error."""
    try:
        done = train(
            model_dir,
            data_dir=data_dir,
            steps_per_epoch=4,
            max_epochs=2,
            validate_every_epochs=1,
            eval_cases=2,
            **options,
        )
    except InputError as error:
        return error
    return toy.values_of(done._trainer.network.variables)


def problems(data_dir):
    plan, manifests = load_converted(data_dir)
    return [
        problem
        for domain, manifest in zip(plan.domains, manifests, strict=True)
        for problem in verify.verify_domain(data_dir, domain, manifest)
    ]


@pytest.fixture(scope="module")
def expected(good, train, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, toy.eager_steps():
        patch.setattr(runs, "build_network", toy.build_toy_network)
        return run(train, tmp_path_factory.mktemp("expected") / "model", good)


def check(found, path, expected):
    if isinstance(found, InputError):
        assert str(found).startswith(f"{path}: "), str(found)
        assert ". Received: " in str(found)
    else:
        toy.assert_identical(found, expected)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_before_training(good, train, expected, tmp_path, seed):
    generator = random.Random(seed)
    data_dir = pathlib.Path(shutil.copytree(good, tmp_path / "data"))
    path = damage(data_dir, generator)
    wrong = problems(data_dir)
    assert all(problem.startswith(f"{path}: ") for problem in wrong)
    found = run(train, tmp_path / "model", data_dir)
    check(found, path, expected)
    if not wrong:
        assert not isinstance(found, InputError)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_during_training(good, train, expected, tmp_path, seed):
    generator = random.Random(seed)
    data_dir = pathlib.Path(shutil.copytree(good, tmp_path / "data"))
    damaged = []

    def damaging(items):
        for item in items:
            if not damaged and generator.random() < 0.2:
                damaged.append(damage(data_dir, generator))
            yield item

    def progress(iterable=None, desc=None, **options):
        return silent(None if iterable is None else damaging(iterable))

    found = run(train, tmp_path / "model", data_dir, progress=progress)
    check(found, damaged[0] if damaged else None, expected)


@pytest.mark.parametrize("seed", range(6))
def test_converted_again_only_if_sizes_differ(good, tmp_path, seed):
    generator = random.Random(seed)
    data_dir = pathlib.Path(shutil.copytree(good, tmp_path / "data"))
    path = damage(data_dir, generator)
    _, manifests = load_converted(data_dir)
    settings = ConversionConfig(
        data_dir=str(data_dir),
        compression=manifests[0].compression,
        shard_size_mb=0.005,
    )
    plan = load_plan(data_dir / "plan.json")
    convert_domains.convert(plan, settings, executor=InProcess())
    wrong = problems(data_dir)
    assert all(problem.startswith(f"{path}: ") for problem in wrong)
    if wrong:
        path.unlink()
        convert_domains.convert(plan, settings, executor=InProcess())
        assert problems(data_dir) == []
