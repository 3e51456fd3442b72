//! This crate knows how to read model folders.
//!
//! A model folder is `NAME/model.toml` with `NAME/<version>/model.onnx` beside it, versions being whole numbers, and the
//! labels in a text file, one a line. A folder without `model.toml` is served as plain tensors, a Hugging Face export
//! (`config.json`, `onnx/model.onnx`) by what its own files say: a picture classifier, a language model, a model
//! of sentence vectors, or plain tensors.
//! Promises: what is wrong is named with file, key, value and what is allowed; one bad folder never hides another; no file
//! outside the folder is read.
//!
//! Every key of `model.toml`, with its default unless said otherwise:
//!
//! ```
//! let settings = model_store::Settings::parse(r#"
//! task = "classify"                # tensor is the default; chat; embed; transform is a name for what is to come
//! description = "What it is"       # default: none
//! licence = "Apache-2.0"           # default: none
//! labels = "labels.txt"            # one class a line, in this folder; default: none
//! device = "auto"                  # or cpu, or cuda:N
//! ## instances = 2                  # workers; default: one for each core on a CPU, one on a GPU
//! intra_threads = 1                # threads that share a run on a CPU; default for chat: all cores
//! warm_up = true                   # false only for models that cannot run on zeros: they are never batched
//!
//! [batching]                       # a tensor model shares runs only when this table is there
//! max_rows = 32
//! max_wait_ms = 0                  # how long an idle worker waits for company
//! buckets = []                     # batch sizes to measure; empty: 1, 2, 4, ... max_rows
//!
//! [input]                          # how a picture becomes a row: see vision::InputTable
//! width = 224                      # no default
//! height = 224                     # no default
//!
//! [output]
//! ## scores = "logits"              # default: the first output
//! activation = "softmax"           # or sigmoid, or none
//!
//! [chat]                           # how a language model is run
//! kv_bytes = 1073741824            # of the cache of all conversations together
//! max_context = 2048               # tokens of one conversation
//! waiting = 64                     # prompts that wait; more are refused
//! temperature = 1.0                # what a request has that does not say: see Chat
//! top_p = 1.0
//! top_k = 0
//! min_p = 0.0
//! repetition_penalty = 1.0
//! presence_penalty = 0.0
//! frequency_penalty = 0.0
//!
//! [embed]                          # how a text becomes a vector
//! pooling = "mean"                 # of the tokens' vectors; or cls, the first one
//! normalise = true                 # to length 1, when the request does not say
//! max_tokens = 512                 # of one text
//! ## output = "last_hidden_state"   # default: this one, or the first
//!
//! [limits]
//! queue_rows = 4096                # rows that wait; more are refused
//! deadline_ms = 10000              # of a request that names none
//! warm_up_ms = 120000              # the first runs must end within this
//! ## pixels = 64000000              # of one picture; default: the server's
//! ## edge = 20000                   # as pixels
//!
//! [provider]                       # options of the CUDA provider, passed on as they are
//! ## cudnn_conv_algo_search = "HEURISTIC"
//! "#)?;
//! assert_eq!(settings.limits, model_store::Limits::default());
//! assert_eq!(settings.chat, model_store::Chat::default());
//! assert_eq!(settings.embed, model_store::Embed::default());
//! assert_eq!(settings.batching, Some(model_store::Batching::default()));
//! # Ok::<(), String>(())
//! ```
//!
//! Not here: loading a model (`runtime`), serving it (`engine`).

mod chat;
mod embed;
mod error;
mod folder;
mod hugging_face;
mod sentence;
mod settings;

pub use chat::Chat;
pub use embed::{Embed, Pooling};
pub use error::StoreError;
pub use folder::{ModelFolder, Rejected, Version, read, scan};
pub use settings::{Activation, Batching, Limits, Output, Settings, Task};
