"""Embeddings by a client that reads the IDL itself. Prints what it saw as JSON.

    thriftpy2_embed.py HOST:PORT MODEL
"""

import json
import math
import struct
import sys

import thriftpy2
from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.transport import TFramedTransportFactory

address, model = sys.argv[1:]
host, port = address.rsplit(":", 1)
inference = thriftpy2.load("idl/inference.thrift", "inference_thrift")
client = make_client(inference.Inference, host, int(port), proto_factory=TBinaryProtocolFactory(),
                     trans_factory=TFramedTransportFactory(), timeout=60_000)
reply = client.embed(inference.EmbedRequest(model=model, texts=["one text", "and another one"]))
numbers = struct.unpack(f"<{len(reply.vectors) // 4}f", reply.vectors)
vectors = [numbers[:reply.dimensions], numbers[reply.dimensions:]]
print(json.dumps({
    "dimensions": reply.dimensions,
    "tokens": reply.token_counts,
    "length 1": all(abs(math.hypot(*vector) - 1) < 1e-5 for vector in vectors),
    "texts in the run": 1 <= reply.timing.batch_rows <= 2,
}))
