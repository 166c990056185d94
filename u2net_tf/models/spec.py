"""Specification of a model: its plan and network settings, stored as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Literal

from u2net_tf import migrations, schema
from u2net_tf.config.data import ResizeMethod
from u2net_tf.config.network import SECOND_UP_CONV_TO_KERNEL, Adapter, Architecture
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan import limits
from u2net_tf.plan.domains import SPLITS, Domain, Plan
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.plan.sharp_grid import Gates
from u2net_tf.schema import Count, Text


@schema.model
class CaseCounts:
    """Numbers of cases of a domain whose case names a model does not contain.

    Attributes:
      domain: name of the domain.
      train: number of training cases.
      validation: number of cases for validation during training.
      test: number of test cases.
    """

    domain: Text
    train: Count
    validation: Count
    test: Count


@schema.model
class ModelSpec:
    """Everything needed to build a network and its input.

    Attributes:
      plan: the network's domains, in the order of their indices.
      pools: number of times that the network halves z, y, x.
      base_channels: channels at full resolution.
      adapter: "separable", "series", "parallel" or "none".
      second_up_conv: "full", "pointwise", or None for the default of the adapter.
      patch_size: patch size z, y, x that the patches of all domains are resized to;
        None if each domain keeps its own.
      resize_method: "linear" or "cubic".
      architecture: "u2net" or "unet_sharp"; see `networks.architectures`.
      depth: levels of "unet_sharp" below full resolution; None for other
        architectures.
      align_corners: see `UNetSharp`; False for other architectures.
      deep_supervision: see `UNetSharp`; True for other architectures.
      gates: see `UNetSharp`; "none" for other architectures.
      case_counts: numbers of cases of the domains whose cases are not in the plan; see
        `case_names.without_case_names`.
    """

    plan: Plan
    pools: limits.PoolsByAxis
    base_channels: limits.BaseChannels = 16
    adapter: Adapter = "separable"
    second_up_conv: Literal["full", "pointwise"] | None = None
    patch_size: limits.PatchSize | None = None
    resize_method: ResizeMethod = "linear"
    architecture: Architecture = "u2net"
    depth: limits.Depth | None = None
    align_corners: bool = False
    deep_supervision: bool = True
    gates: Gates = "none"
    case_counts: tuple[CaseCounts, ...] = ()

    def __post_init__(self) -> None:
        limits.require_network(self.base_channels, self.pools)
        self._check_architecture()
        names = [counts.domain for counts in self.case_counts]
        schema.require_distinct("case_counts", names, "each domain once")
        without_cases = {
            d.name for d in self.plan.domains if not any(d.groups.values())
        }
        if others := sorted(set(names) - without_cases):
            raise InputError(
                "case_counts",
                expected="domains of the plan without cases",
                received=others,
            )

    def _check_architecture(self) -> None:
        depth, is_sharp = self.depth, self.architecture == "unet_sharp"
        if is_sharp != (depth is not None):
            raise InputError(
                "depth",
                expected="a number for unet_sharp and none for other architectures",
                received=f"{depth} for {self.architecture}",
            )
        if depth is not None:
            limits.require_depth(self.base_channels, self.pools, depth)
        fixed: dict[str, object] = {"second_up_conv": None}
        if not is_sharp:
            fixed = {"align_corners": False, "deep_supervision": True, "gates": "none"}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise InputError(
                    name,
                    expected=f"{value} for the architecture {self.architecture}",
                    received=getattr(self, name),
                )

    def has_case_names(self, domain: int) -> bool:
        """Returns whether the model contains the names of a domain's cases."""
        name = self.plan.names[domain]
        return all(counts.domain != name for counts in self.case_counts)

    def count_cases(self, domain: int) -> CaseCounts:
        """Returns the numbers of cases of a domain, with or without case names."""
        name = self.plan.names[domain]
        for counts in self.case_counts:
            if counts.domain == name:
                return counts
        found = self.plan.domains[domain].with_fold(None)
        return CaseCounts(
            name, len(found.train), len(found.validation), len(found.test)
        )

    def network_patch_size(self, domain: int) -> tuple[int, int, int]:
        """Returns the size of a domain's patches in the network: z, y, x."""
        return self.patch_size or self.plan.domains[domain].patch_size


MODEL = FileFormat(
    name="a model",
    made_by="python -m u2net_tf.train",
    kind=ModelSpec,
    oldest=0,
    upgrades=(
        migrations.model_spec,
        migrations.model_with(migrations.plan_with_scans),
        migrations.model_with(migrations.plan_with_resampling),
        migrations.model_with_case_counts,
        migrations.model_with_architecture,
        migrations.model_with_gates,
        migrations.model_with(migrations.plan_with_anatomy),
        migrations.model_with(migrations.plan_with_foreground),
        migrations.model_with(migrations.plan_with_regions),
    ),
)


