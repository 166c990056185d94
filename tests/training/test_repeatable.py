"""Same seed and flags, same bits, however many patches are cropped at once."""

import functools
import hashlib

import pytest
import toy

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.training import runs

# Every augmentation.
ALL = tuple(n for n in AugmentationConfig.settings() if n.endswith("probability"))
# A spatial and an intensity augmentation; tracing all of them takes long.
FEW = ("rotation_probability", "noise_probability")


@pytest.fixture(scope="module")
def digest(train, tmp_path_factory):
    """Trains 20 steps; returns a checksum of everything that a run resumes from.

    Trains the toy network: `test_adaptation.py` and `test_killed.py` show that runs of
    the real one are repeatable.
    """

    def call(num_parallel_calls, augmented, seed=0):
        run = train(
            tmp_path_factory.mktemp("run"),
            # Only one domain, since each has its own pipeline, which must be traced.
            domains=(toy.TWO.name,),
            steps_per_epoch=20,
            num_parallel_calls=num_parallel_calls,
            seed=seed,
            **dict.fromkeys(augmented, 0.5),
        )
        variables = list(run._trainer.network.variables)
        for optimizer in run._trainer.optimizers:
            variables += optimizer.variables
        content = b"".join(variable.numpy().tobytes() for variable in variables)
        return run.step, hashlib.sha256(content).hexdigest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "build_network", toy.build_toy_network)
        yield call


@pytest.fixture(scope="module")
def sequential(digest):
    """Takes augmentations; returns the digest of cutting one patch after the other."""
    return functools.cache(lambda augmented: digest(1, augmented))


# With 0, the number of parallel calls is chosen automatically.
@pytest.mark.parametrize(
    ("num_parallel_calls", "augmented"),
    [
        pytest.param(3, FEW, id="3-few", marks=pytest.mark.slow),
        *(
            pytest.param(number, ALL, id=f"{number}-all", marks=pytest.mark.slow)
            for number in (3, 1, 0)
        ),
    ],
)
def test_weights_after_20_steps(digest, sequential, num_parallel_calls, augmented):
    assert digest(num_parallel_calls, augmented) == sequential(augmented)
    assert sequential(augmented)[0] == 20


@pytest.mark.slow
def test_another_seed_has_other_bits(digest, sequential):
    assert digest(1, ALL, seed=1)[1] != sequential(ALL)[1]
