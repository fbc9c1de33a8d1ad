cimport cython

from rawws.protocol cimport numbers as phases
from .prepared cimport PreparedMessage
from .websocket cimport WebSocket

@cython.locals(ws=WebSocket, prepared=PreparedMessage)
cpdef broadcast(connections, message)
