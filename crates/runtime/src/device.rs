//! Which device runs a model, and what is missing when it cannot be the wished one.

use std::fmt;
use std::str::FromStr;

/// The device that a setting asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceWish {
    /// The first CUDA device if it can be used, else the CPU; the reason is told.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// This CUDA device and nothing else.
    Cuda(u32),
}

/// The device that runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(u32),
}

/// The device of a session and why it is this one, for the log and the model's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The device.
    pub device: Device,
    /// One phrase, as in `no CUDA: the library was built without it`.
    pub why: String,
}

/// What keeps CUDA from being used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaMissing {
    /// The ONNX Runtime library has no CUDA in it.
    #[error("this ONNX Runtime library was built without CUDA: run `scripts/onnxruntime cuda`")]
    NotInLibrary,
    /// A part of ONNX Runtime's own CUDA build is not beside the library.
    #[error("{0} is not beside the ONNX Runtime library: run `scripts/onnxruntime cuda`")]
    Provider(String),
    /// A shared library that the CUDA provider needs is not found.
    #[error("{0} is not found: run `scripts/onnxruntime cuda --with-cuda-libs` or put it on LD_LIBRARY_PATH")]
    SharedLibrary(String),
    /// The driver's own library is not found.
    #[error("the NVIDIA driver is missing (libcuda.so.1 is not found)")]
    Driver,
    /// The driver finds no device, or none of this number.
    #[error("no CUDA device {device}: {reason}")]
    NoDevice {
        /// The number that was asked for.
        device: u32,
        /// The driver's words.
        reason: String,
    },
    /// Something else.
    #[error("CUDA cannot be used: {0}")]
    Other(String),
}

/// A device setting that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown device '{0}', expected auto, cpu or cuda:N with N from 0 to 255")]
pub struct DeviceError(String);

impl FromStr for DeviceWish {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let wrong = || DeviceError(text.to_owned());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(wrong)?;
                // Digits alone: parse would also take "+1".
                let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                let number = number.parse::<u8>().ok().filter(|_| digits).ok_or_else(wrong)?;
                Ok(Self::Cuda(number.into()))
            }
        }
    }
}

impl fmt::Display for DeviceWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl CudaMissing {
    /// Reads ONNX Runtime's message; `None` when it is not about CUDA itself but, say, about the model.
    pub(crate) fn from_message(message: &str, device: u32) -> Option<Self> {
        if message.contains("is not enabled in this build") {
            return Some(Self::NotInLibrary);
        }
        if let Some((_, reason)) = message.split_once("with error: ")
            && message.contains("Failed to load library")
        {
            let Some((library, _)) = reason.split_once(": cannot open shared object file") else {
                return Some(Self::Other(crate::message::plain(reason)));
            };
            let library = library.trim();
            let library = library.rsplit('/').next().unwrap_or(library);
            return Some(match library {
                "libcuda.so.1" => Self::Driver,
                _ if library.starts_with("libonnxruntime") => Self::Provider(library.to_owned()),
                _ => Self::SharedLibrary(library.to_owned()),
            });
        }
        let (_, failure) = message.split_once("CUDA failure ")?;
        let reason = failure.split_once(": ").map_or(failure, |(_, rest)| rest);
        let reason = reason.split(" ;").next().unwrap_or(reason).trim().to_owned();
        // 100: none at all, 101: not this one, 35: the driver is too old, 803 and 804: driver and library do not match.
        match failure.split(':').next().map(str::trim) {
            Some("100" | "101") => Some(Self::NoDevice { device, reason }),
            Some("3" | "34" | "35" | "46" | "803" | "804" | "999") => Some(Self::Other(reason)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_printed_and_all_else_is_refused_by_name() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<DeviceWish>().map(|wish| wish.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:256", "CPU", "cuda:0 "] {
            let error = text.parse::<DeviceWish>().expect_err(text).to_string();
            assert_eq!(error, format!("unknown device '{text}', expected auto, cpu or cuda:N with N from 0 to 255"));
        }
    }

    #[test]
    fn each_way_of_missing_cuda_is_told_apart() {
        // The library's messages, as seen on hosts without a library, without a driver and without a device.
        let cases = [
            ("CUDA execution provider is not enabled in this build.", CudaMissing::NotInLibrary),
            (
                "/src/provider_bridge_ort.cc:2171 Failed to load library /opt/l/libonnxruntime_providers_cuda.so with error: \
                 libcublasLt.so.13: cannot open shared object file: No such file or directory",
                CudaMissing::SharedLibrary("libcublasLt.so.13".to_owned()),
            ),
            (
                "Failed to load library /opt/l/libonnxruntime_providers_cuda.so with error: libcuda.so.1: cannot open \
                 shared object file: No such file or directory",
                CudaMissing::Driver,
            ),
            (
                "Failed to load library /opt/l/libonnxruntime_providers_shared.so with error: \
                 /opt/l/libonnxruntime_providers_shared.so: cannot open shared object file: No such file or directory",
                CudaMissing::Provider("libonnxruntime_providers_shared.so".to_owned()),
            ),
            (
                "Failed to parse provider option \"device_id\": CUDA failure 100: no CUDA-capable device is detected ; \
                 GPU=-1 ; hostname=h ; file=/src/cuda_execution_provider_info.cc",
                CudaMissing::NoDevice { device: 1, reason: "no CUDA-capable device is detected".to_owned() },
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(CudaMissing::from_message(message, 1), Some(expected));
        }
        assert_eq!(CudaMissing::from_message("No Op registered for Foo", 0), None);
        assert_eq!(CudaMissing::from_message("CUDA failure 2: out of memory ; GPU=0", 0), None);
    }
}
