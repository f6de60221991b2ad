"""The inner loops of trajectories, compiled by Numba: starting, stepping, describing.

No integral histograms: with 33 bins a pixel they take most of the time, for sums of which few are asked for, and lose
digits. Instead the votes of rows are summed downwards over the height of a cell, at every row afresh (van Herk's
two-way sums: a window is the end of one block and the beginning of the next, both running sums), and across where a row
has cells of tracks. Nothing is ever subtracted.

Everything is in this one file because Numba's cache notices a change of the file a function is in, and of no other.
"""

import numpy as np

from han_core.devices import compiled

HOG, HOF, MBHX, MBHY, BINS = 0, 8, 17, 25, 33
"""Where the bins of each histogram begin among those of a pixel; ``hof`` has nine, its last for what does not move."""

CELLS = 4
"""Of a patch at one moment: two along x, two along y."""

VALUES = CELLS * BINS
"""Numbers that describe a track at one moment: hog, hof, mbhx, mbhy, each by cell in x, cell in y, bin."""

STARTS = (CELLS * HOF, CELLS * MBHX, CELLS * MBHY)
"""Where the second histogram and those after it begin among those numbers."""

_STILL = np.float32(0.4)
"""Pixels up to which flow counts as none."""

_FLOOR = np.float32(0.05)
"""Added to each entry of a histogram before it is normalised."""

_AT_ONCE = 4
"""Bins of a row that are summed along x together, so that they stay in the first cache."""

# (4 / pi) arctan t = t (c0 + c1 t^2 + ..) for t in [0, 1], to 1e-8, fitted for the least largest error.
_C0, _C1, _C2 = np.float32(1.273239400072391), np.float32(-0.42440380659732796), np.float32(0.2544684675955345)
_C3, _C4, _C5 = np.float32(-0.18030636551489052), np.float32(0.13367671771189404), np.float32(-0.09211703526549211)
_C6, _C7, _C8 = np.float32(0.050650994514801734), np.float32(-0.01833635960490693), np.float32(0.003127994416970291)


