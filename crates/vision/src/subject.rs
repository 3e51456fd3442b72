//! Finds the subject of a picture on a light background and turns it into light on black: `invert = "auto"` and
//! `trim = "auto"`.
//!
//! Why: the small models know light things on black that fill the frame; people photograph dark things somewhere on paper.
//! The algorithm and its constants are those of `models/train/preprocess.py` (described step by step in `PREPROCESS.md`
//! beside it), which made the training and test rows. The tests compare with golden pictures made by that reference.
//! Not here: reducing the picture to [`ANALYSIS_EDGE`] first, and resizing the result (`row`).

/// Larger pictures are reduced to this longest edge first.
pub(crate) const ANALYSIS_EDGE: u32 = 256;
/// Width of the border ring, as a share of the shorter edge; at least 1 px.
const BORDER_SHARE: f64 = 0.04;
/// Smaller pictures have no ring that could tell.
const SHORTEST_EDGE: usize = 8;
/// A background is light when the median of the ring is at least this, ...
const LIGHT_BORDER: u8 = 128;
/// ... and so many of the corner squares are light in the mean.
const LIGHT_CORNERS: usize = 3;
/// Ring pixels further than this from the first plane belong to the subject.
const OUTLIER: f64 = 24.0;
/// Of 255: pixels this much darker than the background belong to the subject.
const FOREGROUND: f64 = 24.0;
/// This share of the subject's pixels, in percent, is at most 255 after the gain.
const GAIN_PERCENTILE: usize = 99;
/// A fainter subject is not stretched further than as if its peak were this.
const GAIN_FLOOR: f64 = 48.0;

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// 8-bit gray pixels, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Gray<'a> {
    pub(crate) pixels: &'a [u8],
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Light on black.
pub(crate) struct Subject {
    pub(crate) pixels: Vec<u8>,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The size to which a picture is reduced before it is looked at.
pub(crate) fn reduced((width, height): (u32, u32)) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= ANALYSIS_EDGE {
        return (width, height);
    }
    let scale = f64::from(ANALYSIS_EDGE) / f64::from(longest);
    let edge = |edge: u32| ((f64::from(edge) * scale + 0.5) as u32).max(1);
    (edge(width), edge(height))
}

/// Whether the background is light, so that [`extract`] applies. `image` is reduced.
pub(crate) fn has_light_background(image: Gray<'_>) -> bool {
    let Gray { width, height, .. } = image;
    if width.min(height) < SHORTEST_EDGE {
        return false;
    }
    let border = image.ring_median();
    if border < LIGHT_BORDER {
        return false;
    }
    let corners = [(0, 0), (width - 3, 0), (0, height - 3), (width - 3, height - 3)];
    let is_light = |&(x, y): &(usize, usize)| {
        let sum: u32 = (y..y + 3).flat_map(|y| &image.row(y)[x..x + 3]).map(|&pixel| u32::from(pixel)).sum();
        sum >= 9 * u32::from(LIGHT_BORDER)
    };
    corners.iter().filter(|corner| is_light(corner)).count() >= LIGHT_CORNERS
}

/// The subject, light on black; `trim` cuts it out and frames it with that margin (a share of its longer edge).
pub(crate) fn extract(image: Gray<'_>, trim: Option<f64>) -> Subject {
    let Gray { width, height, .. } = image;
    let background = image.background();
    let mut dark = Vec::with_capacity(width * height);
    for y in 0..height {
        for (x, &pixel) in image.row(y).iter().enumerate() {
            let level = background.at(image.u(x), image.v(y)).clamp(1.0, 255.0);
            dark.push((255.0 * (1.0 - f64::from(pixel) / level)).clamp(0.0, 255.0));
        }
    }
    let Some(found) = bounds(&dark, width, height) else {
        let pixels = dark.iter().map(|&dark| rounded(dark)).collect();
        return Subject { pixels, width, height };
    };
    let gain = 255.0 / peak(&dark, width, &found).max(GAIN_FLOOR);
    let lit = |dark: f64| if dark >= FOREGROUND { rounded((dark * gain).clamp(0.0, 255.0)) } else { 0 };
    let Some(margin) = trim else {
        return Subject { pixels: dark.into_iter().map(lit).collect(), width, height };
    };
    let (wide, high) = (found.right - found.left, found.bottom - found.top);
    let edge = wide.max(high);
    let side = edge + 2 * (edge as f64 * margin + 0.5) as usize;
    let mut pixels = vec![0; side * side];
    let (left, top) = ((side - wide) / 2, (side - high) / 2);
    for y in 0..high {
        let from = &dark[(found.top + y) * width + found.left..][..wide];
        let to = &mut pixels[(top + y) * side + left..][..wide];
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = lit(from));
    }
    Subject { pixels, width: side, height: side }
}

