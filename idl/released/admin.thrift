/**
 * Changes to what a server serves. Refused with Forbidden unless the listener is marked for administration.
 */
include "base.thrift"
include "fault.thrift"

namespace py outboard.admin
namespace go outboard.admin
namespace java dev.outboard.admin
namespace cpp outboard.admin
namespace js outboard.admin

struct LoadRequest {
  1: optional base.Base base,
  /** A folder below the server's model folder. */
  2: string model,
  /** Absent: the highest version in the folder. */
  3: optional string version,
}

struct UnloadRequest {
  1: optional base.Base base,
  2: string model,
}

struct AdminReply {
  1: string model,
  2: string version,
  3: string request_id,
}

struct StatisticsRequest {
  1: optional base.Base base,
}

struct StatisticsReply {
  /** Name and value of each counter, as on the metrics page. */
  1: map<string, double> values,
  2: string request_id,
}

service Admin {
  /** Loads a model, or a version beside the one that serves, which answers until the new one is ready. */
  AdminReply load(1: LoadRequest request) throws (1: fault.Fault fault),
  AdminReply unload(1: UnloadRequest request) throws (1: fault.Fault fault),
  AdminReply reload(1: LoadRequest request) throws (1: fault.Fault fault),
  StatisticsReply statistics(1: StatisticsRequest request) throws (1: fault.Fault fault),
}
