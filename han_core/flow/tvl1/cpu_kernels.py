"""The inner loops of the back end ``cpu``: LLVM vector code through Numba.

Numba's own loops over thirteen fields are compiled with pointer checks or not vectorised at all (0.38 ms an iteration
of a 340x256 pair at best). Here the loop over one row is written out as vector instructions in LLVM's portable form,
which runs on any CPU and takes 0.09 ms with AVX-512.

What lies in memory, all float32:

state
    (H + 1, 6, S): per row U1, U2, p11, p12, p21, p22. U = (tau / theta) u is the flow scaled so that the step size
    drops out of the dual update. p1 = (p11, p12) and p2 = (p21, p22) are the dual variables of Zach et al. 2007.
    S is the width rounded up to a multiple of 16; columns beyond the width stay zero. The last row is spare.
data
    (H, 4, S): per row Jx, Jy, c, m. J = (theta / tau) * gradient of the warped second image, c = rho at u = 0,
    m = -(tau / theta)^2 / |gradient|^2.
quads
    (H + 8, W + 8, 4): second image, its x and y derivatives, zero; four zero pixels on each side, as OpenCV takes
    pixels outside the image for zero.

Everything is in this one file because Numba's cache notices a change of the file a function is in, and of no other.
"""

from collections.abc import Callable

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from han_core.devices import compiled

BORDER = 4
"""Zero pixels around ``quads``: two that the cubic kernel reaches, two so that a clamped position reads only zeros."""

ALIGNMENT = 16
"""Rows are padded to a multiple of this many floats: one vector of the widest kind."""

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_FAST = ("fast",)


def _lanes() -> int:
    """Floats in the widest vector register of this machine."""
    features = llvmlite.binding.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx") else 4


LANES = _lanes()


class _Vector:
    """A vector of floats in LLVM code being written; arithmetic on it emits instructions."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value
        self.width = value.type.count

    def _emit(self, operation: str, other: "_Vector | float") -> "_Vector":
        other = self.constant(other) if isinstance(other, float) else other
        return _Vector(self.builder, getattr(self.builder, operation)(self.value, other.value, flags=_FAST))

    def __add__(self, other: "_Vector | float") -> "_Vector":
        return self._emit("fadd", other)

    def __sub__(self, other: "_Vector | float") -> "_Vector":
        return self._emit("fsub", other)

    def __mul__(self, other: "_Vector | float") -> "_Vector":
        return self._emit("fmul", other)

    def constant(self, value: float) -> "_Vector":
        return _Vector(self.builder, ir.Constant(self.value.type, [value] * self.width))

    def reciprocal(self) -> "_Vector":
        return self.constant(1.0)._emit("fdiv", self)

    def sqrt(self) -> "_Vector":
        name = f"llvm.sqrt.v{self.width}f32"
        return _Vector(self.builder, _call(self.builder, name, self.value.type, [self.value]))

    def clip(self, low: "_Vector", high: "_Vector") -> "_Vector":
        b = self.builder
        value = b.select(b.fcmp_ordered(">", self.value, low.value, flags=_FAST), self.value, low.value)
        value = b.select(b.fcmp_ordered("<", value, high.value, flags=_FAST), value, high.value)
        return _Vector(b, value)

    def where(self, mask: ir.Value) -> "_Vector":
        return _Vector(self.builder, self.builder.select(mask, self.value, self.constant(0.0).value))

    def shuffle(self, other: "_Vector", lanes: list[int]) -> "_Vector":
        """Lanes picked from this vector (0, 1, ..) and ``other`` (width, width + 1, ..)."""
        mask = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
        return _Vector(self.builder, self.builder.shuffle_vector(self.value, other.value, mask))

    def from_left(self, previous: "_Vector") -> "_Vector":
        """The values one column to the left, given the vector to the left."""
        return previous.shuffle(self, [self.width - 1 + i for i in range(self.width)])

    def from_right(self, following: "_Vector") -> "_Vector":
        """The values one column to the right, given the vector to the right."""
        return self.shuffle(following, [1 + i for i in range(self.width)])

    def total(self) -> ir.Value:
        """Sum of the lanes, in any order."""
        name = f"llvm.vector.reduce.fadd.v{self.width}f32"
        return _call(self.builder, name, _F32, [ir.Constant(_F32, 0.0), self.value], fastmath=_FAST)


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list, **options: object) -> ir.Value:
    """A call of one of LLVM's own functions."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments, **options)


