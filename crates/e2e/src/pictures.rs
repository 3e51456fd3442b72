//! The 500 test pictures of a data set, which lie in one sheet of tiles.

use std::io::Cursor;

use image::{GrayImage, ImageFormat};

use crate::tools::repository;

/// The sheet of one data set: 25 tiles of 28x28 px a row, and the right class of each.
pub struct Tiles {
    sheet: GrayImage,
    /// The right class of each tile, in order.
    pub classes: Vec<usize>,
}

/// Reads the sheet of `fashion-mnist` or `mnist`.
///
/// # Panics
/// When the files are not in the tree.
#[must_use]
pub fn tile_sheet(name: &str) -> Tiles {
    let folder = repository().join("models/testdata");
    let sheet = image::open(folder.join(format!("{name}-500.png"))).expect("the sheet is in the tree").into_luma8();
    let labels = std::fs::read_to_string(folder.join(format!("{name}-500.labels.txt"))).expect("so are its labels");
    let classes: Vec<usize> = labels.chars().filter_map(|c| c.to_digit(10)).map(|digit| digit as usize).collect();
    assert_eq!(classes.len(), 500);
    Tiles { sheet, classes }
}

/// Tile `index` as a PNG of 28x28 gray pixels.
///
/// # Panics
/// When there is no such tile.
#[must_use]
pub fn png_of_tile(tiles: &Tiles, index: usize) -> Vec<u8> {
    let (column, row) = (index as u32 % 25, index as u32 / 25);
    let tile = image::imageops::crop_imm(&tiles.sheet, column * 28, row * 28, 28, 28).to_image();
    let mut png = Cursor::new(Vec::new());
    tile.write_to(&mut png, ImageFormat::Png).expect("a small picture encodes");
    png.into_inner()
}