@compiled
def _difference(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    for x in range(len(out)):
        out[x] = np.float32(one[x]) - np.float32(other[x])


@compiled
def _gradient(image: np.ndarray, y: int, first: int, last: int, across: np.ndarray, down: np.ndarray) -> None:
    """[-1 0 1] derivatives of row y, columns first to last; the image goes on mirrored about its outermost pixels."""
    height, width = image.shape
    low, high = max(first, 1), max(min(last, width - 1), 1)
    _difference(image[y, low + 1 : high + 1], image[y, low - 1 : high - 1], across[low - first : high - first])
    if first == 0:
        across[0] = 0
    if last == width:
        across[width - 1 - first] = 0
    if 0 < y < height - 1:
        _difference(image[y + 1, first:last], image[y - 1, first:last], down)
    else:
        down[:] = 0


@compiled
def _split(across: np.ndarray, down: np.ndarray, parts: np.ndarray) -> None:
    """Share each vector's length between the two nearest of the eight directions, linearly in the angle.

    One of them is an axis, one a diagonal. ``parts`` (4, W): what goes to the axis, signed, if that is x; if it is y;
    to the diagonal of (1, 1), signed; to that of (-1, 1), signed. In each pair one is 0.
    """
    on_x, on_y, rising, falling = parts[0], parts[1], parts[2], parts[3]
    zero, tiny = np.float32(0), np.float32(1e-30)
    for x in range(len(across)):
        u, v = across[x], down[x]
        a, b = abs(u), abs(v)
        large, small = max(a, b), min(a, b)
        length = np.sqrt(u * u + v * v)
        t = small / max(large, tiny)
        k = t * t
        share = _C8 * k + _C7
        share = share * k + _C6
        share = share * k + _C5
        share = share * k + _C4
        share = share * k + _C3
        share = share * k + _C2
        share = share * k + _C1
        share = share * k + _C0
        diagonal = share * t * length
        axis = length - diagonal
        axis_x = axis if u >= zero else -axis
        axis_y = axis if v >= zero else -axis
        diagonal_up = diagonal if v >= zero else -diagonal
        wide = a >= b
        same = (u >= zero) == (v >= zero)
        on_x[x] = axis_x if wide else zero
        on_y[x] = zero if wide else axis_y
        rising[x] = diagonal_up if same else zero
        falling[x] = zero if same else diagonal_up


@compiled
def _part(part: np.ndarray, towards: np.ndarray, away: np.ndarray) -> None:
    zero = np.float32(0)
    for x in range(len(part)):
        towards[x] = max(part[x], zero)
        away[x] = max(-part[x], zero)


@compiled
def _vote(across: np.ndarray, down: np.ndarray, parts: np.ndarray, votes: np.ndarray) -> None:
    """Votes (8, W) of vectors for the directions 0, 45, .. 315 degrees, all of them at least 0."""
    _split(across, down, parts)
    _part(parts[0], votes[0], votes[4])
    _part(parts[2], votes[1], votes[5])
    _part(parts[1], votes[2], votes[6])
    _part(parts[3], votes[3], votes[7])


@compiled
def _moving(u: np.ndarray, v: np.ndarray, across: np.ndarray, down: np.ndarray, still: np.ndarray) -> None:
    """Flow where there is some, and 1 where there is none."""
    zero, one = np.float32(0), np.float32(1)
    for x in range(len(across)):
        moves = np.sqrt(u[x] * u[x] + v[x] * v[x]) > _STILL
        across[x] = u[x] if moves else zero
        down[x] = v[x] if moves else zero
        still[x] = zero if moves else one


@compiled
def _row(
    grey: np.ndarray, flow: np.ndarray, y: int, first: int, last: int, lines: np.ndarray, votes: np.ndarray
) -> None:
    """Votes (33, last - first) of the pixels of row y from column first on. ``lines`` (6, last - first): scratch."""
    across, down, parts = lines[0], lines[1], lines[2:]
    _gradient(grey, y, first, last, across, down)
    _vote(across, down, parts, votes[HOG:HOF])
    _gradient(flow[0], y, first, last, across, down)
    _vote(across, down, parts, votes[MBHX:MBHY])
    _gradient(flow[1], y, first, last, across, down)
    _vote(across, down, parts, votes[MBHY:BINS])
    _moving(flow[0, y, first:last], flow[1, y, first:last], across, down, votes[MBHX - 1])
    _vote(across, down, parts, votes[HOF : MBHX - 1])


@compiled
def _add(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    """No vector code where ``out`` lies on one of the others; for that there is :func:`_add_to`."""
    for i in range(len(out)):
        out[i] = one[i] + other[i]


@compiled
def _add_to(out: np.ndarray, values: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] += values[i]


@compiled
def _copy(values: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] = values[i]


@compiled
def _box(one: np.ndarray, other: np.ndarray, width: int, sums: np.ndarray, scratch: np.ndarray) -> None:
    """Sums over ``width`` numbers from each place on, of two rows together. What begins near the end, where no whole
    window is, means nothing.

    Windows of 1, 2, 4, .. numbers are made of each other. The last of them that fits ends up in ``sums``, and what is
    left of the width is made of the shorter ones on the way.

    ``scratch``: (3, length).
    """
    size = len(sums)
    here, there, rest = scratch[0, :size], scratch[1, :size], scratch[2, :size]
    window, done = 1, 0
    _add(one, other, here)
    while 2 * window <= width:
        if width & window:
            if done:
                _add_to(rest[: size - done], here[done:])
            else:
                _copy(here, rest)
            done += window
        out = sums if 4 * window > width else there
        _add(here[: size - window], here[window:], out[: size - window])
        here, there = out, here
        window *= 2
    if width == 1:
        _copy(here, sums)
    if done:
        _add_to(rest[: size - done], sums[done:])
        _copy(rest, sums)


@compiled
def _normalise(sums: np.ndarray, described: np.ndarray) -> None:
    """Add to ``described`` the roots of the L1-normalised histogram."""
    total = np.float32(0)
    for i in range(len(sums)):
        total += sums[i] + _FLOOR
    scale = np.float32(1) / np.sqrt(total)
    for i in range(len(sums)):
        described[i] += np.sqrt(sums[i] + _FLOOR) * scale


@compiled
def _normalise_all(sums: np.ndarray, described: np.ndarray) -> None:
    hof, mbhx, mbhy = STARTS
    _normalise(sums[:hof], described[:hof])
    _normalise(sums[hof:mbhx], described[hof:mbhx])
    _normalise(sums[mbhx:mbhy], described[mbhx:mbhy])
    _normalise(sums[mbhy:], described[mbhy:])


@compiled
def _gather(box: np.ndarray, place: int, cell: int, sums: np.ndarray) -> None:
    """Bins of a cell at a place of ``box`` (33, W), into where (132,) has them."""
    for b in range(8):
        sums[CELLS * HOG + 8 * cell + b] = box[HOG + b, place]
        sums[CELLS * MBHX + 8 * cell + b] = box[MBHX + b, place]
        sums[CELLS * MBHY + 8 * cell + b] = box[MBHY + b, place]
    for b in range(9):
        sums[CELLS * HOF + 9 * cell + b] = box[HOF + b, place]


def scratch_size(cell_height: int, width: int) -> int:
    """Floats that :func:`describe` needs for its own: votes of the rows of a cell, five further rows, six lines."""
    return ((cell_height + 5) * BINS + 6) * width


@compiled
def describe(
    grey: np.ndarray,
    flow: np.ndarray,
    patch: tuple[int, int],
    points: np.ndarray,
    slots: np.ndarray,
    ages: np.ndarray,
    described: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """Add to each track's description what its patch looks like in this frame (Wang & Schmid 2013, section 2).

    Args:
        grey: (H, W) uint8, the frame.
        flow: (2, H, W) float32, warped flow from it to the next one.
        patch: height and width of a patch, even and within the frame; it is centred at a point rounded to whole pixels
            and shifted back inside.
        points: (capacity, L + 1, 2) float32.
        slots: (n,) int32: the tracks in question.
        ages: (capacity,) int32: the steps each has done; its current point is that of this number.
        described: (capacity, 3, 132) float32, by cell in time.
        scratch: float32, :func:`scratch_size` of them.
    """
    count = len(slots)
    if count == 0:
        return
    height, width = grey.shape
    cell_height, cell_width = patch[0] // 2, patch[1] // 2
    steps = (points.shape[1] - 1) // 3
    left = np.empty(count, np.int32)
    top = np.empty(count, np.int32)
    first, last, begin, end = width, 0, height, 0
    for i in range(count):
        x, y = points[slots[i], ages[slots[i]], 0], points[slots[i], ages[slots[i]], 1]
        left[i] = min(max(int(np.rint(x)) - cell_width, 0), width - 2 * cell_width)
        top[i] = min(max(int(np.rint(y)) - cell_height, 0), height - 2 * cell_height)
        first, last = min(first, left[i]), max(last, left[i] + 2 * cell_width)
        begin, end = min(begin, top[i]), max(end, top[i] + 2 * cell_height)
    # Tracks by the row in which their patch begins: a list for each row.
    head = np.full(height, -1, np.int32)
    following = np.empty(count, np.int32)
    needed = np.zeros(height + 1, np.int32)
    for i in range(count):
        following[i] = head[top[i]]
        head[top[i]] = i
        needed[top[i]] += 1
        needed[top[i] + 2 * cell_height] -= 1
    for y in range(height):
        needed[y + 1] += needed[y]

    # All bins of a row lie one after the other, so that what is done to all is one loop.
    span = last - first
    size = BINS * span
    block = scratch[: cell_height * size].reshape(cell_height, size)
    rest = scratch[cell_height * size : (cell_height + 5) * size].reshape(5, size)
    running, box = rest[0], rest[1]
    cells = box.reshape(BINS, span)
    lines = scratch[-6 * span :].reshape(6, span)
    # Tracks of which the upper cells are known and the lower ones not yet: first in, first out.
    queue = np.empty((needed.max(), VALUES), np.float32)
    tail, front = 0, 0
    for j in range(cell_height):
        _row(grey, flow, begin + j, first, last, lines, block[j].reshape(BINS, span))
    for base in range(begin, end, cell_height):
        # block[j]: the votes of rows base + j .. base + cell_height - 1, summed. running: of those that follow, as far
        # as they were read. So the window of cell_height rows from base + j on is the sum of the two.
        for j in range(cell_height - 2, -1, -1):
            _add_to(block[j], block[j + 1])
        running[:] = 0
        for j in range(cell_height):
            y = base + j
            upper = head[y] if y < height else -1
            lower = head[y - cell_height] if y >= cell_height and y - cell_height < height else -1
            if upper >= 0 or lower >= 0:
                for place in range(0, size, _AT_ONCE * span):
                    some = slice(place, min(place + _AT_ONCE * span, size))
                    _box(block[j, some], running[some], cell_width, box[some], rest[2:])
                while lower >= 0:
                    sums = queue[front % len(queue)]
                    front += 1
                    _gather(cells, left[lower] - first, 1, sums)
                    _gather(cells, left[lower] - first + cell_width, 3, sums)
                    slot = slots[lower]
                    _normalise_all(sums, described[slot, ages[slot] // steps])
                    lower = following[lower]
                while upper >= 0:
                    sums = queue[tail % len(queue)]
                    tail += 1
                    _gather(cells, left[upper] - first, 0, sums)
                    _gather(cells, left[upper] - first + cell_width, 2, sums)
                    upper = following[upper]
            y += cell_height
            if y < end:
                if needed[y] > 0:
                    _row(grey, flow, y, first, last, lines, block[j].reshape(BINS, span))
                else:
                    block[j] = 0
                _add_to(running, block[j])


@compiled
def step(
    flow: np.ndarray,
    warped: np.ndarray,
    points: np.ndarray,
    moves: np.ndarray,
    slots: np.ndarray,
    ages: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move tracks along the flow at the nearest pixel.

    Args:
        flow, warped: (2, H, W) float32, as it is and without the camera's motion.
        points: (capacity, L + 1, 2) float32: gets the next point of each track.
        moves: (capacity, L, 2) float32: gets the warped displacement.
        slots: (n,) int32: the tracks in question.
        ages: (capacity,) int32: steps done; one more afterwards.

    Returns:
        Those that go on, those that have done all their steps, those that left the frame; each in the order of
        ``slots``.
    """
    height, width = flow.shape[1:]
    goes_on, finished, lost = np.empty_like(slots), np.empty_like(slots), np.empty_like(slots)
    a, b, c = 0, 0, 0
    for slot in slots:
        age = ages[slot]
        x, y = points[slot, age, 0], points[slot, age, 1]
        column = min(max(int(np.rint(x)), 0), width - 1)
        row = min(max(int(np.rint(y)), 0), height - 1)
        x += flow[0, row, column]
        y += flow[1, row, column]
        points[slot, age + 1, 0], points[slot, age + 1, 1] = x, y
        moves[slot, age, 0], moves[slot, age, 1] = warped[0, row, column], warped[1, row, column]
        ages[slot] = age + 1
        if not (0 < x < width and 0 < y < height):
            lost[c] = slot
            c += 1
        elif age + 1 == moves.shape[1]:
            finished[b] = slot
            b += 1
        else:
            goes_on[a] = slot
            a += 1
    return goes_on[:a], finished[:b], lost[:c]


@compiled
def grid_points(
    texture: np.ndarray, threshold: float, stride: int, points: np.ndarray, slots: np.ndarray, ages: np.ndarray
) -> np.ndarray:
    """Points of the grid at which a track may start: texture above the threshold, and no track in the cell.

    Args:
        texture: (H, W) float32: smaller eigenvalue of the structure tensor.
        stride: pixels of a cell's side; only whole cells count.
        points, slots, ages: of the tracks that are alive, as in :func:`step`.

    Returns:
        (m, 2) float32, row by row.
    """
    rows, columns = texture.shape[0] // stride, texture.shape[1] // stride
    free = np.ones((rows, columns), np.bool_)
    for i in range(len(slots)):
        slot = slots[i]
        column, row = int(points[slot, ages[slot], 0]) // stride, int(points[slot, ages[slot], 1]) // stride
        if row < rows and column < columns:
            free[row, column] = False
    found = np.empty((rows * columns, 2), np.float32)
    count = 0
    for i in range(rows):
        for j in range(columns):
            y, x = i * stride + stride // 2, j * stride + stride // 2
            if free[i, j] and texture[y, x] > threshold:
                found[count, 0], found[count, 1] = x, y
                count += 1
    return found[:count]