fn rounded(value: f64) -> u8 {
    (value + 0.5) as u8
}

/// Half-open: `right` and `bottom` are outside.
struct Bounds {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

/// First to last row and column of which at least 2 % belong to the subject: specks of noise do not.
fn bounds(dark: &[f64], width: usize, height: usize) -> Option<Bounds> {
    let (mut rows, mut columns) = (vec![0; height], vec![0; width]);
    for (line, row) in dark.chunks_exact(width).zip(&mut rows) {
        for (&dark, column) in line.iter().zip(&mut columns) {
            let on = usize::from(dark >= FOREGROUND);
            *row += on;
            *column += on;
        }
    }
    let span = |counts: &[usize], across: usize| {
        let enough = |&count: &usize| count * 50 >= across;
        Some((counts.iter().position(enough)?, counts.iter().rposition(enough)? + 1))
    };
    let ((top, bottom), (left, right)) = span(&rows, width).zip(span(&columns, height))?;
    Some(Bounds { left, top, right, bottom })
}

/// The darkness that becomes 255.
fn peak(dark: &[f64], width: usize, found: &Bounds) -> f64 {
    let rows = dark.chunks_exact(width).take(found.bottom).skip(found.top);
    let mut on: Vec<f64> =
        rows.flat_map(|row| &row[found.left..found.right]).copied().filter(|dark| *dark >= FOREGROUND).collect();
    // Rows and columns that count may cross where nothing is on.
    let Some(last) = on.len().checked_sub(1) else { return GAIN_FLOOR };
    let (_, peak, _) = on.select_nth_unstable_by(last * GAIN_PERCENTILE / 100, f64::total_cmp);
    *peak
}

impl<'a> Gray<'a> {
    fn row(&self, y: usize) -> &'a [u8] {
        &self.pixels[y * self.width..][..self.width]
    }

    /// Pixel centres from -1 to 1 over the width ...
    fn u(&self, x: usize) -> f64 {
        2.0 * (x as f64 + 0.5) / self.width as f64 - 1.0
    }

    /// ... and over the height.
    fn v(&self, y: usize) -> f64 {
        2.0 * (y as f64 + 0.5) / self.height as f64 - 1.0
    }

    fn ring_width(&self) -> usize {
        ((self.width.min(self.height) as f64 * BORDER_SHARE + 0.5) as usize).max(1)
    }

    fn for_ring(&self, mut each: impl FnMut(usize, usize, u8)) {
        let wide = self.ring_width();
        for y in 0..self.height {
            let row = self.row(y);
            if y < wide || y >= self.height - wide {
                row.iter().enumerate().for_each(|(x, &pixel)| each(x, y, pixel));
            } else {
                (0..wide).chain(self.width - wide..self.width).for_each(|x| each(x, y, row[x]));
            }
        }
    }

    /// The lower median, `sorted[(n - 1) / 2]`.
    fn ring_median(&self) -> u8 {
        let mut counts = [0_usize; 256];
        let mut total: usize = 0;
        self.for_ring(|_, _, pixel| {
            counts[usize::from(pixel)] += 1;
            total += 1;
        });
        let mut below = 0;
        let middle = total.saturating_sub(1) / 2;
        (0..=255)
            .find(|&level: &u8| {
                below += counts[usize::from(level)];
                below > middle
            })
            .unwrap_or(u8::MAX)
    }

    /// The plane through the ring, without what of the subject reaches into the ring.
    fn background(&self) -> Plane {
        let median = f64::from(self.ring_median());
        let near = self.fit(|_, _, pixel| (pixel - median).abs() <= 2.0 * OUTLIER);
        let close = self.fit(|u, v, pixel| (pixel - near.plane.at(u, v)).abs() <= OUTLIER);
        if close.pixels * 4 >= near.ring { close.plane } else { near.plane }
    }

