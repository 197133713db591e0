"""What a picture on a page shows, measured from its pixels."""

import base64
import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from sora_lib.plotting import COLORS


def picture(image):
    """The picture of an <img> with a data: address, `[height, width, 3]`."""
    coded = image.get_attribute("src").partition("base64,")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB")).astype(float)


def halves(picture):
    """The left and the right half, where two plots stand side by side."""
    middle = picture.shape[1] // 2
    return picture[:, :middle], picture[:, middle:]


def shown(picture, *kinds):
    """Which pixels have the colour of one of the kinds (default: any), pure or mixed with white, `[height, width]`."""
    ink = 255 - picture
    strength = np.linalg.norm(ink, axis=2)
    colors = [255 - 255 * np.array(to_rgb(COLORS[kind])) for kind in kinds or COLORS]
    alike = [ink @ color > 0.98 * strength * np.linalg.norm(color) for color in colors]
    return np.any(alike, axis=0) & (strength > 60)


def plot_area(picture):
    """The picture inside the left and the bottom line of its plot."""
    dark = picture.max(axis=2) < 110
    column, row = dark.sum(axis=0).argmax(), dark.sum(axis=1).argmax()
    top, right = np.flatnonzero(dark[: row + 1, column]), np.flatnonzero(dark[row, column:])
    return picture[_run(top[::-1])[-1] : row, column + 1 : column + _run(right)[-1]]


def _run(numbers):
    """The first of the numbers that follow each other without a gap."""
    gaps = np.flatnonzero(np.abs(np.diff(numbers)) > 1)
    return numbers[: gaps[0] + 1] if len(gaps) else numbers


def places(picture, *kinds):
    """Where in its plot the pixels of these kinds are, `[N, 2]`: x and y, each from -1 to 1."""
    area = plot_area(picture)
    y, x = np.nonzero(shown(area, *kinds))
    return np.stack([2 * x / area.shape[1] - 1, 1 - 2 * y / area.shape[0]], axis=1)


def spread(picture, *kinds):
    """How far the pixels of these kinds lie from their middle, where the plot reaches from -1 to 1."""
    return float(np.linalg.norm(places(picture, *kinds).std(axis=0)))


def share(picture, where, *kinds):
    """The part of the pixels of these kinds for whose x and y `where` holds."""
    return float(where(*places(picture, *kinds).T).mean())


def central(x, y):
    """Nearer to the middle than a fifth of the way to the edge: the hole of a ring."""
    return np.hypot(x, y) < 0.2
