#!/usr/bin/python3
"""Draws a line of text as the recogniser is fed one: x.npy, float32 [1,3,48,8192], numbers -1 (black) to 1 (white)."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
WIDTH, HEIGHT, SIZE = 8192, 48, 30
TEXT = """From which sequence length does attention variant X beat full attention on my CPU, and what do I lose? attnbench measures attention \
variants on multicore CPUs: how fast each runs, how much memory it takes and how accurate it is, as the sequence grows. Sparse, low-rank, \
kernelized, gated, synthesized and attention-free variants stand beside full attention in one table, each with a fast path near the machine's \
limit, so that differences are the algorithm's and not the implementer's. No time is reported for a result that misses its definition."""

image = Image.new("L", (WIDTH, HEIGHT), 255)
font = ImageFont.truetype(FONT, SIZE)
ImageDraw.Draw(image).text((8, (HEIGHT - SIZE) // 2 - 3), TEXT, fill=0, font=font)
assert font.getlength(TEXT) + 16 > WIDTH, "the line is shorter than the picture"
row = np.asarray(image, np.float32) / 255 * 2 - 1
np.save("x.npy", np.ascontiguousarray(np.broadcast_to(row, (1, 3, HEIGHT, WIDTH))))
