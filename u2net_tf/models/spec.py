"""What a model is: the plan it serves and the network's settings. JSON in and out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

from u2net_tf import migrations, schema
from u2net_tf.config.data import ResizeMethod
from u2net_tf.config.network import Adapter
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import SPLITS, Plan
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.schema import Count, Size


@schema.model
class ModelSpec:
    """Everything that is needed to build a network and to feed it.

    Attributes:
      plan: its domains, in the order of their indices.
      pools: how often the network halves z, y, x.
      base_channels: channels at full resolution.
      adapter: "separable", "series", "parallel" or "none".
      second_up_conv: "full", "pointwise" or None for the adapter's own.
      patch_size: the network's patch z, y, x, to which each domain's patch is resized;
        None where the domain's own is taken as it is.
      resize_method: "linear" or "cubic".
    """

    plan: Plan
    pools: tuple[Count, Count, Count]
    base_channels: Size = 16
    adapter: Adapter = "separable"
    second_up_conv: Literal["full", "pointwise"] | None = None
    patch_size: tuple[Size, Size, Size] | None = None
    resize_method: ResizeMethod = "linear"

    def network_patch_size(self, domain: int) -> tuple[int, int, int]:
        """What the network sees of a domain: z, y, x."""
        return self.patch_size or self.plan.domains[domain].patch_size


MODEL = FileFormat(
    name="a model",
    made_by="python -m u2net_tf.train",
    kind=ModelSpec,
    oldest=0,
    upgrades=(migrations.model_spec,),
)


def common_pools(
    plan: Plan, pools: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """How often a network of all domains of a plan halves z, y, x.

    Args:
      plan: its domains.
      pools: those wanted; the domains' own, where they agree, if None.

    Raises:
      InputError: if no axis is halved, or the domains do not agree.
    """
    distinct = {domain.pools for domain in plan.domains} if pools is None else {pools}
    if len(distinct) > 1:
        raise InputError(
            "`pools`",
            expected="a value, since the domains of the plan differ in theirs",
            received=f"none, and {sorted(distinct)} in the plan",
        )
    (chosen,) = distinct
    if max(chosen) < 1:
        source = f" in the plan of {', '.join(plan.names)}" if pools is None else ""
        raise InputError(
            "`pools`",
            expected="at least one axis to be halved",
            received=f"{chosen}{source}",
        )
    return chosen


def check_patches(spec: ModelSpec, names: Sequence[str] = ()) -> None:
    """Checks that the network can halve its patches as often as it must.

    Args:
      spec: what the network is.
      names: domains to check; all if empty.

    Raises:
      InputError: names the domain.
    """
    for index, name in enumerate(spec.plan.names):
        size = spec.network_patch_size(index)
        divisible = all(n % 2**p == 0 for n, p in zip(size, spec.pools, strict=True))
        if not divisible and (not names or name in names):
            raise InputError(
                "patch_size",
                expected=f"sizes divisible by 2**pools, pools being {spec.pools}",
                received=f"{size} for {name}",
            )


def build_network(spec: ModelSpec, **kwargs: Any):
    """A network with all its variables, randomly initialized.

    Args:
      spec: what to build.
      **kwargs: `name`, `dtype` and `gradient_checkpointing` of the model.
    """
    from u2net_tf.networks.u2net import U2Net

    network = U2Net(
        [domain.num_modalities for domain in spec.plan.domains],
        [domain.num_classes for domain in spec.plan.domains],
        pools=spec.pools,
        base_channels=spec.base_channels,
        adapter=spec.adapter,
        second_up_conv=spec.second_up_conv,
        **kwargs,
    )
    network.build()
    return network


def spec_to_json(spec: ModelSpec) -> str:
    """The spec as text."""
    return json.dumps(MODEL.to_dict(spec))


def spec_from_json(text: str, source: object) -> ModelSpec:
    """Reads what `spec_to_json` wrote, in this version or an earlier one.

    Args:
      text: what it wrote.
      source: names the checkpoint in errors.

    Raises:
      InputError: if the text is damaged or a later version's.
    """
    return MODEL.from_text(text, source)


# Fields of a domain that its hash covers, and others that training depends on.
_OF_VOXELS = ("modalities", "labels", "spacing_mm", "preprocessing")
_COMPARED = ("patch_size", "batch_size", "mirror_axes", *SPLITS)


def check_same_spec(expected: ModelSpec, found: ModelSpec) -> None:
    """Checks that two specs agree in all that training depends on.

    Raises:
      InputError: says in what they do not; its place is empty.
    """
    if expected.plan.names != found.plan.names:
        _refuse("domains", expected.plan.names, found.plan.names)
    for field in dataclasses.fields(expected):
        wanted, got = getattr(expected, field.name), getattr(found, field.name)
        if field.name != "plan" and wanted != got:
            _refuse(field.name, wanted, got)
    pairs = zip(expected.plan.domains, found.plan.domains, strict=True)
    for one, other in pairs:
        if plan_hash(one) != plan_hash(other) or any(
            getattr(one, name) != getattr(other, name) for name in _COMPARED
        ):
            differing = [
                name
                for name in (*_OF_VOXELS, *_COMPARED)
                if getattr(one, name) != getattr(other, name)
            ]
            raise InputError(
                "",
                expected=f"domain {one.name} as in the plan",
                received=f"another {', '.join(differing)}",
            )


def _refuse(name: str, wanted: object, got: object) -> None:
    raise InputError("", expected=f"{name} {wanted}", received=got)
