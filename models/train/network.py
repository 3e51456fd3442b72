"""The two networks, layer by layer, and their ONNX graphs.

A plan is a list of layers: an int is a 3x3 convolution to that many channels (with batch normalisation while training) and a
ReLU, POOL halves height and width. Every network ends in one dense layer to the ten classes. The ONNX graph is written by
hand with the normalisation folded into the convolutions: standard operators of opset 17 only, nothing a converter adds.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 10
EDGE = 28
POOL = "pool"
PLANS = {
    "fashion-mnist": [16, POOL, 32, 32, POOL, 64, 64, POOL],
    "mnist": [16, POOL, 32, POOL, 64, 64, POOL],
}


def folded(kernel, gamma, beta, mean, variance, epsilon):
    """(weights [out, in, 3, 3], bias [out]) of a convolution with its batch normalisation; `kernel` is [3, 3, in, out]."""
    scale = gamma / np.sqrt(variance + epsilon)
    return (kernel * scale).transpose(3, 2, 0, 1), beta - mean * scale


def graph(plan, weights):
    """The ONNX model of a plan; `weights` are (weights, bias) pairs in layer order, the dense layer's [10, n] last.

    Input `image` f32 [batch, 1, 28, 28], 0 to 1; output `logits` f32 [batch, 10].
    """
    nodes, constants = [], []
    weights = iter(weights)

    def constant(values, name):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def pair(step):
        kernel, bias = next(weights)
        return [constant(kernel, f"w{step}"), constant(bias, f"b{step}")]

    flow = "image"
    for step, layer in enumerate(plan, 1):
        if layer == POOL:
            nodes.append(helper.make_node("MaxPool", [flow], [f"p{step}"], kernel_shape=[2, 2], strides=[2, 2]))
            flow = f"p{step}"
        else:
            inputs = [flow, *pair(step)]
            nodes.append(helper.make_node("Conv", inputs, [f"y{step}"], kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1]))
            nodes.append(helper.make_node("Relu", [f"y{step}"], [f"r{step}"]))
            flow = f"r{step}"
    step = len(plan) + 1
    nodes.append(helper.make_node("Flatten", [flow], [f"f{step}"]))
    nodes.append(helper.make_node("Gemm", [f"f{step}", *pair(step)], ["logits"], transB=1))

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, EDGE, EDGE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    model = helper.make_model(
        helper.make_graph(nodes, "cnn", [image], [logits], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="outboard",
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model
