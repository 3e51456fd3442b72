//! This crate knows how to start the real programs on free ports and look at them from outside.
//!
//! Promises: every program is ended and every folder removed when its [`Stand`] goes; nothing is shared between stands,
//! so tests run side by side; waiting is for an observed state, with a limit, never for a time.

mod http;
mod models;
mod pictures;
mod ports;
mod process;
mod stand;
mod tools;

pub use http::{Answer, Http};
pub use models::{bundled_chat_model, tiny_chat_model, tiny_chat_model_with};
pub use pictures::{Tiles, png_of_tile, tile_sheet};
pub use ports::free_ports;
pub use process::{Program, wait_until};
pub use stand::{Parts, Stand};
pub use tools::{browse, browse_with_pictures, model_cache, node, python, repository, target_folder};
