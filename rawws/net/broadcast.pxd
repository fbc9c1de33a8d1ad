cimport cython

from .prepared cimport Encoded
from .websocket cimport WebSocket

@cython.locals(ws=WebSocket, encoded=Encoded)
cpdef broadcast(connections, message)
