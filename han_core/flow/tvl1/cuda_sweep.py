"""The kernel of the back end ``cuda`` that iterates: one warp goes down a strip of columns, without barriers and
without shared memory.

A lane holds two neighbouring columns, ``a`` and ``b``. The iterations of a sweep, four or six, follow each other a row
apart, so everything lives in registers: what an iteration needs of the row above is what it kept of the row before, of
the columns beside a lane's own one is shuffled in from the lanes beside, and the other is its own. Memory is read
once and written once for all of them, the next row while this one is computed.

Multiplications and additions are joined explicitly (``fma``), and launches say ``enable_fp_fusion=False``: the compiler
joins no others, so that versions of Triton, whose default for it has changed, give the same numbers.
1 / (1 + s) is rsqrt(1 + s)^2: one approximation instead of a division, off by a few units in the last place.
"""

# ruff: noqa: ANN201, ANN202, RUF005 (Triton reads the annotations of a kernel as its own, and no stars in tuples)
import triton
import triton.language as tl

from han_core.flow.tvl1 import cuda_layout as layout

_PAIR_LEVEL, _STEPS_LEFT = tl.constexpr(layout.LEVEL), tl.constexpr(layout.STEPS_LEFT)
_BUFFER, _PLAN = tl.constexpr(layout.BUFFER), tl.constexpr(layout.PLAN)
_HEIGHT, _WIDTH, _STRIDE = tl.constexpr(layout.HEIGHT), tl.constexpr(layout.WIDTH), tl.constexpr(layout.STRIDE)
_STRIPS, _SEGMENTS, _ROWS = tl.constexpr(layout.STRIPS), tl.constexpr(layout.SEGMENTS), tl.constexpr(layout.ROWS)
_TABLE, _MARGIN, _COLUMNS = (tl.constexpr(n) for n in (layout.TABLE, layout.MARGIN, layout.COLUMNS))
_UNROLL = tl.constexpr(2)  # rows in a row of the code, so that fewer values are moved from register to register


@triton.jit
def _primal(row, left1, left2, above1, above2, data, bound, on):
    """New U1, U2 of one column, and the sum of the squares of their updates."""
    u1, u2, q11, q12, q21, q22 = row
    jx, jy, c, m = data
    rho = tl.fma(jx, u1, tl.fma(jy, u2, c))
    force = tl.minimum(tl.maximum(rho * m, -bound), bound)
    du1 = tl.fma(force, jx, (q11 - left1) + (q12 - above1))
    du2 = tl.fma(force, jy, (q21 - left2) + (q22 - above2))
    return tl.fma(on, du1, u1), tl.fma(on, du2, u2), tl.fma(du1, du1, du2 * du2)


@triton.jit
def _dual(q1, q2, x, y, tau, on):
    """New q of one component of U, whose forward differences are x and y."""
    root = tl.rsqrt(tl.fma(on, tl.sqrt(tl.fma(x, x, y * y)), 1.0))
    shrink = root * root
    return tl.fma(tau, x, q1) * shrink, tl.fma(tau, y, q2) * shrink


@triton.jit
def _iteration(a, b, kept_a, kept_b, data_a, data_b, below, fixed, on, tau):
    """One iteration of a row as it comes by.

    Args:
        a, b: the row as the iteration before left it.
        kept_a, kept_b: the row above: its new U, and q as it was before this iteration.
        below: 1 where the row above has this one below it, else 0.
        fixed: what is the same for all rows, see :func:`_down`.
        on: 1, or 0 where the iteration is not wanted: then rows pass through as they are.
        tau: the same, times tau.

    Returns:
        The row above when the iteration is through with it; what is to be kept of this row; its squared updates.
    """
    right_a, right_b, before, after, bound, _flat = fixed
    _u1, _u2, q11a, q12a, q21a, q22a = a
    _u1, _u2, q11b, q12b, q21b, q22b = b
    v1a, v2a, p11a, p12a, p21a, p22a = kept_a
    v1b, v2b, p11b, p12b, p21b, p22b = kept_b
    w1a, w2a, error_a = _primal(
        a, tl.gather(q11b, before, 0), tl.gather(q21b, before, 0), p12a, p22a, data_a, bound, on
    )
    w1b, w2b, error_b = _primal(b, q11a, q21a, p12b, p22b, data_b, bound, on)
    x1a, x2a = tl.where(right_a, v1b - v1a, 0.0), tl.where(right_a, v2b - v2a, 0.0)
    x1b = tl.where(right_b, tl.gather(v1a, after, 0) - v1b, 0.0)
    x2b = tl.where(right_b, tl.gather(v2a, after, 0) - v2b, 0.0)
    n11a, n12a = _dual(p11a, p12a, x1a, (w1a - v1a) * below, tau, on)
    n21a, n22a = _dual(p21a, p22a, x2a, (w2a - v2a) * below, tau, on)
    n11b, n12b = _dual(p11b, p12b, x1b, (w1b - v1b) * below, tau, on)
    n21b, n22b = _dual(p21b, p22b, x2b, (w2b - v2b) * below, tau, on)
    return (
        (v1a, v2a, n11a, n12a, n21a, n22a),
        (v1b, v2b, n11b, n12b, n21b, n22b),
        (w1a, w2a, q11a, q12a, q21a, q22a),
        (w1b, w2b, q11b, q12b, q21b, q22b),
        error_a + error_b,
    )


