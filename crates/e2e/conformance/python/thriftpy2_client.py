"""Does what cases.json lists with thriftpy2, which reads the IDL itself; see cases.py.

    python thriftpy2_client.py CASES.json HOST:PORT
"""

import sys
from pathlib import Path

import cases
import thriftpy2
from thriftpy2.protocol import (TBinaryProtocolFactory, TCompactProtocolFactory, TCyBinaryProtocolFactory,
                                TMultiplexedProtocolFactory)
from thriftpy2.thrift import TApplicationException, TClient
from thriftpy2.transport import (TBufferedTransportFactory, TCyBufferedTransportFactory, TCyFramedTransportFactory,
                                 TFramedTransportFactory, TSocket, TTransportException)

HERE = Path(__file__).resolve().parent
IDL = HERE.parents[3] / "idl"
stranger = thriftpy2.load(str(HERE.parent / "stranger.thrift"), "stranger_thrift", include_dirs=[str(IDL)])
chat, health, inference = stranger.chat, stranger.health, stranger.inference
Base, Fault = stranger.base.Base, stranger.fault.Fault
ChatRequest, Message, NextRequest, Sampling = chat.ChatRequest, chat.Message, chat.NextRequest, chat.Sampling
StartRequest, StopRequest, CheckRequest = chat.StartRequest, chat.StopRequest, health.CheckRequest
CancelRequest, ClassifyRequest, EmbedRequest = inference.CancelRequest, inference.ClassifyRequest, inference.EmbedRequest
InferRequest, ModelsRequest, Tensor = inference.InferRequest, inference.ModelsRequest, inference.Tensor
Anything, Misunderstood = stranger.Anything, stranger.Misunderstood
Chat, Health, Inference = chat.Chat, health.Health, inference.Inference
Misreader, Stranger = stranger.Misreader, stranger.Stranger

NAME = "python-thriftpy2"
# The protocol in C takes only transports in C.
PROTOCOLS = {"binary": TBinaryProtocolFactory, "binary-cython": TCyBinaryProtocolFactory,
             "compact": TCompactProtocolFactory}
LAYERS = {"python": (TBufferedTransportFactory, TFramedTransportFactory),
          "cython": (TCyBufferedTransportFactory, TCyFramedTransportFactory)}


class Connection:
    def __init__(self, address, protocol, transport, patience_ms):
        host, port = address.rsplit(":", 1)
        socket = TSocket(host, int(port), socket_timeout=patience_ms)
        layers = LAYERS["cython" if protocol == "binary-cython" else "python"]
        self.transport = layers[transport != "buffered"]().get_transport(socket)
        self.factory = PROTOCOLS[protocol]()
        self.multiplexed = transport == "multiplexed"
        self.transport.open()

    def client(self, service, name):
        factory = TMultiplexedProtocolFactory(self.factory, name) if self.multiplexed else self.factory
        return TClient(service, factory.get_protocol(self.transport))


def begin_infer(client, request):
    client._send("infer", request=request)


def end_infer(client):
    return client._recv("infer")


def outcome_of(error):
    if isinstance(error, TimeoutError):
        return "timeout"
    return "transport" if isinstance(error, TTransportException) else None


if __name__ == "__main__":
    cases.main(sys.modules[__name__])
