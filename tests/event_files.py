"""Reads the TensorBoard scalars of a run."""

from tensorboard.backend.event_processing import event_accumulator


def scalars_of(model_dir):
    """Tag -> [(step, serialized value), …], of all event files of a run."""
    events = event_accumulator.EventAccumulator(
        str(model_dir / "tensorboard"),
        size_guidance={event_accumulator.TENSORS: 0},
    )
    events.Reload()
    return {
        tag: [(e.step, e.tensor_proto.SerializeToString()) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