@triton.jit
def _pair(pointer):
    """Two neighbouring floats by one load of eight bytes."""
    both = tl.load(pointer)
    return both.to(tl.int32).to(tl.float32, bitcast=True), (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _save(pointer, low, high, mask):
    """Two neighbouring floats by one store of eight bytes."""
    low = low.to(tl.uint32, bitcast=True).to(tl.uint64)
    high = high.to(tl.uint32, bitcast=True).to(tl.uint64)
    tl.store(pointer, ((high << 32) | low).to(tl.int64, bitcast=True), mask=mask)


@triton.jit
def _load_row(fields, data, size, at):
    u1a, u1b = _pair(fields + at)
    u2a, u2b = _pair(fields + (size + at))
    q11a, q11b = _pair(fields + (2 * size + at))
    q12a, q12b = _pair(fields + (3 * size + at))
    q21a, q21b = _pair(fields + (4 * size + at))
    q22a, q22b = _pair(fields + (5 * size + at))
    jxa, jxb = _pair(data + at)
    jya, jyb = _pair(data + (size + at))
    ca, cb = _pair(data + (2 * size + at))
    return (
        (u1a, u2a, q11a, q12a, q21a, q22a),
        (u1b, u2b, q11b, q12b, q21b, q22b),
        (jxa, jya, ca),
        (jxb, jyb, cb),
    )


@triton.jit
def _save_row(fields, size, at, a, b, mask):
    u1a, u2a, q11a, q12a, q21a, q22a = a
    u1b, u2b, q11b, q12b, q21b, q22b = b
    _save(fields + at, u1a, u1b, mask)
    _save(fields + (size + at), u2a, u2b, mask)
    _save(fields + (2 * size + at), q11a, q11b, mask)
    _save(fields + (3 * size + at), q12a, q12b, mask)
    _save(fields + (4 * size + at), q21a, q21b, mask)
    _save(fields + (5 * size + at), q22a, q22b, mask)


@triton.jit
def _with_length(data, flat):
    """The coefficients of a row with m = -1 / |J|^2: computed, it costs less than a fourth field would to be read."""
    jx, jy, c = data
    root = tl.rsqrt(tl.maximum(tl.fma(jx, jx, jy * jy), flat))
    return jx, jy, c, -(root * root)


@triton.jit
def _row(y, ahead, line, source, target, coefficients, rows, columns, fixed, wanted, STEPS: tl.constexpr):
    """Row y comes in, and the row STEPS above it leaves, as many iterations later.

    Args:
        ahead: row y, read while the one before was computed.
        line: for each iteration what it kept of the row that it was at last, that row's coefficients, whether there is
            a row above it and whether its updates count, and the sum of squared updates.
        wanted: for each iteration ``on`` and ``tau``.
    """
    top, bottom, height = rows
    column, half, core = columns
    flat = fixed[5]
    size = height * half
    a, b, data_a, data_b = ahead
    data_a, data_b = _with_length(data_a, flat), _with_length(data_b, flat)
    # The row after this one is on its way while this one is computed. Beyond the last row that is needed, any will do.
    ahead = _load_row(source, coefficients, size, tl.minimum(y + 1, height - 1) * half + column)
    below = ((y >= 1) & (y < height)).to(tl.float32)
    counts = ((y >= top) & (y < bottom)).to(tl.float32)
    moved = ()
    for k in tl.static_range(STEPS):
        kept_a, kept_b, last_a, last_b, last_below, last_counts, total = line[k]
        on, tau = wanted[k]
        a, b, kept_a, kept_b, error = _iteration(a, b, kept_a, kept_b, data_a, data_b, below, fixed, on, tau)
        moved = moved + ((kept_a, kept_b, data_a, data_b, below, counts, tl.fma(error, counts, total)),)
        # The next iteration is at the row that this one was at before.
        data_a, data_b, below, counts = last_a, last_b, last_below, last_counts
    done = y - STEPS
    # A condition a lane: the interpreter makes integers of a mask and a single condition.
    each = tl.zeros_like(column) + done
    _save_row(target, size, done * half + column, a, b, core & (each >= top) & (each < bottom))
    return ahead, moved


@triton.jit
def _down(
    source, target, coefficients, partial, rows, columns, fixed, wanted, LANES: tl.constexpr, STEPS: tl.constexpr
):
    """The rows ``top`` to ``bottom`` of one strip; pointers and sizes are of pairs of floats.

    What is read of other rows and columns than the strip needs may be anything finite: it moves inwards by one an
    iteration and does not come as far as what is written. At the image's edges ``fixed`` and ``below`` keep it out.

    Args:
        columns: the strip's lanes in a row, the length of a row, which lanes are written.
        fixed: whether a column has one to the right, for both columns of a lane; the lanes before and after; the bound
            of the data term's force; the |J|^2 below which a pixel is flat.
    """
    top, bottom, height = rows
    column, half, core = columns
    first = tl.maximum(top - STEPS, 0)
    zero = tl.zeros([LANES], tl.float32)
    fields, nothing = (zero, zero, zero, zero, zero, zero), (zero, zero, zero, zero)
    line = ()
    for _ in tl.static_range(STEPS):
        line = line + ((fields, fields, nothing, nothing, 0.0, 0.0, zero),)
    ahead = _load_row(source, coefficients, height * half, first * half + column)
    for y in range(first, bottom + STEPS, _UNROLL):
        for k in tl.static_range(_UNROLL):
            ahead, line = _row(y + k, ahead, line, source, target, coefficients, rows, columns, fixed, wanted, STEPS)
    for k in tl.static_range(STEPS):
        tl.store(partial + k, tl.sum(tl.where(core, line[k][6], 0.0)))


@triton.jit(do_not_specialize=["field", "parts"])
def sweep(state, data, partial, plan, table, field, parts, tau, bound, flat, LANES: tl.constexpr, STEPS: tl.constexpr):
    """The next iterations, up to STEPS, of every slot, from one of its buffers into the other. Launch with one warp.

    Grid: (parts, S). ``field`` is F, a multiple of 8; ``parts`` the largest number of parts (strips x segments) of any
    level. ``partial`` (S, parts, STEPS) receives each part's sum of squared updates of U, an iteration each.
    """
    CORE: tl.constexpr = _COLUMNS - 2 * STEPS
    part, slot = tl.program_id(0), tl.program_id(1)
    steps = tl.load(plan + slot * _PLAN + _STEPS_LEFT)
    level = table + tl.load(plan + slot * _PLAN + _PAIR_LEVEL) * _TABLE
    strips = tl.load(level + _STRIPS)
    segment, strip = part // strips, part % strips
    if (steps > 0) & (segment < tl.load(level + _SEGMENTS)):
        buffer = tl.load(plan + slot * _PLAN + _BUFFER)
        height, width, stride = tl.load(level + _HEIGHT), tl.load(level + _WIDTH), tl.load(level + _STRIDE)
        top = segment * tl.load(level + _ROWS)
        bottom = tl.minimum(top + tl.load(level + _ROWS), height)
        lane = tl.arange(0, LANES)
        x = strip * CORE + 2 * lane - _MARGIN
        # A strip writes all but what its neighbours write: they overlap by STEPS columns at either edge.
        begin = tl.zeros_like(lane) + tl.where(strip == 0, 0, STEPS)
        end = tl.zeros_like(lane) + tl.where(strip == strips - 1, _COLUMNS, _COLUMNS - STEPS)
        core = (x + _MARGIN < stride) & (2 * lane >= begin) & (2 * lane < end)
        columns = (strip * (CORE // 2) + lane, stride // 2, core)
        right_a, right_b = (x >= 0) & (x < width - 1), (x + 1 >= 0) & (x + 1 < width - 1)
        fixed = (right_a, right_b, tl.maximum(lane - 1, 0), tl.minimum(lane + 1, LANES - 1), bound, flat)
        wanted = ()
        for k in tl.static_range(STEPS):
            wanted = wanted + (((steps > k).to(tl.float32), tau * (steps > k).to(tl.float32)),)
        fields = state + slot.to(tl.int64) * 12 * field
        source = (fields + buffer * 6 * field).to(tl.pointer_type(tl.int64))
        target = (fields + (1 - buffer) * 6 * field).to(tl.pointer_type(tl.int64))
        coefficients = (data + slot.to(tl.int64) * 3 * field).to(tl.pointer_type(tl.int64))
        sums = partial + (slot * parts + part) * STEPS
        rows = (top, bottom, height)
        _down(source, target, coefficients, sums, rows, columns, fixed, wanted, LANES, STEPS)
