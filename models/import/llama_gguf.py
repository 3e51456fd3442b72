"""Makes a model folder in Hugging Face's layout from a language model in a GGUF file, without torch.

  llama_gguf.py GGUF TARGET [--weights f32|f16|int8] [--block VALUES] [--keep PART[,PART...]] [--context TOKENS] [--card FOLDER]

Needs requirements.txt.

GGUF: a model of the Llama architecture whose tensors are Q4_0, Q4_1, Q8_0, F16 or F32, its head tied or not. Anything else is
refused by name. TARGET gets config.json, generation_config.json, tokenizer.json, tokenizer_config.json (with the chat
template) and onnx/model.onnx with onnx/model.onnx_data; it appears when all of it is there.

--weights how linear layers are stored: f32 (exactly the file's values), f16, or int8 (with activations of 8 bit).
--block   how many values share a scale in int8: 16, 32 (the default), 64, 128 or 256. Smaller is more exact and slower.
--keep    what stays f32 whatever --weights says: kinds of weights (down, o, qkv, gate, up, head), or layers (0., 29.)
--context the longest conversation; at most what the model was trained for, which is the default.
--card    a folder with model.toml and README.md, which are copied.
"""

import argparse
import json
import os
import shutil
import sys

import numpy as np
from gguf import GGUFReader, dequantize

import decoder_graph
import model_folder

TENSOR_TYPES = ("F32", "F16", "Q4_0", "Q4_1", "Q8_0")
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4

# The patterns by which byte-level tokenisers cut text into words, by the name that GGUF gives them.
GPT2_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


def refuse(reason):
    sys.exit(f"llama_gguf: {reason}")


class File:
    """Fields and tensors of a GGUF file."""

    def __init__(self, path):
        try:
            self.reader = GGUFReader(path)
        except (OSError, ValueError, IndexError) as error:
            refuse(f"{path} is no GGUF file that can be read: {error}")
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        for tensor in self.reader.tensors:
            if tensor.tensor_type.name not in TENSOR_TYPES:
                refuse(f"tensor {tensor.name} is {tensor.tensor_type.name}, read are {', '.join(TENSOR_TYPES)}")
        self.used = set()

    def get(self, key, default=None):
        field = self.reader.fields.get(key)
        return default if field is None else field.contents()

    def need(self, key):
        value = self.get(key)
        if value is None:
            refuse(f"the file has no {key}")
        return value

    def tensor(self, name, optional=False):
        """f32, the last dimension fastest."""
        tensor = self.tensors.get(name)
        if tensor is None:
            return None if optional else refuse(f"the file has no tensor {name}")
        self.used.add(name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        return values.reshape([int(size) for size in tensor.shape[::-1]])


def read_shape(file, context):
    architecture = file.need("general.architecture")
    if architecture != "llama":
        refuse(f"the architecture is {architecture}, read is llama")
    width, heads = file.need("llama.embedding_length"), file.need("llama.attention.head_count")
    if file.get("llama.expert_count", 0):
        refuse("the model is a mixture of experts, which is not read")
    scaling = file.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        refuse(f"rope.scaling.type is {scaling}, which is not read")
    trained = file.need("llama.context_length")
    if context > trained:
        refuse(f"--context is {context}, the model was trained for {trained}")
    head_size = file.get("llama.attention.key_length", width // heads)
    if file.get("llama.rope.dimension_count", head_size) != head_size:
        refuse("only a part of each head is rotated, which is not read")
    return decoder_graph.Shape(
        layers=file.need("llama.block_count"), width=width, heads=heads,
        kv_heads=file.get("llama.attention.head_count_kv", heads), head_size=head_size,
        vocabulary=int(file.tensors["token_embd.weight"].shape[1]), context=context or trained,
        rope_theta=file.get("llama.rope.freq_base", 10000.0), norm_epsilon=file.need("llama.attention.layer_norm_rms_epsilon"),
        rope_factors=file.tensor("rope_freqs.weight", optional=True),
    )


def halves(weight, heads):
    """From rows whose rotated pairs lie side by side, as GGUF has them, to pairs that lie half a head apart."""
    rows, columns = weight.shape if weight.ndim == 2 else (weight.shape[0], 1)
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(weight.shape)


def read_weights(file, shape):
    weights = {"embedding": file.tensor("token_embd.weight"), "norm": file.tensor("output_norm.weight")}
    head = file.tensor("output.weight", optional=True)
    if head is not None:
        weights["head"] = head
    names = {"input_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
             "post_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    for layer in range(shape.layers):
        for ours, theirs in names.items():
            weight = file.tensor(f"blk.{layer}.{theirs}.weight")
            bias = file.tensor(f"blk.{layer}.{theirs}.bias", optional=True)
            if bias is not None and ours not in "qkv":
                refuse(f"tensor blk.{layer}.{theirs}.bias has no place in a Llama")
            for suffix, values in (("", weight), (".bias", bias)):
                if values is not None:
                    if ours in "qk":
                        values = halves(values, shape.heads if ours == "q" else shape.kv_heads)
                    weights[f"{layer}.{ours}{suffix}"] = values
        biases = [f"{layer}.{part}.bias" in weights for part in "qkv"]
        if any(biases) and not all(biases):
            refuse(f"layer {layer} has a bias for some of q, k and v only, which is not read")
    unread = sorted(set(file.tensors) - file.used)
    if unread:
        refuse(f"tensors that have no place in a Llama: {', '.join(unread[:5])}")
    return weights


def words(kind):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

    def split(pattern):
        cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [cut, byte_level]}

    known = {
        "smollm": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, {**byte_level, "use_regex": True}]},
        "gpt-2": split(GPT2_WORDS),
        "llama-bpe": split(LLAMA3_WORDS),
        "qwen2": split(QWEN2_WORDS),
    }
    return known.get(kind) or refuse(f"tokenizer.ggml.pre is {kind}, read are {', '.join(known)}")


