"""genai_batches.py FOLDER ROWS PROMPT_TOKENS ROUNDS MAX_TOKENS: chats with onnxruntime-genai, in batches that begin and end together.

That is how it batches such a model on a CPU: a request that comes later waits for the batch before it, in its `Engine` as well as
with its `Generator`, which is used here. The answers are as long as those that chat_load asks for, between half of MAX_TOKENS and
all of it, and a batch takes as long as its longest. Greedy, nothing is detokenised or sent.
Prints one line of JSON: decode (tokens/s of all rows while none has ended), tokens_per_second (of the tokens that were wanted,
prompts included), first_ms (from the beginning of a batch to its first tokens), cpu_ms (of this process, for a token).
"""
import json
import resource
import statistics
import sys
import time

import numpy as np
import onnxruntime_genai as genai


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    folder, rows, prompt, rounds, most = sys.argv[1], *map(int, sys.argv[2:])
    genai.disable_telemetry_events()
    model = genai.Model(folder)
    tokens = np.tile((1000 + np.arange(prompt) * 37 % 500).astype(np.int32), (rows, 1))

    def batch(lengths):
        """Seconds to the first tokens, to the end of the shortest answer and to that of the longest."""
        params = genai.GeneratorParams(model)
        # No answer ends before it is as long as is wanted.
        longest = prompt + max(lengths)
        params.set_search_options(batch_size=rows, max_length=longest, min_length=longest, do_sample=False)
        begin = time.perf_counter()
        generator = genai.Generator(model, params)
        generator.append_tokens(tokens)
        times = []
        for _ in range(max(lengths)):
            generator.generate_next_token()
            times.append(time.perf_counter() - begin)
        return times[0], times[min(lengths) - 1], times[-1]

    batch([4] * rows)
    firsts, decodes, took, wanted = [], [], 0, 0
    cpu = used()
    for number in range(rounds):
        lengths = [most // 2 + most // 2 * (at * 7 % 16) // 15 for at in range(number * rows, (number + 1) * rows)]
        first, shortest, longest = batch(lengths)
        firsts.append(first * 1e3)
        decodes.append(rows * (min(lengths) - 1) / (shortest - first))
        took += longest
        wanted += sum(lengths)
    print(json.dumps({"decode": statistics.median(decodes), "tokens_per_second": wanted / took,
                      "first_ms": statistics.median(firsts), "cpu_ms": (used() - cpu) * 1e3 / wanted}))


main()
