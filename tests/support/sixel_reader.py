"""Decode sixel, and read the escape codes of images, as a terminal would."""

import base64
import re

Pixels = list[list[tuple[int, int, int] | None]]


def kitty_images(text: str) -> list[tuple[dict[str, str], bytes]]:
    """The keys of the first chunk and the bytes of every image."""
    found: list[tuple[dict[str, str], str]] = []
    more = False
    for control, payload in re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", text):
        keys = dict(pair.split("=") for pair in control.split(","))
        assert len(payload) <= 4096
        if more:
            found[-1] = (found[-1][0], found[-1][1] + payload)
        else:
            found.append((keys, payload))
        more = keys["m"] == "1"
    assert not more
    return [(keys, base64.b64decode(payload, validate=True)) for keys, payload in found]


def iterm2_image(text: str) -> tuple[dict[str, str], bytes]:
    found = re.fullmatch("\x1b]1337;File=([^:]*):([^\x07]*)\x07", text)
    assert found
    keys = dict(pair.split("=") for pair in found[1].split(";"))
    return keys, base64.b64decode(found[2], validate=True)


def sixel_image(text: str) -> Pixels:
    """The pixels of a sixel image; None where nothing was painted."""
    head = re.match('\x1bP0;1;0q"1;1;(\\d+);(\\d+)', text)
    assert head and text.endswith("\x1b\\")
    width, height = int(head[1]), int(head[2])
    pixels: Pixels = [[None] * width for _ in range(-(-height // 6) * 6)]
    registers: dict[int, tuple[int, int, int]] = {}
    x = top = colour = 0
    body = text[head.end() : -2]
    for token in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)(.)|(\$)|(-)|([?-~])", body):
        number, *parts, chosen, count, repeated, back, down, single = token.groups()
        if number:
            registers[int(number)] = tuple(round(int(part) * 255 / 100) for part in parts)  # type: ignore[assignment]
        elif chosen:
            colour = int(chosen)
        elif back:
            x = 0
        elif down:
            x, top = 0, top + 6
        else:
            bits = ord(repeated or single) - 63
            for _ in range(int(count or 1)):
                for row in range(6):
                    if bits >> row & 1:
                        assert pixels[top + row][x] is None, "a pixel is painted once"
                        pixels[top + row][x] = registers[colour]
                x += 1  # noqa: SIM113
    assert all(one is None for row in pixels[height:] for one in row)
    return pixels[:height]
