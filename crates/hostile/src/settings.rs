//! Settings that people write by hand.

use model_store::Settings;

/// A refusal is one line; what is accepted can be used.
pub(crate) fn model_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Settings::parse(text) {
        Ok(settings) => drop(settings.intra_threads()),
        Err(message) => assert!(!message.is_empty() && !message.contains('\n'), "{message:?}"),
    }
}
