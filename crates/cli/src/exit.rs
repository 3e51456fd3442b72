//! How a command ends.

use std::fmt;
use std::process::ExitCode;

use fault::{Fault, Kind};
use rpc::ChannelError;

/// Not serving, or a model that cannot be served.
pub(crate) const NO: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Nobody listens there.
pub(crate) const UNREACHABLE: u8 = 3;
/// No answer in time.
pub(crate) const SILENT: u8 = 4;

/// Ctrl-C, as shells count it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was asked, and its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The server's own answer.
    pub(crate) fn of_fault(thrown: idl::fault::Fault) -> Self {
        let request = thrown.request_id.clone();
        let fault = Fault::from(thrown);
        let request = request.map(|id| format!(" (request id {id})")).unwrap_or_default();
        Self::new(fault.kind.row().exit, format!("{fault}{request}"))
    }

    /// Why there is no answer.
    pub(crate) fn of_channel(error: &ChannelError) -> Self {
        let status = match error {
            ChannelError::Unreachable { .. } | ChannelError::NotSent { .. } => UNREACHABLE,
            other => other.kind().row().exit,
        };
        Self::new(status, error.to_string())
    }

    pub(crate) fn is_deadline(&self) -> bool {
        self.status == Kind::DeadlineExceeded.row().exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.status)
    }
}
