/**
 * Text generation by chat models.
 *
 * `complete` gives the whole answer in one reply. Plain Thrift has no streaming, so a streamed answer is a long poll
 * that any generated client can do: `start` once, `next_pieces` until a reply has `ended`, `stop` to end early.
 *
 *   id = start(request with a random stream_key).stream_id
 *   from = 0
 *   loop: reply = next_pieces(stream_id, from, wait_ms = 10000); show reply.pieces; from += size(reply.pieces)
 *         until reply.ended
 *
 * Asking again with the same `from` gives the same pieces, so `next_pieces` may be sent again after a lost connection; asking
 * with a higher `from` acknowledges all pieces before it, and the server forgets them. Starting again with the same
 * stream_key by the same caller gives the same stream and never a second one, so `start` may be sent again, too.
 *
 * A stream ends with exactly one piece that has `usage` or `error`; when n > 1, each choice has a piece with `finish` before
 * that or in it. The stream is ended by the server (Cancelled) when nobody
 * called `next_pieces` for 15 seconds, or, with `bound = true`, when the connection that started it is lost.
 */
include "base.thrift"
include "fault.thrift"

namespace py outboard.chat
namespace go outboard.chat
namespace java dev.outboard.chat
namespace cpp outboard.chat
namespace js outboard.chat

struct Message {
  /** "system", "user", "assistant" or "tool", as the model's template takes them. */
  1: string role,
  2: string content,
  3: optional string name,
}

/** How the next token is chosen. Absent fields have the model's default, then the one named here. */
struct Sampling {
  /** 0 takes the likeliest token. 0 to 2; default 1. */
  1: optional double temperature,
  /** Smallest set of likeliest tokens whose probabilities reach this. Above 0 to 1; default 1. */
  2: optional double top_p,
  /** Only the k likeliest; default 0: all. */
  3: optional i32 top_k,
  /** Drop tokens less likely than this share of the likeliest one. 0 to 1; default 0. */
  4: optional double min_p,
  /** Divides (multiplies, when negative) the logits of tokens seen so far. Above 0; default 1. */
  5: optional double repetition_penalty,
  /** Subtracted once from the logit of a token that was generated before. -2 to 2; default 0. */
  6: optional double presence_penalty,
  /** Subtracted for each time a token was generated before. -2 to 2; default 0. */
  7: optional double frequency_penalty,
  /** Added to the logits of these tokens. -100 to 100. At most 300 entries. */
  8: optional map<i32, double> logit_bias,
  /**
   * Same seed, same request, same model version: same tokens, whatever else the server does - as far as the model gives the same
   * numbers. One with 32-bit weights on a CPU does; one with 8-bit weights, or on a GPU, can come to other tokens when more or
   * less of the prompt is in the cache. Absent: random.
   */
  9: optional i64 seed,
}

/** The form that the answer must have. */
enum FormatKind { TEXT = 0, JSON = 1, JSON_SCHEMA = 2 }

struct Format {
  1: FormatKind kind,
  /** The schema as JSON text, for JSON_SCHEMA. */
  2: optional string schema,
}

struct ChatRequest {
  1: optional base.Base base,
  2: string model,
  3: optional string version,
  /** The conversation, through the model's chat template. Give either this or `prompt`. */
  4: optional list<Message> messages,
  /** A text to continue as it is, without a template. */
  5: optional string prompt,
  /** Most tokens to generate. Absent: what is left of the context. */
  6: optional i32 max_tokens,
  7: optional Sampling sampling,
  /** Texts that end the answer and are not part of it. At most 16, each 1 to 256 bytes. */
  8: optional list<string> stop,
  9: optional Format format,
  /** How many answers; default 1, at most 16. */
  10: optional i32 n,
  /** Report the log-probability of each token and of this many likeliest others, 0 to 20. Absent: none. */
  11: optional i32 logprobs,
  /** Names the conversation, so that it finds its cached prefix again. Any text up to 128 bytes. */
  12: optional string conversation,
}

