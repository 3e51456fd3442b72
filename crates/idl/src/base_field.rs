//! The field that all requests share.

use std::time::Duration;

use wire::Outgoing;

use crate::base::Base;
use crate::{admin, chat, health, inference};

/// A request struct: its field 1 is `optional base.Base base`.
pub trait HasBase {
    /// What the caller said about the call.
    fn base(&self) -> Option<&Base>;
    /// The same to write to; an absent one is made.
    fn base_mut(&mut self) -> &mut Base;
}

macro_rules! requests {
    ($($request:path),* $(,)?) => {
        $(
            impl HasBase for $request {
                fn base(&self) -> Option<&Base> {
                    self.base.as_ref()
                }

                fn base_mut(&mut self) -> &mut Base {
                    self.base.get_or_insert_default()
                }
            }

            impl Outgoing for $request {
                fn stamp(&mut self, left: Duration) {
                    self.base_mut().timeout_ms = Some(milliseconds(left));
                }
            }
        )*
    };
}

requests! {
    inference::ModelsRequest,
    inference::InferRequest,
    inference::ClassifyRequest,
    inference::EmbedRequest,
    inference::CancelRequest,
    chat::ChatRequest,
    chat::StartRequest,
    chat::NextRequest,
    chat::StopRequest,
    health::CheckRequest,
    admin::LoadRequest,
    admin::UnloadRequest,
    admin::StatisticsRequest,
}

/// At least 1, because 0 stands for "the server's default".
fn milliseconds(left: Duration) -> i32 {
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_what_is_left_and_never_the_number_for_the_default() {
        let mut request = inference::ClassifyRequest::default();
        assert!(request.base().is_none());
        for (left, written) in [
            (Duration::from_micros(1_999), 1),
            (Duration::ZERO, 1),
            (Duration::from_secs(10), 10_000),
            (Duration::MAX, i32::MAX),
        ] {
            request.stamp(left);
            assert_eq!(request.base().and_then(|base| base.timeout_ms), Some(written));
        }
    }

    #[test]
    fn a_stamp_keeps_the_rest_of_base() {
        let mut request = health::CheckRequest::default();
        request.base_mut().request_id = Some("request-1".to_owned());
        request.stamp(Duration::from_secs(1));
        assert_eq!(request.base_mut().request_id.as_deref(), Some("request-1"));
    }
}
