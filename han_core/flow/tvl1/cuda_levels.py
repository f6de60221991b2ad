"""The kernels of the back end ``cuda`` between the sweeps: from level to level, the linearisation of a warp, the median
filter, and the flow that is written out.

They are launched for all slots after every sweep and return at once for those that have nothing to do.
"""

# ruff: noqa: ANN201, ANN202 (Triton reads the annotations of a kernel as its own)
import triton
import triton.language as tl

from han_core.flow.tvl1 import cuda_layout as layout

_PAIR, _LEVEL, _BUFFER = tl.constexpr(layout.PAIR), tl.constexpr(layout.LEVEL), tl.constexpr(layout.BUFFER)
_ACTION, _FILTER = tl.constexpr(layout.ACTION), tl.constexpr(layout.FILTER)
_OUT, _PLAN = tl.constexpr(layout.OUT), tl.constexpr(layout.PLAN)
_NOTHING, _RISE, _RELINEARISE = (tl.constexpr(n) for n in (layout.NOTHING, layout.RISE, layout.RELINEARISE))
_HEIGHT, _WIDTH, _STRIDE = tl.constexpr(layout.HEIGHT), tl.constexpr(layout.WIDTH), tl.constexpr(layout.STRIDE)
_IMAGE, _ACROSS, _DOWN = tl.constexpr(layout.IMAGE), tl.constexpr(layout.ACROSS), tl.constexpr(layout.DOWN)
_TABLE, _MARGIN = tl.constexpr(layout.TABLE), tl.constexpr(layout.MARGIN)


@triton.jit(do_not_specialize=["field", "pyramid"])
def prepare(
    images,
    state,
    data,
    out,
    plan,
    table,
    taps,
    shares,
    field,
    pyramid,
    to_pixels,
    step,
    enlarge,
    BLOCK: tl.constexpr,
):
    """Do what a slot's plan says before the next sweep, and write out the flow of the pair that it has finished.

    Grid: (blocks that share a slot's pixels, S).

    Args:
        taps, shares: of the interpolation from the coarser level, see :class:`~han_core.flow.tvl1.cuda_pool.Pool`.
        field, pyramid: F and P of the layout.
        to_pixels: theta / tau.
        step: tau / theta.
        enlarge: how much larger the flow is on the next finer level.
    """
    slot = tl.program_id(1)
    at = plan + slot * _PLAN
    action, finished = tl.load(at + _ACTION), tl.load(at + _OUT)
    # The median filter comes later and moves the fields once more.
    target = tl.load(at + _BUFFER) ^ tl.load(at + _FILTER)
    made = state + slot.to(tl.int64) * 12 * field + target * 6 * field
    old = state + slot.to(tl.int64) * 12 * field + (1 - target) * 6 * field
    if finished >= 0:
        _write_out(out, old, table, finished, step, BLOCK)
    if action != _NOTHING:
        level = tl.load(at + _LEVEL)
        here = table + level * _TABLE
        height, width, stride = tl.load(here + _HEIGHT), tl.load(here + _WIDTH), tl.load(here + _STRIDE)
        size = height * stride
        first = images + tl.load(at + _PAIR).to(tl.int64) * pyramid + tl.load(here + _IMAGE)
        coefficients = data + slot.to(tl.int64) * 3 * field
        for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
            index = start + tl.arange(0, BLOCK)
            inside = index < size
            y, x = index // stride, index % stride - _MARGIN
            seen = inside & (x >= 0) & (x < width)
            u1, u2 = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
            if action == _RELINEARISE:
                u1 = tl.load(made + index, mask=inside, other=0.0)
                u2 = tl.load(made + size + index, mask=inside, other=0.0)
            else:
                if action == _RISE:
                    u1, u2 = _enlarged(old, here, taps, shares, x, y, seen, enlarge)
                tl.store(made + index, u1, mask=inside)
                tl.store(made + size + index, u2, mask=inside)
                for k in tl.static_range(2, 6):
                    tl.store(made + k * size + index, tl.zeros([BLOCK], tl.float32), mask=inside)
            jx, jy, c = _linearised(first, first + height * width, height, width, x, y, u1, u2, seen, to_pixels, step)
            tl.store(coefficients + index, jx, mask=inside)
            tl.store(coefficients + size + index, jy, mask=inside)
            tl.store(coefficients + 2 * size + index, c, mask=inside)


