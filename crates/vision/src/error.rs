//! What can be wrong with a picture, and how that looks to a caller.

use crate::header::Format;
use fault::Fault;
use thiserror::Error;

/// Which limit a picture is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Excess {
    /// Encoded bytes.
    #[error("image is {bytes} bytes, limit is {limit} bytes")]
    Bytes {
        /// Size of the picture as it came.
        bytes: u64,
        /// [`crate::Limits::bytes`].
        limit: u64,
    },
    /// Width times height.
    #[error("image is {width}x{height} px, limit is {limit} px in all")]
    Pixels {
        /// Width that the header claims.
        width: u64,
        /// Height that the header claims.
        height: u64,
        /// [`crate::Limits::pixels`].
        limit: u64,
    },
    /// The longer edge.
    #[error("image is {width}x{height} px, limit is {limit} px an edge")]
    Edge {
        /// Width that the header claims.
        width: u64,
        /// Height that the header claims.
        height: u64,
        /// [`crate::Limits::edge`].
        limit: u32,
    },
    /// Memory that the decoder asked for beyond what the header's size explains.
    #[error("{format} needs more memory than its size explains")]
    Memory {
        /// The picture's format.
        format: Format,
    },
}

/// Why a picture was not decoded, or not made into a row.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("image is empty")]
    Empty,
    /// The bytes begin like no picture that is known here. The name or media type that came with them is never asked.
    #[error("image has no known signature: send JPEG, PNG, WebP, GIF, BMP, TIFF or ICO")]
    NotAnImage,
    /// A real format, or a coding inside one, that is not read here.
    #[error("{what} is not supported: {advice}")]
    Unsupported {
        /// The format or coding.
        what: String,
        /// What a person can do instead.
        advice: &'static str,
    },
    /// A known format that does not decode.
    #[error("{format} is damaged: {reason}")]
    Corrupt {
        /// What the signature says it is.
        format: Format,
        /// What the decoder said.
        reason: String,
    },
    /// Over a limit.
    #[error(transparent)]
    TooLarge(#[from] Excess),
    /// A row buffer of the wrong length: a defect of the caller.
    #[error("row has {actual} elements, recipe makes {expected}")]
    WrongRow {
        /// What [`crate::Recipe::row_elements`] (or `row_bytes`) says.
        expected: usize,
        /// What was passed.
        actual: usize,
    },
    /// Pixels that do not fit their size, or that an encoder refused: a defect of this service.
    #[error("pixels cannot be used: {reason}")]
    Pixels {
        /// What is wrong with them.
        reason: String,
    },
}

impl ImageError {
    pub(crate) fn corrupt(format: Format, reason: impl Into<String>) -> Self {
        Self::Corrupt { format, reason: reason.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, advice: &'static str) -> Self {
        Self::Unsupported { what: what.into(), advice }
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        let message = error.to_string();
        let fault = match error {
            ImageError::Empty | ImageError::Corrupt { .. } => Fault::invalid_input(message),
            ImageError::NotAnImage | ImageError::Unsupported { .. } => Fault::unsupported_media(message),
            ImageError::TooLarge(_) => Fault::too_large(message),
            ImageError::WrongRow { .. } | ImageError::Pixels { .. } => return Fault::internal(message),
        };
        fault.with_param("image")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    #[test]
    fn each_error_becomes_its_kind_and_names_the_image() {
        let kinds = [
            (ImageError::Empty, Kind::InvalidInput),
            (ImageError::NotAnImage, Kind::UnsupportedMedia),
            (ImageError::unsupported("HEIC", "send JPEG"), Kind::UnsupportedMedia),
            (ImageError::corrupt(Format::Png, "cut off"), Kind::InvalidInput),
            (Excess::Bytes { bytes: 2, limit: 1 }.into(), Kind::TooLarge),
        ];
        for (error, kind) in kinds {
            let fault = Fault::from(error);
            assert_eq!(fault.kind, kind, "{fault}");
            assert_eq!(fault.param.as_deref(), Some("image"), "{fault}");
        }
        assert_eq!(Fault::from(ImageError::WrongRow { expected: 2, actual: 1 }).kind, Kind::Internal);
    }

    #[test]
    fn messages_name_the_value_and_the_limit() {
        let error = ImageError::from(Excess::Edge { width: 41_000, height: 200, limit: 20_000 });
        assert_eq!(error.to_string(), "image is 41000x200 px, limit is 20000 px an edge");
    }
}
