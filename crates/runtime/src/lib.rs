//! This crate knows how to run ONNX models through ONNX Runtime.
//!
//! Why: the library behind it is C++, loaded at run time, one for plain processors and for CUDA alike; it panics or falls
//! back in silence where a server must not, and its messages name build machines. All of that ends here.
//! Promises: a missing or wrong library, a missing GPU or a broken model is a typed error of one sentence that names the
//! cause; an input is checked against the model before the library sees it; a run can be stopped from another thread; an
//! allocation that is too big fails the run and not the process; `cuda:N` never means the CPU.
//! Not here: what a model is for (`engine`), who runs when (`scheduler`), model folders (`model-store`).
//!
//! One run, from the library to the answer:
//!
//! ```no_run
//! use runtime::{Blueprint, LibraryChoice, Runtime, SessionOptions, Stop, Tensor};
//!
//! let library = Runtime::load(&LibraryChoice::Search)?;
//! let model = Blueprint::open(library, "models/echo/1/model.onnx")?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let x = Tensor::from_f32(&[2], &[1.0, 2.0]);
//! for (name, tensor) in session.run(&[("x", &x)], &[], &Stop::new())? {
//!     println!("{name}: {:?}", tensor.to_f32());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blueprint;
mod decoder;
mod device;
mod dtype;
mod library;
mod memory;
mod message;
#[allow(unsafe_code, reason = "the calls into the C library; every block says why it is sound")]
mod raw;
mod session;
mod spec;
mod stop;
mod tensor;

pub use blueprint::{Blueprint, LoadError, SessionOptions};
pub use decoder::{CachePlace, Decoder, DecoderSpec, Logits, Next};
pub use device::{Chosen, CudaMissing, Device, DeviceError, DeviceWish};
pub use dtype::{DType, DTypeError};
pub use library::{LibraryChoice, LibraryError, Runtime, VERSION, cache_folder, preload_cuda_libraries};
pub use session::{ModelMetadata, RowsOut, RunError, Session};
pub use spec::{Dim, TensorSpec};
pub use stop::Stop;
pub use tensor::{Data, Tensor};
