"""Calls every method of a running server with thriftpy2, which needs no generated code.

thriftpy2_client.py HOST PORT binary|compact SHOE.png
Prints one JSON object of what it saw; any surprise is a traceback and a non-zero exit status.
"""

import json
import struct
import sys

import thriftpy2
from thriftpy2.protocol import TBinaryProtocolFactory, TCompactProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport import TFramedTransportFactory

host, port, protocol, picture = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
protocols = {"binary": TBinaryProtocolFactory, "compact": TCompactProtocolFactory}
inference = thriftpy2.load("idl/inference.thrift", module_name="inference_thrift")
health = thriftpy2.load("idl/health.thrift", module_name="health_thrift")
fault = inference.fault
base = inference.base


def client(service):
    return make_client(service, host, port, proto_factory=protocols[protocol](), trans_factory=TFramedTransportFactory(),
                       timeout=20_000)


seen = {}
calls = client(inference.Inference)
shoe = open(picture, "rb").read()
about = base.Base(request_id="python-request-1", caller="e2e", timeout_ms=15_000)

models = calls.models(inference.ModelsRequest(base=about))
seen["models"] = sorted(model.name for model in models.models)
one = calls.models(inference.ModelsRequest(model="fashion-mnist")).models[0]
seen["labels"] = one.labels
seen["input"] = [one.inputs[0].name, one.inputs[0].shape]

reply = calls.classify(inference.ClassifyRequest(base=about, model="fashion-mnist", images=[shoe, shoe], top_k=3, preview_px=64))
seen["request_id"] = reply.request_id
seen["results"] = [[label.label for label in result.labels] for result in reply.results]
seen["score"] = reply.results[0].labels[0].score
seen["preview"] = [result.preview[:2] == b"\xff\xd8" for result in reply.results]
seen["size"] = [reply.results[0].width, reply.results[0].height, reply.results[0].format]
assert reply.timing.total_us > 0 and reply.timing.batch_rows >= 1, reply.timing

zeros = inference.Tensor(name=one.inputs[0].name, data_type=inference.DataType.F32, shape=[2, 1, 28, 28],
                         data=struct.pack("<1568f", *([0.0] * 1568)))
answer = calls.infer(inference.InferRequest(model="fashion-mnist", inputs=[zeros]))
seen["outputs"] = [[tensor.name, tensor.shape, len(tensor.data)] for tensor in answer.outputs]


def fault_of(call):
    try:
        call()
    except fault.Fault as error:
        return [error.code, error.param, bool(error.message), bool(error.request_id)]
    return None


seen["faults"] = {
    "unknown model": fault_of(lambda: calls.classify(inference.ClassifyRequest(model="nope", images=[shoe]))),
    "not a picture": fault_of(lambda: calls.classify(inference.ClassifyRequest(model="mnist", images=[b"plain text, no picture"]))),
    "no picture": fault_of(lambda: calls.classify(inference.ClassifyRequest(model="mnist", images=[]))),
    "17 pictures": fault_of(lambda: calls.classify(inference.ClassifyRequest(model="mnist", images=[shoe] * 17))),
    "top_k": fault_of(lambda: calls.classify(inference.ClassifyRequest(model="mnist", images=[shoe], top_k=101))),
    "over": fault_of(lambda: calls.classify(inference.ClassifyRequest(base=base.Base(timeout_ms=-1), model="mnist", images=[shoe]))),
    "tensor": fault_of(lambda: calls.infer(inference.InferRequest(model="mnist", inputs=[]))),
}
# The connection must still be good after all those faults.
calls.cancel(inference.CancelRequest(call_id=b"0123456789abcdef"))
assert len(calls.models(inference.ModelsRequest()).models) == len(models.models)
calls.close()

probe = client(health.Health)
state = probe.check(health.CheckRequest())
seen["health"] = [state.status, state.live, bool(state.instance)]
seen["health of one"] = probe.check(health.CheckRequest(model="mnist")).status
probe.close()

# A method that is not in the IDL gets the protocol's own answer, and the connection stays usable.
stranger = client(health.Health)
stranger._service.thrift_services.append("nonsense")
stranger._service.nonsense_args = health.Health.check_args
stranger._service.nonsense_result = health.Health.check_result
try:
    stranger.nonsense(health.CheckRequest())
    raise AssertionError("an unknown method was answered")
except TApplicationException as error:
    seen["unknown method"] = error.type
assert stranger.check(health.CheckRequest()).status == state.status
stranger.close()

print(json.dumps(seen))
