// The types, as they are used; each @ts-expect-error is a mistake that they find.
import { connect, HubError, type Hub, type Json, type Publication } from "../../rawws/topics/js/rawws.js";

const hub: Hub = connect("/topics", { token: async () => "secret", transports: ["websocket", "poll"] });
hub.onstate = (event) => {
  if (event.state === "open") console.log(event.transport.length);
};

hub.addEventListener("state", (event) => {
  if (event.state === "refused") console.log(event.status.toFixed(), event.reason);
});
hub.ontoken = async ({ status }) => (status === 401 ? "another" : null);

interface Person {
  name: string;
  age?: number;
}
const person: Person = { name: "Ann" };
hub.subscribe("chat", { join: person });
connect("wss://example.com/topics", { WebSocket: globalThis.WebSocket });

const chat = hub.subscribe("chat", { since: "earliest", join: { name: "Ann" }, watch: true });
const news = hub.subscribe<string>("news/*", { pattern: true });
news.onmessage = ({ topic, data }) => console.log(topic, data.length);
chat.onmessage = ({ data, cursor }: Publication) => console.log(typeof data === "string" ? data : data.byteLength, cursor);
chat.addEventListener("message", ({ data }) => console.log(typeof data));
chat.addEventListener("error", ({ code }) => console.log(code));
chat.ongap = (cursor: string) => console.log(cursor);
chat.onpresence = ({ members, count, join }) => {
  const infos: Json[] = [...members.values()];
  console.log(infos, count, join?.id);
};
chat.onerror = (error: HubError) => console.log(error.code, error.reason);

export async function main(): Promise<void> {
  const { recovered }: { recovered: boolean } = await chat.ready;
  for await (const item of chat) {
    if (item.recovered === false) console.log("missed something", recovered);
    else console.log(item.data.length);
  }
  const cursor: string = await hub.publish("chat", new Uint8Array(3), { key: "a" });
  await hub.publish("board", { x: 1 }, { event: "move", exclude: true });
  for await (const item of hub.subscribe<{ x: number }>("board")) {
    if (item.recovered !== false) console.log(item.data.x.toFixed(), item.event?.length, item.user?.length);
  }
  const page = await hub.history("board", { limit: 10, before: cursor });
  console.log(page.publications[0]?.cursor, page.cursor.length, page.recovered);
  const sum: Json = await hub.call("add", [1, 2]);
  hub.oncall = async ({ name, data }) => (name === "sum" ? sum : data);
  const { members, count } = await hub.presence("chat");
  console.log(cursor, members[0]?.id, count);
  hub.close();
}

// @ts-expect-error there is no such transport
connect("/topics", { transports: ["telegraph"] });
// @ts-expect-error nothing is no message
void hub.publish("chat", undefined);
// @ts-expect-error there is no such option
void hub.publish("chat", "x", { exclud: true });
// @ts-expect-error what was said to be a move has no z
hub.subscribe<{ x: number }>("board").onmessage = ({ data }) => console.log(data.z);
// @ts-expect-error there is no such option
hub.subscribe("chat", { sinse: "earliest" });
// @ts-expect-error there is no such event
chat.addEventListener("mesage", () => 1);
// @ts-expect-error a token is no number
hub.ontoken = () => 7;
