r"""Makes a model of the weights of the published network, trained with PyTorch.

    python -m tools.port_torch_weights --weights=universal_epoch300.pth.tar \
        --plan=plan.json --domains=Task02_Heart,Task03_Liver --pools=5,5,5 \
        --patch_size=128,128,128 --resize_method=cubic --model_dir=ported

Strictly by name: every parameter of the file is used once, every variable of the
network is set, shapes are checked. `--domains` are in the order of the training's
`--tasks`. A state dict does not show how often each axis is halved: `--pools` says so,
or the plan where its domains agree. Nor does it hold the preprocessing: that is the
plan's.

Reads `.npz`, and with PyTorch installed `.pth` and `.pth.tar`, as the published
training writes it. Nothing that is pickled in a file is run.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence

from absl import flags

from u2net_tf import command, command_flags, machine
from u2net_tf.config.data import RESIZE_METHODS
from u2net_tf.config.network import NetworkConfig
from u2net_tf.models.spec import ModelSpec, check_patches, common_pools
from u2net_tf.plan.plan_file import load_plan


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("weights", None, "The file: .npz, .pth or .pth.tar.")
    flags.DEFINE_string("plan", None, "Plan of the domains.")
    flags.DEFINE_list(
        "domains",
        [],
        "Domains of the plan, in the order of the published network's domain indices; "
        "the plan's own order if empty.",
    )
    flags.DEFINE_string("model_dir", None, "Folder of the model to make.")
    flags.DEFINE_list(
        "patch_size",
        [],
        "The patch z,y,x that the network was trained with, if patches were resized to "
        "it; each domain's own if empty.",
    )
    flags.DEFINE_enum(
        "resize_method", "linear", RESIZE_METHODS, "How patches were resized."
    )
    command_flags.define(NetworkConfig)


def main(argv: Sequence[str]) -> None:
    """Ports the weights that the flags name."""
    del argv  # flags only; `command.start` has checked
    values = flags.FLAGS
    command_flags.required(*(values[name] for name in ("weights", "plan", "model_dir")))
    port(pathlib.Path(values.weights), _spec(), values.model_dir)


def _spec() -> ModelSpec:
    values = flags.FLAGS
    network = command_flags.read(NetworkConfig)
    plan = load_plan(values.plan).select(values.domains)
    return ModelSpec(
        plan=plan,
        pools=common_pools(plan, network.pools),
        patch_size=command_flags.triple(values["patch_size"], least=1),
        resize_method=values.resize_method,
        **network.options(),
    )


def port(weights: pathlib.Path, spec: ModelSpec, model_dir: str) -> None:
    """Writes a model of the weights in a file, and prints what it did.

    Args:
        weights: the file, as of `published_files.read_published`.
        spec: what the network is.
        model_dir: folder to make.

    Raises:
        InputError: if the file cannot be read, contradicts the spec, or the folder
            holds a model; nothing is written.
        StoppedError: if PyTorch is needed and not installed.
    """
    check_patches(spec)
    machine.import_tensorflow()
    from tools.published_files import read_published
    from tools.published_structure import contradictions, read_structure
    from tools.published_weights import load_published_weights
    from u2net_tf.models.build import build_network
    from u2net_tf.models.loading import require_no_model, save_model

    require_no_model(model_dir)
    params, notes = read_published(weights)
    try:
        found = contradictions(read_structure(params), spec)
    except command.InputError as error:
        raise error.within(weights) from None
    if found:
        raise command.InputError(
            weights,
            expected="the network of the plan and flags",
            received="another network:\n  " + "\n  ".join(found),
        )
    network = build_network(spec)
    try:
        load_published_weights(network, params)
    except command.InputError as error:
        raise error.within(weights) from None
    path = save_model(model_dir, spec, network)
    _say(weights, notes, spec, network, path)


def _say(weights, notes, spec, network, path) -> None:
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    print(f"{weights}: SHA-256 {checksum}")
    for note in notes:
        print(f"  {note}")
    print(
        f"{path}: {network.count_params():,} parameters in {len(network.variables)} "
        f"arrays, every name used once; adapter {spec.adapter}, base_channels "
        f"{spec.base_channels}, pools {','.join(map(str, spec.pools))}"
    )
    for index, domain in enumerate(spec.plan.domains):
        names = ", ".join(label.name for label in domain.labels)
        modalities = ", ".join(domain.modalities)
        print(f"  domain {index}: {domain.name}, {modalities} -> {names}")
    print(
        "The file shows neither the order of modalities and labels nor how often each "
        "axis is halved:\ncheck them, and that scans are prepared as for the training."
    )


def run() -> None:
    """Entry point: parses the flags and calls `main`."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
