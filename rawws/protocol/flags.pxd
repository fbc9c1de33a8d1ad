# What objects that each connection has keep their flags in: C's own type of truth values takes one octet, Cython's `bint`
# four. Whatever is true is 1, as with `bint`, and Python gets True and False. Flags stand side by side, behind what takes
# four octets: what takes eight begins at a multiple of eight.
cdef extern from "<stdbool.h>":
    ctypedef bint flag "bool"
