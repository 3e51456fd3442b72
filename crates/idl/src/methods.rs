//! Every method, as a client needs to know it.
//!
//! A method is idempotent when a call that may have been carried out can be sent again: the streams of `Chat` are, by
//! their keys and piece numbers, while `complete` would generate a second answer.

use wire::Method;

use crate::fault::Fault;
use crate::{admin, chat, health, inference};

/// `Inference.models`.
pub const MODELS: Method<inference::ModelsRequest, inference::ModelsReply, Fault> = Method::new("models", true);
/// `Inference.infer`.
pub const INFER: Method<inference::InferRequest, inference::InferReply, Fault> = Method::new("infer", true);
/// `Inference.classify`.
pub const CLASSIFY: Method<inference::ClassifyRequest, inference::ClassifyReply, Fault> = Method::new("classify", true);
/// `Inference.embed`.
pub const EMBED: Method<inference::EmbedRequest, inference::EmbedReply, Fault> = Method::new("embed", true);
/// `Inference.cancel`: oneway.
pub const CANCEL: Method<inference::CancelRequest, (), ()> = Method::oneway("cancel");

/// `Chat.complete`.
pub const COMPLETE: Method<chat::ChatRequest, chat::ChatReply, Fault> = Method::new("complete", false);
/// `Chat.start`.
pub const START: Method<chat::StartRequest, chat::StartReply, Fault> = Method::new("start", true);
/// `Chat.next_pieces`.
pub const NEXT_PIECES: Method<chat::NextRequest, chat::NextReply, Fault> = Method::new("next_pieces", true);
/// `Chat.stop`.
pub const STOP: Method<chat::StopRequest, chat::StopReply, Fault> = Method::new("stop", true);

/// `Health.check`.
pub const CHECK: Method<health::CheckRequest, health::CheckReply, Fault> = Method::new("check", true);

/// `Admin.load`.
pub const LOAD: Method<admin::LoadRequest, admin::AdminReply, Fault> = Method::new("load", false);
/// `Admin.unload`.
pub const UNLOAD: Method<admin::UnloadRequest, admin::AdminReply, Fault> = Method::new("unload", false);
/// `Admin.reload`.
pub const RELOAD: Method<admin::LoadRequest, admin::AdminReply, Fault> = Method::new("reload", false);
/// `Admin.statistics`.
pub const STATISTICS: Method<admin::StatisticsRequest, admin::StatisticsReply, Fault> = Method::new("statistics", true);
