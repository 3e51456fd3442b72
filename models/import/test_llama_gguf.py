"""Tests of llama_gguf.py, on tiny files that are written here: python -m unittest discover -s models/import."""

import contextlib
import io
import json
import os
import tempfile
import unittest
from unittest import mock

import gguf
import numpy as np
import onnx
from gguf import GGMLQuantizationType as Kind
from onnx import numpy_helper

import llama_gguf

LAYERS, WIDTH, HEADS, KV_HEADS, SIZE, WIDE, VOCABULARY = 2, 64, 4, 2, 16, 96, 40
TOKENS = ["<|im_start|>", "<|im_end|>", *(chr(0x21 + at) for at in range(VOCABULARY - 2))]


def tensors(tied=True, biases=False):
    random = np.random.default_rng(5)

    def matrix(rows, columns):
        return random.standard_normal((rows, columns)).astype(np.float32)

    made = {"token_embd.weight": matrix(VOCABULARY, WIDTH), "output_norm.weight": matrix(1, WIDTH)[0]}
    if not tied:
        made["output.weight"] = matrix(VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        sizes = {"attn_q": (HEADS * SIZE, WIDTH), "attn_k": (KV_HEADS * SIZE, WIDTH), "attn_v": (KV_HEADS * SIZE, WIDTH),
                 "attn_output": (WIDTH, HEADS * SIZE), "ffn_gate": (WIDE, WIDTH), "ffn_up": (WIDE, WIDTH), "ffn_down": (WIDTH, WIDE)}
        for name, (rows, columns) in sizes.items():
            made[f"blk.{layer}.{name}.weight"] = matrix(rows, columns)
            if biases and name in ("attn_q", "attn_k", "attn_v"):
                made[f"blk.{layer}.{name}.bias"] = matrix(1, rows)[0]
        for name in ("attn_norm", "ffn_norm"):
            made[f"blk.{layer}.{name}.weight"] = matrix(1, WIDTH)[0]
    return made


def write(path, made, kind=Kind.F32, architecture="llama", tokenizer="gpt2", pre="gpt-2", more=()):
    """A GGUF file whose matrices are stored as `kind`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (VOCABULARY - 2)])
    writer.add_token_merges(["! \"", "# $"])
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    for key, value in more:
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
    for name, values in made.items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Import(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file, self.target = os.path.join(folder.name, "tiny.gguf"), os.path.join(folder.name, "tiny")

    def convert(self, *options):
        with mock.patch("sys.argv", ["llama_gguf.py", self.file, self.target, *options]):
            llama_gguf.main()
        model = onnx.load(os.path.join(self.target, "onnx", "model.onnx"))
        return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}, model.graph

    def refused(self, *options):
        with self.assertRaises(SystemExit) as raised, contextlib.redirect_stderr(io.StringIO()):
            self.convert(*options)
        return str(raised.exception)

    def json(self, name):
        with open(os.path.join(self.target, name), encoding="utf-8") as file:
            return json.load(file)

    def test_weights_are_the_values_of_the_file_whatever_their_type(self):
        for kind in (Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1):
            with self.subTest(kind.name):
                made = tensors()
                write(self.file, made, kind)
                got, _ = self.convert()
                stored = {name: gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
                          for name, values in made.items() if values.ndim == 2}
                np.testing.assert_array_equal(got["embedding"], stored["token_embd.weight"])
                np.testing.assert_array_equal(got["1.down.weight"], stored["blk.1.ffn_down.weight"].T)
                np.testing.assert_array_equal(got["0.qkv.weight"].T[-KV_HEADS * SIZE:], stored["blk.0.attn_v.weight"])
                np.testing.assert_array_equal(got["0.input_norm"], made["blk.0.attn_norm.weight"])

    def test_pairs_that_lie_side_by_side_are_rotated_as_they_were(self):
        write(self.file, tensors())
        got, _ = self.convert()
        x, position = np.random.default_rng(6).standard_normal(WIDTH).astype(np.float32), 7
        # As the file's makers mean it: neighbours are a pair.
        frequencies = 5000.0 ** -(np.arange(0, SIZE, 2) / SIZE)
        turn = np.exp(1j * position * frequencies)
        expected = {}
        for name, heads in (("q", HEADS), ("k", KV_HEADS)):
            pairs = (tensors()[f"blk.0.attn_{name}.weight"] @ x).reshape(heads, SIZE // 2, 2)
            expected[name] = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        # As the graph does it: half a head apart, by the table that is in it.
        projected = x @ got["0.qkv.weight"]
        q, k = np.split(projected[: (HEADS + KV_HEADS) * SIZE].reshape(-1, 2, SIZE // 2), [HEADS])
        cos, sin = got["cos"][position], got["sin"][position]
        for name, halves in (("q", q), ("k", k)):
            turned = (halves[:, 0] + 1j * halves[:, 1]) * (cos + 1j * sin)
            np.testing.assert_allclose(turned, expected[name], rtol=1e-4, atol=1e-4)

    def test_a_head_of_its_own_and_biases_are_taken(self):
        made = tensors(tied=False, biases=True)
        write(self.file, made)
        got, _ = self.convert()
        np.testing.assert_array_equal(got["head.weight"], made["output.weight"].T)
        np.testing.assert_array_equal(got["1.qkv.bias"][-KV_HEADS * SIZE:], made["blk.1.attn_v.bias"])
        self.assertFalse(self.json("config.json")["tie_word_embeddings"])

    def test_a_tied_head_is_the_embedding_itself(self):
        write(self.file, tensors())
        got, _ = self.convert()
        self.assertNotIn("head.weight", got)
        self.assertTrue(self.json("config.json")["tie_word_embeddings"])

    def test_config_and_tokeniser_say_what_the_file_says(self):
        write(self.file, tensors(), more=[("tokenizer.ggml.eot_token_id", 5)])
        self.convert("--context", "100")
        config = self.json("config.json")
        self.assertEqual((config["num_hidden_layers"], config["num_key_value_heads"], config["vocab_size"],
                          config["max_position_embeddings"], config["eos_token_id"]), (LAYERS, KV_HEADS, VOCABULARY, 100, [1, 5]))
        tokenizer = self.json("tokenizer.json")
        self.assertEqual([token["content"] for token in tokenizer["added_tokens"]], TOKENS[:2])
        self.assertEqual(tokenizer["model"]["merges"], [["!", '"'], ["#", "$"]])
        self.assertEqual(self.json("tokenizer_config.json")["chat_template"], "{{ messages }}")

    def test_fewer_bits_are_near_and_what_is_kept_is_exact(self):
        made = tensors()
        write(self.file, made)
        gate = made["blk.0.ffn_gate.weight"]
        for block in (16, 32):
            got, _ = self.convert("--weights", "int8", "--block", str(block), "--keep", "down,1.")
            values, scales = got["0.gate.quantised"], got["0.gate.scales"]
            self.assertEqual(values.shape, (WIDE, WIDTH // block, block))
            back = ((values.astype(np.float32) - 128) * scales[..., None]).reshape(gate.shape)
            self.assertLessEqual(np.abs(back - gate).max(), scales.max() * 0.5001)
            np.testing.assert_array_equal(got["0.down.weight"], made["blk.0.ffn_down.weight"].T)
            np.testing.assert_array_equal(got["1.gate.weight"], made["blk.1.ffn_gate.weight"].T)
        got, _ = self.convert("--weights", "f16")
        np.testing.assert_array_equal(got["0.gate.weight.f16"], gate.T.astype(np.float16))

    def test_what_is_not_read_is_refused_by_its_name_and_leaves_what_is_there(self):
        os.makedirs(self.target)
        without = tensors()
        del without["blk.1.ffn_up.weight"]
        for expected, options in {
            "the architecture is mamba": {"architecture": "mamba"},
            "is BF16": {"kind": Kind.BF16},
            "is Q5_0": {"kind": Kind.Q5_0},
            "mixture of experts": {"more": [("llama.expert_count", 4)]},
            "rope.scaling.type is yarn": {"more": [("llama.rope.scaling.type", "yarn")]},
            "only a part of each head": {"more": [("llama.rope.dimension_count", 8)]},
            "tokenizer.ggml.model is llama": {"tokenizer": "llama"},
            "tokenizer.ggml.pre is deepseek": {"pre": "deepseek"},
            "no tensor blk.1.ffn_up.weight": {"made": without},
            "no place in a Llama: blk.0.attn_q_norm.weight":
                {"made": tensors() | {"blk.0.attn_q_norm.weight": np.ones(SIZE, np.float32)}},
            "blk.0.attn_output.bias has no place": {"made": tensors() | {"blk.0.attn_output.bias": np.ones(WIDTH, np.float32)}},
            "has a bias for some": {"made": tensors() | {"blk.0.attn_q.bias": np.ones(HEADS * SIZE, np.float32)}},
        }.items():
            with self.subTest(expected):
                write(self.file, **{"made": tensors(), **options})
                self.assertIn(expected, self.refused())
        write(self.file, tensors())
        self.assertIn("the model was trained for 128", self.refused("--context", "129"))
        self.assertIn("allowed are f32, f16, int8", self.refused("--weights", "int4"))
        self.assertIn("allowed are 16, 32", self.refused("--weights", "int8", "--block", "20"))
        with open(self.file, "wb") as file:
            file.write(b"GGUF and then nothing")
        self.assertIn("no GGUF file", self.refused())
        self.assertEqual(os.listdir(self.target), [])


if __name__ == "__main__":
    unittest.main()
