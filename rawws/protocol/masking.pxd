# No bounds are checked behind these pointers: the callers own the lengths.
cimport cython

cpdef mask(bytearray buffer, Py_ssize_t start, Py_ssize_t stop, unsigned int key)

@cython.locals(
    octets="unsigned char *", key0="unsigned char", key1="unsigned char", key2="unsigned char", key3="unsigned char"
)
cpdef mask_octets(bytearray buffer, Py_ssize_t start, Py_ssize_t stop, unsigned int key)

@cython.locals(shift="int")
cpdef unsigned int rotate(unsigned int key, Py_ssize_t count)

cpdef bytes cut(bytearray buffer, Py_ssize_t start, Py_ssize_t stop)

@cython.locals(octets="unsigned char *")
cpdef bytes cut_octets(bytearray buffer, Py_ssize_t start, Py_ssize_t stop)

cpdef copy(bytearray buffer, Py_ssize_t at, bytes octets)

@cython.locals(target="unsigned char *", source="const unsigned char *", i=Py_ssize_t)
cpdef copy_octets(bytearray buffer, Py_ssize_t at, bytes octets)
