"""OpenAI's own package against a gateway that asks for keys. Prints what it saw as JSON.

    openai_keys.py BASE_URL MODEL open KEY READERS_KEY    with a good key, without one, with one of another scope
    openai_keys.py BASE_URL MODEL gone KEY                a key that was revoked, as soon as the gateway knows
"""

import json
import sys
import time

import openai

base_url, model, part, key = sys.argv[1:5]
HELLO = [{"role": "user", "content": "hello there"}]


def client(api_key):
    return openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0)


def chat(api_key, **more):
    options = {"model": model, "messages": HELLO, "temperature": 0, "max_tokens": 5, **more}
    return client(api_key).chat.completions.create(**options)


def error(call):
    try:
        call()
    except openai.APIStatusError as failed:
        return [type(failed).__name__, failed.status_code, failed.code, bool(failed.request_id)]
    return None


seen = {}
if part == "open":
    seen["models"] = [one.id for one in client(key).models.list()]
    seen["whole"] = chat(key).usage.completion_tokens
    streamed = list(chat(key, stream=True))
    seen["streamed"] = streamed[-1].choices[0].finish_reason
    seen["none"] = error(lambda: chat("not checked"))
    seen["none streamed"] = error(lambda: chat("not checked", stream=True))
    seen["another scope"] = error(lambda: chat(sys.argv[5]))
    seen["any key lists"] = [one.id for one in client(sys.argv[5]).models.list()]
else:
    until = time.monotonic() + 60
    while (refused := error(lambda: client(key).models.list())) is None and time.monotonic() < until:
        time.sleep(0.05)
    seen["revoked"] = refused
print(json.dumps(seen))