def common_pools(
    plan: Plan, pools: tuple[int, int, int] | None, *, depth: int | None = None
) -> tuple[int, int, int]:
    """Returns the number of times that a network of all domains halves z, y, x.

    Args:
      plan: plan of the domains.
      pools: the numbers to use; None to use those of the domains, which must agree.
      depth: the largest number allowed; None for any.

    Raises:
      InputError: if no axis is halved, an axis is halved too many times, or the domains
        do not agree.
    """
    distinct = {domain.pools for domain in plan.domains} if pools is None else {pools}
    if len(distinct) > 1:
        raise InputError(
            "`pools`",
            expected="a value, since the domains of the plan have different pools",
            received=f"none, with {sorted(distinct)} in the plan",
        )
    (chosen,) = distinct
    source = f" in the plan of {', '.join(plan.names)}" if pools is None else ""
    if depth is not None and max(chosen) > depth:
        raise InputError(
            "`pools`",
            expected=f"at most {depth} along each axis, since `depth` is {depth}",
            received=f"{chosen}{source}",
            hint=_pools_hint(chosen, depth) if pools is None else "",
        )
    if max(chosen) < 1:
        raise InputError(
            "`pools`",
            expected="at least one axis to be halved",
            received=f"{chosen}{source}",
        )
    return chosen


def _pools_hint(pools: tuple[int, int, int], depth: int) -> str:
    """Suggests pools for a plan whose pools exceed the depth."""
    fitting = ",".join(str(min(times, depth)) for times in pools)
    return (
        f"Set `pools` to {fitting}, or change the domain's pools in the plan if "
        "several independent networks are trained"
    )


def check_patches(spec: ModelSpec, names: Sequence[str] = ()) -> None:
    """Checks that patch sizes are divisible by 2**pools.

    Args:
      spec: specification of the network.
      names: domains to check; all if empty.

    Raises:
      InputError: if a size is not divisible; names the domain.
    """
    for index, name in enumerate(spec.plan.names):
        size = spec.network_patch_size(index)
        divisible = all(n % 2**p == 0 for n, p in zip(size, spec.pools, strict=True))
        if not divisible and (not names or name in names):
            raise InputError(
                "patch_size",
                expected=f"sizes divisible by 2**pools, with pools {spec.pools}",
                received=f"{size} for {name}",
            )


def spec_to_json(spec: ModelSpec) -> str:
    """Returns the specification as JSON."""
    return json.dumps(MODEL.to_dict(spec))


def spec_from_json(text: str, source: object) -> ModelSpec:
    """Reads the JSON that `spec_to_json` of this version or an earlier one returned.

    Args:
      text: JSON.
      source: name of the checkpoint, for error messages.

    Raises:
      InputError: if the text is damaged or was written by a later version.
    """
    return MODEL.from_text(text, source)


# Fields of a domain that its hash covers, and others that affect training.
_SHARD_FIELDS = ("modalities", "labels", "spacing_mm", "preprocessing")
_TRAINING_FIELDS = ("patch_size", "batch_size", "mirror_axes")
# Fields of a specification that are compared or concatenated domain by domain.
DOMAIN_FIELDS = ("plan", "case_counts")


def check_same_spec(expected: ModelSpec, found: ModelSpec) -> None:
    """Checks that two specifications agree in everything that affects training.

    Raises:
      InputError: if they do not; lists the differences, with an empty `where`.
    """
    if expected.plan.names != found.plan.names:
        _raise_mismatch("domains", expected.plan.names, found.plan.names)
    if (difference := differing_setting(expected, found)) is not None:
        _raise_mismatch(*difference)
    pairs = zip(expected.plan.domains, found.plan.domains, strict=True)
    for index, (one, other) in enumerate(pairs):
        splits = _differing_splits(index, expected, found)
        if (
            splits
            or plan_hash(one) != plan_hash(other)
            or any(
                getattr(one, name) != getattr(other, name) for name in _TRAINING_FIELDS
            )
        ):
            differing = [
                name
                for name in (*_SHARD_FIELDS, *_TRAINING_FIELDS)
                if getattr(one, name) != getattr(other, name)
            ] + splits
            raise InputError(
                "",
                expected=f"domain {one.name} as in the plan",
                received=f"different {', '.join(differing)}",
            )


def network_settings(spec: ModelSpec) -> dict[str, object]:
    """Returns the settings of the network, with the names of their flags."""
    settings = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name not in DOMAIN_FIELDS
    }
    kernel = settings.pop("second_up_conv")
    settings["last_decoder_kernel"] = kernel and SECOND_UP_CONV_TO_KERNEL[kernel]
    return settings


def differing_setting(
    expected: ModelSpec, found: ModelSpec
) -> tuple[str, object, object] | None:
    """Returns the first network setting that differs, and both of its values.

    Domains are not compared. Architecture and depth are compared first, since other
    settings depend on them.
    """
    one, other = map(network_settings, (expected, found))
    for name in sorted(one, key=lambda name: name not in ("architecture", "depth")):
        if one[name] != other[name]:
            return name, one[name], other[name]
    return None


def _differing_splits(index: int, expected: ModelSpec, found: ModelSpec) -> list[str]:
    """Returns the splits whose cases differ, or whose numbers if names are missing."""
    specs = (expected, found)
    one: Domain | CaseCounts
    other: Domain | CaseCounts
    one, other = (spec.count_cases(index) for spec in specs)
    if all(spec.has_case_names(index) for spec in specs):
        one, other = (spec.plan.domains[index] for spec in specs)
    return [name for name in SPLITS if getattr(one, name) != getattr(other, name)]


def _raise_mismatch(name: str, expected: object, received: object) -> None:
    raise InputError("", expected=f"{name} {expected}", received=received)
