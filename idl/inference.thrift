/**
 * Models with tensors or pictures in and tensors, labels, vectors or pictures out.
 *
 * `models`, `infer`, `classify` and `embed` are idempotent: a caller may send them again after a lost connection.
 */
include "base.thrift"
include "fault.thrift"

namespace py outboard.inference
namespace go outboard.inference
namespace java dev.outboard.inference
namespace cpp outboard.inference
namespace js outboard.inference

/** Element types of tensors. Values are stable and no file format's numbers. */
enum DataType {
  F32 = 1, F64 = 2, F16 = 3, BF16 = 4,
  I8 = 5, I16 = 6, I32 = 7, I64 = 8,
  U8 = 9, U16 = 10, U32 = 11, U64 = 12,
  /** One byte an element, 0 or 1. */
  BOOL = 13,
  /** UTF-8 texts, in `Tensor.strings`. */
  STRING = 14,
}

struct Tensor {
  1: string name,
  2: DataType data_type,
  /** The sizes of all axes; empty for a scalar. */
  3: list<i64> shape,
  /** The elements, little-endian, row-major, without gaps: exactly product(shape) x size of an element bytes. */
  4: optional binary data,
  /** The elements when data_type is STRING, in the same order; `data` is absent then. */
  5: optional list<string> strings,
}

/** What a model is for, and so which method serves it. */
enum Task {
  /** `infer` only. */
  TENSOR = 0,
  CLASSIFY = 1,
  EMBED = 2,
  TRANSFORM = 3,
  CHAT = 4,
}

enum ModelState {
  UNKNOWN = 0, LOADING = 1, WARMING = 2, READY = 3, FAILED = 4, DRAINING = 5,
}

struct TensorSpec {
  1: string name,
  2: DataType data_type,
  /** Sizes of the axes, -1 for a free one. Absent when the model does not even tell how many axes there are. */
  3: optional list<i64> shape,
  /** The model's names of the free axes, "" where it has none. As long as `shape`. */
  4: optional list<string> axes,
  /** The tensor may be left out of a request. */
  5: optional bool has_default,
}

/** How many nodes of the model a provider of ONNX Runtime took. */
struct Placement {
  1: string provider,
  2: i32 nodes,
}

struct ModelInfo {
  1: string name,
  /** The version that answers now. */
  2: string version,
  3: Task task,
  4: ModelState state,
  /** Why the state is FAILED. */
  5: optional string reason,
  6: list<TensorSpec> inputs,
  7: list<TensorSpec> outputs,
  /** Class names in index order; empty when the model has none, or when the request did not ask for them. */
  8: list<string> labels,
  /** Every version in the folder. */
  9: list<string> versions,
  /** "cpu" or "cuda:0". */
  10: string device,
  /** Why that device: says what `auto` found. */
  11: optional string device_reason,
  12: list<Placement> placement,
  13: optional string description,
  14: optional string licence,
  /** The most rows in one run. */
  15: i32 max_rows,
  /** The number of classes, known also when `labels` was not asked for. */
  16: optional i32 classes,
  /** Most tokens of a conversation, prompt and answer together, of a loaded model whose task is CHAT. */
  17: optional i32 max_context,
  /** How many of its answers can be in work at the same time. */
  18: optional i32 slots,
  /** When the version's graph was written to its folder, in seconds since 1970. */
  19: optional i64 modified_s,
}

struct ModelsRequest {
  1: optional base.Base base,
  /** Only this model; an unknown name is a NotFound. */
  2: optional string model,
  /** Include the labels (a photo classifier has a thousand). Default: only when `model` is given. */
  3: optional bool with_labels,
}

struct ModelsReply {
  1: list<ModelInfo> models,
  2: string request_id,
}

/** Where the time of a request went, in microseconds. Queue, run and rows are those of the batch it rode in. */
struct Timing {
  /** Bytes to pixels to a row of the tensor, or texts to tokens. */
  1: i64 decode_us,
  /** Waiting for a worker. */
  2: i64 queue_us,
  /** On the device. */
  3: i64 run_us,
  /** From the complete request to the reply, all in all. */
  4: i64 total_us,
  /** Rows in the run. */
  5: i32 batch_rows,
}

struct InferRequest {
  1: optional base.Base base,
  2: string model,
  /** Absent: the version that serves now. */
  3: optional string version,
  /** Every input of the model that has no default, in any order. An input that the model does not have is an error. */
  4: list<Tensor> inputs,
  /** The outputs wanted; absent or empty: all. */
  5: optional list<string> outputs,
}

