"""Layers that keep some or all of their variables per domain.

A domain's parameters are variables of its own, held in a list inside each layer and
chosen by the Python integer `domain` when a step is traced. What a step does not use,
it does not touch. `domain` goes by keyword: Keras takes only tensors by position.
"""

import functools
import math
import operator

import keras
import tensorflow as tf

from u2net_tf.networks import ops

NEGATIVE_SLOPE = 0.01


def he_normal(fan_in):
    """Returns the published initializer: normal, deviation sqrt(2 / fan_in).

    Keras' own `he_normal` is truncated, and counts the fan-in of a depthwise kernel by
    the position of its axes. A new object each time, because one initializer returns
    the same numbers at every call.
    """
    return keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / fan_in))


def check_positive_integers(name, values, *, length=None):
    """Returns `values` as a tuple of integers of at least 1, or raises ValueError."""
    values = tuple(values)
    if (
        not values
        or any(int(value) != value or value < 1 for value in values)
        or (length is not None and len(values) != length)
    ):
        count = "integers" if length is None else f"{length} integers"
        raise ValueError(f"`{name}` must be {count} of at least 1. Received: {values}")
    return tuple(int(value) for value in values)


def name_each(layer, name, values):
    """Makes each of `values` an attribute of `layer` of its own, `name_0` and so on.

    For `tf.train.Checkpoint` of a layer, which does not look into the lists of a Keras
    layer. Checkpoints of a run do not need it: see `DomainLayer.variables_by_path`.
    """
    for index, value in enumerate(values):
        setattr(layer, f"{name}_{index}", value)


def variables_of_parts(parts):
    """Returns path -> variable, of all layers in `parts`, which are given by name."""
    return {
        f"{part}/{path}": variable
        for part, layer in parts.items()
        for path, variable in layer.variables_by_path().items()
    }


