"""Same seed, same flags, same bits, however many patches are cut in parallel."""

import hashlib

import pytest
import toy

from u2net_tf.config.augmentation import AugmentationConfig

pytestmark = pytest.mark.usefixtures("plain_route_in_module")
# All there is, and often.
AUGMENTATION = {
    name: 0.5 for name in AugmentationConfig.settings() if name.endswith("probability")
}


@pytest.fixture(scope="module")
def digest(train, tmp_path_factory):
    """Trains 20 steps; the checksum of all that a run goes on from."""

    def call(num_parallel_calls, seed=0):
        run = train(
            tmp_path_factory.mktemp("run"),
            # One domain: each of them has a pipeline of its own, traced anew.
            domains=(toy.TWO.name,),
            steps_per_epoch=20,
            base_channels=2,
            adapter="none",
            num_parallel_calls=num_parallel_calls,
            seed=seed,
            **AUGMENTATION,
        )
        variables = list(run._trainer.network.variables)
        for optimizer in run._trainer.optimizers:
            variables += optimizer.variables
        content = b"".join(variable.numpy().tobytes() for variable in variables)
        return run.step, hashlib.sha256(content).hexdigest()

    return call


@pytest.fixture(scope="module")
def alone(digest):
    """With one patch cut after the other."""
    return digest(1)


# By 0 it is chosen.
@pytest.mark.parametrize(
    "num_parallel_calls",
    [3, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 0))],
)
def test_weights_after_20_steps(digest, alone, num_parallel_calls):
    assert digest(num_parallel_calls) == alone
    assert alone[0] == 20


@pytest.mark.slow
def test_another_seed_has_other_bits(digest, alone):
    assert digest(1, seed=1)[1] != alone[1]
