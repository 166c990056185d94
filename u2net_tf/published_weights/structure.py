"""Infers network settings from a state dict of the published network."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from u2net_tf.config.network import SECOND_UP_CONV_TO_KERNEL
from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.blocks import published_second_up_conv
from u2net_tf.wording import quantity

STEM = "in_tr_list.{}.op1.0.weight"
HEAD = "out_tr_list.{}.conv1.weight"
FIRST_UNIT = "down_blocks.0.op1"
LAST_UNIT = "up_blocks.0.op2"


@dataclasses.dataclass(frozen=True)
class Structure:
    """Settings that can be inferred from names and shapes of parameters.

    Pools per axis cannot be inferred.

    Attributes:
      num_modalities: number of modalities per domain; 0 if its stem is missing.
      num_classes: number of classes per domain; 0 if its head is missing.
      base_channels: channels at full resolution.
      num_pools: largest number of pools along any axis.
      adapter: "separable", "series", "parallel" or "none".
      second_up_conv: "full" or "pointwise".
    """

    num_modalities: tuple[int, ...]
    num_classes: tuple[int, ...]
    base_channels: int
    num_pools: int
    adapter: str
    second_up_conv: str


def read_structure(params: Mapping[str, np.ndarray]) -> Structure:
    """Infers the settings of the network that has these parameters.

    Args:
      params: published name -> array, with the axes of PyTorch.

    Raises:
      InputError: if they are not parameters of the published network.
    """
    num_domains = _count(params, r"(?:in_tr_list|out_tr_list)\.(\d+)\.")
    stem = params.get(STEM.format(0))
    if stem is None or stem.ndim != 5:
        raise InputError(
            "parameters",
            expected="names and shapes of the published network, such as "
            f"{STEM.format(0)}",
            received=f"{sorted(params)[:3]} …",
        )
    adapter = _adapter(params)
    return Structure(
        num_modalities=_sizes(params, STEM, num_domains, axis=1),
        num_classes=_sizes(params, HEAD, num_domains, axis=0),
        base_channels=stem.shape[0],
        num_pools=_count(params, r"down_samps\.(\d+)\."),
        adapter=adapter,
        second_up_conv=_second_up_conv(params, adapter),
    )


def _count(params: Iterable[str], pattern: str) -> int:
    found = (re.match(pattern, name) for name in params)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _sizes(
    params: Mapping[str, np.ndarray], name: str, num_domains: int, *, axis: int
) -> tuple[int, ...]:
    arrays = (params.get(name.format(domain)) for domain in range(num_domains))
    return tuple(
        0 if array is None or array.ndim <= axis else array.shape[axis]
        for array in arrays
    )


def _adapter(params: Iterable[str]) -> str:
    marks = {
        "separable": f"{FIRST_UNIT}.pwise.conv1.weight",
        "series": f"{FIRST_UNIT}.adapOps.0.op1.1.weight",
        "parallel": f"{FIRST_UNIT}.adapOps.0.op1.weight",
    }
    return next((name for name, mark in marks.items() if mark in params), "none")


def _second_up_conv(params: Mapping[str, np.ndarray], adapter: str) -> str:
    if adapter == "separable":
        full = f"{LAST_UNIT}.adapOps.0.conv1.weight" in params
    else:
        kernel = params.get(f"{LAST_UNIT}.conv.weight", np.empty(()))
        full = kernel.shape[-1:] == (3,)
    return "full" if full else "pointwise"


def mismatches(structure: Structure, spec: ModelSpec) -> list[str]:
    """Returns how a spec differs from a structure, and which settings would match."""
    num_domains = len(structure.num_modalities)
    if num_domains == len(spec.plan.domains):
        found = _domain_mismatches(structure, spec)
    else:
        found = [
            f"in_tr_list.0 … in_tr_list.{num_domains - 1}: expected "
            f"{quantity(num_domains, 'domain')} in `plan` and `domains`, in the order "
            f"of the published --tasks. Received: {len(spec.plan.domains)} "
            f"({', '.join(spec.plan.names)})"
        ]
    resolved = spec.second_up_conv or published_second_up_conv(spec.adapter)
    kernel_in_file, kernel_in_spec = (
        SECOND_UP_CONV_TO_KERNEL[name] for name in (structure.second_up_conv, resolved)
    )
    for name, setting, in_file, in_spec in (
        (STEM.format(0), "base_channels", structure.base_channels, spec.base_channels),
        (FIRST_UNIT, "adapter", structure.adapter, spec.adapter),
        (LAST_UNIT, "last_decoder_kernel", kernel_in_file, kernel_in_spec),
    ):
        if in_file != in_spec:
            found.append(
                f"{name}: expected `{setting}`={in_file}. "
                f"Received: `{setting}`={in_spec}"
            )
    if structure.num_pools != max(spec.pools):
        found.append(
            f"down_samps.0 … down_samps.{structure.num_pools - 1}: expected `pools` "
            f"with a maximum of {structure.num_pools}. Received: "
            f"`pools`={','.join(map(str, spec.pools))}"
        )
    return found


def _domain_mismatches(structure: Structure, spec: ModelSpec) -> list[str]:
    """Returns mismatches per domain, given the same number of domains."""
    found = []
    for index, domain in enumerate(spec.plan.domains):
        for name, nouns, in_file, in_spec in (
            (
                STEM,
                ("modality", "modalities"),
                structure.num_modalities[index],
                domain.num_modalities,
            ),
            (
                HEAD,
                ("class", "classes"),
                structure.num_classes[index],
                domain.num_classes,
            ),
        ):
            if in_file != in_spec:
                found.append(
                    f"{name.format(index)}: expected {quantity(in_file, *nouns)} in "
                    f"domain {domain.name} of the plan. Received: {in_spec}. Change "
                    "the order of `domains` or the labels in the plan"
                )
    return found
