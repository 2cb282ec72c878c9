// The service's API, with its own words where it refuses.

/** Nobody is signed in, or not any more; the message says which. */
export class SignedOut extends Error {}

/** The service, or the way to it, is away. */
export class Away extends Error {}

/** Ask; returns the answer's JSON, or null where there is none. */
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method, cache: "no-store", headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body),
    });
  } catch {
    throw new Away("The service does not answer. Is it running?");
  }
  const said = await answer.json().catch(() => null);
  const message = said?.error?.message;
  if (answer.status === 401 && path !== "/api/login") throw new SignedOut(said?.error?.code === "token_missing" ? "" : message);
  if (!answer.ok) throw new Error(message ?? `The service answered ${answer.status}.`);
  return said;
}

/** The address of a WebSocket of the service. */
export function socketAddress(path) {
  return new URL(path, location.href.replace(/^http/, "ws")).href;
}
