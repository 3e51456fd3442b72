//! Why a call has no answer.

use fault::{Fault, Kind};
use wire::ApplicationErrorKind;

/// Why [`Channel::call`](crate::Channel::call) returned neither a result nor the method's own exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// No endpoint is connected, and the last attempt to connect to each has failed. Nothing was sent.
    #[error("none of {endpoints} servers can be reached: {reason}")]
    Unreachable {
        /// How many were tried.
        endpoints: usize,
        /// What one of them said.
        reason: String,
    },
    /// The connection was lost before the call was written: it has certainly not started.
    #[error("connection to {endpoint} was lost before the call was sent: {reason}")]
    NotSent {
        /// Which server.
        endpoint: String,
        /// How it was lost.
        reason: String,
    },
    /// The connection was lost after the call was written: it may or may not have run.
    #[error("connection to {endpoint} was lost before the answer came: {reason}")]
    Lost {
        /// Which server.
        endpoint: String,
        /// How it was lost.
        reason: String,
    },
    /// The deadline passed first.
    #[error("no answer within the deadline, the call was {}", if *sent { "sent" } else { "not sent" })]
    Deadline {
        /// Whether the server may have started on it.
        sent: bool,
    },
    /// The encoded request does not fit a frame.
    #[error("request is {bytes} bytes, limit is {limit} bytes")]
    TooLarge {
        /// Its payload.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// As many calls are in flight as a connection may have.
    #[error("connection to {endpoint} has {limit} calls in flight, which is the limit")]
    Full {
        /// Which server.
        endpoint: String,
        /// The limit in force.
        limit: usize,
    },
    /// The server answered with a `TApplicationException`: it does not know the method, could not read the
    /// arguments, or failed inside.
    #[error("server: {message}")]
    Application {
        /// Which of these.
        kind: ApplicationErrorKind,
        /// What the server says.
        message: String,
    },
    /// The answer is not one.
    #[error("server's answer cannot be read: {0}")]
    Protocol(String),
}

impl ChannelError {
    /// The kind of fault that the caller's own caller should see.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } | Self::NotSent { .. } | Self::Lost { .. } => Kind::Unavailable,
            Self::Deadline { .. } => Kind::DeadlineExceeded,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::Full { .. } => Kind::Overloaded,
            Self::Application { .. } | Self::Protocol(_) => Kind::Internal,
        }
    }

    /// The error of a call whose `first` attempt had failed before: it may have run then, whatever became of the second.
    pub(crate) fn after(self, first: &Self) -> Self {
        match (self, first) {
            (again, first) if first.never_started() => again,
            (Self::Deadline { .. }, _) => Self::Deadline { sent: true },
            (again, Self::Lost { endpoint, reason }) if again.never_started() => {
                Self::Lost { endpoint: endpoint.clone(), reason: format!("{reason}; once more: {again}") }
            }
            (again, _) => again,
        }
    }

    /// Whether the call has certainly not run, at any attempt.
    #[must_use]
    pub fn never_started(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotSent { .. } | Self::TooLarge { .. } | Self::Full { .. } => true,
            Self::Deadline { sent } => !sent,
            Self::Lost { .. } | Self::Application { .. } | Self::Protocol(_) => false,
        }
    }
}

impl From<ChannelError> for Fault {
    fn from(error: ChannelError) -> Self {
        Fault::new(error.kind(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_run_is_never_said_not_to_have() {
        let endpoint = || "h:1".to_owned();
        let lost = || ChannelError::Lost { endpoint: endpoint(), reason: "reset".into() };
        for again in [
            ChannelError::Unreachable { endpoints: 1, reason: "refused".into() },
            ChannelError::NotSent { endpoint: endpoint(), reason: "reset".into() },
            ChannelError::Full { endpoint: endpoint(), limit: 1 },
            ChannelError::Deadline { sent: false },
            ChannelError::Protocol("x".into()),
        ] {
            let unsent = ChannelError::NotSent { endpoint: endpoint(), reason: "reset".into() };
            assert_eq!(again.clone().after(&unsent), again);
            let told = again.clone().after(&lost());
            assert!(!told.never_started(), "{told}");
            let keeps_both = told.to_string().contains("reset") && told.to_string().contains(&again.to_string());
            assert!(keeps_both || again.kind() == told.kind(), "{told}");
        }
    }

    #[test]
    fn every_error_leaves_as_the_kind_that_the_table_of_faults_expects() {
        let endpoint = || "h:1".to_owned();
        for (error, kind) in [
            (ChannelError::Unreachable { endpoints: 2, reason: "refused".into() }, Kind::Unavailable),
            (ChannelError::Lost { endpoint: endpoint(), reason: "reset".into() }, Kind::Unavailable),
            (ChannelError::NotSent { endpoint: endpoint(), reason: "reset".into() }, Kind::Unavailable),
            (ChannelError::Deadline { sent: true }, Kind::DeadlineExceeded),
            (ChannelError::TooLarge { bytes: 2, limit: 1 }, Kind::TooLarge),
            (ChannelError::Full { endpoint: endpoint(), limit: 1 }, Kind::Overloaded),
            (ChannelError::Protocol("x".into()), Kind::Internal),
        ] {
            let text = error.to_string();
            let fault = Fault::from(error);
            assert_eq!((fault.kind, fault.message.as_ref()), (kind, text.as_str()));
        }
    }
}