def _splat(builder: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    """A vector of one scalar in every lane."""
    kind = ir.VectorType(value.type, width)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_I32, width), [0] * width))


def _load(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value, width: int) -> _Vector:
    at = builder.bitcast(builder.gep(pointer, [offset]), ir.VectorType(_F32, width).as_pointer())
    load = builder.load(at)
    load.align = 4
    return _Vector(builder, load)


def _store(vector: _Vector, pointer: ir.Value, offset: ir.Value) -> None:
    builder = vector.builder
    at = builder.bitcast(builder.gep(pointer, [offset]), vector.value.type.as_pointer())
    builder.store(vector.value, at).align = 4


def _row_kernel(primal: bool, dual: bool) -> Callable:
    """Write the kernel of one row: primal update of row y, dual update of row y - 1, or one of the two."""

    @intrinsic
    def kernel(typing, state, data, y, width, tau, bound):  # noqa: ANN202 (Numba's own protocol)
        signature = types.float32(state, data, types.int64, types.int64, types.float32, types.float32)

        def generate(context, b, signature, arguments):  # noqa: ANN202
            state, data, y, width, tau, bound = arguments
            state = context.make_array(signature.args[0])(context, b, state)
            data = context.make_array(signature.args[1])(context, b, data)
            stride = cgutils.unpack_tuple(b, state.shape)[2]

            def rows(base: ir.Value, row: ir.Value, count: int) -> list[ir.Value]:
                start = b.mul(b.mul(row, _I64(count)), stride)
                return [b.gep(base, [b.add(start, b.mul(stride, _I64(k)))]) for k in range(count)]

            here, coefficients = rows(state.data, y, 6), rows(data.data, y, 4)
            above = rows(state.data, b.sub(y, _I64(1)), 6)
            tau_, high = (_Vector(b, _splat(b, value, LANES)) for value in (tau, bound))
            low = high.constant(0.0) - high
            zero = high.constant(0.0)

            def step(x: ir.Value, carried: list[_Vector], last: bool) -> list[_Vector]:
                """One vector of columns from x on. ``carried``: p11, p21 of row y to the left; U1, U2 of row y - 1
                here, which are updated already; sum of squared updates."""
                left11, left21, above1, above2, error = carried
                if dual:
                    q11, q12, q21, q22 = (_load(b, above[k], x, LANES) for k in (2, 3, 4, 5))
                if primal:
                    u1, u2, p11, p12, p21, p22 = (_load(b, row, x, LANES) for row in here)
                    jx, jy, c, m = (_load(b, row, x, LANES) for row in coefficients)
                    force = ((jx * u1 + (jy * u2 + c)) * m).clip(low, high)
                    divergence1 = p11 - p11.from_left(left11) + p12
                    divergence2 = p21 - p21.from_left(left21) + p22
                    if dual:
                        divergence1, divergence2 = divergence1 - q12, divergence2 - q22
                    du1, du2 = tau_ * divergence1 + force * jx, tau_ * divergence2 + force * jy
                    error = du1 * du1 + (du2 * du2 + error)
                    u1, u2 = u1 + du1, u2 + du2
                    _store(u1, here[0], x)
                    _store(u2, here[1], x)
                    left11, left21 = p11, p21
                if dual:
                    right1, right2 = above1, above2
                    if not last:
                        following = b.add(x, _I64(LANES))
                        right1, right2 = (_load(b, row, following, LANES) for row in above[:2])
                    u1x, u2x = above1.from_right(right1) - above1, above2.from_right(right2) - above2
                    if last:  # no derivative from the last column on, so that all beyond the width stays zero
                        columns = ir.Constant(ir.VectorType(_I64, LANES), list(range(1, LANES + 1)))
                        has_right = b.icmp_signed("<", columns, _splat(b, b.sub(width, x), LANES))
                        u1x, u2x = u1x.where(has_right), u2x.where(has_right)
                    u1y, u2y = (u1 - above1, u2 - above2) if primal else (zero, zero)
                    shrink1 = ((u1x * u1x + u1y * u1y).sqrt() + 1.0).reciprocal()
                    shrink2 = ((u2x * u2x + u2y * u2y).sqrt() + 1.0).reciprocal()
                    _store((q11 + u1x) * shrink1, above[2], x)
                    _store((q12 + u1y) * shrink1, above[3], x)
                    _store((q21 + u2x) * shrink2, above[4], x)
                    _store((q22 + u2y) * shrink2, above[5], x)
                    above1, above2 = right1, right2
                return [left11, left21, above1, above2, error]

            start = [zero] * 5
            if dual:
                start[2:4] = (_load(b, row, _I64(0), LANES) for row in above[:2])
            # while x + LANES < width: whole vectors; then the last one, whole or not, with masks.
            before = b.block
            head, loop, tail = (b.append_basic_block(name) for name in ("head", "loop", "tail"))
            b.branch(head)
            b.position_at_end(head)
            x = b.phi(_I64)
            carried = [b.phi(zero.value.type) for _ in start]
            x.add_incoming(_I64(0), before)
            for phi, vector in zip(carried, start, strict=True):
                phi.add_incoming(vector.value, before)
            vectors = [_Vector(b, phi) for phi in carried]
            following = b.add(x, _I64(LANES))
            b.cbranch(b.icmp_signed("<", following, width), loop, tail)
            b.position_at_end(loop)
            results = step(x, vectors, last=False)
            x.add_incoming(following, b.block)
            for phi, vector in zip(carried, results, strict=True):
                phi.add_incoming(vector.value, b.block)
            b.branch(head)
            b.position_at_end(tail)
            return step(x, vectors, last=True)[4].total()

        return signature, generate

    return kernel


