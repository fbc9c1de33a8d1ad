# What C has in the place of masking.py: the same functions. frames.pxd and others cimport this file
# under the name `masking`, so `masking.place` in frames.py is this function in the compiled twin. No bounds are checked
# behind these pointers: the callers own the lengths. A text of ASCII is unmasked straight into its str, and sent
# straight from it.
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8String

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Looked at so many octets at a time, a long text that is not ASCII is given up early. A multiple of four. */
    #define RAWWS_BLOCK 4096

    static inline void rawws_keys(unsigned char *keys, uint32_t key) {
        keys[0] = keys[4] = (unsigned char)key;
        keys[1] = keys[5] = (unsigned char)(key >> 8);
        keys[2] = keys[6] = (unsigned char)(key >> 16);
        keys[3] = keys[7] = (unsigned char)(key >> 24);
    }

    /* Write `count` octets of `from`, masked, at `to`, which may be the same place; tell whether all became ASCII. */
    static inline int rawws_mask(unsigned char *to, const unsigned char *from, Py_ssize_t count, uint32_t key) {
        unsigned char keys[8];
        uint64_t words[4], word, seen = 0;
        rawws_keys(keys, key);
        memcpy(&word, keys, 8);
        for (; count >= 32; count -= 32, from += 32, to += 32) {
            memcpy(words, from, 32);
            words[0] ^= word;
            words[1] ^= word;
            words[2] ^= word;
            words[3] ^= word;
            seen |= words[0] | words[1] | words[2] | words[3];
            memcpy(to, words, 32);
        }
        for (; count >= 8; count -= 8, from += 8, to += 8) {
            memcpy(words, from, 8);
            words[0] ^= word;
            seen |= words[0];
            memcpy(to, words, 8);
        }
        for (Py_ssize_t i = 0; i < count; i++) {
            to[i] = from[i] ^ keys[i & 3];
            seen |= to[i];
        }
        return (seen & 0x8080808080808080u) == 0;
    }

    static PyObject *rawws_text(unsigned char *octets, Py_ssize_t count, uint32_t key) {
        /* The interpreter has its own str of one character, and of none. */
        if (count > 1) {
            PyObject *text = PyUnicode_New(count, 127);
            unsigned char *data;
            Py_ssize_t at = 0;
            if (text == NULL)
                return NULL;
            data = PyUnicode_1BYTE_DATA(text);
            while (at < count) {
                Py_ssize_t block = count - at < RAWWS_BLOCK ? count - at : RAWWS_BLOCK;
                if (!rawws_mask(data + at, octets + at, block, key))
                    break;
                at += block;
            }
            if (at >= count)
                return text;
            Py_DECREF(text);
        }
        if (key)
            rawws_mask(octets, octets, count, key);
        return PyUnicode_DecodeUTF8((const char *)octets, count, NULL);
    }

    static inline int rawws_is_ascii(PyObject *text) {
        return PyUnicode_CheckExact(text) && PyUnicode_IS_COMPACT_ASCII(text);
    }

    /* Where the octets are of bytes, of a bytearray, or of a str of ASCII; NULL for anything else. */
    static inline unsigned char *rawws_octets(PyObject *source) {
        if (rawws_is_ascii(source))
            return (unsigned char *)PyUnicode_1BYTE_DATA(source);
        if (PyBytes_CheckExact(source))
            return (unsigned char *)PyBytes_AS_STRING(source);
        if (PyByteArray_CheckExact(source))
            return (unsigned char *)PyByteArray_AS_STRING(source);
        return NULL;
    }

    static inline uint32_t rawws_key(const unsigned char *octets) {
        return (uint32_t)octets[0] | (uint32_t)octets[1] << 8 | (uint32_t)octets[2] << 16 | (uint32_t)octets[3] << 24;
    }
    """
    bint rawws_mask(unsigned char *to, const unsigned char *source, Py_ssize_t count, unsigned int key) noexcept
    str rawws_text(unsigned char *octets, Py_ssize_t count, unsigned int key)
    unsigned char *rawws_octets(object source) noexcept
    bint rawws_is_ascii(object text) noexcept
    unsigned int rawws_key(const unsigned char *octets) noexcept
    void *memcpy(void *to, const void *source, size_t count) noexcept


cdef inline unsigned int read_key(bytearray buffer, Py_ssize_t at) noexcept:
    return rawws_key(<unsigned char *>PyByteArray_AS_STRING(buffer) + at)


cdef inline unsigned int rotate(unsigned int key, Py_ssize_t count) noexcept:
    cdef int shift = 8 * (count & 3)
    return key if shift == 0 else key >> shift | key << (32 - shift)


cdef inline bytes cut(bytearray buffer, Py_ssize_t start, Py_ssize_t stop):
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer) + start, stop - start)


cdef inline bytes unmask(bytearray buffer, Py_ssize_t start, Py_ssize_t stop, unsigned int key):
    cdef bytes payload
    if key == 0:
        return cut(buffer, start, stop)
    payload = PyBytes_FromStringAndSize(NULL, stop - start)
    rawws_mask(rawws_octets(payload), rawws_octets(buffer) + start, stop - start, key)
    return payload


cdef inline str unmask_text(bytearray buffer, Py_ssize_t start, Py_ssize_t stop, unsigned int key):
    return rawws_text(rawws_octets(buffer) + start, stop - start, key)


cdef inline object encode(object text):
    # Its characters are its octets.
    return text if rawws_is_ascii(text) else PyUnicode_AsUTF8String(text)


cdef inline bytes octets_of(object payload):
    return PyUnicode_AsUTF8String(payload) if rawws_is_ascii(payload) else payload


cdef inline object blank(Py_ssize_t length):
    # Bytes that nobody else has yet can be written to. Nothing is written before the octets come: what a header claims
    # takes no memory.
    return PyBytes_FromStringAndSize(NULL, length)


cdef inline bytes sealed(object target):
    return <bytes>target


cdef inline int place(
    object target, Py_ssize_t at, object source, Py_ssize_t start, Py_ssize_t stop, unsigned int key
) except -1:
    cdef unsigned char *to = rawws_octets(target)
    cdef unsigned char *octets = rawws_octets(source)
    if to is NULL or octets is NULL:
        raise TypeError(f"a payload is {type(source).__name__}, allowed are bytes")
    if key:
        rawws_mask(to + at, octets + start, stop - start, key)
    else:
        memcpy(to + at, octets + start, stop - start)
    return 0
