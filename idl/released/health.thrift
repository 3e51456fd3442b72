/** Whether a server, or one of its models, can answer now. */
include "base.thrift"
include "fault.thrift"

namespace py outboard.health
namespace go outboard.health
namespace java dev.outboard.health
namespace cpp outboard.health
namespace js outboard.health

enum ServingStatus {
  UNKNOWN = 0,
  /** Every model asked about has passed a real inference and takes requests. */
  SERVING = 1,
  /** Broken: a model failed to load or its workers are stuck; `reason` says what. */
  NOT_SERVING = 2,
  /** Starting: models are being loaded or warmed up. */
  LOADING = 3,
  /** Stopping: calls in flight finish, new ones are refused with Unavailable. */
  DRAINING = 4,
}

struct CheckRequest {
  1: optional base.Base base,
  /** One model's name. Absent: the whole server (SERVING when every model is). An unknown name is a NotFound. */
  2: optional string model,
}

struct ModelHealth {
  1: string model,
  2: ServingStatus status,
  /** One sentence when the status is not SERVING. */
  3: optional string reason,
  /** Requests waiting for a worker. */
  4: optional i32 waiting,
  /** Requests in a run now. */
  5: optional i32 running,
}

struct CheckReply {
  1: ServingStatus status,
  /** One sentence when the status is not SERVING. */
  2: optional string reason,
  /** How long this status has held, in milliseconds. */
  3: i64 since_ms,
  /** Work in hand by what the server can do at once: 0 idle, 1 all workers busy, above 1 a queue. */
  4: double load,
  /** False when a worker is wedged and only a restart helps: for liveness probes. Busy, loading and draining are live. */
  5: bool live,
  /** One entry a model that was asked about. */
  6: list<ModelHealth> models,
  /** The server's version. */
  7: string version,
  /** Names this server process: a fresh random text at each start. */
  8: string instance,
}

service Health {
  /** Cheap: answered from memory, never runs a model, answered while draining and under overload. */
  CheckReply check(1: CheckRequest request) throws (1: fault.Fault fault),
}
