"""Flags shared by the benchmarks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from tools.bench.measuring import Contender, Task
from tools.bench.setting import Setting
from tools.bench.sharp_networks import ADAPTERS, SharpSetting
from u2net_tf import command, command_flags, machine
from u2net_tf.plan.limits import MAX_DEPTH

TORCH_LAYOUTS = ("channels_first", "channels_last")


def define_flags(*, runs: int | None = None, torch: bool = True) -> None:
    """Defines the flags of every benchmark.

    Args:
        runs: default of `--runs`; None for benchmarks without this flag.
        torch: whether to define `--skip`, for benchmarks against PyTorch.
    """
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_integer(
        "threads",
        None,
        "Threads of each contender; all cores if not given.",
        lower_bound=1,
    )
    if runs is not None:
        flags.DEFINE_integer(
            "runs", runs, "Timed runs of each contender.", lower_bound=1
        )
    if torch:
        flags.DEFINE_multi_enum(
            "skip",
            [],
            TORCH_LAYOUTS,
            "Layout of PyTorch to skip; may be repeated.",
        )


def define_network_flags(*, patch_size: int | None = None) -> None:
    """Defines the flags that describe a 3D U²-Net.

    Args:
        patch_size: see `define_size_flags`.
    """
    define_size_flags(patch_size=patch_size)
    flags.DEFINE_list("pools", ["5", "5", "5"], "Number of times z, y, x are halved.")


def define_sharp_flags() -> None:
    """Defines the flags of a UNet# that a 3D U²-Net does not have."""
    flags.DEFINE_integer(
        "depth",
        MAX_DEPTH,
        "Levels of a UNet# below full resolution.",
        lower_bound=1,
        upper_bound=MAX_DEPTH,
    )
    flags.DEFINE_enum("adapter", "none", ADAPTERS, "Convolution units of a UNet#.")


def define_size_flags(*, patch_size: int | None = None) -> None:
    """Defines the flags that describe the size of network and batch.

    Args:
        patch_size: default of `--patch_size`, an edge; None for benchmarks that define
            the patch size otherwise.
    """
    if patch_size is not None:
        flags.DEFINE_integer(
            "patch_size", patch_size, "Edge of the patches in voxels.", lower_bound=1
        )
    flags.DEFINE_integer("batch_size", 2, "Patches per batch.", lower_bound=1)
    flags.DEFINE_integer(
        "base_channels", 16, "Channels at full resolution.", lower_bound=1
    )


def network_options() -> dict[str, Any]:
    """Returns `batch_size`, `base_channels` and `pools` of a `Setting`.

    Raises:
        InputError: if the pools are not three integers, at least one of them above 0.
    """
    pools = command_flags.triple(flags.FLAGS["pools"], least=0)
    if pools is None or max(pools) < 1:
        raise command.InputError(
            "`pools`", expected="at least one above 0", received=pools
        )
    return {
        "batch_size": flags.FLAGS.batch_size,
        "base_channels": flags.FLAGS.base_channels,
        "pools": pools,
    }


def check_patch(
    name: str, size: tuple[int, int, int], pools: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Checks and returns the size of a patch.

    Args:
        name: name of the flag.
        size: patch size z, y, x in voxels.
        pools: number of times z, y, x are halved.

    Raises:
        InputError: if the patch size is not divisible by 2**pools, or if a single
            voxel remains, which PyTorch does not normalize.
    """
    deepest = [edge / 2**count for edge, count in zip(size, pools, strict=True)]
    if any(edge % 1 for edge in deepest) or max(deepest) == 1:
        raise command.InputError(
            f"`{name}`",
            expected=f"sizes divisible by 2**pools, pools being {pools}, and more than "
            "one voxel after that",
            received=",".join(map(str, size)),
        )
    return size


def cubic_setting() -> Setting:
    """Returns the setting that the flags describe, with cubic patches.

    Raises:
        InputError: if the pools are invalid or do not fit the patch size.
    """
    options = network_options()
    size = check_patch("patch_size", (flags.FLAGS.patch_size,) * 3, options["pools"])
    return Setting(patch_size=size, **options)


def sharp_setting() -> SharpSetting:
    """Returns the setting of a UNet# that the flags describe, with cubic patches.

    Raises:
        InputError: if the depth does not fit the patch size.
    """
    values = flags.FLAGS
    pools = (values.depth,) * 3
    return SharpSetting(
        check_patch("patch_size", (values.patch_size,) * 3, pools),
        values.batch_size,
        values.depth,
        values.base_channels,
        values.adapter,
    )


def cubes(name: str, pools: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Returns cubic patch sizes with the edges in the flag `name`.

    Raises:
        InputError: if it is empty or has an invalid edge, or one that does not fit the
            pools.
    """
    texts = flags.FLAGS[name].value
    if not texts or not all(text.isdecimal() and int(text) for text in texts):
        raise command.InputError(
            f"`{name}`",
            expected="integers of at least 1",
            received=",".join(texts),
        )
    return [check_patch(name, (int(text),) * 3, pools) for text in texts]


def num_threads() -> int:
    """Returns `--threads`, or the number of cores if it is not given."""
    return flags.FLAGS.threads or machine.num_cores()


def torch_layouts(*packages: str) -> list[str]:
    """Returns the layouts of PyTorch that `--skip` does not list.

    Args:
        *packages: packages that they need in addition to PyTorch.

    Raises:
        StoppedError: if a package is not installed.
    """
    layouts = [name for name in TORCH_LAYOUTS if name not in flags.FLAGS.skip]
    for package in ("torch", *packages):
        if layouts and importlib.util.find_spec(package) is None:
            raise command.StoppedError(
                f"this benchmark needs {package}, which is not installed: "
                "pip install 'u2net-tf[bench]'"
            )
    return layouts


def torch_name(layout: str) -> str:
    """Returns the name of PyTorch with this layout for the table."""
    return f"PyTorch, {layout.replace('_', ' ')}"


def torch_contenders(
    make: Callable[..., Task], layouts: Sequence[str], **arguments: Any
) -> list[Contender]:
    """Returns a contender per layout, which is passed to `make` as `layout`."""
    return [
        Contender(torch_name(layout), make, {"layout": layout, **arguments})
        for layout in layouts
    ]
