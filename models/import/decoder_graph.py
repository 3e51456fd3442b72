"""Writes decoder-only language models of the Llama family as ONNX graphs with GroupQueryAttention.

The layout is the one of Hugging Face's exports, so that whatever serves those serves this:

  input_ids               i64[batch, tokens]      the new tokens
  attention_mask          i64[batch, total]       1 for each token, cached or new; its length is that of the longest row
  num_logits_to_keep      i64[]                   logits of so many last positions; 0: of all
  past_key_values.N.key   f[batch, kv_heads, past, head_size], and .value
  -> logits               f32[batch, kept, vocabulary]
     present.N.key        f[batch, kv_heads, total or past, head_size], and .value

Past and present may be one buffer of fixed length: GroupQueryAttention then writes in place.
"""

import dataclasses
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
# What MatMulNBits takes.
BLOCKS = (16, 32, 64, 128, 256)


@dataclasses.dataclass
class Shape:
    """The numbers of a model."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    rope_theta: float
    norm_epsilon: float
    # Divisors of the rotation's frequencies, one for each pair, as long-context Llamas have; None: 1.
    rope_factors: object = None


class Precision:
    """How weights are stored. `linear` is f32, f16 or int8, the last in blocks of so many values along a layer's input. What `keep`
    names stays f32 in any case: a layer by its number and a dot ("0."), or a kind of weight in all of them ("down")."""

    def __init__(self, linear="f32", keep=(), block=32):
        if linear not in ("f32", "f16", "int8"):
            raise ValueError(f"weights are {linear!r}, allowed are f32, f16, int8")
        if block not in BLOCKS:
            raise ValueError(f"blocks are of {block} values, allowed are {', '.join(map(str, BLOCKS))}")
        self.linear, self.keep, self.block = linear, tuple(keep), block

    def of(self, name):
        kept = any(name.startswith(part) if part.endswith(".") else name.split(".")[-1] == part for part in self.keep)
        return "f32" if kept else self.linear


class Graph:
    def __init__(self, precision):
        self.nodes, self.initializers, self.known, self.precision = [], [], {}, precision

    def constant(self, name, values):
        if name not in self.known:
            self.known[name] = True
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind, inputs, outputs, domain="", **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        name = outputs[0] or outputs[-1]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"{name}/{kind}", domain=domain, **attributes))
        return outputs[0]

    def linear(self, name, x, weight, bias=None):
        """x times the transpose of `weight`, which is [outputs, inputs]."""
        kind = self.precision.of(name)
        outputs, inputs = weight.shape
        block = self.precision.block
        if kind == "int8" and inputs % block == 0:
            values, scales = quantise(weight, block)
            y = self.node(
                "MatMulNBits",
                [x, self.constant(f"{name}.quantised", values), self.constant(f"{name}.scales", scales)],
                f"{name}.product", domain="com.microsoft", K=inputs, N=outputs, bits=8, block_size=block,
                # 8 bit activations: the kernel for them is the only quick one.
                accuracy_level=4,
            )
        else:
            y = self.node("MatMul", [x, self.stored(f"{name}.weight", weight.T, kind)], f"{name}.product")
        return y if bias is None else self.node("Add", [y, self.constant(f"{name}.bias", bias)], f"{name}.out")

    def stored(self, name, values, kind):
        """Weights as f32, stored as f16 when `kind` says so."""
        if kind != "f16":
            return self.constant(name, values.astype(np.float32))
        half = self.constant(f"{name}.f16", values.astype(np.float16))
        return self.node("Cast", [half], name, to=TensorProto.FLOAT)


def quantise(weight, block):
    """8 bit, symmetric around 128, a scale for each block: u8[outputs, blocks, block] and f32[outputs, blocks]."""
    outputs, inputs = weight.shape
    blocks = weight.astype(np.float32).reshape(outputs, inputs // block, block)
    scales = np.abs(blocks).max(axis=2) / 127
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    values = np.clip(np.rint(blocks * inverse[:, :, None]) + 128, 0, 255).astype(np.uint8)
    return values, scales.astype(np.float32)


def rotation(shape):
    """cos and sin, f32[context, head_size / 2], of rotary position embedding in halves."""
    pairs = np.arange(0, shape.head_size, 2, dtype=np.float64) / shape.head_size
    frequencies = shape.rope_theta ** -pairs
    if shape.rope_factors is not None:
        frequencies = frequencies / np.asarray(shape.rope_factors, np.float64)
    angles = np.arange(shape.context, dtype=np.float64)[:, None] * frequencies[None]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def build(shape, weights, precision, metadata):
    """The model. `weights` gives f32 arrays by these names, linear ones as [outputs, inputs]:

    embedding, norm, head (absent when tied to the embedding), and for each layer N: N.input_norm, N.q, N.k, N.v (each may
    have a .bias), N.o, N.post_norm, N.gate, N.up, N.down. q and k are laid out for rotation in halves.
    """
    graph = Graph(precision)
    one_token_mask = "attention_mask"
    axis = graph.constant("axis_1", np.array([1], np.int64))
    summed = graph.node("ReduceSum", [one_token_mask, axis], "tokens_in_row", keepdims=0)
    less = graph.node("Sub", [summed, graph.constant("one", np.array(1, np.int64))], "last_position")
    seqlens = graph.node("Cast", [less], "seqlens_k", to=TensorProto.INT32)
    mask_shape = graph.node("Shape", [one_token_mask], "mask_shape")
    total = graph.node("Gather", [mask_shape, graph.constant("index_1", np.array(1, np.int64))], "total_i64", axis=0)
    total = graph.node("Cast", [total], "total_sequence_length", to=TensorProto.INT32)
    cos, sin = rotation(shape)
    cos, sin = graph.constant("cos", cos), graph.constant("sin", sin)

    half_embedding = precision.linear != "f32"
    embedding = weights["embedding"]
    table = graph.constant("embedding", embedding.astype(np.float16 if half_embedding else np.float32))
    x = graph.node("Gather", [table, "input_ids"], "embedded", axis=0)
    if half_embedding:
        x = graph.node("Cast", [x], "embedded_f32", to=TensorProto.FLOAT)

    def norm_weight(name):
        return graph.constant(name, weights[name].astype(np.float32))

    normed = graph.node(
        "SimplifiedLayerNormalization", [x, norm_weight("0.input_norm")], "0.normed", axis=-1, epsilon=shape.norm_epsilon
    )
    residual = x
    caches_in, caches_out = [], []
    for layer in range(shape.layers):
        at = str(layer)
        parts = [weights[f"{at}.{part}"] for part in "qkv"]
        biases = [weights.get(f"{at}.{part}.bias") for part in "qkv"]
        bias = None if biases[0] is None else np.concatenate(biases).astype(np.float32)
        qkv = graph.linear(f"{at}.qkv", normed, np.concatenate(parts), bias)
        past = [f"past_key_values.{at}.{half}" for half in ("key", "value")]
        present = [f"present.{at}.{half}" for half in ("key", "value")]
        graph.node(
            "GroupQueryAttention", [qkv, "", "", *past, seqlens, total, cos, sin], [f"{at}.attention", *present],
            domain="com.microsoft", num_heads=shape.heads, kv_num_heads=shape.kv_heads, do_rotary=1, rotary_interleaved=0,
        )
        for names, target, axis_name in ((past, caches_in, "past"), (present, caches_out, "total")):
            for name in names:
                dims = ["batch", shape.kv_heads, axis_name, shape.head_size]
                target.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        attended = graph.linear(f"{at}.o", f"{at}.attention", weights[f"{at}.o"])

        def add_norm(new, old, name, out):
            outputs = [f"{out}.normed", "", "", f"{out}.sum"]
            graph.node("SkipSimplifiedLayerNormalization", [new, old, norm_weight(name)], outputs, domain="com.microsoft",
                       epsilon=shape.norm_epsilon)
            return outputs[0], outputs[3]

        normed, residual = add_norm(attended, residual, f"{at}.post_norm", f"{at}.mlp_in")
        gate = graph.linear(f"{at}.gate", normed, weights[f"{at}.gate"])
        up = graph.linear(f"{at}.up", normed, weights[f"{at}.up"])
        sigmoid = graph.node("Sigmoid", [gate], f"{at}.sigmoid")
        activated = graph.node("Mul", [gate, sigmoid], f"{at}.silu")
        down = graph.linear(f"{at}.down", graph.node("Mul", [activated, up], f"{at}.gated"), weights[f"{at}.down"])
        following = f"{layer + 1}.input_norm" if layer + 1 < shape.layers else "norm"
        normed, residual = add_norm(down, residual, following, f"{layer + 1}.in" if following != "norm" else "last")

    # The head costs as much as several layers: only the positions that are asked for go through it.
    begin = graph.node("Neg", ["num_logits_to_keep"], "first_kept")
    begin = graph.node("Reshape", [begin, graph.constant("shape_1", np.array([1], np.int64))], "first_kept_1")
    end = graph.constant("to_the_end", np.array([np.iinfo(np.int64).max], np.int64))
    kept = graph.node("Slice", [normed, begin, end, axis], "kept")
    head = weights.get("head")
    if head is None and precision.of("head") == "f32" and not half_embedding:
        # Tied: the embedding's own memory, read the other way round.
        kept_shape = graph.node("Shape", [kept], "kept_shape")
        flat = graph.node("Reshape", [kept, graph.constant("shape_flat", np.array([-1, shape.width], np.int64))], "kept_flat")
        flat_logits = graph.node("Gemm", [flat, table], "logits_flat", transB=1)
        rows = graph.node("Slice", [kept_shape, graph.constant("from_0", np.array([0], np.int64)),
                                    graph.constant("to_2", np.array([2], np.int64))], "kept_rows")
        to = graph.node("Concat", [rows, graph.constant("vocabulary", np.array([shape.vocabulary], np.int64))],
                        "logits_shape", axis=0)
        graph.node("Reshape", [flat_logits, to], "logits")
    else:
        product = graph.linear("head", kept, embedding if head is None else head)
        graph.node("Identity", [product], "logits")

    integer = TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("input_ids", integer, ["batch", "tokens"]),
        helper.make_tensor_value_info("attention_mask", integer, ["batch", "total"]),
        helper.make_tensor_value_info("num_logits_to_keep", integer, []),
        *caches_in,
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "kept", shape.vocabulary]),
        *caches_out,
    ]
    made = helper.make_graph(graph.nodes, metadata["name"], inputs, outputs, graph.initializers)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)],
        producer_name="outboard models/import",
    )
    model.ir_version = 10
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def save(model, path):
    """Writes the graph to `path` and its weights beside it, as Hugging Face's exports have them."""
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location="model.onnx_data",
              size_threshold=1024, convert_attribute=False)
    # onnx makes it for its owner alone.
    os.chmod(os.path.join(os.path.dirname(path), "model.onnx_data"), 0o644)