struct InferReply {
  1: list<Tensor> outputs,
  2: string model,
  3: string version,
  4: Timing timing,
  5: string request_id,
}

struct ClassifyRequest {
  1: optional base.Base base,
  2: string model,
  /** Absent: the version that serves now. */
  3: optional string version,
  /**
   * One or several encoded pictures as they came (JPEG, PNG, GIF, WebP, BMP, TIFF, ICO; the bytes decide, not a name).
   * At most 16; all of them must decode, or the call fails and the message says which one and why.
   */
  4: list<binary> images,
  /** How many labels, best first. Absent: 5. 1 to 100; more than the model has classes gives them all. */
  5: optional i32 top_k,
  /**
   * Longest edge in pixels of a small JPEG of each picture, upright and free of metadata, to show beside the result.
   * Absent or 0: none. At most 1024.
   */
  6: optional i32 preview_px,
}

struct Label {
  1: string label,
  /** Position of the class in the model's output. */
  2: i32 index,
  /** 0 to 1 after softmax or sigmoid. */
  3: double score,
}

struct Classification {
  /** Best first. */
  1: list<Label> labels,
  /** Size of the picture after its orientation was applied. */
  2: i32 width,
  3: i32 height,
  /** "jpeg", "png", "gif", "webp", "bmp", "tiff" or "ico". */
  4: string format,
  /** The JPEG that preview_px asked for. */
  5: optional binary preview,
}

struct ClassifyReply {
  /** One for each picture, in the order of the request. */
  1: list<Classification> results,
  2: string model,
  3: string version,
  4: Timing timing,
  5: string request_id,
}

/** The tokens of one text. */
struct TokenIds {
  1: list<i32> ids,
}

/** Give `texts` or `tokens`, at least one and at most 2048 of them. */
struct EmbedRequest {
  1: optional base.Base base,
  2: string model,
  /** Absent: the version that serves now. */
  3: optional string version,
  /**
   * The texts, none of them empty. One that has more tokens than the model takes is a TooLarge that names the text and both
   * numbers; the model's begin and end tokens count. Nothing is cut unless `truncate` says so.
   */
  4: optional list<string> texts,
  /** Texts that the caller has made tokens of with the model's own tokenizer; begin and end are added here. */
  5: optional list<TokenIds> tokens,
  /**
   * Scale each vector to length 1, so that the dot product of two of them is their cosine. Absent: as the model's makers
   * say, which for nearly every model is true.
   */
  6: optional bool normalise,
  /**
   * Keep only so many of the first numbers of each vector; it is normalised after that. Only models that were trained for it
   * lose little by it. 1 to what the model gives. Absent: all.
   */
  7: optional i32 dimensions,
  /** Cut a text that is too long at its end instead of refusing it. Absent: false. */
  8: optional bool truncate,
}

struct EmbedReply {
  /**
   * The vectors one after the other in the order of the request: 32-bit floats, little-endian, without gaps, so exactly
   * (number of texts) x dimensions x 4 bytes. One binary and not list<double>: half the bytes, and no call for each number in
   * any language, where 2048 vectors have most of a million numbers. numpy reads it as
   * `frombuffer(vectors, "<f4").reshape(-1, dimensions)`.
   */
  1: binary vectors,
  /** The numbers in each vector. */
  2: i32 dimensions,
  /** How many tokens each text had, the model's begin and end tokens included, after cutting. */
  3: list<i32> token_counts,
  4: string model,
  5: string version,
  /** batch_rows are texts here. */
  6: Timing timing,
  7: string request_id,
}

struct CancelRequest {
  1: optional base.Base base,
  /** The call_id of the call to stop. */
  2: binary call_id,
}

service Inference {
  /** What is served here. */
  ModelsReply models(1: ModelsRequest request) throws (1: fault.Fault fault),
  /** Named raw tensors through a model of any task. */
  InferReply infer(1: InferRequest request) throws (1: fault.Fault fault),
  /** Pictures to labels, by a model whose task is CLASSIFY. */
  ClassifyReply classify(1: ClassifyRequest request) throws (1: fault.Fault fault),
  /**
   * Texts to vectors, by a model whose task is EMBED. The same text gives the same vector whatever else is asked at the same
   * time, up to the order of additions: the cosine of two answers is above 0.9999.
   */
  EmbedReply embed(1: EmbedRequest request) throws (1: fault.Fault fault),
  /**
   * Stops a call that is waiting or running; the call itself then ends with Cancelled. Honoured on the connection that
   * made the call, and for the same verified caller elsewhere. An unknown call_id is ignored.
   */
  oneway void cancel(1: CancelRequest request),
}
