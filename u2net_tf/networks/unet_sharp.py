"""UNet#: dense and full-scale skip connections, for many domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.arguments import (
    check_gates,
    check_num_classes,
    check_pools,
    check_positive_integer,
    check_positive_integers,
)
from u2net_tf.networks.blocks import DomainConvBlock
from u2net_tf.networks.conv_units import check_adapter
from u2net_tf.networks.domain_network import DomainNetwork, cast_logits
from u2net_tf.networks.gradient_checkpointing import (
    check_gradient_checkpointing,
)
from u2net_tf.networks.layers import ClassGate, DomainConv3D, DomainLayer
from u2net_tf.networks.layers.class_gate import close_gates, detect_classes
from u2net_tf.networks.sharp_node import SharpNode
from u2net_tf.plan.limits import MAX_DEPTH
from u2net_tf.plan.sharp_grid import (
    Gates,
    Place,
    gate_places,
    head_places,
    node_places,
    sources,
)


@keras.saving.register_keras_serializable(package="u2net_tf")
class UNetSharp(DomainNetwork, keras.Model):
    """UNet# in 3-D, universal or plain.

    Node X^{i,j} is at level i (0 is full resolution) and column j, with i + j at most
    `depth`. X^{i,0} reads X^{i-1,0} after max pooling; the others read all nodes to
    their left and, up-sampled, all nodes on the diagonal below:
    X^{i,j} = H(X^{i,0}, …, X^{i,j-1}, U(X^{i+1,j-1}), …, U(X^{i+j,0})). H is two units
    of convolution, norm and LeakyReLU.

    In every mode, each domain has its own first convolution of X^{0,0}, norms and
    heads; all other convolutions of the nodes have adapters.

    Args:
      num_modalities: Input channels of each domain.
      num_classes: Classes of each domain, including the background, at least 2 each.
      depth: Levels below full resolution, 1 to 4.
      pools: Number of halvings along D, H and W, at most `depth`; `depth` if None.
      base_channels: Channels at full resolution (32 in the paper); each level has
        twice as many.
      adapter: "separable", "series", "parallel" or "none".
      align_corners: Whether up-sampling aligns the centres of the outermost voxels, as
        in the official code, or their outer faces.
      deep_supervision: Whether there are heads other than that of X^{0,depth}:
        on X^{0,1}, …, X^{0,depth-1} and X^{1,depth-1}, …, X^{depth,0}. They are used
        in training only.
      gates: Nodes that have a gate (see `gated_logits`): "deep" for X^{1,0}, …, "top"
        for X^{0,1}, …, "both" or "none"; without deep supervision only the last.
      gradient_checkpointing: "none", or "blocks" to recompute the intermediate results
        of stem and nodes, including up-sampled inputs, in the backward pass instead
        of keeping them. Affects memory and time, not results.
      **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Raises:
      ValueError: If an argument is out of range or the first two differ in length.

    Reference:
      UNet#, arXiv:2205.11589. Norm and activation are those of 3D U²-Net; the official
      code, in 2-D, has batch norm and ReLU.
    """

    def __init__(
        self,
        num_modalities: Sequence[int],
        num_classes: Sequence[int],
        *,
        depth: int = 4,
        pools: Sequence[int] | None = None,
        base_channels: int = 16,
        adapter: str = "separable",
        align_corners: bool = False,
        deep_supervision: bool = True,
        gates: Gates = "none",
        gradient_checkpointing: str = "none",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_modalities = check_positive_integers("num_modalities", num_modalities)
        self.num_classes = check_num_classes(num_classes, self.num_modalities)
        self.num_domains = len(self.num_modalities)
        self.depth = check_positive_integer("depth", depth)
        self.pools = check_pools((depth,) * 3 if pools is None else pools)
        if self.depth > MAX_DEPTH or max(self.pools) > self.depth:
            raise ValueError(
                f"`depth` must be at most {MAX_DEPTH} and `pools` at most `depth`. "
                f"Received: depth={depth}, pools={self.pools}"
            )
        self.base_channels = check_positive_integer("base_channels", base_channels)
        self.adapter = check_adapter(adapter)
        self.align_corners = align_corners
        self.deep_supervision = deep_supervision
        self.gates_setting = check_gates(gates)
        self.gradient_checkpointing = check_gradient_checkpointing(
            gradient_checkpointing
        )
        # This order determines the seeds of the initial weights.
        self._add_nodes()
        self._add_heads()
        self._add_gates()

    def _add_nodes(self) -> None:
        self.stem = self.add_part(
            DomainConvBlock(
                self.num_modalities,
                (self.base_channels,) * self.num_domains,
                name="stem",
                dtype=self.dtype_policy,
            )
        )
        self.nodes: dict[Place, SharpNode] = {}
        for place in node_places(self.depth):
            level, column = place
            # X^{0,0} reads the stem, which is the first of its two convolutions.
            inputs = sources(place) or (place,)
            self.nodes[place] = self.add_part(
                SharpNode(
                    [self._channels(source[0]) for source in inputs],
                    self._channels(level),
                    self.num_domains,
                    # Pooled inputs have the size of the node.
                    upsample=[
                        self._factors(max(source[0], level), level) for source in inputs
                    ],
                    num_units=1 if place == (0, 0) else 2,
                    adapter=self.adapter,
                    align_corners=self.align_corners,
                    gradient_checkpointing=self.gradient_checkpointing,
                    name=f"node_{level}_{column}",
                    dtype=self.dtype_policy,
                )
            )

    def _add_heads(self) -> None:
        self.heads: dict[Place, DomainConv3D] = {}
        for level, column in head_places(self.depth, self.deep_supervision):
            self.heads[level, column] = self.add_part(
                DomainConv3D(
                    (self._channels(level),) * self.num_domains,
                    self.num_classes,
                    kernel_size=(3, 3, 3) if level else (1, 1, 1),
                    name=f"head_{level}_{column}",
                    dtype=self.dtype_policy,
                )
            )

    def _add_gates(self) -> None:
        self.gates: dict[Place, ClassGate] = {}
        places = gate_places(self.gates_setting, self.depth, self.deep_supervision)
        for level, column in places:
            self.gates[level, column] = self.add_part(
                ClassGate(
                    self._channels(level),
                    self.num_classes,
                    name=f"gate_{level}_{column}",
                    dtype=self.dtype_policy,
                )
            )

    def _channels(self, level: int) -> int:
        return self.base_channels * 2**level

    def _factors(self, level: int, target: int) -> tuple[int, ...]:
        """Returns the up-sampling factors from a level to one of higher resolution."""
        return tuple(2 ** (min(level, p) - min(target, p)) for p in self.pools)

    @property
    def trunk_layers(self) -> tuple[DomainLayer, ...]:
        """The layers whose convolutions are shared, in no particular order."""
        return tuple(self.nodes.values())

    @property
    def stride_1_layers(self) -> tuple[DomainLayer, ...]:
        """The `trunk_layers` whose convolutions all have stride 1."""
        return self.trunk_layers

    def call(
        self, inputs: tf.Tensor, *, domain: int, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the logits of one domain at head X^{0,depth}.

        Args:
          inputs: Tensor of shape (N, D, H, W, M), with the M modalities of `domain`;
            D, H and W must be divisible by 2**pools.
          domain: Python integer, the index of the domain.
          training: Has no effect: instance statistics are always those of the
            input. Keras passes it to every model.

        Returns:
          Logits of shape (N, D, H, W, K), with the K classes of `domain`; float32,
          or float64 for a float64 model.

        Raises:
          ValueError: If a known size of `inputs`, or `domain`, is invalid.
        """
        last = (0, self.depth)
        return self.head_logits(inputs, domain=domain, heads=[last])[last]

    def head_logits(
        self, inputs: tf.Tensor, *, domain: int, heads: Sequence[Place]
    ) -> dict[Place, tf.Tensor]:
        """Computes the head logits only; see `head_and_gate_logits`."""
        return self.head_and_gate_logits(inputs, domain=domain, heads=heads)[0]

    def head_and_gate_logits(
        self,
        inputs: tf.Tensor,
        *,
        domain: int,
        heads: Sequence[Place],
        gates: Sequence[Place] = (),
        dropout_seed: tf.Tensor | None = None,
    ) -> tuple[dict[Place, tf.Tensor], dict[Place, tf.Tensor]]:
        """Computes the full-resolution logits of heads, and the logits of gates.

        Args:
          inputs: See `call`.
          domain: Index of the domain.
          heads: Level and column of the node that each head reads.
          gates: Level and column of the node that each gate reads.
          dropout_seed: (2,) integers, seed of the gates' dropout; None for no dropout.

        Returns:
          Place of each head -> its logits, as `call` returns them and unaffected by
          gates; place of each gate -> its logits, as `ClassGate` returns them, in the
          dtype of the heads' logits.

        Raises:
          ValueError: See `call`; also if there is no such head or gate.
        """
        domain = self.check_domain(domain)
        self.check_inputs(inputs)
        for name, requested, existing in (
            ("heads", heads, self.heads),
            ("gates", gates, self.gates),
        ):
            if missing := [place for place in requested if place not in existing]:
                raise ValueError(
                    f"`{name}` must be among {list(existing)}. Received: {missing}"
                )
        feature_maps = self._run_nodes(inputs, domain)
        logits = {}
        for head in heads:
            head_logits = self.heads[head](feature_maps[head], domain=domain)
            logits[head] = ops.upsample_linear(
                cast_logits(head_logits),
                self._factors(head[0], 0),
                align_corners=self.align_corners,
            )
        pairs = {place: (self.gates[place], feature_maps[place]) for place in gates}
        presence = detect_classes(pairs, domain=domain, dropout_seed=dropout_seed)
        return logits, {place: cast_logits(presence[place]) for place in gates}

    def gated_logits(
        self, inputs: tf.Tensor, *, domain: int, threshold: float
    ) -> tf.Tensor:
        """Computes the logits, suppressing classes that a gate finds absent.

        Args:
          inputs: See `call`.
          domain: Index of the domain.
          threshold: See `close_gates`; applies to gates on X^{0,depth} and X^{depth,0}.

        Raises:
          ValueError: See `call`; also if there are no gates.
        """
        last = (0, self.depth)
        gates = gate_places(self.gates_setting, self.depth, deep_supervision=False)
        if not gates:
            raise ValueError("The network must have gates. Received: gates='none'")
        logits, presence = self.head_and_gate_logits(
            inputs, domain=domain, heads=[last], gates=gates
        )
        return close_gates(logits[last], list(presence.values()), threshold)

    def _run_nodes(self, inputs: tf.Tensor, domain: int) -> dict[Place, tf.Tensor]:
        hidden = self.run_stem(inputs, domain)
        feature_maps: dict[Place, tf.Tensor] = {}
        for place, node in self.nodes.items():
            read = [feature_maps[source] for source in sources(place)] or [hidden]
            if place[1] == 0 and place[0] > 0:
                read = [ops.max_pool(read[0], self.strides(place[0] - 1))]
            feature_maps[place] = node(*read, domain=domain)
        return feature_maps

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_modalities": self.num_modalities,
            "num_classes": self.num_classes,
            "depth": self.depth,
            "pools": self.pools,
            "base_channels": self.base_channels,
            "adapter": self.adapter,
            "align_corners": self.align_corners,
            "deep_supervision": self.deep_supervision,
            "gates": self.gates_setting,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
