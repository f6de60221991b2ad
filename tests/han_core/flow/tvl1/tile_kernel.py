"""The kernel that iterated before the sweep did: tiles of pixels in registers, their edges exchanged by shuffles and
shared memory. The sweep is compared with it.

``state`` is (2, N, 6, H, W): two buffers of U1, U2, p11, p12, p21, p22 a pair, U = (tau / theta) u. ``data`` is
(N, 4, H, W): Jx, Jy = (theta / tau) gradient of the warped second image, c = rho at u = 0, m = -(tau / theta)^2 /
|gradient|^2. ``plan`` is (N, 4) int32: iterations to do, and the buffer that holds the pair's fields.
"""

import triton
import triton.language as tl

_BUFFER = tl.constexpr(1)


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
