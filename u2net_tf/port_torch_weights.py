r"""Converts weights of the published PyTorch network to a model.

  python -m u2net_tf.port_torch_weights --weights=universal_epoch300.pth.tar \
      --plan=plan.json --domains=Task02_Heart,Task03_Liver --pools=5,5,5 \
      --patch_size=128,128,128 --resize_method=cubic --model_dir=ported

Weights are matched strictly by name: every parameter of the file is used once, every
variable of the network is set, and shapes are checked. `--domains` must be in the order
of `--tasks` of the original training. A state dict does not record how many times each
axis is halved: this is taken from `--pools`, or from the plan if its domains agree. The
preprocessing is that of the plan.

Reads `.npz` and, with PyTorch installed (`pip install 'u2net-tf[torch]'`), `.pth` and
`.pth.tar` as written by the published training. Pickled code in a file is never
executed.
"""

from u2net_tf import command, machine
from u2net_tf.config.published_weights import PortConfig


def main(config: PortConfig) -> None:
    """Converts the weights and writes the model."""
    from u2net_tf.models.spec import ModelSpec, common_pools
    from u2net_tf.plan.plan_file import load_plan

    plan = load_plan(config.plan).select(config.domains)
    spec = ModelSpec(
        plan=plan,
        pools=common_pools(plan, config.network.pools),
        patch_size=config.patch_size,
        resize_method=config.resize_method,
        **config.network.options(),
    )
    machine.import_tensorflow()
    from u2net_tf.published_weights.porting import port, summary

    print(summary(port(config.weights, spec, config.model_dir)))


def run() -> None:
    """Entry point of `u2net-port-torch-weights`."""
    command.start(main, PortConfig)


if __name__ == "__main__":
    run()