_first_row = _row_kernel(primal=True, dual=False)
_inner_row = _row_kernel(primal=True, dual=True)
_last_row = _row_kernel(primal=False, dual=True)


@compiled
def iterate(
    state: np.ndarray, data: np.ndarray, width: int, tau: float, bound: float, limit: float, count: int
) -> tuple[int, bool]:
    """Iterate in place until the summed squared update of U is at most ``limit``, but ``count`` times at most.

    One sweep over the rows does one iteration: when row y has its new U, row y - 1 has all that its dual update needs.

    Args:
        bound: The largest force, (tau / theta)^2 lambda theta.

    Returns:
        How many iterations were done, and whether the last one met the limit.
    """
    height = data.shape[0]
    tau = np.float32(tau)
    bound = np.float32(bound)
    for done in range(1, count + 1):
        error = np.float64(_first_row(state, data, 0, width, tau, bound))
        for y in range(1, height):
            error += np.float64(_inner_row(state, data, y, width, tau, bound))
        _last_row(state, data, height, width, tau, bound)
        if error <= limit:
            return done, True
    return count, False


def _cubic_weights(t: _Vector) -> _Vector:
    """The four weights of Keys' cubic kernel with a = -0.75 at the offset t in all four lanes, by Horner's rule."""
    a = -0.75
    powers = (  # of t, highest first; one number a weight
        (a, a + 2, -a - 2, -a),
        (-2 * a, -a - 3, 2 * a + 3, a),
        (a, 0.0, -a, 0.0),
        (0.0, 1.0, 0.0, 0.0),
    )
    result, *rest = (_Vector(t.builder, ir.Constant(t.value.type, list(row))) for row in powers)
    for row in rest:
        result = result * t + row
    return result


