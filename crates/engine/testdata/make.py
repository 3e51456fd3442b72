"""Makes the tiny embedding models of this folder, and the vectors that they must give.

  python make.py        (requirements: numpy, onnx, onnxruntime, tokenizers)

The weights are random and always the same. The golden vectors come from each text run alone, without filling, through ONNX
Runtime and the library tokenizers, pooled in numpy in f64, which is not how Outboard makes them.
"""

import json
import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["ship", "engine", "outside", "the", "is", "turns", "moves", "wheel", "asks", "answers", "word", "by", "of"]
WIDTH, HEADS, POSITIONS = 24, 2, 40
TEXTS = [
    "The ship moves.",
    "the ship moves.",
    "A wheel of the ship turns outside.",
    "Caf\u00e9, na\u00efve \u2014 \u4f60\u597d \U0001f600!",
    "x",
    "\u200b \t\n",
    "[SEP] is a word",
    "the engine is outside of the ship, the wheel is by the engine, a word asks, a word answers: yes",
]


def tokenizer(path):
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?:-")
    words = SPECIALS + WORDS + letters + ["##" + letter for letter in letters]
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", SPECIALS.index("[CLS]")), ("[SEP]", SPECIALS.index("[SEP]"))]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    made.add_special_tokens(SPECIALS)
    # As many published files have it: whoever obeys it gives other vectors.
    made.enable_truncation(6)
    made.enable_padding(length=6)
    made.save(path, pretty=False)
    made.no_truncation()
    made.no_padding()
    return made


def graph(vocabulary, with_mask):
    random = np.random.default_rng(7)
    constants, nodes = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def matrix(name, *shape):
        return constant(name, (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def node(kind, *inputs, **attributes):
        name = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    size = node("Shape", "input_ids")
    tokens = node("Gather", size, constant("axis_1", np.int64(1)))
    places = node("Range", constant("zero", np.int64(0)), tokens, constant("one", np.int64(1)))
    x = node("Gather", matrix("words", vocabulary, WIDTH), "input_ids")
    x = node("Add", x, node("Gather", matrix("places", POSITIONS, WIDTH), places))
    if with_mask:
        x = node("Add", x, node("Gather", matrix("types", 2, WIDTH), "token_type_ids"))
    split = constant("split", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))

    def heads(name):
        return node("Transpose", node("Reshape", node("MatMul", x, matrix(name, WIDTH, WIDTH)), split), perm=[0, 2, 1, 3])

    q, k, v = heads("q"), heads("k"), heads("v")
    scores = node("MatMul", q, node("Transpose", k, perm=[0, 1, 3, 2]))
    if with_mask:
        mask = node("Cast", node("Unsqueeze", "attention_mask", constant("axes", np.array([1, 2], np.int64))), to=TensorProto.FLOAT)
        hidden = node("Mul", node("Sub", constant("all", np.float32(1)), mask), constant("far", np.float32(-1e9)))
        scores = node("Add", scores, hidden)
    out = node("Transpose", node("MatMul", node("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    out = node("Reshape", out, constant("join", np.array([0, 0, WIDTH], np.int64)))
    nodes.append(helper.make_node("Add", [x, out], ["last_hidden_state"]))
    free = ["texts", "tokens"]
    names = ["input_ids"] + (["attention_mask", "token_type_ids"] if with_mask else [])
    made = helper.make_model(
        helper.make_graph(
            nodes, "tiny", [helper.make_tensor_value_info(name, TensorProto.INT64, free) for name in names],
            [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*free, WIDTH])], constants),
        opset_imports=[helper.make_opsetid("", 17)], producer_name="outboard")
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made


def golden(model, tokenizer, pooling):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    vectors = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [[0] * len(ids)]}
        feed = {spec.name: np.array(feed[spec.name], np.int64) for spec in session.get_inputs()}
        hidden = session.run(["last_hidden_state"], feed)[0][0].astype(np.float64)
        vector = hidden.mean(0) if pooling == "mean" else hidden[0]
        vectors.append({"text": text, "tokens": ids, "vector": [round(float(value), 7) for value in vector]})
    return vectors


def write(folder, model, pooling):
    os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    path = lambda name: os.path.join(HERE, folder, name)
    made = tokenizer(path("tokenizer.json"))
    model = graph(made.get_vocab_size(), model == "masked")
    onnx.save(model, path("model.onnx"))
    with open(path("golden.json"), "w") as out:
        lines = [json.dumps(entry) for entry in golden(model, made, pooling)]
        out.write("[\n" + ",\n".join(lines) + "\n]\n")


write("tiny-bert", "masked", "mean")
write("tiny-maskless", "maskless", "cls")
