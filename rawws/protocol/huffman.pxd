cimport cython

cdef int EOS
cdef list CODES
cdef list LENGTHS
cdef list SHORT_SYMBOLS
cdef list SHORT_LENGTHS
cdef list FIRST
cdef list COUNT
cdef list OFFSET
cdef list ORDER

@cython.locals(bits=Py_ssize_t, octet="unsigned char")
cpdef Py_ssize_t huffman_size(bytes octets) except -1
@cython.locals(encoded=bytearray, bits="unsigned long long", count=int, octet="unsigned char", length=int)
cpdef bytes encode_huffman(bytes octets)
@cython.locals(
    decoded=bytearray, bits="unsigned long long", count=int, window="unsigned int", length=int, symbol=int,
    one="unsigned long long"
)
cpdef bytes decode_huffman(bytes octets, Py_ssize_t start, Py_ssize_t end)
@cython.locals(length=int)
cpdef int long_length(unsigned int window) except -1
