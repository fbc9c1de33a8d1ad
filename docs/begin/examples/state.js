// Shows the state of a hub in the element of the class "state".
const STATES = { connecting: "Connecting", refused: "Not let in", closed: "Closed" };
const NAMES = { websocket: "WebSocket", stream: "event stream", poll: "long polling" };

export function show(hub) {
  const element = document.querySelector(".state");
  const tell = ({ state, transport }) => {
    element.dataset.state = state;
    element.textContent = state === "open" ? `Connected: ${NAMES[transport]}` : STATES[state];
  };
  hub.onstate = tell;
  tell(hub);
}
