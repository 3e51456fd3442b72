//! `fault::Fault`, the failure inside the processes, to and from `Fault`, the exception on the wire.

use std::time::Duration;

use fault_crate::{Fault as Failure, Kind};
use units::{RequestId, TraceId};

use crate::fault::{Fault, FaultCode};

extern crate fault as fault_crate;

impl Fault {
    /// The exception for `failure` of the request with this id.
    #[must_use]
    pub fn thrown(failure: Failure, request_id: &RequestId) -> Self {
        Self {
            code: Some(FaultCode(failure.kind.row().thrift)),
            message: Some(failure.message.into_owned()),
            retry_after_ms: failure.retry_after.map(milliseconds),
            request_id: Some(request_id.as_str().to_owned()),
            param: failure.param.map(|param| param.into_owned()),
            trace_id: None,
        }
    }

    /// The same for a call that is part of a trace.
    #[must_use]
    pub fn in_trace(self, trace: Option<TraceId>) -> Self {
        Self { trace_id: trace.map(|trace| trace.to_string()), ..self }
    }

    /// The failure that the exception tells of. A code that this build does not know, or none, is [`Kind::Internal`].
    #[must_use]
    pub fn into_failure(self) -> Failure {
        Failure {
            kind: self.code.map_or(Kind::Internal, |code| Kind::from_thrift(code.0)),
            message: self.message.unwrap_or_default().into(),
            param: self.param.map(Into::into),
            retry_after: self.retry_after_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
        }
    }
}

impl wire::Exception for Fault {
    fn turned_away(&self) -> bool {
        // With a parameter it is about one model, which does not keep the server from serving others.
        self.code == Some(FaultCode::UNAVAILABLE) && self.param.is_none()
    }

    fn not_here(&self) -> bool {
        self.code == Some(FaultCode::UNAVAILABLE)
    }

    fn failed(&self) -> bool {
        self.code == Some(FaultCode::INTERNAL)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        fault.into_failure()
    }
}

/// Rounded up: a caller that comes back too early is refused again.
fn milliseconds(after: Duration) -> i32 {
    i32::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RequestId {
        RequestId::parse("request-1").expect("valid")
    }

    #[test]
    fn every_kind_comes_back_from_the_wire() {
        for kind in Kind::ALL {
            let failure = Failure::new(kind, "no").with_param("model").with_retry_after(Duration::from_millis(1_500));
            let thrown = Fault::thrown(failure.clone(), &id());
            assert_eq!(thrown.request_id.as_deref(), Some("request-1"));
            assert_eq!(Failure::from(thrown), failure);
        }
    }

    #[test]
    fn the_idl_has_exactly_the_kinds_of_the_table() {
        let idl: Vec<_> = FaultCode::ENUM_VALUES.iter().map(|code| code.0).collect();
        assert_eq!(idl, Kind::ALL.map(|kind| kind.row().thrift));
    }

    #[test]
    fn a_code_of_the_future_and_an_empty_exception_are_internal() {
        let future = Fault { code: Some(FaultCode(999)), retry_after_ms: Some(-5), ..Fault::default() };
        assert_eq!(future.into_failure(), Failure::internal(""));
        assert_eq!(Fault::default().into_failure().kind, Kind::Internal);
    }

    #[test]
    fn only_a_server_that_serves_nobody_turns_away() {
        use wire::Exception as _;
        let thrown = |failure| Fault::thrown(failure, &id());
        assert!(thrown(Failure::unavailable("the server is draining")).turned_away());
        assert!(!thrown(Failure::unavailable("model a is loading").with_param("model")).turned_away());
        assert!(!thrown(Failure::overloaded("full")).turned_away());
        assert!(thrown(Failure::unavailable("the server is draining")).not_here());
        assert!(thrown(Failure::unavailable("model a is loading").with_param("model")).not_here());
        assert!(!thrown(Failure::overloaded("full")).not_here());
    }

    #[test]
    fn who_failed_at_what_was_right_is_told_from_who_said_no() {
        use wire::Exception as _;
        let failed = |failure| Fault::thrown(failure, &id()).failed();
        assert!(failed(Failure::internal("the device is lost")));
        assert!(!failed(Failure::overloaded("full")) && !failed(Failure::unavailable("the server is draining")));
    }

    #[test]
    fn a_retry_time_is_never_shortened() {
        let failure = Failure::overloaded("full").with_retry_after(Duration::from_micros(1));
        assert_eq!(Fault::thrown(failure, &id()).retry_after_ms, Some(1));
    }
}