def read_tokenizer(file):
    """tokenizer.json, tokenizer_config.json and generation_config.json."""
    model = file.need("tokenizer.ggml.model")
    if model != "gpt2":
        refuse(f"tokenizer.ggml.model is {model}, read is gpt2 (byte-level BPE)")
    tokens, types = file.need("tokenizer.ggml.tokens"), file.need("tokenizer.ggml.token_type")
    added = [
        {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind == CONTROL}
        for number, (token, kind) in enumerate(zip(tokens, types)) if kind in (CONTROL, USER_DEFINED)
    ]
    bos, eos = file.get("tokenizer.ggml.bos_token_id"), file.need("tokenizer.ggml.eos_token_id")
    puts_bos = bool(file.get("tokenizer.ggml.add_bos_token", False)) and bos is not None
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    post = decoder
    if puts_bos:
        named = tokens[bos]
        post = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": named, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {named: {"id": named, "ids": [bos], "tokens": [named]}}}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": words(file.get("tokenizer.ggml.pre", "gpt-2")), "post_processor": post, "decoder": decoder,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: number for number, token in enumerate(tokens)},
                  "merges": [merge.split(" ") for merge in file.need("tokenizer.ggml.merges")]},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "add_bos_token": puts_bos,
        "bos_token": None if bos is None else tokens[bos], "eos_token": tokens[eos],
        "chat_template": file.get("tokenizer.chat_template"),
    }
    ends = sorted({eos, *(file.get(f"tokenizer.ggml.{name}_token_id", eos) for name in ("eot", "eom"))})
    generation = {"bos_token_id": bos, "eos_token_id": ends[0] if len(ends) == 1 else ends}
    return tokenizer, config, generation


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("gguf")
    parser.add_argument("target")
    parser.add_argument("--weights", default="f32")
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--keep", default="")
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--card")
    words_ = parser.parse_args()
    try:
        precision = decoder_graph.Precision(words_.weights, filter(None, words_.keep.split(",")), words_.block)
    except ValueError as error:
        refuse(error)
    file = File(words_.gguf)
    shape = read_shape(file, words_.context)
    tokenizer, tokenizer_config, generation = read_tokenizer(file)
    weights = read_weights(file, shape)
    name = file.get("general.name", os.path.basename(words_.gguf))
    metadata = {"name": name, "licence": file.get("general.license", "unknown"), "weights": words_.weights}
    model = decoder_graph.build(shape, weights, precision, metadata)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": shape.width,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size, "vocab_size": shape.vocabulary, "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta, "rms_norm_eps": shape.norm_epsilon, "tie_word_embeddings": "head" not in weights,
        **generation,
    }
    part = words_.target + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(os.path.join(part, "onnx"))
    for file_name, content in (("config.json", config), ("generation_config.json", generation), ("tokenizer.json", tokenizer),
                               ("tokenizer_config.json", tokenizer_config)):
        with open(os.path.join(part, file_name), "w", encoding="utf-8") as out:
            json.dump(content, out, ensure_ascii=False, indent=1 if file_name != "tokenizer.json" else None)
    decoder_graph.save(model, os.path.join(part, "onnx", "model.onnx"))
    for file_name in ("model.toml", "README.md") if words_.card else ():
        shutil.copy(os.path.join(words_.card, file_name), part)
    model_folder.replace(words_.target, part)


if __name__ == "__main__":
    main()