@intrinsic
def _sample(typing, quads, x, y, tx, ty, out, column):  # noqa: ANN202
    """Cubic interpolation of the four values of ``quads`` at (x + tx, y + ty), into ``out[column]``."""
    signature = types.void(quads, types.int64, types.int64, types.float32, types.float32, out, types.int64)

    def generate(context, b, signature, arguments):  # noqa: ANN202
        quads, x, y, tx, ty, out, column = arguments
        quads = context.make_array(signature.args[0])(context, b, quads)
        out = context.make_array(signature.args[5])(context, b, out)
        stride = b.mul(cgutils.unpack_tuple(b, quads.shape)[1], _I64(4))
        across, down = (_cubic_weights(_Vector(b, _splat(b, t, 4))) for t in (tx, ty))
        # The tap above and left of (x, y); four taps of four values are one load of sixteen floats.
        corner = b.add(b.mul(b.add(y, _I64(BORDER - 1)), stride), b.mul(b.add(x, _I64(BORDER - 1)), _I64(4)))
        total = None
        for j in range(4):
            taps = _load(b, quads.data, b.add(corner, b.mul(stride, _I64(j))), 16)
            weighted = taps * down.shuffle(down, [j] * 16)
            total = weighted if total is None else total + weighted
        total = total * across.shuffle(across, [i // 4 for i in range(16)])
        half = total.shuffle(total, list(range(8))) + total.shuffle(total, list(range(8, 16)))
        result = half.shuffle(half, [0, 1, 2, 3]) + half.shuffle(half, [4, 5, 6, 7])
        _store(result, out.data, b.mul(column, _I64(4)))
        return context.get_dummy_value()

    return signature, generate


@compiled
def fill_quads(image: np.ndarray, quads: np.ndarray) -> None:
    """Put an image (H, W) and its central differences into ``quads``; at the edge half the one-sided difference."""
    height, width = image.shape
    half = np.float32(0.5)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            before, after = max(x - 1, 0), min(x + 1, width - 1)
            quads[y + BORDER, x + BORDER, 0] = image[y, x]
            quads[y + BORDER, x + BORDER, 1] = half * (image[y, after] - image[y, before])
            quads[y + BORDER, x + BORDER, 2] = half * (image[below, x] - image[above, x])


@compiled
def linearise(first: np.ndarray, quads: np.ndarray, state: np.ndarray, data: np.ndarray, step: float) -> None:
    """Warp the second image by the flow in ``state`` and put its linearisation there into ``data``.

    ``step`` is tau / theta. Three loops a row, so that the compiler vectorises the first and the last.
    """
    height, width = first.shape
    step = np.float32(step)
    to_pixels = np.float32(1) / step
    smallest = np.float32(1.1920929e-07)  # below this |gradient|^2 OpenCV takes a pixel for flat
    low = np.float32(1 - BORDER)
    right, bottom = np.float32(width + 1), np.float32(height + 1)
    left, top = np.empty(width, np.int32), np.empty(width, np.int32)
    tx, ty = np.empty(width, np.float32), np.empty(width, np.float32)
    samples = np.empty((width, 4), np.float32)
    for y in range(height):
        row = np.float32(y)
        for x in range(width):
            at_x = min(max(np.float32(np.int32(x)) + state[y, 0, x] * to_pixels, low), right)
            at_y = min(max(row + state[y, 1, x] * to_pixels, low), bottom)
            whole_x, whole_y = np.floor(at_x), np.floor(at_y)
            left[x], top[x] = np.int32(whole_x), np.int32(whole_y)
            tx[x], ty[x] = at_x - whole_x, at_y - whole_y
        for x in range(width):
            _sample(quads, left[x], top[x], tx[x], ty[x], samples, x)
        for x in range(width):
            gx, gy = samples[x, 1], samples[x, 2]
            u1, u2 = state[y, 0, x] * to_pixels, state[y, 1, x] * to_pixels
            data[y, 0, x] = gx * to_pixels
            data[y, 1, x] = gy * to_pixels
            data[y, 2, x] = samples[x, 0] - gx * u1 - gy * u2 - first[y, x]
            data[y, 3, x] = -(step * step) / max(gx * gx + gy * gy, smallest)
