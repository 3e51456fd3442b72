"""genai_folder.py MODEL_FOLDER TARGET THREADS: a model folder in Hugging Face's layout as onnxruntime-genai takes it.

The same graph and weights, with the genai_config.json that it needs. It has no input for how many logits are wanted, which the
bundled models' graphs have: here they are those of the last token, and the output says so.
"""
import json
import os
import shutil
import sys

import numpy as np
import onnx


def main():
    source, target, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    part = target + ".part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(os.path.join(source, "onnx"), part)
    path = os.path.join(part, "model.onnx")
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for wanted in [one for one in graph.input if one.name == "num_logits_to_keep"]:
        graph.input.remove(wanted)
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), wanted.name))
        logits = next(one for one in graph.output if one.name == "logits")
        logits.type.tensor_type.shape.dim[1].Clear()
        logits.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, path)
    told = {
        "model": {
            "type": config["model_type"],
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
            "pad_token_id": config["eos_token_id"],
            "vocab_size": config["vocab_size"],
            "context_length": 2048,
            "decoder": {
                "filename": "model.onnx",
                "session_options": {"intra_op_num_threads": threads, "provider_options": []},
                "hidden_size": config["hidden_size"],
                "head_size": config["head_dim"],
                "num_hidden_layers": config["num_hidden_layers"],
                "num_attention_heads": config["num_attention_heads"],
                "num_key_value_heads": config["num_key_value_heads"],
                "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask",
                           "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
                "outputs": {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
            },
        },
        "search": {"do_sample": False, "past_present_share_buffer": True, "max_length": 2048},
    }
    with open(os.path.join(part, "genai_config.json"), "w", encoding="utf-8") as file:
        json.dump(told, file, indent=1)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(part, target)


main()
