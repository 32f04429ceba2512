"""Curves over time as an SVG, without any library."""

import math

COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"]
# More are drawn as the highest of each few.
POINTS = 360
WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 800, 150, 70, 150, 30, 55


def _step(span):
    """A round distance between marks: about four of them in `span`."""
    rough = max(span, 1e-9) / 4
    power = 10 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _thinned(curve, every):
    parts = (curve[i : i + every] for i in range(0, len(curve), every))
    return [max((value for value in part if value is not None), default=None) for part in parts]


def _panel(top, title, unit, minutes, curves):
    values = [value for curve in curves.values() for value in curve if value is not None]
    step = _step(max(values, default=1) or 1)
    most = step * math.ceil((max(values, default=1) or 1) / step)
    last = max(minutes[-1], 1e-9)

    def x(minute):
        return LEFT + (WIDTH - LEFT - RIGHT) * minute / last

    def y(value):
        return top + HEIGHT * (1 - value / most)

    yield f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{title}, {unit}</text>'
    for i in range(round(most / step) + 1):
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(i * step):.1f}" y2="{y(i * step):.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y(i * step) + 4:.1f}" text-anchor="end">{i * step:g}</text>'
    across = _step(last)
    for i in range(int(last / across) + 1):
        yield f'<text x="{x(i * across):.1f}" y="{top + HEIGHT + 15}" text-anchor="middle">{i * across:g}</text>'
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        pairs = zip(minutes, curve)
        points = " ".join(f"{x(minute):.1f},{y(value):.1f}" for minute, value in pairs if value is not None)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
        yield f'<text x="{WIDTH - RIGHT + 8}" y="{top + 12 + 16 * number}" fill="{colour}">{name}</text>'


def svg(minutes, panels):
    """`panels`: (title, unit, {name of a curve: values, one for each of `minutes`})."""
    every = math.ceil(len(minutes) / POINTS)
    minutes = _thinned(minutes, every)
    height = TOP + len(panels) * (HEIGHT + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        title, unit, curves = panel
        curves = {name: _thinned(curve, every) for name, curve in curves.items()}
        lines += _panel(TOP + number * (HEIGHT + GAP), title, unit, minutes, curves)
    lines.append(f'<text x="{(WIDTH - RIGHT + LEFT) / 2}" y="{height - 8}" text-anchor="middle">minutes</text>')
    return "\n".join(lines) + "\n</svg>\n"
