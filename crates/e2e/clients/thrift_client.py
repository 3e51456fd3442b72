"""Calls a running server with Apache's own Python library and generated code.

thrift_client.py HOST PORT binary|accelerated|compact|multiplexed GENERATED_FOLDER SHOE.png [CA.pem CLIENT.pem CLIENT.key]
With the last three the connection is made by TLS.
Prints one JSON object of what it saw.
"""

import json
import ssl
import sys

host, port, kind, generated, picture = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
sys.path.insert(0, generated)

from outboard.base.ttypes import Base
from outboard.fault.ttypes import Fault, FaultCode
from outboard.health import Health
from outboard.health.ttypes import CheckRequest, ServingStatus
from outboard.inference import Inference
from outboard.inference.ttypes import ClassifyRequest, ModelsRequest
from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolAccelerated
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.protocol.TMultiplexedProtocol import TMultiplexedProtocol
from thrift.transport import TSocket, TSSLSocket, TTransport

if len(sys.argv) > 6:
    ca, certificate, key = sys.argv[6:]
    socket = TSSLSocket.TSSLSocket(host, port, cert_reqs=ssl.CERT_REQUIRED, ca_certs=ca, certfile=certificate, keyfile=key)
else:
    socket = TSocket.TSocket(host, port)
socket.setTimeout(20_000)
transport = TTransport.TFramedTransport(socket)
protocol = {"binary": TBinaryProtocol, "accelerated": TBinaryProtocolAccelerated, "compact": TCompactProtocol,
            "multiplexed": TBinaryProtocol}[kind](transport)
wrap = (lambda name: TMultiplexedProtocol(protocol, name)) if kind == "multiplexed" else (lambda name: protocol)
transport.open()
inference, health = Inference.Client(wrap("Inference")), Health.Client(wrap("Health"))
shoe = open(picture, "rb").read()

seen = {"health": ServingStatus._VALUES_TO_NAMES[health.check(CheckRequest()).status]}
reply = inference.classify(ClassifyRequest(base=Base(request_id="apache-python-1", timeout_ms=15_000),
                                           model="fashion-mnist", images=[shoe], top_k=5))
seen["label"], seen["score"] = reply.results[0].labels[0].label, reply.results[0].labels[0].score
seen["labels"], seen["request_id"] = len(reply.results[0].labels), reply.request_id
seen["models"] = sorted(model.name for model in inference.models(ModelsRequest()).models)
try:
    inference.classify(ClassifyRequest(model="nope", images=[shoe]))
except Fault as fault:
    seen["fault"] = [FaultCode._VALUES_TO_NAMES[fault.code], fault.message, fault.param]
transport.close()
print(json.dumps(seen))
