# What C has in the place of the modules `opcodes` and `phases`: the same numbers as constants of the compiler. A module
# that cimports this file under their names, as in `from . cimport numbers as phases`, means these by `phases.OPEN`.

cdef enum:
    FIN = 0x80
    RSV1 = 0x40
    RSV2_RSV3 = 0x30
    OPCODE = 0x0F
    CONTROL = 0x08
    MASK = 0x80
    LENGTH = 0x7F
    SHORT = 125

cdef enum:
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

cdef enum:
    OPEN = 0
    CLOSE_SENT = 1
    CLOSE_RECEIVED = 2
    VIOLATED = 3
    CLOSE_DONE = 4
    FAILED = 5
    ENDED = 6
