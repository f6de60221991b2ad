"""Triton kernels of the back end ``cuda``.

All fields are contiguous float32. ``state`` is (2, N, 6, H, W): two buffers of U1, U2, p11, p12, p21, p22 a pair, where
U = (tau / theta) u is the flow scaled so that the step size drops out of the dual update. ``data`` is (N, 4, H, W):
Jx, Jy = (theta / tau) gradient of the warped second image, c = rho at u = 0, m = -(tau / theta)^2 / |gradient|^2.

``plan`` is (N, 4) int32 and steers each pair on the device, so that no launch waits for the host:

=======  ===============================================================================================
steps    iterations to do in the next :func:`advance`; 0 when the pair is finished
buffer   which of the two buffers holds the pair's fields
done     iterations done in this warp
phase    RUNNING; REPEATING: the next launch repeats a part of the last one and is the last;
         CONVERGED or EXHAUSTED: finished, by the stopping rule or by the number of iterations
=======  ===============================================================================================
"""

# ruff: noqa: ANN201, ANN202 (Triton reads the annotations of a kernel as its own)
import triton
import triton.language as tl

STEPS_LEFT, BUFFER, DONE, PHASE = range(4)  # columns of the plan
_BUFFER, _DONE, _PHASE = tl.constexpr(BUFFER), tl.constexpr(DONE), tl.constexpr(PHASE)  # STEPS_LEFT is at + 0

RUNNING, REPEATING, CONVERGED, EXHAUSTED = 0, 1, 2, 3  # values of its phase
_REPEATING, _CONVERGED, _EXHAUSTED = tl.constexpr(REPEATING), tl.constexpr(CONVERGED), tl.constexpr(EXHAUSTED)