struct TokenLogprob {
  1: i32 token,
  2: string text,
  /** The token's bytes: a token may be part of a character. */
  3: binary bytes,
  4: double logprob,
  /** The likeliest tokens at this place, best first; their own `top` is absent. */
  5: optional list<AlternativeToken> top,
}

struct AlternativeToken {
  1: i32 token,
  2: string text,
  3: binary bytes,
  4: double logprob,
}

/** Why an answer ended. */
enum FinishReason {
  UNKNOWN = 0,
  /** The model's end token, or a stop text. */
  STOP = 1,
  /** max_tokens or the end of the context. */
  LENGTH = 2,
  /** `stop` was called. */
  CANCELLED = 3,
}

struct Usage {
  1: i32 prompt_tokens,
  2: i32 completion_tokens,
  /** Prompt tokens that were found in the cache. */
  3: i32 cached_tokens,
}

struct ChatTiming {
  1: i64 queue_us,
  2: i64 prefill_us,
  3: i64 decode_us,
  /** From the request to the first token. */
  4: i64 first_token_us,
}

struct Choice {
  1: i32 index,
  2: string text,
  3: FinishReason finish,
  4: optional list<TokenLogprob> logprobs,
  /** The stop text that ended it. */
  5: optional string stop_text,
}

struct ChatReply {
  1: list<Choice> choices,
  2: Usage usage,
  3: string model,
  4: string version,
  5: ChatTiming timing,
  6: string request_id,
}

struct StartRequest {
  1: optional base.Base base,
  /** 16 random bytes of the caller. */
  2: binary stream_key,
  /** base.timeout_ms of this call bounds the whole generation (default 120,000); chat.base is not read. */
  3: ChatRequest chat,
  /** End the stream when this connection is lost. */
  4: optional bool bound,
}

struct StartReply {
  /** Cannot be guessed, and names the server process that holds the stream. */
  1: string stream_id,
  2: string model,
  3: string version,
  4: string request_id,
  5: i32 prompt_tokens,
}

/** Some more text of one choice. */
struct Piece {
  /** Position in the stream, from 0 without gaps. */
  1: i64 number,
  /** Which of the n answers. */
  2: i32 index,
  /** Whole characters only. */
  3: string text,
  /** Present on the last piece of this choice. */
  4: optional FinishReason finish,
  5: optional list<TokenLogprob> logprobs,
  /** Present on the very last piece of the stream when it ended well. */
  6: optional Usage usage,
  7: optional ChatTiming timing,
  /** Present on the very last piece when the stream broke. */
  8: optional fault.FaultCode error,
  9: optional string error_message,
}

struct NextRequest {
  /** base.timeout_ms is this call's own. */
  1: optional base.Base base,
  2: string stream_id,
  /** Number of the first piece wanted; acknowledges all before it. */
  3: i64 from_piece,
  /** How long to wait when there is nothing new yet, 0 to 30,000; an empty reply is no error. Default 10,000. */
  4: optional i32 wait_ms,
}

struct NextReply {
  /** In order, beginning with from_piece. */
  1: list<Piece> pieces,
  /** Nothing will come after these pieces. */
  2: bool ended,
  3: string request_id,
}

struct StopRequest {
  1: optional base.Base base,
  2: string stream_id,
}

struct StopReply {
  /** False when it had ended before. */
  1: bool stopped,
  2: string request_id,
}

service Chat {
  ChatReply complete(1: ChatRequest request) throws (1: fault.Fault fault),
  /**
   * Begins a stream. Fails with NotFound, TooLarge (the prompt), Overloaded, InvalidInput before anything is generated.
   */
  StartReply start(1: StartRequest request) throws (1: fault.Fault fault),
  /**
   * The pieces since from_piece. A stream of another server process, or one that was forgotten, is a NotFound; the
   * message then names the instance that the id belongs to.
   */
  NextReply next_pieces(1: NextRequest request) throws (1: fault.Fault fault),
  StopReply stop(1: StopRequest request) throws (1: fault.Fault fault),
}
