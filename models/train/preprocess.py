"""How a picture becomes a row of the small models: the reference of what `crates/vision` does (see PREPROCESS.md)."""
import numpy as np
from PIL import Image

ANALYSIS_EDGE = 256      # larger pictures are reduced to this longest edge first
BORDER_SHARE = 0.04      # width of the border ring, as a share of the shorter edge, at least 1 px
LIGHT_BORDER = 128       # a background is light when the median of the border is at least this ...
LIGHT_CORNERS = 3        # ... and at least so many of the four corner pixels' 3x3 means are at least LIGHT_BORDER
OUTLIER = 24             # border pixels that differ more from the first fit belong to the subject, not to the background
FOREGROUND = 24          # of 255: pixels at least this much darker than the background belong to the subject
GAIN_PERCENTILE = 99     # of the subject's box: becomes 255
GAIN_FLOOR = 48          # a fainter subject is not stretched further than as if its percentile were this


def gray(image):
    """Pillow's luminance: (19595 R + 38470 G + 7471 B + 32768) >> 16."""
    return np.asarray(image.convert("L"), np.uint8)


def resize(pixels, width, height):
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.BILINEAR), np.uint8)


def reduced(pixels):
    height, width = pixels.shape
    longest = max(height, width)
    if longest <= ANALYSIS_EDGE:
        return pixels
    scale = ANALYSIS_EDGE / longest
    return resize(pixels, max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))


def ring(pixels):
    """Coordinates (y, x) of the border ring, and a mask of it."""
    height, width = pixels.shape
    wide = max(1, int(min(height, width) * BORDER_SHARE + 0.5))
    mask = np.ones((height, width), bool)
    mask[wide:height - wide, wide:width - wide] = False
    return mask


def lower_median(values):
    values = np.sort(values)
    return int(values[(len(values) - 1) // 2])


def has_light_background(pixels):
    height, width = pixels.shape
    if min(height, width) < 8:
        return False
    mask = ring(pixels)
    border = lower_median(pixels[mask])
    if border < LIGHT_BORDER:
        return False
    corners = (pixels[:3, :3], pixels[:3, -3:], pixels[-3:, :3], pixels[-3:, -3:])
    return sum(corner.mean() >= LIGHT_BORDER for corner in corners) >= LIGHT_CORNERS


def plane(pixels, mask):
    """Least squares a + b x + c y over the masked pixels, x and y from -1 to 1 over the picture."""
    height, width = pixels.shape
    ys, xs = np.nonzero(mask)
    u, v = 2 * (xs + 0.5) / width - 1, 2 * (ys + 0.5) / height - 1
    a = np.stack([np.ones_like(u), u, v], 1)
    b = pixels[mask].astype(np.float64)
    normal = a.T @ a + np.eye(3) * 1e-6
    return np.linalg.solve(normal, a.T @ b)


def background(pixels):
    height, width = pixels.shape
    u = 2 * (np.arange(width) + 0.5) / width - 1
    v = 2 * (np.arange(height) + 0.5) / height - 1
    level = lambda k: k[0] + k[1] * u[None, :] + k[2] * v[:, None]
    mask = ring(pixels)
    median = lower_median(pixels[mask])
    near = mask & (np.abs(pixels.astype(np.float64) - median) <= 2 * OUTLIER)
    first = level(plane(pixels, near))
    close = mask & (np.abs(pixels - first) <= OUTLIER)
    kept = plane(pixels, close) if close.sum() * 4 >= mask.sum() else plane(pixels, near)
    return np.clip(level(kept), 1.0, 255.0)


def subject(pixels, trim, margin):
    """Light on dark, background at 0, cropped to the subject: u8 of any size."""
    back = background(pixels)
    dark = np.clip(255.0 * (1.0 - pixels / back), 0.0, 255.0)
    on = dark >= FOREGROUND
    # A row or column belongs to the subject with at least 2 % of its pixels: specks of noise do not.
    rows = np.nonzero(on.sum(1) * 50 >= on.shape[1])[0]
    columns = np.nonzero(on.sum(0) * 50 >= on.shape[0])[0]
    if len(rows) == 0 or len(columns) == 0:
        return (dark + 0.5).astype(np.uint8)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = dark[top:bottom, left:right]
    values = np.sort(box[box >= FOREGROUND])
    peak = values[(len(values) - 1) * GAIN_PERCENTILE // 100]
    dark = np.clip(dark * (255.0 / max(peak, GAIN_FLOOR)), 0.0, 255.0)
    dark = np.where(on, dark, 0.0)
    out = (dark + 0.5).astype(np.uint8)
    if not trim:
        return out
    high, wide = bottom - top, right - left
    side = max(high, wide)
    side += 2 * int(side * margin + 0.5)
    square = np.zeros((side, side), np.uint8)
    y, x = (side - high) // 2, (side - wide) // 2
    square[y:y + high, x:x + wide] = out[top:bottom, left:right]
    return square


def row(image, margin=0.0, edge=28):
    """f32 [28, 28], 0 to 1, of a Pillow picture; invert = auto, trim = auto, fit = stretch."""
    pixels = gray(image)
    if has_light_background(reduced(pixels)):
        pixels = subject(reduced(pixels), True, margin)
    if pixels.shape != (edge, edge):
        pixels = resize(pixels, edge, edge)
    return pixels.astype(np.float32) / np.float32(255.0)
