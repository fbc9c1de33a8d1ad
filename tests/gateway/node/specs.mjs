// The integration specs of pusher-js, as its package has them, against a gateway. They say which cluster of Pusher they
// connect to; where that is, stands in the options of the client, and comes from here. So does the server that they ask.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { finish, given, server } from "./common.mjs";

const require = createRequire(import.meta.url);
const { build } = createRequire(new URL("../../javascript/package.json", import.meta.url))("esbuild");
const core = require("jasmine-core");
const jasmine = core.boot(core);
const package_ = fileURLToPath(new URL("node_modules/pusher-js", import.meta.url));
const [port, portOfTLS] = given.ports;

// What stands in its package as `integration_tests_server`: who may subscribe, and what publishes.
const library = server(port);
const decoded = (text) => Buffer.from(text, "base64").toString();
const application = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  let body = "";
  for await (const piece of request) body += piece;
  response.setHeader("Content-Type", "application/json");
  if (pathname === "/auth") {
    const form = new URLSearchParams(body);
    const socketId = form.get("socket_id");
    const member = {
      user_id: socketId,
      user_info: { name: `Integration ${socketId}`, email: `integration-${socketId}@example.com` },
    };
    response.end(JSON.stringify(library.authorizeChannel(socketId, form.get("channel_name"), member)));
  } else {
    const [channel, event, data] = ["channel", "event", "data"].map((name) => decoded(searchParams.get(name)));
    await library.trigger(channel, event, JSON.parse(data));
    response.end("{}");
  }
});
await new Promise((resolve) => application.listen(0, "127.0.0.1", resolve));

globalThis.hosts = { wsHost: "127.0.0.1", wsPort: port, wssPort: portOfTLS };
globalThis.api = `http://127.0.0.1:${application.address().port}`;

// In the place of what the specs leave to whoever builds them.
const BUILT = {
  pusher_integration: `
    const Pusher = require("core/pusher").default;
    module.exports = class extends Pusher {
      constructor(key, options) {
        super(key, { ...options, ...hosts });
      }
    };`,
  integration: `module.exports = { ...require("node/integration"), API_URL: api };`,
  testenv: `module.exports = "node";`,
  // For browsers, and for encrypted channels, of which there are no specs here.
  ...Object.fromEntries(
    ["dom/dependencies", "dom/dependency_loader", "@stablelib/base64", "@stablelib/utf8"].map((name) => [name, ""]),
  ),
};
const ENTRY = `
  require("core/pusher");
  const transports = [{ transport: "ws", forceTLS: true }, { transport: "ws", forceTLS: false }];
  require("./pusher_spec")(transports);
  require("./falling_back_spec")(transports);
  require("./timeout_configuration_spec")(transports);
  require("./transport_lists_spec")(transports);`;
const resolveDir = `${package_}/spec/javascripts/integration/core`;
const built = await build({
  stdin: { contents: ENTRY, resolveDir },
  bundle: true,
  platform: "node",
  write: false,
  logLevel: "error",
  resolveExtensions: [".ts", ".js"],
  nodePaths: ["src/runtimes/node", "src", "src/runtimes", "spec/javascripts/helpers"].map((at) => `${package_}/${at}`),
  define: Object.fromEntries(
    ["VERSION", "CDN_HTTP", "CDN_HTTPS", "DEPENDENCY_SUFFIX", "RUNTIME"].map((name) => [name, '"node"']),
  ),
  plugins: [
    {
      name: "built",
      setup({ onLoad, onResolve }) {
        const filter = new RegExp(`^(${Object.keys(BUILT).join("|")})$`);
        onResolve({ filter }, ({ path }) => ({ path, namespace: "built" }));
        // Not the file of JavaScript beside it, which esbuild would take.
        onResolve({ filter: /(^|\/)pusher$/ }, () => ({ path: `${package_}/src/core/pusher.ts` }));
        onLoad({ filter: /./, namespace: "built" }, ({ path }) => ({ contents: BUILT[path], resolveDir }));
      },
    },
  ],
});

// What they print is not the question.
const say = console.log;
for (const name of ["log", "info", "warn", "error"]) console[name] = () => {};

const failures = [];
let passed = 0;
const env = jasmine.getEnv();
env.configure({ random: false });
env.addReporter({
  specDone({ status, fullName, failedExpectations }) {
    passed += status === "passed";
    for (const { message } of failedExpectations) failures.push(`${fullName}: ${message}`);
  },
});
new Function("require", built.outputFiles[0].text)(require);
const { overallStatus } = await env.execute();
if (overallStatus !== "passed" || passed < given.least) {
  say(`${overallStatus}: ${passed} passed; ${failures.join("\n")}`);
  process.exit(1);
}
console.log = say;
finish();
