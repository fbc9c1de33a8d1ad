// The live page: the status that comes every two seconds, to numbers, small curves and tables. No text of a client is ever
// HTML here. The key, where one is needed, is kept for this tab alone.

const POINTS = 60;
const LONGEST_WAIT = 10_000;
const SVG = "http://www.w3.org/2000/svg";
// Connections that are listed at once; and after how many seconds an event of a hook is late.
const LISTED = 50;
const LATE = 30;

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const element = (id) => document.getElementById(id);

const bytes = (value) => {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return `${number.format(value)} ${unit}`;
    value /= 1024;
  }
};

const milliseconds = (seconds) => `${number.format(seconds * 1000)} ms`;

// In the time of whoever looks, in the order of ISO 8601, which Sweden writes; of today without the date.
const moment = (seconds) => {
  const [date, time] = new Date(seconds * 1000).toLocaleString("sv").split(" ");
  return date === new Date().toLocaleDateString("sv") ? time : `${date} ${time}`;
};

const span = (seconds) => {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
};

// What the cards show: a name, where the status has it, and how it is written.
const CARDS = [
  ["WebSockets", (status) => status.connections, number.format],
  ["event streams", (status) => status.streams, number.format],
  ["long polls", (status) => status.polls, number.format],
  ["opened a second", (status) => status.rates.opened, number.format],
  ["published a second", (status) => status.rates.published, number.format],
  ["delivered a second", (status) => status.rates.delivered, number.format],
  ["received a second", (status) => status.rates.received, bytes],
  ["sent a second", (status) => status.rates.sent, bytes],
];

class Curve {
  #points = [];
  #line = document.createElementNS(SVG, "polyline");

