"""Draws `subjects/` and writes `golden/`: rows as Pillow and `models/train/preprocess.py` make them.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install numpy==2.4.6 pillow==13.0.0
    /tmp/golden/bin/python crates/vision/testdata/make_golden.py

Rows are stored as 8-bit pictures (before scale, mean and std); `golden/index.json` says from what, and by which recipe.
"""
import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "models" / "train"))
import preprocess  # noqa: E402

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos3": Image.LANCZOS, "box": Image.BOX,
           "nearest": Image.NEAREST}
index = []


def keep(name, source, recipe, picture):
    picture.save(HERE / "golden" / f"{name}.png", optimize=True)
    index.append({"golden": f"golden/{name}.png", "input": source, "recipe": recipe})


def opened(source, mode):
    image = Image.open(HERE / source)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert(mode)


def resized(name, source, mode, width, height, filter):
    recipe = f"width = {width}\nheight = {height}\ncolor = '{'gray' if mode == 'L' else 'rgb'}'\nfit = 'stretch'\nfilter = '{filter}'"
    keep(name, source, recipe, opened(source, mode).resize((width, height), FILTERS[filter]))


def cropped(name, source, width, height, shorter):
    image = opened(source, "RGB")
    w, h = image.size
    size = (shorter, int(shorter * h / w)) if w <= h else (int(shorter * w / h), shorter)
    image = image.resize(size, Image.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    recipe = f"width = {width}\nheight = {height}\nresize = {shorter}\nfit = 'crop'"
    keep(name, source, recipe, image.crop((left, top, left + width, top + height)))


def padded(name, source, width, height):
    image = opened(source, "RGB")
    scale = min(width / image.width, height / image.height)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.BILINEAR)
    frame = Image.new("RGB", (width, height), (10, 20, 30))
    frame.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    keep(name, source, f"width = {width}\nheight = {height}\nfit = 'pad'\nbackground = [10, 20, 30]", frame)


def subject(name, source, margin):
    row = preprocess.row(opened(source, "RGB"), margin)
    recipe = ("width = 28\nheight = 28\ncolor = 'gray'\nfit = 'stretch'\ninvert = 'auto'\ntrim = 'auto'\n"
              f"trim_margin = {margin}")
    keep(name, source, recipe, Image.fromarray((row * 255 + 0.5).astype(np.uint8)))


def paper(width, height, left, right, noise, seed):
    """A sheet whose light falls from `left` to `right`, with some noise."""
    random = np.random.default_rng(seed)
    levels = np.linspace(left, right, width)[None, :, None] + random.normal(0, noise, (height, width, 1))
    return Image.fromarray(np.clip(np.repeat(levels, 3, 2), 0, 255).astype(np.uint8))


def draw():
    folder = HERE / "subjects"

    def save(name, image):
        image.save(folder / f"{name}.png", optimize=True)

    image = paper(120, 90, 235, 190, 2, 1)
    pen = ImageDraw.Draw(image)
    pen.line([(40, 20), (75, 20), (50, 75)], fill=(30, 40, 120), width=9, joint="curve")
    save("seven", image.filter(ImageFilter.GaussianBlur(0.8)))
    image = paper(160, 120, 250, 225, 1, 2)
    pen = ImageDraw.Draw(image)
    pen.polygon([(30, 25), (130, 25), (130, 55), (105, 50), (105, 105), (55, 105), (55, 50), (30, 55)], fill=(190, 60, 50))
    save("shirt", image)
    image = Image.new("RGB", (600, 450), (244, 241, 236))
    pen = ImageDraw.Draw(image)
    pen.ellipse([150, 60, 420, 390], fill=(60, 90, 70))
    pen.ellipse([230, 150, 340, 300], fill=(244, 241, 236))
    save("large", image)
    image = Image.new("RGB", (100, 100), (8, 8, 8))
    ImageDraw.Draw(image).rectangle([30, 20, 70, 80], fill=(230, 230, 230))
    save("light-on-dark", image)
    image = paper(110, 100, 215, 225, 2, 3)
    pen = ImageDraw.Draw(image)
    pen.rectangle([25, 30, 80, 84], fill=(90, 90, 100))
    for x, y in [(5, 50), (100, 12), (60, 95), (12, 6)]:
        pen.point((x, y), fill=(0, 0, 0))
    save("specks", image)
    image = Image.new("RGB", (90, 90), (240, 240, 240))
    ImageDraw.Draw(image).ellipse([10, 10, 80, 80], fill=(208, 208, 206))
    save("faint", image)
    image = paper(120, 100, 240, 240, 1, 4)
    ImageDraw.Draw(image).rectangle([50, 40, 119, 99], fill=(50, 60, 50))
    save("touching", image)
    image = Image.new("RGB", (80, 60), (240, 240, 240))
    ImageDraw.Draw(image).rectangle([4, 4, 75, 55], fill=(224, 224, 224))
    save("blank", image)
    image = Image.new("RGBA", (64, 80), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse([8, 12, 55, 70], fill=(20, 20, 60, 255))
    save("sticker", image)


draw()
for photo in ["cat", "coffee", "cameraman"]:
    source = f"photos/{photo}.jpg"
    cropped(f"{photo}-crop", source, 64, 56, 71)
    subject(f"{photo}-subject", source, 0.0)
padded("coffee-pad", "photos/coffee.jpg", 64, 64)
resized("cameraman-gray", "photos/cameraman.jpg", "L", 28, 28, "bilinear")
resized("cat-gray", "photos/cat.jpg", "L", 28, 28, "bilinear")
for filter in FILTERS:
    resized(f"shirt-{filter}", "subjects/shirt.png", "RGB", 50, 41, filter)
resized("shirt-larger", "subjects/shirt.png", "RGB", 200, 170, "bicubic")
for number, picture in enumerate(sorted((HERE / "subjects").glob("*.png"))):
    subject(f"{picture.stem}-subject", f"subjects/{picture.name}", [0.0, 0.1, 0.25][number % 3])
(HERE / "golden" / "index.json").write_text(json.dumps(index, indent=1) + "\n")
light = {entry["input"]: bool(preprocess.has_light_background(preprocess.reduced(preprocess.gray(opened(entry["input"], "RGB")))))
         for entry in index}
print(len(index), "rows; light backgrounds:", light)