@triton.jit
def advance(
    state,
    data,
    partial,
    plan,
    height,
    width,
    tau,
    bound,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """``steps`` iterations of one tile of one pair, from the pair's buffer into the other one.

    Grid: (tiles, N). A tile is ROWS x COLUMNS pixels held in registers. Each iteration spoils one more pixel from its
    edge inwards, because what it needs from beyond is missing; so tiles overlap, and only the core, STEPS pixels in
    from each edge, is written. ``partial`` (N, tiles, STEPS) receives the core's sum of squared updates.
    """
    tile, tiles, pair, pairs = tl.program_id(0), tl.num_programs(0), tl.program_id(1), tl.num_programs(1)
    steps = tl.load(plan + pair * 4)
    if steps > 0:
        source = tl.load(plan + pair * 4 + _BUFFER)
        across = tl.cdiv(width, COLUMNS - 2 * STEPS)
        row = tl.arange(0, ROWS)[:, None]
        column = tl.arange(0, COLUMNS)[None, :]
        y = (tile // across) * (ROWS - 2 * STEPS) - STEPS + row
        x = (tile % across) * (COLUMNS - 2 * STEPS) - STEPS + column
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        core = inside & (row >= STEPS) & (row < ROWS - STEPS) & (column >= STEPS) & (column < COLUMNS - STEPS)
        has_right = inside & (x < width - 1)
        has_below = inside & (y < height - 1)
        size = height * width
        at = y * width + x
        fields = state + (source * pairs + pair).to(tl.int64) * 6 * size + at
        u1 = tl.load(fields, mask=inside, other=0.0)
        u2 = tl.load(fields + size, mask=inside, other=0.0)
        p11 = tl.load(fields + 2 * size, mask=inside, other=0.0)
        p12 = tl.load(fields + 3 * size, mask=inside, other=0.0)
        p21 = tl.load(fields + 4 * size, mask=inside, other=0.0)
        p22 = tl.load(fields + 5 * size, mask=inside, other=0.0)
        coefficients = data + pair.to(tl.int64) * 4 * size + at
        jx = tl.load(coefficients, mask=inside, other=0.0)
        jy = tl.load(coefficients + size, mask=inside, other=0.0)
        c = tl.load(coefficients + 2 * size, mask=inside, other=0.0)
        m = tl.load(coefficients + 3 * size, mask=inside, other=0.0)
        whole = tl.zeros([ROWS, COLUMNS], tl.int32)
        left = whole + tl.maximum(column - 1, 0)
        right = whole + tl.minimum(column + 1, COLUMNS - 1)
        above = whole + tl.maximum(row - 1, 0)
        below = whole + tl.minimum(row + 1, ROWS - 1)
        for k in range(steps):
            force = tl.minimum(tl.maximum((c + jx * u1 + jy * u2) * m, -bound), bound)
            divergence1 = p11 - tl.gather(p11, left, 1) + p12 - tl.gather(p12, above, 0)
            divergence2 = p21 - tl.gather(p21, left, 1) + p22 - tl.gather(p22, above, 0)
            du1 = tau * divergence1 + force * jx
            du2 = tau * divergence2 + force * jy
            error = tl.sum(tl.where(core, du1 * du1 + du2 * du2, 0.0))
            tl.store(partial + (pair * tiles + tile) * STEPS + k, error)
            u1 += du1
            u2 += du2
            u1x = tl.where(has_right, tl.gather(u1, right, 1) - u1, 0.0)
            u2x = tl.where(has_right, tl.gather(u2, right, 1) - u2, 0.0)
            u1y = tl.where(has_below, tl.gather(u1, below, 0) - u1, 0.0)
            u2y = tl.where(has_below, tl.gather(u2, below, 0) - u2, 0.0)
            shrink1 = 1.0 / (1.0 + tl.sqrt(u1x * u1x + u1y * u1y))
            shrink2 = 1.0 / (1.0 + tl.sqrt(u2x * u2x + u2y * u2y))
            p11 = (p11 + u1x) * shrink1
            p12 = (p12 + u1y) * shrink1
            p21 = (p21 + u2x) * shrink2
            p22 = (p22 + u2y) * shrink2
        fields = state + ((1 - source) * pairs + pair).to(tl.int64) * 6 * size + at
        tl.store(fields, u1, mask=core)
        tl.store(fields + size, u2, mask=core)
        tl.store(fields + 2 * size, p11, mask=core)
        tl.store(fields + 3 * size, p12, mask=core)
        tl.store(fields + 4 * size, p21, mask=core)
        tl.store(fields + 5 * size, p22, mask=core)


@triton.jit
def decide(partial, plan, tiles, limit, count, STEPS: tl.constexpr, TILES: tl.constexpr, STEPS2: tl.constexpr):
    """After an :func:`advance`: what each pair does next. Grid: (N,).

    The stopping rule holds for every single iteration, although several are done in a launch: if an iteration before
    the last one met the limit, the launch is repeated from its own start, which the other buffer still holds, with just
    that many iterations. The sums are taken in a fixed order, so that the same input gives the same bytes.
    """
    pair = tl.program_id(0)
    steps = tl.load(plan + pair * 4)
    if steps > 0:
        source = tl.load(plan + pair * 4 + _BUFFER)
        done = tl.load(plan + pair * 4 + _DONE)
        phase = tl.load(plan + pair * 4 + _PHASE)
        tile = tl.arange(0, TILES)[:, None]
        step = tl.arange(0, STEPS2)[None, :]
        at = (pair * tiles + tile) * STEPS + step
        errors = tl.sum(tl.load(partial + at, mask=(tile < tiles) & (step < steps), other=0.0), axis=0)
        index = tl.arange(0, STEPS2)
        needed = tl.min(tl.where((errors <= limit) & (index < steps), index + 1, STEPS2 + 1))
        if phase == _REPEATING:
            tl.store(plan + pair * 4, 0)
            tl.store(plan + pair * 4 + _BUFFER, 1 - source)
            tl.store(plan + pair * 4 + _DONE, done + steps)
            tl.store(plan + pair * 4 + _PHASE, _CONVERGED)
        elif needed < steps:
            tl.store(plan + pair * 4, needed)
            tl.store(plan + pair * 4 + _PHASE, _REPEATING)
        else:
            left = count - done - steps
            ends = (needed == steps) | (left <= 0)
            tl.store(plan + pair * 4, tl.where(ends, 0, tl.minimum(STEPS, left)))
            tl.store(plan + pair * 4 + _BUFFER, 1 - source)
            tl.store(plan + pair * 4 + _DONE, done + steps)
            tl.store(
                plan + pair * 4 + _PHASE, tl.where(needed == steps, _CONVERGED, tl.where(left <= 0, _EXHAUSTED, phase))
            )


@triton.jit
def _weight(t, i: tl.constexpr):
    """Keys' cubic kernel, a = -0.75: weight of tap i (0 to 3, at -1 to 2) for a position t in [0, 1)."""
    s = 1.0 - t
    if i == 0:
        return -0.75 * t * s * s
    if i == 1:
        return (1.25 * t - 2.25) * t * t + 1.0
    if i == 2:
        return (1.25 * s - 2.25) * s * s + 1.0
    return -0.75 * s * t * t


@triton.jit
def linearise(first, second, state, data, plan, height, width, step, BLOCK: tl.constexpr):
    """Warp the second image by the flow in the pair's buffer and put its linearisation there into ``data``.

    Grid: (blocks of BLOCK pixels, N). ``first``, ``second``: (N, H, W). Taps outside the image are zero, as OpenCV's
    are. The derivatives are central differences of the image, interpolated like the image itself; at the edge they
    are half the one-sided difference.
    """
    pair, pairs = tl.program_id(1), tl.num_programs(1)
    size = height * width
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    x, y = at % width, at // width
    source = tl.load(plan + pair * 4 + _BUFFER)
    fields = state + (source * pairs + pair).to(tl.int64) * 6 * size + at
    u1 = tl.load(fields, mask=inside, other=0.0) / step
    u2 = tl.load(fields + size, mask=inside, other=0.0) / step
    # Positions farther out than this read only zeros anyway.
    at_x = tl.minimum(tl.maximum(x + u1, -3.0), width + 1.0)
    at_y = tl.minimum(tl.maximum(y + u2, -3.0), height + 1.0)
    left, top = tl.floor(at_x), tl.floor(at_y)
    tx, ty = at_x - left, at_y - top
    left, top = left.to(tl.int32) - 1, top.to(tl.int32) - 1
    image = second + pair.to(tl.int64) * size
    value = tl.zeros([BLOCK], tl.float32)
    gx = tl.zeros([BLOCK], tl.float32)
    gy = tl.zeros([BLOCK], tl.float32)
    for j in tl.static_range(4):
        for i in tl.static_range(4):
            row, column = top + j, left + i
            seen = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = _weight(ty, j) * _weight(tx, i)
            here = image + row * width + column
            value += weight * tl.load(here, mask=seen, other=0.0)
            east = tl.load(here + tl.where(column < width - 1, 1, 0), mask=seen, other=0.0)
            west = tl.load(here - tl.where(column > 0, 1, 0), mask=seen, other=0.0)
            gx += weight * 0.5 * (east - west)
            south = tl.load(here + tl.where(row < height - 1, width, 0), mask=seen, other=0.0)
            north = tl.load(here - tl.where(row > 0, width, 0), mask=seen, other=0.0)
            gy += weight * 0.5 * (south - north)
    coefficients = data + pair.to(tl.int64) * 4 * size + at
    constant = value - gx * u1 - gy * u2 - tl.load(first + pair.to(tl.int64) * size + at, mask=inside, other=0.0)
    # Below this |gradient|^2 OpenCV takes a pixel for flat.
    length = tl.maximum(gx * gx + gy * gy, 1.1920929e-07)
    tl.store(coefficients, gx / step, mask=inside)
    tl.store(coefficients + size, gy / step, mask=inside)
    tl.store(coefficients + 2 * size, constant, mask=inside)
    tl.store(coefficients + 3 * size, -step * step / length, mask=inside)
