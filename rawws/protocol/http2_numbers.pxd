# What C has in the place of the modules `http2_codes` and `http2_states`: the same numbers as constants of the compiler.
# A module that cimports this file under their names means these by `codes.DATA` and `states.OPEN`.

cdef enum:
    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9

cdef enum:
    ACK = 0x01
    END_STREAM = 0x01
    END_HEADERS = 0x04
    PADDED = 0x08
    HAS_PRIORITY = 0x20

cdef enum:
    IDLE = 0
    OPEN = 1
    HALF_CLOSED_LOCAL = 2
    HALF_CLOSED_REMOTE = 3
    CLOSED = 4
