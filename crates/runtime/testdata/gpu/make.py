#!/usr/bin/env python3
"""Makes the models beside it: one for each kind of operator that CUDA runs by other code (cuBLAS, cuDNN, its own kernels).

Needs onnx 1.23 and numpy. Weights are drawn from a fixed seed, so a second run writes the same files.
"""
import os

import numpy as np
import onnx
from onnx import TensorProto as T, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
RNG = np.random.default_rng(6)
HEADS, KV_HEADS, HEAD, LONGEST = 4, 2, 16, 32


def weights(name, *shape, dtype=np.float32):
    return numpy_helper.from_array((RNG.standard_normal(shape) * 0.1).astype(dtype), name)


def save(name, nodes, inputs, outputs, initializers, domains=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    imports = [helper.make_opsetid("", 17)] + [helper.make_opsetid(domain, 1) for domain in domains]
    model = helper.make_model(graph, opset_imports=imports, producer_name="outboard", ir_version=8)
    onnx.save(model, os.path.join(HERE, name + ".onnx"))


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, list(shape))


save("matmul", [helper.make_node("MatMul", ["x", "w"], ["y"])],
     [value("x", T.FLOAT, "N", 64)], [value("y", T.FLOAT, "N", 64)], [weights("w", 64, 64)])

save("conv", [helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
              helper.make_node("Relu", ["c"], ["y"])],
     [value("x", T.FLOAT, "N", 3, 32, 32)], [value("y", T.FLOAT, "N", 8, 32, 32)], [weights("w", 8, 3, 3, 3), weights("b", 8)])


def attention(name, kind, dtype):
    """Grouped attention with rotary positions over a cache that grows: past in, present out."""
    angles = np.arange(LONGEST)[:, None] / 10000 ** (np.arange(0, HEAD, 2) / HEAD)
    node = helper.make_node(
        "GroupQueryAttention", ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total", "cos", "sin"],
        ["attention", "present_key", "present_value"], domain="com.microsoft", num_heads=HEADS, kv_num_heads=KV_HEADS, do_rotary=1)
    cache = ("B", KV_HEADS, "past", HEAD)
    grown = ("B", KV_HEADS, "whole", HEAD)
    save(name, [node],
         [value("query", kind, "B", "S", HEADS * HEAD), value("key", kind, "B", "S", KV_HEADS * HEAD),
          value("value", kind, "B", "S", KV_HEADS * HEAD), value("past_key", kind, *cache), value("past_value", kind, *cache),
          value("seqlens_k", T.INT32, "B"), value("total", T.INT32)],
         [value("attention", kind, "B", "S", HEADS * HEAD), value("present_key", kind, *grown), value("present_value", kind, *grown)],
         [numpy_helper.from_array(np.cos(angles).astype(dtype), "cos"), numpy_helper.from_array(np.sin(angles).astype(dtype), "sin")],
         domains=["com.microsoft"])


attention("attention_f16", T.FLOAT16, np.float16)
