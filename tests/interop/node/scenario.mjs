// The scenario's messages (see ../scenario.py) and their digests, for node and for browsers.

const encoder = new TextEncoder();

// Binary contents without a short period; scenario.py has the same formula.
export function octets(length) {
  return Uint8Array.from({ length }, (_, index) => Math.floor((index * index) / 7) % 256);
}

export function messages(scenario) {
  const texts = scenario.texts.map(([unit, count]) => unit.repeat(count));
  return [...texts, ...scenario.binaries.map(octets)];
}

export function compressible(scenario) {
  const [unit, count] = scenario.compressible;
  return unit.repeat(count);
}

// Kind, length in bytes and SHA-256 of a string or of bytes.
export async function digest(message) {
  const text = typeof message === "string";
  const data = text ? encoder.encode(message) : new Uint8Array(message);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const hex = Array.from(hash, (octet) => octet.toString(16).padStart(2, "0")).join("");
  return `${text ? "text" : "binary"} ${data.length} ${hex}`;
}