    /// Least squares over the ring's pixels that `counts` (given u, v and the level).
    fn fit(&self, counts: impl Fn(f64, f64, f64) -> bool) -> Fit {
        let mut normal = [[0.0; 3]; 3];
        let mut right = [0.0; 3];
        let (mut pixels, mut ring) = (0, 0);
        self.for_ring(|x, y, pixel| {
            ring += 1;
            let (u, v, level) = (self.u(x), self.v(y), f64::from(pixel));
            if !counts(u, v, level) {
                return;
            }
            pixels += 1;
            let terms = [1.0, u, v];
            for (row, one) in terms.into_iter().enumerate() {
                for (column, other) in terms.into_iter().enumerate() {
                    normal[row][column] += one * other;
                }
                right[row] += one * level;
            }
        });
        for (index, row) in normal.iter_mut().enumerate() {
            row[index] += 1e-6;
        }
        Fit { plane: Plane(solve(normal, right)), pixels, ring }
    }
}

struct Fit {
    plane: Plane,
    /// How many pixels counted, ...
    pixels: usize,
    /// ... of how many.
    ring: usize,
}

/// `a + b u + c v`.
struct Plane([f64; 3]);

impl Plane {
    fn at(&self, u: f64, v: f64) -> f64 {
        let Self([a, b, c]) = self;
        a + b * u + c * v
    }
}

/// Three equations by elimination. The matrix is symmetric and positive definite (1e-6 was added), so that no pivot is 0.
fn solve(mut matrix: [[f64; 3]; 3], mut right: [f64; 3]) -> [f64; 3] {
    for pivot in 0..3 {
        for row in pivot + 1..3 {
            let factor = matrix[row][pivot] / matrix[pivot][pivot];
            let above = matrix[pivot];
            matrix[row].iter_mut().zip(above).for_each(|(value, above)| *value -= factor * above);
            right[row] -= factor * right[pivot];
        }
    }
    let mut solution = [0.0; 3];
    for row in (0..3).rev() {
        let known: f64 = (row + 1..3).map(|column| matrix[row][column] * solution[column]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper(width: usize, height: usize, level: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        (0..width * height).map(|index| level(index % width, index / width)).collect()
    }

    #[test]
    fn a_dark_square_on_shaded_paper_becomes_a_white_square_that_fills_the_frame() {
        let ink = |x: usize, y: usize| (20..30).contains(&x) && (10..20).contains(&y);
        let pixels = paper(60, 40, |x, y| if ink(x, y) { 40 } else { (180 + x) as u8 });
        let image = Gray { pixels: &pixels, width: 60, height: 40 };
        assert!(has_light_background(image), "however small the subject is");
        let subject = extract(image, Some(0.0));
        assert_eq!((subject.width, subject.height), (10, 10));
        assert!(subject.pixels.iter().all(|&pixel| pixel >= 250), "{:?}", subject.pixels);
        let framed = extract(image, Some(0.3));
        assert_eq!((framed.width, framed.height), (16, 16));
        assert_eq!(framed.pixels[0], 0);
        let whole = extract(image, None);
        assert_eq!((whole.width, whole.height), (60, 40));
        assert_eq!(whole.pixels[0], 0);
    }

    #[test]
    fn dark_and_tiny_pictures_stay_as_they_are() {
        let dark = paper(28, 28, |x, _| if x == 14 { 255 } else { 0 });
        assert!(!has_light_background(Gray { pixels: &dark, width: 28, height: 28 }));
        let tiny = paper(7, 300, |x, _| if x == 3 { 0 } else { 255 });
        assert!(!has_light_background(Gray { pixels: &tiny, width: 7, height: 300 }));
    }

    #[test]
    fn a_page_with_nothing_on_it_gives_black() {
        let pixels = vec![250; 20 * 20];
        let subject = extract(Gray { pixels: &pixels, width: 20, height: 20 }, Some(0.0));
        assert_eq!((subject.width, subject.height), (20, 20));
        assert!(subject.pixels.iter().all(|&pixel| pixel == 0));
    }

    #[test]
    fn the_solver_finds_a_known_solution() {
        let solution = solve([[4.0, 1.0, 2.0], [1.0, 5.0, 3.0], [2.0, 3.0, 6.0]], [12.0, 20.0, 26.0]);
        for (found, expected) in solution.into_iter().zip([1.0, 2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{solution:?}");
        }
    }

    #[test]
    fn reducing_keeps_the_shape_and_no_edge_vanishes() {
        assert_eq!(reduced((256, 10)), (256, 10));
        assert_eq!(reduced((512, 384)), (256, 192));
        assert_eq!(reduced((1, 20_000)), (1, 256));
    }
}
