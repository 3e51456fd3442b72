"""bare_decoder.py MODEL_FOLDER ROWS PROMPT_TOKENS STEPS THREADS: greedy decoding with ONNX Runtime alone, batched by hand.

All rows have the same length, begin together and end together; past and present share one buffer; nothing is sampled, detokenised
or sent. Threads wait for work as the server's do: they spin when there are several, and stop with the run (two threads that do not
spin are 8 to 15% slower here).
Prints one line of JSON: prefill_ms (all rows), decode (tokens/s of the steps after the first token), whole (tokens/s with the
prompts), cpu_ms (of this process, for a token of the whole).
"""
import json
import os
import resource
import sys
import time

import numpy as np
import onnxruntime as ort


def main():
    folder, rows, prompt, steps, threads = sys.argv[1], *map(int, sys.argv[2:])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(os.path.join(folder, "onnx", "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    pasts = [one for one in session.get_inputs() if one.name.startswith("past_key_values.")]
    _, heads, _, size = pasts[0].shape
    room = prompt + steps + 1
    caches = [ort.OrtValue.ortvalue_from_numpy(np.zeros((rows, heads, room, size), np.float32)) for _ in pasts]
    binding = session.io_binding()

    def run(tokens, total):
        inputs = {"input_ids": tokens, "attention_mask": np.ones((rows, total), np.int64)}
        if "num_logits_to_keep" in names:
            inputs["num_logits_to_keep"] = np.array(1, np.int64)
        if "position_ids" in names:
            inputs["position_ids"] = np.broadcast_to(np.arange(total - tokens.shape[1], total), tokens.shape).astype(np.int64)
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for one, cache in zip(pasts, caches):
            binding.bind_ortvalue_input(one.name, cache)
            binding.bind_ortvalue_output(one.name.replace("past_key_values", "present"), cache)
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        logits = next(out for out in binding.get_outputs() if out.shape()[-1] > 4096).numpy()
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        return logits[:, -1].argmax(-1).astype(np.int64)[:, None]

    prompts = np.tile((1000 + np.arange(prompt) * 37 % 500).astype(np.int64), (rows, 1))
    # The first run of a shape makes its buffers.
    run(run(prompts, prompt), prompt + 1)
    begin, cpu = time.perf_counter(), used()
    tokens = run(prompts, prompt)
    prefill = time.perf_counter() - begin
    for step in range(steps):
        tokens = run(tokens, prompt + 1 + step)
    took, cpu = time.perf_counter() - begin, used() - cpu
    made = rows * (steps + 1)
    print(json.dumps({"prefill_ms": prefill * 1e3, "decode": rows * steps / (took - prefill), "whole": made / took,
                      "cpu_ms": cpu * 1e3 / made}))


def used():
    """Seconds on a processor so far, of all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


main()
