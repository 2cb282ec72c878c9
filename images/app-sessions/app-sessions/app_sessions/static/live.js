// What is true now: the service tells each change over a WebSocket, so nothing is asked again and again.
import { socketAddress } from "./api.js";

const AGAIN_MS = 1000;
/** Codes with which the service closes: 4000 and HTTP's status. */
const NOT_SIGNED_IN = 4401;

export class Live {
  /** Calls `changed` after each change, and `signedOut` when the login has expired. */
  constructor(changed, signedOut) {
    this.sessions = new Map();
    this.slurm = { ok: true, message: "" };
    this.connected = false;
    this.known = false;
    this.everybody = false;
    this._changed = changed;
    this._signedOut = signedOut;
  }

  /** Listen, to one's own sessions or to everybody's. */
  open(everybody = this.everybody) {
    this.close();
    this.everybody = everybody;
    const socket = new WebSocket(socketAddress(`/api/app/events${everybody ? "?everybody=true" : ""}`));
    this._socket = socket;
    socket.onmessage = (event) => this._hear(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (this._socket !== socket) return;
      this.connected = false;
      if (event.code === NOT_SIGNED_IN) return void this._signedOut(event.reason);
      this._changed();
      this._timer = setTimeout(() => this.open(), AGAIN_MS);
    };
  }

  close() {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    socket?.close();
    this.connected = this.known = false;
  }

  /** Forget what this user saw: somebody else may be next. */
  forget() {
    this.close();
    this.sessions.clear();
    this.everybody = false;
  }

  /** Take a session that the API answered, unless the service has told it, and perhaps what came after. */
  put(session) {
    if (!this.connected || !this.sessions.has(session.id)) this.sessions.set(session.id, session);
    this._changed();
  }

  /** Show at once that a session is being ended, or that it is not after all. */
  mark(id, ending) {
    const session = this.sessions.get(id);
    if (session) this.sessions.set(id, { ...session, ending });
    this._changed();
  }

  drop(id) {
    this.sessions.delete(id);
    this._changed();
  }

  _hear(message) {
    if (message.type === "sessions") {
      this.sessions = new Map(message.sessions.map((session) => [session.id, session]));
      this.connected = this.known = true;
    } else if (message.type === "session") this.sessions.set(message.session.id, message.session);
    else if (message.type === "deleted") this.sessions.delete(message.id);
    else if (message.type === "slurm") this.slurm = message;
    this._changed(message);
  }

  /** The newest first. */
  list() {
    return [...this.sessions.values()].sort((one, other) => other.created_at.localeCompare(one.created_at));
  }
}
