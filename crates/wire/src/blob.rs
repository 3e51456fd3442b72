//! Carries `binary` fields past the Apache crate's `Vec<u8>` without a copy.
//!
//! Why: `TInputProtocol::read_bytes` must return a `Vec` and `write_bytes` gets a slice; a picture would be copied once
//! each way. Generated code calls [`read_blob`] and [`write_blob`] instead, which leave the `Bytes` in a thread-local
//! place for the protocol on the other side of the call.
//! Promises: other implementations of the traits work unchanged (they copy); nothing stays in the places after a call,
//! failed or not, so a blob never reaches another message.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use thrift::protocol::{TInputProtocol, TOutputProtocol};
use thrift::{ProtocolErrorKind, new_protocol_error};

/// Blobs of this length and above are sent by reference; below it a copy is cheaper than one more slice to the kernel.
pub const BY_REFERENCE: usize = 8 * 1024;

thread_local! {
    static WANTED: Cell<bool> = const { Cell::new(false) };
    static READ: RefCell<Option<Bytes>> = const { RefCell::new(None) };
    static WRITE: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Reads a `binary` field; with this crate's protocols the result is a slice of the frame and keeps all of it alive, so
/// what is to outlive the request should be copied out of it.
///
/// # Errors
/// Those of [`TInputProtocol::read_bytes`].
pub fn read_blob(input: &mut dyn TInputProtocol) -> thrift::Result<Bytes> {
    READ.take();
    WANTED.set(true);
    let read = input.read_bytes();
    WANTED.set(false);
    let copied = read?;
    Ok(READ.take().unwrap_or_else(|| Bytes::from(copied)))
}

/// Writes a `binary` field; with this crate's protocols, from [`BY_REFERENCE`] on, without copying it.
///
/// # Errors
/// Those of [`TOutputProtocol::write_bytes`].
pub fn write_blob(output: &mut dyn TOutputProtocol, blob: &Bytes) -> thrift::Result<()> {
    if blob.len() >= BY_REFERENCE {
        WRITE.set(Some(blob.clone()));
    }
    let written = output.write_bytes(blob);
    WRITE.take();
    written
}

/// Whether the `read_bytes` now running was called by [`read_blob`].
pub(crate) fn is_wanted() -> bool {
    WANTED.get()
}

/// Hands the slice to the waiting [`read_blob`].
pub(crate) fn put_read(blob: Bytes) {
    READ.set(Some(blob));
}

/// The blob behind the slice that `write_bytes` got, when [`write_blob`] called it with a big one.
pub(crate) fn take_write() -> Option<Bytes> {
    WRITE.take()
}

/// The error of generated code for a union whose only field this build does not know.
#[must_use]
pub fn unknown_variant() -> thrift::Error {
    new_protocol_error(ProtocolErrorKind::UnknownUnionVariant, "union has a variant that is not known here")
}
