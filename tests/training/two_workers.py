"""Two workers of a run on several machines: two processes on this one.

    python tests/training/two_workers.py run WHAT DATA_DIR WORK_DIR
    python tests/training/two_workers.py joint_and_faults DATA_DIR WORK_DIR

Started by `test_two_workers.py`.
"""

import json
import os
import pathlib
import signal
import socket
import sys
import traceback

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up]) for up in (0, 1, 2)]

import pytest  # noqa: E402
import toy  # noqa: E402
import two_replicas  # noqa: E402

from u2net_tf.config.training import TrainConfig  # noqa: E402
from u2net_tf.errors import (  # noqa: E402
    InputError,
    StoppedEarlyError,
    StoppedError,
)
from u2net_tf.stop_signals import DeferredSignals  # noqa: E402
from u2net_tf.training import loop, runs  # noqa: E402
from u2net_tf.training.step import Trainer  # noqa: E402
from u2net_tf.training.stop_requests import StopRequests  # noqa: E402

DISTRIBUTION = "multi_worker_mirrored"


def reserve_ports(count):
    """Returns sockets with ports that no other process is given meanwhile.

    They are bound without listening, so that TensorFlow can listen on the ports.
    """
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    return sockets


def run(index, what, data_dir, work):
    """See `two_replicas.run`; a signal reaches the second worker only."""
    two_replicas.run(what, data_dir, work, DISTRIBUTION, is_signalled=index == 1)


def joint_and_faults(index, data_dir, work):
    """Trains jointly; checks that both workers end if one has a fault or is stopped."""
    run(index, "joint", data_dir, work)
    runs.build_network = toy.build_toy_network
    config = TrainConfig.from_flat(
        {
            "data_dir": data_dir,
            "model_dir": str(pathlib.Path(work) / "model"),
            # A single one, since each run traces its step again.
            "domains": (toy.ONE.name,),
            "steps_per_epoch": 2,
            "max_epochs": 1,
            "base_channels": 4,
            "pools": (1, 1, 1),
            "validate_every_epochs": 1,
            "distribution": DISTRIBUTION,
        }
    )
    different_flags(config, index)
    different_models(config, index, work)
    stopped_while_validating(config, index)
    lost(config.with_changes(max_epochs=2), index)


def different_flags(config, index):
    other = config.with_changes(learning_rate=0.5) if index else config
    with pytest.raises(
        InputError, match=r"worker 1 .*: `learning_rate`: expected"
    ) as e:
        runs.train(other)
    assert "expected 0.0003, as worker 0" in str(e.value)
    assert "Received: 0.5" in str(e.value)
    if index == 0:
        # The chief has removed the folder that it had locked.
        assert not pathlib.Path(config.run.model_dir).exists()


def different_models(config, index, work):
    """Only the first worker has a checkpoint, as without a shared file system."""
    own = config.with_changes(model_dir=str(pathlib.Path(work) / f"own_{index}"))
    runs.train(own)
    assert pathlib.Path(own.run.model_dir).exists() == (index == 0)
    with pytest.raises(InputError, match=r"worker 1 .*: step: expected 2, .*same fold"):
        runs.train(own.with_changes(max_epochs=2))


def stopped_while_validating(config, index):
    """The chief alone validates, and tells the other one that it was stopped."""
    validate = loop.validate

    def interrupted(*arguments, **options):
        assert index == 0
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments, **options)

    loop.validate = interrupted
    reason = "worker 0 .*" if index else "SIGTERM"
    with pytest.raises(StoppedEarlyError, match=rf"^stopped by {reason}: step 2 ") as e:
        runs.train(config, stop=StopRequests(signals=DeferredSignals()))
    assert e.value.exit_status == 128 + signal.SIGTERM
    loop.validate = validate
    # Ends with the validation that was interrupted.
    assert runs.train(config).step == 2


def lost(config, index):
    """The second worker ends silently; afterwards nothing can be trained."""
    step, taken = Trainer.step, []

    def killed(self, domain, batch):
        taken.append(domain)
        if len(taken) == 2 and index == 1:
            os._exit(0)
        return step(self, domain, batch)

    Trainer.step = killed
    with pytest.raises(StoppedError, match=r"worker 0 .*another worker has ended or c"):
        runs.train(config)


def main():
    reserved = reserve_ports(2)
    ports = [each.getsockname()[1] for each in reserved]
    # Forked before TensorFlow has started a thread.
    child = os.fork()
    index = 0 if child else 1
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
    )
    parts = {"run": run, "joint_and_faults": joint_and_faults}
    try:
        parts[sys.argv[1]](index, *sys.argv[2:])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    if index == 0:
        _, status = os.waitpid(child, 0)
        # Does not wait for the connection to a worker that was killed.
        os._exit(os.waitstatus_to_exitcode(status))
    os._exit(0)


if __name__ == "__main__":
    main()
