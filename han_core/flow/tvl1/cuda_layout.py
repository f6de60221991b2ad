"""What the kernels of the back end ``cuda`` and their host agree on: where things lie in memory, and what a plan says.

All fields are float32. A pool has S slots, each with a pair in work on its own level of its own pyramid. F is the
number of elements of a field on the finest level, margins included.

state
    (S, 2, 6, F): two buffers of U1, U2, q11, q12, q21, q22 a slot. U = (tau / theta) u is the flow scaled so that the
    step size drops out of the dual update; q = tau p are the dual variables scaled so that it drops out of the
    primal one. A field of the level in work is (height, stride), the first at the start of the buffer, the others
    behind it without gaps.
data
    (S, 3, F), fields as those of the state: Jx, Jy = (theta / tau) gradient of the warped second image, c = rho at
    u = 0.
    A row of a field begins with MARGIN zeros, and ends with zeros up to a multiple of ALIGNMENT.
images
    (room, P): the pyramids of both images of every pair that is waiting or in work, level after level without margins.
out
    (room, 2, height, width): the flow found, in pixels.
plan
    (S, PLAN) int32: what each slot is at, see the columns below.
control
    (3,) int32: the next pair to be taken, the number of pairs, the number of those that are done.
"""

MARGIN = 2
"""Columns of zeros left of a field: what is beyond the first column reads zero there, without a mask."""
ALIGNMENT = 8
"""Elements: rows begin at whole sectors (32 bytes) of the memory."""

COLUMNS = 64
"""Columns of a strip: two for each of the 32 lanes of a warp. Each iteration of a sweep spoils one more of them at
either edge, so strips overlap."""

# Columns of the plan.
PAIR = 0
"""Index of the pair in work; -1 in an empty slot."""
LEVEL = 1
"""Of the pyramid; 0 is the finest."""
WARP = 2
"""The warp in work; the number of warps stands for the settling iterations after the last one."""
STEPS_LEFT = 3
"""Iterations of the next sweep; 0 in an empty slot."""
DONE = 4
"""Iterations done in this warp."""
PHASE = 5
"""REPEATING: the next sweep repeats a part of the last one, and is the last of its warp; else RUNNING."""
BUFFER = 6
"""Which of the two buffers holds the fields that the next sweep starts from."""
ACTION = 7
"""What has to be prepared before the next sweep: NOTHING, START, RISE or RELINEARISE."""
FILTER = 8
"""1 where the median filter comes before the next sweep; it moves the fields to the other buffer."""
OUT = 9
"""A pair that has just been finished, whose flow is to be written out; else -1."""
PLAN = 10

RUNNING, REPEATING = 0, 1
NOTHING, START, RISE, RELINEARISE = 0, 1, 2, 3

# Columns of the table of levels, (levels, TABLE) int32.
HEIGHT, WIDTH, STRIDE = 0, 1, 2
STRIPS, SEGMENTS, ROWS = 3, 4, 5
"""A sweep cuts a level into strips of columns and segments of so many rows."""
IMAGE = 6
"""Where the first image begins in a pyramid; the second one lies behind it."""
ACROSS, DOWN = 7, 8
"""Where the interpolation from the coarser level begins in the tables of taps and shares, for columns and rows."""
TABLE = 9
