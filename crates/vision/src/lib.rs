//! This crate knows how to turn the bytes of a picture into rows of a tensor, and pixels back into bytes.
//!
//! Why: pictures come from anybody. They are lying on their side, in 16 bit, in ink colours, half transparent, cut off, or
//! made to unpack into all of the memory; a model wants one exact shape in one exact channel order.
//! Promises: no panic whatever the bytes are; limits are checked on the header before anything is allocated, and
//! [`Header::decoded_bytes`] says beforehand what decoding will need; pixels are 8-bit sRGB in the order **R, G, B**
//! (B, G, R exists only in a row whose [`Recipe`] says `bgr`), the right way up, with alpha laid on a stated background;
//! what is encoded here carries no metadata.
//! Not here: the budget that is taken before decoding and the threads that decode (`engine`).
//!
//! ```
//! use vision::{Limits, Recipe, Scratch};
//! # let picture = vision::Picture::new(2, 2, vision::Channels::Rgb, vec![200; 12]).unwrap();
//! # let encoded = vision::encode_png(&picture).unwrap();
//! let recipe: Recipe = toml::from_str("width = 28\nheight = 28\ncolor = 'gray'").unwrap();
//! let header = vision::inspect(&encoded, &Limits::default())?;
//! let wanted = recipe.wanted(&header);
//! let _to_be_taken_from_a_budget = header.decoded_bytes(wanted);
//! let picture = vision::decode(&encoded, &header, &wanted, recipe.background())?;
//! let mut row = vec![0.0; recipe.row_elements()];
//! recipe.write_row(&picture, &mut Scratch::new(), &mut row)?;
//! # Ok::<(), vision::ImageError>(())
//! ```

mod colour;
mod decode;
mod encode;
mod error;
mod header;
mod orientation;
mod picture;
mod profile;
mod recipe;
mod row;
mod signature;
mod subject;

pub use decode::{decode, decode_with};
pub use encode::{encode_jpeg, encode_png, preview, preview_encoded};
pub use error::{Excess, ImageError};
pub use header::{Format, Header, Limits, Wanted, inspect};
pub use orientation::Orientation;
pub use picture::{Channels, Picture};
pub use recipe::{ColorOrder, Dtype, Filter, Fit, InputTable, Invert, Layout, Recipe, RecipeError, Trim};
pub use row::Scratch;
