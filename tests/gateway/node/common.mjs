// What the scenarios share: clients of pusher-js and servers of `pusher`, as their documentation makes them.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
export const PusherJs = require("pusher-js");
export const PusherServer = require("pusher");

export const [given] = process.argv.slice(2).map((text) => JSON.parse(text));

export const server = (port, options = {}) =>
  new PusherServer({
    appId: given.app,
    key: given.key,
    secret: given.secret,
    host: "127.0.0.1",
    port: String(port),
    useTLS: false,
    encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString("base64"),
    ...options,
  });

// The application's own endpoints of authorization, in this process.
export const client = (port, { user, info = {}, watchlist, options = {}, auth } = {}) => {
  const signs = server(port);
  const pusher = new PusherJs(given.key, {
    cluster: "",
    wsHost: "127.0.0.1",
    wsPort: port,
    forceTLS: false,
    enabledTransports: ["ws"],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) => {
        const member = channelName.startsWith("presence-") ? { user_id: user, user_info: info } : undefined;
        callback(null, auth ?? signs.authorizeChannel(socketId, channelName, member));
      },
    },
    userAuthentication: {
      customHandler: ({ socketId }, callback) =>
        callback(null, signs.authenticateUser(socketId, { id: user, user_info: info, watchlist })),
    },
    ...options,
  });
  return pusher;
};

// Wait for a condition, and give up after some seconds.
export const until = async (what, condition, seconds = 20) => {
  const end = Date.now() + 1000 * seconds;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`it did not come: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

export const connected = async (pusher) => {
  await until("connected", () => pusher.connection.state === "connected");
  return pusher;
};

export const subscribed = async (pusher, name) => {
  const channel = pusher.subscribe(name);
  await until(`subscribed to ${name}`, () => channel.subscribed);
  return channel;
};

export const record = (emitter, ...names) => {
  const got = [];
  for (const name of names) emitter.bind(name, (data, metadata) => got.push([name, data, metadata]));
  return got;
};

export const equal = (what, found, expected) => {
  const [one, other] = [JSON.stringify(found), JSON.stringify(expected)];
  if (one !== other) throw new Error(`${what}: ${one}, expected ${other}`);
};

export const finish = () => {
  console.log("passed");
  process.exit(0);
};

process.on("unhandledRejection", (error) => {
  console.error(error);
  process.exit(1);
});
