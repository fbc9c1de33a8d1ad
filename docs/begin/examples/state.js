// Shows the state of a hub in the element of the class "state".
const NAMES = { websocket: "WebSocket", stream: "event stream", poll: "long polling" };

export function show(hub) {
  const element = document.querySelector(".state");
  const tell = ({ state, transport }) => {
    element.dataset.state = state;
    element.textContent = state === "open" ? `Connected: ${NAMES[transport]}` : "Connecting";
  };
  hub.onstate = tell;
  tell(hub);
}
