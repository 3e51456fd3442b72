/**
 * What every request carries besides its own fields.
 *
 * Transport: framed (4-byte big-endian length before each message), strict binary or compact protocol, told apart by
 * the first byte of each frame. See README.md in this folder for the rules on compatibility.
 */
namespace py outboard.base
namespace go outboard.base
namespace java dev.outboard.base
namespace cpp outboard.base
namespace js outboard.base

/** How urgent a call is. Values that a server does not know count as NORMAL. */
enum Priority {
  NORMAL = 0,
  /** A person is waiting. */
  INTERACTIVE = 1,
  /** Nobody is waiting: runs when nothing else does. */
  BATCH = 2,
}

/** Field 1 of every request. All of it is optional: a call without Base is served with the defaults named below. */
struct Base {
  /**
   * Names the request in logs, errors and traces of every process that it passes: 8 to 64 of [A-Za-z0-9._-].
   * An absent or unsuitable one is replaced by the server; the reply and every Fault say which one was used.
   */
  1: optional string request_id,
  /**
   * What the calling service calls itself, for logs. It is a hint and proves nothing: rights and quotas go by the
   * verified identity of the connection.
   */
  2: optional string caller,
  /**
   * 16 random bytes that the caller chose for this call. All attempts of one call share them, and `cancel` names a
   * call by them.
   */
  3: optional binary call_id,
  /**
   * Milliseconds left until the answer is of no use, counted from when the request is sent. Absent or 0: the server's
   * default (10,000 for pictures and tensors). At most 600,000; more is cut to that.
   * A caller should wait slightly longer than this itself, and close the connection when it gave up waiting: most
   * generated clients would take the late reply for the answer to their next call.
   */
  4: optional i32 timeout_ms,
  /**
   * W3C Trace Context, as in the HTTP header of that name: the caller's own span. One that the standard does not allow
   * counts as absent.
   */
  5: optional string traceparent,
  6: optional Priority priority,
  /** W3C Trace Context, as in the HTTP header of that name, at most 512 bytes. Only of use beside traceparent. */
  8: optional string tracestate,
  /**
   * The caller's API key, which a server that was given a file of keys asks for; others do not look at it. Absent: the
   * call is refused with UNAUTHENTICATED there. Only `Health.check` never needs one. Keys are secrets: no server logs
   * them.
   */
  7: optional string key,
}