class DomainLayer(keras.layers.Layer):
    """A layer some of whose variables belong to one domain alone.

    Subclasses either override `own_domain_variables` or `own_shared_variables`, or name
    in `parts` the domain layers they are made of.

    Args:
        num_domains: Number of domains, at least 1.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, num_domains, **kwargs):
        super().__init__(**kwargs)
        (self.num_domains,) = check_positive_integers("num_domains", [num_domains])

    @property
    def parts(self):
        """The layers this layer is made of, in the order of computation, by name.

        The names stand in checkpoints and do not follow the names of attributes.
        """
        return {}

    @property
    def sublayers(self):
        """The layers this layer is made of, in the order of computation."""
        return tuple(self.parts.values())

    def check_domain(self, domain):
        """Returns `domain` as an integer.

        Raises:
            ValueError: If it is not an integer from 0 to num_domains - 1.
        """
        try:
            index = operator.index(domain)
        except TypeError:
            index = -1
        if not 0 <= index < self.num_domains:
            raise ValueError(
                f"`domain` must be an integer from 0 to {self.num_domains - 1}. "
                f"Received: domain={domain}"
            )
        return index

    def own_shared_variables(self):
        """Returns the variables of this layer itself that all domains read, by name."""
        return {}

    def own_domain_variables(self, domain):
        """Returns the variables of this layer itself that only `domain` reads.

        By name, without the domain's number; the names stand in checkpoints.
        """
        return {}

    def domain_variables(self, domain):
        """Returns the variables here and below that only `domain` reads."""
        variables = list(self.own_domain_variables(self.check_domain(domain)).values())
        for layer in self.sublayers:
            variables.extend(layer.domain_variables(domain))
        return variables

    def read_variables(self, domain):
        """Returns the variables here and below that `domain` reads, shared or not."""
        variables = list(self.own_domain_variables(self.check_domain(domain)).values())
        variables.extend(self.own_shared_variables().values())
        for layer in self.sublayers:
            variables.extend(layer.read_variables(domain))
        return variables

    def variables_by_path(self):
        """Returns path -> variable, of all variables here and below.

        Checkpoints hold variables under these paths. They are made of the names in
        `parts` and of those of the variables, with the domain's number: "conv/kernel",
        "norm/gamma_2".
        """
        found = dict(self.own_shared_variables())
        for domain in range(self.num_domains):
            for name, variable in self.own_domain_variables(domain).items():
                found[f"{name}_{domain}"] = variable
        return found | variables_of_parts(self.parts)

    def build_with_channels(self, layer, channels):
        """Builds a sublayer for any batch and any spatial size."""
        layer.build((None, None, None, None, channels))


def each_part(function, inputs, *parameters):
    """Returns `function(inputs, *parameters)`, for each part of a list of inputs.

    Maps in a list count as one, side by side along the channels. What treats every
    channel alike need not make that one.

    Args:
        function: Of a map and of tensors whose last axis are its channels.
        inputs: Tensor of shape (N, D, H, W, C), or a list of such.
        *parameters: Tensors whose last axis are all the channels.
    """
    if not isinstance(inputs, list):
        return function(inputs, *parameters)
    sizes = [part.shape[-1] for part in inputs]
    split = [tf.split(tensor, sizes, axis=-1) for tensor in parameters]
    return [function(*part) for part in zip(inputs, *split, strict=True)]


def joined(inputs):
    """Returns the one map that a list of maps counts as; see `each_part`."""
    return tf.concat(inputs, axis=-1) if isinstance(inputs, list) else inputs


@keras.saving.register_keras_serializable(package="u2net_tf")
class DomainNorm(DomainLayer):
    """Instance normalization with γ and β per domain, optionally with LeakyReLU.

    Args:
        channels: Number of channels in each domain; its length is the number of
            domains.
        epsilon: Added to the variance.
        negative_slope: Slope of the LeakyReLU that follows; None for no activation.
        **kwargs: Of `keras.layers.Layer`.

    Reference:
        3D U²-Net, section 2: one set of normalization parameters for each domain.
    """

    def __init__(self, channels, *, epsilon=1e-5, negative_slope=None, **kwargs):
        self.channels = check_positive_integers("channels", channels)
        super().__init__(num_domains=len(self.channels), **kwargs)
        self.epsilon = epsilon
        self.negative_slope = negative_slope
        self.gammas, self.betas = [], []

    def build(self, input_shape=None):
        """Creates the variables of all domains."""
        for domain, channels in enumerate(self.channels):
            self.gammas.append(
                self.add_weight(
                    name=f"gamma_{domain}", shape=(channels,), initializer="ones"
                )
            )
            self.betas.append(
                self.add_weight(
                    name=f"beta_{domain}", shape=(channels,), initializer="zeros"
                )
            )
        name_each(self, "gamma", self.gammas)
        name_each(self, "beta", self.betas)

    def own_domain_variables(self, domain):
        """Returns γ and β of `domain`."""
        return {"gamma": self.gammas[domain], "beta": self.betas[domain]}

    def call(self, inputs, residual=None, *, domain):
        """Normalizes (N, D, H, W, C), or parts of it, with the parameters of `domain`.

        What `residual` holds, of the same shape, is added before the activation.
        """
        domain = self.check_domain(domain)

        def normalize(inputs, gamma, beta):
            return ops.instance_norm(
                inputs,
                gamma,
                beta,
                residual,
                epsilon=self.epsilon,
                negative_slope=self.negative_slope,
            )

        gamma, beta = self.gammas[domain], self.betas[domain]
        return each_part(normalize, inputs, *map(tf.convert_to_tensor, (gamma, beta)))

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "epsilon": self.epsilon,
            "negative_slope": self.negative_slope,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DepthwiseConv3D(DomainLayer):
    """Depthwise convolution with a kernel and a bias per domain, stride 1, 'SAME'.

    Args:
        channels: Number of channels, the same in every domain.
        num_domains: Number of domains.
        kernel_size: Three odd integers, along D, H, W.
        upsample: Three integers, along D, H, W: the factors of a nearest up-sampling
            of the inputs.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If a kernel size is even.
    """

    def __init__(
        self,
        channels,
        num_domains,
        *,
        kernel_size=(3, 3, 3),
        upsample=(1, 1, 1),
        **kwargs,
    ):
        super().__init__(num_domains, **kwargs)
        (self.channels,) = check_positive_integers("channels", [channels])
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(
                f"`kernel_size` must be odd. Received: kernel_size={kernel_size}"
            )
        self.upsample = check_positive_integers("upsample", upsample, length=3)
        self.kernels, self.biases = [], []

    def build(self, input_shape=None):
        """Creates the variables of all domains."""
        for domain in range(self.num_domains):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{domain}",
                    shape=(*self.kernel_size, self.channels),
                    initializer=he_normal(math.prod(self.kernel_size)),
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{domain}", shape=(self.channels,), initializer="zeros"
                )
            )
        name_each(self, "kernel", self.kernels)
        name_each(self, "bias", self.biases)

    def own_domain_variables(self, domain):
        """Returns kernel and bias of `domain`."""
        return {"kernel": self.kernels[domain], "bias": self.biases[domain]}

    def call(self, inputs, *, domain):
        """Convolves (N, D, H, W, C), or parts of it, with the kernel of `domain`."""
        domain = self.check_domain(domain)
        convolve = functools.partial(ops.depthwise_conv3d, upsample=self.upsample)
        kernel, bias = self.kernels[domain], self.biases[domain]
        return each_part(convolve, inputs, *map(tf.convert_to_tensor, (kernel, bias)))

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "num_domains": self.num_domains,
            "kernel_size": self.kernel_size,
            "upsample": self.upsample,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DomainConv3D(DomainLayer):
    """Convolution with a kernel and a bias per domain, stride 1, 'SAME'.

    Args:
        in_channels: Input channels of each domain.
        filters: Output channels of each domain.
        kernel_size: Three integers, along D, H, W.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `in_channels` and `filters` are not of the same length.
    """

    def __init__(self, in_channels, filters, *, kernel_size=(3, 3, 3), **kwargs):
        self.in_channels = check_positive_integers("in_channels", in_channels)
        self.filters = check_positive_integers("filters", filters)
        if len(self.in_channels) != len(self.filters):
            raise ValueError(
                "`in_channels` and `filters` must have one entry per domain each. "
                f"Received: in_channels={in_channels}, filters={filters}"
            )
        super().__init__(num_domains=len(self.filters), **kwargs)
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.kernels, self.biases = [], []

    def build(self, input_shape=None):
        """Creates the variables of all domains."""
        channels = zip(self.in_channels, self.filters, strict=True)
        for domain, (num_inputs, num_outputs) in enumerate(channels):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{domain}",
                    shape=(*self.kernel_size, num_inputs, num_outputs),
                    initializer=he_normal(math.prod(self.kernel_size) * num_inputs),
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{domain}", shape=(num_outputs,), initializer="zeros"
                )
            )
        name_each(self, "kernel", self.kernels)
        name_each(self, "bias", self.biases)

    def own_domain_variables(self, domain):
        """Returns kernel and bias of `domain`."""
        return {"kernel": self.kernels[domain], "bias": self.biases[domain]}

    def call(self, inputs, *, domain):
        """Convolves (N, D, H, W, C_domain) with the kernel of `domain`.

        Raises:
            ValueError: If the channels of `inputs` are not those of `domain`.
        """
        domain = self.check_domain(domain)
        if inputs.shape[-1] != self.in_channels[domain]:
            raise ValueError(
                f"Domain {domain} has {self.in_channels[domain]} input channels. "
                f"Received: inputs.shape={inputs.shape}"
            )
        return ops.conv3d(inputs, self.kernels[domain], self.biases[domain])

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class SharedConv3D(DomainLayer):
    """Convolution with one kernel and one bias for all domains, 'SAME'.

    Args:
        in_channels: Input channels, the same in every domain.
        filters: Output channels.
        num_domains: Number of domains.
        kernel_size: Three integers, along D, H, W.
        strides: Three integers, along D, H, W.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels,
        filters,
        num_domains,
        *,
        kernel_size=(3, 3, 3),
        strides=(1, 1, 1),
        **kwargs,
    ):
        super().__init__(num_domains, **kwargs)
        (self.in_channels,) = check_positive_integers("in_channels", [in_channels])
        (self.filters,) = check_positive_integers("filters", [filters])
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.strides = check_positive_integers("strides", strides, length=3)
        # Made here and not in `build`: its seed is drawn when it is made, so that the
        # order in which layers are made decides about their weights.
        self._initializer = he_normal(math.prod(self.kernel_size) * self.in_channels)

    def build(self, input_shape=None):
        """Creates the variables."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, self.in_channels, self.filters),
            initializer=self._initializer,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer="zeros"
        )

    def own_shared_variables(self):
        """Returns kernel and bias."""
        return {"kernel": self.kernel, "bias": self.bias}

    def call(self, inputs, *, domain):
        """Convolves (N, D, H, W, in_channels), or parts of it; alike in all domains."""
        self.check_domain(domain)
        return ops.conv3d(inputs, self.kernel, self.bias, strides=self.strides)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "num_domains": self.num_domains,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
        }