@triton.jit
def _write_out(out, fields, table, finished, step, BLOCK: tl.constexpr):
    """U of the finest level as flow in pixels, into the place of the pair that is finished."""
    height, width, stride = tl.load(table + _HEIGHT), tl.load(table + _WIDTH), tl.load(table + _STRIDE)
    size = height * width
    target = out + finished.to(tl.int64) * 2 * size
    for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        index = start + tl.arange(0, BLOCK)
        inside = index < size
        source = fields + (index // width) * stride + index % width + _MARGIN
        tl.store(target + index, tl.div_rn(tl.load(source, mask=inside, other=0.0), step), mask=inside)
        u2 = tl.load(source + height * stride, mask=inside, other=0.0)
        tl.store(target + size + index, tl.div_rn(u2, step), mask=inside)


@triton.jit
def _enlarged(coarse, here, taps, shares, x, y, seen, enlarge):
    """U of the coarser level, interpolated linearly at the pixels (x, y) of this one."""
    height, width = tl.load(here + _TABLE + _HEIGHT), tl.load(here + _TABLE + _WIDTH)
    stride = tl.load(here + _TABLE + _STRIDE)
    across, down = tl.load(here + _ACROSS), tl.load(here + _DOWN)
    left = tl.load(taps + across + x, mask=seen, other=0)
    above = tl.load(taps + down + y, mask=seen, other=0)
    share = tl.load(shares + across + x, mask=seen, other=0.0)
    share_down = tl.load(shares + down + y, mask=seen, other=0.0)
    right, below = tl.minimum(left + 1, width - 1), tl.minimum(above + 1, height - 1)
    u1 = _bilinear(coarse + _MARGIN, stride, left, right, above, below, share, share_down, seen)
    u2 = _bilinear(coarse + height * stride + _MARGIN, stride, left, right, above, below, share, share_down, seen)
    return u1 * enlarge, u2 * enlarge


@triton.jit
def _bilinear(image, stride, left, right, above, below, share, share_down, seen):
    top = tl.load(image + above * stride + left, mask=seen, other=0.0) * (1.0 - share)
    top += tl.load(image + above * stride + right, mask=seen, other=0.0) * share
    bottom = tl.load(image + below * stride + left, mask=seen, other=0.0) * (1.0 - share)
    bottom += tl.load(image + below * stride + right, mask=seen, other=0.0) * share
    return top * (1.0 - share_down) + bottom * share_down


@triton.jit
def _weights(t, start, end):
    """Keys' cubic kernel, a = -0.75: weights of the taps at -1, 0, 1, 2 for a position t in [0, 1) behind a tap 0 at
    ``start``; taps before 0 or from ``end`` on weigh nothing."""
    s = 1.0 - t
    w0 = -0.75 * t * s * s
    w1 = tl.fma(tl.fma(1.25, t, -2.25), t * t, 1.0)
    w2 = tl.fma(tl.fma(1.25, s, -2.25), s * s, 1.0)
    w3 = -0.75 * s * t * t
    return (
        tl.where((start - 1 >= 0) & (start - 1 < end), w0, 0.0),
        tl.where((start >= 0) & (start < end), w1, 0.0),
        tl.where((start + 1 >= 0) & (start + 1 < end), w2, 0.0),
        tl.where((start + 2 >= 0) & (start + 2 < end), w3, 0.0),
    )


@triton.jit
def _linearised(first, second, height, width, x, y, u1, u2, seen, to_pixels, step):
    """The coefficients of the second image, warped by U, at the pixels (x, y).

    Taps outside the image are zero, as OpenCV's are. The derivatives are central differences of the image, interpolated
    like the image itself; at the edge they are half the one-sided difference. Value and derivatives together see 6 x 6
    pixels without the corners: sums over the columns first, six for the values, four for the derivative along x.
    """
    u1, u2 = u1 * to_pixels, u2 * to_pixels
    # Positions farther out than this read only zeros anyway.
    at_x = tl.minimum(tl.maximum(x + u1, -3.0), width + 1.0)
    at_y = tl.minimum(tl.maximum(y + u2, -3.0), height + 1.0)
    left, top = tl.floor(at_x), tl.floor(at_y)
    tx, ty = at_x - left, at_y - top
    left, top = left.to(tl.int32), top.to(tl.int32)
    across, down = _weights(tx, left, width), _weights(ty, top, height)
    value = tl.zeros_like(tx)
    gx, gy = value, value
    for j in tl.static_range(6):
        row = second + tl.minimum(tl.maximum(top - 2 + j, 0), height - 1) * width
        total, slope = tl.zeros_like(tx), tl.zeros_like(tx)
        p0 = _tap(row, left - 1, width, seen)
        p1 = _tap(row, left, width, seen)
        p2 = _tap(row, left + 1, width, seen)
        p3 = _tap(row, left + 2, width, seen)
        total = tl.fma(across[0], p0, tl.fma(across[1], p1, tl.fma(across[2], p2, across[3] * p3)))
        if j > 0 and j < 5:
            before, after = _tap(row, left - 2, width, seen), _tap(row, left + 3, width, seen)
            slope = tl.fma(across[0], p1 - before, tl.fma(across[1], p2 - p0, across[2] * (p3 - p1)))
            slope = tl.fma(across[3], after - p2, slope)
            value = tl.fma(down[j - 1], total, value)
            gx = tl.fma(down[j - 1], slope, gx)
        # The derivative along y at the tap of row j is half of row j + 1 less row j - 1.
        if j < 4:
            gy = tl.fma(-down[j], total, gy)
        if j > 1:
            gy = tl.fma(down[j - 2], total, gy)
    gx, gy = 0.5 * gx, 0.5 * gy
    constant = value - tl.fma(gx, u1, gy * u2) - tl.load(first + y * width + x, mask=seen, other=0.0)
    jx, jy = tl.where(seen, gx * to_pixels, 0.0), tl.where(seen, gy * to_pixels, 0.0)
    return jx, jy, tl.where(seen, constant, 0.0)


@triton.jit
def _tap(row, column, width, seen):
    """A pixel of a row; the row's ends are repeated outwards."""
    return tl.load(row + tl.minimum(tl.maximum(column, 0), width - 1), mask=seen, other=0.0)


@triton.jit(do_not_specialize=["field"])
def median(state, plan, table, field, SIDE: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr):
    """Put a SIDE x SIDE median filter on U of the slots whose plan says so, and carry q over, into the buffer that
    their next sweep starts from. The edge is repeated outwards. PLACES: the power of two from SIDE^2 on.

    Grid: (blocks that share a slot's pixels, S).
    """
    slot = tl.program_id(1)
    at = plan + slot * _PLAN
    if tl.load(at + _FILTER) > 0:
        here = table + tl.load(at + _LEVEL) * _TABLE
        height, width, stride = tl.load(here + _HEIGHT), tl.load(here + _WIDTH), tl.load(here + _STRIDE)
        size = height * stride
        buffer = tl.load(at + _BUFFER)
        source = state + slot.to(tl.int64) * 12 * field + (1 - buffer) * 6 * field
        target = state + slot.to(tl.int64) * 12 * field + buffer * 6 * field
        place = tl.arange(0, PLACES)[None, :]
        for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
            index = start + tl.arange(0, BLOCK)
            inside = index < size
            y, x = index // stride, index % stride - _MARGIN
            seen = inside & (x >= 0) & (x < width)
            window = _neighbour(y[:, None], x[:, None], place, height, width, stride, SIDE)
            taken = seen[:, None] & (place < SIDE * SIDE)
            for k in tl.static_range(2):
                values = tl.load(source + k * size + window, mask=taken, other=float("inf"))
                middle = tl.zeros([BLOCK], tl.float32)
                # The median is the value that fewer than half of them are below, and more than half not above.
                for n in range(SIDE * SIDE):
                    one = source + k * size + _neighbour(y, x, n, height, width, stride, SIDE)
                    value = tl.load(one, mask=seen, other=0.0)
                    below = tl.sum((values < value[:, None]).to(tl.int32), axis=1)
                    not_above = tl.sum((values <= value[:, None]).to(tl.int32), axis=1)
                    middle = tl.where((below <= SIDE * SIDE // 2) & (not_above > SIDE * SIDE // 2), value, middle)
                tl.store(target + k * size + index, tl.where(seen, middle, 0.0), mask=inside)
            for k in tl.static_range(2, 6):
                tl.store(target + k * size + index, tl.load(source + k * size + index, mask=inside), mask=inside)


@triton.jit
def _neighbour(y, x, place, height, width, stride, SIDE: tl.constexpr):
    """Where the n-th pixel of the window around (x, y) lies; the edge is repeated outwards."""
    row = tl.minimum(tl.maximum(y + place // SIDE - SIDE // 2, 0), height - 1)
    column = tl.minimum(tl.maximum(x + place % SIDE - SIDE // 2, 0), width - 1)
    return row * stride + column + _MARGIN