  constructor() {
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 20`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.svg.append(this.#line);
  }

  add(value) {
    this.#points.push(value);
    if (this.#points.length > POINTS) this.#points.shift();
    const highest = Math.max(...this.#points) || 1;
    const start = POINTS - this.#points.length;
    const places = this.#points.map((point, at) => `${start + at},${(19 - (18 * point) / highest).toFixed(1)}`);
    this.#line.setAttribute("points", places.join(" "));
  }
}

const cards = CARDS.map(([name, value, written]) => {
  const item = document.createElement("li");
  const label = document.createElement("span");
  const shown = document.createElement("strong");
  const curve = new Curve();
  label.textContent = name;
  shown.textContent = "-";
  item.append(label, shown, curve.svg);
  element("numbers").append(item);
  return (status) => {
    shown.textContent = written(value(status));
    curve.add(value(status));
  };
});

// A table whose rows stay the same elements as long as they are about the same: so no focus is lost.
class Table {
  #rows = new Map();
  #body;

  constructor(id) {
    this.#body = element(id).tBodies[0];
  }

  show(items, key, fill) {
    const keys = new Set(items.map(key));
    for (const [known, row] of this.#rows) {
      if (!keys.has(known)) {
        row.remove();
        this.#rows.delete(known);
      }
    }
    items.forEach((item, at) => {
      let row = this.#rows.get(key(item));
      if (!row) {
        row = document.createElement("tr");
        this.#rows.set(key(item), row);
      }
      fill(row, item);
      if (this.#body.rows[at] !== row) this.#body.insertBefore(row, this.#body.rows[at] ?? null);
    });
  }
}

// Write the cells of a row, the first one its heading.
const write = (row, texts) => {
  texts.forEach((text, at) => {
    const cell = row.cells[at] ?? row.appendChild(document.createElement(at ? "td" : "th"));
    if (!at) cell.scope = "row";
    if (cell.textContent !== String(text)) cell.textContent = text;
    if (!at) cell.title = text;
  });
};

const workers = new Table("workers");
const topics = new Table("topics");
const slow = new Table("slow");
const apps = new Table("apps");
const hooks = new Table("hooks");
const backends = new Table("backends");
const deliveries = new Table("deliveries");
const connections = new Table("connections");

const stateOf = (worker) => {
  if (worker.busy) return "busy";
  if (worker.draining) return "draining";
  if (worker.degraded) return "backplane away";
  return worker.serving ? "serving" : "closed";
};

// Of many buttons with one text, each says what it is about to who does not see where it stands.
const button = (text, label, press) => {
  const made = document.createElement("button");
  made.textContent = text;
  made.ariaLabel = label;
  made.addEventListener("click", press);
  return made;
};

// The last cell of a row about a connection: what closes it.
const offer = (row, connection) => {
  if (row.button) return;
  row.button = button("Close", `Close ${connection.remote}`, () => kick(connection));
  row.insertCell().append(row.button);
};

// Of a breaker, in the order of its numbers.
const BREAKER = ["works", "the next call tries", "left alone for a while"];

// What a gateway is shown of: its instances, apps, hooks and backends.
const showGateway = (gateway) => {
  for (const section of document.querySelectorAll(".gateway")) section.hidden = !gateway;
  if (!gateway) return;
  element("no-apps").hidden = gateway.apps.length > 0;
  apps.show(
    gateway.apps,
    ({ app, face }) => `${app}/${face}`,
    (row, { app, face, ...counts }) => {
      const { connections: open, opened, refused, received, sent, requests } = counts;
      write(row, [app || "none that there is", face, ...[open, opened, refused, received, sent, requests].map(number.format)]);
    },
  );
  element("no-hooks").hidden = gateway.hooks.length > 0;
  hooks.show(
    gateway.hooks,
    ({ app, url }) => `${app} ${url}`,
    (row, { app, url, off, waiting, age, sent, lost, retries }) => {
      const state = off ? "off: it answered 410" : age > LATE ? "late" : "works";
      write(row, [url, app, state, number.format(waiting), span(age), ...[sent, lost, retries].map(number.format)]);
      row.cells[2].classList.toggle("bad", state !== "works");
      if (row.unfold) return;
      row.unfold = button("Deliveries", `Deliveries to ${url} of ${app}`, () => unfold({ app, url }, row));
      row.unfold.setAttribute("aria-expanded", "false");
      row.unfold.setAttribute("aria-controls", "delivered");
      const actions = document.createElement("div");
      actions.className = "actions";
      actions.append(
        button("Send again", `Send again what waits for ${url} of ${app}`, () => retry({ app, url })),
        button("Send a test", `Send a test to ${url} of ${app}`, () => test({ app, url }, row)),
        row.unfold,
      );
      row.insertCell().append(actions);
    },
  );
  listDeliveries();
  element("no-backends").hidden = gateway.backends.length > 0;
  backends.show(
    gateway.backends,
    ({ url }) => url,
    (row, { url, breaker, under_way: underWay, calls, failed }) => {
      write(row, [url, BREAKER[breaker], ...[underWay, calls, failed].map(number.format)]);
      row.cells[1].classList.toggle("bad", breaker > 0);
    },
  );
};

const show = (status) => {
  for (const card of cards) card(status);
  workers.show(
    status.workers,
    (worker) => worker.pid,
    (row, worker) => {
      write(row, [
        worker.worker, stateOf(worker), worker.pid, number.format(worker.connections), number.format(worker.streams),
        number.format(worker.polls), milliseconds(worker.lag),
      ]);
      row.cells[1].classList.toggle("bad", stateOf(worker) !== "serving");
      if (!row.curve) {
        row.curve = new Curve();
        row.insertCell().append(row.curve.svg);
      }
      row.curve.add(worker.lag);
    },
  );
  element("no-topics").hidden = status.topics.topics.length > 0;
  topics.show(
    status.topics.topics,
    (topic) => topic.topic,
    (row, topic) => write(row, [topic.topic, ...[topic.subscribers, topic.present, topic.held].map(number.format)]),
  );
  element("no-slow").hidden = status.slow.length > 0;
  slow.show(
    status.slow,
    (connection) => connection.id,
    (row, connection) => {
      const { remote, user, waiting, kind, path, worker, seconds } = connection;
      write(row, [remote, user, bytes(waiting), kind, path, worker, span(seconds)]);
      offer(row, connection);
    },
  );
  showGateway(status.gateway);
  const missing = status.expected - status.workers.length;
  const running = status.workers.length === 1 ? "1 process" : `${status.workers.length} processes`;
  say(missing ? `live: ${running}, ${missing} missing` : `live: ${running}`, missing > 0);
};

// What stands there already is not said again, and read out again.
const say = (text, bad) => {
  const state = element("state");
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("bad", bad);
};

const fields = () => {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
};

// What the server answers, or `error`, and why.
const ask = async (path, options) => {
  try {
    const answer = await fetch(path, options);
    const text = await answer.text();
    if (answer.ok) return JSON.parse(text);
    return { error: text.startsWith("{") ? JSON.parse(text).error : text || `the server answered ${answer.status}` };
  } catch (error) {
    return { error: error.message };
  }
};

const act = (path, what) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...fields() },
    body: JSON.stringify(what),
  });

// What came of what was asked of a hook.
const tell = (text, bad = false) => {
  element("asked").textContent = text;
  element("asked").classList.toggle("bad", bad);
};

// Send again to a hook what it did not take, before its time.
const retry = async (hook) => {
  const { error } = await act("v1/retry", hook);
  tell(error ? `not sent again: ${error}` : `what waits for ${hook.url} is sent again`, error);
};

// What came of a delivery, in words.
const outcomeOf = ({ status, error, outcome, again }) => {
  const came = status ?? error;
  if (outcome === "retry") return `${came}, sent again after ${span(again)}`;
  return outcome === "refused" ? `${came}, not sent again` : String(came);
};

const test = async (hook, row) => {
  tell(`a test is sent to ${hook.url}`);
  const { error, deliveries: sent } = await act("v1/test", hook);
  if (error) {
    tell(`no test was sent: ${error}`, true);
    return;
  }
  const came = sent.map((delivery) => `${outcomeOf(delivery)} after ${milliseconds(delivery.seconds)}`);
  tell(`test to ${hook.url}: ${came.join("; ")}`, sent.some(({ outcome }) => outcome !== "sent"));
  if (row.unfold.ariaExpanded === "true") listDeliveries();
  else unfold(hook, row);
};

// The hook whose deliveries are shown, and its row.
let unfolded = null;

const unfold = (hook, row) => {
  const same = unfolded?.row === row;
  if (unfolded) unfolded.row.unfold.ariaExpanded = "false";
  unfolded = same ? null : { hook, row };
  element("delivered").hidden = true;
  if (same) return;
  row.unfold.ariaExpanded = "true";
  element("deliveries-title").textContent = `Last deliveries to ${hook.url} of ${hook.app}`;
  listDeliveries();
};

const listDeliveries = async () => {
  if (!unfolded) return;
  const asked = unfolded;
  const { error, deliveries: found } = await ask(`v1/deliveries?${new URLSearchParams(asked.hook)}`, { headers: fields() });
  // Meanwhile another one may be shown, or none.
  if (asked !== unfolded) return;
  if (error) {
    tell(`deliveries are not shown: ${error}`, true);
    unfold(asked.hook, asked.row);
    return;
  }
  element("delivered").hidden = false;
  element("no-deliveries").hidden = found.length > 0;
  deliveries.show(
    found,
    ({ id, attempt, time }) => `${id} ${attempt} ${time}`,
    (row, delivery) => {
      const { time, events, count, attempt, seconds, answer, size, id } = delivery;
      const named = events.map(({ name, about }) => (about ? `${name} ${about}` : name));
      if (count > events.length) named.push(`and ${count - events.length} more`);
      const what = delivery.test ? "test" : named.join("\n");
      write(row, [moment(time), outcomeOf(delivery), what, attempt, milliseconds(seconds), answer, bytes(size), id]);
      for (const at of [1, 2, 5]) row.cells[at].classList.add("text");
      row.cells[1].classList.toggle("bad", delivery.outcome !== "sent");
    },
  );
};

const kick = async ({ id, remote }) => {
  if (!confirm(`Close the connection of ${remote}?`)) return;
  const { error } = await act("v1/kick", { id });
  if (error) say(`not closed: ${error}`, true);
  else if (element("listed").textContent) await list();
};

// What is listed is listed when it is asked for: it costs a look at all connections.
const list = async () => {
  const query = new URLSearchParams({ limit: LISTED, sort: element("sort").value, user: element("whose").value });
  const { error, total, connections: found } = await ask(`v1/connections?${query}`, { headers: fields() });
  if (error) {
    say(`not listed: ${error}`, true);
    return;
  }
  element("listed").textContent = `${found.length} of ${number.format(total)}`;
  connections.show(
    found,
    ({ id }) => id,
    (row, connection) => {
      const { remote, user, kind, path, seconds, waiting, sent, received, topics: count, latency } = connection;
      const sizes = [waiting, sent, received].map(bytes);
      write(row, [remote, user, kind, path, span(seconds), ...sizes, count, milliseconds(latency)]);
      offer(row, connection);
    },
  );
};

element("list").addEventListener("click", list);
element("whose").addEventListener("change", list);
element("sort").addEventListener("change", () => element("listed").textContent && list());

// Events of the stream: the field is always `data`, and a line each. An EventSource could not send the key.
const listen = async (body) => {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) show(JSON.parse(line.slice(6)));
  }
};

let wait = 0;
let current;

const look = async () => {
  current = new AbortController();
  try {
    const answer = await fetch("v1/stream", { headers: fields(), signal: current.signal });
    if (answer.status === 401) {
      element("wrong").textContent = sessionStorage.getItem("key") ? "That is not the key." : "";
      element("door").hidden = false;
      say("a key is needed", true);
      element("key").focus();
      return;
    }
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    wait = 0;
    await listen(answer.body);
    throw new Error("the stream ended");
  } catch (error) {
    // Nobody looks at a page that is hidden.
    if (document.hidden) return;
    wait = Math.min(LONGEST_WAIT, wait ? 2 * wait : 500);
    say(`not connected (${error.message}), trying again`, true);
    setTimeout(look, wait * (0.5 + Math.random() / 2));
  }
};

element("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", element("key").value);
  element("door").hidden = true;
  look();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) current.abort();
  else if (current.signal.aborted && element("door").hidden) look();
});

look();
