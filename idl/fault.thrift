/** The one exception of every method. */
namespace py outboard.fault
namespace go outboard.fault
namespace java dev.outboard.fault
namespace cpp outboard.fault
namespace js outboard.fault

/** What went wrong. The list may grow: treat an unknown value like Internal. */
enum FaultCode {
  /** The request is wrong; sending it again changes nothing. */
  InvalidInput = 1,
  /** No credentials, or unknown ones. */
  Unauthenticated = 2,
  /** The caller is known and may not do this. */
  Forbidden = 3,
  /** No such model, version or object. `param` says which kind of thing: "model" for a model. */
  NotFound = 4,
  /** Over a limit on bytes, pixels, rows or tokens; the message names the limit. */
  TooLarge = 5,
  /** The caller's own budget is used up. Try again after retry_after_ms. */
  QuotaExceeded = 6,
  /** The server has more work than it can take. Try again with growing pauses, or elsewhere. */
  Overloaded = 7,
  /** The deadline passed, or could not have been met. The work was not started, or was cut. */
  DeadlineExceeded = 8,
  /** The call was cancelled by its caller. */
  Cancelled = 9,
  /** Loading or draining. Try again, or elsewhere. */
  Unavailable = 10,
  /** A defect of the server. Quote the request id when you report it. */
  Internal = 11,
  /** The bytes are not a picture of a format that is read here. */
  UnsupportedMedia = 12,
}

exception Fault {
  1: FaultCode code,
  /** One sentence for a person: names the thing, the value and the limit. */
  2: string message,
  /** When trying again makes sense. Absent: not at all (codes 1 to 5, 12), or with the caller's own backoff. */
  3: optional i32 retry_after_ms,
  /** The request id that stands in the server's log. */
  4: optional string request_id,
  /** The parameter at fault ("model", "image", "top_k", a tensor's name), when there is one. */
  5: optional string param,
  /** Names the trace (32 hexadecimal digits), when the call is part of one. It stands in the log, too. */
  6: optional string trace_id,
}
