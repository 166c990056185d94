"""Flags that benchmarks have in common."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from tools.bench.measuring import Contender, Task
from tools.bench.setting import Setting
from u2net_tf import command, command_flags, machine

TORCH_LAYOUTS = ("channels_first", "channels_last")


def define_flags(*, runs: int | None = None, torch: bool = True) -> None:
    """Defines the flags of every benchmark.

    Args:
        runs: default of `--runs`; None for a benchmark that has no such flag.
        torch: whether PyTorch is a contender, a layout of which may be skipped.
    """
    flags.DEFINE_string("output", None, "The JSON file to write.", required=True)
    flags.DEFINE_integer(
        "threads", None, "Of each contender; all cores if not given.", lower_bound=1
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
            "Layout of PyTorch to leave out; may be repeated.",
        )


def define_network_flags(*, patch_size: int | None = None) -> None:
    """Defines the flags that say what network is measured.

    Args:
        patch_size: default of `patch_size`, an edge; None for a benchmark that asks
            otherwise.
    """
    if patch_size is not None:
        flags.DEFINE_integer(
            "patch_size", patch_size, "Edge of the patches, voxels.", lower_bound=1
        )
    flags.DEFINE_integer("batch_size", 2, "Patches at a time.", lower_bound=1)
    flags.DEFINE_integer(
        "base_channels", 16, "Channels at full resolution.", lower_bound=1
    )
    flags.DEFINE_list("pools", ["5", "5", "5"], "How often z, y, x are halved.")


def network_options() -> dict[str, Any]:
    """`batch_size`, `base_channels` and `pools` of a `Setting`.

    Raises:
        InputError: if the pools are not three whole numbers, one of them above 0.
    """
    pools = command_flags.triple(flags.FLAGS["pools"], least=0)
    if pools is None or max(pools) < 1:
        raise command.InputError(
            "`pools`", expected="three, at least one above 0", received=pools
        )
    return {
        "batch_size": flags.FLAGS.batch_size,
        "base_channels": flags.FLAGS.base_channels,
        "pools": pools,
    }


def check_patch(
    name: str, size: tuple[int, int, int], pools: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Returns the size of a patch.

    Args:
        name: of the flag.
        size: z, y, x.
        pools: how often z, y, x are halved.

    Raises:
        InputError: if the patch cannot be halved so often, or down to a single voxel,
            which PyTorch does not normalize.
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
    """The setting that `patch_size`, an edge, and the other flags ask for.

    Raises:
        InputError: if pools are none or do not fit.
    """
    options = network_options()
    size = check_patch("patch_size", (flags.FLAGS.patch_size,) * 3, options["pools"])
    return Setting(patch_size=size, **options)


def cubes(name: str, pools: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Patches whose edges the flag `name` lists.

    Raises:
        InputError: if it lists none or another thing, or pools do not fit.
    """
    texts = flags.FLAGS[name].value
    if not texts or not all(text.isdecimal() and int(text) for text in texts):
        raise command.InputError(
            f"`{name}`",
            expected="whole numbers of at least 1",
            received=",".join(texts),
        )
    return [check_patch(name, (int(text),) * 3, pools) for text in texts]


def num_threads() -> int:
    """Of `--threads`."""
    return flags.FLAGS.threads or machine.num_cores()


def torch_layouts(*packages: str) -> list[str]:
    """Layouts of PyTorch that `--skip` leaves.

    Args:
        *packages: needed for these besides PyTorch.

    Raises:
        StoppedError: if a package is not installed.
    """
    layouts = [name for name in TORCH_LAYOUTS if name not in flags.FLAGS.skip]
    for package in ("torch", *packages):
        if layouts and importlib.util.find_spec(package) is None:
            raise command.StoppedError(
                f"the other side of this benchmark needs {package}, which is not "
                "installed: pip install 'u2net-tf[bench]'"
            )
    return layouts


def torch_name(layout: str) -> str:
    """Of a contender, for the table."""
    return f"PyTorch, {layout.replace('_', ' ')}"


def torch_contenders(
    make: Callable[..., Task], layouts: Sequence[str], **arguments: Any
) -> list[Contender]:
    """A contender for each layout, which `make` gets as `layout`."""
    return [
        Contender(torch_name(layout), make, {"layout": layout, **arguments})
        for layout in layouts
    ]
