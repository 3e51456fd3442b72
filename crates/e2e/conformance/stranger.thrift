/** Methods that a server does not have, or has with other arguments. Includes all that is called, so that one run of the compiler does. */
include "base.thrift"
include "fault.thrift"
include "chat.thrift"
include "health.thrift"
include "inference.thrift"

namespace py outboard.stranger
namespace go outboard.stranger
namespace java dev.outboard.stranger
namespace cpp outboard.stranger
namespace js outboard.stranger

struct Anything {
  1: optional string text,
}

/** `CheckRequest` as somebody might have got it wrong: its field 1 is a struct, and its field 2 a text. */
struct Misunderstood {
  1: optional base.Base base,
  2: optional i64 model,
}

service Stranger {
  Anything frobnicate(1: Anything request) throws (1: fault.Fault fault),
}

service Misreader {
  health.CheckReply check(1: Misunderstood request) throws (1: fault.Fault fault),
}
